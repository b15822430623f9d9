"""What is learned from besides chats: labelled texts, tagged tokens, pairs of texts; told apart by their columns.

Tables are CSV or TSV with a heading, or JSONL. Every error names file and line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.errors import UsageError
from agentkit.training.data import SPLITS, Split
from agentkit.training.reading import decode, read_lines, read_objects
from agentkit.training.settings import Task

COLUMNS: dict[Task, tuple[str, str]] = {
    "classification": ("text", "label"),
    "tagging": ("tokens", "tags"),
    "seq2seq": ("source", "target"),
}
UNITS: dict[Task, str] = {
    "chat": "chats",
    "classification": "texts",
    "tagging": "sentences",
    "seq2seq": "pairs",
}
"""What an example is called."""
SPLIT = "split"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SHOWN = 60
"""Characters of a value in a message."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One example: what the model reads, and what it is to answer."""

    given: str | tuple[str, ...]
    """The text, or its tokens."""
    wanted: str | tuple[str, ...]
    """The label, the target, or one BIO tag for each token."""
    origin: str = ""
    """File and line, for messages to the user."""
    split: Split | None = None
    """As the file says; ``None`` leaves it to `partition`."""

    @property
    def kinds(self) -> frozenset[str]:
        """The label of a text, or the types of the entities among tokens."""
        if isinstance(self.wanted, str):
            return frozenset((self.wanted,))
        return frozenset(tag[2:] for tag in self.wanted if tag != "O")


def task_of(path: Path) -> Task:
    """What a file teaches, by the columns of its heading or the keys of its first object.

    Where nothing tells, it is taken for chats, whose reader says what is wrong.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A table has none of the known pairs of columns, or two of them.
    """
    is_table = path.suffix.lower() in _SEPARATORS
    if is_table:
        heading = next((cells for _, cells in _cells(path)), None)
        if heading is None:
            raise UsageError(f"{path} is empty", _forms())
        keys = {cell.strip().lower() for cell in heading}
    else:
        keys = _first_keys(path)
    whole = [task for task, columns in COLUMNS.items() if keys.issuperset(columns)]
    if "messages" in keys and not is_table:
        whole.append("chat")
    if len(whole) > 1:
        raise UsageError(f"{path} has the columns of {' and of '.join(whole)}", "leave one pair of them")
    begun = [task for task, columns in COLUMNS.items() if keys.intersection(columns)]
    found = next(iter(whole or begun), None)
    if found == "tagging" and is_table:
        raise UsageError(f"{path}: tokens and tags are lists", "write them as JSONL")
    if found is None and is_table:
        listed = ", ".join(sorted(keys))[:_SHOWN]
        raise UsageError(f"{path}: nothing can be learned from the columns {listed}", _forms())
    return found or "chat"


def load_labelled(path: Path, task: Task) -> list[Labelled]:
    """Read the examples of a task other than ``chat``; further columns than its two and ``split`` are ignored.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line cannot be used.
    """
    given, wanted = COLUMNS[task]
    read: Callable[[Any, str, str], Any] = _words if task == "tagging" else _text
    label: Callable[[Any, str, str], Any] = _label if task == "classification" else read
    found = []
    for origin, body in _objects(path, task):
        example = Labelled(
            read(body.get(given), given, origin),
            label(body.get(wanted), wanted, origin),
            origin,
            _split(body.get(SPLIT), origin),
        )
        if task == "tagging":
            _check_tags(example)
        found.append(example)
    if not found:
        raise UsageError(f"{path} holds no examples", f"write {_form(task)}")
    return found


def to_lines(examples: list[Labelled], task: Task) -> bytes:
    """JSONL that `load_labelled` reads again as the same examples."""
    given, wanted = COLUMNS[task]
    lines = [{given: one.given, wanted: one.wanted, SPLIT: one.split} for one in examples]
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def _objects(path: Path, task: Task) -> Iterator[tuple[str, dict[str, Any]]]:
    """Origin and values by column of each line."""
    if path.suffix.lower() not in _SEPARATORS:
        yield from read_objects(path, UNITS[task], f"write {_form(task)} a line")
        return
    heading: list[str] | None = None
    for origin, cells in _cells(path):
        if heading is None:
            heading = [cell.strip().lower() for cell in cells]
            _check_heading(heading, task, origin)
        elif len(cells) != len(heading):
            cause = f"{origin}: {len(cells)} columns instead of {len(heading)}"
            raise UsageError(cause, "put texts that hold the separator or a line end into quotes")
        else:
            yield origin, dict(zip(heading, cells, strict=True))


def _check_heading(heading: list[str], task: Task, origin: str) -> None:
    for column in COLUMNS[task]:
        if heading.count(column) != 1:
            said = "is no column" if column not in heading else "are several columns"
            raise UsageError(f"{origin}: there {said} {column!r}", f"write {_form(task)}")


def _cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Origin and cells of each row of a table that is not blank; a quoted text may go over many lines."""
    lines = read_lines(path, "labelled texts or pairs")
    text = "\n".join(decode(line, f"{path}, line {number}") for number, line in enumerate(lines, 1))
    separator = _SEPARATORS[path.suffix.lower()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    begin = 1
    try:
        for cells in reader:
            origin, begin = f"{path}, line {begin}", reader.line_num + 1
            if separator == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                cause = f"{origin}: a quote that is opened there takes up several rows"
                raise UsageError(cause, "close every quote, or double those that are part of a text")
            if any(cell.strip() for cell in cells):
                yield origin, cells
    except csv.Error as error:
        remedy = "close every quote; double those within a text"
        raise UsageError(f"{path}, line {begin}: {error}", remedy) from error


def _first_keys(path: Path) -> set[str]:
    """Of the first line of a JSONL file that is an object; what is wrong with the others, the reader tells."""
    for line in read_lines(path, "chats, as JSONL"):
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(body, dict):
            return set(body)
    return set()


def _text(value: Any, column: str, origin: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UsageError(f"{origin}: {column!r} is missing or empty", "fill it in or delete the line")
    if not isinstance(value, str):
        raise UsageError(f"{origin}: {column!r} is no text: {_short(value)}", "write it as a JSON string")
    return value.strip()


def _label(value: Any, column: str, origin: str) -> str:
    """Numbers are taken for their names: many files count their classes."""
    named = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    label = _text(named, column, origin)
    if "\n" in label:
        raise UsageError(
            f"{origin}: {column!r} goes over several lines: {_short(label)}", "name it in one line"
        )
    return label


def _words(value: Any, column: str, origin: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(
            f"{origin}: {column!r} is no list of texts: {_short(value)}", f"write {_form('tagging')}"
        )
    for number, word in enumerate(value, 1):
        if not isinstance(word, str) or not word.strip():
            cause = f"{origin}: number {number} of {column!r} is empty or no text: {_short(word)}"
            raise UsageError(cause, "fill it in, or take it out together with its partner")
    return tuple(word.strip() for word in value)


def _split(value: Any, origin: str) -> Split | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    for split in SPLITS:
        if value == split:
            return split
    raise UsageError(f"{origin}: unknown split {value!r}", f"use one of {', '.join(SPLITS)}, or leave it out")


def _check_tags(example: Labelled) -> None:
    """Whether there is one tag for each token, and each entity begins with ``B-`` (BIO, also called IOB2)."""
    tokens, tags, origin = example.given, example.wanted, example.origin
    if len(tokens) != len(tags):
        cause = f"{origin}: {len(tokens)} tokens have {len(tags)} tags"
        raise UsageError(cause, "give each token one tag, O where it belongs to no entity")
    before = "O"
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True), 1):
        where = f"{origin}: tag {number}, of {_short(token)}"
        if tag != "O" and (tag[:2] not in ("B-", "I-") or not tag[2:].strip()):
            raise UsageError(f"{where}, is {tag!r}", "use O, B-TYPE and I-TYPE")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            cause = f"{where}, is {tag!r} behind {before if number > 1 else 'nothing'!r}"
            raise UsageError(cause, f"begin each entity with B-: {'B-' + tag[2:]!r}")
        before = tag


def _form(task: Task) -> str:
    given, wanted = COLUMNS[task]
    if task == "tagging":
        return f'{{"{given}": ["Ann", "lives", "here"], "{wanted}": ["B-PER", "O", "O"]}}'
    return f'{{"{given}": …, "{wanted}": …}}, or a CSV with the heading {given},{wanted}'


def _forms() -> str:
    return "give the columns " + ", or ".join(f"{a} and {b}" for a, b in COLUMNS.values())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
