"""Documents to chunks: by section, then by paragraph, then by sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from agentkit.retrieval.documents import CELL, COLUMN, MAX_KEYWORDS, Block, Document
from agentkit.retrieval.languages import chunk_language
from agentkit.retrieval.sentences import sentence_spans
from agentkit.retrieval.words import CJK

MAX_WORDS = 120
"""Fits the 256 tokens of MiniLM together with a heading path."""
MAX_SENTENCES = 900
"""A chunk has a vector of its own and one for each sentence and keyword (`MAX_KEYWORDS` at most), and an index numbers
fewer than 1,024 of them."""
NAME_CHARACTERS = 60
"""Of a term that is embedded: a product's name says what the text is about, a note beside it would blur it."""
HEADING_SEPARATOR = " > "

_WORD = re.compile(rf"{CJK.pattern}{{1,2}}|(?:(?!{CJK.pattern})\S){{1,24}}")
"""A run of text without spaces counts, and may be cut, every 24 characters; of Chinese and Japanese every two."""


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
    """Page on which it begins, from 1; ``None`` where the format has no pages."""
    language: str = ""
    """ISO 639-1: declared for its block, or clearly another than the document's, or the document's."""
    keywords: tuple[str, ...] = ()
    """Of its section: matched, and never quoted."""
    terms: tuple[str, ...] = ()
    """Of its section: looked up by their words, and embedded where they are short; never quoted."""

    def embedded_text(self) -> str:
        """What is embedded: a paragraph often names its subject in the heading only, a row in another column."""
        named = [*self.keywords, *(term for term in self.terms if len(term) <= NAME_CHARACTERS)]
        text = self.text.replace(COLUMN, CELL)  # a sign that the encoder has hardly seen
        return "\n".join([self.heading, text, ", ".join(named)] if named else [self.heading, text])

    def looked_up(self) -> str:
        """What lexical search has of it beside heading and text, one phrase a line."""
        return "\n".join([*self.keywords, *self.terms])


def chunk_document(document: Document, max_words: int = MAX_WORDS) -> list[Chunk]:
    """Cut a document: no chunk spans two sections, only a sentence goes on over a page break, and only one that is
    longer than ``max_words`` is cut."""
    chunks = []
    for section in _sections(document):
        heading = HEADING_SEPARATOR.join(section[0].headings)
        keywords = tuple(dict.fromkeys(word for block in section for word in block.keywords))[:MAX_KEYWORDS]
        terms = tuple(dict.fromkeys(term for block in section for term in block.terms))
        pieces = _on_one_page(document, _pieces(document.text, section, max_words))
        packed = _pack(pieces, max_words, document.page_at)
        for start, end in (part for span in packed for part in _few_sentences(document.text, *span)):
            text, page = document.text[start:end], document.page_at(start)
            declared = next((block.language for block in section if start < block.end), "")
            language = declared or chunk_language(text, document.language)
            chunks.append(Chunk(heading, text, start, end, page, language, keywords, terms))
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


def _on_one_page(
    document: Document, pieces: Iterator[tuple[int, int, int]]
) -> Iterator[tuple[int, int, int]]:
    """Pieces that begin and end on one page; others by the page that their sentences begin on."""
    for start, end, words in pieces:
        if document.page_at(start) == document.page_at(end - 1):
            yield start, end, words
            continue
        spans = [(start + begin, start + stop) for begin, stop in sentence_spans(document.text[start:end])]
        for _, group in groupby(spans, lambda span: document.page_at(span[0])):
            found = list(group)
            begin, stop = found[0][0], found[-1][1]
            yield begin, stop, count_words(document.text[begin:stop])


def _cut(text: str, start: int, end: int, max_words: int) -> Iterator[tuple[int, int, int]]:
    spans = [match.span() for match in _WORD.finditer(text, start, end)]
    for first in range(0, len(spans), max_words):
        group = spans[first : first + max_words]
        yield group[0][0], group[-1][1], len(group)


def _pack(
    pieces: Iterator[tuple[int, int, int]], max_words: int, page_at: Callable[[int], int | None]
) -> Iterator[tuple[int, int]]:
    """Join neighbouring pieces of a page while they fit into ``max_words`` together."""
    begin = stop = total = 0
    for start, end, words in pieces:
        if total and (total + words > max_words or page_at(start) != page_at(begin)):
            yield begin, stop
            total = 0
        begin = start if not total else begin
        stop, total = end, total + words
    if total:
        yield begin, stop


def _few_sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A span, cut where it has more than `MAX_SENTENCES`; without spaces many sentences count as few words."""
    if end - start < 2 * MAX_SENTENCES:  # a sentence and what parts it from the next are two characters
        yield start, end
        return
    spans = sentence_spans(text[start:end])
    if len(spans) <= MAX_SENTENCES:
        yield start, end
        return
    for first in range(0, len(spans), MAX_SENTENCES):
        group = spans[first : first + MAX_SENTENCES]
        yield start + group[0][0], start + group[-1][1]


def count_words(text: str) -> int:
    """Words as chunking counts them."""
    return sum(1 for _ in _WORD.finditer(text))
