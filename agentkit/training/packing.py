"""Conversations to packs: what several have in common from the beginning is read once, and nothing is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from agentkit.training.data import IGNORED, Row

if TYPE_CHECKING:
    from agentkit.training.tree import Span


_WORTH = 0.25
"""Share of a row that joining it to a group has to save: all begin with the same few words, which is no reason."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that share their first ``prefix`` tokens."""

    rows: tuple[Row, ...]
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Tokens to be read."""
        return self.prefix + sum(len(row.ids) - self.prefix for row in self.rows)


@dataclass(frozen=True)
class Pack:
    """Groups one after the other, as the model reads them in one pass."""

    groups: tuple[Group, ...]

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Where each group lies."""
        from agentkit.training.tree import Span

        spans, start = [], 0
        for group in self.groups:
            lengths = tuple(len(row.ids) - group.prefix for row in group.rows)
            spans.append(Span(start, group.prefix, lengths))
            start = spans[-1].end
        return tuple(spans)

    @cached_property
    def ids(self) -> list[int]:
        """(T,) tokens."""
        found: list[int] = []
        for group in self.groups:
            found += group.rows[0].ids[: group.prefix]
            for row in group.rows:
                found += row.ids[group.prefix :]
        return found

    @cached_property
    def targets(self) -> list[tuple[int, int, float]]:
        """(position, token that follows it, weight of all rows that learn that there), by position."""
        found, start = [], 0
        for group in self.groups:
            first = group.rows[0]
            weight = sum(row.weight for row in group.rows)
            found += targets_of(first.labels[: group.prefix], start, weight)
            start += group.prefix
            for row in group.rows:
                found += targets_of(row.labels[group.prefix :], start, row.weight)
                start += len(row.ids) - group.prefix
        return found

    @property
    def keep(self) -> bool:
        """Whether its rows are to be kept rather than learned, which all are or none."""
        return self.groups[0].rows[0].keep

    @property
    def learned(self) -> float:
        """Weight of all assistant tokens, as if each row were read by itself."""
        return sum(weight for _, _, weight in self.targets)


def pack(rows: Sequence[Row], tokens: int) -> list[Pack]:
    """Rows of one step in packs of at most so many tokens; a longer row is a pack of its own."""
    kept = [row for row in rows if row.keep]
    return _packs([row for row in rows if not row.keep], tokens) + _packs(kept, tokens)


def _packs(rows: Sequence[Row], tokens: int) -> list[Pack]:
    packs: list[list[Group]] = []
    free = 0
    for group in sorted(share(rows, tokens), key=lambda group: group.tokens, reverse=True):
        if group.tokens > free:
            packs.append([])
            free = tokens
        packs[-1].append(group)
        free -= group.tokens
    return [Pack(tuple(groups)) for groups in packs]


def padded(packs: Sequence[Pack], tokens: int) -> list[Pack]:
    """The rows of packs, each to be read by itself: in packs that have at most so many tokens when they are padded to
    their longest row. What is learned and what is kept stay apart, and a longer row is a pack of its own.
    """
    found: list[Pack] = []
    for kept in (False, True):
        held: list[Group] = []
        rows = (
            row for packed in packs if packed.keep == kept for group in packed.groups for row in group.rows
        )
        for row in sorted(rows, key=lambda row: len(row.ids)):
            if held and (len(held) + 1) * len(row.ids) > tokens:
                found.append(Pack(tuple(held)))
                held = []
            held.append(Group((row,)))
        if held:
            found.append(Pack(tuple(held)))
    return found


def share(rows: Sequence[Row], tokens: int | None) -> list[Group]:
    """Rows that begin alike in groups of at most so many tokens, wherever that saves a fair part of a row."""
    groups: list[Group] = []
    for row in sorted(rows, key=lambda row: row.ids):
        if groups:
            joined = _joined(groups[-1], row)
            saved = groups[-1].tokens + len(row.ids) - joined.tokens
            if saved >= len(row.ids) * _WORTH and (tokens is None or joined.tokens <= tokens):
                groups[-1] = joined
                continue
        groups.append(Group((row,)))
    return groups


def _joined(group: Group, row: Row) -> Group:
    first = group.rows[0]
    limit = (group.prefix or len(first.ids)) - (not group.prefix)
    prefix = min(_common(first.ids, row.ids, limit), len(row.ids) - 1)
    rows = (*group.rows, row)
    # What a branch's first token is has to be predicted within the prefix, where all branches would have to agree.
    while prefix and any(other.labels[prefix] != IGNORED for other in rows):
        prefix -= 1
    # Labels may differ where ids do not: a text that was once said by the assistant and once put into its mouth.
    same = _common(first.labels, row.labels, prefix)
    return Group(rows, prefix if same == prefix else 0)


def _common(first: Sequence[int], second: Sequence[int], limit: int) -> int:
    limit = min(limit, len(first), len(second))
    if first[:limit] == second[:limit]:
        return limit
    low, high = 0, limit  # the first `low` are alike, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle)
    return low


def targets_of(labels: Sequence[int], start: int, weight: float) -> list[tuple[int, int, float]]:
    """(position, token that follows it, weight) for each label of a row that starts at a position."""
    return [(start + n - 1, label, weight) for n, label in enumerate(labels) if n and label != IGNORED]
