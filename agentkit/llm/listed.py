"""Lists in a turn that an argument could be: numbers in a row, items of an enumeration, names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.llm.named import Part, named_in
from agentkit.llm.slots import Slot
from agentkit.llm.spans import Kind, Span

Run = tuple[list[Any], int, int]
"""The items of a list, and from where to where it stands."""
_JOINED = re.compile(r",? ?(?:(?:and|or|&|to) )?(?:a |an |the )?")
_NEAR = 25
"""Characters between the items of a list that a turn names, at most."""


def items_of(slot: Slot) -> Mapping[str, Any]:
    items = slot.schema.get("items")
    return items if isinstance(items, Mapping) else {}


def named_items(slot: Slot) -> Sequence[Any]:
    """What schema or description name as members of an array of texts."""
    items = items_of(slot)
    closed = items.get("enum")
    return closed if isinstance(closed, list) else slot.choices if items.get("type") == "string" else ()


def item_runs(slot: Slot, spans: Sequence[Span], turn: str, part: Part) -> list[Run]:
    """Lists that an array could be, with where they stand."""
    items = items_of(slot)
    kind = items.get("type")
    near = [span for span in spans if part[0] <= span.start < part[1]]
    if kind in ("number", "integer"):
        numbers = [s for s in near if s.kind == "number" and (kind == "number" or isinstance(s.value, int))]
        return _runs([s for s in numbers if re.search(r"\d", s.text)] or numbers, turn)
    named = named_in(named_items(slot), turn, part)
    if named:
        return [
            (list(dict.fromkeys(value for value, _, _ in run)), run[0][1], run[-1][2])
            for run in _neighbours(named, turn)
        ]
    if kind != "string" or "enum" in items:
        return []
    kinds: tuple[Kind, ...] = ("email", "path", "quoted", "code", "name", "phrase")
    return [run for each in kinds for run in _runs([s for s in near if s.kind == each], turn)]


def _neighbours(named: Sequence[tuple[str, int, int]], turn: str) -> list[list[tuple[str, int, int]]]:
    """Named values by the clauses that they stand in."""
    runs: list[list[tuple[str, int, int]]] = []
    for value in named:
        if runs and len(turn[runs[-1][-1][2] : value[1]]) < _NEAR:
            runs[-1].append(value)
        else:
            runs.append([value])
    return runs


def _runs(pieces: Sequence[Span], turn: str) -> list[Run]:
    """Pieces that follow each other with nothing but commas and conjunctions between them: values, from and to."""
    runs: list[list[Span]] = []
    for span in pieces:
        if runs and _JOINED.fullmatch(turn, runs[-1][-1].end, span.start):
            runs[-1].append(span)
        else:
            runs.append([span])
    return [
        ([span.value if span.kind == "number" else span.text for span in run], run[0].start, run[-1].end)
        for run in runs
    ]
