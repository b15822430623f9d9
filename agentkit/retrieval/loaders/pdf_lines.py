"""The lines of a PDF's pages with where they stand, without running headers, footers and page numbers."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

_LINE_END = re.compile(r"\r\n|\r|\n")
_FIRST_NUMBER, _LAST_NUMBER = re.compile(r"(\d{1,5})(?:\s|$)"), re.compile(r"(?:^|\s)(\d{1,5})$")
_DIGITS = re.compile(r"\d+")
MARGIN = 0.14
"""Share of the page's height, at top and bottom, in which running lines stand."""
RUNNING_SHARE, RUNNING_PAGES = 0.4, 3
"""A line is running where it stands at the same height of this share of the pages (odd and even pages may have
two), and of so many pages."""


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line; lengths in points, heights from the bottom of the page."""

    text: str
    page: int
    """From 1."""
    left: float
    right: float
    bottom: float
    """Its baseline."""
    size: float
    """Of its font."""
    height: float
    """Of the page."""


def page_lines(document: Any, number: int) -> tuple[list[Line], bool]:
    """(lines in the order of the file, whether the page shows a picture and no text).

    Args:
        document: A ``pypdfium2.PdfDocument``.
        number: Of the page, from 1.
    """
    import pypdfium2.raw as raw

    page = document[number - 1]
    textpage = page.get_textpage()
    try:
        text, height = textpage.get_text_range(), page.get_height()
        lines: list[Line] = []
        offset = 0
        for part in _LINE_END.split(text):
            if part.strip():
                lines.append(_line(raw, textpage, part, offset, number, height))
            offset = offset + len(part)
            offset += 2 if text.startswith("\r\n", offset) else 1
        picture = not lines and any(True for _ in page.get_objects([raw.FPDF_PAGEOBJ_IMAGE], max_depth=3))
        return lines, picture
    finally:
        textpage.close()
        page.close()


def _line(raw: Any, textpage: Any, part: str, offset: int, number: int, height: float) -> Line:
    start = offset + len(part) - len(part.lstrip())
    end = offset + len(part.rstrip()) - 1
    chars = [raw.FPDFText_GetCharIndexFromTextIndex(textpage, i) for i in (start, (start + end) // 2, end)]
    box, x, y = raw.FS_RECTF(), ctypes.c_double(), ctypes.c_double()
    edges = []
    for char in (chars[0], chars[2]):
        # Fails for characters that PDFium put in, e.g. a hyphen's; they stand at 0 then.
        found = char >= 0 and raw.FPDFText_GetLooseCharBox(textpage, char, ctypes.byref(box))
        edges.append((box.left, box.right) if found else (0.0, 0.0))
    raw.FPDFText_GetCharOrigin(textpage, max(chars[0], 0), ctypes.byref(x), ctypes.byref(y))
    # A bullet, a superscript or a name in another font must not stand for the line.
    size = median(_size(raw, textpage, max(char, 0)) for char in chars)
    right = max(edges[1][1], edges[0][1])
    return Line(part.strip(), number, edges[0][0], right, y.value, size, height)


def _size(raw: Any, textpage: Any, char: int) -> float:
    """Of the font as printed: many files set size 1 and scale by the matrix."""
    matrix = raw.FS_MATRIX()
    known = raw.FPDFText_GetMatrix(textpage, char, ctypes.byref(matrix))
    scale = math.hypot(matrix.c, matrix.d) if known else 1.0
    return float(raw.FPDFText_GetFontSize(textpage, char)) * scale


def without_running(pages: Sequence[list[Line]]) -> list[Line]:
    """All lines but running ones: at the same place of most pages (digits count as equal), or page numbers."""
    least = max(RUNNING_PAGES, RUNNING_SHARE * sum(1 for lines in pages if lines))
    edges = [[line for line in lines if _at_edge(line)] for lines in pages]
    places = Counter(place for own in edges for place in {p for line in own for p in _places(line)})
    offsets = Counter(offset for own in edges for offset in {o for line in own for o in _offsets(line)})

    def runs(line: Line) -> bool:
        # The number of a chapter's first page often stands elsewhere than the others.
        is_number = line.text.isdigit() and any(offsets[offset] >= least for offset in _offsets(line))
        return _at_edge(line) and (is_number or any(places[place] >= least for place in _places(line)))

    return [line for lines in pages for line in lines if not runs(line)]


def _at_edge(line: Line) -> bool:
    return not MARGIN * line.height < line.bottom < (1 - MARGIN) * line.height


def _places(line: Line) -> set[tuple[str, int]]:
    """What makes it a running line where many have it: text and height, or page number at one end and height."""
    ends = {f"{end} {offset}" for end, offset in _ends(line)}
    return {(text, round(line.bottom)) for text in (_DIGITS.sub("#", line.text.lower()), *ends)}


def _offsets(line: Line) -> set[int]:
    return {offset for _, offset in _ends(line)}


def _ends(line: Line) -> list[tuple[str, int]]:
    """How far numbers at the line's ends are from the number of its page: constant where they are page numbers."""
    found = (("first", _FIRST_NUMBER.match(line.text)), ("last", _LAST_NUMBER.search(line.text)))
    return [(end, int(match.group(1)) - line.page) for end, match in found if match]
