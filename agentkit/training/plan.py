"""Which conversations each step learns from: a function of data, settings and seed alone, so a run can be resumed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from agentkit.training.data import Row
from agentkit.training.packing import Group, Pack, pack, share
from agentkit.training.settings import JobSettings

PACK_TOKENS = 2048
"""Tokens that the model reads in one pass, at most."""
_ALIKE = 8
"""Rows of one shared beginning in a step, at most: a step should see different tools."""

Step = list[Pack]


def steps(rows: Sequence[Row], job: JobSettings, order: random.Random) -> list[Step]:
    """One pass over the rows in random steps. Rows that begin alike meet in a step, where that is read once."""
    # Few chats need many small steps: 24 of them in steps of 2 teach more than in steps of 4.
    size = job.batch_size or min(8, max(2, len(rows) // 50))
    parts: list[Group] = []
    for family in share(rows, tokens=None):
        members = list(family.rows)
        order.shuffle(members)
        width = min(size, _ALIKE)
        for begin in range(0, len(members), width):
            parts += share(members[begin : begin + width], job.batch_tokens)
    order.shuffle(parts)
    return [
        pack([row for group in groups for row in group.rows], min(PACK_TOKENS, job.batch_tokens))
        for groups in _filled(parts, size, job.batch_tokens)
    ]


def _filled(groups: Sequence[Group], rows: int, tokens: int) -> Iterator[list[Group]]:
    found: list[Group] = []
    for group in groups:
        many = sum(len(other.rows) for other in found) + len(group.rows)
        if found and (many > rows or sum(other.tokens for other in found) + group.tokens > tokens):
            yield found
            found = []
        found.append(group)
    if found:
        yield found
