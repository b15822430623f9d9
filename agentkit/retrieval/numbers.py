"""Numbers, amounts and dates of a text in one form: ``€4.90`` is ``4.9 euros``, ``thirty`` is 30."""

from __future__ import annotations

import re
from typing import NamedTuple

_FROM_TWO = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_SPELLED = {word: value for value, word in enumerate(_FROM_TWO.split(), start=2)} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
}
_UNITS = {
    "€": "€", "eur": "€", "euro": "€", "$": "$", "usd": "$", "dollar": "$", "£": "£", "gbp": "£",
    "pound": "£", "%": "%", "percent": "%", "per cent": "%", "minute": "minute", "hour": "hour", "day": "day",
    "week": "week", "month": "month", "year": "year", "kg": "kg", "cm": "cm", "mm": "mm", "watt": "watt",
    "°c": "°", "degree": "°",
}  # fmt: skip
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()

_NUMBER = re.compile(
    r"(?P<before>[€$£]\s?)?(?<![\w.,])(?P<value>\d{1,3}(?:[, \u202f]\d{3})+(?:\.\d+)?|\d+(?:[.,:]\d+)*|"
    + rf"(?:{'|'.join(_SPELLED)})\b)(?![\d])"
    r"(?:[\s-]{0,2}(?:(?:working|business|calendar|full|whole)\s+)?"
    r"(?P<after>[€$£%]|°c|per\s?cent|(?:euro|dollar|pound|minute|hour|day|week|month|year|degree|watt)s?\b|"
    r"(?:eur|usd|gbp|kg|cm|mm)\b))?",
    re.IGNORECASE,
)
_MONTH = re.compile(
    rf"\d(?:st|nd|rd|th)?\s+(?:of\s+)?({'|'.join(_MONTHS)})|({'|'.join(_MONTHS)})\s+\d", re.IGNORECASE
)


class Number(NamedTuple):
    """A number with its unit."""

    value: str
    """Decimal, without leading or trailing zeros of no meaning; a time as it stands."""
    unit: str
    """Empty where none follows."""


def numbers(text: str) -> set[Number]:
    """Every number of a text."""
    found = set()
    for match in _NUMBER.finditer(text):
        unit = (match["before"] or match["after"] or "").strip().lower()
        unit = "percent" if unit.startswith("per") else unit
        found.add(Number(_value(match["value"]), _UNITS.get(unit, _UNITS.get(unit.removesuffix("s"), ""))))
    return found


def contradicts(sentence: str, passage: str) -> bool:
    """Whether the sentence has a number, amount or date that the passage has not.

    ``14 days`` needs ``14 days`` or a bare ``14`` (as in "14 to 30 days"); a bare ``14`` needs any ``14``.
    """
    stated = numbers(passage)
    values = {number.value for number in stated}
    for number in numbers(sentence):
        bare = Number(number.value, "")
        if number not in stated and bare not in stated and not (number == bare and number.value in values):
            return True
    return not _months(sentence) <= _months(passage)


def _value(text: str) -> str:
    if text.lower() in _SPELLED:
        return str(_SPELLED[text.lower()])
    if ":" in text or text.count(".") > 1:
        return text
    if re.fullmatch(r"\d{1,3}(?:[, \u202f]\d{3})+(?:\.\d+)?", text):
        text = re.sub(r"[, \u202f]", "", text)
    text = text.replace(",", ".")
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _months(text: str) -> set[str]:
    return {(match[1] or match[2]).lower() for match in _MONTH.finditer(text)}
