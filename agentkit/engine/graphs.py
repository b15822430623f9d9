"""Steps of a conversation as CUDA graphs: what a GPU was told once, it does again without being told.

A token of a small model is some hundreds of kernels that take a few microseconds each, and to launch one takes the
processor longer than that. A step of a fixed number of rows over the buffers of one cache is recorded once, and then
launched as a whole (developer.nvidia.com/blog/cuda-graphs). When the buffers grow, it is recorded anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentkit.engine.cache import TorchCache

WIDTHS = (1, 4, 16, 64)
"""Rows of the steps that are recorded; fewer ids are filled up, and what comes of the others is left behind."""

Fixed = Callable[[Tensor, Tensor, TorchCache], Tensor]
"""A step of unchanging shapes: ids (n,), the number of tokens before them (), a cache with room for n more; logits
(n, vocabulary) after each."""


def width_of(ids: int) -> int | None:
    """The rows of the step that so many ids go through; none beyond the widest."""
    return next((width for width in WIDTHS if ids <= width), None)


class Recorder:
    """Runs steps of a model's conversations, and records those that come again.

    Args:
        fixed: The step.
        device: Where.
    """

    def __init__(self, fixed: Fixed, device: torch.device) -> None:
        self._fixed, self._device = fixed, device
        # One after the other they can use the same memory for what lies between their input and their output.
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def step(self, ids: Tensor, cache: TorchCache, last: int) -> Tensor:
        """Append ids (n,), as many as `WIDTHS` has room for; the logits after the last of them, (last, vocabulary)."""
        n, width = len(ids), width_of(len(ids))
        if width is None:
            raise ValueError(f"no step of {n} rows is recorded")
        cache.reserve(width)
        if not isinstance(cache.steps, _Steps):
            cache.steps = _Steps()
        steps = cache.steps
        if width not in steps.inputs:
            steps.inputs[width] = _Input(ids.new_zeros(width), ids.new_zeros(()))
        given = steps.inputs[width]
        given.ids[:n] = ids
        given.start.fill_(cache.length)
        if width in steps.tried:
            if width not in steps.recorded:
                steps.recorded[width] = self._record(given, cache)
            logits = steps.recorded[width].replay()
        else:  # kernels are loaded and chosen when they first run, which must not be while they are recorded
            steps.tried.add(width)
            logits = self._run(given, cache)
        cache.length += n
        return logits[n - last : n].clone()

    def _run(self, given: _Input, cache: TorchCache) -> Tensor:
        """The step as it is, on the stream on which it will be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            logits = self._fixed(given.ids, given.start, cache)
        torch.cuda.current_stream().wait_stream(self._stream)
        return logits

    def _record(self, given: _Input, cache: TorchCache) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        # Other threads use the GPU meanwhile: an embedder, a captioner.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            logits = self._fixed(given.ids, given.start, cache)
        return _Recorded(graph.replay, logits)


@dataclass(frozen=True, slots=True)
class _Input:
    ids: Tensor
    start: Tensor


@dataclass(frozen=True, slots=True)
class _Recorded:
    launch: Callable[[], None]
    logits: Tensor
    """Where they are written to each time."""

    def replay(self) -> Tensor:
        self.launch()
        return self.logits


@dataclass(slots=True)
class _Steps:
    """What has been recorded for one cache, by the number of rows."""

    inputs: dict[int, _Input] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)
    recorded: dict[int, _Recorded] = field(default_factory=dict)
