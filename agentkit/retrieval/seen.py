"""What is known of files that have not been touched since: they are not read, and not parsed in vain, again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from agentkit.__about__ import __version__

_RECENT_NS = 2_000_000_000
"""A file touched this short a time ago may change again without its times changing."""
_STATE, _DIGEST = 4, 5
"""An entry begins with this many numbers of `state`, then come the digest and, where the file cannot be read,
reason and version of agentkit."""


class Seen:
    """SHA-256 by path, size and times, and why a file of this content cannot be read.

    A file that cannot be read or written costs time and nothing else.

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
                self._old = {key: entry for key, entry in body.items() if _is_entry(entry)}

    def digest(self, path: Path) -> str | None:
        """The digest of a file that has not been touched since it was noted; else none."""
        known = self._old.get(str(path))
        if known is None or known[:_STATE] != state(path):
            return None
        self._new[str(path)] = known
        return str(known[_STATE])

    def note(self, path: Path, data: bytes, before: list[int]) -> str:
        """The digest of a file's content; remembered unless the file has just been written.

        Args:
            path: The file.
            data: What was read.
            before: Its `state` before it was read; a file that has changed meanwhile is not remembered.
        """
        digest = hashlib.sha256(data).hexdigest()
        after = state(path)
        whole = bool(after) and before == after and after[0] == len(data)
        if whole and time.time_ns() - max(after[1], after[2]) > _RECENT_NS:
            self._new[str(path)] = [*after, digest]
        return digest

    def fail(self, path: Path, digest: str, reason: str) -> None:
        """Remember why content of this digest cannot be read; another agentkit may be able to.

        With an empty digest only until the file is touched: what it holds need not be the reason.
        """
        noted = self._new.get(str(path), [0] * _STATE)
        self._new[str(path)] = [*noted[:_STATE], digest, reason, __version__]

    def failure(self, path: Path, digest: str = "") -> str:
        """Why a file could not be read when this agentkit last tried; empty where it could, or has been changed.

        Args:
            path: The file.
            digest: Of its content, where that has been read; else size and times tell whether it is the same.
        """
        known = self._old.get(str(path), [])
        if len(known) <= _DIGEST or known[-1] != __version__:
            return ""
        if known[_STATE] != digest if digest else known[:_STATE] != state(path):
            return ""
        reason = str(known[_DIGEST])
        if digest:
            self.fail(path, digest, reason)
        else:
            self._new[str(path)] = known
        return reason

    def save(self) -> None:
        """Keep what was asked for and noted, readable by its owner only."""
        if self._new == self._old:
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self._new, file)
            os.replace(temporary, self._path)


def state(path: Path) -> list[int]:
    """What changes with a file's content: size, times, inode; empty for a file that cannot be asked."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _is_entry(entry: object) -> bool:
    """The file may have been written by another version, or by anything."""
    if not isinstance(entry, list) or len(entry) not in (_DIGEST, _DIGEST + 2):
        return False
    return all(isinstance(part, str) for part in entry[_STATE:])
