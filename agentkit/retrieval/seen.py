"""Digests of files that have not been touched since: unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

_RECENT_NS = 2_000_000_000
"""A file touched this short a time ago may change again without its times changing."""


class Seen:
    """SHA-256 by path, size and times; a file that cannot be read or written costs time and nothing else.

    Args:
        path: Where it is kept between runs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old: dict[str, list[object]] = {}
        self._new: dict[str, list[object]] = {}
        with suppress(OSError, ValueError):
            body = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(body, dict):
                self._old = body

    def digest(self, path: Path) -> str | None:
        """The digest of a file that has not been touched since it was noted; else none."""
        known = self._old.get(str(path))
        with suppress(OSError, ValueError, TypeError):
            if known and known[:-1] == _state(path) and isinstance(known[-1], str):
                self._new[str(path)] = known
                return known[-1]
        return None

    def note(self, path: Path, data: bytes) -> str:
        """The digest of a file's content; remembered unless the file has just been written."""
        digest = hashlib.sha256(data).hexdigest()
        with suppress(OSError):
            state = _state(path)
            if state[0] == len(data) and time.time_ns() - max(state[1], state[2]) > _RECENT_NS:
                self._new[str(path)] = [*state, digest]
        return digest

    def save(self) -> None:
        """Keep what was asked for and noted, readable by its owner only."""
        if self._new == self._old:
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self._new, file)
            os.replace(temporary, self._path)


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
