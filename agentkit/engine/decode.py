"""The decode loop: step, mask, sample, append, until an end-of-turn token, a complete grammar or the budget."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from agentkit.settings import SamplingSettings

if TYPE_CHECKING:
    import torch

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

    def accept(self, token: int) -> None: ...

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model says; already accepted."""
        ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens appended in one step: one sampled, any number forced."""

    ids: tuple[int, ...]


class Sampler:
    """Chooses the next token; temperature 0 is greedy.

    Repetition penalty (arXiv:1909.05858) over the tokens of the answer so far, then temperature, top-k, top-p
    (nucleus sampling, arXiv:1904.09751) and min-p (arXiv:2407.01082), with a seed of its own.
    """

    def __init__(self, settings: SamplingSettings, device: str) -> None:
        import torch

        self._settings = settings
        self._generator = torch.Generator(device=device).manual_seed(settings.seed)

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
            return int(logits.argmax())
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


def decode(
    ledger: Ledger,
    sampler: Sampler,
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    grammar: MaskProvider | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[Tokens | FinishReason]:
    """Extend the ledger token by token; the finish reason comes last.

    The end-of-turn token is appended to the ledger (it is part of the conversation) but not yielded. Forced tokens
    are appended without being sampled and share the next forward pass.
    """
    budget, start = max_new_tokens, len(ledger.ids)
    if grammar is not None:
        forced = grammar.forced()
        budget -= len(forced)
        yield from _append(ledger, forced)
    while True:
        if cancel is not None and cancel.is_set():
            yield "cancelled"
            return
        if grammar is not None and grammar.complete:
            yield "grammar"
            return
        if budget <= 0:
            yield "length"
            return
        logits = ledger.logits()
        if grammar is not None:
            logits = grammar.mask(logits, budget)
        token = sampler.sample(logits, ledger.ids[start:])
        if grammar is None and token in stop_ids:
            ledger.ids.append(token)
            yield "stop"
            return
        step = [token]
        if grammar is not None:
            grammar.accept(token)
            step += grammar.forced()
        yield from _append(ledger, step)
        budget -= len(step)


def _append(ledger: Ledger, ids: list[int]) -> Iterator[Tokens]:
    if ids:
        ledger.ids.extend(ids)
        yield Tokens(tuple(ids))


LOOP_REPEATS = 3
LOOP_TOKENS = 24
"""A phrase counts as a loop when its repeats are at least this many tokens together."""


def is_looping(ids: list[int]) -> bool:
    """Whether the ids end in the same phrase three times in a row; small models do not find out by themselves."""
    for length in range(1, len(ids) // LOOP_REPEATS + 1):
        if length * LOOP_REPEATS < LOOP_TOKENS or ids[-1] != ids[-1 - length]:
            continue
        phrase = ids[-length:]
        if all(ids[-(n + 1) * length : -n * length] == phrase for n in range(1, LOOP_REPEATS)):
            return True
    return False
