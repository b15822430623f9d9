"""Keys and values of one conversation, in buffers that grow by doubling.

transformers' own cache concatenates: every new token copies the whole conversation. Here it copies one token, and
rolling back is forgetting a length. Sliding-window layers keep every token too, so that they roll back as well; the
window is in the attention mask. Layers with a recurrent state instead (of LFM2, Qwen3-Next, Falcon-H1 …) stay
transformers' own, and the ledger takes snapshots of them. Models that hold such a state elsewhere are not loaded at all
(`weights`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

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


class WholeCache(ABC):
    """Keys and values of a conversation, all layers in one pair of buffers that grows by doubling.

    Args:
        layers: Of the model.
        heads: For keys and values.
        size: Of a head.
        adapter: What ran beside the weights; its conversation goes on with it.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, layers: int, heads: int, size: int, adapter: Any = None) -> None:
        self._shape = layers, heads, size
        self.adapter = adapter
        self.length = 0
        self.capacity = 0
        """Tokens that there is room for."""
        self.keys = self.values = torch.empty(0)

    @property
    def layers(self) -> list[Self]:
        """All layers are one here."""
        return [self]

    def reserve(self, tokens: int) -> None:
        """Make room for more tokens."""
        needed = self.length + tokens
        if needed <= self.capacity:
            return
        before = self.keys, self.values
        capacity = max(FIRST_CAPACITY, 1 << (needed - 1).bit_length())
        keys, values = self._new(capacity)
        if self.length:
            self._copy(before, (keys, values), self.length)
        self.keys, self.values, self.capacity = keys, values, capacity

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens (a negative count, as transformers has it)."""
        self.length += tokens_to_remove

    def head(self, length: int) -> Self:
        """A copy of the first ``length`` tokens."""
        other = self._empty()
        if length:
            other.reserve(length)
            self._copy((self.keys, self.values), (other.keys, other.values), length)
            other.length = length
        return other

    def bytes(self) -> int:
        """Size of the buffers."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values))

    def _empty(self) -> Self:
        return type(self)(*self._shape, self.adapter)

    @abstractmethod
    def _new(self, capacity: int) -> tuple[Tensor, Tensor]:
        """Buffers for keys and values."""

    @staticmethod
    @abstractmethod
    def _copy(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], length: int) -> None:
        """Copy the keys and values of the first tokens."""


class PackedCache(WholeCache):
    """For the CPU engine, 16 bits each: bf16 or fp16, as `forward.Shape` tells.

    Of the keys, 16 neighbouring tokens are one vector, of the values 16 neighbouring numbers of a token, and both are
    read in the order in which they lie. What lies beyond ``length`` is finite: it is read, and multiplied by zero.

    Keys are (layers, heads, capacity / 16, size, 16), values (layers, heads, size / 16, capacity, 16).
    """

    def addresses(self) -> tuple[int, int, int]:
        """Capacity, and where the keys and the values are."""
        return self.capacity, self.keys.data_ptr(), self.values.data_ptr()

    def _new(self, capacity: int) -> tuple[Tensor, Tensor]:
        layers, heads, size = self._shape
        # numpy's zeros are untouched pages of the system: what is not used costs nothing.
        return (
            torch.from_numpy(np.zeros((layers, heads, capacity // _LANES, size, _LANES), np.int16)),
            torch.from_numpy(np.zeros((layers, heads, size // _LANES, capacity, _LANES), np.int16)),
        )

    @staticmethod
    def _copy(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], length: int) -> None:
        vectors = -(-length // _LANES)
        target[0][:, :, :vectors] = source[0][:, :, :vectors]
        target[1][:, :, :, :length] = source[1][:, :, :, :length]


class TorchCache(WholeCache):
    """For the pass in torch: keys and values of the shape (layers, heads, capacity, size).

    Args:
        layers: Of the model.
        heads: For keys and values.
        size: Of a head.
        adapter: What ran beside the weights; its conversation goes on with it.
        like: A tensor of their type, where they are to be.
    """

    def __init__(self, layers: int, heads: int, size: int, adapter: Any = None, *, like: Tensor) -> None:
        super().__init__(layers, heads, size, adapter)
        self._like = like
        self.steps: Any = None
        """What was recorded for these buffers, by `graphs`."""

    def append(self, layer: int, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write (new, heads, size) behind the first ``start`` tokens; all of them, (heads, tokens, size)."""
        end = start + len(keys)
        found = []
        for buffer, new in ((self.keys[layer], keys), (self.values[layer], values)):
            buffer[:, start:end] = new.transpose(0, 1)
            found.append(buffer[:, :end])
        return found[0], found[1]

    def _empty(self) -> TorchCache:
        return TorchCache(*self._shape, self.adapter, like=self._like)

    def _new(self, capacity: int) -> tuple[Tensor, Tensor]:
        layers, heads, size = self._shape
        self.steps = None
        # Zeros: a recorded step reads beyond the length, and weighs it by zero.
        keys, values = (self._like.new_zeros(layers, heads, capacity, size) for _ in range(2))
        return keys, values

    @staticmethod
    def _copy(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], length: int) -> None:
        for before, after in zip(source, target, strict=True):
            after[:, :, :length] = before[:, :, :length]


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


def can_crop(cache: Cache | WholeCache) -> bool:
    """Whether the cache can be rolled back to any length."""
    return all(isinstance(layer, GrowingLayer | WholeCache) for layer in cache.layers)


def head(cache: Cache | WholeCache, config: Any, length: int) -> Cache | WholeCache:
    """A copy of the first ``length`` tokens of a cache that `can_crop`."""
    if isinstance(cache, WholeCache):
        return cache.head(length)
    other = new_cache(config)
    other.layers = [layer.head(length) for layer in cache.layers]
    return other


def snapshot(cache: Cache) -> Cache:
    """A copy of all of it."""
    return copy.deepcopy(cache)


def cache_bytes(cache: Cache | WholeCache) -> int:
    """Size of the cache in memory."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer | WholeCache):
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


def out_of_memory(error: Exception) -> bool:
    """Whether a forward pass or a copy failed for want of memory."""
    # torch raises a RuntimeError of its own class on CUDA, mostly, and a plain one on the CPU.
    signs = "allocate memory", "out of memory", "ALLOC_FAILED"
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error) for sign in signs
    )
