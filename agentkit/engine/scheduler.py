"""One thread for a model's forward passes, shared by all conversations that wait for one.

Each pass takes a step of every conversation that has asked, and fills what room there is with portions of long prompts,
so that reading one stalls nobody. A conversation's loop (`decode.decoding`) runs in the thread that wants its tokens:
what goes wrong in its grammar or its sampler is its own, nothing is computed that nobody asked for, and who is slow
delays only himself.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentkit.engine.decode import Decoding, FinishReason, Step, Tokens
from agentkit.engine.families import ROWS
from agentkit.engine.ledger import Ledger, Portion
from agentkit.engine.weights import LoadedModel

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE_S = 0.004
"""How long a pass waits for the next request of conversations that have always been as quick as that."""
ALONE = 1024
"""Ids of a prompt read in one go where there is no other conversation: then a new one is let in."""
PROMPT_ROWS = 32
"""Rows of a pass that are left to prompts, however many conversations decode."""
DRAFT_ROWS = 64
"""Rows of a pass that drafts may have together: with more, a row costs what it saves."""


@dataclass(slots=True)
class Counters:
    """What a model's thread has done so far."""

    passes: int = 0
    rows: int = 0
    """Ids computed, drafts included."""
    steps: int = 0
    """Requests answered; by ``passes``, the conversations that shared one."""
    seconds: float = 0.0
    """Time within passes."""


class Scheduler:
    """Computes for many conversations at once. Its thread ends when nobody holds it any more."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._worker = _Worker(loaded)
        self._inbox = self._worker.inbox
        self.counters = self._worker.counters
        # Whichever thread asks, one computes: torch keeps a team of workers for each.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"agentkit-{loaded.name}")

    def run(
        self, loop: Decoding, cancel: threading.Event | None = None
    ) -> Generator[Tokens | FinishReason, None, None]:
        """What the loop yields, its forward passes computed together with those of others.

        Args:
            loop: A decode loop; it runs in the caller's thread.
            cancel: Set from any thread, it ends the wait for a pass.

        Raises:
            Exception: Whatever the pass died of, or the loop's grammar or sampler.
        """
        request = _Request(cancel)
        try:
            for item in loop:
                while isinstance(item, Step):
                    item = loop.send(self._ask(request, item))
                yield item
        finally:
            self._inbox.put(_Left(request))

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the model's thread, between two passes: no cache changes meanwhile."""
        job: _Job[T] = _Job(function)
        self._send(job)
        return _outcome(job.answer)

    def _ask(self, request: _Request, step: Step) -> torch.Tensor | None:
        request.ledger, request.draft = step.ledger, step.draft
        request.asked = time.monotonic()
        self._send(request)
        rows: torch.Tensor | None = _outcome(request.answer)
        return rows

    def _send(self, message: _Request | _Job[Any]) -> None:
        with self._worker.lock:
            if self._worker.idle:
                # It may find no thread, at the end of the program: then nothing is under way, and nobody waits.
                self._thread.submit(self._worker.run)
                self._worker.idle = False
            self._inbox.put(message)


def _outcome(answer: queue.SimpleQueue[T | Exception]) -> T:
    result = answer.get()
    if not isinstance(result, Exception):
        return result
    try:
        raise result
    finally:
        del result  # a cycle with its own traceback would hold the caches of what failed


@dataclass(slots=True, eq=False)
class _Request:
    """A conversation and the pass it waits for."""

    cancel: threading.Event | None
    answer: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    ledger: Ledger = field(init=False)
    draft: Sequence[int] = ()
    asked: float = 0.0
    answered: float = math.inf
    """When; the first request is in time."""

    @property
    def cancelled(self) -> bool:
        return self.cancel is not None and self.cancel.is_set()

    @property
    def prompt(self) -> bool:
        """Whether there is much to compute, or that of a recurrent state, which is not left behind in between."""
        few = Ledger.FEW if self.ledger.croppable else 1
        return len(self.ledger.ids) - self.ledger.cached > few


@dataclass(frozen=True, slots=True)
class _Left:
    """A conversation asks for nothing more."""

    request: _Request


class _Job(Generic[T]):
    """A function to run, and where its result goes."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.answer: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            self.answer.put(self.function())
        except Exception as error:  # raised where the answer is awaited
            self.answer.put(error)


class _Worker:
    """What the thread does."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self.inbox: queue.SimpleQueue[_Request | _Left | _Job[Any]] = queue.SimpleQueue()
        self.counters = Counters()
        self.lock = threading.Lock()
        self.idle = True
        self._waiting: list[_Request] = []
        self._live: set[_Request] = set()
        self._quick: set[_Request] = set()
        """Conversations that asked again as soon as they could: the next pass waits for them."""

    def run(self) -> None:
        """Until nobody waits for anything."""
        while True:
            self._gather()
            if self._waiting:
                started = time.perf_counter()
                try:
                    self._pass()
                except Exception as error:  # nobody may wait for ever
                    for request in list(self._waiting):
                        self._answer(request, error)
                self.counters.seconds += time.perf_counter() - started
                continue
            with self.lock:
                if self.inbox.empty():
                    self.idle = True
                    return

    def _take(self, message: _Request | _Left | _Job[Any]) -> None:
        match message:
            case _Request():
                self._waiting.append(message)
                self._live.add(message)
                if message.asked - message.answered <= PATIENCE_S:
                    self._quick.add(message)
                else:
                    self._quick.discard(message)
            case _Left():
                self._live.discard(message.request)
                self._quick.discard(message.request)
                self._waiting = [request for request in self._waiting if request is not message.request]
            case _Job():
                message.run()

    def _gather(self) -> None:
        """Take what has come; where somebody waits, wait a little for those who usually come."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            missing = self._quick.difference(self._waiting) if self._waiting else set()
            try:
                wait = max(0.0, deadline - time.monotonic()) if missing else 0.0
                self._take(self.inbox.get(timeout=wait) if wait else self.inbox.get_nowait())
            except queue.Empty:
                self._quick -= missing
                return

    def _pass(self) -> None:
        for request in [request for request in self._waiting if request.cancelled]:
            self._answer(request, None)
        batch = self._choose()
        if len(batch) > 1 and self._loaded.batches:
            try:
                rows = self._loaded.forward_batch(
                    [portion.ids for _, portion in batch],
                    [request.ledger.cache for request, _ in batch],
                    [portion.last for _, portion in batch],
                )
            except Exception:
                # Whose fault it was shows when each goes alone; one that finds no memory has others' freed.
                for request, _ in batch:
                    request.ledger.recover()
            else:
                self._count(sum(len(portion.ids) for _, portion in batch))
                for (request, portion), logits in zip(batch, rows, strict=True):
                    request.ledger.commit(portion)
                    if portion.last:
                        self._answer(request, logits)
                return
        for request, portion in batch:
            self._alone(request, portion)

    def _choose(self) -> list[tuple[_Request, Portion]]:
        """Who takes part in the next pass, and with what: single tokens and drafts first, prompts in what room is left.

        Who finds no room stands first the next time.
        """
        prompts = [request for request in self._waiting if request.prompt]
        others = [request for request in self._waiting if not request.prompt]
        draft = DRAFT_ROWS // max(1, len(others))
        room = ROWS - PROMPT_ROWS * bool(prompts)
        batch = []
        for request in others:
            portion = self._portion(request, room, draft)
            if portion and portion.last and len(portion.ids) <= room:
                batch.append((request, portion))
                room -= len(portion.ids)
        room = ALONE if len(self._live) == 1 else room + PROMPT_ROWS
        for request in prompts:
            if room > 0 and (portion := self._portion(request, room, 0)):
                batch.append((request, portion))
                room -= len(portion.ids)
        # Rows of one adapter lie together: what it adds is then one product for all of them.
        return sorted(batch, key=lambda item: id(item[0].ledger.adapter))

    def _portion(self, request: _Request, most: int, draft: int) -> Portion | None:
        try:
            return request.ledger.portion(most, request.draft[:draft])
        except Exception as error:  # this conversation's own: too long, or no memory for its cache
            self._answer(request, error)
            return None

    def _alone(self, request: _Request, portion: Portion) -> None:
        draft = max(0, portion.last - 1)
        try:
            rows = request.ledger.step(len(portion.ids) - draft, request.draft[:draft])
        except Exception as error:  # whatever a forward pass dies of ends the conversation that asked for it
            self._answer(request, error)
            return
        self._count(len(portion.ids))
        if rows is not None:
            self._answer(request, rows)

    def _answer(self, request: _Request, result: torch.Tensor | Exception | None) -> None:
        self._waiting.remove(request)
        self.counters.steps += 1
        request.answered = time.monotonic()
        request.answer.put(result)

    def _count(self, rows: int) -> None:
        self.counters.passes += 1
        self.counters.rows += rows
