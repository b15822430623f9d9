"""One SQLite file, opened with care: private, durable, shared by threads, and never touched when damaged."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agentkit.errors import StoreError
from agentkit.settings import private_dir

BUSY_TIMEOUT_S = 10.0
RETRY_S = 0.02

Rows = list[tuple[Any, ...]]
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_creating = threading.Lock()


def create_private(path: Path) -> None:
    """Make the file of a database where there is none, readable by its owner only.

    A file that exists is never opened: closing any descriptor of it would drop all locks that this process has on it,
    those of SQLite connections too, and another process would then delete the log that they write to
    (sqlite.org/howtocorrupt.html, 2.2).

    Raises:
        OSError: It cannot be made.
    """
    target = os.path.realpath(path)  # O_EXCL would take a link that leads nowhere for a file
    # The lock: no other thread connects between the two calls, and would lose its locks by the second.
    with _creating, suppress(FileExistsError):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Whether this block is the only one with the path, among all threads and processes.

    The file is there as long as the block runs, or until the next one after a kill. Where there is no ``fcntl`` others
    are not seen.

    Raises:
        StoreError: The file cannot be made.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            cause = f"cannot make {path}: {error.strerror or error}"
            raise StoreError(
                cause, "check the folder, or set AGENTKIT_DATA_DIR to one you can write to"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            yield False
            return
        except OSError as error:
            os.close(handle)
            cause = f"cannot lock {path}: {error.strerror or error}"
            raise StoreError(cause, "set AGENTKIT_DATA_DIR to a folder of a local disk") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        os.close(handle)  # the one before has just removed it
    try:
        yield True
    finally:
        with suppress(OSError):
            os.unlink(path)
        os.close(handle)


class Database:
    """A connection behind a lock; every failure is a `StoreError` that names the file and the remedy.

    Args:
        path: Created with mode 0600 when missing.
        schema: Statements that make the tables of a new file.
        application_id: Marks the file as ours; kept in the SQLite header.
        version: Schema version, from 1; kept in ``user_version``.
        upgrades: For each earlier version the statements that lead to the next one.
        what: How messages call it.

    Raises:
        StoreError: The file is damaged, not ours, of a newer version, or cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        application_id: int,
        version: int,
        upgrades: Mapping[int, str] = MappingProxyType({}),
        what: str = "session database",
    ) -> None:
        self.path, self._what = path, what
        self._lock = threading.RLock()
        with self._reporting():
            self._create_file()
            self._check(application_id, version)
            self._db = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
            )
            try:
                self._prepare(schema, application_id, version, upgrades)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file; using it afterwards is a `StoreError`."""
        with self._lock:
            self._db.close()

    def read(self, query: str, *values: Any) -> Rows:
        """All rows of a query."""
        with self._lock, self._reporting():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed and synced at the end, undone on any error. An inner one joins it."""
        with self._lock, self._reporting():
            if self._db.in_transaction:
                yield self._db
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")  # inside: an interrupt right after it has to end it too
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def damaged(self, detail: str) -> StoreError:
        """The error for content that cannot be read; its remedy is a command.

        The command takes the log along: left behind, it would be replayed into the next file of that name.
        """
        folder, name = self.path.parent, self.path.name
        earlier = len(list(folder.glob(f"damaged-*-{name}")))
        target = shlex.quote(str(folder / f"damaged-{earlier + 1}-{name}"))
        command = f"mkdir {target} && mv {shlex.quote(str(self.path))}* {target}"
        return StoreError(f"the {self._what} {self.path} is damaged ({detail})", f"move it away: {command}")

    def _create_file(self) -> None:
        private_dir(self.path.parent)
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size and not (self.path.exists() and self.path.stat().st_size):
            # SQLite would delete the log, which may hold the only copy of some messages.
            raise self.damaged("it is empty, but its log is not")
        create_private(self.path)
        if not os.access(self.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))

    def _check(self, application_id: int, version: int) -> None:
        # Read only: closing a writable connection would fold the log into a file that is damaged or not ours.
        with closing(
            sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_S, uri=True)
        ) as db:
            db.execute("BEGIN")  # one snapshot: another process may be making the tables just now
            found, owner = _pragma(db, "user_version"), _pragma(db, "application_id")
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            verdict = str(_pragma(db, "quick_check(1)"))
        if owner != application_id and (owner or found or tables):
            raise StoreError(f"{self.path} is no {self._what} of agentkit", "move it away: it is not ours")
        if found > version:
            cause = f"{self.path} was written by a newer agentkit (schema {found}; this one knows {version})"
            raise StoreError(cause, "install a newer agentkit")
        if verdict != "ok":
            raise self.damaged(verdict.splitlines()[-1])

    def _prepare(self, schema: str, application_id: int, version: int, upgrades: Mapping[int, str]) -> None:
        os.chmod(self.path, 0o600)
        use_log(self._db)
        for setting in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {setting}")
        if _pragma(self._db, "user_version") < version:
            with self.write() as db:
                found = _pragma(self._db, "user_version")  # another process may have been faster
                steps = [schema] if not found else [upgrades[step] for step in range(found, version)]
                for statement in filter(None, map(str.strip, ";".join(steps).split(";"))):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id={application_id}")
                db.execute(f"PRAGMA user_version={version}")

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error | OSError) -> StoreError:
        if isinstance(error, OSError):
            cause = f"cannot open the {self._what} {self.path}: {error.strerror or error}"
            return StoreError(cause, "check the folder, or set AGENTKIT_DATA_DIR to one you can write to")
        code = _code(error)
        cause = f"cannot use the {self._what} {self.path}: {error}"
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode to UTF-8" in str(error):
            return self.damaged(str(error))
        if code in _BUSY:
            return StoreError(
                cause, "another agentkit process is writing to it: wait for it, or stop it, and try again"
            )
        if code == sqlite3.SQLITE_FULL:
            return StoreError(cause, f"free some space on the disk of {self.path.parent} and try again")
        if code in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_IOERR,
        ):
            return StoreError(
                cause, "check the disk and the rights, or set AGENTKIT_DATA_DIR to another folder"
            )
        return StoreError(cause, "run with --debug to see where this comes from")


def use_log(db: sqlite3.Connection) -> None:
    """Write to a log from now on; SQLite does not wait where another connection is just changing to it."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if _pragma(db, "journal_mode") != "wal":
                _pragma(db, "journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY or time.monotonic() >= end:
                raise
        time.sleep(RETRY_S)


def _pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary code, the low byte of an extended one; 0 where there is none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
