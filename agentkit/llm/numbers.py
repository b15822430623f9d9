"""Numbers in English texts, in digits and in words, and what they count."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agentkit.llm.english import SMALL, words
from agentkit.llm.units import currency, unit

_ONES = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_WORDS = {**_ONES, **_TENS, "zero": 0, "once": 1, "twice": 2, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13,
          "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
          "hundred": 100}  # fmt: skip
_SCALES = {"dozen": 12, "thousand": 1e3, "k": 1e3, "million": 1e6, "mln": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9,
           "b": 1e9, "trillion": 1e12}  # fmt: skip
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_POWER = r"(?:[eE][-+]?\d+| ?[x×] ?10\^[-−]?\d+)"
"""``1e-4``, ``8.8 x 10^-12``"""
_TO_99 = (
    rf"(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_ONES)})|{'|'.join(w for w in _WORDS if w != 'hundred')})"
)
_TEENS = "eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
_NUMBER = re.compile(
    rf"(?<![\w.^])(?:(?<=[\s(\[,=:])|(?<!.))(?:[-−][$€£]|[$€£][-−]|[-−$€£])?{_DIGITS}{_POWER}?"
    rf"|(?<![\w.^])[$€£]?{_DIGITS}"
    rf"|(?<!\w)(?:(?:(?:{'|'.join(_ONES)}|{_TEENS}) )?hundred(?:(?: and)? {_TO_99})?|{_TO_99})(?!\w)",
    re.I,
)
_SPACES = {ord(space): " " for space in "\u00a0\u2009\u202f"}
_COMMA = re.compile(
    r"(?<![\d.,])(\d+),(\d{1,2})(?= ?(?:€|£|%|(?i:euros?|eur|usd|gbp|chf|liter|stunden?|hours?)\b"
    r"|(?:mm|m|cm|km|kg|g|l|ml)\b))|(?<=[€£])(\d+),(\d{2})(?!\d)"
)
"""A comma before decimals, where a unit follows: "25,50 €". Without one it may divide a list."""
_GROUPS = re.compile(r"(?<![\d.,])(?:\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:['’]\d{3})+)(?![,'’]?\d)")
"""1,00,000 and 1'000"""
_POINTS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d)")
"""1.234,56"""
_EUROS = re.compile(
    r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?= ?(?:€|(?i:euros?|eur)\b))|(?<=€)\d{1,3}(?:\.\d{3})+(?![.,]?\d)"
)
"""1.500 €"""
_SWAPPED = str.maketrans(".,", ",.")
_MINUS = re.compile(r"(?<![\w-])(?<!\d )(?:minus|negative) $", re.I)
_LARGEST = 1e100
"""A number beyond it is no argument, and its arithmetic would overflow."""
_AFTER_NUMBER = re.compile(
    r"(?: (dozen|thousand|million|billion|trillion)\b|(k|mln|bn)\b)?[ -]?(%|percent\b)?"
    r"(?:[ -]?([a-zA-Zµμ°Ω][\w/²³]*(?:\^-?\d)?))?",
    re.I,
)
_MONEY = re.compile(r"[mMbB]\b")
"""Millions and billions behind a sum of money; "5M" may be molar."""
_COUNTED = re.compile(
    r"\b(?:loans?|salary|salaries|mortgage|budget|invest\w*|transfer\w*|pay(?:s|ing|ment)?|deposit\w*|borrow\w*|income"
    r"|price|cost\w*|revenue|money|savings?|bank|fund\w*|donat\w*|followers|users|views|subscribers)\b",
    re.I,
)
"""Where 250K are thousands, no kelvins."""
_LISTED = re.compile(r",? ?(?:(?:and|or|to) )?")
"""Between the numbers of a list."""
_HALF = re.compile(r" and a half\b| ?½| 1/2(?![\d/])", re.I)
_ONE = re.compile(
    r"(?P<half>\bhalf )an? (?P<unit>[a-z]+)|\b(?:for|in|within|after|lasts?|takes?) an? (?P<other>[a-z]+)"
    r"|\b(?:over|during|in|within|for) the (?:past|last|next|coming) (?P<period>[a-z]+)"
    r"|\ba (?P<many>hundred|thousand|million|billion|dozen)\b(?! (?:and|of|or|times)\b)",
    re.I,
)
"""A quantity without a number: "half an hour", "within a week"."""
_IN_WORDS = re.compile(r"[A-Za-z -]+")
_NO_UNIT = SMALL - words("per")
"""What follows a number without being what it counts."""


class Number(NamedTuple):
    """A number, as it stands in a text."""

    text: str
    start: int
    end: int
    value: int | float
    unit: str = ""
    """The word after it, or ``%``."""


def numbers(text: str) -> list[Number]:
    """The numbers of a text, in its order. In "10, 20 and 30 years" all three are years."""
    single = sorted((*_single_numbers(text), *_quantities(text)), key=lambda number: number.start)
    found = _added_up(single, text)
    for n in range(len(found) - 2, -1, -1):
        number, after = found[n], found[n + 1]
        if (
            not number.unit
            and number.text[0] not in "$€£"
            and _LISTED.fullmatch(text, number.end, after.start)
        ):
            found[n] = number._replace(unit=after.unit)
    return found


def _quantities(text: str) -> Iterator[Number]:
    """Quantities without a number."""
    for match in _ONE.finditer(text):
        if many := match["many"]:
            after = _AFTER_NUMBER.match(text, match.end())
            unit_of = after[4] if after and after[4] and after[4].lower() not in _NO_UNIT else ""
            yield Number(match[0], match.start(), match.end(), int(_SCALES.get(many.lower(), 100)), unit_of)
            continue
        name = match["unit"] or match["other"] or match["period"]
        if match["half"] and name == "dozen":
            yield Number(match[0].strip(), match.start("half"), match.end(), 6, "")
            continue
        if unit(name) is not None and len(name) > 2:
            start = match.start("half") if match["half"] else match.end() - len(name)
            yield Number(text[start : match.end()], start, match.end(), 0.5 if match["half"] else 1, name)


def _added_up(single: Sequence[Number], text: str) -> list[Number]:
    """Number words that follow each other as one number: "three thousand" and "five hundred"."""
    found: list[Number] = []
    for number in single:
        last = found[-1] if found else None
        if last and _IN_WORDS.fullmatch(last.text) and _IN_WORDS.fullmatch(number.text):
            scale = _SCALES.get(last.text.split()[-1].lower(), 0)
            if number.value < scale and text[last.end : number.start] in (" ", " and "):
                whole = text[last.start : number.end]
                found[-1] = Number(whole, last.start, number.end, last.value + number.value, number.unit)
                continue
        found.append(number)
    return found


def _single_numbers(text: str) -> Iterator[Number]:
    said = text  # each of these keeps its length
    text = _GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]).rjust(len(found[0]), "0"), text)
    text = _POINTS.sub(lambda found: found[0].translate(_SWAPPED), text)
    text = _EUROS.sub(lambda found: found[0].replace(".", "").rjust(len(found[0]), "0"), text)
    text = _COMMA.sub(lambda found: found[0].replace(",", "."), text.translate(_SPACES))
    halved = 0
    for match in _NUMBER.finditer(text):
        if match.start() < halved:
            continue  # "1 1/2" is one number
        is_version = re.match(r"\.\d", text[match.end() : match.end() + 2])
        if is_version or (text[match.end() : match.end() + 1].isalpha() and not match[0][-1].isdigit()):
            continue
        minus = _MINUS.search(text, max(0, match.start() - 11), match.start())
        start, end = minus.start() if minus else match.start(), match.end()
        value, unit = _number(match[0].lower()), ""
        if abs(value) >= _LARGEST:
            continue
        if half := _HALF.match(text, match.end()):
            value, end = value + 0.5, half.end()
            halved = end
        after = _AFTER_NUMBER.match(text, end)
        if after is not None:
            scale = (after[1] or after[2] or "").lower()
            kelvins = after[2] == "K" and match[0][0] not in "$€£" and not currency(after[4] or "")
            kelvins = kelvins and not _COUNTED.search(said)
            if kelvins:
                scale, unit = "", "K"
            if not scale and match[0][0] in "$€£" and (money := _MONEY.match(text, match.end())):
                value, end = _exact(value * _SCALES[money[0].lower()]), match.end() + 1
            if scale and abs(value) < _LARGEST:
                value, end = _exact(value * _SCALES[scale]), after.end(1 if after[1] else 2)
            if after[3]:
                unit, end = "%", after.end(3)
            elif not kelvins and after[4] and after[4].lower() not in _NO_UNIT and end <= after.start(4):
                unit = after[4]
        if abs(value) < _LARGEST:
            yield Number(said[start:end], start, end, -value if minus else value, unit)


_PLAIN = str.maketrans({"−": "-", ",": None, "$": None, "€": None, "£": None})


def _number(literal: str) -> int | float:
    parts = [_WORDS.get(word) for word in re.split(r"[- ]", literal) if word != "and"]
    if None in parts:
        plain = re.sub(" ?[x×] ?10\\^", "e", literal.translate(_PLAIN))
        return int(plain) if re.fullmatch(r"-?\d+", plain) else float(plain)
    total = 0
    for part in parts:
        total = (total or 1) * 100 if part == 100 else total + (part or 0)
    return total


def _exact(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
