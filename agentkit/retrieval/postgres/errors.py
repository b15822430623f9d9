"""What the server says, as one line with cause and remedy. No message ever holds the address as it was given."""

from __future__ import annotations

import psycopg
from psycopg import errors

from agentkit.errors import IndexDamaged, KnowledgeError

REBUILD = "run `agentkit knowledge rebuild`"

_CONNECTING = (
    ("password", "check user and password; the password may stand in PGPASSWORD or ~/.pgpass"),
    ("no pg_hba.conf entry", "let the server accept this user and machine (pg_hba.conf)"),
    ("starting up", "try again in a moment"),
    ("shutting down", "try again when the server runs"),
    ("database", "create the database, or name another one"),
    ("role", "create the role with LOGIN, or name another user"),
    ("too many", "close other connections or raise max_connections"),
    ("", "check that the server runs, and its host and port in the address"),
)
"""A word of the message, which carries no code while connecting, and what to do; the first that fits."""

_CODES: tuple[tuple[tuple[type[psycopg.Error], ...], str, str], ...] = (
    ((errors.DiskFull,), "has no space left", "free space on the server's disk and try again"),
    ((errors.OutOfMemory,), "has no memory left", "give the server more memory"),
    (
        (errors.InsufficientPrivilege,),
        "refuses: {text}",
        "grant the role CREATE on the database, or make the schema and grant it the schema",
    ),
    ((errors.ReadOnlySqlTransaction,), "can only be read", "name the primary server, not a replica"),
    ((errors.LockNotAvailable,), "is being written by another process", "try again when it is done"),
    ((errors.QueryCanceled,), "took too long and was stopped: {text}", "try again when the server has time"),
    (
        (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedObject, errors.InvalidSchemaName),
        "is damaged: {text}",
        REBUILD,
    ),
    ((errors.DataCorrupted, errors.IndexCorrupted), "is damaged: {text}", REBUILD),
    ((errors.DataException,), "refuses: {text}", REBUILD),
)


class ConnectionLost(psycopg.OperationalError):
    """The server went away, or the connection to it, while a statement ran."""


def explained(error: psycopg.Error, where: str) -> KnowledgeError:
    """The error as one line.

    Args:
        error: From psycopg.
        where: Names the index, without its password.
    """
    if isinstance(error, ConnectionLost):
        return KnowledgeError(f"the connection to {where} was lost", "try again when the server runs")
    text = first_line(error)
    for kinds, cause, remedy in _CODES:
        if isinstance(error, kinds):
            kind = IndexDamaged if remedy == REBUILD else KnowledgeError
            return kind(f"{where} {cause.format(text=text)}", remedy)
    return KnowledgeError(f"{where} failed: {text}", "see the server's log")


def unreachable(error: psycopg.Error, where: str) -> KnowledgeError:
    """Why no connection came about, as one line."""
    text = first_line(error).rpartition("failed: ")[2].removeprefix("FATAL:").strip()
    remedy = next(remedy for word, remedy in _CONNECTING if word in text)
    return KnowledgeError(f"cannot connect to {where}: {text}", remedy)


def first_line(error: psycopg.Error) -> str:
    """The server's message; its detail may quote rows."""
    text = error.diag.message_primary or str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
