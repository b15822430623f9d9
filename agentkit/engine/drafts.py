"""Drafts from the session's own tokens: what came after the same words before may come again.

Prompt lookup (A. Saxena, github.com/apoorvumang/prompt-lookup-decoding): the last few tokens are looked up among all
earlier ones, prompt and answers, and the tokens behind the longest match, the latest of them, are the draft. How long
it gets follows from how often drafts behind a match of that length have held so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

SHORTEST, LONGEST = 2, 8
"""Tokens of a match: one alone says nothing, and more than these are not compared."""
COSTS = {1: 1.0, 2: 1.08, 4: 1.25, 8: 2.0, 12: 2.2, 16: 2.7, 24: 3.4}
"""Time of a forward pass by its rows, by the time of one row, as measured on the CPU; between these it is no better."""
MOST = max(COSTS) - 1
"""Tokens of a draft."""
WORTH = 1.03
"""Expected gain in speed from which on a draft is tried."""
_PRIOR = (0.0, 0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
"""Assumed share of drafted tokens that hold, by length of the match."""
_WEIGHT = 4.0
"""Each drafted token moves the estimate by one part in so many."""
_RETURN = 0.02
"""Part of the way back to the assumption that an estimate goes whenever it kept a match from being drafted."""


class Drafts:
    """Proposes drafts for one answer, and learns from what became of them."""

    def __init__(self) -> None:
        self._ids = np.full(1024, -1)  # in front of the ids, as many that match nothing as a match may have
        self._count = LONGEST
        self._rates = list(_PRIOR)
        self._match = 0
        self.drafted = 0
        """Tokens of drafts that were compared with what the model chose."""
        self.accepted = 0
        """Of these, tokens that the model chose itself."""

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """Tokens that may follow ``ids``, ``most`` at most; ``ids`` only ever grows."""
        self._extend(ids)
        at, match = self._find()
        if match < SHORTEST:
            return []
        length = min(most, best_length(self._rates[match]))
        if not length:
            self._rates[match] += (_PRIOR[match] - self._rates[match]) * _RETURN
            return []
        self._match = match
        draft: list[int] = self._ids[at : min(at + length, self._count)].tolist()
        while len(draft) < length:  # the match ends where its own continuation begins: a period
            draft += draft[: length - len(draft)]
        return draft

    def learn(self, accepted: int, *, missed: bool) -> None:
        """Take note of one step within a draft.

        Args:
            accepted: Tokens of the step that the draft had foreseen.
            missed: The draft had another token in the next place.
        """
        self.drafted += accepted + missed
        self.accepted += accepted
        rate = self._rates[self._match]
        for _ in range(accepted):
            rate += (1 - rate) / _WEIGHT
        self._rates[self._match] = rate - rate / _WEIGHT * missed

    def _extend(self, ids: Sequence[int]) -> None:
        end = LONGEST + len(ids)
        if end > len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty(end, self._ids.dtype)])
        self._ids[self._count : end] = ids[self._count - LONGEST :]
        self._count = end

    def _find(self) -> tuple[int, int]:
        """Where the continuation of the longest match begins, of several the latest, and the match's length."""
        ids, last = self._ids, self._count - 1
        found, length = (ids[:last] == ids[last]).nonzero()[0], 0
        while len(found):
            ends, length = found, length + 1
            if length == LONGEST:
                break
            found = found[ids[found - length] == ids[last - length]]
        return (int(ends[-1]) + 1, length) if length else (0, 0)


@cache
def _best_length(percent: int) -> int:
    rate = percent / 100
    gains = {rows: sum(rate**n for n in range(rows)) / cost for rows, cost in COSTS.items()}
    best = max(gains, key=lambda rows: gains[rows])
    return best - 1 if gains[best] >= WORTH else 0


def best_length(rate: float) -> int:
    """The length of a draft that makes decoding fastest if each of its tokens holds with probability ``rate``."""
    return _best_length(int(100 * rate))
