"""Documents to chunks: by section, then by paragraph, then by sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentkit.retrieval.documents import Block, Document
from agentkit.retrieval.sentences import sentence_spans

MAX_WORDS = 120
"""Fits the 256 tokens of MiniLM together with a heading path."""
HEADING_SEPARATOR = " > "

_WORD = re.compile(r"\S{1,24}")
"""A run of text without spaces counts, and may be cut, every 24 characters."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one section."""

    heading: str
    """Heading path joined by `` > ``, the document's title first."""
    text: str
    start: int
    """First character in ``Document.text``; ``Document.text[start:end] == text``."""
    end: int
    page: int | None = None
    """The page on which it begins, from 1."""
    language: str = ""
    """ISO 639-1; empty where it is not known."""

    def embedded_text(self) -> str:
        """What is embedded: a paragraph often names its subject in the heading only."""
        return f"{self.heading}\n{self.text}"


def chunk_document(document: Document, max_words: int = MAX_WORDS) -> list[Chunk]:
    """Cut a document: no chunk spans two sections; only a sentence longer than ``max_words`` is cut."""
    chunks = []
    for section in _sections(document):
        heading = HEADING_SEPARATOR.join(section[0].headings)
        for start, end in _pack(_pieces(document.text, section, max_words), max_words):
            chunks.append(Chunk(heading, document.text[start:end], start, end))
    return chunks


def _sections(document: Document) -> Iterator[list[Block]]:
    """Runs of blocks with nothing but space between them: any heading in between ends the run."""
    section: list[Block] = []
    for block in document.blocks:
        if section and document.text[section[-1].end : block.start].strip():
            yield section
            section = []
        section.append(block)
    if section:
        yield section


def _pieces(text: str, blocks: list[Block], max_words: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, words): blocks that fit, else their sentences, else runs of words."""
    for block in blocks:
        if (words := count_words(block.text)) <= max_words:
            yield block.start, block.end, words
            continue
        for start, end in sentence_spans(block.text):
            yield from _cut(text, block.start + start, block.start + end, max_words)


def _cut(text: str, start: int, end: int, max_words: int) -> Iterator[tuple[int, int, int]]:
    spans = [match.span() for match in _WORD.finditer(text, start, end)]
    for first in range(0, len(spans), max_words):
        group = spans[first : first + max_words]
        yield group[0][0], group[-1][1], len(group)


def _pack(pieces: Iterator[tuple[int, int, int]], max_words: int) -> Iterator[tuple[int, int]]:
    """Join neighbouring pieces while they fit into ``max_words`` together."""
    begin = stop = total = 0
    for start, end, words in pieces:
        if total and total + words > max_words:
            yield begin, stop
            total = 0
        begin = start if not total else begin
        stop, total = end, total + words
    if total:
        yield begin, stop


def count_words(text: str) -> int:
    """Words as chunking counts them."""
    return sum(1 for _ in _WORD.finditer(text))
