"""What narrows a search, as SQL: keys are allow-listed, values are bound."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from agentkit.errors import UsageError
from agentkit.retrieval.protocol import Where

_COLUMNS = {"document": "documents.name", "language": "chunks.language", "origin": "documents.origin"}
KEYS = (*_COLUMNS, "folder", "format")
"""Keys that every document has."""


def chunks_where(connection: sqlite3.Connection, where: Where) -> tuple[str, list[str]]:
    """A query for (id, number of vectors) of all chunks that fit, and its values.

    Raises:
        UsageError: A key that no document has.
    """
    conditions, values = ["TRUE"], list[str]()
    for key, wanted in where.items():
        condition, own = _condition(connection, key, [wanted] if isinstance(wanted, str) else wanted)
        conditions.append(condition)
        values += own
    query = (
        "SELECT chunks.id, chunks.rows FROM chunks JOIN documents ON documents.id = chunks.document WHERE "
    )
    return query + " AND ".join(conditions), values


def cache_key(where: Where) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Equal for filters that mean the same."""
    return tuple(
        sorted((key, (value,) if isinstance(value, str) else tuple(value)) for key, value in where.items())
    )


def _condition(connection: sqlite3.Connection, key: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    if key == "folder":
        return _below(wanted)
    marks = ", ".join("?" * len(wanted))
    if key == "format":
        return f"documents.format IN ({marks})", [value.lower().lstrip(".") for value in wanted]
    if key in _COLUMNS:
        return f"{_COLUMNS[key]} IN ({marks})", [*wanted]
    if not connection.execute("SELECT 1 FROM metadata WHERE key = ? LIMIT 1", (key,)).fetchone():
        own = [row[0] for row in connection.execute("SELECT DISTINCT key FROM metadata ORDER BY key")]
        raise UsageError(
            f"no document has {key!r} to search by", f"there are {', '.join(dict.fromkeys([*KEYS, *own]))}"
        )
    condition = f"documents.id IN (SELECT document FROM metadata WHERE key = ? AND value IN ({marks}))"
    return condition, [key, *wanted]


def _below(folders: Sequence[str]) -> tuple[str, list[str]]:
    """Names that begin with a folder and a slash: a range, so that the index of names serves."""
    values = list[str]()
    for folder in folders:
        inside = f"{folder.strip('/')}/"
        if inside == "/":
            return "TRUE", []
        values += [inside, inside[:-1] + chr(ord("/") + 1)]
    ranges = ["(documents.name >= ? AND documents.name < ?)"] * (len(values) // 2)
    return f"({' OR '.join(ranges) or 'FALSE'})", values
