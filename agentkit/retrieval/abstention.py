"""Whether the passages answer the question: a small logistic model over measured evidence.

Nearness alone accepts near misses: "Do you train AI on my chats?" lies as close to "chats are deleted after 12
months" as a question that the sentence answers. What tells them apart, measured in docs/decisions/abstention.md, is
whether the question adds anything to the sentences it is held against, and which words of it they leave out.
`benchmarks/tune_abstention.py --fit` fits the weights and writes ``abstention.json``.

A model with an adapter for it can judge whether a passage *states* what is asked (`llm.reading`). With such a reader
its judgements, of passages and of single sentences, are two more signals, and the weights are others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from agentkit.errors import KnowledgeError
from agentkit.messages import Passage
from agentkit.retrieval.protocol import Embedder, Index, Reader
from agentkit.retrieval.records import StoredChunk, Vectors
from agentkit.retrieval.sentences import sentences
from agentkit.retrieval.words import content_words, stem, stems, words

PASSAGES = 4
"""Passages that count as evidence."""
JOINED = 2
"""Sentences that the question is joined to; each costs an embedding."""
READ = 2
"""Passages that a reader is shown, and sentences; each costs a forward pass over it and the question."""
SUREST = 12.0
"""Log-odds of a reader beyond which more say nothing new."""
EVIDENCE_WORDS = 24
EVIDENCE_CHARACTERS = 400
"""Of a sentence and of the question, where they are joined: more would cost more than it tells."""

_FORMS = {
    "asks_who": re.compile(r"\bwho(se)?\b|\bwhich (company|bank|brand|carrier|courier)|\bname\b"),
    "asks_count": re.compile(r"\bhow (many|big|large|heavy|deep|wide|tall|high|thick)\b"),
    "asks_what": re.compile(r"^(what|which)\b"),
    "asks_time": re.compile(r"\bhow (long|soon|fast|quick)|\buntil when\b"),
    "asks_about_you": re.compile(r"\byour?\b"),
}
"""English forms of question. A help centre tells periods more often than names, sizes or counts, and more of what
happens to a customer's order than of the shop itself."""


def evidence(
    query: str,
    passages: Sequence[Passage],
    embedder: Embedder,
    index: Index,
    reader: Reader | None = None,
) -> dict[str, float]:
    """The signals by name; empty without passages.

    A passage put together from several chunks counts with all of them. ``nearest`` is the best cosine of the
    question with a passage, a sentence of it, or a title or keyword of its document; ``joined`` how little
    the nearest sentences change when the question is added to them; ``unknown_words`` the share of the
    question's content words that occur nowhere in the base; ``coverage`` the share, weighted by rarity, that
    the best passage holds; ``length`` the logarithm of the number of words, as long questions lie farther
    from every sentence; ``stated`` the reader's log-odds for the best of `READ` passages and ``stated_alone`` for the
    better of that one's `READ` nearest sentences without the others, only with a reader; the rest are `_FORMS`.
    """
    found = _chunks_of(passages[:PASSAGES], index)
    if not found:
        return {}
    groups = [group for _, group in found]
    chunks = [chunk for group in groups for chunk in group]
    vector = embedder.embed([query])[0]
    rows = np.concatenate([matrix for chunk in chunks for matrix in (chunk.vectors, chunk.phrase_vectors)])
    return {
        "nearest": float((rows @ vector).max()),
        "joined": _joined(query, vector, chunks, embedder),
        **_word_signals(query, groups, index),
        "length": math.log(1 + len(words(query))),
        **{name: float(form.search(query.lower()) is not None) for name, form in _FORMS.items()},
        **(_stated(query, vector, found[:READ], reader) if reader else {}),
    }


Found = tuple[Passage, list[StoredChunk]]
"""A passage and the chunks it is made of."""


def _chunks_of(passages: Sequence[Passage], index: Index) -> list[Found]:
    """Every passage with its chunks; what has left the index meanwhile is left out."""
    wanted = [passage.chunks or (passage.id,) for passage in passages]
    known = index.fetch([id_ for ids in wanted for id_ in ids])
    groups = [[known[id_] for id_ in ids if id_ in known] for ids in wanted]
    return [(passage, group) for passage, group in zip(passages, groups, strict=True) if group]


def _stated(query: str, vector: Vectors, found: Sequence[Found], reader: Reader) -> dict[str, float]:
    """``stated`` and ``stated_alone``."""
    asked = query[:EVIDENCE_CHARACTERS]
    read = [reader.supported(asked, passage) for passage, _ in found]
    passage, chunks = found[read.index(max(read))]
    nearest = [sentence for _, sentence, _ in _nearest(vector, chunks)[:READ]]
    alone = [reader.supported(asked, replace(passage, text=sentence)) for sentence in nearest]
    told = {"stated": max(read), "stated_alone": max(alone, default=-SUREST)}
    return {name: max(-SUREST, min(SUREST, odds)) for name, odds in told.items()}


def _nearest(vector: Vectors, chunks: Sequence[StoredChunk]) -> list[tuple[float, str, Vectors]]:
    """The sentences of chunks, nearest first: cosine, text and vector."""
    found = [
        (float(row @ vector), sentence, row)
        for chunk in chunks
        for sentence, row in zip(sentences(chunk.text), chunk.vectors[1:], strict=False)
    ]
    return sorted(found, key=lambda item: -item[0])


def _joined(query: str, vector: Vectors, chunks: Sequence[StoredChunk], embedder: Embedder) -> float:
    """Best cosine of a sentence with itself followed by the question; 1 if the question adds nothing.

    The encoder reads both together, so this is what a bi-encoder has of a cross-encoder.
    """
    nearest = _nearest(vector, chunks)[:JOINED]
    if not nearest:
        return 0.0
    tail = query[:EVIDENCE_CHARACTERS]
    together = embedder.embed([f"{sentence[:EVIDENCE_CHARACTERS]} {tail}" for _, sentence, _ in nearest])
    return float((together * np.stack([row for *_, row in nearest])).sum(1).max())


def _word_signals(query: str, groups: Sequence[Sequence[StoredChunk]], index: Index) -> dict[str, float]:
    """``unknown_words`` and ``coverage``."""
    wanted = content_words(query)[:EVIDENCE_WORDS]
    if not wanted:
        return {"unknown_words": 0.0, "coverage": 0.0}
    total = index.counts()[1]
    counts = [index.frequency(word) for word in wanted]
    rarity = [math.log((total + 1) / (count + 0.5)) for count in counts]
    held = [
        stems(" ".join(f"{chunk.heading} {chunk.text} {chunk.keywords}" for chunk in group))
        for group in groups
    ]
    shares = [
        sum(weight for word, weight in zip(wanted, rarity, strict=True) if stem(word) in own) for own in held
    ]
    unknown = sum(not count for count in counts) / len(wanted)
    return {"unknown_words": unknown, "coverage": max(shares) / sum(rarity)}


@dataclass(frozen=True, slots=True)
class Abstention:
    """A logistic model: sigmoid of the weighted, standardised signals."""

    weights: dict[str, float]
    """Per unit of the raw signal, standardisation already folded in."""
    bias: float
    threshold: float
    """Probability under which a question counts as unanswerable."""
    vectors: str = ""
    """`Embedder.name` of the one whose vectors it was fitted over."""

    def probability(
        self,
        query: str,
        passages: Sequence[Passage],
        embedder: Embedder,
        index: Index,
        reader: Reader | None = None,
    ) -> float:
        """Probability, 0 to 1, that the passages answer the question; 0 without passages."""
        signals = evidence(query, passages, embedder, index, reader)
        return self.score(signals) if signals else 0.0

    def score(self, signals: dict[str, float]) -> float:
        """The model over signals that have been measured already."""
        total = self.bias + sum(weight * signals[name] for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))


@cache
def load_abstention(embedder: str, reader: str = "") -> Abstention:
    """The fitted model that ships with the package.

    Args:
        embedder: `Embedder.name` of the one that makes the vectors. Cosines are of each encoder's own scale; one that
            nothing was fitted over gets what was fitted over the first, as `Abstention.vectors` tells.
        reader: `Reader.name` of the one whose judgement it takes too; empty for none.

    Raises:
        KnowledgeError: The file is missing or damaged, or nothing has been fitted for this reader.
    """
    try:
        body = json.loads(
            resources.files("agentkit.retrieval").joinpath("abstention.json").read_text("utf-8")
        )
        fits = list(body["fits"].values())
        fit = next((fit for fit in fits if fit["vectors"] == embedder), fits[0])
        if reader and reader not in fit.get("readings", {}):
            cause = f"agentkit/retrieval/abstention.json has no weights for {reader!r} as a reader"
            raise KnowledgeError(cause, "fit them: benchmarks/tune_abstention.py --fit")
        fitted = fit["readings"][reader] if reader else fit
        threshold = float(body["threshold"])
        return Abstention(dict(fitted["weights"]), float(fitted["bias"]), threshold, fit["vectors"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise KnowledgeError(
            "agentkit/retrieval/abstention.json cannot be read", "install agentkit again"
        ) from error
