"""Whether the passages answer the question: a small logistic model over measured evidence.

Two signals do: cross-validated on the tuning questions, adding coverage, margins or mean scores to them
changed nothing. `benchmarks/tune_abstention.py --fit` fits the weights and writes ``abstention.json``.
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
from agentkit.retrieval.words import content_words

if TYPE_CHECKING:
    from agentkit.retrieval.index import Index

PASSAGES = 4
"""Passages that count as evidence."""
EVIDENCE_WORDS = 24


def evidence(query: str, passages: Sequence[Passage], embedder: Embedder, index: Index) -> dict[str, float]:
    """The signals by name; empty without passages.

    ``nearest`` is the best cosine of the question with a passage, a sentence of it, or a title or keyword of
    its document; ``unknown_words`` the share of the question's content words that occur nowhere in the base.
    """
    # The index holds all these vectors already: nothing but the question is embedded here.
    chunks = index.fetch([passage.id for passage in passages[:PASSAGES]]).values()
    if not chunks:
        return {}
    rows = np.concatenate([matrix for chunk in chunks for matrix in (chunk.vectors, chunk.phrase_vectors)])
    wanted = content_words(query)[:EVIDENCE_WORDS]
    unknown = sum(not index.frequency(word) for word in wanted)
    return {
        "nearest": float((rows @ embedder.embed([query])[0]).max()),
        "unknown_words": unknown / max(len(wanted), 1),
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
