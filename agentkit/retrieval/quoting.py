"""The sentences of passages that answer a question best."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agentkit.messages import Passage
from agentkit.retrieval.followup import Question
from agentkit.retrieval.numbers import numbers
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.quotes import Sentence, last_heading, passage_quotes
from agentkit.retrieval.words import negations, stems

QUOTE_SHARE = 0.8
"""Of the weight that the joined text of a follow-up has in the search: within a passage the new words decide more."""
OPPOSITE_SHARE = 0.7
"""Of the question's content words, in a sentence that affirms what is asked for in the negative."""
_ASKS_NUMBER = re.compile(
    r"\b(?:how (?:much|many|long|old|big|large|wide|high|heavy|far|often|soon|late|early|quickly|fast)|when|"
    r"what time|costs?|prices?|fees?|charges?|worth|deadline|until|latest|expensive|extra|size|percent)\b",
    re.IGNORECASE,
)
_ASKS_NEGATED = re.compile(
    r"\b(?:what|which|who|whom|where|when|why)\b"
    # "when the parcel is not there" only tells what the question is about
    r"(?:(?!\b(?:if|when|while|once|that|because|since|and|but|or)\b)[^,.;:!?\n])*?"
    r"(?:\b(?:not|never|cannot|no longer)\b|n['’]t\b)",
    re.IGNORECASE,
)
"""Asks for what does not hold: "What is not covered?", "Where can't you deliver?"."""


class Quote(NamedTuple):
    """A sentence of a passage that answers a question."""

    text: str
    passage: Passage
    score: float
    """Cosine with the question: mean of the sentence alone and below its heading."""
    start: int = 0
    """Place in the passage."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What the signals of a candidate count against its cosine; `benchmarks/tune_quotes.py` measures them."""

    rank: float = -0.08
    number: float = 0.06
    words: float = 0.15
    said: float = -0.03
    negated: float = 0.2


WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence and what speaks for it."""

    sentence: Sentence
    passage: Passage
    cosine: float
    """With the question: mean of the sentence alone and below its heading."""
    rank: int
    """Of the passage in the search, from 0."""
    number: bool
    """It has a number, and the question asks for one."""
    words: float
    """Share of the question's content words that it holds, 0 to 1."""
    said: bool
    """The answer before has quoted it: who asks on mostly wants more than that."""
    negated: int
    """Of a question for what does not hold: 1 if the sentence or the heading above it tells that, -1 if it tells nearly
    all that is asked without a negation, which is the opposite; else 0."""

    def score(self, weights: Weights = WEIGHTS) -> float:
        """How well it answers; comparable within one question only."""
        signals = weights.rank * self.rank + weights.number * self.number + weights.words * self.words
        return self.cosine + signals + weights.said * self.said + weights.negated * self.negated


def best_quotes(
    question: Question, passages: Sequence[Passage], embedder: Embedder, limit: int = 2
) -> list[Quote]:
    """The sentences that answer a question best, best first, each complete enough to stand alone.

    Args:
        question: Within its conversation.
        passages: In the order of search.
        limit: Sentences at most; the same words count once.
    """
    found = sorted(candidates(question, passages, embedder), key=lambda candidate: -candidate.score())
    best: dict[str, Quote] = {}
    for each in found:
        text, start, _ = each.sentence
        best.setdefault(text, Quote(text, each.passage, each.cosine, start))
        if len(best) == limit:
            break
    return list(best.values())


def candidates(question: Question, passages: Sequence[Passage], embedder: Embedder) -> list[Candidate]:
    """Every sentence of the passages with its signals, in their order; none where nothing is asked."""
    places = [
        (sentence, passage, rank)
        for rank, passage in enumerate(passages)
        for sentence in passage_quotes(passage)
    ]
    if not places or not question.text.strip():
        return []
    headed = [f"{last_heading(passage)}: {sentence.text}" for sentence, passage, _ in places]
    share = QUOTE_SHARE * question.weight
    asked = embedder.embed([question.text, question.joined]).T @ [1 - share, share]
    vectors = embedder.embed([*(sentence.text for sentence, *_ in places), *headed])
    alone, below_heading = np.split(vectors @ asked, 2)
    asks_number = _ASKS_NUMBER.search(question.text) is not None
    asks_negated = _ASKS_NEGATED.search(question.text) is not None
    wanted = stems(question.text) or stems(question.joined)
    shares = [len(wanted & stems(text)) / max(len(wanted), 1) for text in headed]
    return [
        Candidate(
            sentence,
            passage,
            cosine,
            rank,
            number=asks_number and bool(numbers(sentence.text)),
            words=share,
            said=sentence.text in question.said,
            negated=_negated(text, share) if asks_negated else 0,
        )
        for (sentence, passage, rank), text, share, cosine in zip(
            places, headed, shares, ((alone + below_heading) / 2).tolist(), strict=True
        )
    ]


def _negated(text: str, share: float) -> int:
    """`Candidate.negated` of a sentence below its heading that holds a share of the question's words."""
    if negations(text):
        return 1
    return -1 if share >= OPPOSITE_SHARE else 0
