"""Vectors as SQLite keeps them: rows of float16, which halves the file.

A unit vector's component is off by at most 2**-12 of itself then, a cosine by less than 0.0003 and by 0.00001 as a
rule: far less than what separates neighbours.
"""

from __future__ import annotations

import numpy as np

from agentkit.errors import IndexDamaged
from agentkit.retrieval.records import Vectors

BYTES = 2
"""Of one number."""


def to_blob(vectors: Vectors) -> bytes:
    """Rows (n, dimension) as bytes."""
    return np.ascontiguousarray(vectors, np.float16).tobytes()


def from_blob(blob: bytes, dimension: int) -> Vectors:
    """Rows (n, dimension), float32.

    Raises:
        KnowledgeError: They have another length.
    """
    if not blob or len(blob) % (BYTES * dimension):
        raise IndexDamaged("the index has vectors of another length", "run `agentkit knowledge rebuild`")
    return np.frombuffer(blob, np.float16).reshape(-1, dimension).astype(np.float32)
