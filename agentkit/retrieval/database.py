"""The SQLite file under the index: schema, connection, and errors that name file and remedy."""

from __future__ import annotations

import errno
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agentkit.database import create_private, use_log
from agentkit.errors import IndexDamaged, IndexOutdated, KnowledgeError
from agentkit.retrieval.postings import POSTINGS, TOKENIZER

SCHEMA_VERSION = 8
WORDS_SCHEMA = f"""
CREATE VIRTUAL TABLE words USING fts5 (
    heading, text, keywords, tokenize = '{TOKENIZER}'
);
CREATE VIRTUAL TABLE spellings USING fts5 (
    heading, text, content = 'chunks', content_rowid = 'id', detail = none, columnsize = 0,
    tokenize = 'unicode61 remove_diacritics 0'
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab ('spellings', 'row');
"""
# Words are stemmed in the first, and as they are written in the second.
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    format TEXT NOT NULL, -- suffix of the name, lower case, without dot
    sha256 TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('folder', 'added')),
    title TEXT NOT NULL,
    language TEXT NOT NULL,
    keywords TEXT NOT NULL, -- one phrase a line
    vectors BLOB NOT NULL, -- float16 rows: title, then every keyword
    text TEXT NOT NULL -- last: SQLite reads past what stands before a column
);
CREATE TABLE metadata (
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (document, key)
) WITHOUT ROWID;
CREATE INDEX metadata_by_value ON metadata (key, value);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so what a view holds of an id stays true
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    heading TEXT NOT NULL,
    text TEXT NOT NULL,
    keywords TEXT NOT NULL, -- its own, and its terms, one phrase a line
    language TEXT NOT NULL,
    page INTEGER,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    vectors BLOB NOT NULL -- float16 rows: chunk with heading, every sentence, every keyword of its own
);
CREATE INDEX chunks_by_document ON chunks (document, rows); -- with rows: sizes are known without reading vectors
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- the generation of the index after this change
    chunk INTEGER NOT NULL,
    rows INTEGER NOT NULL -- vectors added; negative where they were removed
);
{WORDS_SCHEMA}
CREATE TRIGGER chunks_insert AFTER INSERT ON chunks BEGIN
    INSERT INTO words (rowid, heading, text, keywords)
    SELECT new.id, new.heading, new.text, new.keywords || char(10) || keywords
    FROM documents WHERE id = new.document;
    INSERT INTO spellings (rowid, heading, text) VALUES (new.id, new.heading, new.text);
    INSERT INTO changes (chunk, rows) VALUES (new.id, new.rows);
END;
CREATE TRIGGER chunks_delete AFTER DELETE ON chunks BEGIN
    DELETE FROM words WHERE rowid = old.id;
    INSERT INTO spellings (spellings, rowid, heading, text) VALUES ('delete', old.id, old.heading, old.text);
    INSERT INTO changes (chunk, rows) VALUES (old.id, -old.rows);
END;
"""
# The triggers keep chunks, lexical index and journal in one transaction whatever statement changes the chunks.

_CACHE_KIB = 32 * 1024
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_CANNOT_WRITE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}
_NOT_THE_FILE = {
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
}
"""What was asked is at fault, or there is no memory; a new index would not help."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database, readable by its owner only; one that cannot be written is opened for reading.

    Raises:
        KnowledgeError: It is damaged, of another version, or can be neither created nor read.
    """
    with guarded(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives its -wal and -shm files the mode of the database: that must be right from the start.
            create_private(path)
            writable = _is_writable(path)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.is_file():
                raise
            writable = False
        connection = _open(path, writable)
        try:
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            if writable:
                use_log(connection)
                # FULL: a commit must outlast the power, or a view written after it would be ahead of the database.
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA recursive_triggers = ON")  # REPLACE runs the delete triggers too
            _check(connection, path, writable)
            connection.execute("PRAGMA temp_store = MEMORY")  # no file for it: there may be no room for one
            connection.execute(POSTINGS)
            if not writable:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection


def _open(path: Path, writable: bool) -> sqlite3.Connection:
    if writable:
        return sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    log = path.with_name(path.name + "-wal")
    # Without a log nobody writes: SQLite need not make the shared memory that it could not make here.
    immutable = "" if log.exists() else "&immutable=1"
    uri = f"{path.resolve().as_uri()}?mode=ro{immutable}"
    return sqlite3.connect(uri, uri=True, timeout=30.0, isolation_level=None, check_same_thread=False)


class FileState(NamedTuple):
    """What tells whether a connection still leads to what stands under its path."""

    device: int
    inode: int
    size: int
    changed_ns: int
    has_log: bool
    writable: bool

    def is_as(self, before: FileState | None) -> bool:
        """Whether a connection made at ``before`` still serves.

        One that cannot write takes a file without a log for unchangeable, until somebody writes.
        """
        if before is None or self[:2] != before[:2]:
            return False
        return before.writable or before.has_log or self == before


def file_state(path: Path) -> FileState | None:
    """Of the file under the path; none where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    log = path.with_name(path.name + "-wal").exists()
    return FileState(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, log, _is_writable(path))


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _check(connection: sqlite3.Connection, path: Path, writable: bool) -> None:
    """Make the schema in a new file; refuse one of another version."""
    if _version(connection) == SCHEMA_VERSION:
        return
    if not writable:
        raise KnowledgeError(f"{path} is of another version of agentkit", "make it writable and rebuild it")
    with transaction(connection):
        version = _version(connection)
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if tables and not version:
            raise KnowledgeError(f"{path} is a database of something else", "move it, or name another file")
        if version or tables:
            raise IndexOutdated(
                f"{path} is of another version of agentkit", "run `agentkit knowledge rebuild`"
            )
        run_script(connection, _SCHEMA)
        # The id tells a view of this file from one of a file that stood here before.
        connection.execute(
            "INSERT INTO meta VALUES ('id', ?), ('trimmed', '0'), ('checkpoint', '0')", (uuid.uuid4().hex,)
        )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Statement by statement: `executescript` would commit the transaction they belong to."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
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
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one state; writers are not held up."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into `KnowledgeError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if kind in _BUSY:
            raise KnowledgeError(
                f"{path} is in use by another process", "try again when it is done"
            ) from error
        if kind in _NOT_THE_FILE or isinstance(error, sqlite3.ProgrammingError) or "too many" in str(error):
            raise KnowledgeError(
                f"SQLite refuses to ask {path}: {error}", "ask for less at a time"
            ) from error
        if kind in _CANNOT_WRITE:
            raise KnowledgeError(
                f"cannot read or write {path}: {error}; nothing was changed",
                "check its permissions and the disk",
            ) from error
        raise IndexDamaged(f"{path} is damaged: {error}", "run `agentkit knowledge rebuild`") from error
    except OSError as error:
        raise KnowledgeError(
            f"cannot open {path}: {error.strerror}", "check its permissions and the disk"
        ) from error


def damaged_files(path: Path) -> list[Path]:
    """The database with its log and shared memory: a log left behind would be replayed into the next file."""
    return [file for end in ("", "-wal", "-shm") if (file := path.with_name(path.name + end)).exists()]


def generation(connection: sqlite3.Connection) -> int:
    """Number of the last change; 0 in a new database."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return int(row[0]) if row else 0
