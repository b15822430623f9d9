"""DOCX to `Document`, by python-docx: headings, lists and tables in order, deleted text left out."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import Document, DocumentBuilder
from agentkit.retrieval.loaders.archive import check_archive
from agentkit.retrieval.loaders.limits import Limits

if TYPE_CHECKING:
    from docx.document import Document as WordDocument

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
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
        self._counts = Counter[tuple[str, str]]()

    def read(self, name: str) -> Document:
        self._walk(self.document.element.body)
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
        text = _text(element).strip()
        if not text:
            return
        level, numbered = self._level(element), self._number(element)
        if level:
            self.builder.heading(level, text)
        elif numbered:
            self.builder.line(f"{numbered} {text}")
        else:
            self.builder.paragraph(text)

    def _table(self, table: Any) -> None:
        """One line for each row, as in other formats; a table within a cell is part of its text."""
        self.builder.flush()
        for row in table.iter(f"{_W}tr"):
            if next(row.iterancestors(f"{_W}tbl")) is not table:
                continue
            cells = [" ".join(_text(cell).split()) for cell in row.iter(f"{_W}tc") if _is_of(cell, row)]
            self.builder.row(cells)
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

    def _number(self, element: Any) -> str:
        """The mark of a list item, ``-`` or its number; empty for other paragraphs."""
        properties = element.find(f"{_W}pPr/{_W}numPr")
        for style in self._chain(element) if properties is None else ():
            properties = style.element.find(f"{_W}pPr/{_W}numPr")
            if properties is not None:
                break
        if properties is None:
            return ""
        number, level = _value(properties, "numId"), _value(properties, "ilvl") or "0"
        if number in ("", "0"):
            return ""
        if self._numbering.get((number, level), "bullet") == "bullet":
            return "-"
        self._counts[number, level] += 1
        for key in list(self._counts):
            if key[0] == number and key[1] > level:
                del self._counts[key]
        return f"{self._counts[number, level]}."


def _is_of(cell: Any, row: Any) -> bool:
    return next(cell.iterancestors(f"{_W}tr")) is row


def _value(properties: Any, name: str) -> str:
    found = properties.find(f"{_W}{name}")
    return str(found.get(f"{_W}val", "")) if found is not None else ""


def _outline_level(element: Any) -> int:
    value = str(element.get(f"{_W}val", ""))
    return int(value) + 1 if value in ("0", "1", "2", "3", "4", "5") else 0


def _number_formats(document: WordDocument) -> dict[tuple[str, str], str]:
    """(numId, level) to its format, e.g. ``decimal`` or ``bullet``."""
    part = next(
        (r.target_part for r in document.part.rels.values() if r.reltype.endswith("/numbering")), None
    )
    if part is None:
        return {}
    root = part.element
    abstract = {
        (each.get(f"{_W}abstractNumId"), level.get(f"{_W}ilvl")): _value(level, "numFmt")
        for each in root.iter(f"{_W}abstractNum")
        for level in each.iter(f"{_W}lvl")
    }
    return {
        (number.get(f"{_W}numId"), level): format
        for number in root.iter(f"{_W}num")
        for (owner, level), format in abstract.items()
        if owner == _value(number, "abstractNumId")
    }


def _text(element: Any) -> str:
    """All its text but deleted text and field codes; paragraphs within it are separated by spaces."""
    parts: list[str] = []
    stack = [iter(element)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        elif child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _BREAKS:
            parts.append(_BREAKS[child.tag])
        elif child.tag not in _SKIPPED and isinstance(child.tag, str):
            if child.tag == f"{_W}p":
                parts.append(" ")
            stack.append(iter(child))
    return "".join(parts)
