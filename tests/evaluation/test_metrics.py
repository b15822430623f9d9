"""Every figure against one worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from agentkit.evaluation.metrics import hit, ndcg, percentile, precision, recall, reciprocal_rank, share
from agentkit.evaluation.rows import Row
from agentkit.evaluation.summary import abstention, curve, misses, summarize

RANKING = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("relevant", "k", "expected"), [("b", 1, 0), ("b", 2, 1), ("xd", 3, 0), ("xd", 4, 1)]
)
def test_hit(relevant: str, k: int, expected: float) -> None:
    assert hit(RANKING, set(relevant), k) == expected


@pytest.mark.parametrize(("relevant", "expected"), [("a", 1), ("c", 1 / 3), ("db", 1 / 2), ("x", 0)])
def test_reciprocal_rank(relevant: str, expected: float) -> None:
    assert reciprocal_rank(RANKING, set(relevant)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("relevant", "k", "expected"),
    [
        ("a", 10, 1.0),
        ("b", 10, 1 / math.log2(3)),
        ("ac", 10, (1 + 0.5) / (1 + 1 / math.log2(3))),
        ("ac", 2, 1 / (1 + 1 / math.log2(3))),
        ("x", 10, 0.0),
        ("dx", 3, 0.0),
        ("ax", 1, 1.0),  # the best possible ranking of one name holds one of the two
    ],
)
def test_ndcg(relevant: str, k: int, expected: float) -> None:
    assert ndcg(RANKING, set(relevant), k) == pytest.approx(expected)


def test_ndcg_needs_something_relevant() -> None:
    with pytest.raises(ValueError, match="relevant"):
        ndcg(RANKING, set(), 10)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 2.5), (95, 3.85), (100, 4)])
def test_percentile(percent: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == pytest.approx(expected)


def test_precision_and_recall() -> None:
    predicted = [True, True, True, False, False]
    actual = [True, True, False, True, False]
    assert precision(predicted, actual).value == pytest.approx(2 / 3)
    assert recall(predicted, actual).value == pytest.approx(2 / 3)
    assert precision([True, True], [True, False]).value == 0.5
    assert recall([True, True], [True, False]).value == 1


def test_a_share_of_nothing_has_no_value() -> None:
    assert precision([False, False], [True, False]).value is None
    assert share([]).value is None
    assert share([0, 0], [0, 0]).count == 0


def test_a_share_sums_before_it_divides() -> None:
    # 1 of 1 and 1 of 3: 2 of 4 sentences, not the mean of 1 and 1/3.
    found = share([1, 1, 0], [1, 3, 0])
    assert found.value == 0.5
    assert found.count == 2


def test_intervals() -> None:
    found = share([1.0] * 80 + [0.0] * 20)
    # (80 + 1.92 ± 1.96 · sqrt(80 · 20 / 100 + 0.96)) / (100 + 3.84)
    assert (found.value, found.count) == (0.8, 100)
    assert (found.low, found.high) == (pytest.approx(0.7112, abs=1e-4), pytest.approx(0.8666, abs=1e-4))


def test_an_interval_has_width_where_all_are_right_or_none() -> None:
    sure, never = share([1.0] * 10), share([0.0] * 10)
    assert (sure.low, sure.high) == (pytest.approx(0.7225, abs=1e-4), 1.0)  # 1 / (1 + 3.84 / 10)
    assert (never.low, never.high) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert precision([True] * 10 + [False], [True] * 10 + [True]) == sure
    grounded, nothing = share([2.0, 1.0] * 5, [2.0, 1.0] * 5), share([0.0, 0.0] * 5, [2.0, 1.0] * 5)
    assert (grounded.value, grounded.low, grounded.high) == (1.0, sure.low, 1.0)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, never.high)


def test_what_is_no_plain_share_is_resampled() -> None:
    means = [1.0] * 80 + [0.5] * 20
    found = share(means)
    assert found == share(means)
    assert found.value == 0.9
    # The normal approximation gives 0.9 ± 1.96 · sqrt(0.04 / 100) = 0.861 to 0.939.
    assert found.low == pytest.approx(0.861, abs=0.01)
    assert found.high == pytest.approx(0.939, abs=0.01)
    sentences = share([2.0, 0.0] * 40, [2.0, 2.0] * 40)
    assert (sentences.value, sentences.count) == (0.5, 80)
    assert share([1.0, -1.0]).low == pytest.approx(-1.0)  # differences are no shares


def test_a_summary(row: Callable[..., Row]) -> None:
    rows = [
        row(id="1"),
        row(id="2", ranking=("care.txt", "x", "orders/returns.md"), right=False, turn_s=0.4),
        row(id="3", kind="follow_up", abstained=True, right=False, claims=()),
        row(id="4", kind="unanswerable", near_miss=True, right=False),
        row(id="5", kind="unanswerable", abstained=True, right=True, claims=()),
    ]
    found = summarize(rows)
    assert found["questions"] == 5
    agent, dense = found["retrieval"]["agent"], found["retrieval"]["dense"]
    assert agent["hit@1"]["value"] == pytest.approx(2 / 3)
    assert agent["hit@3"]["value"] == 1
    assert agent["mrr"]["value"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert agent["ndcg@10"]["value"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert dense["hit@1"]["value"] == 0
    assert dense["mrr"]["value"] == 0.5
    assert found["answers"]["agent"]["right"]["value"] == pytest.approx(1 / 3)
    assert found["answers"]["agent"]["groundedness"]["value"] == 1
    assert found["answers"]["model"]["groundedness"]["value"] == 0
    assert found["abstention"]["precision"]["value"] == 0.5
    assert found["abstention"]["recall"]["value"] == 0.5
    assert found["abstention"]["recall_near_misses"]["value"] == 0
    assert found["abstention"]["recall_others"]["value"] == 1
    assert list(found["kinds"]) == ["plain", "follow_up", "unanswerable"]
    assert found["kinds"]["unanswerable"]["hit@3"]["value"] is None
    assert found["kinds"]["unanswerable"]["right"]["value"] == 0.5
    assert found["latency_s"]["turn"]["p50"] == 0.2
    assert [miss.id for miss in misses(rows)] == ["2", "3", "4"]


def test_an_abstention_claims_nothing(row: Callable[..., Row]) -> None:
    claims = (row().claims[0].__class__("I do not know that.", False),)
    rows = [row(kind="unanswerable", abstained=True, right=True, claims=claims)]
    assert summarize(rows)["answers"]["agent"]["groundedness"]["value"] is None
    assert misses(rows) == []


def test_abstention_over_the_threshold(row: Callable[..., Row]) -> None:
    rows = [
        row(answerable=0.9),
        row(answerable=0.2),
        row(answerable=0.1, kind="unanswerable"),
        row(answerable=0.5, kind="unanswerable"),
    ]
    assert curve(rows) == [
        (0.1, 1.0, 0.5),
        (0.2, 0.5, 0.5),
        (0.5, pytest.approx(2 / 3), 1.0),
        (0.9, 0.5, 1.0),
    ]
    assert abstention(rows)["recall"]["value"] == 0
