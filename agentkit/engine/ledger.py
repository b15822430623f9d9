"""The token ledger: an append-only list of ids with the KV cache of all but the last few of them.

A prompt that extends an earlier one costs only its new tokens. A prompt that diverges from it takes over the
common prefix; when much would be lost by rolling back, the prefix is copied instead, so that the system-and-tools
prefix serves every conversation. A model with a recurrent state cannot be rolled back to any token: of it the ledger
keeps snapshots, taken where turns begin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from agentkit.engine.cache import GrowingLayer, cache_bytes, can_crop, head, snapshot
from agentkit.engine.weights import LoadedModel
from agentkit.errors import ModelError


class Ledger:
    """One conversation's ids and cache. ``len(ids) >= cached``; `logits` computes what is missing.

    Args:
        loaded: The model.
        relieve: Frees memory that others could do without; called when a forward pass found none.
    """

    SNAPSHOTS = 4
    """Turn boundaries to which a model that cannot be rolled back can still return."""

    def __init__(self, loaded: LoadedModel, relieve: Callable[[], None] | None = None) -> None:
        self._loaded = loaded
        self._relieve = relieve
        self._snapshots: list[tuple[int, Any]] = []
        self._boundary = False
        self.ids: list[int] = []
        self.cache: Any = loaded.new_cache()
        self.cached = 0
        """Leading ids whose keys and values are in the cache."""
        self.forward_passes = 0
        self.relieved = 0
        """How often memory ran out and was freed."""
        self.busy = False
        self.last_used = 0

    def align(self, prompt: Sequence[int]) -> int:
        """Make ``prompt`` the ledger's ids, keeping the cache of the longest common prefix.

        Returns:
            How many of the prompt's tokens need no computation. At least one always does: the logits that follow
            the prompt come from computing its last token.
        """
        keep = min(self.common_prefix(prompt), len(prompt) - 1, self.cached)
        self._roll_back(keep)
        self.ids = list(prompt)
        self._boundary = True
        return self.cached

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """Length of the longest common prefix of the cached ids and ``prompt``."""
        limit = min(self.cached, len(prompt))
        return next((n for n in range(limit) if self.ids[n] != prompt[n]), limit)

    def truncate(self, length: int) -> None:
        """Forget every id from ``length`` on."""
        self._roll_back(min(length, self.cached))
        del self.ids[length:]

    def logits(self) -> torch.Tensor:
        """Compute what is not yet cached and return the logits after the last id, shape (vocabulary,), float32."""
        if len(self.ids) > self._loaded.context_length:
            length = self._loaded.context_length
            raise ModelError(
                f"the conversation is longer than the model's {length} tokens", "start a new session"
            )
        try:
            return self._compute()
        except (MemoryError, RuntimeError) as error:
            if self._relieve is None or not _out_of_memory(error):
                raise
            self._undo()
            self._relieve()
            self.relieved += 1
            return self._compute()

    def _compute(self) -> torch.Tensor:
        if self._boundary and self.cached < len(self.ids) - 1 and not can_crop(self.cache):
            # All but the last token first: asked the same again, the model must compute at least that one.
            self._forward(len(self.ids) - 1)
            self._snapshots = [*self._snapshots, (self.cached, snapshot(self.cache))][-self.SNAPSHOTS :]
        self._boundary = False
        return self._forward(len(self.ids))

    def _forward(self, end: int) -> torch.Tensor:
        logits = self._loaded.forward(self.ids[self.cached : end], self.cache)
        self.cached = end
        self.forward_passes += 1
        return logits

    def _undo(self) -> None:
        """Bring the cache back to ``cached`` tokens, after a forward pass that only some of its layers saw."""
        if can_crop(self.cache):
            layers: list[GrowingLayer] = self.cache.layers
            for layer in layers:
                layer.crop(self.cached - layer.length)
        else:
            self._roll_back(self.cached - 1)

    def fork(self, length: int) -> Ledger:
        """A new ledger with a copy of the first ``length`` cached ids."""
        other = Ledger(self._loaded, self._relieve)
        if can_crop(self.cache):
            other.cache, other.cached = head(self.cache, self._loaded.model.config, length), length
        else:
            other._snapshots = [item for item in self._snapshots if item[0] <= length]
            other._restore(length)
        other.ids = self.ids[: other.cached]
        return other

    def bytes(self) -> int:
        """Size of the cache."""
        return cache_bytes(self.cache) + sum(cache_bytes(cache) for _, cache in self._snapshots)

    def _roll_back(self, keep: int) -> None:
        if keep == self.cached:
            return
        if can_crop(self.cache):
            self.cache.crop(keep - self.cached)  # a negative count drops that many tokens
            self.cached = keep
        else:
            self._restore(keep)

    def _restore(self, keep: int) -> None:
        """Go back to the last snapshot of at most ``keep`` tokens, or to the beginning."""
        self._snapshots = [item for item in self._snapshots if item[0] <= keep]
        if self._snapshots:
            self.cached, cache = self._snapshots[-1]
            self.cache = snapshot(cache)  # the forward pass changes it in place
        else:
            self.cache, self.cached = self._loaded.new_cache(), 0


def _out_of_memory(error: Exception) -> bool:
    # torch raises a RuntimeError of its own class on CUDA, and a plain one on the CPU.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


class LedgerPool:
    """The ledgers of one model, under a memory budget; the least recently used go first.

    Args:
        loaded: The model.
        budget_bytes: KV cache kept between turns, over all conversations.
    """

    COPY_FROM = 64
    """Copy a prefix of at least this many tokens rather than roll another conversation back by as many."""

    def __init__(self, loaded: LoadedModel, budget_bytes: int = 1 << 30) -> None:
        self._loaded = loaded
        self._budget = budget_bytes
        self._ledgers: list[Ledger] = []
        self._clock = 0
        self._lock = threading.Lock()

    def acquire(self, prompt: Sequence[int]) -> tuple[Ledger, int]:
        """The best ledger for ``prompt``, aligned and marked busy, and the tokens it reuses."""
        with self._lock:
            self._clock += 1
            best = max(self._ledgers, key=lambda ledger: ledger.common_prefix(prompt), default=None)
            shared = best.common_prefix(prompt) if best else 0
            if best is None or shared == 0:
                ledger = Ledger(self._loaded, self.free)
                self._ledgers.append(ledger)
            elif best.busy or best.cached - shared >= self.COPY_FROM:
                ledger = self._copy(best, shared) or Ledger(self._loaded, self.free)
                self._ledgers.append(ledger)
            else:
                ledger = best
            ledger.busy, ledger.last_used = True, self._clock
            return ledger, ledger.align(prompt)

    def release(self, ledger: Ledger) -> None:
        """Give a ledger back and evict whole conversations beyond the budget."""
        with self._lock:
            ledger.busy = False
            total = sum(item.bytes() for item in self._ledgers)
            for item in sorted(self._ledgers, key=lambda item: item.last_used):
                if total <= self._budget:
                    break
                if not item.busy:
                    total -= item.bytes()
                    self._ledgers.remove(item)
                    if not self._ledgers:
                        self._ledgers += self._beginning(item)

    def _beginning(self, ledger: Ledger) -> list[Ledger]:
        """As much of a conversation as fits, in place of one that is larger than the budget by itself.

        The system prompt and the tools stand there: without it every session would have to compute them anew.
        """
        length = ledger.cached
        while length := length // 2:
            shorter = self._copy(ledger, length)
            if shorter and shorter.cached and shorter.bytes() <= self._budget:
                shorter.last_used = ledger.last_used
                return [shorter]
        return []

    @staticmethod
    def _copy(ledger: Ledger, length: int) -> Ledger | None:
        """A fork, or none where there is no memory for it: a copy only saves time."""
        try:
            return ledger.fork(length)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            return None

    def free(self) -> None:
        """Drop every conversation that is not being continued right now."""
        with self._lock:
            self._ledgers = [ledger for ledger in self._ledgers if ledger.busy]
        if self._loaded.device == "cuda":
            torch.cuda.empty_cache()

    def discard(self, ledger: Ledger) -> None:
        """Drop a ledger whose state is not trusted, after an error."""
        with self._lock:
            if ledger in self._ledgers:
                self._ledgers.remove(ledger)
