"""A passage as quotes: its sentences, each complete enough to stand alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from agentkit.messages import Passage
from agentkit.retrieval.documents import CELL, COLUMN, EMPTY_CELL
from agentkit.retrieval.languages import document_language
from agentkit.retrieval.sentences import sentence_spans
from agentkit.retrieval.words import CJK, content_words

_MARK = re.compile(r"[-*+•‣◦▪●○■□–—·]\s+")
_ITEM = re.compile(rf"{_MARK.pattern}|\(?(?:\d{{1,3}}|[a-z])[.)]\s")
_COLONS = (":", "：")
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
    leads = _Leads()
    for line in _read_tables([*_lines(passage.text)], passage.text):
        is_item = _ITEM.match(line[0].text) is not None
        indent = _indent(passage.text, line[0].start) if is_item else -1
        lead = leads.above(indent, leads=line[-1].text.endswith(_COLONS))
        start, end = line[0].start, line[-1].end
        # "It does not cover:" holds for all that the line says.
        if lead and is_item and len(line) > 1 and end - start <= _LEAD_IN:
            line = [Sentence(passage.text[start:end], start, end)]
        for n, (text, start, end) in enumerate(line):
            # In running text the mark of a list's line is a stray dash.
            text = _MARK.sub("", text, count=1) if is_item and n == 0 else text
            joined = f"{lead} {text}".strip() if n == 0 or not is_item else text
            if text.endswith(_COLONS) and len(joined) < _LEAD_IN:
                leads.add(joined)
                lead = joined
            elif _is_fragment(text) and quotes and not lead:
                quotes[-1] = Sentence(f"{quotes[-1].text} {text}", quotes[-1].start, end)
            else:
                quotes.append(Sentence(joined, start, end))
                if not is_item:
                    leads.clear()
                    lead = ""
    if not quotes and leads.last:
        return [Sentence(leads.last, 0, len(passage.text.rstrip()))]
    return quotes


class _Lead(NamedTuple):
    text: str
    """With those of the lists around it."""
    at: int
    """Where the item that it is begins; -1 for a line of its own."""
    items: int
    """Where the items that it leads begin; -1 before the first of them."""


class _Leads:
    """The lead-ins that are open: of a list, and of the lists within it."""

    def __init__(self) -> None:
        self._open: list[_Lead] = []
        self._item = -1
        """Where the last item begins; -1 outside of lists."""

    @property
    def last(self) -> str:
        return self._open[-1].text if self._open else ""

    def above(self, indent: int, *, leads: bool) -> str:
        """The lead-in of a line.

        Args:
            indent: Where the item begins; -1 for a line that is none.
            leads: The line is a lead-in itself.
        """
        if indent < 0 <= self._item:
            self.clear()
        self._item = indent
        if indent < 0:
            return self.last
        while self._open and self._open[-1].items > indent:  # the inner list has ended
            self._open.pop()
        if self._open and self._open[-1].items < 0:
            self._open[-1] = self._open[-1]._replace(items=indent)
        while leads and self._open and self._open[-1].at == indent:  # a sibling, where no depth is shown
            self._open.pop()
        return self.last

    def add(self, text: str) -> None:
        """The last line ends as a lead-in."""
        self._open.append(_Lead(text, self._item, -1))

    def clear(self) -> None:
        self._open.clear()


def _indent(text: str, start: int) -> int:
    """Blanks before the first character of a line."""
    return start - (text.rfind("\n", 0, start) + 1)


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


def _read_tables(lines: Sequence[list[Sentence]], whole: str) -> Iterator[list[Sentence]]:
    """``King | 230 cm`` under ``Bed ¦ Duvet`` is ``King: duvet 230 cm``; other lines stay as they are.

    A table's row has its names above it or a row of as many cells beside it: ``cat app.log | grep ERROR`` is none.

    Args:
        lines: With their sentences.
        whole: The text that they are of.
    """
    names: list[str] = []
    cells = [line[0].text.count(CELL) if len(line) == 1 else 0 for line in lines]
    for n, line in enumerate(lines):
        text = line[0].text
        if len(line) == 1 and COLUMN in text:
            names = [f"{_within(cell, whole)} " for cell in text.split(COLUMN)]
            continue
        if not cells[n] or not (names or cells[n] in (*cells[max(n - 1, 0) : n], *cells[n + 1 : n + 2])):
            names = []
            yield line
            continue
        first, *rest = text.split(CELL)
        before = names[1:] if len(names) == len(rest) + 1 else [""] * len(rest)
        told = ", ".join(name + cell for name, cell in zip(before, rest, strict=True) if cell != EMPTY_CELL)
        if told:
            yield [line[0]._replace(text=f"{first}: {told}")]


def _within(name: str, whole: str) -> str:
    """A column's name within a sentence: ``USB ports`` keeps its capitals, and so do German nouns."""
    if not name[1:2].islower() or _is_german(whole):
        return name
    return name[:1].lower() + name[1:]


@lru_cache(maxsize=64)
def _is_german(text: str) -> bool:
    return document_language(text) == "de"
