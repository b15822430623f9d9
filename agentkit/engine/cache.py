"""Keys and values of one conversation, in buffers that grow by doubling.

transformers' own cache concatenates: every new token copies the whole conversation. Here it copies one token, and
rolling back is forgetting a length. Sliding-window layers keep every token too, so that they roll back as well; the
window is in the attention mask. What has a recurrent state instead (Mamba, LFM2 …) keeps transformers' layers, and
the ledger takes snapshots of them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from agentkit.engine.packed_lora import PackedLora

FIRST_CAPACITY = 256
"""Tokens a buffer holds at first."""
_LANES = 16
"""Numbers of a vector, as in `simd`."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values, each of shape (1, heads, length, head size)."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self._capacity = 0
        self._buffers: tuple[Tensor, ...] = ()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (1, heads, new, head size) keys and values; returns all of them, as views."""
        start, new = self.length, key_states.shape[-2]
        end = self.length = start + new
        if end > self._capacity:
            self._grow(key_states, value_states)
        keys, values = self._buffers
        keys.narrow(2, start, new).copy_(key_states)
        values.narrow(2, start, new).copy_(value_states)
        self.keys, self.values = keys.narrow(2, 0, end), values.narrow(2, 0, end)
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens (a negative count, as transformers has it)."""
        self.length += tokens_to_remove
        if self._buffers:
            self.keys, self.values = (buffer.narrow(2, 0, self.length) for buffer in self._buffers)

    def get_seq_length(self) -> int:
        return self.length

    def head(self, length: int) -> GrowingLayer:
        """A copy of the first ``length`` tokens."""
        other = GrowingLayer()
        if self._buffers and length:
            other.update(*(buffer.narrow(2, 0, length) for buffer in self._buffers))
        return other

    def bytes(self) -> int:
        """Size of the buffers."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers)

    def _grow(self, keys: Tensor, values: Tensor) -> None:
        """Move to buffers of at least ``self.length`` tokens, shaped like these keys and values."""
        capacity = max(FIRST_CAPACITY, 1 << (self.length - 1).bit_length())
        grown = tuple(s.new_empty((*s.shape[:2], capacity, s.shape[3])) for s in (keys, values))
        for before, after in zip(self._buffers, grown, strict=False):
            after[:, :, : before.shape[2]] = before
        self._buffers, self._capacity = grown, capacity
        self.is_initialized = True


class PackedCache:
    """Keys and values of a conversation for the CPU engine, 16 bits each: bf16 or fp16, as `forward.Shape` tells.

    Of the keys, 16 neighbouring tokens are one vector, of the values 16 neighbouring numbers of a token, and both are
    read in the order in which they lie. What lies beyond ``length`` is finite: it is read, and multiplied by zero.

    Args:
        layers: Of the model.
        heads: For keys and values.
        size: Of a head.
        adapter: What ran beside the weights; its conversation goes on with it.
    """

    def __init__(self, layers: int, heads: int, size: int, adapter: PackedLora | None = None) -> None:
        self._shape = layers, heads, size
        self.adapter = adapter
        self.length = 0
        self._capacity = 0
        self.keys = torch.empty(0)
        """(layers, heads, capacity / 16, size, 16)"""
        self.values = torch.empty(0)
        """(layers, heads, size / 16, capacity, 16)"""

    @property
    def layers(self) -> list[PackedCache]:
        """All layers are one here."""
        return [self]

    def reserve(self, tokens: int) -> None:
        """Make room for more tokens."""
        needed = self.length + tokens
        if needed <= self._capacity:
            return
        capacity = max(FIRST_CAPACITY, 1 << (needed - 1).bit_length())
        layers, heads, size = self._shape
        grown = PackedCache(layers, heads, size)
        # numpy's zeros are untouched pages of the system: what is not used costs nothing.
        grown.keys = torch.from_numpy(np.zeros((layers, heads, capacity // _LANES, size, _LANES), np.int16))
        grown.values = torch.from_numpy(np.zeros((layers, heads, size // _LANES, capacity, _LANES), np.int16))
        self._copy_to(grown, self.length)
        self.keys, self.values, self._capacity = grown.keys, grown.values, capacity

    def addresses(self) -> tuple[int, int, int]:
        """Capacity, and where the keys and the values are."""
        return self._capacity, self.keys.data_ptr(), self.values.data_ptr()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens (a negative count, as transformers has it)."""
        self.length += tokens_to_remove

    def head(self, length: int) -> PackedCache:
        """A copy of the first ``length`` tokens."""
        other = PackedCache(*self._shape, self.adapter)
        other.reserve(length)
        self._copy_to(other, length)
        other.length = length
        return other

    def _copy_to(self, other: PackedCache, length: int) -> None:
        if length:
            vectors = -(-length // _LANES)
            other.keys[:, :, :vectors] = self.keys[:, :, :vectors]
            other.values[:, :, :, :length] = self.values[:, :, :, :length]

    def bytes(self) -> int:
        """Size of the buffers."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values))


def new_cache(config: Any) -> Cache:
    """An empty cache for a model of this configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) else layer
        for layer in cache.layers
    ]
    if cache.layer_class_to_replicate is not None:
        cache.layer_class_to_replicate = GrowingLayer
    return cache


def can_crop(cache: Cache | PackedCache) -> bool:
    """Whether the cache can be rolled back to any length."""
    return all(isinstance(layer, GrowingLayer | PackedCache) for layer in cache.layers)


def head(cache: Cache | PackedCache, config: Any, length: int) -> Cache | PackedCache:
    """A copy of the first ``length`` tokens of a cache that `can_crop`."""
    if isinstance(cache, PackedCache):
        return cache.head(length)
    other = new_cache(config)
    other.layers = [layer.head(length) for layer in cache.layers]
    return other


def snapshot(cache: Cache) -> Cache:
    """A copy of all of it."""
    return copy.deepcopy(cache)


def cache_bytes(cache: Cache | PackedCache) -> int:
    """Size of the cache in memory."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer | PackedCache):
            total += layer.bytes()
        else:
            total += sum(t.numel() * t.element_size() for t in _tensors(vars(layer)))
    return total


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []
