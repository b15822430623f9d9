"""Drafts from the session's own tokens: what came after the same words before may come again.

Prompt lookup (A. Saxena, github.com/apoorvumang/prompt-lookup-decoding): the last few tokens are looked up among all
earlier ones, prompt and answers, and the tokens behind the longest match, the latest of them, are the draft. How long
it gets follows from how often drafts behind a match of that length have held so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST = 8
"""Tokens of a match that are looked at."""
MOST = 24
"""Tokens of a draft."""
ROW_COST = 0.08
"""Time that one token more in a forward pass takes, by the time of a pass over one (measured: 0.05 to 0.07)."""
WORTH = 1.03
"""Expected gain in speed from which on a draft is tried."""
_PRIOR = (0.0, 0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
"""Assumed share of drafted tokens that hold, by length of the match; one token alone says nothing."""
_WEIGHT = 6.0
"""Each drafted token moves the estimate by one part in so many."""
_RETURN = 0.02
"""Part of the way back to the assumption that an estimate goes with every step at which nothing was drafted."""


class Drafts:
    """Proposes drafts for one answer, and learns from what became of them."""

    def __init__(self) -> None:
        self._ids = np.empty(1024, np.int64)
        self._count = 0
        self._rates = list(_PRIOR)
        self._match = 0
        self.drafted = 0
        """Tokens of drafts that were compared with what the model chose."""
        self.accepted = 0
        """Of these, tokens that the model chose itself."""

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """Tokens that may follow ``ids``, ``most`` at most; ``ids`` only ever grows."""
        self._extend(ids)
        at, self._match = self._find()
        length = min(most, best_length(self._rates[self._match]))
        if not length:
            self._rates = [
                rate + (prior - rate) * _RETURN for rate, prior in zip(self._rates, _PRIOR, strict=True)
            ]
            return []
        # Where the match ends near the end of all, its own continuation goes on as it began: a period.
        places = at + np.arange(length) % (self._count - at)
        return [int(token) for token in self._ids[places]]

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
        if len(ids) > len(self._ids):
            self._ids = np.resize(self._ids, 2 * len(ids))
        self._ids[self._count : len(ids)] = ids[self._count :]
        self._count = len(ids)

    def _find(self) -> tuple[int, int]:
        """Where the continuation of the longest match begins, of several the latest, and the match's length."""
        ids, last = self._ids, self._count - 1
        found, length = np.flatnonzero(ids[:last] == ids[last]), 0
        while len(found):
            ends, length = found, length + 1
            if length == LONGEST:
                break
            found = found[found >= length]
            found = found[ids[found - length] == ids[last - length]]
        return (int(ends[-1]) + 1, length) if length else (0, 0)


def best_length(rate: float) -> int:
    """The length of a draft that makes decoding fastest if each of its tokens holds with probability ``rate``."""
    best, most = 0, WORTH
    tokens = hold = 1.0
    for length in range(1, MOST + 1):
        hold *= rate
        tokens += hold
        gain = tokens / (1 + ROW_COST * length)
        if gain > most:
            best, most = length, gain
    return best
