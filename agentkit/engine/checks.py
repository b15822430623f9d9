"""What a model is refused for while it is loaded, each time with a remedy.

Its source is none, its options do not fit together, weights are missing, its state cannot be carried on; and whatever
the libraries that read its files fail with.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError, ModelError, NotFoundError, UsageError
from agentkit.settings import Quantize, expanded

_FORGETFUL = frozenset({"bamba", "jamba", "recurrent_gemma", "zamba"})
"""Model types that take a cache, but keep their state elsewhere, begin anew with several tokens, or count from zero."""


def locate(source: str) -> tuple[str, str | None]:
    """(folder or hub id, GGUF file name or None).

    Raises:
        NotFoundError: It can be neither.
    """
    path = expanded(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise NotFoundError(f"no such file: {path}", "check the path of the .gguf file")
        return str(path.parent), path.name
    try:
        is_folder = path.is_dir()
    except OSError as error:  # the name of no file
        cause = f"there is no model {source[:60]}… ({error.strerror})"
        raise NotFoundError(cause, "name an embedded one, a folder or a hub id") from error
    if is_folder:
        if not (path / "config.json").is_file():
            raise NotFoundError(
                f"{path} is no model folder: it has no config.json", "name a transformers folder"
            )
        return str(path), None
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        remedy = (
            "use an embedded name (`agentkit models list`), a folder, a .gguf file or a hub id like org/name"
        )
        raise NotFoundError(f"unknown model {source!r}", remedy)
    return source, None


def stored_quantization(config: Any) -> str | None:
    """How a model comes quantized, as its repository tells."""
    for part in (config, config.get_text_config()):
        if stored := getattr(part, "quantization_config", None):
            return str(stored.get("quant_method", "bitsandbytes"))  # which did not always write it
    return None


def method_for(quantize: Quantize, device: str, own: str | None = None, *, gguf: bool = False) -> str:
    """The quantization by its full name; ``auto`` stays open on the CPU, where the weights decide.

    Args:
        quantize: As asked for.
        device: ``cpu`` or ``cuda``.
        own: How the model comes quantized.
        gguf: It comes in a GGUF file, whose weights bitsandbytes does not take.

    Raises:
        UsageError: The one cannot be had with the others.
    """
    on_cuda = device == "cuda"
    if own and (quantize == "nf4" or (on_cuda and quantize not in ("auto", "none"))):
        raise quantized_already(quantize, own)
    if gguf and (quantize == "nf4" or (on_cuda and quantize == "int8")):  # CUDA's int8 is bitsandbytes' too
        remedy = "use --quantize none" if on_cuda else "use --quantize int8, int4 or none"
        raise UsageError(f"{quantize} on {device} cannot be applied to a .gguf file", remedy)
    if not on_cuda:
        return quantize
    if quantize == "int4":
        raise UsageError("int4 is a CPU kernel", "use --quantize nf4 or int8 on CUDA")
    if own or gguf:
        return "none"
    return {"auto": "nf4", "int8": "bnb-int8"}.get(quantize, quantize)


def quantized_already(asked: str, own: str) -> UsageError:
    """That a model which comes quantized cannot be quantized anew."""
    cause = f"{asked} cannot be applied: the model comes quantized already ({own})"
    return UsageError(cause, "use --quantize auto or none")


def check_whole(name: str, missing: Collection[str], *, gguf: bool) -> None:
    """Raise `ModelError` where weights are ``missing``.

    transformers would fill them with random numbers; those that are tied to others it does not report.
    """
    if missing:
        remedy = "use the model's safetensors repository" if gguf else "fetch it again, whole"
        cause = f"model {name!r} lacks {len(missing)} of its weights: {min(missing)}"
        raise ModelError(cause + " …" * (len(missing) > 1), remedy)


def check_state(name: str, model: Any) -> None:
    """Raise `ModelError` for an architecture whose state is not in the cache that the ledger passes."""
    kind = model.config.model_type
    if kind in _FORGETFUL or "past_key_values" not in inspect.signature(model.forward).parameters:
        cause = f"model {name!r} is of the kind {kind}, whose state cannot be carried from turn to turn"
        raise ModelError(cause, "choose another model")


@contextmanager
def as_own_errors(label: str, origin: str) -> Iterator[None]:
    """What libraries raise over a model's files, as errors of ours.

    Raises:
        NotFoundError: The model is neither here nor on the hub.
        ModelError: It is, and cannot be loaded.
    """
    from agentkit.engine.cache import out_of_memory

    try:
        yield
    except AgentkitError:
        raise
    except Exception as error:  # OSError, ValueError, KeyError, RuntimeError … for bad files
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        here = Path(origin).exists()
        if isinstance(error, OSError) and not here:
            remedy = "check the name; without a network only folders and embedded models (`agentkit models list`) load"
            raise NotFoundError(
                f"model {label!r} is neither here nor on the hub ({first_line})", remedy
            ) from error
        remedy = f"check that the {'folder' if here else 'repository'} is complete, and of a kind transformers knows"
        if out_of_memory(error):
            remedy = "free memory, or use a smaller model"
        raise ModelError(f"cannot load model {label!r}: {first_line}", remedy) from error
