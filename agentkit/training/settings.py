"""Everything that determines a run, in one file that is kept with its result.

What is not given goes by the data and the device: `epochs_for` sets the passes, ``batch_size`` the examples per step,
``device`` is CUDA where there is one. The file of a finished run can be given to the next one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentkit.errors import UsageError
from agentkit.settings import Device
from agentkit.training.precision import Precision

FILE = "settings.json"
OWN = (
    "name", "model_name", "model_source", "data_name", "data_sha256", "adapters_dir", "device", "start_sha256",
)  # fmt: skip
"""What a run takes from its command line and its project, not from a settings file."""


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
    """Of the file; of chosen sessions, of them as chats."""
    adapters_dir: Path
    device: Device = "auto"
    method: Literal["lora", "dora", "adalora", "qlora"] = "lora"
    """``lora`` (arXiv:2106.09685); ``dora`` (arXiv:2402.09353), which learns the weights' magnitude apart from their
    direction: a little better at small ranks, and slower; ``adalora`` (arXiv:2303.10512), which spends its ranks where
    they matter; ``qlora`` (arXiv:2305.14314), LoRA on a base of nf4 weights: less memory, but slower on a CPU."""
    start: str = Field(default="auto", min_length=1)
    """Adapter that the run begins from: ``auto`` (the one that comes with agentkit for the model; none under
    ``adalora``), ``none`` (the bare model), ``shipped``, a name or a path. What is kept with the result names it."""
    start_sha256: str = ""
    """Of the weights of that adapter; empty for the bare model."""
    precision: Precision = "auto"
    """What the model computes in: ``fp32``, ``bf16``, or ``fp16`` with a scaled loss (CUDA only). ``auto`` is bf16
    where it is native, else fp16 on CUDA and fp32 on a CPU. What is learned is kept in fp32 everywhere."""
    tool_format: str = "auto"
    """How tool calls are written; as the project says, or chosen by the model's chat template."""
    system: str = ""
    """System prompt for chats that have none; empty leaves it to the model's template."""
    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the data. Where it is not given, it goes by the chats: 3, from 1,000 on 2, from 5,000 on 1."""
    patience: int | None = Field(default=None, ge=1)
    """Passes without a better loss of the held-out chats, after which the run ends with the best weights so far; unset
    goes through all passes and keeps the last weights."""
    batch_size: int | None = Field(default=None, ge=1, le=1024)
    """Examples per step, at most; unset goes by the data: 2 for some dozen, rising to 8 from 400."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens per step, at most; a beginning that examples share counts once. A longer example is a step of its own."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens per example, at most; never more than the model's context."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` has a momentum of 0.9; it needs half the memory and a far higher learning rate."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of the first step after the warm-up. Unset it goes by what learns how: 0.01 under ``adalora``, whose products
    begin at nothing, and 0.1 under ``sgd``."""
    """The largest, after the warm-up; the default is meant for adapters under AdamW."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of the learning rate by which weights shrink in each step."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Of the adapter's matrices: what it can hold, and its size. Unset it is that of the adapter the run begins from,
    which a larger one adds to."""
    alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by ``alpha / rank``. Unset it goes by the adapter the run begins from; another one
    leaves what that computes as it is."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Off: over few epochs it buys little, and on a CPU its random numbers take a fifth of each step."""
    neftune_alpha: float = Field(default=0.0, ge=0, le=100)
    """Size of the noise on the embeddings of what is learned from (NEFTune, arXiv:2310.05914; 5 there for small data).
    Off: it was found to help the answers of chats, not calls of tools."""
    augment: float = Field(default=0.0, ge=0, le=1)
    """Share of the user's turns that are mistyped, and of the sets of tools that come in another order, anew in each
    pass. Words that the assistant says or calls with, numbers, dates, names and quotes stay, held-out chats too."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the chats held out to measure the loss by, before, after and on the way; none of under ten."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the chats that the run never sees, to judge its result by; none of under ten."""
    checkpoint_every_s: float = Field(default=120.0, gt=0)
    """Seconds between two checkpoints: what a kill or a reboot costs at most."""
    seed: int = 0
    """Of the adapter's beginning, the order of the chats, their variations, noise and dropout; the same seed gives the
    same adapter."""

    @model_validator(mode="before")
    @classmethod
    def _rate_that_suits(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("learning_rate") is not None:
            return values
        rates = {"optimizer": ("sgd", 0.1), "method": ("adalora", 0.01)}
        suits = [rate for key, (name, rate) in rates.items() if values.get(key) == name]
        return {**values, "learning_rate": suits[0]} if suits else values

    @model_validator(mode="after")
    def _leaves_something(self) -> JobSettings:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave no chat to learn from")
        return self


def epochs_for(chats: int) -> int:
    """Passes over so many chats: few are gone through more often."""
    return 3 if chats < 1000 else 2 if chats < 5000 else 1


def read_settings_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, or in the ``settings.json`` of an earlier run without what was that run's own.

    Raises:
        UsageError: It cannot be read, or holds what a settings file cannot set.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values: Any = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {path}: {reason}", "name a TOML file of training settings") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no settings", "name a TOML file of training settings")
    own = [key for key in OWN if key in values]
    if own and path.suffix.lower() != ".json":
        raise UsageError(f"{path}: {own[0]!r} is no setting of a file", "give it on the command line")
    return {key: value for key, value in values.items() if key not in OWN}


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
        known = ", ".join(name for name in JobSettings.model_fields if name not in OWN)
        what = f"training setting {key!r}" if key else "training settings"
        raise UsageError(f"{what}: {first['msg']}", f"settings: {known}") from error
