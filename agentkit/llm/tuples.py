"""Numbers of which only their order tells what they are for: "the points (3, 4) and (6, 8)"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentkit.llm.named import Part
from agentkit.llm.slots import Slot
from agentkit.llm.spans import Span

_JOINED = re.compile(r"\s*(?:,|and|,\s*and|&)\s*")
"""Between the numbers of a tuple; brackets keep tuples apart."""
_PAIRWISE = re.compile(r"\brespectively\b|\bin (?:that|this) order\b", re.I)
_TELLING = 1.5
"""Difference of fits that tells which parameter a number is for."""


def pairwise(turn: str, part: Part) -> bool:
    """Whether a turn says that its lists go together in their order."""
    return _PAIRWISE.search(turn, *part) is not None


def tuples(
    told: Sequence[Slot],
    untold: Sequence[Slot],
    spans: Sequence[Span],
    turn: str,
    inside: Sequence[int],
    in_order: bool,
) -> list[tuple[Slot, list[int]]]:
    """The parameters that take the members of tuples, in their order, with the numbers of each; none where there are
    other numbers, or where something else tells what a number is for.

    Args:
        told: Parameters that the turn speaks of.
        untold: Others, which take what longer tuples have more.
        spans: Of the turn.
        turn: The user's words.
        inside: Spans that count, by number.
        in_order: Whether the turn says that order decides (`pairwise`).
    """
    runs = _runs(spans, turn, inside)
    longest = max(map(len, runs), default=0)
    slots = [slot for slot in told if slot.type in ("number", "integer")]
    more = [slot for slot in untold if slot.type in ("number", "integer")]
    slots += more[: max(0, longest - len(slots))]
    needed = max(2, sum(slot.required for slot in slots))
    if len(slots) < 2 or any(slot.type == "array" for slot in told):
        return []
    if not all(needed <= len(run) <= len(slots) and _fits(slots, run) for run in runs):
        return []
    if not in_order and any(_told_apart(slots, run) for run in runs):
        return []
    members = [[run[k] for run in runs if len(run) > k] for k in range(len(slots))]
    return [pair for pair in zip(slots, members, strict=True) if pair[1]]


def _fits(slots: Sequence[Slot], run: Sequence[int]) -> bool:
    return all(n in slot.fits for slot, n in zip(slots, run, strict=False))


def _told_apart(slots: Sequence[Slot], run: Sequence[int]) -> bool:
    """Whether a number fits another parameter much better than the one whose turn it is."""
    best = (max(slot.fits.get(n, 0.0) for slot in slots) for n in run)
    return any(slot.fits[n] < most - _TELLING for slot, n, most in zip(slots, run, best, strict=False))


def _runs(spans: Sequence[Span], turn: str, inside: Sequence[int]) -> list[list[int]]:
    """Numbers in digits, row by row; in "3 and 4, 5 and 12" commas part what conjunctions join."""
    runs: list[list[int]] = []
    joints: list[list[str]] = []
    for n in inside:
        span = spans[n]
        if span.kind != "number" or span.text[-1].isalpha():
            continue
        between = turn[spans[runs[-1][-1]].end : span.start] if runs else ""
        if runs and _JOINED.fullmatch(between):
            runs[-1].append(n)
            joints[-1].append(between.strip())
        else:
            runs.append([n])
            joints.append([])
    return [part for run, joint in zip(runs, joints, strict=True) for part in _pairs(run, joint)]


def _pairs(run: list[int], joints: Sequence[str]) -> list[list[int]]:
    inner, outer = joints[::2], joints[1::2]
    if outer and len(run) % 2 == 0 and set(inner) == {"and"} and "and" not in outer:
        return [run[n : n + 2] for n in range(0, len(run), 2)]
    return [run]
