"""`agentkit eval bfcl`, `tools`, `routing` and `perplexity`: what is printed and written, going on, and wrong usage."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Cli

from agentkit.cli.main import run
from agentkit.errors import ModelError
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import Message, ToolCall
from agentkit.project import starter_root
from tests.leaderboard import forget, install

WEATHER = {
    "tool": {
        "name": "weather",
        "description": "Get the forecast.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city."}},
            "required": ["city"],
        },
    },
    "split": "tune",
    "calls": [
        {"text": "Forecast for Oslo.", "arguments": {"city": ["Oslo"]}},
        {"text": "Forecast for Rome.", "arguments": {"city": ["Rome"]}},
    ],
    "lacking": [{"text": "What's the weather like?", "missing": ["city"]}],
}


def ring(times: int) -> ToolCall:
    return ToolCall("c", "ring", {"times": times})


def forecast(city: str) -> ToolCall:
    return ToolCall("c", "weather", {"city": city})


@pytest.fixture
def leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(tmp_path / "site", monkeypatch)
    yield
    forget()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bfcl_prints_and_writes(cli: Cli, leaderboard: None) -> None:
    cli.steps = [ring(3), ring(5), "Shakespeare.", ring(1)]
    command = ("eval", "bfcl", "--category", "simple_python", "--category", "irrelevance", "--no-adapter")
    assert cli(*command, "--out", "out") == 0
    printed = [line.split() for line in cli.out.splitlines()]
    assert next(line for line in printed if line[:1] == ["simple_python"])[1:6:2] == ["2", "100.0%", "50.0%"]
    assert "tables: out/summary.md" in cli.err
    rows = lines(cli.folder / "out" / "rows.jsonl")
    assert [(row["id"], row["right"], row["error_type"]) for row in rows] == [
        ("simple_python_0", True, ""),
        ("simple_python_1", False, "value"),
        ("irrelevance_0", True, ""),
        ("irrelevance_1", False, "called"),
    ]
    assert rows[0]["calls"] == [["ring", {"times": 3}]]
    told = json.loads((cli.folder / "out" / "summary.json").read_text())
    assert told["scores"] == {"simple_python": 0.5, "irrelevance": 0.5}
    assert told["run"]["tool choice"] == "required"
    assert told["recall"] is None
    assert ["calls", "where", "needed", "–"] in printed
    assert told["run"]["adapter"] == "none"
    page = (cli.folder / "out" / "summary.md").read_text()
    assert "| simple_python | 2 | 2 | 100.0% (34–100) | 50.0%" in page

    assert cli(*command, "--out", "out", "--json") == 0  # without a step left: nothing is asked again
    assert list(cli.lines()) == [told]
    assert "4 of 4 have been asked before" in cli.err
    assert cli(*command, "--out", "out", "--tool-choice", "auto") == 2
    assert "out holds a run under other tool choice; name another --out" in cli.err


def test_an_interrupted_run_goes_on(cli: Cli, leaderboard: None) -> None:
    command = ("eval", "bfcl", "--category", "simple_python", "--json")
    cli.steps = [ModelError("it died"), ring(12)]
    assert cli(*command) == 0
    assert next(cli.lines())["failed"] == 1
    cli.steps = [ring(3)]
    assert cli(*command) == 0
    assert next(cli.lines())["scores"] == {"simple_python": 1.0}


def test_tools_print_and_write(cli: Cli) -> None:
    (cli.folder / "tools.jsonl").write_text(json.dumps(WEATHER))
    cli.steps = [forecast("Oslo"), forecast("Paris")]
    assert cli("eval", "tools", "--data", "tools.jsonl", "--json") == 0
    told = next(cli.lines())
    assert told["scores"]["right"] == 0.5
    assert told["scores"]["asked_exactly"] == 1
    assert told == json.loads((cli.folder / "eval-tools" / "summary.json").read_text())
    assert "| text | 2 | 100.0% (34–100) | 50.0%" in (cli.folder / "eval-tools" / "summary.md").read_text()
    cli.steps = ["In which city?", forecast("Rome")]
    options = ("--tool-choice", "auto", "--limit", "1", "--out", "auto")
    assert cli("eval", "tools", "--data", "tools.jsonl", *options) == 0
    assert ["asked", "without", "cause", "100.0%", "(21–100)"] in [
        line.split() for line in cli.out.splitlines()
    ]


def test_messages_that_need_several_calls(cli: Cli) -> None:
    message = {
        "id": "both",
        "split": "report",
        "tools": [WEATHER["tool"]],
        "text": "Forecast for Oslo and Rome.",
        "calls": [{"name": "weather", "arguments": {"city": [city]}} for city in ("Oslo", "Rome")],
    }
    (cli.folder / "several.jsonl").write_text(json.dumps(message))
    command = ("eval", "tools", "--data", "several.jsonl", "--split", "report")
    cli.steps = [(forecast("Rome"), forecast("Oslo"))]
    assert cli(*command) == 0
    assert "right number of calls" in cli.out
    assert cli(*command, "--json") == 0  # goes on, with nothing left to ask
    assert next(cli.lines())["scores"]["several_right"] == 1


def test_without_the_leaderboard_s_package(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli("eval", "bfcl") == 1
    assert "pip install --no-deps bfcl-eval==" in cli.err
    assert "\n" not in cli.err.strip()
    assert not (cli.folder / "eval-bfcl").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bfcl", "--category", "simple"], "no category 'simple'; the categories are simple_python"),
        (["bfcl", "--category", "multiple", "--offset", "9"], "multiple has 1 cases, none behind 9"),
        (["bfcl", "--limit", "0"], "greater than or equal to 1"),
        (["bfcl", "--tool-choice", "none"], "'none' is not one of 'required', 'auto'"),
        (["bfcl", "--category", "multiple", "--unconstrained"], "only a model in this process"),
        (["bfcl", "--category", "multiple", "--no-adapter", "--adapter", "x"], "say different things"),
        (["tools"], "Missing option '--data'"),
        (["tools", "--data", "none.jsonl"], "there is no file none.jsonl"),
        (["routing", "--data", "none.jsonl"], "there is no file none.jsonl"),
    ],
)
def test_wrong_usage(cli: Cli, leaderboard: None, arguments: list[str], told: str) -> None:
    assert cli("eval", *arguments) == 2
    assert told in cli.err
    assert "\n" not in cli.err.strip()


def test_routing_asks_the_project_s_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "shop"
    (root / "knowledge").mkdir(parents=True)
    shutil.copytree(starter_root() / "prompts", root / "prompts")
    (root / "agentkit.toml").write_text("")
    (root / "knowledge" / "returns.md").write_text("# Returns\n\nYou can return an item within 30 days.\n")
    turns = [
        ("How long can I return an item?", "knowledge"),
        ("Good morning!", "chat"),
        ("Who won the football cup?", "knowledge"),  # a wrong label
    ]
    body = [{"id": f"r{n}", "text": t, "route": r, "split": "report"} for n, (t, r) in enumerate(turns)]
    (root / "turns.jsonl").write_text("\n".join(map(json.dumps, body)))
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(root)
    assert run(["eval", "routing", "--data", "turns.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scores"] == {"accuracy": pytest.approx(2 / 3), "chat": 1.0, "knowledge": 0.5}
    assert told["confusion"]["knowledge"] == {"chat": 0, "decline": 1, "knowledge": 1}
    assert told["run"]["decided by"] == "auto"
    assert "| knowledge | 2 | 50.0%" in (root / "eval-routing" / "summary.md").read_text()
    (root / "turns.jsonl").write_text(json.dumps({**body[0], "route": "ner"}))
    assert run(["eval", "routing", "--data", "turns.jsonl"]) == 2
    assert "line 1: there is no tool 'ner'" in capsys.readouterr().err


class Scorer(ScriptedModel):
    """Finds every character of an answer half as likely as not."""

    def log_probs(self, messages: Sequence[Message], answer: str) -> list[float]:
        return [math.log(0.5)] * len(answer)


def test_perplexity_prints_and_writes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = [
        {"id": "a", "text": "Hi!", "answer": "Hello!", "kind": "talk"},
        {"id": "b", "text": "?", "answer": "No."},
    ]
    (cli.folder / "chat.jsonl").write_text("\n".join(map(json.dumps, chats)))
    command = ("eval", "perplexity", "--data", "chat.jsonl", "--no-adapter", "--out", "out")
    assert cli(*command) == 2  # the scripted model cannot score
    assert "only a model in this process tells how likely it finds a text" in cli.err
    monkeypatch.setattr("cli_helpers.ScriptedModel", Scorer)
    assert cli(*command) == 0
    assert ["perplexity", "2.00", "(2.00–2.00)"] in [line.split() for line in cli.out.splitlines()]
    rows = lines(cli.folder / "out" / "rows.jsonl")
    assert [(row["id"], row["kind"], row["tokens"]) for row in rows] == [("a", "talk", 6), ("b", "", 3)]
    told = json.loads((cli.folder / "out" / "summary.json").read_text())
    assert told["scores"] == {"token_probability": pytest.approx(0.5)}
    assert told["run"]["adapter"] == "none"
    assert cli(*command, "--json") == 0
    assert list(cli.lines()) == [told]
    assert "2 of 2 have been asked before" in cli.err
    assert cli("eval", "perplexity", "--data", "none.jsonl") == 2
    assert "there is no file none.jsonl" in cli.err
