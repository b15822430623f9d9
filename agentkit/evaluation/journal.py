"""The rows of a run, kept line by line so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from agentkit.errors import StoreError, UsageError

ROWS, RUN = "rows.jsonl", "run.json"


class Named(Protocol):
    """A frozen dataclass of plain JSON values with an id."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Named)


class Journal(Generic[R]):
    """The rows of one run in a folder; every row is on disk before the next question is asked.

    Args:
        folder: Made when missing.
        identity: What the rows depend on: a run under another identity is refused, not mixed in.
        read: The inverse of `asdict`; raises ValueError, TypeError or KeyError where it is no row.

    Raises:
        UsageError: The folder holds the rows of something else.
        StoreError: It cannot be read or written, or a row is damaged.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, str], read: Callable[[dict[str, Any]], R]
    ) -> None:
        self.folder, self._row = folder, read
        self.rows: dict[str, R] = {}
        """By id, in the order in which they were asked."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._identify(dict(identity))
            self._read()
        except OSError as error:
            raise StoreError(f"cannot use {folder}: {error.strerror}", "name another --out") from error

    def add(self, row: R) -> None:
        """Append a row and sync it to disk.

        Raises:
            StoreError: It cannot be written.
        """
        try:
            with (self.folder / ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            cause = f"cannot write {self.folder / ROWS}: {error.strerror}"
            raise StoreError(cause, "make room and run again: it goes on from here") from error
        self.rows[row.id] = row

    def _identify(self, identity: dict[str, str]) -> None:
        path = self.folder / RUN
        if not path.exists():
            path.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged", "name another --out") from error
        changed = [key for key in identity if before.get(key) != identity[key]]
        if changed:
            cause = f"{self.folder} holds a run under other {', '.join(changed)}"
            raise UsageError(cause, "name another --out, or remove that folder")

    def _read(self) -> None:
        path = self.folder / ROWS
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # killed while writing: that question is asked again
            os.truncate(path, whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                row = self._row(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{path}, line {number} is no row", "name another --out") from error
            self.rows[row.id] = row


def digest(paths: Iterable[Path]) -> str:
    """One SHA-256, shortened, over the contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
