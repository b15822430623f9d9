"""Which tools a turn asks for, and in which of its words."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from agentkit.llm.evidence import evidence
from agentkit.llm.missing import missing_arguments
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


ODD: list[Any] = [
    True, False, {}, STRING, {"type": "integer"}, {"type": "number", "description": "Between 0 and 1, e.g. '0.5'."},
    {"type": "boolean"}, {"type": "array"}, {"type": "array", "items": True}, {"type": "object"},
    {"type": "array", "items": STRING, "description": "Such as 'wind', 'rain' or ``."}, {"enum": []},
    {"type": "array", "items": {"type": "number"}}, {"type": "array", "items": {"enum": [1, "rain", {"a": 1}]}},
    {"enum": [1, None, "a b", "mi", ""]}, {"type": ["string", "null"]}, {"anyOf": [STRING, {"type": "null"}]},
    {"type": "string", "description": "Day, DD/MM/YYYY."}, {"type": "string", "description": "(x, y, z"},
]  # fmt: skip
PIECES = (
    "\" “ ” ' ` ( ) [ % $ - -- − , . ? ; \n and or to from in at é 日本 🎉 \x00 \ud800 12 3.5e7 1e400 2026-13-45 5:99 "
    "12/12/2026 a@b.c /x/y x^2 one hundred minus twelve-sided A AA Oslo Rome rain 3 km m/s St. Thursday. {} \\"
)


def test_nothing_that_is_said_breaks_it() -> None:
    random = Random(1)
    for _ in range(400):
        turn = random.choice(("", " ")).join(random.choices(PIECES.split(" "), k=random.randrange(30)))
        names = [
            random.choice(("from", "unit", "größe", "to_date", "ids", "max price")) + str(n) for n in range(8)
        ]
        tools = [
            tool(f"get.it{n}", "Get 'it' (or not).", **{name: random.choice(ODD) for name in names})
            for n in range(3)
        ]
        for several in (True, False):
            for asked_for in plan(turn, tools, several):
                schema = {**tools[asked_for.tool].parameters, "required": names[::2]}
                calls = evidence(schema, turn, 16 if several else 1, (asked_for.start, asked_for.end))
                for call in calls:
                    assert [parameter.name for parameter in call] == list(schema["properties"])
                    for parameter in call:
                        for candidate in parameter.candidates:
                            json.loads(candidate.json)  # raises where it is none
        missing_arguments(ToolSpec("get", "", {**tools[0].parameters, "required": names[:2]}), turn)


def test_the_name_of_a_tool_as_code_asks_for_it() -> None:
    turn = "With the 'hotel_book' function, then again with flight_book, show what you can do"
    assert [name for name, _ in asked(turn)] == ["hotel_book", "flight_book"]
