"""Quantities that a turn says in parts: "1 hour and 30 minutes", "5 feet 11 inches"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentkit.llm.slots import Slot
from agentkit.llm.spans import Span
from agentkit.llm.units import unit

_BETWEEN = frozenset({"", " ", " and ", ", ", ", and "})


def added_up(spans: Sequence[Span], slots: Sequence[Slot], turn: str) -> list[Span]:
    """The spans, those of one quantity as one, unless there is a parameter for each part of it.

    Args:
        spans: In the order of the turn.
        slots: The parameters that take them.
        turn: The words that the spans stand in.
    """
    dimensions = [{what for what, _ in slot.units()} for slot in slots]
    numbers: list[Span] = []
    for span in spans:
        if span.kind != "number":
            continue
        whole = _whole(numbers[-1], span, turn) if numbers else None
        if whole is not None and sum(_dimension(whole) in each for each in dimensions) < 2:
            numbers[-1] = whole
        else:
            numbers.append(span)
    others = (span for span in spans if span.kind != "number")
    return sorted((*others, *numbers), key=lambda span: (span.start, -span.end))


def _dimension(span: Span) -> str:
    measured = unit(span.unit)
    return measured[0] if measured else ""


def _whole(first: Span, second: Span, turn: str) -> Span | None:
    """Both as one in the first one's unit; none where they are not parts of a quantity."""
    if not (first.unit and second.unit):
        return None
    large, small = unit(first.unit), unit(second.unit)
    if large is None or small is None or large[0] != small[0] or large[1] <= small[1]:
        return None
    behind = turn.find(first.unit, first.end) + len(first.unit)
    if turn[behind : second.start] not in _BETWEEN or second.value * small[1] >= large[1]:
        return None
    value = first.value + second.value * small[1] / large[1]
    return replace(first, text=turn[first.start : second.end], end=second.end, value=value, unit=first.unit)
