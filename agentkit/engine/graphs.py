"""Steps of a conversation as CUDA graphs: what a GPU was told once, it does again without being told.

A token of a small model is some hundreds of kernels that take a few microseconds each, and to launch one takes the
processor longer than that. A step of a fixed number of rows over the buffers of one cache is recorded when it has come
a few times, and then launched as a whole (developer.nvidia.com/blog/cuda-graphs). When the buffers grow, it is recorded
anew.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakMethod

import torch
from torch import Tensor

from agentkit.engine.cache import TorchCache, out_of_memory

WIDTHS = (1, 4, 16, 64)
"""Rows of the steps that are recorded; fewer ids are filled up, and what comes of the others is left behind."""
PLAIN = 4
"""Steps of a width that run as they are: kernels are loaded and chosen when they first run, which must not be while
they are recorded, and to record costs as much as some steps."""
CAPTURING = threading.Lock()
"""Held while anything is recorded, and by whoever gives memory back to the device, which must not be meanwhile."""

Fixed = Callable[[Tensor, Tensor, TorchCache], Tensor]
"""A step of unchanging shapes: ids (n,), the number of tokens before them (), a cache with room for n more; logits
(n, vocabulary) after each."""
_log = logging.getLogger(__name__)


def width_of(ids: int) -> int | None:
    """The rows of the step that so many ids go through; none beyond the widest."""
    return next((width for width in WIDTHS if ids <= width), None)


class Recorder:
    """Runs steps of a model's conversations, and records those that come again.

    Args:
        fixed: The step, a method of what holds this recorder.
        device: Where.
        vocab_size: Of the logits.

    Raises:
        RuntimeError: Nothing can be recorded here.
    """

    def __init__(self, fixed: Fixed, device: torch.device, vocab_size: int) -> None:
        self._fixed = WeakMethod(fixed)  # a cycle would keep a model's memory after its last use
        self._device, self._vocab_size = device, vocab_size
        self._lock = threading.Lock()
        self._logits: dict[int, Tensor] = {}
        """Where recorded steps of each width write; all of a model's, as one runs at a time."""
        self.failure = ""
        """Why nothing is recorded any more."""
        self._begin()

    def _begin(self) -> None:
        # One after the other they can use the same memory for what lies between their input and their output.
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # A pool ends with its last graph and cannot be begun again: this one stays.
        self._first = self._capture(lambda: torch.zeros((), device=self._device))

    def step(self, ids: Tensor, cache: TorchCache, last: int) -> Tensor:
        """Append ids (n,), as many as `WIDTHS` has room for; the logits after the last of them, (last, vocabulary)."""
        n, width = len(ids), width_of(len(ids))
        if width is None:
            raise ValueError(f"no step of {n} rows is recorded")
        with self._lock:
            cache.reserve(width)
            if not isinstance(cache.steps, _Steps):
                cache.steps = _Steps()
            steps = cache.steps
            if width not in steps.inputs:
                steps.inputs[width] = _Input(ids.new_zeros(width), ids.new_zeros(()))
            given = steps.inputs[width]
            given.ids[:n] = ids
            given.start.fill_(cache.length)
            if width not in steps.recorded and steps.run[width] >= PLAIN and not self.failure:
                self._record(width, steps, cache)
            if width in steps.recorded:
                steps.recorded[width]()
                logits = self._logits[width]
            else:
                steps.run[width] += 1
                logits = self._run(given, cache)
            cache.length += n
            return logits[n - last : n].clone()

    def _record(self, width: int, steps: _Steps, cache: TorchCache) -> None:
        """Record a step; where that fails, nothing of it has run, and this and all others run as they are."""
        if width not in self._logits:
            self._logits[width] = torch.empty(width, self._vocab_size, device=self._device)
        given, logits = steps.inputs[width], self._logits[width]
        try:
            launch = self._capture(lambda: logits.copy_(self._compute(given, cache)))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            self.failure = str(error).strip().splitlines()[0]
            _log.warning("steps are no longer recorded on the GPU, which makes them slower: %s", self.failure)
        else:
            steps.recorded[width] = launch

    def _compute(self, given: _Input, cache: TorchCache) -> Tensor:
        fixed = self._fixed()
        if fixed is None:
            raise ReferenceError("the model of this recorder is gone")
        return fixed(given.ids, given.start, cache)

    def _run(self, given: _Input, cache: TorchCache) -> Tensor:
        """The step as it is, on the stream on which it will be recorded."""
        before = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(before)
        try:
            with torch.cuda.stream(self._stream):
                return self._compute(given, cache)
        finally:
            before.wait_stream(self._stream)

    def _capture(self, work: Callable[[], Tensor]) -> Callable[[], None]:
        """What launches the work again; it has not run yet."""
        graph = torch.cuda.CUDAGraph()
        # The outer stream is for a capture that fails: torch.cuda.graph then leaves its own behind as the current one.
        # Other threads use the GPU meanwhile: an embedder, a captioner.
        with (
            CAPTURING,
            torch.cuda.stream(self._stream),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay


@dataclass(frozen=True, slots=True)
class _Input:
    ids: Tensor
    start: Tensor


@dataclass(slots=True)
class _Steps:
    """What has been recorded for one cache, by the number of rows."""

    inputs: dict[int, _Input] = field(default_factory=dict)
    run: Counter[int] = field(default_factory=Counter)
    """How often each has run as it is."""
    recorded: dict[int, Callable[[], None]] = field(default_factory=dict)
