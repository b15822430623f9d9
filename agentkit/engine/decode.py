"""The decode loop: step, mask, sample, append, until an end-of-turn token, a complete grammar or the budget.

The loop computes nothing itself: it asks for the forward pass, so that conversations can share one (`scheduler`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from agentkit.settings import SamplingSettings

if TYPE_CHECKING:
    import torch

    from agentkit.engine.drafts import Drafts
    from agentkit.engine.ledger import Ledger

FinishReason = Literal["stop", "grammar", "length", "cancelled"]


class MaskProvider(Protocol):
    """A grammar, as the loop sees it."""

    @property
    def complete(self) -> bool:
        """Nothing may follow."""
        ...

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """Set forbidden tokens to minus infinity. ``remaining`` is the token budget left."""
        ...

    def permits(self, token: int, remaining: int) -> bool:
        """Whether the token that is best without the mask is the best under it too; false where that is not sure."""
        ...

    def accept(self, token: int) -> None: ...

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model says; already accepted."""
        ...

    def allows(self, draft: Sequence[int]) -> int:
        """How many of these tokens it would accept, one after the other; none is accepted by this."""
        ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens appended in one step: one sampled, any number forced."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The loop asks for a forward pass: to be sent what `Ledger.compute` gives for the draft, or for its beginning.

    Sent None, it ends as cancelled.
    """

    ledger: Ledger
    draft: Sequence[int]


Decoding = Generator[Step | Tokens | FinishReason, "torch.Tensor | None", None]
"""The loop under way. Between its yields the ledger is consistent, and it may be closed at any of them."""


class Sampler:
    """Chooses the next token; temperature 0 is greedy.

    Repetition penalty (arXiv:1909.05858) over the tokens of the answer so far, then temperature, top-k, top-p
    (nucleus sampling, arXiv:1904.09751) and min-p (arXiv:2407.01082), with a seed of its own.
    """

    def __init__(self, settings: SamplingSettings, device: str) -> None:
        import torch

        self._settings = settings
        self._generator = torch.Generator(device=device).manual_seed(settings.seed)

    @property
    def greedy(self) -> bool:
        """Whether the best token is chosen, whatever the others' logits are."""
        return self._settings.temperature == 0

    def sample(self, logits: torch.Tensor, written: Sequence[int] = ()) -> int:
        """Choose a token from logits of shape (vocabulary,), after an answer of the ids ``written``."""
        import torch

        s = self._settings
        if s.repetition_penalty != 1 and written:
            seen = torch.tensor(sorted(set(written)), device=logits.device)
            old = logits[seen]
            logits = logits.index_put(
                (seen,), torch.where(old < 0, old * s.repetition_penalty, old / s.repetition_penalty)
            )
        if s.temperature == 0:
            # numpy's is one thread's work: torch would wake a team for a few microseconds.
            return int(logits.numpy().argmax() if logits.device.type == "cpu" else logits.argmax())
        logits = (logits - logits.max()) / s.temperature  # a tiny temperature must not overflow
        if 0 < s.top_k < logits.numel():
            logits = logits.masked_fill(logits < logits.topk(s.top_k).values[-1], -torch.inf)
        if s.top_p < 1:
            ordered, order = logits.softmax(-1).sort(descending=True)
            # Keep the smallest set whose mass reaches top_p, the token that crosses it included.
            outside = ordered.cumsum(-1) - ordered >= s.top_p
            logits = logits.index_fill(0, order[outside], -torch.inf)
        if s.min_p > 0:
            # As a difference of logits: the best is 0 here.
            logits = logits.masked_fill(logits < math.log(s.min_p), -torch.inf)
        return int(torch.multinomial(logits.softmax(-1), 1, generator=self._generator))


def decoding(
    ledger: Ledger,
    sampler: Sampler,
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    grammar: MaskProvider | None = None,
    cancel: threading.Event | None = None,
    drafts: Drafts | None = None,
) -> Decoding:
    """Extend the ledger token by token; the finish reason comes last.

    The end-of-turn token is appended to the ledger (it is part of the conversation) but not yielded. Forced tokens
    are appended without being sampled and share the next forward pass. A draft changes no token: each is sampled from
    its own logits, as it would be without, and what differs ends the use of the draft (arXiv:2211.17192, where the
    draft has no distribution of its own).
    """
    budget, start = max_new_tokens, len(ledger.ids)
    rows: torch.Tensor | None = None  # the logits after the last id, and after each of the draft that is left
    draft: Sequence[int] = ()
    if grammar is not None and (forced := grammar.forced()):
        ledger.append(forced)
        budget -= len(forced)
        yield Tokens(tuple(forced))
    while True:
        if finish := _finish(cancel, grammar, budget):
            yield finish
            return
        if rows is None:
            draft = _draft(ledger, drafts, grammar, budget, stop_ids)
            rows = yield Step(ledger, draft)
            if rows is None:
                yield "cancelled"
                return
            draft = draft[: len(rows) - 1]
        step = [_choose(rows[0], sampler, ledger.ids[start:], grammar, budget)]
        if grammar is None and step[0] in stop_ids:
            ledger.append(step)
            yield "stop"
            return
        if grammar is not None:
            grammar.accept(step[0])
            step += grammar.forced()
        known = _common(step, draft)
        if drafts is not None:
            drafts.learn(known, missed=known < min(len(step), len(draft)))
        ledger.append(step, known)
        draft, rows = (draft[known:], rows[known:]) if known == len(step) else ((), None)
        yield Tokens(tuple(step))
        budget -= len(step)


def _choose(
    logits: torch.Tensor, sampler: Sampler, written: Sequence[int], grammar: MaskProvider | None, budget: int
) -> int:
    if grammar is None:
        return sampler.sample(logits, written)
    if sampler.greedy:
        # Mostly the model wants what the grammar wants: to ask about one token is cheaper than a mask for all.
        token = sampler.sample(logits, written)
        if grammar.permits(token, budget):
            return token
    return sampler.sample(grammar.mask(logits, budget), written)


def _finish(cancel: threading.Event | None, grammar: MaskProvider | None, budget: int) -> FinishReason | None:
    if cancel is not None and cancel.is_set():
        return "cancelled"
    if grammar is not None and grammar.complete:
        return "grammar"
    return "length" if budget <= 0 else None


def _draft(
    ledger: Ledger, drafts: Drafts | None, grammar: MaskProvider | None, budget: int, stop_ids: frozenset[int]
) -> list[int]:
    """What may follow the ledger's ids: nothing behind an end of turn, the budget, or what the grammar accepts."""
    if drafts is None or (room := min(budget - 1, ledger.draft_room())) <= 0:
        return []
    draft = drafts.propose(ledger.ids, room)
    if grammar is not None and draft:
        return draft[: grammar.allows(draft)]
    return draft[: next((n for n, token in enumerate(draft) if token in stop_ids), len(draft))]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def decode(
    ledger: Ledger,
    sampler: Sampler,
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    grammar: MaskProvider | None = None,
    cancel: threading.Event | None = None,
    drafts: Drafts | None = None,
) -> Iterator[Tokens | FinishReason]:
    """`decoding` of one conversation alone, each forward pass in the caller's thread."""
    loop = decoding(
        ledger,
        sampler,
        stop_ids=stop_ids,
        max_new_tokens=max_new_tokens,
        grammar=grammar,
        cancel=cancel,
        drafts=drafts,
    )
    for item in loop:
        while isinstance(item, Step):
            item = loop.send(item.ledger.compute(item.draft))
        yield item


LOOP_REPEATS = 4
LOOP_TOKENS = 64
"""A phrase counts as a loop when its repeats are at least this many tokens together."""


def is_looping(ids: list[int]) -> bool:
    """Whether the ids end in one phrase `LOOP_REPEATS` times in a row; small models do not find out by themselves."""
    for length in range(1, len(ids) // LOOP_REPEATS + 1):
        if length * LOOP_REPEATS < LOOP_TOKENS or ids[-1] != ids[-1 - length]:
            continue
        phrase = ids[-length:]
        if all(ids[-(n + 1) * length : -n * length] == phrase for n in range(1, LOOP_REPEATS)):
            return True
    return False
