"""Which tools a turn asks for, and in which of its words."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.llm.plan import plan, sections
from agentkit.messages import ToolSpec


def tool(name: str, description: str, **properties: Any) -> ToolSpec:
    return ToolSpec(name, description, {"type": "object", "properties": properties})


STRING = {"type": "string"}
FLIGHT = tool("flight_book", "Book a flight between two cities.", origin=STRING, destination=STRING)
HOTEL = tool("hotel_book", "Book a room in a hotel.", city=STRING, nights={"type": "integer"})
TOOLS = [FLIGHT, HOTEL]


def asked(turn: str, tools: list[ToolSpec] = TOOLS) -> list[tuple[str, str]]:
    return [(tools[each.tool].name, turn[each.start : each.end].strip()) for each in sections(turn, tools)]


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("Get me a flight to Boston.", [("flight_book", "Get me a flight to Boston")]),
        (
            "Book a flight from Seattle to Boston and a hotel in Boston for 4 nights.",
            [
                ("flight_book", "Book a flight from Seattle to Boston"),
                ("hotel_book", "and a hotel in Boston for 4 nights"),
            ],
        ),
        (
            "I need a hotel in Rome, somewhere central. Then fly me there: a flight from Oslo.",
            [
                ("hotel_book", "I need a hotel in Rome, somewhere central"),
                ("flight_book", "Then fly me there: a flight from Oslo"),
            ],
        ),
        ("Please help me", []),
        ("", []),
    ],
)
def test_sections(turn: str, found: list[tuple[str, str]]) -> None:
    assert asked(turn) == found


def test_words_of_all_tools_tell_nothing() -> None:
    assert asked("Book it") == []


def test_words_that_begin_alike_count_too() -> None:
    tools = [tool("get_history", "Past figures."), tool("get_projection", "Figures to come.")]
    assert asked("What is the projected size?", tools) == [("get_projection", "What is the projected size")]


def test_nothing_is_cut_within_quotes_but_those_around_all_of_it() -> None:
    turn = 'A hotel called "Sun, and a flight of stairs" please'
    assert [name for name, _ in asked(turn)] == ["hotel_book"]
    whole = '"A hotel in Rome. And a flight to Oslo."'
    assert [name for name, _ in asked(whole)] == ["hotel_book", "flight_book"]


def test_a_plan() -> None:
    turn = "A hotel in Rome for 3 nights, and a flight"
    assert [each.tool for each in plan(turn, TOOLS, several=True)] == [1, 0]
    assert [each.tool for each in plan(turn, TOOLS, several=False)] == [1]
    assert all(0 < each.sure <= 2 for each in plan(turn, TOOLS, several=True))
    (only,) = plan(turn, [FLIGHT], several=True)
    assert (only.start, only.end, only.sure) == (0, len(turn), 1.0)
    assert plan("Please help me", TOOLS, several=True) == []


def test_odd_schemas_and_long_turns() -> None:
    odd = ToolSpec("x", "", {"type": "object", "properties": {"a": True, "b": {"enum": [1, None]}}})
    assert sections("a flight " * 3_000, [odd, *TOOLS])[0].tool == 1
    assert sections(",,, ;;; ... and and", [odd, *TOOLS]) == []
