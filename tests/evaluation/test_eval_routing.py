"""Labelled turns: what is read, and what an agent is taken to have decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import KnowledgeError, UsageError
from agentkit.evaluation.routing import RoutingRow, Turn, ask, decide, read_turns, summarize, tables
from agentkit.events import Event, Notice, TextDelta, ToolCallProposed, TurnDone, TurnFailed
from agentkit.llm.missing import ask_for
from agentkit.llm.protocol import Route
from agentkit.messages import Citation, Completion, Reply, ToolCall, ToolSpec

DATA = Path(__file__).parents[1] / "data" / "routing.jsonl"
STARTER = ("captioner", "classifier", "finetune", "ner", "translator")
GOOD = {"id": "r1", "text": "Hi!", "route": "chat", "split": "tune"}
NER = ToolSpec("ner", "Find names.", {"properties": {"text": {"type": "string"}}, "required": ["text"]})
QUOTE = Citation(1, "returns.md", "Returns", None, "You have 30 days.", 0.9)


class Agent:
    """Routes as it is told; with no route it plays the events of a turn."""

    def __init__(self, route: Route | None = None, events: list[Event] | None = None) -> None:
        self._route, self._events = route, events or []
        self.played = 0

    def route(self, text: str) -> Route | None:
        return self._route

    def stream(self, text: str) -> Iterator[Event]:
        for event in self._events:
            self.played += 1
            yield event


def test_the_project_s_own_turns() -> None:
    turns = read_turns(DATA, STARTER, "report")
    assert len(turns) == 121
    assert len({turn.route for turn in turns[:8]}) == 8  # the first few go round the labels
    assert len(read_turns(DATA, STARTER)) == 256


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {**GOOD, "id": "r2", "route": "plumber"},
            "there is no tool 'plumber'; the routes are knowledge, chat",
        ),
        ({**GOOD, "id": "r2", "text": ""}, "text must be text"),
        ({"id": "r2", "text": "Hi!", "split": "tune"}, "route missing"),
        (GOOD, "the id 'r1' stands in line 1 already"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, body: Any, told: str) -> None:
    file = tmp_path / "turns.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{json.dumps(body)}\n")
    with pytest.raises(UsageError, match=rf"turns\.jsonl, line 2: {told}"):
        read_turns(file, STARTER)


@pytest.mark.parametrize(("kind", "tool", "decided"), [("tool", "ner", "ner"), ("decline", None, "decline")])
def test_a_router_decides(kind: Any, tool: str | None, decided: str) -> None:
    agent = Agent(Route(kind, tool, {}), [TurnDone(Reply("Hi"))])
    assert decide(agent, "Who is in it?") == decided
    assert agent.played == 0


@pytest.mark.parametrize(
    ("events", "decided"),
    [
        ([TextDelta("Hello"), TurnDone(Reply("Hello"))], "chat"),
        ([TurnDone(Reply("You have 30 days. [1]", citations=(QUOTE,)))], "knowledge"),
        ([Notice("declined", "no evidence"), TurnDone(Reply("I do not know."))], "decline"),
        ([event for event in ask_for(NER, ["text"]) if not isinstance(event, Completion)], "ner"),
    ],
)
def test_without_a_router_the_turn_tells(events: list[Event], decided: str) -> None:
    assert decide(Agent(None, events), "Hm.") == decided


def test_no_tool_runs() -> None:
    agent = Agent(None, [ToolCallProposed(ToolCall("c", "finetune", {})), TurnDone(Reply("Started."))])
    assert decide(agent, "Train!") == "finetune"
    assert agent.played == 1


def test_a_failure_counts_as_wrong() -> None:
    class Broken(Agent):
        def route(self, text: str) -> Route | None:
            raise KnowledgeError("the index is damaged")

    turn = Turn(1, "r1", "Hi!", "chat", "tune")
    row = ask(lambda: nullcontext(Broken()), turn)
    assert (row.decided, row.right, row.failed) == ("", False, "the index is damaged")
    row = ask(lambda: nullcontext(Agent(None, [TurnFailed("it died")])), turn)
    assert row.failed == "it died"


def row(id: str, route: str, decided: str) -> RoutingRow:
    return RoutingRow(id, "", "report", route, decided, route == decided, 0.5, "" if decided else "x")


def test_figures() -> None:
    rows = [
        row("a", "ner", "ner"),
        row("b", "chat", "ner"),
        row("c", "chat", "chat"),
        row("d", "decline", ""),
    ]
    told = summarize(rows)
    assert told["accuracy"]["value"] == 0.5
    assert told["routes"]["chat"]["value"] == 0.5
    assert told["failed"] == 1
    assert told["confusion"]["chat"] == {"ner": 1, "": 0, "chat": 1, "decline": 0}
    confusion = tables(told)[1]
    assert confusion.heading == ["label", "turns", "right", "as ner", "as failed", "as chat", "as decline"]
    assert [line[0] for line in confusion.rows] == ["ner", "chat", "decline"]
    assert confusion.rows[1][3:] == ["1", "·", "1", "·"]
