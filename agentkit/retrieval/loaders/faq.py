"""Tables of questions and answers (CSV, TSV, JSON lines) to `Document`: every row is a section of its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import METADATA_CHARACTERS, Document, DocumentBuilder, clean_line
from agentkit.retrieval.loaders.limits import Limits

COLUMNS = {
    "question": ("question", "q", "query", "frage", "pregunta"),
    "answer": ("answer", "a", "response", "reply", "antwort", "respuesta", "réponse"),
    "category": ("category", "topic", "section", "kategorie", "thema"),
    "keywords": ("keywords", "tags", "keyword", "stichwörter"),
    "language": ("language", "lang", "locale", "sprache"),
}
"""Names that a column or key may have, in any case."""
DELIMITERS = ",;\t|"
NAMED = 5
"""Bad rows that are named; the others are counted."""
FURTHER = "further"
"""Field that gathers the columns and keys of other names, one value a line."""
_NAMES = {name: field for field, names in COLUMNS.items() for name in names}
_REMEDY = "name two columns question and answer"


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    fields: Mapping[str, str]
    """By the names of `COLUMNS`, and `FURTHER`."""
    fault: str = ""
    """Why the row cannot be used."""


def load_csv(text: str, name: str, limits: Limits) -> Document:
    """A table with a header; the delimiter is the one that its header shows."""
    return _build(list(_csv_rows(text, limits)), name)


def load_jsonl(text: str, name: str, limits: Limits) -> Document:
    """An object on every line; blank lines are skipped."""
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return _build([_json_row(number, line, limits) for number, line in lines], name)


def _csv_rows(text: str, limits: Limits) -> Iterator[_Row]:
    delimiter, fields = _header(text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    line, headed = 1, False
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if headed:
                    yield _csv_row(line, cells, fields, limits)
                headed = True
            line = reader.line_num + 1
    except csv.Error as error:
        # What follows a broken quote cannot be told from what it encloses.
        cause = f"cannot be read from line {line} on: {error}"
        raise KnowledgeError(cause, "check the quotes and the length of the cells there") from error


def _header(text: str) -> tuple[str, list[str]]:
    """(delimiter, field of each column or empty), by the first line."""
    first = text.lstrip("\r\n ").split("\n", 1)[0]  # a tab begins a column without a name
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            continue
        fields = [_NAMES.get(clean_line(cell).lower(), "") for cell in cells]
        if {"question", "answer"} <= set(fields):
            return delimiter, fields
    if not text.strip():
        raise KnowledgeError("holds no text", "fill it or remove it")
    shown = clean_line(first)[:60]
    raise KnowledgeError(f"has no columns question and answer: its first line is {shown!r}", _REMEDY)


def _csv_row(line: int, cells: list[str], fields: list[str], limits: Limits) -> _Row:
    if any(len(cell) > limits.cell for cell in cells):
        return _Row(line, {}, f"has a cell of more than {limits.cell:,} characters")
    while len(cells) > len(fields) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) > len(fields):
        return _Row(line, {}, f"has {len(cells)} cells for {len(fields)} columns")
    return _checked(line, zip(fields, cells, strict=False))


def _json_row(line: int, text: str, limits: Limits) -> _Row:
    if len(text) > limits.cell:
        return _Row(line, {}, f"has more than {limits.cell:,} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _Row(line, {}, "is not JSON")
    if not isinstance(value, dict):
        return _Row(line, {}, "is not an object")
    cells = []
    for key, entry in value.items():
        if isinstance(entry, list):
            entry = ", ".join(str(part) for part in entry)
        is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
        cells.append(
            (
                _NAMES.get(clean_line(key).lower(), ""),
                str(entry) if is_number else entry if isinstance(entry, str) else "",
            )
        )
    return _checked(line, cells)


def _checked(line: int, cells: Iterable[tuple[str, str]]) -> _Row:
    """A row from (field or empty, value); the first of equal fields counts."""
    values: dict[str, str] = {}
    further = []
    for field, value in cells:
        if field:
            values.setdefault(field, value)
        # Numbers alone are ids, prices or dates: looked up, they would fit any question with that number.
        elif any(map(str.isalpha, value[:METADATA_CHARACTERS])):
            further.append(clean_line(value))
    values[FURTHER] = "\n".join(further)
    for field in ("question", "answer"):
        if not clean_line(values.get(field, "")):
            return _Row(line, {}, f"has no {field}")
    return _Row(line, values)


def _build(rows: list[_Row], name: str) -> Document:
    bad, good = [row for row in rows if row.fault], [row for row in rows if not row.fault]
    fault = "; ".join(f"line {row.line} {row.fault}" for row in bad[:NAMED])
    fault += f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    if not good:
        raise KnowledgeError(f"holds no question with an answer{': ' * bool(fault)}{fault}", _REMEDY)
    builder, category = DocumentBuilder(), ""
    for row in good:
        get = row.fields.get
        own, question = clean_line(get("category", "")), get("question", "")
        if own and own != category:
            builder.heading(2, own)
        # A row without a category stands beside the categories, not under the last one.
        builder.heading(3 if own else 2, question)
        category = own
        # Keywords are the row's, not the document's: there any of them would fit every row.
        builder.paragraph(
            get("answer", "").strip(),
            language=get("language", ""),
            keywords=get("keywords", ""),
            terms=get(FURTHER, "").split("\n"),
        )
    notices = [f"{len(bad)} of {len(rows)} rows left out: {fault}"] if bad else []
    return builder.build(name, notices=notices)
