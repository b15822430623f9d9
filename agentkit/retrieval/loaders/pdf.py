"""PDF to `Document`, by PDFium: pages, paragraphs across page breaks, headings from the bookmarks or sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import Document, DocumentBuilder, clean_line
from agentkit.retrieval.loaders.limits import Limits
from agentkit.retrieval.loaders.pdf_blocks import heading_sizes, write_blocks
from agentkit.retrieval.loaders.pdf_lines import Line, page_lines, without_running

_NO_TITLE = re.compile(
    r"untitled|unbenannt|microsoft word|\(anonymous\)|document\d*$|.*\.(docx?|odt|indd|pdf|pptx?|xlsx?|tex|html?)$",
    re.IGNORECASE,
)
_NUMBERING = re.compile(r"^[\d.]+\s+")
_MARKS = re.compile(r"[\W_]+")
_DATE = re.compile(r"D:(\d{4})(\d{2})(\d{2})")
TAIL = 4096
"""Bytes at the end among which the end mark must stand; mail gateways append some."""
BOOKMARKS = 5_000
Outline = dict[int, list[tuple[int, str]]]
"""By page: (level from 1, title without marks)."""


def load_pdf(data: bytes, name: str, limits: Limits) -> Document:
    """A PDF with a text layer.

    Raises:
        KnowledgeError: It is encrypted, damaged, cut off, scanned, or has too many pages.
    """
    if b"%%EOF" not in data[-TAIL:]:
        raise KnowledgeError("is cut off: its end is missing", "get a whole copy of it")
    document = _open(data)
    count = len(document)
    if count > limits.pages:
        cause = f"has {count:,} pages, more than the limit of {limits.pages:,}"
        raise KnowledgeError(cause, "split it into smaller documents")
    pages, pictures, characters = [], [], 0
    for number in range(1, count + 1):
        lines, is_picture = _read_page(document, number)
        pages.append(lines)
        pictures += [number] if is_picture else []
        characters += sum(len(line.text) for line in lines)
        limits.check_characters(characters)
    if not characters:
        raise KnowledgeError(*_without_text(count, len(pictures)))
    return _document(document, without_running(pages), name, _picture_notices(pictures, count))


def _open(data: bytes) -> Any:
    import pypdfium2
    from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

    try:
        document = pypdfium2.PdfDocument(data)
        if len(document):
            return document
    except pypdfium2.PdfiumError as error:
        if error.err_code in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY):
            raise KnowledgeError("is encrypted", "save it without a password") from error
        raise KnowledgeError("is damaged: its pages cannot be found", "save or export it anew") from error
    raise KnowledgeError("is damaged: it has no pages", "save or export it anew")


def _read_page(document: Any, number: int) -> tuple[list[Line], bool]:
    from pypdfium2 import PdfiumError

    try:
        return page_lines(document, number)
    except PdfiumError as error:
        raise KnowledgeError(f"is damaged on page {number}", "save or export it anew") from error


def _without_text(pages: int, pictures: int) -> tuple[str, str]:
    if pictures:
        return f"is scanned: its {pages:,} pages are pictures without text", "run OCR on it, e.g. `ocrmypdf`"
    return f"holds no text on its {pages:,} pages", "remove it, or run OCR on it, e.g. `ocrmypdf`"


def _picture_notices(pictures: Sequence[int], pages: int) -> list[str]:
    if not pictures:
        return []
    return [
        f"{len(pictures):,} of {pages:,} pages are pictures without text, the first is page {pictures[0]:,};"
        " run OCR to have them read"
    ]


def _document(document: Any, lines: list[Line], name: str, notices: list[str]) -> Document:
    info = document.get_metadata_dict(skip_empty=True)
    title = clean_line(info.get("Title", ""))
    title = "" if _NO_TITLE.match(title) else title
    outline = _outline(document)
    builder = DocumentBuilder()
    write_blocks(lines, _levels(lines, outline), builder)
    fields = [("title", title), *((key.lower(), value) for key, value in info.items() if key in _KEPT)]
    fields += (
        [("date", "-".join(date.groups()))] if (date := _DATE.match(info.get("CreationDate", ""))) else []
    )
    return builder.build(name, title, info.get("Keywords", ""), _language(document), fields, notices)


_KEPT = ("Author", "Subject")


def _language(document: Any) -> str:
    import ctypes

    from pypdfium2.raw import FPDF_WCHAR, FPDFCatalog_GetLanguage

    size = FPDFCatalog_GetLanguage(document, None, 0)
    if not size:
        return ""
    buffer = ctypes.create_string_buffer(size)
    FPDFCatalog_GetLanguage(document, ctypes.cast(buffer, ctypes.POINTER(FPDF_WCHAR)), size)
    return buffer.raw.decode("utf-16-le", errors="ignore").rstrip("\x00")


def _outline(document: Any) -> Outline:
    found: Outline = {}
    entries = []
    for number, mark in enumerate(document.get_toc(max_depth=6)):
        if number == BOOKMARKS:
            break
        target = mark.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None and (title := _bare(mark.get_title())):
            entries.append((page + 1, mark.level, title))
    # One bookmark above all others is the document itself.
    shift = 1 if sum(1 for _, level, _ in entries if level == 0) == 1 else 2
    for page, level, title in entries:
        found.setdefault(page, []).append((level + shift, title))
    return found


def _bare(text: str) -> str:
    return _MARKS.sub("", _NUMBERING.sub("", clean_line(text))).lower()


def _levels(lines: Sequence[Line], outline: Outline) -> Callable[[int], tuple[int, int]]:
    """For the index of a line: (heading level or 0, lines of that heading)."""
    marked = _marked(lines, outline)
    sized = heading_sizes(lines)
    if marked:
        # Sizes still tell the title, which bookmarks seldom name.
        title = [i for i, level in sized.items() if level == 1 and lines[i].page == 1 and i not in marked]
        return lambda index: marked.get(index, _run({i: 1 for i in title}, index))
    return lambda index: _run(sized, index)


def _marked(lines: Sequence[Line], outline: Outline) -> dict[int, tuple[int, int]]:
    """Lines that read like a bookmark of their page; a title may take two lines."""
    found: dict[int, tuple[int, int]] = {}
    left = {page: list(entries) for page, entries in outline.items()}
    for index, line in enumerate(lines):
        for entry in left.get(line.page, ()):
            count = _matching(lines[index : index + 3], entry[1])
            if count:
                found[index] = (entry[0], count)
                left[line.page].remove(entry)
                break
    return found


def _matching(lines: Sequence[Line], title: str) -> int:
    """How many of the lines, joined, are the title; 0 for none."""
    joined = ""
    for count, line in enumerate(lines, 1):
        joined += _bare(line.text)
        if joined == title:
            return count
        if not title.startswith(joined):
            return 0
    return 0


def _run(levels: dict[int, int], index: int) -> tuple[int, int]:
    """A heading and the lines right after it that have its size."""
    level = levels.get(index, 0)
    count = 1
    while level and levels.get(index + count) == level:
        count += 1
    return level, count
