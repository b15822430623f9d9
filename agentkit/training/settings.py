"""Everything that determines a run, in one file that is kept with its result.

What is not given goes by the task, the data and the device: `epochs_for` sets the passes, ``batch_size`` the examples
per step, ``device`` is CUDA where there is one. The file of a finished run can be given to the next one.
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
Task = Literal["chat", "classification", "tagging", "seq2seq"]
"""What is learned: to answer in chats, to label texts, to label tokens, to turn texts into others."""
OWN = (
    "name", "task", "model_name", "model_source", "data_name", "data_sha256", "adapters_dir", "device", "start_sha256",
    "keep_personal_data",
)  # fmt: skip
"""What a run takes from its command line and its project, not from a settings file."""
OF_ADAPTERS = ("rank", "alpha", "loraplus_lr_ratio")
"""What means nothing where all weights are trained."""
LORA = ("lora", "qlora", "dora")
"""Methods whose adapters are two matrices each. AdaLoRA has singular values between them."""


class JobSettings(BaseModel):
    """Settings of one fine-tuning run. The defaults suit some dozen to some thousand short chats."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str
    """Of the result: an adapter for chats, else a model."""
    task: Task = "chat"
    """Told by the data's columns."""
    model_name: str
    """What the base model is called in settings and on the command line."""
    model_source: str
    """Folder, ``.gguf`` file or hub id the base model is loaded from."""
    data_name: str
    """File name the data came with; the run reads its own copy."""
    data_sha256: str
    """Of the file; of chosen sessions, of them as chats."""
    keep_personal_data: bool = False
    """Whether e-mail addresses, phone numbers and the like were left as they are."""
    adapters_dir: Path
    device: Device = "auto"
    method: Literal["lora", "dora", "adalora", "qlora", "full"] = "lora"
    """What is trained: an adapter (the only way for chats), or with ``full`` all weights, which is the default of
    classifiers, taggers and seq2seq models. Those take ``lora`` and ``dora`` too, merged into the weights at the end:
    less memory for bases of several hundred million parameters. ``lora`` (arXiv:2106.09685); ``dora``
    (arXiv:2402.09353), which learns the weights' magnitude apart from their direction: a little better at small ranks,
    and slower; ``adalora`` (arXiv:2303.10512), which spends its ranks where they matter; ``qlora`` (arXiv:2305.14314),
    LoRA on a base of nf4 weights: less memory, but slower on a CPU."""
    start: str = "auto"
    """Adapter that the run begins from: ``auto`` (the one that comes with agentkit for the model; none under
    ``adalora``), ``none`` (the bare model), ``shipped``, a name or a path. What is kept with the result names it. For
    chats alone: other tasks begin from their base model, and refuse anything but ``auto`` and ``none``."""
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
    """Passes over the data. Where it is not given, it goes by their number: 3, from 1,000 chats on 2, from 5,000 on 1;
    for other data 20, from 200 examples on 10, from 1,000 on 5, from 5,000 on 3."""
    patience: int | None = Field(default=None, ge=1)
    """Passes without a better loss of the held-out examples, after which the run ends with the best weights so far;
    unset goes through all passes and keeps the last weights."""
    batch_size: int | None = Field(default=None, ge=1, le=1024)
    """Examples per step, at most; unset goes by the data: of chats 2 for some dozen, rising to 8 from 400; of others 4,
    rising to 16 from 320."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens per step, at most; a beginning that chats share counts once. A longer example is a step of its own."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens per example, at most; never more than the model's context. Of a longer text to be classified the beginning
    counts, and the result reads no more tokens at once either; other examples that are longer are left out."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` has a momentum of 0.9; it needs half the memory and a far higher learning rate."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of the first step after the warm-up, which is the largest. Unset it goes by what learns how: 0.01 under
    ``adalora``, whose products begin at nothing, 0.1 under ``sgd``; under ``full`` 0.0001, for seq2seq 0.0003, and 0.01
    under ``sgd``."""
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
    which a larger one adds to; a smaller one is refused. Refused too under ``full``, which makes no adapter; so is
    ``alpha``."""
    alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by ``alpha / rank``. Unset it goes by the adapter the run begins from; another one
    leaves what that computes as it is."""
    loraplus_lr_ratio: float = Field(default=1.0, ge=1, le=64)
    """An adapter's second matrices learn at so many times the learning rate (LoRA+, arXiv:2402.12354). 4
    pays where an adapter begins from nothing and has thousands of chats to learn from. Refused under ``adalora`` and
    ``full``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of adapters. Off: over few epochs it buys little, and on a CPU its random numbers take a fifth of each step.
    Under ``full`` the base model's own dropout counts."""
    neftune_alpha: float = Field(default=0.0, ge=0, le=100)
    """Size of the noise on the embeddings of chats that are learned from (NEFTune, arXiv:2310.05914; 5 there for small
    data). Off: it was found to help the answers of chats, not calls of tools."""
    augment: float = Field(default=0.0, ge=0, le=1)
    """Share of the user's turns that are mistyped, and of the sets of tools that come in another order, anew in each
    pass. Words that the assistant says or calls with, numbers, dates, names and quotes stay, held-out chats too."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the examples held out to measure by, before, after and on the way; none of under ten."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the examples that the run never learns from, to judge its result by; none of under ten."""
    checkpoint_every_s: float = Field(default=120.0, gt=0)
    """Seconds between two checkpoints: what a kill or a reboot costs at most."""
    seed: int = 0
    """Of new weights, the order of the examples, their variations, noise and dropout; the same seed gives the same
    result."""

    @model_validator(mode="before")
    @classmethod
    def _what_suits(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        task = values.get("task", "chat")
        method = values.get("method") or ("lora" if task == "chat" else "full")
        if values.get("learning_rate") is not None:
            return {**values, "method": method}
        full = method == "full"
        if values.get("optimizer") == "sgd":
            rate = 0.01 if full else 0.1
        elif full:
            rate = 3e-4 if task == "seq2seq" else 1e-4
        else:
            rate = 0.01 if method == "adalora" else 1e-3
        return {**values, "method": method, "learning_rate": rate}

    @model_validator(mode="after")
    def _fits(self) -> JobSettings:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave no example to learn from")
        if self.task == "chat" and self.method == "full":
            raise ValueError("chats are learned by an adapter: method lora, dora, adalora or qlora")
        if self.task != "chat" and self.method in ("adalora", "qlora"):
            raise ValueError(f"{self.method} is for chats; {self.task} takes the method full, lora or dora")
        if self.loraplus_lr_ratio != 1 and self.method not in (*LORA, "full"):
            raise ValueError("loraplus_lr_ratio is for the methods lora, qlora and dora")
        if self.precision == "fp16" and self.device == "cpu":
            raise ValueError("precision fp16 is for CUDA: on a CPU use auto, bf16 or fp32")
        if self.task != "chat" and (self.augment or self.neftune_alpha):
            raise ValueError("augment and neftune_alpha are for chats")
        return self


def epochs_for(count: int, task: Task = "chat") -> int:
    """Passes over so many examples: few are gone through more often.

    New heads over few examples need many steps: Mosbach et al. (arXiv:2006.04884) find 20 passes over a small set both
    steadier and better than 3.
    """
    if task == "chat":
        return 3 if count < 1000 else 2 if count < 5000 else 1
    return 20 if count < 200 else 10 if count < 1000 else 5 if count < 5000 else 3


def read_settings_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, or in the ``settings.json`` of an earlier run without what was that run's own.

    That one holds all of its settings, so those that had no effect are left out too.

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
    idle = OF_ADAPTERS if path.suffix.lower() == ".json" and values.get("method") == "full" else ()
    return {key: value for key, value in values.items() if key not in (*OWN, *idle)}


def make_settings(values: Mapping[str, Any]) -> JobSettings:
    """Check the values; ``None`` means the default.

    Raises:
        UsageError: A name is unknown, a value is out of range, or one was given that means nothing to the method.
    """
    try:
        settings = JobSettings.model_validate(
            {key: value for key, value in values.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(name for name in JobSettings.model_fields if name not in OWN)
        what = f"training setting {key!r}" if key else "training settings"
        raise UsageError(f"{what}: {first['msg']}", f"settings: {known}") from error
    # Not in the model itself, which is read again from files that hold every field.
    idle = [key for key in OF_ADAPTERS if key in settings.model_fields_set]
    if settings.method == "full" and idle:
        named = " and ".join(idle)
        cause = f"method full makes no adapter, so that {named} would have no effect"
        raise UsageError(cause, f"leave out {named}, or use --method lora")
    return settings
