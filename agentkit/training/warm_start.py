"""Warm start: a run that begins from a LoRA adapter instead of the bare model.

A model runs with one adapter at a time. One that was trained from the bare model would put what the adapter before it
knew (how tools are called) out of use; one that goes on from it keeps it, and is complete by itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentkit.engine.peft_files import CONFIG, WEIGHTS, LowRank, beyond_low_rank, read_config
from agentkit.errors import TrainingError, UsageError
from agentkit.training.adapters import CARD, check_whole, label, resolve_adapter, shipped
from agentkit.training.settings import LORA, JobSettings

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = "begin with --start none, or from an adapter that was made with method lora or qlora"


@dataclass(frozen=True, slots=True)
class Start:
    """The adapter that a run begins from."""

    spec: str
    """What names it in settings: ``shipped``, a name, or an absolute path."""
    rank: int
    scale: float
    """Of its products: ``alpha / rank``."""
    files: dict[str, bytes]
    """Its configuration, its weights, and its card if it has one. A run keeps them, as the adapter may be gone when it
    is resumed."""

    @property
    def sha256(self) -> str:
        """Of its weights."""
        return hashlib.sha256(self.files[WEIGHTS]).hexdigest()


def find_start(job: JobSettings) -> Start | None:
    """The adapter that the settings mean; ``None`` for the bare model.

    Raises:
        NotFoundError: There is no such adapter.
        UsageError: It is of another model, is more than low-rank products, or task or method cannot begin from one.
        ModelError, TrainingError: It is damaged.
    """
    spec = job.start
    if spec == "auto":
        suits = job.task == "chat" and job.method in LORA
        spec = "shipped" if suits and shipped(job.model_name) else "none"
    if job.task != "chat" and spec != "none":
        raise UsageError(f"{job.task} cannot begin from an adapter", "leave start out: it is for chats")
    path = resolve_adapter(job.adapters_dir, spec, job.model_name)
    if path is None:
        return None
    if job.method not in LORA:
        remedy = f"use --start none, or one of the methods {', '.join(LORA)}"
        raise UsageError(f"{job.method} cannot begin from an adapter", remedy)
    name = label(path)
    check_whole(path)
    config = read_config(path)
    if other := beyond_low_rank(config):
        cause = f"adapter {name!r} is more than low-rank products ({other}): training cannot begin from it"
        raise UsageError(cause, _REMEDY)
    known = name == "shipped" or path.parent == job.adapters_dir
    rank, scale = _rank_and_scale(config, name)
    parts = (CONFIG, WEIGHTS, CARD)
    files = {name: (path / name).read_bytes() for name in parts if name != CARD or (path / CARD).is_file()}
    return Start(name if known else str(path.absolute()), rank, scale, files)


def settings_for(job: JobSettings, start: Start | None) -> JobSettings:
    """The settings with what they were meant to begin from, so that they mean the same at another time.

    Rank and alpha go by the adapter where they were not given. What was given is kept where that changes nothing:
    more ranks are added, and another alpha is evened out in the matrices.

    Raises:
        UsageError: The rank that was given is less than the adapter's.
    """
    if start is None:
        return job.model_copy(update={"start": "none", "start_sha256": ""})
    given = job.model_fields_set
    rank = job.rank if "rank" in given else start.rank
    if rank < start.rank:
        cause = f"rank {rank} is less than that of the adapter that the run begins from ({start.rank})"
        raise UsageError(cause, f"leave rank out, use {start.rank} or more, or begin with --start none")
    alpha = job.alpha if "alpha" in given else max(1, round(start.scale * rank))
    found = {"start": start.spec, "start_sha256": start.sha256, "rank": rank, "alpha": alpha}
    return job.model_copy(update=found)


def initialize(model: Any, start: Mapping[str, LowRank]) -> None:
    """Let the untrained adapter of a model compute what another one computes.

    Its first ranks become those of the other, times what evens out the scale; ranks and layers beyond stay as PEFT
    initializes them, where their product is zero. DoRA's magnitudes become those of the sum of base and product, so
    that its quotient of the two is one (arXiv:2402.09353, equation 5).

    Args:
        model: A PEFT model, as `methods.with_adapter` makes it.
        start: The low-rank products, by the path of their linear within the base model.

    Raises:
        TrainingError: They do not fit the model.
    """
    import torch

    layers = {
        name: module
        for name, module in model.get_base_model().named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    with torch.no_grad():
        for name, product in sorted(start.items()):  # safetensors gives them in any order
            if name not in layers:
                raise _misfit(f"{name} is no linear layer of this model")
            module = layers[name]
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            _check_shapes(name, product, a, b)
            rank = len(product.a)
            a[:rank] = product.a
            b[:, :rank] = product.b / module.scaling["default"]
            if module.use_dora["default"]:
                module.lora_magnitude_vector["default"].update_layer(
                    base_layer=module.get_base_layer(), lora_A=a, lora_B=b, scaling=module.scaling["default"]
                )


def _rank_and_scale(config: Mapping[str, Any], name: str) -> tuple[int, float]:
    """The widest rank of an adapter, and the scale of its products (arXiv:2312.03732 for the rank-stabilized one)."""
    try:
        own = int(config["r"])
        rank = max([own, *map(int, (config.get("rank_pattern") or {}).values())])
        scale = float(config["lora_alpha"]) / (own**0.5 if config.get("use_rslora") else own)
        if own < 1 or not math.isfinite(scale):
            raise ValueError(f"rank {own}, scale {scale}")
        return rank, scale
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        cause = f"adapter {name!r} is damaged: {CONFIG} has no usable rank and alpha ({error!r})"
        raise TrainingError(cause, _REMEDY) from error


def _check_shapes(name: str, product: LowRank, a: Tensor, b: Tensor) -> None:
    if (product.a.shape[1], product.b.shape[0]) != (a.shape[1], b.shape[0]):
        asked = f"{product.b.shape[0]} × {product.a.shape[1]}"
        raise _misfit(f"{name} is {b.shape[0]} × {a.shape[1]} here and {asked} there")
    if len(product.a) > len(a):
        raise _misfit(f"{name} has rank {len(product.a)} there, which {len(a)} cannot hold")


def _misfit(reason: str) -> TrainingError:
    return TrainingError(f"the adapter to begin from does not fit: {reason}", _REMEDY)
