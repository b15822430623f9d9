"""Whether a database is whole; the lexical index, which can be made anew, is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from agentkit.errors import IndexDamaged
from agentkit.retrieval.blobs import BYTES
from agentkit.retrieval.database import WORDS_SCHEMA, guarded, run_script, transaction

_REMEDY = "run `agentkit knowledge rebuild`"


def check(connection: sqlite3.Connection, path: Path, dimension: int, notice: Callable[[str], None]) -> None:
    """Check pages, references, vector lengths and the lexical index; the last is repaired and reported.

    Raises:
        KnowledgeError: Documents, chunks or vectors are damaged.
    """
    fault = _damage(connection, dimension)
    if fault:
        raise IndexDamaged(f"{path} is damaged: {fault}", _REMEDY)
    fault = _lexical_fault(connection)
    if fault:
        notice(f"the lexical index of {path.name} {fault}; rebuilt from its chunks")
        with guarded(path):
            _rebuild(connection)


def _damage(connection: sqlite3.Connection, dimension: int) -> str:
    report = "\n".join(str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)"))
    # SQLite from 3.44 on checks FTS5 as well; that is derived, and checked below.
    faults = [
        line for line in report.splitlines() if line != "ok" and "***" not in line and "FTS5" not in line
    ]
    if faults:
        return faults[0]
    if connection.execute("PRAGMA foreign_key_check").fetchone():
        return "it has chunks without a document"
    wrong = "SELECT 1 FROM chunks WHERE rows < 1 OR length(vectors) <> rows * ? LIMIT 1"
    if connection.execute(wrong, (BYTES * dimension,)).fetchone():
        return "it has vectors of another length"
    wrong = "SELECT 1 FROM documents WHERE length(vectors) = 0 OR length(vectors) % ? LIMIT 1"
    if connection.execute(wrong, (BYTES * dimension,)).fetchone():
        return "it has vectors of another length"
    return ""


def _lexical_fault(connection: sqlite3.Connection) -> str:
    query = """
        SELECT 1 FROM chunks JOIN documents ON documents.id = chunks.document LEFT JOIN words_content AS held
            ON held.id = chunks.id
        WHERE held.id IS NULL OR held.c0 <> heading OR held.c1 <> chunks.text
            OR held.c2 <> chunks.keywords || char(10) || documents.keywords LIMIT 1"""
    try:
        if connection.execute("PRAGMA query_only").fetchone()[0] == 0:
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
            connection.execute("INSERT INTO spellings (spellings) VALUES ('integrity-check')")
        surplus = "SELECT 1 FROM words_content WHERE id NOT IN (SELECT id FROM chunks) LIMIT 1"
        if connection.execute(query).fetchone() or connection.execute(surplus).fetchone():
            return "is out of step"
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            raise
        return "is damaged"
    return ""


def _rebuild(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for table in ("vocabulary", "spellings", "words"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        run_script(connection, WORDS_SCHEMA)
        connection.execute(
            "INSERT INTO words (rowid, heading, text, keywords)"
            " SELECT chunks.id, heading, chunks.text, chunks.keywords || char(10) || documents.keywords"
            " FROM chunks JOIN documents ON documents.id = chunks.document"
        )
        connection.execute("INSERT INTO spellings (spellings) VALUES ('rebuild')")
