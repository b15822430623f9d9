"""Numbers, amounts and dates of a text in one form: ``€4.90`` is ``4.9 euros``, ``thirty`` is 30."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_UNITS_TEXT = "one two three four five six seven eight nine"
_TEENS_TEXT = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS_TEXT = "twenty thirty forty fifty sixty seventy eighty ninety"
_SPELLED = {
    **{word: value for value, word in enumerate((*_UNITS_TEXT.split(), *_TEENS_TEXT.split()), start=1)},
    **{word: 10 * value for value, word in enumerate(_TENS_TEXT.split(), start=2)},
    "a": 1, "an": 1, "and": 0,
}  # fmt: skip
_UNITS = {
    "€": "€", "eur": "€", "euro": "€", "$": "$", "usd": "$", "dollar": "$", "£": "£", "gbp": "£",
    "pound": "£", "%": "%", "percent": "%", "per cent": "%", "prozent": "%", "kg": "kg", "cm": "cm", "mm": "mm",
    "watt": "watt", "°c": "°", "degree": "°",
    "minute": "minute", "hour": "hour", "day": "day", "week": "week", "month": "month", "year": "year",
    "minuten": "minute", "stunde": "hour", "stunden": "hour", "tag": "day", "tage": "day", "tagen": "day",
    "woche": "week", "wochen": "week", "monat": "month", "monate": "month", "monaten": "month",
    "jahr": "year", "jahre": "year", "jahren": "year",
}  # fmt: skip
_MONTHS = {
    name: number
    for names in (
        "january february march april may june july august september october november december",
        "januar februar märz april mai juni juli august september oktober november dezember",
    )
    for number, name in enumerate(names.split(), start=1)
}

_SMALL = (
    rf"(?:(?:{_TENS_TEXT.replace(' ', '|')})(?:[\s-](?:{_UNITS_TEXT.replace(' ', '|')}))?"
    rf"|{_TEENS_TEXT.replace(' ', '|')}|{_UNITS_TEXT.replace(' ', '|')})"
)
_HUNDREDS = rf"(?:(?:(?:{_SMALL}|a)[\s-])?hundred(?:\s(?:and\s)?{_SMALL})?|{_SMALL})"
_WORDS = rf"(?:(?:(?:{_HUNDREDS}|a)[\s-])?thousand(?:\s(?:and\s)?{_HUNDREDS})?|{_HUNDREDS})\b"
_NUMBER = re.compile(
    r"(?P<before>[€$£]\s?)?(?<![A-Za-zÀ-ɏ0-9_.,])(?P<sign>(?<!\S)[-−](?=\d))?"
    r"(?P<value>\d{1,3}(?:[, \u202f]\d{3})+(?:\.\d+)?|\d+(?:[.,:]\d+)*|" + rf"{_WORDS}|\ban?(?=\s))(?![\d])"
    r"(?:[\s-]{0,2}(?:(?:working|business|calendar|full|whole)\s+)?"
    r"(?P<after>[€$£](?!\s?\d)|%|°c|per\s?cent|prozent\b|(?:euro|dollar|pound|minute|hour|day|week|month|year|degree|watt)s?\b|"
    r"(?:eur|usd|gbp|kg|cm|mm)\b|(?:tag|monat|jahr)(?:en?)?\b|(?:stunde|woche|minute)n?\b))?",
    re.IGNORECASE,
)
_MONTH = re.compile(
    rf"\d(?:st|nd|rd|th|\.)?\s+(?:of\s+)?({'|'.join(_MONTHS)})\b|\b({'|'.join(_MONTHS)})\s+\d", re.IGNORECASE
)
_MAY = re.compile(r"(?<=\d )may\b")
"""No month: "customers over 18 may order wine"."""
_RATE = re.compile(
    r"(?:\d|[€$£%]|\b(?:euros?|dollars?|pounds?|cents?|percent|once|twice|times|hours?|days?))\s\Z",
    re.IGNORECASE,
)
"""What makes "a month" behind it no duration: "5 euros a month"."""
_THOUSANDS = re.compile(r"\d{1,3}(?:[, \u202f]\d{3})+(?:\.\d+)?")
_EITHER = re.compile(r"[1-9]\d{0,2}\.\d{3}")
"""``4.000``: four in one country, four thousand in another."""

_FULL_WIDTH = str.maketrans("０１２３４５６７８９％", "0123456789%")


class Number(NamedTuple):
    """A number with its unit."""

    value: str
    """Decimal, without leading or trailing zeros of no meaning; a time as it stands, and so is ``4.000``."""
    unit: str
    """Empty where none follows."""


def numbers(text: str) -> set[Number]:
    """Every number of a text; ``one`` is a number before a unit only."""
    return {
        number for number, word in _found(text) if word not in ("a", "an") and (number.unit or word != "one")
    }


def contradicts(sentence: str, passage: str) -> bool:
    """Whether the sentence has a number, amount or date that the passage has not.

    ``14 days`` needs ``14 days`` or a bare ``14`` (as in "14 to 30 days"); a bare ``14`` needs any ``14``.
    """
    stated = {number for number, _ in _found(passage)}
    values = {number.value for number in stated}
    for number in numbers(sentence):
        bare = Number(number.value, "")
        if number not in stated and bare not in stated and not (number == bare and number.value in values):
            return True
    return not _months(sentence) <= _months(passage)


def _found(text: str) -> Iterator[tuple[Number, str]]:
    """Every number, and how it is written."""
    text = text.translate(_FULL_WIDTH)
    for match in _NUMBER.finditer(text):
        unit, written = (match["before"] or match["after"] or "").strip().lower(), match["value"].lower()
        unit = "percent" if unit.startswith("per") else unit
        unit = _UNITS.get(unit, _UNITS.get(unit.removesuffix("s"), ""))
        if written in ("a", "an") and (
            not unit or _RATE.search(text, max(0, match.start() - 12), match.start())
        ):
            continue
        # Elsewhere a dash before a number is more often one of a list, or a discount.
        sign = "-" if match["sign"] == "−" or (match["sign"] and unit == "°") else ""
        yield Number(sign + _value(written), unit), written


def _value(text: str) -> str:
    if text[0].isalpha():
        return str(_spelled(text))
    if ":" in text or text.count(".") > 1 or _EITHER.fullmatch(text):
        return text
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"[, \u202f]", "", text)
    elif "." in text and text.rfind(",") > text.rfind("."):  # 1.234,50
        text = text.replace(".", "")
    text = text.replace(",", ".")
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _spelled(text: str) -> int:
    """``two hundred and fifty`` is 250."""
    thousands, rest = 0, 0
    for word in re.split(r"[\s-]+", text):
        if word in _SPELLED:
            rest += _SPELLED[word]
        elif word == "hundred":
            rest = max(rest, 1) * 100
        else:
            thousands, rest = max(rest, 1) * 1000, 0
    return thousands + rest


def _months(text: str) -> set[int]:
    found = _MONTH.finditer(_MAY.sub("", text))
    return {_MONTHS[(match[1] or match[2]).lower()] for match in found}
