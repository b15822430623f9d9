"""What a turn says for each of several calls of one tool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.llm.evidence import evidence

STRING, NUMBER, INTEGER, BOOLEAN = ({"type": name} for name in ("string", "number", "integer", "boolean"))


def calls(turn: str, required: str, most: int = 8, **properties: Any) -> list[dict[str, Any]]:
    """The arguments of each call that the evidence alone would make."""
    schema = {"type": "object", "properties": properties, "required": required.split()}
    made = []
    for parameters in evidence(schema, turn, most):
        given = [p for p in parameters if p.weight > 0 and p.candidates]
        made.append({p.name: json.loads(max(p.candidates, key=lambda c: c.weight).json) for p in given})
    return made


SEAT: dict[str, Any] = {"guest": {**STRING, "description": "Name of the guest."}, "table": INTEGER}


def test_pairs() -> None:
    assert calls("Put Ann at table 4 and Tom at 7", "guest table", **SEAT) == [
        {"guest": "Ann", "table": 4},
        {"guest": "Tom", "table": 7},
    ]


def test_what_is_said_once_holds_for_all() -> None:
    turn = "Put Ann, Tom and Eve at table 4"
    assert [call["guest"] for call in calls(turn, "guest table", **SEAT)] == ["Ann", "Tom", "Eve"]
    assert {call["table"] for call in calls(turn, "guest table", **SEAT)} == {4}


def test_what_may_be_left_out_stays_with_its_call() -> None:
    minutes = {**INTEGER, "description": "How long to hold, in minutes."}
    kiln = {**STRING, "description": "Identifier of the kiln."}
    made = calls(
        "Fire K2 to 1060 degrees, and K5 to 1240 with a hold of 15 minutes",
        "kiln_id peak_celsius",
        kiln_id=kiln,
        peak_celsius=NUMBER,
        hold_minutes=minutes,
    )
    assert made == [
        {"kiln_id": "K2", "peak_celsius": 1060},
        {"kiln_id": "K5", "peak_celsius": 1240, "hold_minutes": 15},
    ]


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("Wins of Lakers and Bulls in seasons 2018 and 2020", ["L18", "L20", "B18", "B20"]),
        ("Wins of Lakers and Bulls in seasons 2018 and 2020, respectively", ["L18", "B20"]),
    ],
)
def test_two_lists_are_crossed_or_go_pairwise(turn: str, found: list[str]) -> None:
    team = {**STRING, "description": "Name of the team."}
    made = calls(turn, "team season", team=team, season={**INTEGER, "description": "The season (year)."})
    assert [f"{call['team'][0]}{call['season'] % 100}" for call in made] == found


def test_enumerations_and_booleans_go_with_their_call() -> None:
    direction = {"type": "string", "enum": ["up", "down"]}
    made = calls(
        "A lift to floor 3 going up and one to floor 12 going down", "floor direction", floor=INTEGER,
        direction=direction,
    )  # fmt: skip
    assert made == [{"floor": 3, "direction": "up"}, {"floor": 12, "direction": "down"}]
    made = calls(
        "Hive 3: 6 frames, saw the queen. Hive 7: 4 frames, no queen.", "hive frames queen", hive=INTEGER,
        frames=INTEGER, queen=BOOLEAN,
    )  # fmt: skip
    assert [call["queen"] for call in made] == [True, False]


def test_lists_as_values() -> None:
    levels = {"type": "array", "items": NUMBER}
    made = calls("Sum up 62, 65 and 70 dB; do the same with 80 and 83 dB.", "levels", levels=levels)
    assert made == [{"levels": [62, 65, 70]}, {"levels": [80, 83]}]


def test_at_most_so_many() -> None:
    assert len(calls("Put Ann, Tom and Eve at table 4", "guest table", most=2, **SEAT)) == 2
    assert len(calls("Put Ann, Tom and Eve at table 4", "guest table", most=1, **SEAT)) == 1


def test_many_parameters_and_values_take_no_long_time() -> None:
    names: dict[str, Any] = {f"p{n}": INTEGER for n in range(30)}
    turn = " ".join(f"{n} and" for n in range(150))
    assert len(calls(turn, " ".join(names), most=16, **names)) <= 16
    assert calls("", "p1", **names) == [{}]


def test_what_is_said_before_the_first_or_of_all_holds_for_all() -> None:
    city, unit = {**STRING, "description": "The city."}, {"type": "string", "enum": ["miles", "km"]}
    both = [
        {"start": "Rome", "goal": "Pisa", "unit": "miles"},
        {"start": "Oslo", "goal": "Bergen", "unit": "miles"},
    ]
    places = {"start": city, "goal": city}
    turn = "How far is it in miles from Rome to Pisa, and from Oslo to Bergen?"
    assert calls(turn, "start goal", **places, unit=unit) == both
    turn = "How far is it from Rome to Pisa, and from Oslo to Bergen? Both in miles."
    assert calls(turn, "start goal", **places, unit=unit) == both
    turn = "Forecast for Rome with humidity, then do the same for Oslo"
    assert calls(turn, "city", city=city, humidity=BOOLEAN) == [
        {"city": "Rome", "humidity": True},
        {"city": "Oslo", "humidity": True},
    ]


def test_what_is_denied_of_one_is_not_said_of_it() -> None:
    district = {**STRING, "description": "District of the city."}
    turn = "Rent of a furnished flat in Altona, and of an unfurnished one in Barmbek"
    assert calls(turn, "district", district=district, furnished=BOOLEAN) == [
        {"district": "Altona", "furnished": True},
        {"district": "Barmbek", "furnished": False},
    ]


def test_items_go_with_the_call_beside_which_they_stand() -> None:
    wants = {"type": "array", "items": {"type": "string", "enum": ["pool", "sauna", "gym", "garden"]}}
    city = {**STRING, "description": "The city."}
    turn = "A hotel in Rome with a pool and a gym, and one in Oslo that has a sauna and a garden"
    assert calls(turn, "city wants", city=city, wants=wants) == [
        {"city": "Rome", "wants": ["pool", "gym"]},
        {"city": "Oslo", "wants": ["sauna", "garden"]},
    ]


@pytest.mark.parametrize(
    ("turn", "cities"),
    [
        ("Weather in Lyon, France", 1),
        ("Hotels in Paris, France and New York, USA", 2),
        ("Weather in Oslo and in Bergen", 2),
    ],
)
def test_where_a_city_is_makes_no_call_of_its_own(turn: str, cities: int) -> None:
    made = calls(turn, "city", city={**STRING, "description": "The city."})
    assert len(made) == cities
    assert not {call["city"] for call in made} & {"France", "USA"}


def test_a_temperature_is_no_amount() -> None:
    gas = {"type": "number", "description": "Amount of the gas."}
    heat = {"type": "number", "description": "Temperature of the gas."}
    made = calls("Mix gas at 300 K, 2 of it", "amount temperature", 1, amount=gas, temperature=heat)
    assert made == [{"amount": 2, "temperature": 300}]
    years = {"type": "integer", "description": "Length of the study in years."}
    assert calls("How did it grow over the past decade?", "years", 1, years=years) == [{"years": 10}]
