"""Inner-product search over the vectors of all chunks: exact in one list, approximate in many past a size.

FAISS's inverted file serves both. With a single list it compares every vector, like a flat index; unlike that it finds
an id through a hash table, so removing costs what is removed and not a pass over everything, and a removed vector
leaves no tombstone. Vectors are float16 in one list, as in the database, and 8 bit in many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval.records import Vectors

ROWS = 1024
"""Upper bound of vectors per chunk; a FAISS id is ``chunk * ROWS + row``."""
LISTS_FROM = 50_000
"""Vectors from which many lists are used: a query over one list takes 1.3 ms there."""
RECALL = 0.96
"""Share of the ten nearest to be found, of vectors of its own, when ``nprobe`` is chosen."""
SAMPLE = 32
"""Vectors per list that the lists are trained on."""
QUERIES = 256
"""Vectors that are searched for when ``nprobe`` is chosen."""
_NEAREST = 10
_WIDEN = 0.5
"""Exponent: what fits lies further away, but not so much further as there are fewer."""
_MANY = 1_000
"""Vectors from which adding them gains from several threads; a few wait for their threads longer than it takes."""

Batch = tuple[NDArray[np.int64], Vectors]
"""FAISS ids and as many unit vectors."""


class VectorView:
    """Vectors by chunk, searched by cosine.

    Args:
        index: A FAISS inverted file with a hash table of its ids.
        trained: Vectors there were when its lists were trained; 0 for a single list.
    """

    def __init__(self, index: Any, trained: int = 0) -> None:
        self.index = index
        self.trained = trained

    @classmethod
    def exact(cls, dimension: int) -> VectorView:
        """An empty view that compares every vector."""
        import faiss

        center = faiss.IndexFlatIP(dimension)
        center.add(np.zeros((1, dimension), np.float32))
        index = faiss.IndexIVFScalarQuantizer(
            center, dimension, 1, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        index.is_trained = True  # a single center, and a format that has no parameters
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return cls(index)

    @classmethod
    def approximate(cls, sample: Vectors, size: int) -> VectorView:
        """An empty view for ``size`` vectors, its lists trained on ``sample``; see `fill`."""
        import faiss

        dimension = sample.shape[1]
        lists = lists_for(size)
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dimension),
            dimension,
            lists,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,  # residuals would not be told apart better, and cost more to add
        )
        index.cp.spherical = True
        index.cp.niter = 8
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = SAMPLE
        index.train(sample)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return cls(index, size)

    @property
    def size(self) -> int:
        """Number of vectors."""
        return int(self.index.ntotal)

    @property
    def worn(self) -> bool:
        """Whether its lists are too many or too few for what it holds by now."""
        if not self.trained:
            return self.size >= LISTS_FROM
        return self.size > 2 * self.trained or 4 * self.size < self.trained

    def add(self, ids: NDArray[np.int64], vectors: Vectors) -> None:
        """Add unit vectors (n, dimension) under ids that it does not hold."""
        if len(ids):
            with _threads(None if len(ids) >= _MANY else 1):
                self.index.add_with_ids(np.ascontiguousarray(vectors), np.ascontiguousarray(ids))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove vectors; ids that it does not hold are ignored."""
        import faiss

        if len(ids):
            self.index.remove_ids(faiss.IDSelectorArray(len(ids), faiss.swig_ptr(ids)))

    def get(self, id_: int) -> Vectors | None:
        """The vector of an id, as it was stored; ``None`` where there is none."""
        try:
            vector: Vectors = self.index.reconstruct(id_)
        except RuntimeError:
            return None
        return vector

    def search(
        self, vector: Vectors, limit: int, selector: Any = None, share: float = 1.0
    ) -> list[tuple[int, float]]:
        """(FAISS id, cosine) of the nearest vectors, best first; ``vector`` has shape (dimension,).

        Args:
            selector: A FAISS selector of ids.
            share: Of all vectors that the selector lets through; the smaller, the more lists are searched.
        """
        import faiss

        if not (limit := min(limit, self.size)):
            return []
        parameters = None
        if selector is not None:
            probes = min(self.index.nlist, int(np.ceil(self.index.nprobe * max(share, 1e-6) ** -_WIDEN)))
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        with _threads(1):
            scores, ids = self.index.search(vector.reshape(1, -1), limit, params=parameters)
        return [(int(i), float(score)) for i, score in zip(ids[0], scores[0], strict=True) if i >= 0]

    def fill(self, batches: Iterable[Batch], queries: Vectors) -> None:
        """Add everything; then choose the lists to look into such that `RECALL` of the nearest are found."""
        best = np.full((len(queries), _NEAREST), -np.inf, np.float32)
        best_ids = np.full((len(queries), _NEAREST), -1, np.int64)
        for ids, vectors in batches:
            self.add(ids, vectors)
            if self.trained:
                best, best_ids = _merge(best, best_ids, queries @ vectors.T, ids)
        if self.trained:
            self._tune(queries, best_ids)

    def _tune(self, queries: Vectors, nearest: NDArray[np.int64]) -> None:
        """Counts what is among four times as many: 8 bits may swap neighbours, which more lists would not mend."""
        self.index.nprobe = 4
        while self.index.nprobe < self.index.nlist:
            _, found = self.index.search(queries, 4 * _NEAREST)
            hits = sum(len({*a} & {*b}) for a, b in zip(found.tolist(), nearest.tolist(), strict=True))
            if hits >= RECALL * nearest.size:
                return
            self.index.nprobe = min(self.index.nlist, int(1.25 * self.index.nprobe) + 1)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """OpenMP threads of what FAISS does for this thread; ``None`` leaves them as they are."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def lists_for(size: int) -> int:
    """Lists for so many vectors: at 600,000, twice as many as 2 √n found as much in half the time."""
    return int(4 * np.sqrt(size))


def row_ids(chunks: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The FAISS ids of all rows of some chunks, in order."""
    starts = np.repeat(np.cumsum(rows) - rows, rows)
    within: NDArray[np.int64] = np.arange(len(starts), dtype=np.int64) - starts
    return np.repeat(chunks * ROWS, rows) + within


def selector_of(ids: NDArray[np.int64]) -> Any:
    """A FAISS selector that lets these ids through."""
    import faiss

    return faiss.IDSelectorBatch(ids)


def _merge(
    best: Vectors, best_ids: NDArray[np.int64], scores: Vectors, ids: NDArray[np.int64]
) -> tuple[Vectors, NDArray[np.int64]]:
    """The nearest of those known so far and of another batch."""
    if len(ids) > _NEAREST:
        top = np.argpartition(-scores, _NEAREST, axis=1)[:, :_NEAREST]
        scores, batch_ids = np.take_along_axis(scores, top, axis=1), ids[top]
    else:
        batch_ids = np.broadcast_to(ids, scores.shape)
    scores, all_ids = np.concatenate([best, scores], axis=1), np.concatenate([best_ids, batch_ids], axis=1)
    top = np.argsort(-scores, axis=1)[:, :_NEAREST]
    return np.take_along_axis(scores, top, axis=1), np.take_along_axis(all_ids, top, axis=1)
