"""Files to `Document`: Markdown, plain text and HTML, one function each.

Raises `KnowledgeError` for anything that cannot be read as text; the message names the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import Document, DocumentBuilder, clean_line
from agentkit.retrieval.html import load_html
from agentkit.retrieval.markdown import load_markdown

MAX_BYTES = 20 * 1024 * 1024

_UNDERLINE = re.compile(r"(=+|-{3,}|~{3,})")
_LIST_LINE = re.compile(r"(?:[-*+•–]|\d{1,3}[.)])\s")
_KEYWORDS = re.compile(r"^Keywords:[ \t]*([^\n]*)\s*\Z", re.MULTILINE)
_WRAPPED = 60
"""A line at least this long is taken to go on in the next line."""


def load_document(path: Path, name: str) -> Document:
    """Read one file.

    Args:
        path: The file.
        name: What the document is called in the knowledge base.

    Raises:
        KnowledgeError: Unknown suffix, not text, empty, larger than 20 MB, or unreadable.
    """
    return parse_document(read_bytes(path), path, name)


def parse_document(data: bytes, path: Path, name: str) -> Document:
    """`load_document` for bytes that have been read already; ``path`` gives suffix and error text."""
    loader = LOADERS.get(path.suffix.lower())
    if loader is None:
        known = ", ".join(LOADERS)
        raise KnowledgeError(
            f"{path}: cannot read files of type {path.suffix or 'none'!r}", f"convert it to {known}"
        )
    document = loader(_decode(data, path), name)
    if not document.blocks:
        raise KnowledgeError(f"{path} holds no text", "fill it or remove it")
    return document


def read_bytes(path: Path) -> bytes:
    """The file's bytes, at most `MAX_BYTES`.

    Raises:
        KnowledgeError: The file is missing, not a regular file, unreadable or too large.
    """
    try:
        # A named pipe or device would block for ever.
        if not path.is_file():
            raise KnowledgeError(f"{path} is not a file", "name an existing file")
        if (size := path.stat().st_size) > MAX_BYTES:
            cause = f"{path} has {size / 2**20:.0f} MB, more than the limit of {MAX_BYTES // 2**20} MB"
            raise KnowledgeError(cause, "split it into smaller documents")
        return path.read_bytes()
    except OSError as error:
        raise KnowledgeError(
            f"cannot read {path}: {error.strerror}", "check the file and its permissions"
        ) from error


def _decode(data: bytes, path: Path) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        cause = f"{path} is not text: byte {error.start} is not {encoding.removesuffix('-sig').upper()}"
        raise KnowledgeError(cause, "save it as UTF-8 or remove it") from error
    if "\x00" in text:
        raise KnowledgeError(f"{path} is not text: it has NUL bytes", "save it as UTF-8 text or remove it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def load_text(text: str, name: str) -> Document:
    """Plain text: underlined lines and lone capital lines are headings, blank lines end paragraphs.

    A last line ``Keywords: …, …`` gives the keywords.
    """
    builder = DocumentBuilder()
    last = _KEYWORDS.search(text)
    text = text[: last.start()] if last else text
    for paragraph in re.split(r"\n[ \t]*\n", text):
        lines = [line.strip() for line in paragraph.splitlines() if line.strip()]
        while len(lines) > 1 and _UNDERLINE.fullmatch(lines[1]):
            builder.heading(1 if lines[1][0] == "=" else 2, lines[0])
            lines = lines[2:]
        if len(lines) == 1 and _is_capital_heading(lines[0]):
            builder.heading(1, lines[0].capitalize())
            continue
        _add_paragraph(builder, lines)
    return builder.build(name, keywords=last.group(1) if last else "")


def _is_capital_heading(line: str) -> bool:
    return line.isupper() and len(line) <= 80 and line[-1] not in ".!?:;" and sum(map(str.isalpha, line)) > 2


def _add_paragraph(builder: DocumentBuilder, lines: list[str]) -> None:
    """Join wrapped lines; keep the breaks of lists, addresses and other short lines."""
    joined: list[str] = []
    previous = ""
    for line in lines:
        if joined and len(previous) >= _WRAPPED and not _LIST_LINE.match(line):
            joined[-1] = f"{joined[-1]} {line}"
        else:
            joined.append(line)
        previous = line
    builder.paragraph("\n".join(clean_line(line) for line in joined))


LOADERS: dict[str, Callable[[str, str], Document]] = {
    ".md": load_markdown,
    ".markdown": load_markdown,
    ".txt": load_text,
    ".html": load_html,
    ".htm": load_html,
}
"""Loader by suffix: text and document name to `Document`."""
