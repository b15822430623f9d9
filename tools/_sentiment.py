"""Sentiment from sentence embeddings: labelled sentences, a small word list, and a regression over both.

Embeddings alone place "works" beside "does not work". The word list counts praise and complaint with
their negations, and a regression, fitted on the sentences below at first use, weighs both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from ._sentiment_data import BAD, BAD_PHRASES, GOOD, GOOD_PHRASES, NEGATIONS, SENTENCES, STRONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

LABELS = ("positive", "negative", "neutral")

STEPS, RATE, DECAY = 400, 0.3, 0.005
"""Gradient steps, their length, and the penalty on large weights; chosen by cross-validation."""
VECTOR_WEIGHT, WORD_WEIGHT = 5.0, 1.0
"""How much the 384 components of the vector count beside the three word scores."""
_REACH = 4
"""Words after a negation that it turns round, unless the clause ends before."""
_WORD = re.compile(r"[a-z]+|[.,;!?]|\bbut\b")


class Embedder(Protocol):
    """Texts to unit vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


def word_scores(text: str) -> tuple[float, float]:
    """Weights of praise and of complaint in a text; a negated word counts for the other side."""
    good = bad = 0.0
    negated, strong = 0, 1.0
    plain = re.sub(r"['’]", "", text.lower())
    for pattern in (GOOD_PHRASES, BAD_PHRASES):
        count = len(pattern.findall(plain))
        good, bad = (good + count, bad) if pattern is GOOD_PHRASES else (good, bad + count)
        plain = pattern.sub(",", plain)
    for word in _WORD.findall(plain):
        if word in NEGATIONS:
            negated = _REACH
        elif word in ".,;!?" or word == "but":
            negated, strong = 0, 1.0
        elif word in STRONG:
            strong = 1.5
        else:
            praise, complaint = word in GOOD, word in BAD
            if praise or complaint:
                # "not bad" is praise, though a weak one
                side = praise != (negated > 0)
                weight = strong * (0.7 if negated else 1.0)
                good, bad = (good + weight, bad) if side else (good, bad + weight)
            negated, strong = max(negated - 1, 0), 1.0
    return good, bad


class Sentiment:
    """Multinomial logistic regression on embeddings and word scores.

    Args:
        embedder: Gives the vectors.
    """

    def __init__(self, embedder: Embedder) -> None:
        import numpy as np

        self._embedder = embedder
        texts = [text for label in LABELS for text in SENTENCES[label]]
        targets = np.repeat(np.eye(len(LABELS)), [len(SENTENCES[label]) for label in LABELS], axis=0)
        features = self._features(texts)
        weights = np.zeros((features.shape[1], len(LABELS)))
        for _ in range(STEPS):
            gradient = features.T @ (_softmax(features @ weights) - targets) / len(texts)
            weights -= RATE * (gradient + DECAY * weights)
        self._weights = weights

    def scores(self, text: str) -> dict[str, float]:
        """The probability of each label."""
        row = _softmax(self._features([text]) @ self._weights)[0]
        return {label: float(score) for label, score in zip(LABELS, row, strict=True)}

    def _features(self, texts: list[str]) -> NDArray[np.float64]:
        import numpy as np

        words = np.array([word_scores(text) for text in texts])
        # the third word and more say little new; the difference of both sides says most
        squashed = np.tanh(np.column_stack([words, words[:, 0] - words[:, 1]])) * WORD_WEIGHT
        ones = np.ones((len(texts), 1))
        return np.hstack([self._embedder.embed(texts) * VECTOR_WEIGHT, squashed, ones])


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
