"""The FAISS view of the vectors in SQLite: one file, checked before FAISS reads a byte of it."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"agentkit-faiss-1"


class StaleView(Exception):
    """The file is missing, damaged or of another generation; the message says which."""


class VectorView:
    """Inner-product search over unit vectors, by chunk id.

    Args:
        stamp: Identifies the state of the database these vectors come from.
    """

    def __init__(self, index: Any, stamp: str) -> None:
        self._index = index
        self.stamp = stamp

    @classmethod
    def build(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32], stamp: str) -> VectorView:
        """A view of ``vectors`` (n, dimension), n may be 0."""
        import faiss

        index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        index.add_with_ids(vectors, ids)
        return cls(index, stamp)

    @classmethod
    def load(cls, path: Path, stamp: str) -> VectorView:
        """Read the file `save` wrote.

        Raises:
            StaleView: It is missing, damaged, or does not carry ``stamp``.
        """
        import faiss

        try:
            header, _, body = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise StaleView(
                "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
            ) from error
        parts = header.split(b" ")
        if len(parts) != 3 or parts[0] != _MAGIC or parts[2] != _digest(parts[1], body):
            raise StaleView("is damaged")
        if parts[1] != stamp.encode():
            raise StaleView("is out of date")
        return cls(faiss.deserialize_index(np.frombuffer(body, np.uint8)), stamp)

    def save(self, path: Path) -> None:
        """Replace the file at once: a reader sees the old view or the new one, whole."""
        import faiss

        body = faiss.serialize_index(self._index).tobytes()
        stamp = self.stamp.encode()
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(b" ".join((_MAGIC, stamp, _digest(stamp, body))) + b"\n")
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()

    def search(self, vector: NDArray[np.float32], limit: int) -> list[tuple[int, float]]:
        """(chunk id, cosine) of the nearest chunks, best first; ``vector`` has shape (dimension,)."""
        if not (limit := min(limit, int(self._index.ntotal))):
            return []
        scores, ids = self._index.search(vector.reshape(1, -1), limit)
        return [(int(i), float(score)) for i, score in zip(ids[0], scores[0], strict=True) if i >= 0]

    @property
    def size(self) -> int:
        """Number of vectors."""
        return int(self._index.ntotal)


def _digest(stamp: bytes, body: bytes) -> bytes:
    return hashlib.sha256(stamp + b"\n" + body).hexdigest().encode()
