"""A document as retrieval sees it: text in blocks, each under its heading path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff]")
_SPACES = re.compile(r"[ \t\u00a0]+")

MAX_KEYWORDS = 100
"""Further keywords of a document are ignored."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table or code block."""

    headings: tuple[str, ...]
    """Heading path, the document's title first."""
    text: str
    start: int
    """First character in ``Document.text``; ``Document.text[start:end] == text``."""
    end: int
    page: int | None = None
    """From 1, where the format has pages."""


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
    """ISO 639-1; empty where it is not known."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the document says of itself: author, date, what its front matter has."""


@dataclass(slots=True)
class DocumentBuilder:
    """Collects headings, paragraphs and lines in reading order; loaders write, `build` reads."""

    _items: list[tuple[int, str]] = field(default_factory=list)
    """(heading level, text); level 0 is a block."""
    _lines: list[str] = field(default_factory=list)

    def heading(self, level: int, text: str) -> None:
        """Start a section; ``level`` counts from 1."""
        self.flush()
        if text := clean_line(text):
            self._items.append((level, text))

    def paragraph(self, text: str) -> None:
        """Add running text; its line breaks are kept."""
        self.flush()
        self._block(text)

    def line(self, text: str) -> None:
        """Add one line of a list or table; neighbouring lines form one block."""
        if text := clean_line(text):
            self._lines.append(text)

    def flush(self) -> None:
        """End the block of lines being collected."""
        self._block("\n".join(self._lines))
        self._lines.clear()

    def _block(self, text: str) -> None:
        if text := clean(text).strip("\n"):
            self._items.append((0, text))

    def build(self, name: str, title: str = "", keywords: str = "") -> Document:
        """Lay the text out and resolve heading paths.

        Args:
            name: Path within the knowledge base.
            title: Used where the document has no heading of level 1.
            keywords: Separated by commas.
        """
        self.flush()
        first = next((text for level, text in self._items if level == 1), "")
        title = first or clean_line(title) or name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        parts: list[str] = []
        blocks: list[Block] = []
        path: list[tuple[int, str]] = []
        offset = 0
        for level, text in self._items:
            if level:
                path = [entry for entry in path if entry[0] < level] + [(level, text)]
            else:
                below = [heading for depth, heading in path if not (depth == 1 and heading == title)]
                blocks.append(Block((title, *below), text, offset, offset + len(text)))
            parts.append(text)
            offset += len(text) + 2
        return Document(name, title, "\n\n".join(parts), tuple(blocks), _split(keywords))


def _split(keywords: str) -> tuple[str, ...]:
    phrases = (clean_line(phrase).strip("\"'[]") for phrase in keywords.split(","))
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase))[:MAX_KEYWORDS]


def clean(text: str) -> str:
    """Drop control and zero-width characters, unify line ends."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def clean_line(text: str) -> str:
    """`clean`, on one line, with single spaces."""
    return _SPACES.sub(" ", clean(text).replace("\n", " ")).strip()
