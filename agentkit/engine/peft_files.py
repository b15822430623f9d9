"""Reading LoRA adapters (arXiv:2106.09685) as PEFT saves them: a configuration in JSON, matrices in safetensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentkit.errors import ModelError, NotFoundError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PRODUCTS = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)
"""The linears of a layer, those over the same input together."""
LAYERS = "model.layers"
"""Where they are within the model."""
_PLAIN = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "use_rslora", "task_type", "base_model_name_or_path", "revision", "auto_mapping",
    "inference_mode", "peft_version", "megatron_core", "qalora_group_size", "eva_config", "runtime_config",
})  # fmt: skip
"""Keys of a configuration that are followed here, or that only training looks at."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # Others, as pissa, changed the base weights before they trained.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)\.weight")


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one linear: ``b @ a @ x``."""

    a: Tensor
    """(rank, inputs), float32"""
    b: Tensor
    """(outputs, rank), float32, times the scale"""


class PreparedLora(Protocol):
    """An adapter in the form in which a forward pass runs it beside the weights."""

    name: str
    """What it is called in messages."""
    rank: int

    def bytes(self) -> int:
        """Size of its numbers."""
        ...


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter.

    Raises:
        NotFoundError: There is none.
        ModelError: It is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise NotFoundError(f"no adapter in {folder}", "see `agentkit finetune list`")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
        reason = "it is no JSON object"
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
    raise ModelError(f"adapter {folder} is damaged: {path.name}: {reason}", "copy or train it again")


def beyond_low_rank(config: Mapping[str, Any]) -> str:
    """What a configuration asks for besides low-rank products, e.g. ``use_dora``; empty where there is nothing."""
    for key, value in config.items():
        neutral = value in _NEUTRAL[key] if key in _NEUTRAL else not value
        if key not in _PLAIN and not neutral:
            return key
    targets = _names(config.get("target_modules"))
    return next((name for name in targets if "embed" in name or "head" in name), "")


def read_lora(folder: Path) -> dict[str, LowRank]:
    """The low-rank products of an adapter, by the path of their linear within the model.

    Raises:
        NotFoundError: There is no adapter.
        ModelError: It is damaged, or holds something else.
    """
    config = read_config(folder)
    if other := beyond_low_rank(config):
        raise ModelError(
            f"adapter {folder} is more than low-rank products ({other})", "merge it into a model"
        )
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _tensors(folder).items():
        match = _KEY.fullmatch(key)
        if match is None or tensor.ndim != 2:
            raise _damaged(folder, f"{key} is no matrix of a LoRA")
        if not tensor.isfinite().all():
            raise _damaged(folder, f"{key} has numbers that are not finite")
        halves.setdefault(match[1], {})[match[2]] = tensor.float()
    if not halves:
        raise _damaged(folder, "it holds no matrices")
    # A model that reads images too has its layers one module deeper (`families.text_model`).
    return {
        name.replace("model.language_model.layers.", f"{LAYERS}.", 1): _low_rank(folder, config, name, pair)
        for name, pair in halves.items()
    }


def check_fit(name: str, parts: Mapping[str, LowRank], layers: Sequence[Any]) -> None:
    """Raise `ModelError` where an adapter, called ``name``, does not fit a model's layers."""
    linears = {
        f"{LAYERS}.{n}.{owner}.{linear}": getattr(getattr(layer, owner), linear)
        for n, layer in enumerate(layers)
        for owner, linears in PRODUCTS
        for linear in linears
    }
    remedy = "use an adapter that was trained on it"
    for path, pair in parts.items():
        if path not in linears:
            cause = f"adapter {name} does not fit this model: it has no linear {path} to adapt"
            raise ModelError(cause, remedy)
        wanted = linears[path].out_features, linears[path].in_features
        sizes = pair.b.shape[0], pair.a.shape[1]
        if sizes != wanted:
            cause = f"adapter {name} does not fit this model: {path} is {wanted[0]} x {wanted[1]}, "
            raise ModelError(cause + f"not {sizes[0]} x {sizes[1]}", remedy)


def _low_rank(folder: Path, config: Mapping[str, Any], name: str, pair: Mapping[str, Tensor]) -> LowRank:
    try:
        rank = int(_by_pattern(config.get("rank_pattern"), name, config["r"]))
        alpha = float(_by_pattern(config.get("alpha_pattern"), name, config["lora_alpha"]))
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise _damaged(folder, f"{CONFIG} has no usable rank and alpha ({error!r})") from error
    if pair.keys() != {"A", "B"} or not pair["A"].shape[0] == pair["B"].shape[1] == rank > 0:
        raise _damaged(folder, f"the matrices of {name} are not a pair of rank {rank}")
    # Rank-stabilized scaling: arXiv:2312.03732.
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LowRank(pair["A"], pair["B"] * scale)


def _by_pattern(patterns: Any, name: str, default: Any) -> Any:
    """As PEFT does: the first pattern that matches the end of the name, from a dot on."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS
    if not path.is_file():
        raise _damaged(folder, f"it has no {WEIGHTS}")
    try:
        # Read, not mapped: a file that is replaced meanwhile must not change under the numbers.
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _damaged(folder, f"{WEIGHTS}: {str(error).splitlines()[0]}") from error


def _names(modules: Any) -> Iterable[str]:
    """Modules that a configuration targets; it may be a pattern instead of names."""
    return [modules] if isinstance(modules, str) else [str(name) for name in modules or ()]


def _damaged(folder: Path, reason: str) -> ModelError:
    return ModelError(f"adapter {folder} is damaged: {reason}", "copy or train it again")
