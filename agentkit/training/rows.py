"""Encoded examples of classifiers, taggers and seq2seq models, and the steps they are learned in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentkit.training.data import Split
from agentkit.training.settings import JobSettings

Batch = list["HeadRow"]
_WINDOW = 16
"""Steps' worth of rows that are sorted by length together, so that little is padded."""


@dataclass(frozen=True, slots=True)
class HeadRow:
    """One example as a model reads it."""

    ids: list[int]
    labels: list[int]
    """One class; or one per id, `IGNORED` for what is no token; or the ids of the target."""
    split: Split = "train"
    shortened: bool = False
    starts: list[int] = field(default_factory=list)
    """Place of each token's first piece, of a row to be tagged."""
    wanted: str = ""
    """The target as text."""

    @property
    def tokens(self) -> int:
        """Length as it is read and answered."""
        return max(len(self.ids), len(self.labels))


def steps(rows: Sequence[HeadRow], job: JobSettings, order: random.Random) -> list[Batch]:
    """One pass over the rows in random batches of similar length."""
    size = job.batch_size or min(16, max(4, len(rows) // 20))
    shuffled = list(rows)
    order.shuffle(shuffled)
    found: list[Batch] = []
    for begin in range(0, len(shuffled), size * _WINDOW):
        window = sorted(shuffled[begin : begin + size * _WINDOW], key=lambda row: row.tokens)
        found += batches(window, size, job.batch_tokens)
    order.shuffle(found)
    return found


def batches(rows: Sequence[HeadRow], size: int, tokens: int) -> list[Batch]:
    """The rows in their order, up to ``size`` of them and ``tokens`` padded tokens a batch; a longer row is alone."""
    found: list[Batch] = []
    for row in rows:
        last = found[-1] if found else []
        longest = max(other.tokens for other in [*last, row])
        if last and len(last) < size and longest * (len(last) + 1) <= tokens:
            last.append(row)
        else:
            found.append([row])
    return found
