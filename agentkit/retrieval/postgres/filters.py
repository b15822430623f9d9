"""`Where` as SQL: every key is known beforehand, every value is bound."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from agentkit.errors import UsageError
from agentkit.retrieval.filters import checked
from agentkit.retrieval.postgres.server import Server
from agentkit.retrieval.postgres.words import storable
from agentkit.retrieval.protocol import Where

_KEYS: dict[str, sql.SQL] = {
    "document": sql.SQL("d.name = ANY({})"),
    "folder": sql.SQL("EXISTS (SELECT FROM unnest({}::text[]) AS f WHERE starts_with(d.name, f))"),
    "format": sql.SQL(r"lower(substring(d.name FROM '[^/]\.([^./]+)$')) = ANY({})"),
    "language": sql.SQL("c.language = ANY({})"),
    "origin": sql.SQL("d.origin = ANY({})"),
}
"""Conditions over ``c`` (chunks) and ``d`` (documents)."""
_METADATA = (
    "EXISTS (SELECT FROM {s}.metadata m WHERE m.document = d.id"
    " AND md5(m.key) = md5({key}) AND m.key = {key} AND m.value = ANY({values}))"
)


def condition(server: Server, where: Where | None) -> tuple[sql.Composable, dict[str, Any]] | None:
    """The condition and its values by name; ``None`` where nothing is narrowed.

    Raises:
        UsageError: No document has a key; names those there are. Or a value is no text.
    """
    if not where:
        return None
    parts: list[sql.Composable] = []
    values: dict[str, Any] = {}
    for number, (key, wanted) in enumerate(checked(where).items()):
        name = f"where_{number}"
        bound = sql.Placeholder(name)
        chosen = [storable(value) for value in wanted]
        if key in _KEYS:
            parts.append(_KEYS[key].format(bound))
            values[name] = [_prepared(key, value) for value in chosen]
        else:
            _check_metadata(server, key)
            values |= {name: chosen, f"{name}_key": key}
            parts.append(server.sql(_METADATA, key=sql.Placeholder(f"{name}_key"), values=bound))
    return sql.SQL(" AND ").join(parts), values


def _prepared(key: str, value: str) -> str:
    if key == "folder":
        return f"{value}/" if value else ""
    return value.lower().removeprefix(".") if key == "format" else value


def _check_metadata(server: Server, key: str) -> None:
    known = [row[0] for row in server.read(server.sql("SELECT DISTINCT key FROM {s}.metadata ORDER BY key"))]
    if key not in known:
        raise UsageError(f"no document has {key!r} to search by", f"there are: {', '.join([*_KEYS, *known])}")
