"""The token ledger: an append-only list of ids with the KV cache of all but the last few of them.

A prompt that extends an earlier one costs only its new tokens. A prompt that diverges from it takes over the
common prefix; when much would be lost by rolling back, the prefix is copied instead, so that the system-and-tools
prefix serves every conversation. A model with a recurrent state cannot be rolled back to any token: of it the ledger
keeps snapshots, taken where turns begin.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agentkit.engine.cache import GrowingLayer, cache_bytes, can_crop, head, out_of_memory, snapshot
from agentkit.engine.graphs import CAPTURING
from agentkit.engine.weights import LoadedModel
from agentkit.errors import ModelError

if TYPE_CHECKING:
    from agentkit.engine.peft_files import PreparedLora


@dataclass(frozen=True, slots=True)
class Portion:
    """What one forward pass computes of a conversation."""

    ids: list[int]
    last: int
    """After how many of the last ids the logits are wanted; none while more portions follow."""


class Ledger:
    """One conversation's ids and cache. ``len(ids) >= cached``; `logits` computes what is missing.

    Behind the ``cached`` tokens the cache may hold more, of a draft: they are dropped before anything is computed.

    Args:
        loaded: The model.
        relieve: Frees memory that others could do without; called when a forward pass found none.
        adapter: What runs beside the weights, from the first token to the last.
    """

    SNAPSHOTS = 4
    """Turn boundaries to which a model that cannot be rolled back can still return."""
    FEW = 32
    """Ids that may wait to be computed when a draft is tried: with it, logits are made after every one of them."""

    def __init__(
        self,
        loaded: LoadedModel,
        relieve: Callable[[], None] | None = None,
        adapter: PreparedLora | None = None,
    ) -> None:
        self._loaded = loaded
        self.adapter = adapter
        self._relieve = relieve
        self._snapshots: list[tuple[int, Any]] = []
        self._boundary = False
        self.lock = threading.RLock()
        """Held while ids are taken away, and while another conversation copies them."""
        self.ids: list[int] = []
        self.cache: Any = loaded.new_cache(adapter)
        self.croppable = can_crop(self.cache)
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
        with self.lock:
            keep = min(self.common_prefix(prompt), len(prompt) - 1, self.cached)
            self._roll_back(keep)
            self.ids = list(prompt)
            self._boundary = True
            return self.cached

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """Length of the longest common prefix of the cached ids and ``prompt``."""
        with self.lock:
            limit = min(self.cached, len(prompt))
            if self.ids[:limit] == list(prompt[:limit]):
                return limit
            return next(n for n in range(limit) if self.ids[n] != prompt[n])

    def truncate(self, length: int) -> None:
        """Forget every id from ``length`` on."""
        with self.lock:
            self._roll_back(min(length, self.cached))
            del self.ids[length:]

    def append(self, ids: Sequence[int], known: int = 0) -> None:
        """Add ids, of which the first ``known`` have just been computed as a draft."""
        self.ids.extend(ids)
        self.cached += known

    def draft_room(self) -> int:
        """How many tokens of a draft can be tried behind the ids."""
        if not self.croppable or len(self.ids) - self.cached > self.FEW:
            return 0
        return max(0, self._loaded.context_length - len(self.ids))

    def logits(self) -> torch.Tensor:
        """Compute what is not yet cached and return the logits after the last id, shape (vocabulary,), float32."""
        return self.compute()[-1]

    def compute(self, draft: Sequence[int] = ()) -> torch.Tensor:
        """Compute what is not yet cached, and a draft of what may follow.

        Returns:
            The logits after the last id and after each of the draft, (1 + len(draft), vocabulary), float32.
        """
        while True:
            rows = self.step(len(self.ids), draft)
            if rows is not None:
                return rows

    def step(self, most: int, draft: Sequence[int] = ()) -> torch.Tensor | None:
        """One forward pass over ``most`` ids at most: the logits as `compute` gives them, none while ids remain."""
        portion = self.portion(most, draft)
        try:
            return self._forward(portion)
        except (MemoryError, RuntimeError) as error:
            if self._relieve is None or not out_of_memory(error):
                raise
        # Only behind the handler is what the failed pass held given up.
        self.recover()
        self._relieve()
        self.relieved += 1
        # A model that cannot be rolled back by a token has gone back further.
        return self._forward(self.portion(most, draft))

    def portion(self, most: int, draft: Sequence[int] = ()) -> Portion:
        """The next ids to compute, ``most`` at most, the draft (it does not count) behind the last of them.

        Raises:
            ModelError: The conversation is longer than the model's context.
        """
        length, end = self._loaded.context_length, len(self.ids)
        if end > length:
            cause = f"the conversation is longer than the model's {length} tokens"
            raise ModelError(cause, "start a new session")
        if self.croppable:
            self._trim()
        elif self._boundary and self.cached < end - 1:
            # All but the last token first: asked the same again, the model must compute at least that one.
            end -= 1
        ids = self.ids[self.cached : min(end, self.cached + most)]
        if self.cached + len(ids) < len(self.ids):
            return Portion(ids, 0)
        return Portion([*ids, *draft], 1 + len(draft))

    def commit(self, portion: Portion) -> None:
        """Take note that a portion has been computed."""
        self.cached += len(portion.ids) - max(0, portion.last - 1)
        self.forward_passes += 1
        if self._boundary and not self.croppable and self.cached == len(self.ids) - 1:
            self._snapshots = [*self._snapshots, (self.cached, snapshot(self.cache))][-self.SNAPSHOTS :]
            self._boundary = False
        if portion.last:
            self._boundary = False

    def recover(self) -> None:
        """Bring the cache back to ``cached`` tokens, after a forward pass that only some of its layers saw."""
        if self.croppable:
            self._trim()
        else:
            self._restore(self.cached - 1)

    def _forward(self, portion: Portion) -> torch.Tensor | None:
        if portion.last > 1:
            logits = self._loaded.forward(portion.ids, self.cache, every=True)[-portion.last :]
        else:
            logits = self._loaded.forward(portion.ids, self.cache)[None]
        self.commit(portion)
        return logits if portion.last else None

    def _trim(self) -> None:
        layers: list[GrowingLayer] = self.cache.layers
        for layer in layers:
            if layer.length != self.cached:
                layer.crop(self.cached - layer.length)  # a negative count drops that many tokens

    def fork(self, length: int) -> Ledger:
        """A new ledger with a copy of the first ``length`` cached ids."""
        other = Ledger(self._loaded, self._relieve, self.adapter)
        if self.croppable:
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
        if self.croppable:
            self.cached = keep
            self._trim()
        else:
            self._restore(keep)

    def _restore(self, keep: int) -> None:
        """Go back to the last snapshot of at most ``keep`` tokens, or to the beginning."""
        self._snapshots = [item for item in self._snapshots if item[0] <= keep]
        if self._snapshots:
            self.cached, cache = self._snapshots[-1]
            self.cache = snapshot(cache)  # the forward pass changes it in place
        else:
            self.cache, self.cached = self._loaded.new_cache(self.adapter), 0


def _free_memory(device: str) -> int:
    """Bytes that the device has free, and that a container leaves of them."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return min(int(psutil.virtual_memory().available), _left_by_container())


def _left_by_container(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    try:
        limit, used = (
            (cgroup / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current")
        )
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return sys.maxsize


class LedgerPool:
    """The ledgers of one model, under a memory budget; the least recently used go first.

    Args:
        loaded: The model.
        budget_bytes: KV cache kept between turns, over all conversations. By default it is a gigabyte, beyond which the
            last conversation alone may take up to a quarter of the memory that the device has free now: to read many
            old ones anew costs less than to keep them, a single long one must not be read twice.
    """

    COPY_FROM = 64
    """Copy a prefix of at least this many tokens rather than roll another conversation back by as many."""

    def __init__(self, loaded: LoadedModel, budget_bytes: int | None = None) -> None:
        self._loaded = loaded
        self._budget = self._largest = 1 << 30 if budget_bytes is None else budget_bytes
        if budget_bytes is None:
            self._largest = max(self._budget, _free_memory(loaded.device) // 4)
        self._ledgers: list[Ledger] = []
        self._returned: deque[Ledger] = deque()
        self._clock = 0
        self._lock = threading.Lock()

    def acquire(self, prompt: Sequence[int], adapter: PreparedLora | None = None) -> tuple[Ledger, int]:
        """The best ledger for ``prompt`` under an adapter, aligned and marked busy, and the tokens it reuses.

        To be called where no forward pass is under way: the ledger of another conversation may be copied.
        """
        with self._lock:
            self._settle()
            self._clock += 1
            ledger = self._best(prompt, adapter)
            ledger.busy, ledger.last_used = True, self._clock
            try:
                return ledger, ledger.align(prompt)
            except BaseException:  # e.g. out of memory: nobody could give it back
                self._ledgers.remove(ledger)
                raise

    def _best(self, prompt: Sequence[int], adapter: PreparedLora | None) -> Ledger:
        # What another adapter computed, or none, says nothing about this one's keys and values.
        own = [ledger for ledger in self._ledgers if ledger.adapter is adapter]
        best = max(own, key=lambda ledger: ledger.common_prefix(prompt), default=None)
        if best is not None:
            with best.lock:  # whose conversation goes on in another thread
                shared = best.common_prefix(prompt)
                if shared and not best.busy and best.cached - shared < self.COPY_FROM:
                    return best
                ledger = self._copy(best, shared) if shared else None
        else:
            ledger = None
        ledger = ledger or Ledger(self._loaded, self.free, adapter)
        self._ledgers.append(ledger)
        return ledger

    def release(self, ledger: Ledger) -> None:
        """Give a ledger back and evict whole conversations beyond the budget, those in use and the last one aside.

        Waits for nothing: the garbage collector may close an abandoned stream while its thread holds the lock.
        """
        self._returned.append(ledger)
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Take in what was given back, and keep to the budget."""
        self._take_in()
        total = sum(item.bytes() for item in self._ledgers)
        idle = sorted((item for item in self._ledgers if not item.busy), key=lambda item: item.last_used)
        for item in idle[:-1]:
            if total > self._budget:
                total -= item.bytes()
                self._ledgers.remove(item)
        # The last one goes only if it is too large by itself: it is the likeliest to be continued.
        for item in idle[-1:]:
            if item.bytes() > self._largest:
                self._ledgers.remove(item)
                self._ledgers += self._beginning(item)

    def _take_in(self) -> None:
        while self._returned:
            self._returned.popleft().busy = False

    def _beginning(self, ledger: Ledger) -> list[Ledger]:
        """As much of a conversation as fits, in place of one that is larger than the budget by itself.

        The system prompt and the tools stand there: without it every session would have to compute them anew.
        """
        length = ledger.cached
        while length := length // 2:
            shorter = self._copy(ledger, length)
            if shorter and shorter.cached and shorter.bytes() <= self._largest:
                shorter.last_used = ledger.last_used
                return [shorter]
        return []

    @staticmethod
    def _copy(ledger: Ledger, length: int) -> Ledger | None:
        """A fork, or none where there is no memory for it: a copy only saves time."""
        try:
            return ledger.fork(length)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None

    def free(self) -> None:
        """Drop every conversation that is not being continued right now."""
        with self._lock:
            self._take_in()
            self._ledgers = [ledger for ledger in self._ledgers if ledger.busy]
        if self._loaded.device == "cuda":
            with CAPTURING:
                torch.cuda.empty_cache()

    def discard(self, ledger: Ledger) -> None:
        """Drop a ledger whose state is not trusted, after an error."""
        with self._lock:
            if ledger in self._ledgers:
                self._ledgers.remove(ledger)
