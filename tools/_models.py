"""Loads a model that ``[tools.options.NAME] model`` names: a hub id, a folder or what `agentkit finetune` has trained.

Safetensors only.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from agentkit import AgentkitError, MissingBackendError, tool_options, trained_model

TASKS = {
    "AutoModelForSequenceClassification": "classification",
    "AutoModelForTokenClassification": "tagging",
    "AutoModelForSeq2SeqLM": "seq2seq",
}
"""What a model must have been trained for, if it was trained here."""


def device_of(tool_name: str) -> str:
    """``[tools.options.NAME] device``; the CPU where it is not set."""
    return str(tool_options(tool_name).get("device", "cpu"))


@functools.cache
def load_model(
    head: str, name: str, device: str = "cpu", processor: str = "AutoTokenizer"
) -> tuple[Any, Any]:
    """A model and its tokenizer or processor, loaded once per process.

    Args:
        head: The transformers class, e.g. ``AutoModelForSequenceClassification``.
        name: A hub id, a folder, or the name of a model of `agentkit finetune list`.
        device: A torch device.
        processor: The transformers class of tokenizer or processor.

    Raises:
        MissingBackendError: A package that this model's tokenizer needs is not installed.
        UsageError: It was trained for another task.
        AgentkitError: The model cannot be loaded.
    """
    import transformers

    own = trained_model(name, TASKS[head]) if head in TASKS else None
    folder = own or Path(os.path.expanduser(name))  # leaves ~NAME of nobody as it is
    source = str(folder) if folder.is_dir() else name
    try:
        reader = getattr(transformers, processor).from_pretrained(source, trust_remote_code=False)
        model = getattr(transformers, head).from_pretrained(
            source, trust_remote_code=False, use_safetensors=True
        )
    except ImportError as error:
        package = "sentencepiece" if "entencepiece" in str(error) else error.name or "the package it names"
        cause = f"the model {name!r} needs a package that is not installed: {_first_line(error)}"
        raise MissingBackendError(cause, f"run `pip install {package}`") from error
    except Exception as error:
        cause = f"cannot load the model {name!r}: {_first_line(error)}"
        remedy = "name a hub id, a folder with safetensors weights, or a model of `agentkit finetune list`"
        raise AgentkitError(cause, remedy) from error
    return model.eval().to(device), reader


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
