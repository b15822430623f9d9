"""Everything that determines a run, in one file that is kept with its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentkit.errors import UsageError
from agentkit.settings import Device

FILE = "settings.json"


class JobSettings(BaseModel):
    """Settings of one fine-tuning run. The defaults suit some dozen to some thousand short chats."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the adapter."""
    model_name: str
    """What the base model is called in settings and on the command line."""
    model_source: str
    """Folder, ``.gguf`` file or hub id the base model is loaded from."""
    data_name: str
    """File name the data came with; the run reads its own copy."""
    data_sha256: str
    adapters_dir: Path
    device: Device = "auto"
    system: str = ""
    """System prompt for chats that have none; empty leaves it to the model's template."""
    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the data."""
    batch_size: int | None = Field(default=None, ge=1, le=1024)
    """Examples per step, at most; unset goes by the data: 2 for some dozen, rising to 8 from 400."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens per step, at most; a beginning that examples share counts once. A longer example is a step of its own."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens per example, at most; never more than the model's context."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` is with Nesterov momentum of 0.9, and wants a learning rate some ten times higher."""
    patience: int = Field(default=0, ge=0)
    """Epochs without a better held-out loss after which the run ends, with the best weights; 0 runs to the end."""
    checkpoint_every_s: float = Field(default=120.0, gt=0)
    """Seconds between two checkpoints."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    method: Literal["lora", "dora", "adalora", "qlora"] = "lora"
    """``qlora`` is LoRA on a base of nf4 weights: less memory, but slower on a CPU."""
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by ``alpha / rank``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Off: over few epochs it buys little, and on a CPU its random numbers take a fifth of each step."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the chats held out to measure the loss before and after; none where there are under ten."""
    seed: int = 0


def make_settings(values: Mapping[str, Any]) -> JobSettings:
    """Check the values; ``None`` means the default.

    Raises:
        UsageError: A name is unknown or a value is out of range.
    """
    try:
        return JobSettings.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(JobSettings.model_fields)
        raise UsageError(f"training setting {key!r}: {first['msg']}", f"settings: {known}") from error
