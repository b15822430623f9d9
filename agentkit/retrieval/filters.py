"""What narrows a search, as SQL: keys are allow-listed, values are bound."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from agentkit.errors import UsageError
from agentkit.retrieval.protocol import Where

_COLUMNS = {"document": "documents.name", "language": "chunks.language", "origin": "documents.origin"}
KEYS = (*_COLUMNS, "folder", "format")
"""Keys that every document has."""
_LISTED = "(SELECT value FROM json_each(?))"
"""Any number of values in one: SQLite binds 32,766 at most."""
_FEW_FOLDERS = 100
"""Ranges that are written out; SQLite refuses an expression of a thousand."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def checked(where: Where) -> dict[str, tuple[str, ...]]:
    """Every key with the values of which one is wanted; folders in one form.

    Raises:
        UsageError: A key or value is no text.
    """
    if not isinstance(where, Mapping):
        raise UsageError(f"where={where!r} narrows nothing", 'write a dictionary: {"folder": "orders"}')
    found: dict[str, tuple[str, ...]] = {}
    for key, wanted in where.items():
        values = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
        found[key] = tuple(values)
        for text in (key, *found[key]):
            if not isinstance(text, str) or _SURROGATE.search(text):
                raise UsageError(f"where: {key!r} is {text!r}, which is no text", 'write "2020", not 2020')
    if "folder" in found:
        found["folder"] = tuple(map(_folder, found["folder"]))
    return found


def _folder(written: str) -> str:
    """Without slashes around it; empty for the folder of all, however it is written."""
    folder = written.removeprefix("./").strip("/")
    return "" if folder == "." else folder


def chunks_where(connection: sqlite3.Connection, where: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """A query for (id, number of vectors) of all chunks that fit, and its values.

    Args:
        connection: To the index.
        where: As `checked` returns it.

    Raises:
        UsageError: A key that no document has.
    """
    conditions, values = ["TRUE"], list[str]()
    for key, wanted in where.items():
        condition, own = _condition(connection, key, wanted)
        conditions.append(condition)
        values += own
    query = (
        "SELECT chunks.id, chunks.rows FROM chunks JOIN documents ON documents.id = chunks.document WHERE "
    )
    return query + " AND ".join(conditions), values


def _condition(connection: sqlite3.Connection, key: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    if key == "folder":
        return _below(wanted)
    if key == "format":
        return f"documents.format IN {_LISTED}", [_list([value.lower().lstrip(".") for value in wanted])]
    if key in _COLUMNS:
        return f"{_COLUMNS[key]} IN {_LISTED}", [_list(wanted)]
    if not connection.execute("SELECT 1 FROM metadata WHERE key = ? LIMIT 1", (key,)).fetchone():
        own = [row[0] for row in connection.execute("SELECT DISTINCT key FROM metadata ORDER BY key")]
        raise UsageError(
            f"no document has {key!r} to search by", f"there are {', '.join(dict.fromkeys([*KEYS, *own]))}"
        )
    condition = f"documents.id IN (SELECT document FROM metadata WHERE key = ? AND value IN {_LISTED})"
    return condition, [key, _list(wanted)]


def _list(values: Sequence[str]) -> str:
    return json.dumps(values)


def _below(folders: Sequence[str]) -> tuple[str, list[str]]:
    """Names that begin with a folder and a slash: a range, so that the index of names serves."""
    inside = [f"{folder}/" for folder in folders]
    if "/" in inside:
        return "TRUE", []
    ranges = [[name, name[:-1] + chr(ord("/") + 1)] for name in inside]
    if len(ranges) <= _FEW_FOLDERS:
        each = ["(documents.name >= ? AND documents.name < ?)"] * len(ranges)
        return f"({' OR '.join(each) or 'FALSE'})", [end for both in ranges for end in both]
    condition = (
        "EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE documents.name >= json_extract(wanted.value, '$[0]')"
        " AND documents.name < json_extract(wanted.value, '$[1]'))"
    )
    return condition, [json.dumps(ranges)]
