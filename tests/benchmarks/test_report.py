"""docs/benchmarks.md: each section tells where its figures come from, and none says more than its file holds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import finetuning
import machine
import pytest
import report

SECTIONS = (
    report.speed, report.adapters, report.drafts, report.sessions, report.quality, report.tool_loop, report.bfcl,
    report.arguments, report.finetuning, report.shipped, report.perplexity, report.search, report.index,
    report.ingest, report.rag, report.routing,
)  # fmt: skip


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the report find other results in a file, those of the documentation but for some keys."""
    load = report.load

    def change(name: str, **keys: Any) -> None:
        body = {**load(name), **keys}
        monkeypatch.setattr(report, "load", lambda other: body if other == name else load(other))

    return change


def test_the_page_is_what_the_results_say() -> None:
    written = (report.DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert written == report.page(), "run `python benchmarks/report.py`"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_names_the_commit_and_the_day(section: Callable[[], str]) -> None:
    text = section()
    assert text.startswith("## ")
    assert "Reproduce: `python benchmarks/" in text
    assert "; measured: commit " in text


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, "measured: commit not recorded, day not recorded."),
        ({"commit": ""}, "measured: commit not recorded, day not recorded."),
        ({"commit": "1f2e"}, "measured: commit 1f2e, day not recorded."),
        ({"commit": "1f2e", "date": "2026-11-28"}, "measured: commit 1f2e, 2026-11-28."),
    ],
)
def test_what_is_not_recorded_is_said(found: dict[str, str], told: str) -> None:
    assert report.reproduce({"machine": found}, "x.py") == f"Reproduce: `python benchmarks/x.py`; {told}"


def test_a_result_holds_commit_and_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    machine.write("x.json", {"figure": 1})
    body = json.loads((tmp_path / "x.json").read_text())
    assert body["figure"] == 1
    assert len(body["machine"]["date"]) == len("2026-11-28")
    assert "commit" in body["machine"]


def test_a_commit_tells_whether_its_code_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y.z", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == ""
    (tmp_path / "agentkit").mkdir()
    (tmp_path / "agentkit" / "a.py").write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "--short", "HEAD")
    (tmp_path / "result.json").write_text("{}")
    assert machine.commit() == head
    (tmp_path / "agentkit" / "a.py").write_text("2")
    assert machine.commit() == f"{head} with changes"


def test_the_day_does_not_part_two_sets_of_traces(tmp_path: Path) -> None:
    path = tmp_path / "finetuning.json"
    shared = {"machine": {"threads": 2, "date": "2026-11-27"}, "traces": {"shared": 1}}
    own = {"machine": {"threads": 2, "date": "2026-11-28"}, "traces": {"own": 2}}
    path.write_text(json.dumps(shared))
    assert finetuning.beside_others(own, path) == {**own, "traces": {"shared": 1, "own": 2}}


def test_shares_have_wilson_s_intervals() -> None:
    assert report.interval({"value": 1.0, "low": 1.0, "high": 1.0, "count": 10}) == "100.0% (72% to 100%)"
    assert report.interval({"value": 0.0, "low": 0.0, "high": 0.0, "count": 10}) == "0.0% (0% to 28%)"


def test_questions_are_told_by_half(changed: Callable[..., None]) -> None:
    half = {
        "lacking": 22,
        "asked": 20,
        "asked_for_exactly_those": 19,
        "complete": 108,
        "asked_without_cause": 1,
    }
    changed("arguments.json", questions={"tuning": {**half, "asked": 21}, "reporting": half})
    told = report.arguments()
    assert "Of 22 turns of the reporting half that lack a required argument 20 are asked about" in told
    assert "Of 22 turns of the tuning half that lack a required argument 21 are asked about" in told
    changed("arguments.json", questions=half)
    assert "Of 22 turns of both halves" in report.arguments()


def test_twins_are_told_of_until_weights_are_fitted_without(changed: Callable[..., None]) -> None:
    changed("rag.json", abstention_fitted_on=None)
    assert "69 of the questions had a twin" in report.rag()
    changed("rag.json", abstention_fitted_on=381, dense_asked="as the agent understands it")
    assert "Abstention was fitted on 381 others, none of which asks the same." in report.rag()
    assert "understood from the conversation" in report.rag()
    assert "of which there are 23:" in report.rag()


def test_what_a_routing_file_says_of_itself_is_no_row(changed: Callable[..., None]) -> None:
    changed("routing.json", machine={"commit": "1f2e", "date": "2026-11-28"}, abstention_fitted_on=381)
    told = report.routing()
    assert "measured: commit 1f2e, 2026-11-28." in told
    assert "| machine |" not in told
    assert "| abstention_fitted_on |" not in told


def test_memory_after_the_questions_is_told_where_it_was_measured(changed: Callable[..., None]) -> None:
    files = report.load("index.json")
    grown = {"resident_after_bytes": 10**9}
    million, search = ({**files[name], **grown} for name in ("search_million", "search_chunks"))
    changed("index.json", search_million=million, search_chunks=search)
    assert "after all of them 1000 MB" in report.index()
    assert "Memory is what the process grows by, all queries included" in report.index()


def test_llama_cpp_s_instructions_are_told(changed: Callable[..., None]) -> None:
    changed("speed.json", llama_features=["SSE3", "AVX512", "AVX512_VNNI", "AVX512_BF16"])
    assert "built from source with AVX512, AVX512_VNNI, AVX512_BF16; with AMX" in report.speed()


def test_a_clock_from_outside_is_told(changed: Callable[..., None]) -> None:
    changed("tool_loop.json", timed="from outside")
    assert "Both are timed from outside" in report.tool_loop()
