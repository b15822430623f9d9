"""The SQLite file under the index: schema, connection, and errors that name file and remedy."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentkit.errors import KnowledgeError

SCHEMA_VERSION = 3
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('folder', 'added')),
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    language TEXT NOT NULL,
    keywords TEXT NOT NULL, -- one phrase a line
    vectors BLOB NOT NULL -- float32 rows: title, then every keyword
);
CREATE TABLE metadata (
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (document, key)
) WITHOUT ROWID;
CREATE INDEX metadata_by_value ON metadata (key, value);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    heading TEXT NOT NULL,
    text TEXT NOT NULL,
    language TEXT NOT NULL,
    page INTEGER,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    vectors BLOB NOT NULL -- float32 rows: chunk with heading, then every sentence
);
CREATE INDEX chunks_by_document ON chunks (document);
CREATE VIRTUAL TABLE words USING fts5 (
    heading, text, keywords, tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER words_insert AFTER INSERT ON chunks BEGIN
    INSERT INTO words (rowid, heading, text, keywords)
    SELECT new.id, new.heading, new.text, keywords FROM documents WHERE id = new.document;
END;
CREATE TRIGGER words_delete AFTER DELETE ON chunks BEGIN
    DELETE FROM words WHERE rowid = old.id;
END;
"""
# The triggers keep text and lexical index in one transaction whatever statement changes the chunks.


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database, readable by its owner only.

    Raises:
        KnowledgeError: It is damaged, of another version, or not writable.
    """
    with guarded(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its -wal and -shm files the mode of the database: that must be right from the start.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            _create(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _create(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version or tables:
            raise KnowledgeError(
                f"{path} is of another version of agentkit", "run `agentkit knowledge rebuild`"
            )
        for statement in _statements(_SCHEMA):
            connection.execute(statement)
        # The id tells a view of this file from one of a file that stood here before.
        connection.execute("INSERT INTO meta VALUES ('id', ?), ('generation', '0')", (uuid.uuid4().hex,))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements(script: str) -> Iterator[str]:
    """Single statements: `executescript` would commit the transaction they belong to."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, so that two writers queue instead of failing half-way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into `KnowledgeError`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise KnowledgeError(
                f"{path} is in use by another process", "try again when it is done"
            ) from error
        if "readonly" in text or "unable to open" in text or "full" in text:
            raise KnowledgeError(
                f"cannot write {path}: {text}", "check its permissions and the disk"
            ) from error
        raise KnowledgeError(f"{path} is damaged: {text}", "run `agentkit knowledge rebuild`") from error
    except sqlite3.DatabaseError as error:
        raise KnowledgeError(f"{path} is damaged: {error}", "run `agentkit knowledge rebuild`") from error
    except OSError as error:
        raise KnowledgeError(
            f"cannot open {path}: {error.strerror}", "check its permissions and the disk"
        ) from error


def damaged_files(path: Path) -> list[Path]:
    """The database with its log and shared memory: a log left behind would be replayed into the next file."""
    return [file for end in ("", "-wal", "-shm") if (file := path.with_name(path.name + end)).exists()]
