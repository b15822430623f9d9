"""The lines of a PDF's pages with where they stand, without running headers, footers and page numbers."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from statistics import median
from typing import Any

_HYPHENS = "\x02\ufffe"
"""What PDFium puts for a hyphen and the line end after it."""
_LINE_END = re.compile(rf"\r\n|[\r\n{_HYPHENS}]")
_NUMBER = re.compile(r"(?<!\S)\d{1,5}(?!\S)")
MARGIN = 0.14
"""Share of the page's height, at top and bottom, in which running lines stand."""
OUTERMOST = 2
"""Lines of each edge that may be running ones."""
NUMBERS = 4
"""Numbers of a line that may be that of the page."""
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
        # PDFium counts in UTF-16, where an emoji is two.
        units = [*accumulate((1 + (character > "\uffff") for character in text), initial=0)]
        lines: list[Line] = []
        offset = 0
        for match in _LINE_END.finditer(text + "\n"):
            part = text[offset : match.start()]
            if part.strip():
                line = _line(raw, textpage, part, units[offset : match.start()], number, height)
                hyphen = match.group() in _HYPHENS
                lines.append(replace(line, text=line.text + "-") if hyphen else line)
            offset = match.end()
        picture = not lines and any(True for _ in page.get_objects([raw.FPDF_PAGEOBJ_IMAGE], max_depth=3))
        return lines, picture
    finally:
        textpage.close()
        page.close()


def _line(raw: Any, textpage: Any, part: str, places: Sequence[int], number: int, height: float) -> Line:
    """A line; ``places`` are those of its characters in the page's text as PDFium counts them."""
    start, end = len(part) - len(part.lstrip()), len(part.rstrip()) - 1
    chars = [
        raw.FPDFText_GetCharIndexFromTextIndex(textpage, places[n]) for n in (start, (start + end) // 2, end)
    ]
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
    """All lines but running ones: at the same place of most pages with the same text, but for the page number."""
    least = max(RUNNING_PAGES, RUNNING_SHARE * sum(1 for lines in pages if lines))
    body = _usual_size(pages)
    edges = [_edges(lines, body) for lines in pages]
    places = Counter(place for own in edges for place in {p for line in own for p in _places(line)})
    # The number of a chapter's first page often stands elsewhere than the others.
    offsets = Counter(offset for own in edges for offset in {o for line in own for o in _offsets(line)})

    def runs(line: Line) -> bool:
        is_number = any(offsets[offset] >= least for offset in _offsets(line))
        return (line.text.isdecimal() and is_number) or any(places[place] >= least for place in _places(line))

    running = {id(line) for own in edges for line in own if runs(line)}
    return [line for lines in pages for line in lines if id(line) not in running]


def _usual_size(pages: Sequence[list[Line]]) -> float:
    sizes = Counter[float]()
    for lines in pages:
        for line in lines:
            sizes[round(line.size, 1)] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _edges(lines: list[Line], body: float) -> list[Line]:
    """Lines that may be running ones: the outermost at top and bottom, unless large enough for a heading."""
    heights = sorted({round(line.bottom) for line in lines})
    outer = {*heights[:OUTERMOST], *heights[-OUTERMOST:]}
    return [
        line
        for line in lines
        if round(line.bottom) in outer
        and not MARGIN * line.height < line.bottom < (1 - MARGIN) * line.height
        and line.size < 1.1 * body
    ]


def _places(line: Line) -> set[tuple[str, int]]:
    """What makes it a running line where many have it, each with its height: the text; the text with a number
    as its distance from the page's; such a number alone at either end, beside the name of a chapter."""
    keys = {line.text}
    for match in islice(_NUMBER.finditer(line.text), NUMBERS):
        offset = int(match.group()) - line.page
        keys.add(f"{line.text[: match.start()]}<{offset}>{line.text[match.end() :]}")
        if match.start() == 0 or match.end() == len(line.text):
            keys.add(f"{'first' if match.start() == 0 else 'last'} <{offset}>")
    return {(key, round(line.bottom)) for key in keys}


def _offsets(line: Line) -> set[int]:
    """How far numbers at the line's ends are from the number of its page: constant where they are page numbers."""
    matches = [*islice(_NUMBER.finditer(line.text), NUMBERS)]
    ends = [match for match in matches if match.start() == 0 or match.end() == len(line.text)]
    return {int(match.group()) - line.page for match in ends}
