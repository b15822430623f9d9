"""More vectors than there is text for: real ones, spread along the directions in which their neighbours lie.

A constructed vector is a real one, x, plus ``spread`` times a normal combination of the differences to its 32
nearest real neighbours, at unit length. Real text has its own law of crowding: with every doubling of a collection the
cosine of the tenth neighbour grows by about as much. That line is fitted on parts of the real vectors, and ``spread``
is chosen such that constructed vectors lie on its continuation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

NEIGHBOURS = 32
RANK = 10
"""The neighbour whose cosine is matched."""
_BATCH = 20_000
_PROBES = 500


@dataclass(frozen=True, slots=True)
class Crowding:
    """Median cosine of the tenth neighbour, by the number of vectors."""

    intercept: float
    slope: float
    """Per doubling."""

    def at(self, count: int) -> float:
        return self.intercept + self.slope * float(np.log2(count))


class Constructor:
    """Makes vectors that crowd as the real ones would.

    Args:
        real: Unit vectors (n, dimension), float32.
    """

    def __init__(self, real: Any) -> None:
        self.real = real
        self.crowding = _crowding(real)
        self.spread = 0.0

    def calibrate(self, count: int) -> float:
        """Choose the spread for ``count`` vectors, at an eighth of the size; returns what is reached there."""
        part = np.random.default_rng(1).permutation(len(self.real))[: len(self.real) // 8]
        small = Constructor.__new__(Constructor)
        small.real, small.crowding = self.real[part], self.crowding
        goal = self.crowding.at(count // 8)
        low, high = 0.0, 4.0
        for _ in range(8):
            small.spread = (low + high) / 2
            made = np.concatenate(list(small.batches(count // 8, seed=2)))
            reached = _tenth(made)
            low, high = (small.spread, high) if reached > goal else (low, small.spread)
        self.spread = small.spread
        return reached

    def batches(self, count: int, seed: int = 0) -> Iterator[Any]:
        """``count`` vectors, float32, in batches; the first of them are the real ones."""
        numbers = np.random.default_rng(seed)
        neighbours = _neighbours(self.real, NEIGHBOURS)
        yield self.real[:count]
        for start in range(len(self.real), count, _BATCH):
            own = numbers.integers(0, len(self.real), min(_BATCH, count - start))
            weights = numbers.standard_normal((len(own), NEIGHBOURS), np.float32) / float(np.sqrt(NEIGHBOURS))
            base = self.real[own]
            made = base * (1 - self.spread * weights.sum(axis=1, keepdims=True))
            for rank in range(NEIGHBOURS):
                made += self.spread * weights[:, rank : rank + 1] * self.real[neighbours[own, rank]]
            yield made / np.linalg.norm(made, axis=1, keepdims=True)


def exact(vectors: Any, queries: Any, count: int) -> tuple[Any, Any]:
    """Cosines and positions of the nearest, by FAISS's flat search."""
    import faiss

    scores, found = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, found


def _neighbours(vectors: Any, count: int) -> Any:
    return exact(vectors, vectors, count + 1)[1][:, 1:]


def _tenth(vectors: Any) -> float:
    """Median cosine of the tenth neighbour, over a sample."""
    probes = vectors[np.random.default_rng(3).permutation(len(vectors))[:_PROBES]]
    return float(np.median(exact(vectors, probes, RANK + 1)[0][:, RANK]))


def _crowding(real: Any) -> Crowding:
    mixed = real[np.random.default_rng(4).permutation(len(real))]
    sizes = [len(real) // share for share in (16, 8, 4, 2, 1)]
    slope, intercept = np.polyfit(np.log2(sizes), [_tenth(mixed[:size]) for size in sizes], 1)
    return Crowding(float(intercept), float(slope))
