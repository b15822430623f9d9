"""Vectors as pgvector sends and receives them: two big-endian int16 (dimension, 0), then float32 big-endian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentkit.retrieval.records import Vectors

_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"


def copy_rows(ids: Sequence[int], matrices: Sequence[Vectors]) -> bytes:
    """Rows (id, number within the matrix, vector) in the format of ``COPY … (FORMAT BINARY)``.

    Args:
        ids: Whose vectors they are; the type of the column is bigint.
        matrices: Of shape (n, dimension), one for each id.
    """
    dimension = matrices[0].shape[1]
    row = np.dtype(
        [
            ("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i8"), ("n_bytes", ">i4"), ("n", ">i2"),
            ("vector_bytes", ">i4"), ("dimension", ">i2"), ("unused", ">i2"), ("vector", ">f4", (dimension,)),
        ]
    )  # fmt: skip
    counts = [len(matrix) for matrix in matrices]
    rows = np.zeros(sum(counts), row)
    rows["fields"], rows["id_bytes"], rows["n_bytes"] = 3, 8, 2
    rows["vector_bytes"], rows["dimension"] = 4 + 4 * dimension, dimension
    rows["id"] = np.repeat(np.array(ids, np.int64), counts)
    rows["n"] = np.concatenate([np.arange(count) for count in counts])
    rows["vector"] = np.concatenate(matrices)
    return _COPY_HEADER + rows.tobytes() + _COPY_END


def read_vectors(data: bytes | None, dimension: int) -> Vectors:
    """The matrix (n, dimension) of vectors sent one after the other.

    Raises:
        ValueError: They are of another dimension.
    """
    row = np.dtype([("dimension", ">i2"), ("unused", ">i2"), ("vector", ">f4", (dimension,))])
    if not data:
        return np.zeros((0, dimension), np.float32)
    if len(data) % row.itemsize or int.from_bytes(data[:2], "big") != dimension:
        raise ValueError(f"vectors are not of dimension {dimension}")
    return np.frombuffer(data, row)["vector"].astype(np.float32)


def vector_text(vector: Vectors) -> str:
    """One vector, shape (dimension,), as pgvector reads it from text; float32 survives unchanged."""
    return f"[{','.join(map(repr, vector.astype(np.float32).tolist()))}]"
