"""A document as retrieval sees it: text in blocks, each under its heading path."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\u00a0]+")
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_LANGUAGE = re.compile(r"([a-z]{2})(?:[-_][a-z0-9_-]+)?", re.IGNORECASE)

MAX_KEYWORDS = 100
"""Further keywords of a document are ignored."""
MAX_METADATA = 32
"""Further metadata of a document is ignored."""
METADATA_CHARACTERS = 500
"""A longer value is cut."""
CELL, COLUMN = " | ", " ¦ "
"""Between the cells of a table's row, and of the row that names the columns: a chunk may begin anywhere in a table."""
INDENT = "  "
"""Stands before the items of a list within a list, once for each."""
EMPTY_CELL = "–"
"""Stands in a table's row for a cell without text, so that the others stay in their columns."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table, code block or answer."""

    headings: tuple[str, ...]
    """Heading path, the document's title first."""
    text: str
    start: int
    """First character in ``Document.text``; ``Document.text[start:end] == text``."""
    end: int
    page: int | None = None
    """Page on which it begins, from 1; ``None`` where the format has no pages."""
    language: str = ""
    """ISO 639-1, where the author declared it for this block; empty otherwise."""
    keywords: tuple[str, ...] = ()
    """As `Document.keywords`, for this block alone."""
    terms: tuple[str, ...] = ()
    """What the author noted beside the text, such as a product's name: looked up by its words, never quoted."""


@dataclass(frozen=True, slots=True)
class Document:
    """Everything a loader extracts from one file."""

    name: str
    """Path within the knowledge base, with forward slashes."""
    title: str
    text: str
    """Headings and blocks, separated by blank lines."""
    blocks: tuple[Block, ...]
    keywords: tuple[str, ...] = ()
    """Phrases the author expects people to search for; they are matched, and never quoted."""
    language: str = ""
    """ISO 639-1: as the author declared it, else as detected; empty where neither tells."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the file says about itself, e.g. ``author``; keys match ``[a-z][a-z0-9_-]{0,39}``."""
    pages: tuple[tuple[int, int], ...] = ()
    """(first character in ``text``, page number from 1), ascending; empty where the format has no pages."""
    notices: tuple[str, ...] = ()
    """What the user should know of the reading: rows left out, a guessed encoding."""

    def page_at(self, offset: int) -> int | None:
        """The page that character ``offset`` of ``text`` stands on."""
        found = bisect_right(self.pages, offset, key=lambda entry: entry[0])
        return self.pages[max(found, 1) - 1][1] if self.pages else None


@dataclass(frozen=True, slots=True)
class _Item:
    level: int
    """Of a heading, from 1; 0 is a block."""
    text: str
    page: int | None = None
    breaks: tuple[tuple[int, int], ...] = ()
    """(offset in ``text``, page): where a block goes on over a page break."""
    language: str = ""
    keywords: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()


@dataclass(slots=True)
class DocumentBuilder:
    """Collects headings, paragraphs and lines in reading order; loaders write, `build` reads."""

    _items: list[_Item] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _labelled: bool = False

    def heading(self, level: int, text: str, page: int | None = None) -> None:
        """Start a section; ``level`` counts from 1."""
        self.flush()
        if text := clean_line(text):
            self._items.append(_Item(level, text, page))

    def paragraph(
        self,
        text: str,
        page: int | None = None,
        breaks: Sequence[tuple[int, int]] = (),
        language: str = "",
        keywords: str = "",
        terms: Sequence[str] = (),
    ) -> None:
        """Add running text; its line breaks are kept.

        Args:
            page: Where it begins.
            breaks: (offset in ``text``, page) of every page on which it goes on; ``text`` is clean then.
            language: Declared for this block.
            keywords: Separated by commas.
            terms: `Block.terms`; long ones are cut, those beyond `MAX_METADATA` are left out.
        """
        self.flush()
        if text := clean(text).strip("\n"):
            of, phrases = language_code(language), split_keywords(keywords)
            self._items.append(_Item(0, text, page, tuple(breaks), of, phrases, _clean_terms(terms)))

    def line(self, text: str, depth: int = 0) -> None:
        """Add one line of a list, or of one within a list at ``depth``, or of a table; neighbours form one block."""
        if text := clean_line(text):
            self._lines.append(INDENT * depth + text)

    def row(self, cells: Sequence[str]) -> None:
        """Add a row of a table as a line; a row without any text is left out."""
        if any(clean_line(cell) for cell in cells):
            self.line(CELL.join(clean_line(cell) or EMPTY_CELL for cell in cells))

    def head(self) -> None:
        """Say that the last row names the columns of those that follow; of no effect in the middle of a table."""
        if self._lines and not any(CELL in line for line in self._lines[-2:-1]):
            self._lines[-1] = self._lines[-1].replace(CELL, COLUMN)

    def label(self) -> None:
        """Say that the last row begins with a name of its own; if it is not the first, that names no columns."""
        self._labelled = self._labelled or any(CELL in line for line in self._lines[:-1])

    def has_rows(self) -> bool:
        """Whether a table is among the lines being collected."""
        return any(CELL in line for line in self._lines)

    def flush(self) -> None:
        """End the block of lines being collected."""
        lines = self._lines if self._labelled else _with_heads(self._lines)
        if text := clean("\n".join(lines)).strip("\n"):
            self._items.append(_Item(0, text))
        self._lines.clear()
        self._labelled = False

    def build(
        self,
        name: str,
        title: str = "",
        keywords: str = "",
        language: str = "",
        metadata: Iterable[tuple[str, object]] = (),
        notices: Sequence[str] = (),
    ) -> Document:
        """Lay the text out and resolve heading paths.

        Args:
            name: Path within the knowledge base.
            title: Used where the document has no heading of level 1.
            keywords: Separated by commas.
            language: As declared, with or without a region.
            metadata: What `clean_metadata` takes.
            notices: `Document.notices`.
        """
        self.flush()
        first = next((item.text for item in self._items if item.level == 1), "")
        title = first or clean_line(title) or clean_line(name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
        parts: list[str] = []
        blocks: list[Block] = []
        pages: list[tuple[int, int]] = []
        path: list[tuple[int, str]] = []
        offset = 0
        for item in self._items:
            text, end = item.text, offset + len(item.text)
            if item.level:
                path = [entry for entry in path if entry[0] < item.level] + [(item.level, text)]
            else:
                below = [heading for depth, heading in path if not (depth == 1 and heading == title)]
                headings = (title, *below)
                blocks.append(
                    Block(headings, text, offset, end, item.page, item.language, item.keywords, item.terms)
                )
            if item.page is not None and (not pages or pages[-1][1] != item.page):
                pages.append((offset, item.page))
            pages += [(offset + start, page) for start, page in item.breaks]
            parts.append(text)
            offset = end + 2
        return Document(
            name,
            title,
            "\n\n".join(parts),
            tuple(blocks),
            split_keywords(keywords),
            language_code(language),
            clean_metadata(metadata),
            tuple(pages),
            tuple(notices),
        )


def _with_heads(lines: Sequence[str]) -> Iterator[str]:
    """Where no row is said to name the columns, the first does that has no number, where others have some."""
    if any(COLUMN in line for line in lines):
        yield from lines
        return
    for columns, group in groupby(lines, lambda line: line.count(CELL)):
        first, *others = group
        numbers = [any(map(str.isdigit, row)) for row in (first, *others)]
        # Two columns are as often a name and its value: "Material | Linen", "Width | 140 cm".
        is_head = columns > 1 and not numbers[0] and any(numbers)
        yield first.replace(CELL, COLUMN) if is_head else first
        yield from others


def split_keywords(keywords: str) -> tuple[str, ...]:
    """Phrases separated by commas, each once, `MAX_KEYWORDS` at most."""
    phrases = (clean_line(phrase).strip("\"'[]") for phrase in keywords.split(","))
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase))[:MAX_KEYWORDS]


def _clean_terms(terms: Iterable[str]) -> tuple[str, ...]:
    cleaned = (clean_line(term[:METADATA_CHARACTERS]) for term in terms)
    return tuple(dict.fromkeys(term for term in cleaned if term))[:MAX_METADATA]


def language_code(text: str) -> str:
    """ISO 639-1 of a language tag such as ``de-AT``; empty for anything else."""
    found = _LANGUAGE.fullmatch(text.strip())
    return found.group(1).lower() if found else ""


def clean_metadata(pairs: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Text and numbers under lower-case keys ``[a-z][a-z0-9_-]{0,39}``; the first of equal keys counts."""
    kept: dict[str, str] = {}
    for key, value in pairs:
        key = key.strip().lower()
        if len(kept) == MAX_METADATA or isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        text = clean_line(str(value))[:METADATA_CHARACTERS]
        if text and key not in kept and _KEY.fullmatch(key):
            kept[key] = text
    return kept


def clean(text: str) -> str:
    """Drop control and zero-width characters and soft hyphens, unify line ends, compose accents (NFC), replace halves
    of characters (lone surrogates)."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text if text.isascii() else unicodedata.normalize("NFC", _SURROGATE.sub("\ufffd", text))


def clean_line(text: str) -> str:
    """`clean`, on one line, with single spaces."""
    return _SPACES.sub(" ", clean(text).replace("\n", " ")).strip()
