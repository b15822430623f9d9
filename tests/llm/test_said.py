"""What a customer has said, in forms that are easily misread."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.llm.denied import not_to_do
from agentkit.llm.grounding import QUOTED, _inner, _set_off
from agentkit.llm.missing import is_withdrawn, missing_arguments, still_missing
from agentkit.llm.numbers import numbers
from agentkit.llm.spans import spans
from agentkit.llm.units import currency
from agentkit.messages import ToolSpec


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("1.500 €", [1500]),
        ("€1.500", [1500]),
        ("1.234,56 €", [1234.56]),
        ("25,50 EUR", [25.5]),
        ("€25,50", [25.5]),
        ("0,5 Liter", [0.5]),
        ("2,5 Stunden", [2.5]),
        ("1,2,3 kg", [1, 2, 3]),
        ("v1.500", []),
        ("a loan of 250K at 4.5%", [250000, 4.5]),
        ("Transfer 50K to Anna", [50000]),
        ("a gas at 300K", [300]),
        ("fifteen hundred dollars", [1500]),
        ("1 1/2 hours", [1.5]),
        ("1½ hours", [1.5]),
        ("on 1/2/2024", [1, 2, 2024]),
        ("half a dozen eggs", [6]),
        ("how it grew over the past decade", [1]),
        ("in the next 3 days", [3]),
        ("2x Lamp Oslo", [2]),
    ],
)
def test_amounts(said: str, found: list[float]) -> None:
    assert [number.value for number in numbers(said)] == found


@pytest.mark.parametrize(
    ("said", "times"),
    [
        ("Wake me at 6:30, I have dinner plans later", ["06:30"]),
        ("breakfast at 7:30 and dinner at 8:15", ["07:30", "20:15"]),
        ("lunch at 11:45, then dinner at 7:00", ["11:45", "19:00"]),
        ("at 5:30 in the morning, dinner", ["05:30"]),
        ("Book a table tonight, 7:30", ["19:30"]),
        ("2025-03-05T19:30", ["19:30"]),
        ("at 07:00:00", ["07:00"]),
        ("at 20 o'clock for 3", ["20:00"]),
        ("um 19.30 Uhr", ["19:30"]),
    ],
)
def test_times(said: str, times: list[str]) -> None:
    assert [span.value for span in spans(said) if span.kind == "time"] == times


def test_a_quantity_before_a_thing_is_no_code() -> None:
    assert not [span for span in spans("Order 2x Lamp Oslo") if span.kind == "code"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("euros", "EUR"), ("US dollars", "USD"), ("Canadian dollars", "CAD"), ("swiss francs", "CHF"), ("GBP", "GBP"),
        ("fifty euros", None), ("Anna twenty dollars", None),
    ],
)  # fmt: skip
def test_names_of_currencies(name: str, code: str | None) -> None:
    assert currency(name) == code


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ("Translate »Hallo« und »Tschüss« into English", ["Hallo", "Tschüss"]),
        ("Translate „Guten Morgen“ ins Englische", ["Guten Morgen"]),
        ("«a» et «b»", ["a", "b"]),
        ("Translate 'The customers' order is late' into French", ["The customers' order is late"]),
        ("'windows' and 'doors'", ["windows", "doors"]),
        ("'don't do' it", ["don't do"]),
        ('Order a 24" monitor and a 27" TV', []),
        ('say "hi"', ["hi"]),
    ],
)
def test_quotation_marks(said: str, quoted: list[str]) -> None:
    assert [_inner(match) for match in QUOTED.finditer(said)] == quoted
    assert [span.value for span in spans(said) if span.kind == "quoted"] == quoted


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (
            "Translate this.\nHi Anna,\nplease note: we are closed.\nTom",
            "Hi Anna,\nplease note: we are closed.\nTom",
        ),
        ("Is this good or bad?\nPros: light.\nCons: breaks fast.", "Pros: light.\nCons: breaks fast."),
        ("Translate this:\nHi: a", "Hi: a"),
        ("Summarize: a b c", "a b c"),
    ],
)
def test_a_colon_of_the_text_s_own_cuts_nothing(turn: str, text: str) -> None:
    assert _set_off(turn)[0] == (text,)


@pytest.mark.parametrize(
    "said",
    [
        "I changed my mind",
        "never mind, I'll do it later",
        "Don't do it",
        "Nein danke",
        "abbrechen",
        "cancel it",
        "No",
    ],
)
def test_a_request_is_taken_back(said: str) -> None:
    assert is_withdrawn(said)


@pytest.mark.parametrize("said", ["never mind the color, what about size?", "cancel order 5", "the red one"])
def test_a_request_goes_on(said: str) -> None:
    assert not is_withdrawn(said)


SHIP = ToolSpec(
    "refund", "Refund an order.",
    {"type": "object", "properties": {"order": {"type": "string", "description": "Order number."}},
     "required": ["order"]},
)  # fmt: skip


@pytest.mark.parametrize(
    "said", ["I lost the receipt", "I can't remember", "I forgot it", "I have no order number", "ok"]
)
def test_who_does_not_know_has_not_said_it(said: str) -> None:
    assert still_missing(SHIP, ["order"], ["order"], said) == ["order"]
    assert still_missing(SHIP, ["order"], ["order"], "alice") == []


@pytest.mark.parametrize("said", ["half an hour", "0.5 hours", "two and a half hours", "30 minutes"])
def test_a_whole_number_of_another_unit_is_given(said: str) -> None:
    minutes: dict[str, Any] = {"type": "integer", "description": "Length in minutes."}
    tool = ToolSpec(
        "timer",
        "Set a timer.",
        {"type": "object", "properties": {"minutes": minutes}, "required": ["minutes"]},
    )
    assert missing_arguments(tool, f"Set a timer for {said}") == []
    assert missing_arguments(tool, "Set a timer for me") == ["minutes"]


@pytest.mark.parametrize(
    "said",
    [
        "You shouldn't refund order 1042, cancel it",
        "Rather than refund order 1042, cancel it",
        "You must not refund order 1042, check where it is",
        "Can you not refund order 1042",
    ],
)
def test_what_is_not_to_be_done(said: str) -> None:
    assert [said[start:end].strip() for start, end in not_to_do(said)] == ["refund order 1042"]
    assert not_to_do("Shouldn't you refund it? Wouldn't it be better to refund it?") == []
