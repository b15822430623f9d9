"""The row of each job in one SQLite table.

A table and not a file per job, because starter, worker and canceller write to it: a change of status is one
conditional UPDATE, so the first to end a job decides how it ended. Progress is no status; it goes to a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentkit.database import Database
from agentkit.errors import UsageError
from agentkit.training.process import Process, at_work

Turn = Literal["now", "later", "never"]
Status = Literal["queued", "running", "done", "failed", "cancelled"]
ACTIVE: tuple[Status, ...] = ("queued", "running")

FILE = "jobs.db"
_APPLICATION_ID = 0x61676B6A  # "agkj"
_VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, created TEXT NOT NULL, status TEXT NOT NULL,
    pid INTEGER NOT NULL, started REAL NOT NULL, error TEXT);
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One row."""

    id: str
    name: str
    created: str
    status: Status
    process: Process
    error: str | None


class JobTable:
    """All jobs of one folder."""

    def __init__(self, jobs_dir: Path) -> None:
        self._jobs_dir = jobs_dir
        self._db = Database(jobs_dir / FILE, _SCHEMA, _APPLICATION_ID, _VERSION, what="table of jobs")

    def all(self) -> list[Record]:
        """Every job, the oldest first."""
        rows = self._db.read("SELECT id, name, created, status, pid, started, error FROM jobs ORDER BY rowid")
        return [
            Record(id, name, created, status, Process(pid, started), error)
            for id, name, created, status, pid, started, error in rows
        ]

    def reserve(self, id: str, name: str, created: str, process: Process) -> None:
        """Enter a queued job, unless another that is under way has taken the name.

        Raises:
            UsageError: The name is taken.
        """
        with self._db.write() as db:
            self._check_name(db, name)
            row = (id, name, created, "queued", process.pid, process.started)
            db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, NULL)", row)

    def hand_over(self, id: str, process: Process) -> None:
        """Name the worker as the process behind a queued job; afterwards it speaks for itself."""
        with self._db.write() as db:
            query = "UPDATE jobs SET pid = ?, started = ? WHERE id = ? AND status = 'queued'"
            db.execute(query, (process.pid, process.started, id))

    def run(self, id: str, process: Process) -> Turn:
        """Queued to running, if it is the job's turn: one trains at a time, the oldest first.

        Returns:
            ``now`` if it runs; ``later`` if another is before it; ``never`` if it has been ended before it began.
        """
        with self._db.write() as db:
            query = (
                "SELECT o.id, o.pid, o.started FROM jobs j LEFT JOIN jobs o ON o.status = 'running' "
                "OR (o.status = 'queued' AND o.rowid < j.rowid) WHERE j.id = ? AND j.status = 'queued'"
            )
            rows = db.execute(query, (id,)).fetchall()
            if not rows:
                return "never"
            if any(other and self._is_at_work(other, pid, started) for other, pid, started in rows):
                return "later"
            update = "UPDATE jobs SET status = 'running', pid = ?, started = ? WHERE id = ?"
            db.execute(update, (process.pid, process.started, id))
            return "now"

    def requeue(self, id: str, process: Process) -> bool:
        """Failed to queued; false if the job has not failed.

        Raises:
            UsageError: Another job that is under way has taken the name.
        """
        with self._db.write() as db:
            row = db.execute("SELECT name FROM jobs WHERE id = ? AND status = 'failed'", (id,)).fetchone()
            if row is None:
                return False
            self._check_name(db, row[0])
            update = "UPDATE jobs SET status = 'queued', pid = ?, started = ?, error = NULL WHERE id = ?"
            db.execute(update, (process.pid, process.started, id))
            return True

    def end(self, id: str, status: Status, error: str | None = None, name: str | None = None) -> bool:
        """End a job that is under way; false if it has ended already, and then nothing changes.

        ``name`` is that of the result, which need not be the one that was reserved.
        """
        with self._db.write() as db:
            query = (
                "UPDATE jobs SET status = ?, error = ?, name = COALESCE(?, name) "
                "WHERE id = ? AND status IN ('queued', 'running')"
            )
            return db.execute(query, (status, error, name, id)).rowcount == 1

    def _check_name(self, db: sqlite3.Connection, name: str) -> None:
        query = "SELECT id, pid, started FROM jobs WHERE name = ? AND status IN ('queued', 'running')"
        for other, pid, started in db.execute(query, (name,)).fetchall():
            if self._is_at_work(other, pid, started):
                remedy = "choose another name, or cancel that job"
                raise UsageError(f"job {other} is already making an adapter {name!r}", remedy)

    def _is_at_work(self, id: str, pid: int, started: float) -> bool:
        return at_work(Process(pid, started), self._jobs_dir / id)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


@contextmanager
def job_table(jobs_dir: Path) -> Iterator[JobTable]:
    """The table, opened and closed."""
    table = JobTable(jobs_dir)
    try:
        yield table
    finally:
        table.close()
