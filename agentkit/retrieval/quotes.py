"""A passage as quotes: its sentences, each complete enough to stand alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from agentkit.messages import Passage
from agentkit.retrieval.sentences import sentences
from agentkit.retrieval.words import content_words

_CELL = " | "
_LEAD_IN = 300
"""Characters; a longer lead-in is not repeated before every line of its list."""


def passage_quotes(passage: Passage) -> list[str]:
    """Sentences in order: a lead-in ("You need:") or a fragment is joined with its neighbour, and a table row
    is read out with its column names."""
    quotes: list[str] = []
    carry = ""
    for sentence in _read_tables(sentences(passage.text)):
        joined = f"{carry} {sentence}".strip()
        if sentence.endswith(":") and len(joined) < _LEAD_IN:
            carry = joined
        elif len(content_words(sentence)) < 2 and quotes and not carry:
            quotes[-1] = f"{quotes[-1]} {sentence}"
        else:
            quotes.append(joined)
            # The lead-in of a list holds for all its lines.
            carry = carry if carry and sentence.startswith("- ") else ""
    return quotes or ([carry] if carry else [])


def last_heading(passage: Passage) -> str:
    """The heading right above the passage."""
    return passage.heading.rsplit(" > ", 1)[-1]


def _read_tables(lines: list[str]) -> Iterator[str]:
    """Rows of equal length are a table: ``King | 230 cm`` under ``Bed | Duvet`` is ``King: duvet 230 cm``."""
    for separators, group in groupby(lines, lambda line: line.count(_CELL)):
        if not separators:
            yield from group
            continue
        rows = [line.split(_CELL) for line in group]
        named = len(rows) > 1 and not _has_number(rows[0]) and any(map(_has_number, rows[1:]))
        names = [f"{cell[:1].lower()}{cell[1:]} " for cell in rows[0]] if named else [""] * len(rows[0])
        for row in rows[1:] if named else rows:
            cells = zip(names[1:], row[1:], strict=True)
            yield f"{row[0]}: {', '.join(name + cell for name, cell in cells)}"


def _has_number(row: list[str]) -> bool:
    return any(character.isdigit() for cell in row for character in cell)
