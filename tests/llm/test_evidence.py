"""What a turn says about the arguments of a call."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agentkit.llm.evidence import ASSIGNED, Parameter, evidence
from agentkit.llm.missing import missing_arguments
from agentkit.messages import ToolSpec

STRING, NUMBER, INTEGER, BOOLEAN = ({"type": name} for name in ("string", "number", "integer", "boolean"))


def schema(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def best(parameters: list[Parameter]) -> dict[str, Any]:
    """The arguments that the evidence alone would give."""
    given = [p for p in parameters if p.weight > 0 and p.candidates]
    return {p.name: json.loads(max(p.candidates, key=lambda c: c.weight).json) for p in given}


def about(description: str, **body: Any) -> dict[str, Any]:
    return {**body, "description": description}


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("a triangle with base 14 and height 9", {"base": 14, "height": 9}),
        ("a triangle with height 9 and base 14", {"base": 14, "height": 9}),
        ("one that is 9 tall, base 14", {"base": 14, "height": 9}),
        ("a triangle of 14 by 9", {"base": 14, "height": 9}),
    ],
)
def test_words_beside_a_number_and_else_the_order(turn: str, found: dict[str, Any]) -> None:
    assert best(evidence(schema("base height", base=NUMBER, height=NUMBER), turn)[0]) == found


def test_units_assign_and_convert() -> None:
    tool = schema(
        "mass distance hours",
        mass=about("Mass in kg.", **NUMBER),
        distance=about("Distance in metres.", **NUMBER),
        hours=about("Time in hours.", **NUMBER),
    )
    turn = "It takes 90 minutes to carry 500 g over 2 km"
    assert best(evidence(tool, turn)[0]) == {"mass": 0.5, "distance": 2000, "hours": 1.5}


def test_percentages_are_fractions_unless_the_schema_says_percent() -> None:
    rate, percent = about("Rate as a decimal.", **NUMBER), about("Rate in percent.", **NUMBER)
    assert best(evidence(schema("rate", rate=rate), "at 40 %")[0]) == {"rate": 0.4}
    assert best(evidence(schema("rate", rate=percent), "at 40 %")[0]) == {"rate": 40}


@pytest.mark.parametrize("turn", ["Fly from Oslo to Rome", "Fly to Rome from Oslo"])
def test_prepositions(turn: str) -> None:
    tool = schema("origin destination", origin=about("City.", **STRING), destination=about("City.", **STRING))
    assert best(evidence(tool, turn)[0]) == {"origin": "Oslo", "destination": "Rome"}


def test_each_span_is_used_once() -> None:
    tool = schema("a b", a=NUMBER, b=NUMBER)
    parameters = evidence(tool, "Take 5")[0]
    given = [c for p in parameters for c in p.candidates if c.weight == ASSIGNED]
    assert [c.json for c in given] == ["5"]


@pytest.mark.parametrize(
    ("turn", "given"), [("Oslo for 5 days", True), ("What about Oslo?", False), ("Oslo 5", False)]
)
def test_an_optional_parameter_needs_a_cue(turn: str, given: bool) -> None:
    tool = schema("city", city=STRING, days=about("Days to forecast.", **INTEGER))
    assert ("days" in best(evidence(tool, turn)[0])) is given


def test_integers_take_no_fractions() -> None:
    assert best(evidence(schema("n", n=INTEGER), "between 2.5 and 3")[0]) == {"n": 3}


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("A table outside", {"outside": True}),
        ("A table, not outside", {"outside": False}),
        ("A table but without outside seats", {"outside": False}),
        ("A table", {}),
    ],
)
def test_booleans(turn: str, found: dict[str, Any]) -> None:
    assert best(evidence(schema(outside=BOOLEAN), turn)[0]) == found


def test_enums() -> None:
    carriers = {"type": "string", "enum": ["dhl", "royal_mail"]}
    assert best(evidence(schema(carrier=carriers), "sent with Royal Mail")[0]) == {"carrier": "royal_mail"}
    assert best(evidence(schema(carrier=carriers), "sent by mail")[0]) == {}


def test_lists() -> None:
    numbers = schema("numbers", numbers={"type": "array", "items": INTEGER})
    assert best(evidence(numbers, "the median of 3, 1 and 2")[0]) == {"numbers": [3, 1, 2]}
    names = schema("names", names={"type": "array", "items": STRING})
    assert best(evidence(names, 'sort "b", "a" and "c d"')[0]) == {"names": ["b", "a", "c d"]}
    chosen = schema(
        "days", days={"type": "array", "items": {"type": "string", "enum": ["mon", "tue", "wed"]}}
    )
    assert best(evidence(chosen, "every mon and wed")[0]) == {"days": ["mon", "wed"]}


def test_several_calls() -> None:
    tool = schema("city", city=STRING)
    calls = evidence(tool, "The weather in Oslo and in Rome and in Paris?", most=8)
    assert [best(call) for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}, {"city": "Paris"}]
    assert len(evidence(tool, "The weather in Oslo and in Rome and in Paris?", most=2)) == 2
    assert len(evidence(tool, "The weather in Oslo?", most=8)) == 1


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("YYYY-MM-DD", "2027-05-03"),
        ("MM/DD/YYYY", "05/03/2027"),
        ("DD.MM.YYYY", "03.05.2027"),
        ("as said", "3 May 2027"),
    ],
)
def test_dates_in_the_form_that_is_asked_for(form: str, text: str) -> None:
    tool = schema("date", date=about(f"Date, {form}.", **STRING))
    assert best(evidence(tool, "Come on 3 May 2027")[0]) == {"date": text}


@pytest.mark.parametrize(
    "nullable",
    [
        {"anyOf": [INTEGER, {"type": "null"}]},
        {"anyOf": [{"type": "null"}, INTEGER]},
        {"type": ["integer", "null"]},
    ],
)
def test_null_may_be_an_alternative(nullable: dict[str, Any]) -> None:
    assert best(evidence(schema("n", n=nullable), "Take 5")[0]) == {"n": 5}
    assert missing_arguments(ToolSpec("t", "", schema("n", n=nullable)), "Take it") == []


ODD = [
    {},
    {"properties": {}},
    schema("zz", a=STRING),
    *(
        schema("a", a=child)
        for child in (
            True, {}, {"type": []}, {"type": ["integer", "string"]}, {"enum": [1, None, True, {"x": 1}, ""]},
            {"type": "integer", "description": 5}, {"type": "string", "description": ["x"]}, {"type": "array"},
            {"type": "array", "items": True}, {"type": "array", "items": [STRING]}, {"type": "object"},
            {"type": "array", "items": {"enum": [1, None, "Oslo"]}}, {"anyOf": [True, {"type": "null"}]},
            {"anyOf": []}, {"const": 3}, {"type": "array", "items": {"type": ["integer", "null"]}},
        )
    ),
]  # fmt: skip
TURNS = [
    'Please book 4 rooms "for us" in Oslo on 3 May 2027 at 20% or 1e-4, a@b.org',
    "9" * 400 + " thousand % and 1e999 km",
    "",
    "\x00\ud800 a" * 2000,
]


@pytest.mark.parametrize(
    "turn", TURNS, ids=lambda turn: turn[:12].encode("ascii", "backslashreplace").decode()
)
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_schemas_and_turns(odd: dict[str, Any], turn: str) -> None:
    for call in evidence(odd, turn, most=4):
        assert [p.name for p in call] == list(odd.get("properties", {}))
        for candidate in (c for p in call for c in p.candidates):
            json.loads(candidate.json, parse_constant=lambda name: pytest.fail(name))
    missing_arguments(ToolSpec("t", "", odd), turn)


@pytest.mark.parametrize("name", ["", "größe", 'si"ze', "a\nb", "a\\b", "[", "(?P<", "𝒳"])
def test_odd_names(name: str) -> None:
    for child in (STRING, INTEGER, BOOLEAN, {"type": "array", "items": STRING}):
        (call, *_) = evidence({"properties": {name: child}, "required": [name]}, "Take 5 apples to Oslo", 3)
        assert call[0].name == name
    assert best(evidence({"properties": {name: INTEGER}, "required": [name]}, "Take 5")[0]) == {name: 5}


@pytest.mark.parametrize(
    ("turn", "values"),
    [
        ("Double 5,10 and 15 please", [5, 10, 15]),
        ("What is twice 3 and 4 and 9?", [3, 4, 9]),
        ("Double 7, 8 or 12 apples", [7, 8, 12]),
    ],
)
def test_listed_numbers_are_a_call_each(turn: str, values: list[int]) -> None:
    calls = evidence({"properties": {"number": INTEGER}, "required": ["number"]}, turn, most=8)
    assert [best(call) for call in calls] == [{"number": value} for value in values]


def test_listed_numbers_share_the_unit_of_the_last() -> None:
    years = {"type": "integer", "description": "How many years."}
    payment = {"type": "integer", "description": "Sum that is paid."}
    schema = {"properties": {"payment": payment, "years": years}, "required": ["payment", "years"]}
    calls = evidence(schema, "Save $800 per year for 10, 20 and 30 years.", most=8)
    assert [best(call) for call in calls] == [{"payment": 800, "years": n} for n in (10, 20, 30)]


def test_values_that_a_description_names() -> None:
    kind = about("How to travel (walk, bike, drive).", type="string")
    assert best(evidence(schema("", kind=kind), "I want to bike to Oslo")[0]) == {"kind": "bike"}
    unit = about("Unit of the result, 'km' or 'mi'.", type="string")
    assert best(evidence(schema("", unit=unit), "How many miles is it?")[0]) == {"unit": "mi"}
    assert best(evidence(schema("", unit=unit), "How far is it?")[0]) == {}
    key = about("Key, such as 'A minor'.", type="string")
    assert best(evidence(schema("", key=key), "Put it into A minor")[0]) == {"key": "A minor"}
    assert best(evidence(schema("", key=key), "Put it into E minor")[0]) == {}
    extras = about("What to show, e.g. 'wind' or 'rain'.", type="array", items=STRING)
    assert best(evidence(schema("", extras=extras), "Is there rain and wind?")[0]) == {
        "extras": ["rain", "wind"]
    }
    source, target = (
        about(text, type="string") for text in ("Currency, such as 'EUR'.", "Wanted, such as 'USD'.")
    )
    found = best(evidence(schema("source target", source=source, target=target), "What are 9 EUR in USD?")[0])
    assert found == {"source": "EUR", "target": "USD"}


def test_bounds_and_measures() -> None:
    rent = schema("", max_rent=about("Highest rent in euros.", **NUMBER), min_rooms=INTEGER)
    assert best(evidence(rent, "Flats for at most 1400 euros")[0]) == {"max_rent": 1400}
    assert best(evidence(rent, "I don't want to spend more than 900 euros")[0]) == {"max_rent": 900}
    assert best(evidence(rent, "Flats with at least 3 rooms")[0]) == {"min_rooms": 3}
    speed = schema("mass speed", mass=NUMBER, speed=about("In metres per second.", **NUMBER))
    assert best(evidence(speed, "a car of 1200 kg at 14 m/s")[0]) == {"mass": 1200, "speed": 14}
    day = schema("date", date=about("Date in the format DD/MM/YYYY.", **STRING))
    assert best(evidence(day, "on 12/06/2026")[0]) == {"date": "12/06/2026"}


def test_what_stands_in_the_tool_s_own_words_comes_first_and_else_the_nearest() -> None:
    turn = "Fly me from Oslo to Rome, and a hotel there for 4 nights"
    hotel = schema("city nights", city=about("City of the hotel.", **STRING), nights=INTEGER)
    (call,) = evidence(hotel, turn, 8, (turn.index(", and"), len(turn)))
    assert best(call) == {"city": "Rome", "nights": 4}
    turn = "Feed 3 cats, and walk 2 dogs"
    (call,) = evidence(schema("count", count=INTEGER), turn, 8, (turn.index("and"), len(turn)))
    assert best(call) == {"count": 2}


def test_quotation_marks_around_the_whole_message_quote_nothing() -> None:
    city = schema("city", city=about("City of the forecast.", **STRING))
    assert best(evidence(city, '"Will it rain in Oslo? I hope not."')[0]) == {"city": "Oslo"}
    quoted = schema("title", title=STRING)
    assert best(evidence(quoted, '"Emma" or "Ulysses"')[0]) == {"title": "Emma"}


def test_currencies_are_written_by_their_codes() -> None:
    tool = schema(
        "amount from_currency to_currency",
        amount=NUMBER,
        from_currency=about("Currency to convert from.", **STRING),
        to_currency=about("Currency to convert to.", **STRING),
    )
    made = evidence(tool, "What are 200 pounds in Canadian dollars? And 90 euros in Japanese yen?", 8)
    assert [best(each) for each in made] == [
        {"amount": 200, "from_currency": "GBP", "to_currency": "CAD"},
        {"amount": 90, "from_currency": "EUR", "to_currency": "JPY"},
    ]


def test_a_city_and_its_country() -> None:
    turn = "Hotels in Lyon, France, please"
    assert best(evidence(schema("location", location=STRING), turn)[0]) == {"location": "Lyon, France"}
    tool = schema("city country", city=STRING, country=STRING)
    assert best(evidence(tool, turn)[0]) == {"city": "Lyon", "country": "France"}
    tool = schema("price city state", price=NUMBER, city=STRING, state=STRING)
    turn = "Tax on $30 in Chicago, Illinois, and $11 in Portland, Oregon"
    assert [best(each) for each in evidence(tool, turn, 8)] == [
        {"price": 30, "city": "Chicago", "state": "Illinois"},
        {"price": 11, "city": "Portland", "state": "Oregon"},
    ]


def test_the_name_of_a_function_is_no_value() -> None:
    turn = "Use the 'mail.send' function for Ann: 'see you'"
    tool = schema("text", text=about("Text of the mail.", **STRING))
    assert best(evidence(tool, turn, tools=["mail.send"])[0]) == {"text": "see you"}


def test_a_value_that_a_description_names_comes_before_other_words() -> None:
    tool = schema("criterion", criterion=about("Split by 'gini' or by 'entropy'.", **STRING))
    assert best(evidence(tool, "a tree with the entropy criterion")[0]) == {"criterion": "entropy"}


def test_a_word_before_a_value_that_says_what_it_is() -> None:
    tool = schema("color", color=about("The colour.", **STRING))
    assert best(evidence(tool, "how do I mix the color magenta")[0]) == {"color": "magenta"}


def test_sorts_works_and_months() -> None:
    tool = schema("room_type nights", room_type=about("Type of the room.", **STRING), nights=INTEGER)
    assert best(evidence(tool, "a deluxe room for 2 nights")[0]) == {"room_type": "deluxe", "nights": 2}
    tool = schema("artwork_name artist", artwork_name=about("Name of the artwork.", **STRING), artist=STRING)
    turn = "the price of Ann Lee's painting 'Blue Night'"
    assert best(evidence(tool, turn)[0]) == {"artwork_name": "Blue Night", "artist": "Ann Lee"}
    tool = schema("city", city=STRING, month=about("Month to look at.", **STRING))
    assert best(evidence(tool, "rain in Oslo in December")[0]) == {"city": "Oslo", "month": "December"}
    assert best(
        evidence(schema("lazy tidy", lazy=BOOLEAN, tidy=BOOLEAN), "he is lazy and has few tidy days")[0]
    ) == {
        "lazy": True,
        "tidy": False,
    }


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        ("a game for more than 5 players", {"least": 6}),
        ("a game for no more than 5 players", {"most": 5}),
        ("a game for fewer than 5 players", {"most": 4}),
        ("a game for at least 5 players", {"least": 5}),
    ],
)
def test_bounds_that_do_not_count_themselves(turn: str, found: dict[str, Any]) -> None:
    (name,) = found
    word = {"least": "Minimum", "most": "Maximum"}[name]
    tool = schema(name, **{name: about(f"{word} number of players.", **INTEGER)})
    assert best(evidence(tool, turn)[0]) == found


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("Please don't forget the gift wrap", True),
        ("Can't you include the gift wrap?", True),
        ("Why don't you add gift wrap", True),
        ("I don't want the gift wrap", False),
        ("Please do not add the gift wrap", False),
    ],
)
def test_reminders_and_wishes_are_no_denials(turn: str, wanted: bool) -> None:
    assert best(evidence(schema("gift_wrap", gift_wrap=BOOLEAN), turn)[0]) == {"gift_wrap": wanted}


def test_a_value_keeps_to_the_limits_of_its_schema() -> None:
    rating = schema("rating", rating={"type": "integer", "minimum": 1, "maximum": 5})
    assert best(evidence(rating, "It took 12 days to arrive, so I'd rate it 4")[0]) == {"rating": 4}


def test_a_moment_begins_with_its_date() -> None:
    start = schema("start", start={"type": "string", "format": "date-time"})
    (found,) = evidence(start, "Begin on 3 May 2027 at 7:30 pm")[0]
    assert {candidate.json for candidate in found.candidates} == {'"2027-05-03T'}
    (nothing,) = evidence(start, "Begin tomorrow at 7:30 pm")[0]
    assert nothing.candidates == ()


def test_many_values_of_an_enumeration_cost_no_quadratic_time() -> None:
    started = time.thread_time()
    values = [f"value {n}" for n in range(200)]
    evidence(schema("kind", kind={"type": "string", "enum": values}), "some words of a long turn " * 4_000)
    assert time.thread_time() - started < 5
