"""A passage as quotes: its sentences, each complete enough to stand alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from agentkit.messages import Passage
from agentkit.retrieval.documents import EMPTY_CELL
from agentkit.retrieval.sentences import sentence_spans
from agentkit.retrieval.words import content_words

_CELL = " | "
_ITEM = "- "
_LEAD_IN = 300
"""Characters; a longer lead-in is not repeated before every line of its list."""


class Sentence(NamedTuple):
    """A sentence that can stand alone, and where it is."""

    text: str
    """As it is written, or put together: a table's row with its column names, a list's line with its lead-in."""
    start: int
    """First character in the passage; of a line or row, without lead-in and names."""
    end: int


def passage_quotes(passage: Passage) -> list[Sentence]:
    """Sentences in order: a lead-in ("You need:") or a fragment is joined with its neighbour, and a table row
    is read out with its column names."""
    quotes: list[Sentence] = []
    carry = ""
    spans = sentence_spans(passage.text)
    lines = [Sentence(passage.text[start:end], start, end) for start, end in spans]
    for sentence in _read_tables(lines):
        text, start, end = sentence
        is_item = text.startswith(_ITEM)
        text = text.removeprefix(_ITEM).lstrip()  # in running text the mark of a list's line is a stray dash
        joined = f"{carry} {text}".strip()
        if text.endswith(":") and len(joined) < _LEAD_IN:
            carry = joined
        elif len(content_words(text)) < 2 and quotes and not carry:
            quotes[-1] = Sentence(f"{quotes[-1].text} {text}", quotes[-1].start, end)
        else:
            quotes.append(Sentence(joined, start, end))
            # The lead-in of a list holds for all its lines.
            carry = carry if carry and is_item else ""
    return quotes or ([Sentence(carry, lines[0].start, lines[-1].end)] if carry else [])


def last_heading(passage: Passage) -> str:
    """The heading right above the passage."""
    return passage.heading.rsplit(" > ", 1)[-1]


def _read_tables(lines: Iterable[Sentence]) -> Iterator[Sentence]:
    """Rows of equal length are a table: ``King | 230 cm`` under ``Bed | Duvet`` is ``King: duvet 230 cm``."""
    for separators, group in groupby(lines, lambda line: line.text.count(_CELL)):
        if not separators:
            yield from group
            continue
        found = list(group)
        rows = [line.text.split(_CELL) for line in found]
        named = len(rows) > 1 and not _has_number(rows[0]) and any(map(_has_number, rows[1:]))
        names = [f"{cell[:1].lower()}{cell[1:]} " for cell in rows[0]] if named else [""] * len(rows[0])
        for line, row in list(zip(found, rows, strict=True))[named:]:
            cells = zip(names[1:], row[1:], strict=True)
            told = ", ".join(name + cell for name, cell in cells if cell != EMPTY_CELL)
            if told:
                yield line._replace(text=f"{row[0]}: {told}")


def _has_number(row: list[str]) -> bool:
    return any(character.isdigit() for cell in row for character in cell)
