"""Adapters that PEFT puts into a transformers model: merged into its weights, or beside those of bitsandbytes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from agentkit.engine.peft_files import WEIGHTS, read_config
from agentkit.errors import ModelError, UsageError


def method_for_merged(method: str) -> str:
    """The quantization for weights that an adapter was merged into.

    What an adapter changes is often less than half a step of int4, int8 or even bf16: rounding would leave the base
    model, so the sum is made in float32 and held in fp16.
    """
    if method == "int4":
        raise UsageError("int4 would round the adapter away", "use --quantize none, or --adapter none")
    return "none" if method == "auto" else method


def with_adapter(model: Any, adapter: Path, *, merge: bool) -> Any:
    """The transformers model with a PEFT adapter in it, or merged into its weights.

    Raises:
        NotFoundError: There is no adapter.
        ModelError: It is damaged, or does not fit the model.
    """
    quiet_bitsandbytes()
    from peft import PeftModel

    read_config(adapter)
    if not (adapter / WEIGHTS).is_file():  # peft would look for a repository of that name on the hub
        raise ModelError(f"adapter {adapter} is damaged: it has no {WEIGHTS}", "copy or train it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a renamed attribute
            tuned = PeftModel.from_pretrained(model, str(adapter.resolve()), is_trainable=False)
            # Without a merge the adapter's layers stand in the model itself: the wrapper around it is not needed.
            return tuned.merge_and_unload() if merge else tuned.get_base_model()
    except Exception as error:  # peft raises RuntimeError, ValueError, KeyError … for a foreign adapter
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"adapter {adapter} does not fit this model: {reason}", "train it on this model"
        ) from error


def quiet_bitsandbytes() -> None:
    """Spare its users two warnings: at import (peft does that too) of a package that is missing, which would fetch a
    kernel from the hub; and for every product of int8, that bf16 becomes fp16 in it.
    """
    for module in ("backends.cpu.ops", "autograd._functions"):
        logging.getLogger(f"bitsandbytes.{module}").setLevel(logging.ERROR)
