"""Which models can be the base of which task, told from their configuration, and loading them with a new head.

Safetensors only, and never code of a repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError, MissingBackendError, ModelError, NotFoundError, UsageError
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


def check_folder(source: str, name: str, task: Task, method: str) -> None:
    """`check_base` for a model that lies here; of one on the hub its configuration is not known yet.

    Raises:
        UsageError: It is not of the kind that the task or the method needs.
    """
    path = Path(source)
    if path.suffix == ".gguf" and task != "chat":
        raise UsageError(f"{name} is a .gguf file; {_WANTED[task]}", _REMEDIES[task])
    if path.suffix == ".gguf" and method == "qlora":
        cause = f"{name} is a .gguf file, whose weights cannot be made nf4"
        raise UsageError(cause, "use --method lora, or a base with safetensors")
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
        MissingBackendError: A package that its tokenizer needs is not installed.
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
            _ready_to_pad(config, tokenizer, name)
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
        raise _told(error, name, is_here=Path(source).exists()) from error
    return model, tokenizer


def _ready_to_pad(config: Any, tokenizer: Any, name: str) -> None:
    """Texts are learned and classified in batches; a decoder with a head looks for the end of each by its padding.

    Raises:
        UsageError: The tokenizer has nothing to pad with.
    """
    if tokenizer.pad_token_id is None:
        raise UsageError(
            f"the tokenizer of {name} has no token to pad with", "name another base with --model"
        )
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id


def _told(error: Exception, name: str, *, is_here: bool) -> AgentkitError:
    """Why transformers could not load a model."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    # Tokenizers that need it, e.g. Marian's, are not in transformers' table where it is missing.
    is_left_out = "to build an AutoTokenizer" in line and find_spec("sentencepiece") is None
    if is_left_out or isinstance(error, ImportError):
        known = is_left_out or "entencepiece" in str(error)
        package = "sentencepiece" if known else getattr(error, "name", None)
        cause = f"model {name!r} needs a package that is not installed: {package or line}"
        return MissingBackendError(cause, f"run `pip install {package}`" if package else "install it")
    if isinstance(error, OSError) and "model.safetensors" in line:
        cause = f"model {name!r} has no weights as safetensors ({line})"
        return ModelError(cause, "name a base that has them: weights in other forms are not loaded")
    if isinstance(error, OSError) and not is_here:
        remedy = "check the name; without a network only folders and embedded models load"
        return NotFoundError(f"model {name!r} is neither here nor on the hub ({line})", remedy)
    remedy = f"check that the {'folder' if is_here else 'repository'} is complete"
    return ModelError(f"cannot load model {name!r}: {line}", remedy)


def room(model: Any, tokenizer: Any, max_length: int) -> int:
    """Tokens that a model can read at once, at most ``max_length``."""
    config = model.config
    known = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    known = [number and number - _unused_positions(model) for number in known]
    known.append(tokenizer.model_max_length)  # of some encoders smaller than their table of positions
    limits = [int(number) for number in known if number and number < 1 << 30]
    return min([max_length, *(limits or [LONGEST])])


def _unused_positions(model: Any) -> int:
    """Rows at the head of a table of positions that no token has: RoBERTa's kind counts from behind its padding."""
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    paddings = (getattr(table, "padding_idx", None) for table in tables)
    return next((padding + 1 for padding in paddings if padding is not None), 0)


def longest_answer(config: Any) -> int | None:
    """Tokens that a seq2seq model can write, one fewer than its decoder has positions; ``None`` without a limit."""
    keys = ("max_decoder_position_embeddings", "max_position_embeddings")  # the first is LED's
    known = next((number for key in keys if (number := getattr(config, key, None))), None)
    return None if known is None else int(known) - 1
