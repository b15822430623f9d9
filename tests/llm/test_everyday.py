"""What everyday turns say of a parameter: denials, amounts, units, ranges and names as people write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.llm.evidence import evidence
from agentkit.llm.plan import plan
from agentkit.messages import ToolSpec

TYPES = {"S": "string", "N": "number", "I": "integer", "B": "boolean"}


def best(turn: str, **parameters: str) -> dict[str, Any]:
    """The values that weigh most; a type with a star is required, a description follows its colon."""
    properties, required = {}, []
    for name, form in parameters.items():
        kind, _, description = form.partition(":")
        properties[name] = {"type": TYPES[kind[0]], "description": description}
        required += [name] if kind.endswith("*") else []
    schema = {"type": "object", "properties": properties, "required": required}
    found = {}
    for parameter in evidence(schema, turn)[0]:
        ranked = sorted(parameter.candidates, key=lambda candidate: -candidate.weight)
        assert len(ranked) < 2 or ranked[0].weight > ranked[1].weight, f"{parameter.name} is not settled"
        found[parameter.name] = json.loads(ranked[0].json) if ranked else None
    return found


@pytest.mark.parametrize(
    ("turn", "name", "value"),
    [
        ("I can't have pets", "pets", False),
        ("I don’t want pets", "pets", False),
        ("We do not want to have any pets", "pets", False),
        ("Pets aren't allowed", "pets", False),
        ("Breakfast is not needed", "breakfast", False),
        ("Skip breakfast", "breakfast", False),
        ("Turn notifications off", "notifications", False),
        ("disable notifications", "notifications", False),
        ("notifications on", "notifications", True),
        ("neither pool nor sauna", "sauna", False),
        ("sugar-free", "sugar", False),
        ("run it with verbose=false", "verbose", False),
        ("set verbose to true", "verbose", True),
        ("overwrite: no", "overwrite", False),
        ("no problem with pets", "pets", True),
        ("a hotel with a pool not a sauna", "pool", True),
        ("a hotel with a pool not a sauna", "sauna", False),
        ("breakfast not included", "breakfast", False),
        ("not only a pool but a sauna", "pool", True),
        ("with breakfast but no parking", "breakfast", True),
        ("with breakfast but no parking", "parking", False),
        ("I have few interests", "interests", False),
        ("in a few days, with breakfast", "breakfast", True),
        ("with free wifi please", "free_wifi", True),
        ("an unfurnished flat", "furnished", False),
        ("Book a one-way trip", "round_trip", None),
        ("It's a gift for my mom", "gift_wrap", None),
        ("My email is a@b.com", "send_confirmation_email", None),
    ],
)
def test_true_or_false(turn: str, name: str, value: bool | None) -> None:
    assert best(turn, **{name: "B"}) == {name: value}


@pytest.mark.parametrize(
    ("turn", "parameters", "values"),
    [
        ("Order 2 pizzas", {"item": "S*", "quantity": "I*"}, {"item": "pizzas", "quantity": 2}),
        ("Find 3 hotels near Lyon", {"place": "S*", "count": "I*"}, {"place": "Lyon", "count": 3}),
        ("In 2024 Apple made profits", {"company": "S*", "year": "I*"}, {"company": "Apple", "year": 2024}),
        ("My order number is 4821 and my phone is 555-123-4567", {"phone": "S*", "order_id": "S*"},
         {"phone": "555-123-4567", "order_id": "4821"}),
        ("Send 20 bucks to Maria", {"recipient": "S*:Name of the person", "amount": "N*"},
         {"recipient": "Maria", "amount": 20}),
        ("What time is it in Europe/Paris?", {"time_zone": "S*"}, {"time_zone": "Europe/Paris"}),
        ("What is the population of the US?", {"country": "S*"}, {"country": "US"}),
        ("Fly to Boston June 5", {"city": "S*"}, {"city": "Boston"}),
        ("I'm in LA. What is the weather?", {"city": "S*"}, {"city": "LA"}),
        ("This is Ann. The lamp is broken", {"name": "S*"}, {"name": "Ann"}),
        ("I met Dr. Smith", {"name": "S*"}, {"name": "Dr. Smith"}),
        ("New York weather", {"city": "S*"}, {"city": "New York"}),
        ("weather in berlin tomorrow", {"city": "S*"}, {"city": "berlin"}),
        ("Borrow 100K dollars", {"amount": "N*"}, {"amount": 100_000}),
        ("Revenue of $2bn", {"amount": "I*"}, {"amount": 2_000_000_000}),
        ("a budget of $5m", {"amount": "I*"}, {"amount": 5_000_000}),
        ("three thousand five hundred", {"n": "I*"}, {"n": 3500}),
        ("two dozen eggs", {"n": "I*"}, {"n": 24}),
        ("a thousand people", {"n": "I*"}, {"n": 1000}),
        ("at least 5 minutes", {"min_duration": "I*:Minimum duration in seconds"}, {"min_duration": 300}),
        ("set brightness to 40%", {"brightness": "I*:Brightness from 0 to 100"}, {"brightness": 40}),
        ("hotels for less than $100", {"max_price": "I*"}, {"max_price": 100}),
        ("hikes of more than 2 hours", {"minutes": "I*:Minimum length in minutes"}, {"minutes": 120}),
        ("it costs 25,50 €", {"price": "N*"}, {"price": 25.5}),
        ("a rate of 6,5 %", {"rate": "N*:Interest rate as a fraction"}, {"rate": 0.065}),
        ("5\u00a0km away", {"distance": "N*:in metres"}, {"distance": 5000}),
        ("a file of 500 mb", {"size": "N*:Size in GB"}, {"size": 0.5}),
        ("1 hour and 30 minutes", {"seconds": "I*:Duration in seconds"}, {"seconds": 5400}),
        ("1 hour and 30 minutes", {"hours": "I*", "minutes": "I*"}, {"hours": 1, "minutes": 30}),
        ("two and a half hours", {"minutes": "N*:Duration in minutes"}, {"minutes": 150}),
        ("5 feet 11 inches", {"height": "N*:Height in cm"}, {"height": 180.34}),
        ("for half an hour", {"minutes": "I*:Duration in minutes"}, {"minutes": 30}),
        ("within a week", {"days": "I*:Time in days"}, {"days": 7}),
        ("from 50 to 100 dollars", {"max_price": "N*", "min_price": "N*"}, {"max_price": 100, "min_price": 50}),
        ("$50-$100", {"max_price": "N*", "min_price": "N*"}, {"max_price": 100, "min_price": 50}),
        ("500 g of flour and 200 g of sugar", {"sugar": "N*", "flour": "N*"}, {"sugar": 200, "flour": 500}),
        ("3 liters of milk and 2 kg of apples", {"apples": "N*", "milk": "N*"}, {"apples": 2, "milk": 3}),
    ],
)  # fmt: skip
def test_values(turn: str, parameters: dict[str, str], values: dict[str, Any]) -> None:
    found = best(turn, **parameters)
    assert found == {**found, **values}


CANCEL = ToolSpec("cancel_order", "Cancel an order.", {"properties": {"order_id": {"type": "string"}}})
STATUS = ToolSpec("get_order_status", "Tell the status of an order.", CANCEL.parameters)
HOTEL = ToolSpec("book_hotel", "Book a hotel.", {"properties": {"city": {"type": "string"}}})
FLIGHTS = ToolSpec("find_flights", "Find flights.", HOTEL.parameters)


@pytest.mark.parametrize(
    ("turn", "tools", "asked"),
    [
        ("Don't cancel order 123, just give me its status", [CANCEL, STATUS], ["get_order_status"]),
        ("I do not need a hotel, only flights to Rome", [HOTEL, FLIGHTS], ["find_flights"]),
        ("I can't find my order 123, what is its status?", [CANCEL, STATUS], ["get_order_status"]),
        ("Please cancel order 12, I don't need it anymore", [CANCEL, STATUS], ["cancel_order"]),
        ("Where is my order 123?", [CANCEL, STATUS], []),
    ],
)
def test_a_tool_that_the_turn_refuses_is_not_asked_for(
    turn: str, tools: list[ToolSpec], asked: list[str]
) -> None:
    for several in (False, True):
        assert [tools[section.tool].name for section in plan(turn, tools, several)] == asked


def test_a_value_that_is_denied_is_not_the_one_of_an_enumeration() -> None:
    schema = {"type": "object", "properties": {"color": {"type": "string", "enum": ["red", "blue"]}}}
    for turn, color in (("Not red, I prefer the blue one", "blue"), ("Not red", "red")):
        (parameter,) = evidence(schema, turn)[0]
        assert [candidate.json for candidate in parameter.candidates] == [json.dumps(color)]
