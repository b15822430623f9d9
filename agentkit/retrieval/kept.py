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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval.protocol import Embedder

_MOST = 40
"""Files that are kept; beyond it the one that was not read for longest goes."""


def kept_vectors(embedder: Embedder, texts: Sequence[str], folder: Path) -> NDArray[np.float32]:
    """The embedder's vectors of texts, from ``folder`` where they are there.

    Returns:
        Shape (len(texts), dimension), as `Embedder.embed` makes them.
    """
    named = json.dumps([embedder.name, *texts]).encode()
    path = folder / f"{hashlib.sha256(named).hexdigest()[:32]}.npy"
    # A file that is absent, cut short or of another shape is made anew, and a folder that cannot be written costs time,
    # not results.
    with contextlib.suppress(OSError, ValueError, EOFError):
        vectors = np.load(path)
        if vectors.shape == (len(texts), embedder.dimension) and vectors.dtype == np.float32:
            with contextlib.suppress(OSError):
                os.utime(path)
            return np.asarray(vectors, np.float32)
    vectors = embedder.embed(texts)
    with contextlib.suppress(OSError):
        _keep(path, vectors)
    return vectors


def _keep(path: Path, vectors: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.save(file, vectors)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    files = sorted(path.parent.glob("*.npy"), key=lambda file: file.stat().st_mtime)
    for old in files[:-_MOST]:
        old.unlink(missing_ok=True)
