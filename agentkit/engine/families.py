"""Which transformers models the engine's own forward passes cover, and whether a pass says what transformers says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KNOWN = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma3_text"})
"""Model types whose layers the engine computes itself; any other runs through transformers."""
ROWS = 256
"""Tokens that go through the layers together: their activations fit into a core's cache."""
_PROBE = 12
"""Tokens of the comparison with transformers."""
_TOLERANCE = 0.1
"""Relative difference of logits. Two orders of summation in bf16 differ by 0.01 to 0.03, two models by 1."""


def check_family(config: Any) -> None:
    """Raise `NotImplementedError` for a model of another kind."""
    if config.model_type not in KNOWN or getattr(config, "use_bidirectional_attention", False):
        raise NotImplementedError(config.model_type)
    if other := set(layer_kinds(config)) - {"full_attention", "sliding_attention"}:
        raise NotImplementedError(f"layers {sorted(other)}")


def text_model(model: Any) -> Any:
    """The module with the layers; of a model that reads images too, its language model.

    Raises:
        NotImplementedError: It has none where it is looked for.
    """
    inner = getattr(model.model, "language_model", model.model)
    if not hasattr(inner, "layers"):
        raise NotImplementedError(type(inner).__name__)
    return inner


def layer_kinds(config: Any) -> list[str]:
    """``full_attention`` or ``sliding_attention``, layer by layer."""
    kind = "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"
    return list(getattr(config, "layer_types", None) or [kind] * config.num_hidden_layers)


def head_size(config: Any) -> int:
    """Numbers of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def agrees(decoder: Any, model: Any) -> bool:
    """Whether a forward pass gives a probe the logits that transformers gives it over the same weights."""
    # Spread over the vocabulary: the first ids are control tokens, on which bf16 models are erratic.
    spread = torch.arange(1, _PROBE + 1, device=model.device)
    ids = spread * model.config.get_text_config().vocab_size // (_PROBE + 2)
    with torch.inference_mode():
        ours = decoder(ids, decoder.new_cache(), every=True)
        theirs = model(input_ids=ids[None]).logits[0].float()
    return close(ours, theirs)


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Whether logits differ by no more than the order of summation makes them."""
    return bool((ours - theirs).norm() <= _TOLERANCE * theirs.norm())
