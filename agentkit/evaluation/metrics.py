"""Measures of ranking, classification and latency, and intervals for all that are shares.

A ranking is a list of names, best first, each once; ``relevant`` are the names that answer the question.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959964
"""Standard normal quantile of 0.975."""
RESAMPLES = 2_000
"""Bootstrap samples: the ends of a 95 % interval then rest on 50 samples each."""


@dataclass(frozen=True, slots=True)
class Share:
    """A sum of numerators over a sum of denominators, with its interval."""

    value: float | None
    """``None`` where the denominators are all 0: a precision without a single positive."""
    low: float | None
    """Ends of the 95 % interval."""
    high: float | None
    count: int
    """Questions with a denominator above 0."""


def hit(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """hit@k: 1 where one of the first ``k`` names is relevant, else 0; also called success@k."""
    return float(any(name in relevant for name in ranking[:k]))


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 / rank of the first relevant name, 0 without one; its mean is MRR (Voorhees, TREC-8, 1999)."""
    return next((1 / rank for rank, name in enumerate(ranking, 1) if name in relevant), 0.0)


def ndcg(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """nDCG@k with binary gains: DCG = Σ gain(i) / log2(i + 1) over ranks 1 to k, divided by that of the best
    possible ranking (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002).

    Raises:
        ValueError: Nothing is relevant, so there is no best ranking.
    """
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(set(relevant)), k) + 1))
    if not ideal:
        raise ValueError("nDCG needs a relevant name and k of 1 or more")
    gains = (1 / math.log2(rank + 1) for rank, name in enumerate(ranking[:k], 1) if name in relevant)
    return sum(gains) / ideal


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile by linear interpolation between order statistics (Hyndman and Fan 1996, type 7).

    Args:
        values: At least one.
        percent: 0 to 100.
    """
    return float(np.percentile(values, percent))


def share(numerators: Sequence[float], denominators: Sequence[float] | None = None, seed: int = 0) -> Share:
    """Σ numerators / Σ denominators with its 95 % interval.

    Every share of this package has this form. A mean has denominators of 1 (the default); a precision has one where
    the prediction is positive, a recall where the label is; groundedness counts the sentences of each answer, so
    that the interval knows that sentences of one answer are not independent.

    Where each question counts once or not at all, and is right or wrong, the interval is `wilson`'s: resampled, ten
    right ones of ten would have no width. Elsewhere it is a percentile bootstrap (Efron 1979), questions resampled;
    where every one of them has all or none, `wilson`'s over the questions, for the same reason.

    Args:
        numerators: One for each question.
        denominators: One for each question, none negative.
        seed: Of resampling; the same input gives the same interval.
    """
    above = np.asarray(numerators, float)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, float)
    count = int((below > 0).sum())
    if not count:
        return Share(None, None, None, 0)
    if ((above == 0) | (above == below)).all() and ((below == 0) | (below == 1)).all():
        low, high = wilson(float(above.sum()), count)
        return Share(float(above.sum() / count), low, high, count)
    drawn = np.random.default_rng(seed).integers(0, len(above), (RESAMPLES, len(above)))
    totals = below[drawn].sum(1)
    # A sample in which the share has no value says nothing of it.
    ratios = above[drawn].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    if low == high and low in (0.0, 1.0):  # nothing to be resampled: all of them alike
        low, high = wilson(float(low * count), count)
    return Share(float(above.sum() / below.sum()), float(low), float(high), count)


def wilson(right: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of ``right`` in ``count`` (Wilson, JASA 22(158), 1927)."""
    centre = (right + Z**2 / 2) / (count + Z**2)
    half = Z / (count + Z**2) * math.sqrt(right * (count - right) / count + Z**2 / 4)
    found = right / count  # which rounding must not leave outside
    return max(0.0, min(centre - half, found)), min(1.0, max(centre + half, found))


def precision(predicted: Sequence[bool], actual: Sequence[bool]) -> Share:
    """Of those predicted positive, the share that is: TP / (TP + FP)."""
    both = [float(p and a) for p, a in zip(predicted, actual, strict=True)]
    return share(both, [float(p) for p in predicted])


def recall(predicted: Sequence[bool], actual: Sequence[bool]) -> Share:
    """Of those that are positive, the share predicted so: TP / (TP + FN)."""
    both = [float(p and a) for p, a in zip(predicted, actual, strict=True)]
    return share(both, [float(a) for a in actual])
