"""DOCX to `Document`, by python-docx: headings, lists, tables and notes in order, deleted text left out."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import Document, DocumentBuilder
from agentkit.retrieval.loaders.archive import check_archive
from agentkit.retrieval.loaders.limits import Limits

if TYPE_CHECKING:
    from docx.document import Document as WordDocument

Mark = tuple[str, str]
"""Of a note: (part of the file, id)."""
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
    (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SKIPPED = {
    f"{_W}del",
    f"{_W}moveFrom",
    f"{_W}instrText",
    f"{_W}pPr",
    f"{_W}rPr",
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",  # says again what stands beside it
}
_BREAKS = {f"{_W}tab": " ", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_NOTES = {f"{_W}footnoteReference": "footnotes", f"{_W}endnoteReference": "endnotes"}
"""Marks in the text, and the part of the file that holds what they stand for."""
STYLES = 20
"""Steps in a chain of styles; a circle must end."""


def load_docx(data: bytes, name: str, limits: Limits) -> Document:
    """A Word document.

    Raises:
        KnowledgeError: It is damaged, cut off, encrypted or a zip bomb.
    """
    check_archive(data, limits)
    import docx
    from docx.opc.exceptions import OpcError
    from lxml.etree import LxmlError

    try:
        document = docx.Document(io.BytesIO(data))
        return _Reader(document).read(name)
    except (OpcError, LxmlError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise KnowledgeError(f"is damaged: {reason}", "save it anew as DOCX") from error


class _Reader:
    def __init__(self, document: WordDocument) -> None:
        self.document = document
        self.builder = DocumentBuilder()
        self._styles = {style.style_id: style for style in document.styles}
        self._numbering = _number_formats(document)
        self._counts = dict[tuple[str, str], int]()
        self._notes = _notes(document)
        self._in_list = False
        self._waiting: list[str] = []
        """Notes of what has been written; one that is referred to twice is written once."""

    def read(self, name: str) -> Document:
        self._walk(self.document.element.body)
        self._write_notes()
        about = self.document.core_properties
        date = about.modified or about.created
        fields = [("title", about.title), ("author", about.author), ("subject", about.subject)]
        fields += [("date", date.date().isoformat())] if date else []
        return self.builder.build(name, about.title, about.keywords, about.language, fields)

    def _walk(self, parent: Any) -> None:
        """Paragraphs and tables in order, also those within content controls and accepted insertions."""
        stack = [iter(parent)]
        while stack:
            element = next(stack[-1], None)
            if element is None:
                stack.pop()
            elif element.tag == f"{_W}p":
                self._paragraph(element)
            elif element.tag == f"{_W}tbl":
                self._table(element)
            elif element.tag not in _SKIPPED and isinstance(element.tag, str):
                stack.append(iter(element))

    def _paragraph(self, element: Any) -> None:
        text, marks = _text(element)
        if text := text.strip():
            self._write(element, text)
        self._refer(marks)

    def _write(self, element: Any, text: str) -> None:
        level, numbered = self._level(element), self._number(element)
        is_item = bool(numbered) and not level
        if not (is_item and self._in_list):  # a note would part the list
            self._write_notes()
        self._in_list = is_item
        if level:
            self.builder.heading(level, text)
        elif numbered:
            self.builder.line(f"{numbered} {text}", self._depth(element))
        else:
            self.builder.paragraph(text)

    def _refer(self, marks: Sequence[Mark]) -> None:
        self._waiting += [note for mark in marks if (note := self._notes.pop(mark, ""))]

    def _write_notes(self) -> None:
        """As paragraphs of their own below what refers to them."""
        for note in self._waiting:
            self.builder.paragraph(note)
        self._waiting.clear()

    def _table(self, table: Any) -> None:
        """One line for each row, as in other formats; a table within a cell is part of its text."""
        self.builder.flush()
        self._in_list = False
        self._write_notes()
        for row in table.iter(f"{_W}tr"):
            if next(row.iterancestors(f"{_W}tbl")) is not table:
                continue
            cells = [_text(cell) for cell in row.iter(f"{_W}tc") if _is_of(cell, row)]
            self.builder.row([" ".join(text.split()) for text, _ in cells])
            if row.find(f"{_W}trPr/{_W}tblHeader") is not None:
                self.builder.head()
            self._refer([mark for _, marks in cells for mark in marks])
        self.builder.flush()

    def _level(self, element: Any) -> int:
        """Level of a heading, from its style, the styles that is based on, or its own outline level."""
        own = element.find(f"{_W}pPr/{_W}outlineLvl")
        if own is not None:
            return _outline_level(own)
        for style in self._chain(element):
            if (style.name or "").lower() == "title":
                return 1
            if found := _HEADING.fullmatch(style.name or ""):
                return min(int(found.group(1)), 6)
            outline = style.element.find(f"{_W}pPr/{_W}outlineLvl")
            if outline is not None:
                return _outline_level(outline)
        return 0

    def _chain(self, element: Any) -> list[Any]:
        found = element.find(f"{_W}pPr/{_W}pStyle")
        style = self._styles.get(found.get(f"{_W}val")) if found is not None else None
        chain: list[Any] = []
        while style is not None and len(chain) < STYLES:
            chain.append(style)
            style = style.base_style
        return chain

    def _numbered(self, element: Any) -> Any:
        """What makes a paragraph a list item, or None."""
        properties = element.find(f"{_W}pPr/{_W}numPr")
        for style in self._chain(element) if properties is None else ():
            properties = style.element.find(f"{_W}pPr/{_W}numPr")
            if properties is not None:
                break
        return properties

    def _depth(self, element: Any) -> int:
        """How many lists a list item's own lies within."""
        level = _value(self._numbered(element), "ilvl")
        return int(level) if level in tuple("12345678") else 0

    def _number(self, element: Any) -> str:
        """The mark of a list item, ``-`` or its number or letter; empty for other paragraphs, and items without one."""
        properties = self._numbered(element)
        if properties is None:
            return ""
        number, level = _value(properties, "numId"), _value(properties, "ilvl") or "0"
        if number in ("", "0"):
            return ""
        format, first = self._numbering.get((number, level), ("bullet", 1))
        if format in ("bullet", "none"):
            return "-" if format == "bullet" else ""
        self._counts[number, level] = self._counts.get((number, level), first - 1) + 1
        for key in list(self._counts):
            if key[0] == number and key[1] > level:
                del self._counts[key]
        return f"{_ordinal(self._counts[number, level], format)}."


def _is_of(cell: Any, row: Any) -> bool:
    return next(cell.iterancestors(f"{_W}tr")) is row


def _value(properties: Any, name: str) -> str:
    found = properties.find(f"{_W}{name}")
    return str(found.get(f"{_W}val", "")) if found is not None else ""


def _outline_level(element: Any) -> int:
    value = str(element.get(f"{_W}val", ""))
    return int(value) + 1 if value in ("0", "1", "2", "3", "4", "5") else 0


def _ordinal(number: int, format: str) -> str:
    """A number as a list shows it; in digits where that is by no letters."""
    if format in ("lowerLetter", "upperLetter") and number > 0:
        letter = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)  # … z, aa, bb
        return letter if format == "lowerLetter" else letter.upper()
    if format in ("lowerRoman", "upperRoman") and 0 < number < 4000:
        roman = ""
        for value, numeral in _ROMAN:
            roman += numeral * (number // value)
            number %= value
        return roman if format == "lowerRoman" else roman.upper()
    return str(number)


def _number_formats(document: WordDocument) -> dict[tuple[str, str], tuple[str, int]]:
    """(numId, level) to its format, e.g. ``decimal`` or ``bullet``, and its first number."""
    part = next(
        (r.target_part for r in document.part.rels.values() if r.reltype.endswith("/numbering")), None
    )
    if part is None:
        return {}
    root = part.element
    abstract = {
        (each.get(f"{_W}abstractNumId"), level.get(f"{_W}ilvl")): (
            _value(level, "numFmt"),
            _first(level, "start", 1),
        )
        for each in root.iter(f"{_W}abstractNum")
        for level in each.iter(f"{_W}lvl")
    }
    found = {
        (number.get(f"{_W}numId"), level): shown
        for number in root.iter(f"{_W}num")
        for (owner, level), shown in abstract.items()
        if owner == _value(number, "abstractNumId")
    }
    for number in root.iter(f"{_W}num"):
        for override in number.iter(f"{_W}lvlOverride"):
            key = (number.get(f"{_W}numId"), override.get(f"{_W}ilvl"))
            if key in found:
                found[key] = (found[key][0], _first(override, "startOverride", found[key][1]))
    return found


def _first(element: Any, name: str, default: int) -> int:
    value = _value(element, name)
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 7 else default


def _notes(document: WordDocument) -> dict[Mark, str]:
    """Footnotes and endnotes, each on one line; separators are none."""
    from docx.oxml import parse_xml

    found: dict[Mark, str] = {}
    for relation in document.part.rels.values():
        kind = relation.reltype.rsplit("/", 1)[-1]
        if kind not in _NOTES.values() or relation.is_external:
            continue
        for note in parse_xml(relation.target_part.blob):
            if isinstance(note.tag, str) and note.get(f"{_W}type", "normal") == "normal":
                found[kind, str(note.get(f"{_W}id"))] = " ".join(_text(note)[0].split())
    return found


def _text(element: Any) -> tuple[str, list[Mark]]:
    """All its text but deleted text and field codes, and the marks of notes in it; paragraphs within it are separated
    by spaces."""
    parts: list[str] = []
    marks: list[Mark] = []
    stack = [iter(element)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        elif child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _BREAKS:
            parts.append(_BREAKS[child.tag])
        elif child.tag in _NOTES:
            marks.append((_NOTES[child.tag], str(child.get(f"{_W}id"))))
        elif child.tag not in _SKIPPED and isinstance(child.tag, str):
            if child.tag == f"{_W}p":
                parts.append(" ")
            stack.append(iter(child))
    return "".join(parts), marks
