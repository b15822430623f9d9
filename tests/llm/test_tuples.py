"""Numbers of which only their order tells what they are for, ranges, and lists that go together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.llm.evidence import evidence

NUMBER, STRING = {"type": "number"}, {"type": "string"}


def calls(turn: str, required: str, **properties: Any) -> list[dict[str, Any]]:
    """The arguments of each call that the evidence alone would make."""
    schema = {"type": "object", "properties": properties, "required": required.split()}
    made = []
    for parameters in evidence(schema, turn, 8):
        given = [p for p in parameters if p.weight > 0 and p.candidates]
        made.append({p.name: json.loads(max(p.candidates, key=lambda c: c.weight).json) for p in given})
    return made


def values(turn: str, *names: str, required: int | None = None) -> list[list[Any]]:
    """The values that numbers get in each call, in the order of the parameters."""
    made = calls(turn, " ".join(names[:required]), **{name: NUMBER for name in names})
    return [[call[name] for name in names if name in call] for call in made]


@pytest.mark.parametrize(
    "turn",
    [
        "Common divisors of the pairs (45, 60) and (81, 27)",
        "Common divisors of 45 and 60, 81 and 27",
        "Ann has 45 and 60, while Tom has 81 and 27. What are their divisors?",
        "First the divisor of 45 and 60. After that, the one of 81 and 27.",
    ],
)
def test_pairs_of_numbers(turn: str) -> None:
    assert values(turn, "first", "second") == [[45, 60], [81, 27]]


def test_what_may_be_left_out_takes_what_longer_tuples_have_more() -> None:
    turn = "The length of (3, 4), then of (6, 8), and also of (9, 12, 15)"
    assert values(turn, "x", "y", "z", required=2) == [[3, 4], [6, 8], [9, 12, 15]]


def test_respectively_gives_members_in_their_order() -> None:
    turn = "Coefficients of squares, lines and constants as 5, 6 and 1 respectively, then 3, 2 and 1 respectively"
    assert values(turn, "squares", "lines", "constants") == [[5, 6, 1], [3, 2, 1]]


def test_no_tuples_where_words_tell_what_a_number_is_for() -> None:
    height, base = {"height": NUMBER, "base": NUMBER}, "Triangles with base 4 and height 9"
    assert calls(base, "height base", **height) == [{"height": 9, "base": 4}]


def test_ends_of_a_range() -> None:
    turn = "Primes between 7 and 90"
    assert calls(turn, "upper_limit lower_limit", upper_limit=NUMBER, lower_limit=NUMBER) == [
        {"upper_limit": 90, "lower_limit": 7}
    ]
    turn = "The way between Rome and Turin, and between Oslo and Bergen"
    names = {
        "end_place": {**STRING, "description": "Place"},
        "start_place": {**STRING, "description": "Place"},
    }
    assert calls(turn, "end_place start_place", **names) == [
        {"start_place": "Rome", "end_place": "Turin"},
        {"start_place": "Oslo", "end_place": "Bergen"},
    ]


def test_lists_that_go_together_beside_another_name() -> None:
    turn = "On Tunes, play songs of Ann Lee and Bo Ray, for 20 minutes and 15 minutes respectively"
    artist = {**STRING, "description": "The artist."}
    minutes = {"type": "integer", "description": "How long, in minutes."}
    assert calls(turn, "artist minutes", artist=artist, minutes=minutes) == [
        {"artist": "Ann Lee", "minutes": 20},
        {"artist": "Bo Ray", "minutes": 15},
    ]
