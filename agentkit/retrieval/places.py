"""Where an index is kept: a file of this user, or a schema on a server that others use too."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agentkit.database import create_private
from agentkit.errors import IndexOutdated, KnowledgeError
from agentkit.retrieval.database import connect, damaged_files, guarded
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.protocol import Index


class IndexPlace(Protocol):
    """Opens the index; where several machines share it, also keeps the files that people added.

    Raises:
        KnowledgeError: From every method, where the place cannot be reached or written.
    """

    def open(self, dimension: int, notice: Callable[[str], None]) -> Index:
        """The index, made where there is none."""
        ...

    def discard(self, dimension: int, outdated: bool = False) -> str:
        """Put a damaged index out of the way; says in a few words what became of it.

        Args:
            dimension: Of the vectors to come.
            outdated: Only if it is still of another version: another process may have been faster.
        """
        ...

    def pull(self, folder: Path) -> None:
        """Make the folder hold exactly the added files, wherever they were added."""
        ...

    def push(self, name: str, path: Path) -> None:
        """Keep an added file, under its name within the knowledge base; one of this name is replaced."""
        ...

    def forget(self, name: str) -> None:
        """Drop an added file."""
        ...


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """`SqliteIndex` in a file. The folder beside it is the only copy of added files, so there is nothing to share."""

    path: Path

    def open(self, dimension: int, notice: Callable[[str], None]) -> Index:
        """`IndexPlace.open`."""
        return SqliteIndex(self.path, dimension, notice)

    def discard(self, dimension: int, outdated: bool = False) -> str:
        """`IndexPlace.discard`: the file stays, under another name."""
        with _alone(self.path):
            if outdated and _is_current(self.path):
                return "another process has made it anew"
            try:
                for path in damaged_files(self.path):
                    os.replace(path, path.with_name(path.name + ".damaged"))
            except OSError as error:
                cause = f"cannot move {self.path} out of the way: {error.strerror}"
                raise KnowledgeError(cause, "check permissions and the disk") from error
        return f"moved to {self.path.name}.damaged and made anew"

    def pull(self, folder: Path) -> None:
        """`IndexPlace.pull`: nothing to do."""

    def push(self, name: str, path: Path) -> None:
        """`IndexPlace.push`: nothing to do."""

    def forget(self, name: str) -> None:
        """`IndexPlace.forget`: nothing to do."""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Held by one process at a time, however the last one ended: SQLite's lock on an empty file beside the index."""
    lock = path.with_name(path.name + ".lock")
    with guarded(lock):
        create_private(lock)
        connection = sqlite3.connect(lock, timeout=30.0, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            connection.close()


def _is_current(path: Path) -> bool:
    """Whether an index of this version is there by now; one is made where there is none."""
    try:
        connect(path).close()
    except IndexOutdated:
        return False
    return True
