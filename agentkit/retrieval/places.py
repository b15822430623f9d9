"""Where an index is kept: a file of this user, or a schema on a server that others use too."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agentkit.retrieval.database import damaged_files
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

    def discard(self, dimension: int) -> str:
        """Put a damaged index out of the way; says in a few words what became of it."""
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

    def discard(self, dimension: int) -> str:
        """`IndexPlace.discard`: the file stays, under another name."""
        for path in damaged_files(self.path):
            os.replace(path, path.with_name(path.name + ".damaged"))
        return f"moved to {self.path.name}.damaged and made anew"

    def pull(self, folder: Path) -> None:
        """`IndexPlace.pull`: nothing to do."""

    def push(self, name: str, path: Path) -> None:
        """`IndexPlace.push`: nothing to do."""

    def forget(self, name: str) -> None:
        """`IndexPlace.forget`: nothing to do."""
