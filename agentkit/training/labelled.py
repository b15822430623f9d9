"""Texts with a label, and pairs of texts: what classifiers and translators learn from."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.errors import UsageError
from agentkit.training.reading import decode, read_lines, read_objects

MIN_EXAMPLES = 2
"""One example teaches nothing that could be checked on another."""
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its class."""

    text: str
    label: str
    origin: str
    """File and line, for messages to the user."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and what it is to become."""

    source: str
    target: str
    origin: str


def load_labelled(path: Path) -> list[Labelled]:
    """Read ``text`` and ``label`` from a CSV or TSV file with a heading, or from JSONL; other columns are ignored.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line cannot be used (names file and line), there are fewer than two, or all have one label.
    """
    found = [Labelled(text, label, origin) for origin, (text, label) in _rows(path, ("text", "label"))]
    _check_count(path, len(found))
    labels = Counter(example.label for example in found)
    if len(labels) < 2:
        cause = f"{path}: all {len(found)} examples have the label {found[0].label!r}"
        raise UsageError(cause, "a classifier needs examples of two labels at least")
    return found


def load_pairs(path: Path) -> list[Pair]:
    """Read ``source`` and ``target`` from a CSV or TSV file with a heading, or from JSONL.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line cannot be used (names file and line), or there are fewer than two.
    """
    found = [Pair(source, target, origin) for origin, (source, target) in _rows(path, ("source", "target"))]
    _check_count(path, len(found))
    return found


def _check_count(path: Path, count: int) -> None:
    if count < MIN_EXAMPLES:
        raise UsageError(
            f"{path} holds {count or 'no'} example{'s' * (count != 1)}", "at least two are needed"
        )


def _rows(path: Path, columns: tuple[str, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Origin and the two texts of each line, stripped; none is empty."""
    pairs: Iterator[tuple[str, list[Any]]]
    form = f"name the columns {columns[0]!r} and {columns[1]!r}"
    if path.suffix.lower() == ".jsonl":
        objects = read_objects(
            path, " and ".join(columns), f'write one {{"{columns[0]}": …, "{columns[1]}": …}} a line'
        )
        pairs = ((origin, [body.get(column) for column in columns]) for origin, body in objects)
    elif path.suffix.lower() in _SEPARATORS:
        pairs = _table(path, columns, form)
    else:
        raise UsageError(f"{path} is no table", "name a .csv, .tsv or .jsonl file")
    for origin, values in pairs:
        for column, value in zip(columns, values, strict=True):
            if not isinstance(value, str) or not value.strip():
                said = "is empty" if isinstance(value, str) or value is None else f"is no text: {value!r}"
                raise UsageError(f"{origin}: {column!r} {said}", "fill it in or delete the line")
        yield origin, (str(values[0]).strip(), str(values[1]).strip())


def _table(path: Path, columns: Sequence[str], form: str) -> Iterator[tuple[str, list[Any]]]:
    lines = read_lines(path, " and ".join(columns))
    text = "\n".join(decode(line, f"{path}, line {number}") for number, line in enumerate(lines, 1))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_SEPARATORS[path.suffix.lower()], strict=True
    )
    heading: list[str] | None = None
    begin = 1
    try:
        for row in reader:
            origin, begin = (
                f"{path}, line {begin}",
                reader.line_num + 1,
            )  # a quoted text may go over many lines
            if not any(cell.strip() for cell in row):
                continue
            if heading is None:
                heading = [cell.strip().lower() for cell in row]
                missing = [column for column in columns if column not in heading]
                if missing:
                    raise UsageError(f"{origin}: there is no column {missing[0]!r}", form)
                continue
            if len(row) != len(heading):
                cause = f"{origin}: {len(row)} columns instead of {len(heading)}"
                raise UsageError(cause, "put texts that hold the separator into quotes")
            yield origin, [row[heading.index(column)] for column in columns]
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {begin}: {error}", "close every quote; double those within a text"
        ) from error
