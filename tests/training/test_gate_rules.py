"""What counts as a fall, and the report: without any model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import TrainingError
from agentkit.training import gate
from agentkit.training.gate import Basis, GateReport, Part, compare, compare_losses, read_gate, sign_test

BASIS = Basis("a", "smollm2-135m", "", "h", "s", "routing = auto")


def verdicts(right: int, cases: int, lost: int = 0, won: int = 0) -> tuple[dict[str, bool], dict[str, bool]]:
    """A base that is right in some of its cases, and an adapter that loses and wins some."""
    base = {str(n): n < right for n in range(cases)}
    own = dict(base)
    for n in range(lost):
        own[str(n)] = False
    for n in range(won):
        own[str(cases - 1 - n)] = True
    return base, own


def report(*parts: Part, **changes: Any) -> GateReport:
    made = GateReport("shop", BASIS, 60, parts, {"device": "cpu"}, "2026-01-01T00:00:00+00:00", 1.5, "0.1.0")
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (0, 4, 1 / 16),
        (0, 5, 1 / 32),
        (5, 0, 1.0),
        (1, 1, 0.75),
        (2, 10, 79 / 4096),
        (0, 2000, 0.0),
    ],
)
def test_the_sign_test_is_exact(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == pytest.approx(p)


@pytest.mark.parametrize(
    ("cases", "lost", "won", "verdict", "remark"),
    [
        (60, 0, 0, "match", ""),
        (60, 0, 1, "match", ""),
        (60, 3, 5, "match", ""),
        (60, 0, 4, "match", ""),  # p = 1/16
        (60, 0, 5, "better", ""),
        (60, 4, 4, "match", ""),
        (60, 1, 0, "match", ""),  # 1.7 points
        (60, 4, 0, "match", "so few cases cannot prove the fall"),
        (60, 5, 0, "worse", ""),  # p = 1/32
        (60, 8, 2, "match", "so few cases cannot prove the fall"),  # 10 points, p = 0.055
        (60, 12, 5, "worse", "not proven, but over 10% is no match"),  # 11.7 points, p = 0.07
        (60, 30, 0, "worse", ""),
        (1000, 20, 0, "match", ""),  # proven, but within the tolerance
        (1000, 21, 0, "worse", ""),
        (1000, 60, 35, "worse", ""),
        (19, 3, 0, "match", "so few cases cannot prove the fall"),
        (20, 3, 0, "worse", "not proven, but over 10% is no match"),
        (4, 4, 0, "match", "so few cases cannot prove the fall"),
        (5, 5, 0, "worse", ""),
    ],
)
def test_what_counts_as_a_fall(cases: int, lost: int, won: int, verdict: str, remark: str) -> None:
    part = compare("routing", *verdicts(cases - won, cases, lost, won))
    assert (part.verdict, part.remark) == (verdict, remark)
    assert (part.better, part.worse, part.cases) == (won, lost, cases)
    assert part.base == (cases - won) / cases


def test_a_part_tells_by_how_much() -> None:
    part = compare("routing", *verdicts(50, 60, 10, 2), {"chat": [1.0, 0.5]})
    assert part.change == "83.3% → 70.0% (-13.3 points)"
    assert part.evidence == "2 better, 10 worse of 60 cases, p = 0.019"
    assert part.figures == {"chat": [1.0, 0.5]}
    assert compare("routing", {}, {}).verdict == "not run"
    with pytest.raises(ValueError, match="different cases"):
        compare("routing", {"a": True}, {"b": True})


def test_held_out_losses() -> None:
    base = [(20.0 + n, 10) for n in range(12)]
    better = compare_losses("chats", base, [(loss / 2, n) for loss, n in base])
    assert (better.verdict, better.better, better.worse) == ("better", 12, 0)
    assert better.change == "loss 2.550 → 1.275 (-1.275)"
    assert compare_losses("chats", base, base).verdict == "match"
    lower = compare_losses("chats", base, [(base[0][0] - 1e-3, 10), *base[1:]])
    assert (lower.verdict, lower.better, lower.worse) == ("match", 1, 0)  # it proves nothing
    worse = compare_losses("chats", base, [(loss * 1.05, n) for loss, n in base])
    assert (worse.verdict, worse.p) == ("worse", None)
    assert compare_losses("chats", base, [(loss * 1.005, n) for loss, n in base]).verdict == "match"
    # One chat that rose much, and eleven that fell a little.
    mixed = [(base[0][0] + 20, 10), *((loss - 0.5, n) for loss, n in base[1:])]
    total = sum(loss for loss, _ in base)
    assert 0.01 < sum(loss for loss, _ in mixed) / total - 1 < gate.LARGE
    unsure = compare_losses("chats", base, mixed)
    assert (unsure.verdict, unsure.remark) == ("match", "so few chats cannot prove the rise")
    much = [(base[0][0] + 40, 10), *((loss - 0.5, n) for loss, n in base[1:])]
    unsure = compare_losses("chats", base, much)
    assert sum(loss for loss, _ in much) / total - 1 > gate.LARGE
    assert (unsure.verdict, unsure.remark) == ("worse", "not proven, but over 10% is no match")
    few = compare_losses("chats", base[:2], [(base[0][0] + 20, 10), (base[1][0] - 0.5, 10)])
    assert (few.verdict, few.remark) == ("worse", "under 5 chats the figure itself decides")
    assert compare_losses("chats", base, [(float("nan"), 10)] * 12).verdict == "worse"
    assert compare_losses("chats", [(float("inf"), 10)], [(1.0, 10)]).verdict == "not run"
    assert compare_losses("chats", [], []).verdict == "not run"
    with pytest.raises(ValueError, match="different chats"):
        compare_losses("chats", base, base[1:])


def test_what_passes() -> None:
    good, bad = compare("routing", *verdicts(9, 9)), compare("calls", *verdicts(50, 60, 20))
    none = Part("chats", "not run", remark="none were held out")
    broken = Part("answers", "worse", remark="with the adapter it fails: no memory")
    assert report(good, none).passed
    assert report(good, none).failures() == ""
    assert not report(good, bad, broken).passed
    assert report(good, bad, broken).failures() == (
        "calls 83.3% → 50.0% (-33.3 points), 0 better, 20 worse of 60 cases, p = 9.5e-07; "
        "answers failed, with the adapter it fails: no memory"
    )
    assert not report(none).passed
    assert report(none).failures() == "nothing could be compared: chats: none were held out"
    assert not report().passed


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = report(
        compare("routing", *verdicts(50, 60, 10, 2), {"chat": [1.0, None]}),
        compare_losses("c", [(1.0, 2)], [(2, 2)]),
    )
    assert read_gate(tmp_path) is None
    made.write(tmp_path)
    assert read_gate(tmp_path) == made
    assert (tmp_path / gate.FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [gate.FILE]
    body = json.loads((tmp_path / gate.FILE).read_text())
    assert (body["passed"], body["version"], body["agentkit"]) == (False, gate.VERSION, "0.1.0")


@pytest.mark.parametrize("key", list(gate.BASIS))
def test_a_report_no_longer_counts_when_something_has_changed(key: str) -> None:
    made = report()
    assert made.outdated(BASIS, 60) == ""
    assert made.outdated(replace(BASIS, **{key: "other"}), 60) == gate.BASIS[key]
    assert made.outdated(BASIS, 61) == "it looked at 60 cases of a suite, and 61 are needed"


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: None,
        lambda body: [],
        lambda body: {},
        lambda body: {**body, "version": 0},
        lambda body: {**body, "parts": [{}]},
        lambda body: {**body, "parts": 3},
        lambda body: {**body, "parts": [{**body["parts"][0], "verdict": "perfect"}]},
        lambda body: {**body, "parts": [{**body["parts"][0], "base": "high"}]},
        lambda body: {**body, "basis": {}},
        lambda body: {**body, "basis": {**body["basis"], "more": "x"}},
        lambda body: {**body, "basis": {**body["basis"], "adapter": None}},
        lambda body: {**body, "limit": "60"},
        lambda body: {**body, "run": {"device": 1}},
        lambda body: {**body, "name": 1},
    ],
)
def test_a_damaged_report(tmp_path: Path, damage: Callable[[Any], Any]) -> None:
    report(compare("routing", *verdicts(5, 5))).write(tmp_path)
    path = tmp_path / gate.FILE
    path.write_text(json.dumps(damage(json.loads(path.read_text()))), encoding="utf-8")
    with pytest.raises(TrainingError, match="run `agentkit finetune evaluate"):
        read_gate(tmp_path)
    path.write_bytes(b"\xff{")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_gate(tmp_path)
