"""`agentkit eval rag`, end to end on the embedded models over a small project."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agentkit.cli.main import run
from agentkit.project import starter_root
from agentkit.settings import data_dir
from agentkit.store import SessionStore

HISTORY = [
    {"role": "user", "content": "Can linen go into the machine?"},
    {"role": "assistant", "content": "Yes, wash linen with a mild detergent."},
]
QUESTIONS: list[dict[str, Any]] = [
    {"question": "How long can I return an item?", "documents": ["orders/returns.md"], "facts": ["30 days"]},
    {"question": "Who won the football cup?", "kind": "unanswerable"},
    {
        "question": "At how many degrees should linen be washed?",
        "kind": "follow_up",
        "documents": ["care.txt"],
        "facts": ["40"],
        "history": HISTORY,
    },
]
DEFAULTS = {"kind": "plain", "documents": [], "facts": [], "history": [], "split": "report"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two documents, the starter's prompts, no tools, and a model that is brief without knowledge."""
    root = tmp_path / "shop"
    (root / "knowledge" / "orders").mkdir(parents=True)
    shutil.copytree(starter_root() / "prompts", root / "prompts")
    (root / "agentkit.toml").write_text("[sampling]\nmax_new_tokens = 48\n")
    (root / "knowledge" / "orders" / "returns.md").write_text(
        "# Returns\n\nYou can return an item within 30 days of delivery.\n"
    )
    (root / "knowledge" / "care.txt").write_text("CARE\n\nWash linen at 40 degrees with a mild detergent.\n")
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(root)
    write(root, QUESTIONS)
    return root


def write(root: Path, questions: list[dict[str, Any]]) -> None:
    lines = [json.dumps({**DEFAULTS, "id": f"q{n}", **body}) for n, body in enumerate(questions, 1)]
    (root / "questions.jsonl").write_text("\n".join(lines) + "\n")


def sessions(root: Path) -> list[Any]:
    paths = list((data_dir() / "projects").glob("*/sessions.sqlite"))
    assert len(paths) == 1
    store = SessionStore(paths[0])
    try:
        return store.list()
    finally:
        store.close()


@pytest.mark.slow
def test_a_run_is_cut_short_and_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "rag", "--data", "questions.jsonl", "--out", "out"]
    assert run([*command, "--limit", "2", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["questions"] == 2
    assert json.loads((project / "out" / "summary.json").read_text()) == first
    assert sessions(project) == []
    rows = project / "out" / "rows.jsonl"
    kept = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(kept[0] + kept[1][:40])  # killed while the second was written

    assert run(command) == 0
    told = capsys.readouterr()
    assert "1 of 3 have been asked before; going on" in told.err
    assert "page: out/index.html" in told.err
    assert rows.read_bytes().startswith(kept[0])
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["id"] for row in found] == ["q1", "q2", "q3"]
    assert [row["right"] for row in found] == [True, True, True]
    assert [row["abstained"] for row in found] == [False, True, False]
    claim = "You can return an item within 30 days of delivery."
    assert found[0]["claims"][0] == {"text": claim, "grounded": True, "quotes": ["verbatim"]}
    assert all(row["model_text"] for row in found)
    assert 0 < found[0]["search_s"] < found[0]["turn_s"]
    printed = [line.split() for line in told.out.splitlines()]
    assert ["retrieval", "hit@1", "hit@3", "hit@5", "mrr", "ndcg@10"] in printed
    assert next(line for line in printed if line[:1] == ["follow-up"])[1] == "1"
    page = (project / "out" / "index.html").read_text(encoding="utf-8")
    assert "Misses: 0 of 3" in page


def test_bad_lines_and_labels_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, [QUESTIONS[0], {**QUESTIONS[0], "kind": "hard"}])
    assert run(["eval", "rag", "--data", "questions.jsonl"]) == 2
    assert "questions.jsonl, line 2: unknown kind 'hard'" in capsys.readouterr().err
    write(project, [{**QUESTIONS[0], "documents": ["orders/gone.md"]}])
    assert run(["eval", "rag", "--data", "questions.jsonl"]) == 2
    assert "line 1: there is no document 'orders/gone.md'" in capsys.readouterr().err
    assert not (project / "eval-rag").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "none.jsonl"], "there is no file none.jsonl"),
        (["--data", "questions.jsonl", "--split", "dev"], "its splits: report"),
        (["--data", "questions.jsonl", "--limit", "0"], "greater than or equal to 1"),
        ([], "Missing option '--data'"),
    ],
)
def test_wrong_usage(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(["eval", "rag", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert "\n" not in error


def test_without_matplotlib_nothing_is_asked(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(["eval", "rag", "--data", "questions.jsonl"]) == 1
    assert "pip install 'matplotlib>=3.10'" in capsys.readouterr().err
