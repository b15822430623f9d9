"""Vectors of texts that stay the same from run to run, kept on disk.

A router compares every turn with hundreds of phrases; embedding them takes a second, reading their vectors a
millisecond.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval.protocol import Embedder
from agentkit.settings import private_dir

MOST_BYTES = 64 << 20
"""Of all files together; beyond it those that were not read for longest go. The starter's phrases take one and a half
MB."""
_ABANDONED = 3600.0
"""Seconds after which a file that was never finished belongs to a process that is gone."""


def kept_vectors(embedder: Embedder, texts: Sequence[str], folder: Path) -> NDArray[np.float32]:
    """The embedder's vectors of texts, from ``folder`` where they are there.

    Returns:
        Shape (len(texts), dimension), as `Embedder.embed` makes them.
    """
    named = json.dumps([embedder.name, *texts]).encode()
    path = folder / f"{hashlib.sha256(named).hexdigest()[:32]}.vectors"
    # A file that is absent or damaged is made anew, and a folder that cannot be written costs time, not results.
    with contextlib.suppress(OSError):
        vectors = _read(path, (len(texts), embedder.dimension))
        if vectors is not None:
            os.utime(path)
            return vectors
    vectors = embedder.embed(texts)
    with contextlib.suppress(OSError):
        _keep(path, vectors)
    return vectors


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The vectors of a file: a SHA-256 of their bytes, then those; none if they are not what was written."""
    found = path.read_bytes()
    size = hashlib.sha256().digest_size
    kept = memoryview(found)[size:]
    if hashlib.sha256(kept).digest() != found[:size] or len(kept) != shape[0] * shape[1] * 4:
        return None
    return np.frombuffer(kept, np.float32).reshape(shape)


def _keep(path: Path, vectors: NDArray[np.float32]) -> None:
    for folder in (path.parent.parent, path.parent):  # a project's data may not be there yet
        private_dir(folder)
    kept = np.ascontiguousarray(vectors, np.float32).tobytes()
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            file.write(hashlib.sha256(kept).digest() + kept)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Remove what was not read for longest, and what a killed process has left."""
    total, now = 0, time.time()
    files = [(file.stat(), file) for file in folder.iterdir() if file.suffix in (".vectors", ".part")]
    for state, file in sorted(files, key=lambda pair: pair[0].st_mtime, reverse=True):
        if file.suffix == ".part":
            if now - state.st_mtime > _ABANDONED:
                file.unlink(missing_ok=True)
            continue
        total += state.st_size
        if total > MOST_BYTES:
            file.unlink(missing_ok=True)
