"""What is found in a text, and where; units of measurement."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import pytest

from agentkit.llm import english, numbers
from agentkit.llm import spans as module
from agentkit.llm.english import is_english
from agentkit.llm.spans import LIMIT, MOST, Span, spans
from agentkit.llm.units import unit, units_in


def of_kind(text: str, kind: str) -> list[Span]:
    found = [span for span in spans(text) if span.kind == kind]
    for span in found:  # the quotes belong to the place, not to the text
        assert text[span.start : span.end].strip("\"'`“”‘’«» ") == span.text.strip("'")
    return found


def values(text: str, kind: str) -> list[Any]:
    return [span.value for span in of_kind(text, kind)]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,250 and 1,234,567", [1250, 1234567]),
        ("1,2,3", [1, 2, 3]),
        ("1,2345", [1, 2345]),
        ("-5 and −5.5", [-5, -5.5]),
        ("x=-3", [-3]),
        ("it fell to minus 5", [-5]),
        ("10 minus 5", [10, 5]),
        ("2 million, 3 thousand, 1.5 billion", [2_000_000, 3000, 1_500_000_000]),
        ("2.5k or 2.5e3", [2500, 2500.0]),
        ("1e-4", [0.0001]),
        ("8.5 x 10^-12 F/m and 2 × 10^3", [8.5e-12, 2000.0]),
        ("a 7-day trip, a 5-star hotel", [7, 5]),
        ("9 m/s^2 for 4 m", [9, 4]),
        ("3x^2 + 4", []),
        ("from $1M to $1.2M, 5M acid", [1_000_000, 1_200_000, 5]),
        ("$1,200.50, €20, -$5, $-6", [1200.5, 20, -5, -6]),
        ("take .5 or 0.5", [0.5, 0.5]),
        ("three apples, twice", [3, 2]),
        ("one hundred", [100]),
        ("two hundred and seventy-five", [275]),
        ("two hundred thousand", [200_000]),
        ("twenty-five, seventeen", [25, 17]),
        ("one, two, and five", [1, 2, 5]),
        ("anyone often fortyish", []),
        ("version 1.2.3", []),
        ("at 5.", [5]),
        ("(5)", [5]),
        ("9" * 99, [int("9" * 99)]),
        ("9" * 400, []),
        ("9" * 99 + " thousand", []),
        ("1e999 and 1e308 billion", []),
    ],
)
def test_numbers(text: str, numbers: list[float]) -> None:
    found = values(text, "number")
    assert (found, [type(value) for value in found]) == (numbers, [type(value) for value in numbers])


@pytest.mark.parametrize(
    ("text", "measure"),
    [
        ("40 %", (40, "%")),
        ("40% of it", (40, "%")),
        ("3 percent", (3, "%")),
        ("100 µF", (100, "µF")),
        ("5 km/h", (5, "km/h")),
        ("230V", (230, "V")),
        ("10mg", (10, "mg")),
        ("three nights", (3, "nights")),
        ("2 million people", (2_000_000, "people")),
    ],
)
def test_units_of_numbers(text: str, measure: tuple[float, str]) -> None:
    found = of_kind(text, "number")[0]
    assert (found.value, found.unit) == measure


@pytest.mark.parametrize(
    "text",
    ["2027-05-03", "2027/5/3", "3.5.2027", "05/03/2027", "5-3-2027", "3 May 2027", "3rd of May 2027", "3. May 2027",
     "May 3rd, 2027", "may 3 2027", "MAY 3, 2027", "May. 3, 2027"],
)  # fmt: skip
def test_dates(text: str) -> None:
    sentence = f"Be there on {text}, please"
    (found,) = of_kind(sentence, "date")
    assert (found.value, found.text) == (date(2027, 5, 3), text)
    assert values(sentence, "number") == []  # its parts are no numbers


def test_a_day_that_cannot_be_a_month() -> None:
    assert values("31/12/2026 or 12/31/2026", "date") == [date(2026, 12, 31)] * 2
    assert values("Sept. 5, 2026", "date") == [date(2026, 9, 5)]
    assert values("29 February 2028", "date") == [date(2028, 2, 29)]


@pytest.mark.parametrize(
    "text", ["2026-02-30", "13/13/2026", "Apr 31, 2027", "29 Feb 2027", "0.0.2027", "2027-00-10", "may 2027"]
)
def test_no_dates(text: str) -> None:
    assert values(text, "date") == []


@pytest.mark.parametrize(
    ("text", "at"),
    [("7:30 pm", "19:30"), ("19:30", "19:30"), ("7pm", "19:00"), ("7 a.m.", "07:00"), ("12 am", "00:00"),
     ("12:00 p.m.", "12:00"), ("06:05:30 am", "06:05")],
)  # fmt: skip
def test_times(text: str, at: str) -> None:
    assert values(f"Come at {text}", "time") == [at]


@pytest.mark.parametrize("text", ["25:00", "12:60", "1:2", "a7pm"])
def test_no_times(text: str) -> None:
    assert values(text, "time") == []


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("mail me at a.b+c@x.co.uk.", "email", ["a.b+c@x.co.uk"]),
        ("a@b.co.uk", "path", []),
        ("see https://x.org/a?b=1.", "path", ["https://x.org/a?b=1"]),
        ("photos/cat.jpg, ~/x and ./b.gif", "path", ["photos/cat.jpg", "~/x", "./b.gif"]),
        ("“hi” «x» `code` \"it's\" 'don't do'", "quoted", ["hi", "x", "code", "it's", "don't do"]),
        ("\"\" ''", "quoted", []),
        ("parcel JD014600003GB", "code", ["JD014600003GB"]),
        ("call 555-123-4567", "code", ["555-123-4567"]),
        ("ACGTACGT", "code", ["ACGTACGT"]),
        ("f = 3x^2 + 2x - 1", "formula", ["3x^2 + 2x - 1"]),
        ("x**2+1", "formula", ["x**2+1"]),
        ("about the New York Times", "name", ["New York Times"]),
        ("by O'Neil", "name", ["O'Neil"]),
        ("in the grey living room, please", "phrase", ["grey living room"]),
    ],
)
def test_other_kinds(text: str, kind: str, found: list[str]) -> None:
    assert values(text, kind) == found


def test_a_name_keeps_its_connectors() -> None:
    assert "R vs Adams" in values("the case R vs Adams", "name")


def test_what_is_quoted_is_not_read_again() -> None:
    assert [span.kind for span in spans('"5 May 2027 at 7pm for a@b.org"') if span.kind == "number"] == []


HOSTILE = ["9", "9,", "9.", "9 ", "'", "' a", '"', "“", "`", ",", ".", "a'", "a.", "a-", "a/", "A ", "A of ", "1 A ",
           "3x+", "x(", "x^2 ", "(1 ", "a@", "a@a.", "http://", "~", "\\", "1-", "1/", "1:", "é", "٣", "²", "A&",
           "May 1, ", "one ", "twenty ", "minus ", "ACGT", "$", "1e", "\x00", "\u200b", "\ud800", "\U0001f600",
           "Abc def "]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_texts_are_bounded_and_fast(part: str) -> None:
    text = part * (100_000 // len(part))
    started = time.thread_time()
    found = spans(text)
    is_english(text)
    assert time.thread_time() - started < 1
    assert len(found) <= MOST
    assert all(0 <= span.start < span.end <= LIMIT for span in found)


PATTERNS = [
    pattern
    for each in (english, numbers, module)
    for pattern in vars(each).values()
    if hasattr(pattern, "finditer") and hasattr(pattern, "pattern")
]
PATTERNS += [pattern for pattern, _ in module._DATES]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:24])
def test_no_pattern_explodes(pattern: Any) -> None:
    for part in HOSTILE:
        text = part * (LIMIT // len(part)) + "!"
        started = time.thread_time()
        for _ in pattern.finditer(text):
            pass
        assert time.thread_time() - started < 0.5, part


def test_english() -> None:
    for text in ("Set an alarm.", "Convert feet to meters.", "A table at Casa de la Luna, please"):
        assert is_english(text), text
    for text in (
        "Wie ist das Wetter in Oslo?",
        "Quel temps fait-il à Oslo ?",
        "¿Qué tiempo hace?",
        "天気",
        "",
        "5",
    ):
        assert not is_english(text), text


@pytest.mark.parametrize(
    ("word", "measure"),
    [
        ("km", ("metre", 1000)), ("meters", ("metre", 1)), ("kilometres", ("metre", 1000)), ("cm", ("metre", 0.01)),
        ("inches", ("metre", 0.0254)), ("miles", ("metre", 1609.344)), ("kg", ("gram", 1000)),
        ("milligrams", ("gram", 0.001)), ("lbs", ("gram", 453.59237)), ("ms", ("second", 0.001)),
        ("hours", ("second", 3600)), ("µF", ("farad", 1e-6)), ("uF", ("farad", 1e-6)), ("mV", ("volt", 0.001)),
        ("MHz", ("hertz", 1e6)), ("ml", ("litre", 0.001)), ("m/s", ("metre/second", 1)), ("years", ("month", 12)),
        ("km/h", ("metre/second", 1000 / 3600)), ("miles per hour", ("metre/second", 1609.344 / 3600)),
        ("%", ("percent", 1)), ("GB", ("byte", 1e9)), ("Ω", ("ohm", 1)),
    ],
)  # fmt: skip
def test_conversion_factors(word: str, measure: tuple[str, float]) -> None:
    found = unit(word)
    assert found is not None
    assert (found[0], found[1]) == (measure[0], pytest.approx(measure[1]))


@pytest.mark.parametrize("word", ["", "apples", "/", "m/", "m/s/s", "per", " per ", "Oslo"])
def test_other_words_are_no_units(word: str) -> None:
    assert unit(word) is None


def test_units_of_a_description() -> None:
    assert units_in("Speed in km/h, not in metres per second") == [unit("km/h"), unit("m/s")]
    assert units_in("a b m s") == []
    assert units_in("Share in %") == [unit("%")]


@pytest.mark.parametrize(
    ("text", "value"), [("it is -$5", -5), ("it is $-5", -5), ("it is --5", 5), ("is −-5", 5)]
)
def test_signs(text: str, value: int) -> None:
    assert [span.value for span in spans(text) if span.kind == "number"] == [value]


def test_a_unit_with_a_power_is_one() -> None:
    found = next(span for span in spans("accelerates at 9.8 m/s^2 for 3 s") if span.kind == "number")
    assert found.unit == "m/s^2"
    assert unit("m/s^2") == unit("m/s²") == ("metre/second^2", 1.0)
    assert unit("cm^3") == ("metre^3", pytest.approx(1e-6))
    assert not [span for span in spans("at 9.8 m/s^2") if span.kind == "path"]


def test_the_owner_of_a_thing() -> None:
    assert "Apple" in [span.text for span in spans("price of Apple's stock") if span.kind == "name"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("₹1,00,000 to Ravi", [100_000]), ("1'000 CHF", [1000]), ("1.234,56 €", [1234.56]), ("10,00,000", [1_000_000]),
     ("1,23,45", [1, 23, 45]), ("1.234 and 5", [1.234, 5])],
)  # fmt: skip
def test_groups_of_digits_elsewhere(text: str, numbers: list[float]) -> None:
    assert values(f"Transfer {text}", "number") == numbers


@pytest.mark.parametrize(
    "code",
    [
        "555 123 4567",
        "SW1A 1AA",
        "K1A 0B1",
        "DE89 3704 0044 0532 0130 00",
        "4111 1111 1111 1111",
        "555.123.4567",
    ],
)
def test_a_code_in_groups_is_one(code: str) -> None:
    found = values(f"My number is {code}, thanks", "code")
    assert found == [code]


@pytest.mark.parametrize(
    ("text", "at"),
    [("tonight at 7:30", "19:30"), ("7:30 in the evening", "19:30"), ("dinner at 8:00", "20:00"),
     ("7:30 in the morning", "07:30"), ("tonight at 19:30", "19:30"), ("7:30", "07:30")],
)  # fmt: skip
def test_the_evening_is_late(text: str, at: str) -> None:
    assert values(text, "time") == [at]


@pytest.mark.parametrize("text", ["9" * 400 + " and a half hours", "$" + "9" * 400 + "m"])
def test_numbers_that_nothing_can_hold_are_none(text: str) -> None:
    assert not [span for span in spans(text) if span.kind == "number"]
