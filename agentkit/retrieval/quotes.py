"""A passage as quotes: its sentences, each complete enough to stand alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agentkit.messages import Passage
from agentkit.retrieval.documents import CELL, COLUMN, EMPTY_CELL
from agentkit.retrieval.sentences import sentence_spans
from agentkit.retrieval.words import CJK, content_words

_DASH = "- "
_ITEM = re.compile(r"- |\d{1,3}[.)] ")
_LEAD_IN = 300
"""Characters; a longer lead-in is not repeated before every line of its list, nor a longer line kept whole."""
_SHORT = 4
"""Characters of a fragment in a language without spaces."""


class Sentence(NamedTuple):
    """A sentence that can stand alone, and where it is."""

    text: str
    """As it is written, or put together: a table's row with its column names, a list's line with its lead-in."""
    start: int
    """First character in the passage; of a line or row, without lead-in and names."""
    end: int


def passage_quotes(passage: Passage) -> list[Sentence]:
    """Sentences in order: a lead-in ("You need:") stands before every line of its list, a fragment is joined with its
    neighbour, and a table row is read out with its column names."""
    quotes: list[Sentence] = []
    lead, in_list = "", False
    for line in _read_tables(_lines(passage.text)):
        is_item = _ITEM.match(line[0].text) is not None
        if in_list and not is_item:
            lead, in_list = "", False
        start, end = line[0].start, line[-1].end
        # "It does not cover:" holds for all that the line says.
        if lead and is_item and len(line) > 1 and end - start <= _LEAD_IN:
            line = [Sentence(passage.text[start:end], start, end)]
        for n, (text, start, end) in enumerate(line):
            # In running text the mark of a list's line is a stray dash.
            text = text.removeprefix(_DASH).lstrip()
            joined = f"{lead} {text}".strip() if n == 0 or not is_item else text
            if text.endswith(":") and len(joined) < _LEAD_IN:
                lead = joined
            elif _is_fragment(text) and quotes and not lead:
                quotes[-1] = Sentence(f"{quotes[-1].text} {text}", quotes[-1].start, end)
            else:
                quotes.append(Sentence(joined, start, end))
                lead, in_list = (lead, True) if is_item else ("", False)
    if not quotes and lead:
        return [Sentence(lead, 0, len(passage.text.rstrip()))]
    return quotes


def last_heading(passage: Passage) -> str:
    """The heading right above the passage."""
    return passage.heading.rsplit(" > ", 1)[-1]


def _is_fragment(text: str) -> bool:
    """Whether a sentence says too little to stand alone; Chinese and Japanese write theirs without spaces."""
    return len(content_words(text)) < 2 and not (len(text) > _SHORT and CJK.search(text))


def _lines(text: str) -> Iterator[list[Sentence]]:
    """The sentences of each line."""
    line: list[Sentence] = []
    for start, end in sentence_spans(text):
        if line and "\n" in text[line[-1].end : start]:
            yield line
            line = []
        line.append(Sentence(text[start:end], start, end))
    if line:
        yield line


def _read_tables(lines: Iterable[list[Sentence]]) -> Iterator[list[Sentence]]:
    """``King | 230 cm`` under ``Bed ¦ Duvet`` is ``King: duvet 230 cm``; other lines stay as they are."""
    names: list[str] = []
    for line in lines:
        text = line[0].text
        if len(line) == 1 and COLUMN in text:
            names = [f"{cell[:1].lower()}{cell[1:]} " for cell in text.split(COLUMN)]
            continue
        if len(line) > 1 or CELL not in text:
            names = []
            yield line
            continue
        first, *cells = text.split(CELL)
        before = names[1:] if len(names) == len(cells) + 1 else [""] * len(cells)
        told = ", ".join(name + cell for name, cell in zip(before, cells, strict=True) if cell != EMPTY_CELL)
        if told:
            yield [line[0]._replace(text=f"{first}: {told}")]
