"""Plain text to `Document`."""

from __future__ import annotations

import re

from agentkit.retrieval.documents import Document, DocumentBuilder, clean_line

_UNDERLINE = re.compile(r"(=+|-{3,}|~{3,})")
_LIST_LINE = re.compile(r"(?:[-*+•–]|\d{1,3}[.)])\s")
_KEYWORDS = re.compile(r"^Keywords:[ \t]*+([^\n]*+)\s*+\Z", re.MULTILINE)
_WRAPPED = 60
"""A line at least this long is taken to go on in the next line."""


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
