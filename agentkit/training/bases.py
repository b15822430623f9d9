"""Which models can be the base of which task, told from their configuration, and loading them with a new head.

Safetensors only, and never code of a repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentkit.errors import ModelError, NotFoundError, UsageError
from agentkit.training.settings import Task

HEADS: dict[Task, str] = {
    "classification": "AutoModelForSequenceClassification",
    "tagging": "AutoModelForTokenClassification",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
"""Classes of transformers."""
_WANTED: dict[Task, str] = {
    "chat": "chats need a chat model",
    "classification": "labelled texts need an encoder of BERT's kind",
    "tagging": "tagged tokens need an encoder of BERT's kind",
    "seq2seq": "pairs need a sequence-to-sequence model of T5's or Marian's kind",
}
_REMEDIES: dict[Task, str] = {
    "chat": "leave --model out, or name a chat model",
    "classification": "leave --model out for the embedded encoder, or name another",
    "tagging": "leave --model out for the embedded encoder, or name another",
    "seq2seq": "name one with --model, a folder or a hub id such as google-t5/t5-small",
}
_ENCODERS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForPreTraining")
LONGEST = 512
"""Tokens that a model is taken to read where its configuration does not say."""


def check_folder(source: str, name: str, task: Task) -> None:
    """`check_base` for a model that lies here; of one on the hub its configuration is not known yet.

    Raises:
        UsageError: It is not of the kind that the task needs.
    """
    path = Path(source)
    if path.suffix == ".gguf" and task != "chat":
        raise UsageError(f"{name} is a .gguf file; {_WANTED[task]}", _REMEDIES[task])
    if not path.is_dir():
        return
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if task == "chat":
            return  # the loader says what is wrong
        raise UsageError(f"{name} is no model folder: config.json cannot be read", _REMEDIES[task]) from error
    check_base(config if isinstance(config, dict) else {}, name, task)


def check_base(config: Mapping[str, Any], name: str, task: Task) -> None:
    """Whether a model of this configuration can learn a task.

    Args:
        config: As in ``config.json``.
        name: Of the model, for messages.
        task: What is to be learned.

    Raises:
        UsageError: It is of another kind.
    """
    kind = _kind(config)
    fits = {
        "chat": ("chat", ""),
        "classification": ("encoder",),
        "tagging": ("encoder",),
        "seq2seq": ("seq2seq",),
    }
    if kind not in fits[task]:
        said = {"chat": "a chat model", "encoder": "an encoder", "seq2seq": "a sequence-to-sequence model"}
        cause = f"{name} is {said.get(kind, 'no model that is known here')}; {_WANTED[task]}"
        raise UsageError(cause, _REMEDIES[task])


def _kind(config: Mapping[str, Any]) -> str:
    """``chat``, ``encoder`` or ``seq2seq``; empty for what the configuration does not tell."""
    architectures = [str(name) for name in config.get("architectures") or []]
    if config.get("is_encoder_decoder"):
        return "seq2seq"
    if any(
        name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in architectures
    ):
        return "chat"
    if any(name.endswith(_ENCODERS) for name in architectures):
        return "encoder"
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    return "encoder" if config.get("model_type") in ENCODERS else ""


def load_base(source: str, name: str, task: Task, labels: Sequence[str] = ()) -> tuple[Any, Any]:
    """A base model with a head for the labels, in float32, and its tokenizer.

    Args:
        source: Folder or hub id.
        name: Of the model, for messages.
        task: None but ``chat``.
        labels: Of classifiers and taggers, in the order of the model's outputs.

    Raises:
        NotFoundError: There is no such model.
        UsageError: It is of another kind than the task needs.
        ModelError: It cannot be loaded.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        check_base(config.to_dict(), name, task)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
            config.problem_type = None
            options["ignore_mismatched_sizes"] = True  # a head for other labels is made anew
        model = getattr(transformers, HEADS[task]).from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, **options
        )
    except UsageError:
        raise
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError … for bad files
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if not Path(source).exists():
            remedy = "check the name; without a network only folders and embedded models load"
            raise NotFoundError(f"model {name!r} is neither here nor on the hub ({line})", remedy) from error
        raise ModelError(
            f"cannot load model {name!r}: {line}", "check that the folder is complete"
        ) from error
    return model, tokenizer


def room(model: Any, tokenizer: Any, max_length: int) -> int:
    """Tokens that a model can read at once, at most ``max_length``."""
    config = model.config
    known = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    known.append(tokenizer.model_max_length)  # of some encoders smaller than their table of positions
    limits = [int(number) for number in known if number and number < 1 << 30]
    return min([max_length, *(limits or [LONGEST])])
