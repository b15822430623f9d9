"""Whether the passages answer the question: a small logistic model over measured evidence.

The top cosine alone accepts near misses (a question on the shop's own subject that no document answers).
`benchmarks/tune_abstention.py` fits the weights on the tuning questions and writes ``abstention.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from agentkit.errors import KnowledgeError
from agentkit.messages import Passage
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.words import content_words, stem, stems

if TYPE_CHECKING:
    from agentkit.retrieval.index import Index

PASSAGES = 4
"""Passages that count as evidence."""
EVIDENCE_WORDS = 24


def evidence(query: str, passages: Sequence[Passage], embedder: Embedder, index: Index) -> dict[str, float]:
    """The signals by name; every one is about 0 to 1."""
    best = sorted(passages, key=lambda passage: -passage.score)[:PASSAGES]
    if not best:
        return {}
    vector = embedder.embed([query])[0]
    # The index holds a vector of every sentence already: nothing but the question is embedded here.
    rows = [chunk.vectors[1:] for chunk in index.fetch([p.id for p in best]).values()]
    similar = np.sort(np.concatenate([*rows, np.zeros((1, len(vector)), np.float32)]) @ vector)[::-1]
    wanted = content_words(query)[:EVIDENCE_WORDS]
    chunks = max(index.counts()[1], 1)
    frequency = {word: index.frequency(word) for word in wanted}
    weight = {word: math.log((chunks + 1) / (frequency[word] + 0.5)) for word in wanted}
    total = sum(weight.values()) or 1.0
    found = [stems(f"{p.heading} {p.text}") for p in best]
    together = set().union(*found)
    return {
        "passage_cosine": best[0].score,
        "sentence_cosine": float(similar[0]),
        "second_sentence_cosine": float(similar[min(1, len(similar) - 1)]),
        "margin": best[0].score - float(np.mean([p.score for p in best])),
        "coverage": max(sum(weight[w] for w in wanted if stem(w) in own) for own in found) / total,
        "coverage_together": sum(weight[w] for w in wanted if stem(w) in together) / total,
        "unknown_words": sum(not frequency[w] for w in wanted) / max(len(wanted), 1),
    }


@dataclass(frozen=True, slots=True)
class Abstention:
    """A logistic model: sigmoid of the weighted, standardised signals."""

    weights: dict[str, float]
    """Per unit of the raw signal, standardisation already folded in."""
    bias: float
    threshold: float
    """Probability under which a question counts as unanswerable."""

    def probability(self, query: str, passages: Sequence[Passage], embedder: Embedder, index: Index) -> float:
        """Probability, 0 to 1, that the passages answer the question; 0 without passages."""
        signals = evidence(query, passages, embedder, index)
        return self.score(signals) if signals else 0.0

    def score(self, signals: dict[str, float]) -> float:
        """The model over signals that have been measured already."""
        total = self.bias + sum(weight * signals[name] for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))


@cache
def load_abstention() -> Abstention:
    """The fitted model that ships with the package.

    Raises:
        KnowledgeError: The file is missing or damaged.
    """
    try:
        body = json.loads(
            resources.files("agentkit.retrieval").joinpath("abstention.json").read_text("utf-8")
        )
        return Abstention(dict(body["weights"]), float(body["bias"]), float(body["threshold"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KnowledgeError(
            "agentkit/retrieval/abstention.json cannot be read", "install agentkit again"
        ) from error
