"""A question to passages: two searches, fused, then ranked by what each chunk says sentence by sentence.

The dense search finds what means the same, the lexical one what is called the same. Reciprocal rank fusion (Cormack,
Clarke and Büttcher, SIGIR 2009) joins their lists without comparing their scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agentkit.messages import Passage
from agentkit.retrieval.followup import Question
from agentkit.retrieval.protocol import Embedder, Index, Reranker, Where
from agentkit.retrieval.records import StoredChunk, Vectors
from agentkit.retrieval.words import content_words, negations

CANDIDATES = 24
"""Chunks that each of the two searches offers for ranking."""
RRF_CONSTANT = 60
"""Of reciprocal rank fusion; the paper's value."""
FUSION_WEIGHT = 2.0
CITED_WEIGHT = 0.25
PHRASE_WEIGHT = 0.4
LEXICAL_WEIGHT = 0.015
"""Of one unit of BM25 (scores reach 20) against a cosine; the weights were chosen on the tuning questions. Fusion
alone finds the right document in the first place for 160 of 208 of them, all together for 176."""
QUERY_WORDS = 64
"""Words of a question that take part in lexical search."""
RERANKED = 16
"""Candidates that a reranker reads unless it names another number: each costs a pass of its model."""
SAME_COSINE, SAME_WORDS = 0.98, 0.9
"""From which cosine, and from which share of common words, two chunks count as the same text."""
MERGED_CHARACTERS = 4_000
"""Of a passage put together from neighbours at most."""
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk and how well it fits."""

    chunk: StoredChunk
    relevance: float
    """Comparable within one search only."""
    cosine: float
    """Of question and chunk, -1 to 1."""


def find(
    question: Question,
    limit: int,
    index: Index,
    embedder: Embedder,
    *,
    where: Where | None = None,
    reranker: Reranker | None = None,
) -> list[Passage]:
    """The best passages, best first: copies of a text once, pieces of one section together.

    Args:
        question: Not empty.
        limit: Passages at most.
        where: Only chunks with these properties.
        reranker: Reads question and candidate together, and has the last word about their order.
    """
    wanted = max(CANDIDATES, 2 * limit)
    hits = ranked(question.text, wanted, index, embedder, where)
    if question.weight:
        hits = mixed(question, hits, ranked(question.joined, wanted, index, embedder, where), embedder)
    hits = distinct(hits)
    if reranker is not None and hits:
        hits = reranked(question.standalone, hits, reranker)
    return merged(hits, limit, index)


def ranked(text: str, wanted: int, index: Index, embedder: Embedder, where: Where | None = None) -> list[Hit]:
    """Candidates of both searches for a text, best first."""
    vector = embedder.embed([text])[0]
    lexical = index.matching(content_words(text)[:QUERY_WORDS], wanted, where)
    dense = index.nearest(vector, wanted, where)
    fused = reciprocal_ranks([dense, list(lexical)])
    hits = [
        Hit(
            chunk,
            _relevance(chunk, vector, lexical.get(id_, 0.0)) + FUSION_WEIGHT * fused[id_],
            float(chunk.vectors[0] @ vector),
        )
        for id_, chunk in index.fetch(list(fused)).items()
    ]
    return sorted(hits, key=lambda hit: -hit.relevance)


def mixed(question: Question, hits: Sequence[Hit], joined: Sequence[Hit], embedder: Embedder) -> list[Hit]:
    """The hits of a question and of its joined text in one order; who asks on mostly stays with a document."""
    vector = embedder.embed([question.standalone])[0]
    weight, bonus = question.weight, CITED_WEIGHT * question.weight
    floors = [min((hit.relevance for hit in found), default=0.0) for found in (hits, joined)]
    own, whole = ({hit.chunk.id: hit for hit in found} for found in (hits, joined))
    result = []
    for id_, hit in {**own, **whole}.items():
        relevance = (1 - weight) * (own[id_].relevance if id_ in own else floors[0])
        relevance += weight * (whole[id_].relevance if id_ in whole else floors[1])
        relevance += bonus * (hit.chunk.document in question.documents)
        result.append(Hit(hit.chunk, relevance, float(hit.chunk.vectors[0] @ vector)))
    return sorted(result, key=lambda hit: -hit.relevance)


def reciprocal_ranks(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """Sum of 1 / (k + rank) over the rankings, ranks from 1."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            fused[item] = fused.get(item, 0.0) + 1.0 / (RRF_CONSTANT + rank)
    return fused


def _relevance(chunk: StoredChunk, vector: Vectors, bm25: float) -> float:
    """Mean cosine of section and best sentence or own keyword, the document's nearest title or keyword, and BM25."""
    rows = chunk.vectors @ vector
    passage = (rows[0] + rows[1:].max(initial=-1.0)) / 2
    phrase = (chunk.phrase_vectors @ vector).max()
    return float(passage + PHRASE_WEIGHT * phrase) + LEXICAL_WEIGHT * bm25


def reranked(query: str, hits: Sequence[Hit], reranker: Reranker) -> list[Hit]:
    """The first ones in the order of the reranker, then the others."""
    depth = getattr(reranker, "depth", RERANKED)
    first = hits[:depth]
    scores = reranker.scores(query, [f"{hit.chunk.heading}\n{hit.chunk.text}" for hit in first])
    order = np.argsort(-scores, kind="stable")
    return [*(first[int(n)] for n in order), *hits[depth:]]


def distinct(hits: Sequence[Hit]) -> list[Hit]:
    """Without chunks that say what a better one says word for word, or nearly so."""
    if not hits:
        return []
    vectors = np.stack([hit.chunk.vectors[0] for hit in hits])
    near = vectors @ vectors.T >= SAME_COSINE
    kept: list[int] = []
    for n, hit in enumerate(hits):
        if not any(near[n, m] and _same(hit.chunk.text, hits[m].chunk.text) for m in kept):
            kept.append(n)
    return [hits[n] for n in kept]


def _same(one: str, other: str) -> bool:
    # Another number, the same in another order, or a "not" more is another fact, however near the vectors are.
    if _NUMBER.findall(one) != _NUMBER.findall(other) or negations(one) != negations(other):
        return False
    first, second = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(first & second) >= SAME_WORDS * len(first | second)


def merged(hits: Sequence[Hit], limit: int, index: Index) -> list[Passage]:
    """The first ``limit`` passages; neighbours of one section become one, at the place of the best."""
    groups: list[list[Hit]] = []
    for hit in hits:
        near = [group for group in groups if _continues(group, hit.chunk, index)]
        if not near:
            if len(groups) < limit:
                groups.append([hit])
            continue
        near[0].append(hit)
        for group in near[1:]:  # it stands between two
            if _length([*near[0], *group]) <= MERGED_CHARACTERS:
                near[0] += group
                groups.remove(group)
    return [_passage(group, index) for group in groups]


def _continues(group: Sequence[Hit], chunk: StoredChunk, index: Index) -> bool:
    """Whether a chunk stands right before or after the group, in the same section and not in one of the same name."""
    first = group[0].chunk
    if (first.document, first.heading) != (chunk.document, chunk.heading):
        return False
    if _length([*group, Hit(chunk, 0.0, 0.0)]) > MERGED_CHARACTERS:
        return False
    return any(_touch(hit.chunk, chunk, index) for hit in group)


def _touch(one: StoredChunk, other: StoredChunk, index: Index) -> bool:
    """Whether only space lies between two chunks of a document: no heading, though it may be of the same words."""
    first, second = sorted((one, other), key=lambda chunk: chunk.position)
    if second.position - first.position != 1:
        return False
    return not index.text(first.document, first.end, max(first.end, second.start)).strip()


def _length(group: Sequence[Hit]) -> int:
    return max(hit.chunk.end for hit in group) - min(hit.chunk.start for hit in group)


def _passage(group: Sequence[Hit], index: Index) -> Passage:
    """One chunk, or several with what stands between them; of a document that has changed meanwhile the best alone."""
    best, chunks = group[0], sorted((hit.chunk for hit in group), key=lambda chunk: chunk.position)
    c = best.chunk
    if len(chunks) > 1:
        start, end = chunks[0].start, chunks[-1].end
        text = index.text(c.document, start, end)
        if _holds(text, chunks):
            pages = tuple((chunk.start, chunk.page) for chunk in chunks if chunk.page is not None)
            page, ids = chunks[0].page, tuple(chunk.id for chunk in chunks)
            return Passage(c.id, c.document, c.heading, text, best.cosine, page, start, end, pages, ids)
    return Passage(c.id, c.document, c.heading, c.text, best.cosine, c.page, c.start, c.end)


def _holds(text: str, chunks: Sequence[StoredChunk]) -> bool:
    """Whether the text is these chunks with nothing but space between them."""
    stop = 0
    for chunk in chunks:
        start = chunk.start - chunks[0].start
        if text[stop:start].strip() or text[start : start + len(chunk.text)] != chunk.text:
            return False
        stop = start + len(chunk.text)
    return stop == len(text)
