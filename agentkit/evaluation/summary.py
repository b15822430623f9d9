"""Rows to figures: retrieval, answers, abstention and latency, each share with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from agentkit.evaluation.grounded import Claim
from agentkit.evaluation.metrics import (
    Share,
    hit,
    ndcg,
    percentile,
    precision,
    recall,
    reciprocal_rank,
    share,
)
from agentkit.evaluation.questions import KINDS
from agentkit.evaluation.rag import RANKED
from agentkit.evaluation.rows import Row

HITS = (1, 3, 5)
PERCENTS = (50, 95, 99)

Ranking = Callable[[Row], Sequence[str]]


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Every figure as plain JSON values; shares as ``{"value", "low", "high", "count"}``.

    ``agent`` is the whole, ``dense`` the search by cosine alone, ``model`` the model without knowledge. A question
    whose turn failed has no right answer of the agent, and is in no other figure.
    """
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    asked = [row for row in rows if not row.failed]
    return {
        "questions": len(rows),
        "failed": len(rows) - len(asked),
        "retrieval": {"agent": ranked(asked, _full), "dense": ranked(asked, _dense)},
        "answers": {
            "agent": {"groundedness": grounded(asked, _agent_claims), "right": _right(rows, "right")},
            "model": {"groundedness": grounded(asked, _model_claims), "right": _right(asked, "model_right")},
        },
        "abstention": abstention(asked),
        "kinds": {kind: _kind([row for row in rows if row.kind == kind]) for kind in kinds},
        "latency_s": {
            part: {
                f"p{percent}": percentile([getattr(row, f"{part}_s") for row in asked], percent)
                for percent in PERCENTS
            }
            for part in ("search", "turn")
        },
    }


def ranked(rows: Sequence[Row], ranking: Ranking) -> dict[str, Any]:
    """hit@k, MRR and nDCG@10 over the answerable questions, by document."""
    asked = [row for row in rows if row.is_answerable]
    hits = {f"hit@{k}": share([hit(ranking(row), row.documents, k) for row in asked]) for k in HITS}
    mrr = share([reciprocal_rank(ranking(row), row.documents) for row in asked])
    gain = share([ndcg(ranking(row), row.documents, RANKED) for row in asked])
    return {name: asdict(value) for name, value in {**hits, "mrr": mrr, f"ndcg@{RANKED}": gain}.items()}


def grounded(rows: Sequence[Row], claims_of: Callable[[Row], Sequence[Claim]]) -> dict[str, Any]:
    """Share of the claims that are supported."""
    counts = [(sum(claim.grounded for claim in claims_of(row)), len(claims_of(row))) for row in rows]
    return asdict(share([good for good, _ in counts], [total for _, total in counts]))


def abstention(rows: Sequence[Row]) -> dict[str, Any]:
    """Precision and recall of abstaining, unanswerable questions being the positive class."""
    abstained, unanswerable = [row.abstained for row in rows], [not row.is_answerable for row in rows]
    found = {"precision": precision(abstained, unanswerable), "recall": recall(abstained, unanswerable)}
    for name, near in (("recall_near_misses", True), ("recall_others", False)):
        own = [not row.is_answerable and row.near_miss == near for row in rows]
        found[name] = recall(abstained, own)
    return {name: asdict(value) for name, value in found.items()}


def curve(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """(threshold, precision, recall) of abstaining below each score of `Row.answerable` that occurs."""
    unanswerable = [not row.is_answerable for row in rows]
    total = sum(unanswerable)
    points = []
    for threshold in sorted({row.answerable for row in rows}):
        below = [row.answerable <= threshold for row in rows]
        caught = sum(b and u for b, u in zip(below, unanswerable, strict=True))
        points.append((threshold, caught / sum(below), caught / total if total else 0.0))
    return points


def misses(rows: Sequence[Row]) -> list[Row]:
    """Rows with anything wrong: a turn that failed, answer, abstention, a claim without support, no right document
    among three."""
    return [
        row
        for row in rows
        if not row.right
        or any(not claim.grounded for claim in _agent_claims(row))
        or (row.is_answerable and not hit(row.ranking, row.documents, 3))
    ]


def _kind(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of one kind of question; hit@3 has no value where nothing is answerable."""
    asked = [row for row in rows if not row.failed]
    hits = [hit(row.ranking, row.documents, 3) for row in asked if row.is_answerable]
    dense = [hit(row.dense, row.documents, 3) for row in asked if row.is_answerable]
    shares: dict[str, Share] = {
        "hit@3": share(hits),
        "dense_hit@3": share(dense),
        "right": share([float(row.right) for row in rows]),
        "abstained": share([float(row.abstained) for row in asked]),
    }
    found = {name: asdict(value) for name, value in shares.items()}
    return {"questions": len(rows), **found, "groundedness": grounded(asked, _agent_claims)}


def _right(rows: Sequence[Row], key: str) -> dict[str, Any]:
    return asdict(share([float(getattr(row, key)) for row in rows if row.is_answerable]))


def _full(row: Row) -> Sequence[str]:
    return row.ranking


def _dense(row: Row) -> Sequence[str]:
    return row.dense


def _agent_claims(row: Row) -> Sequence[Claim]:
    """An abstention claims nothing about the shop."""
    return () if row.abstained else row.claims


def _model_claims(row: Row) -> Sequence[Claim]:
    return row.model_claims
