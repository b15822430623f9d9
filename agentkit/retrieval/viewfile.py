"""The file of a vector view: a line with its origin and checksum, then what FAISS wrote."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = "agentkit-faiss-2"
_HEADER = 192
"""Bytes of the first line, filled up with spaces: the checksum is known only when the rest is written."""
_BLOCK = 1 << 20


class StaleView(Exception):
    """The file is missing, damaged or of another database; the message says which."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What state of which database a view shows."""

    database: str
    generation: int
    """Last change of the journal that it contains."""
    trained: int
    """Vectors there were when its lists were trained; 0 where it has one list."""
    size: int
    """Vectors that it holds."""


def read_origin(path: Path) -> Origin:
    """The origin that a file claims; its content is not checked.

    Raises:
        StaleView: It is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            return _parse(file)[0]
    except OSError as error:
        raise _unreadable(error) from error


def read_view(path: Path) -> tuple[Any, Origin]:
    """A FAISS index and its origin; FAISS reads no byte before the checksum of all of them is right.

    Raises:
        StaleView: The file is missing or damaged.
    """
    import faiss

    try:
        with path.open("rb") as file:
            origin, checksum = _parse(file)
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
            if _checksum(origin, digest.digest()) != checksum:
                raise StaleView("is damaged")
            file.seek(_HEADER)
            return faiss.read_index(faiss.PyCallbackIOReader(file.read)), origin
    except OSError as error:
        raise _unreadable(error) from error
    except RuntimeError as error:  # whole, but written by another version of FAISS
        raise StaleView("cannot be read by this version of FAISS") from error


def write_view(path: Path, index: Any, origin: Origin) -> None:
    """Replace the file at once: a reader sees the old view or the new one, whole.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    import faiss

    _remove_leftovers(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(b" " * _HEADER)
            body = _Hashed(file)
            faiss.write_index(index, faiss.PyCallbackIOWriter(body.write, _BLOCK))
            file.seek(0)
            line = f"{_line(origin)} {_checksum(origin, body.digest.digest())}"
            file.write(line.ljust(_HEADER - 1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


class _Hashed:
    """Writes to a file and hashes what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, block: bytes) -> int:
        self.digest.update(block)
        return self._file.write(block)


def _parse(file: BinaryIO) -> tuple[Origin, str]:
    parts = file.read(_HEADER).decode("ascii", "replace").split()
    try:
        magic, database, generation, trained, size, checksum = parts
        origin = Origin(database, int(generation), int(trained), int(size))
    except ValueError as error:
        raise StaleView("is damaged") from error
    if magic != _MAGIC:
        raise StaleView("is of another version")
    return origin, checksum


def _line(origin: Origin) -> str:
    return f"{_MAGIC} {origin.database} {origin.generation} {origin.trained} {origin.size}"


def _checksum(origin: Origin, body: bytes) -> str:
    return hashlib.sha256(_line(origin).encode() + body).hexdigest()


def _unreadable(error: OSError) -> StaleView:
    return StaleView("is missing" if isinstance(error, FileNotFoundError) else "cannot be read")


def _remove_leftovers(path: Path) -> None:
    """What processes left behind that were stopped while they wrote."""
    import psutil

    for file in path.parent.glob(f"{path.name}.*.tmp"):
        owner = file.name.removeprefix(f"{path.name}.").removesuffix(".tmp")
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            with suppress(OSError):
                file.unlink()


def _sync_folder(folder: Path) -> None:
    """The rename itself must last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
