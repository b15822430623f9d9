"""How well a span of a text fits a parameter: by type and unit, by the words and the preposition beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import ge, gt, le, lt
from typing import Any

from agentkit.llm.english import words
from agentkit.llm.places import CITIES, REGIONS, WITHIN
from agentkit.llm.slots import (
    Slot,
    kind_of_format,
    kinds_in,
    parts_of,
    root_of,
    stem_of,
    stems,
    takes_currency,
    text_kind,
)
from agentkit.llm.spans import Span, is_month
from agentkit.llm.units import currency, unit

_PREPOSITIONS = {
    "from": "from source origin start departure sender input base begin",
    "to": "to target destination end goal arrival recipient output into",
    "into": "to target destination output into",
    "in": "city town village district area location place country state region language currency court unit year"
    " folder room color colour target",
    "at": "location place address time rate restaurant venue",
    "on": "date day",
    "by": "author artist director by creator",
    "for": "restaurant person customer city place",
    "under": "max maximum limit price", "below": "max maximum", "over": "min minimum", "above": "min minimum",
    "since": "from start year", "until": "end to return", "till": "end to return", "named": "name title",
    "called": "name title label", "labelled": "label title", "with": "percent reference subject",
}  # fmt: skip
_TWO_CAPITALS = re.compile(r"[A-Z]\S* [A-Z]")
_OF_ANOTHER = re.compile(r"\d ?\w* of (?:the )?\w+(?: \w+)?(?:,|,? (?:and|plus)) $")
"""What "500 g of flour and " says is not about the number that follows."""
_SIGN = "[$€£]?"
_BOUNDS = (
    (
        re.compile(
            rf"\bfrom {_SIGN}[\d.,]+(?: ?\w+)? to {_SIGN}$|(?<!\w){_SIGN}\d[\d.,]* ?[-–] ?{_SIGN}$"
            r"|(?:\b(?:at most|(?:no|not) more than|up to|less than|maximum of|max\.?)|n't(?: \w+){1,4} more than)"
            r" ?[$€£]?$",
            re.I,
        ),
        words("max maximum limit highest most largest upper"),
    ),
    (
        re.compile(r"\b(?:at least|(?:no|not) less than|more than|minimum of|min\.?|from) ?[$€£]?$", re.I),
        words("min minimum lowest fewest least smallest lower"),
    ),
)
"""What stands before a bound, and the words of a parameter that takes it."""
_NEAR = 60
"""Characters before a number in which that is looked for."""
LEADS_TO = re.compile(r" (?:in)?to (?!be\b)")
_SOURCES = words("from source base origin start")
_TARGETS = words("to target destination end into")
_OF_WHAT = re.compile(r" of (?:the )?([^\W\d_]{2,})")
_RANGES = (
    (
        re.compile(r"\bbetween (?:the )?(?:\w+ ){0,2}$", re.I),
        words("from start lower min minimum low begin origin source"),
    ),
    (
        re.compile(r"\bbetween [^,;.?!]{1,40} and (?:the )?(?:\w+ ){0,2}$", re.I),
        words("to end upper max maximum high finish destination target stop"),
    ),
)
"""What stands before the ends of a range or way, and the words of parameters that take them."""
_SHARES = re.compile(r"rate|percent|fraction|probab|ratio|interest|discount|chance|share|confidence|0 to 1")
_ABBREVIATED = re.compile(r"\biso\b|currency|\bsymbol|ticker|abbreviat|language code|country code")
_PER = re.compile(r"\b(?:per|a|an|each)[ _](\w+)")


def fit_of(slot: Slot, span: Span, turn: str, known: set[str]) -> float | None:
    """How well a span fits a parameter; none where it cannot be its value."""
    if slot.type in ("number", "integer"):
        base = _number_fit(slot, span, turn)
    elif slot.type == "string" and "enum" not in slot.schema:
        base = _text_fit(slot, span)
        if base is not None and span.kind in ("name", "phrase", "code"):
            base += _place_fit(slot, span, turn, known)
    else:
        return None
    return None if base is None else base + _cues(slot, span, turn, known)


_DEGREES = frozenset(
    ["K", "°C", "°F", "celsius", "Celsius", "fahrenheit", "Fahrenheit", "kelvin", "Kelvin", "kelvins"]
)
_TEMPERATURE = re.compile(r"temp|heat|cool|kelvin|celsius|fahrenheit|degree|°", re.I)


def _number_fit(slot: Slot, span: Span, turn: str) -> float | None:
    if span.kind != "number" or turn[: span.start].endswith("per "):
        return None
    value = converted(slot, span)
    if (slot.type == "integer" and not float(value).is_integer()) or not _within(slot.schema, value):
        return None
    # "two numbers, 4 and 5": what is written out mostly counts
    fit = 0.0 if re.search(r"\d", span.text) else -0.75
    rate = _PER.match(turn[span.end :].lstrip())
    if rate and re.search(rf"per {re.escape(stem_of(rate[1].lower()))}", slot.about_text):
        fit += 3.0
    if span.unit in _DEGREES and slot.type in ("number", "integer"):
        fit += 2.5 if _TEMPERATURE.search(f"{slot.name} {slot.about_text}") else -2.0
    elif span.unit and not rate:
        measured = unit(span.unit)
        wanted = slot.units()
        if measured and measured[0] in {each[0] for each in wanted}:
            fit += 2.5
        elif measured and wanted:
            fit -= 2.0
        stem = root_of(span.unit.lower())
        fit += 3.0 if stem in slot.words else 1.5 if stem in slot.about else 0.0
        if span.unit == "%":
            fit += 2.0 if _SHARES.search(slot.about_text) else 0.0 if "%" in slot.about_text else -2.0
    elif re.search(r"year", slot.name) and isinstance(value, int) and 1000 <= value <= 2200:
        fit += 2.5
    return fit


_LIMITS = (("minimum", ge), ("maximum", le), ("exclusiveMinimum", gt), ("exclusiveMaximum", lt))


def _within(schema: Mapping[str, Any], value: int | float) -> bool:
    """Whether a number keeps to the limits that a schema sets."""
    limits = ((compare, schema.get(key)) for key, compare in _LIMITS)
    return all(
        compare(value, limit)
        for compare, limit in limits
        if isinstance(limit, int | float) and not isinstance(limit, bool)
    )


def converted(slot: Slot, span: Span) -> int | float:
    """The number in the unit that the parameter asks for."""
    value: int | float = span.value
    about = slot.about_text
    if span.unit == "%":
        fraction = slot.type == "number" and (
            re.search(r"fraction|decimal|0\.\d|0 to 1\b|probab", about) or not re.search(r"percent|%", about)
        )
        return _rounded(value / 100) if fraction else value
    measured = unit(span.unit) if span.unit else None
    if measured is None:
        return value
    same = [factor for what, factor in slot.units() if what == measured[0]]
    return value if not same or measured[1] in same else _rounded(value * measured[1] / same[0])


def _rounded(value: float) -> int | float:
    value = float(f"{value:.12g}")
    return int(value) if value.is_integer() else value


def _text_fit(slot: Slot, span: Span) -> float | None:
    if kind_of_format(slot) == "date":
        return 4.0 if span.kind == "date" else None
    about, name = slot.about_text, slot.name.replace("_", " ").lower()
    if re.search(r"\bunits?\b", name):
        return 2.0 if unit(span.text) and span.kind == "phrase" else None
    if "month" in slot.words and is_month(span.text):
        return 4.0
    if takes_currency(slot):
        return 4.0 if currency(span.text) else None
    if _ABBREVIATED.search(about) and re.fullmatch(r"[A-Z]{2,5}", span.text):
        return 4.0
    strict = text_kind(slot)
    if strict in ("email", "date", "time") and span.kind != strict:
        return None
    wants, by_name = kinds_in(about), kinds_in(name)
    if span.kind == "code" and span.text.isdigit() and "code" not in wants:
        return None
    # a first word is mostly a verb, unless another capital follows: "New York weather"
    verb = (
        1.5
        if not span.start and span.kind in ("name", "phrase") and not _TWO_CAPITALS.match(span.text)
        else 0.0
    )
    if span.kind in by_name:
        return 3.0 - verb
    if span.kind == "quoted" and "name" in by_name:  # the name of a work
        return 3.5
    if span.kind == "code" and "formula" in by_name:  # of a molecule
        return 2.0
    if span.kind in wants:
        return 2.0 - verb
    fits = {"quoted": 1.5, "name": 1.0, "phrase": 0.5, "code": 0.0, "path": -1.0, "email": -1.0}
    return None if span.kind not in fits else fits[span.kind] - verb


_REGIONS = words("state country nation province region")
_TOWNS = words("city town")
_PLACES = words("location place address destination origin area venue")


_BEHIND = re.compile(r"[A-ZÄÖÜÀ-Þ][\w'’.-]+, $")


def _place_fit(slot: Slot, span: Span, turn: str, known: set[str]) -> float:
    """Whether the parameter takes cities, states or countries, or the one within the other."""
    own = set(parts_of(slot))
    together = bool(own & (_TOWNS | _PLACES)) and not known & _REGIONS
    if WITHIN.search(span.text):
        return 1.0 if together else -3.0
    if together and _BEHIND.search(turn[: span.start]) and span.text in REGIONS:
        return -4.0
    if span.text in REGIONS:
        if own & _REGIONS:
            return 2.0
        return -2.0 if span.text not in CITIES and own & _TOWNS else 0.0
    return -2.0 if own & _REGIONS and known & _TOWNS else 0.0


def takes_regions(slot: Slot) -> bool:
    """Whether a parameter is a state or a country."""
    return bool(_REGIONS & set(parts_of(slot)))


def _cues(slot: Slot, span: Span, turn: str, known: set[str]) -> float:
    """Words around a span that speak of the parameter."""
    before = re.split(r"[.!?;](?:\s|$)", turn[: span.start])[-1]
    if _OF_ANOTHER.search(before):
        before = ""
    words = re.findall(r"[^\W\d_][\w'-]*\d?", before.lower())[-4:]
    fit = 0.0
    for distance, word in enumerate(reversed(words)):
        stem = root_of(word)
        near = max(0.0, 1 - distance * 0.2)
        if stem in slot.words or word in slot.words:
            fit += 4.0 * near
            break
        if stem in slot.about:
            fit += 1.0 * near
        if stem in known:
            break  # it speaks of another parameter
    if slot.words & {"unit", "currency"} and re.search(r"\d[\d.,]* ?$", turn[: span.start]):
        fit += -2.0 if slot.words & {"to", "target"} else 2.0
    if words:
        roles = _PREPOSITIONS.get(words[-1] if words[-1] != "the" else (words[-2:-1] or [""])[0], "").split()
        parts = parts_of(slot)
        away = bool({"from", "source", "origin"} & set(parts)) and "from" not in roles
        if not away and any(role in slot.words or role in parts for role in roles):
            fit += 3.0
        elif not roles and words[-2:-1]:  # "from page 4"
            roles = _PREPOSITIONS.get(words[-2], "").split()
            fit += 1.5 if any(role in slot.words or role in parts for role in roles) else 0.0
    lead = turn[max(0, span.start - _NEAR) : span.start]
    if slot.type != "boolean" and any(
        pattern.search(lead) and roles & set(parts_of(slot)) for pattern, roles in reversed(_RANGES)
    ):
        fit += 3.0
    if LEADS_TO.match(turn, span.end) and span.kind != "number":
        own = set(parts_of(slot))
        fit += 1.5 if own & _SOURCES else -3.0 if own & _TARGETS else 0.0
    if span.kind == "number":
        bound = next((roles for pattern, roles in _BOUNDS if pattern.search(lead)), frozenset())
        fit += 3.0 if bound & {*parts_of(slot), *slot.about} else 0.0
    follows = re.split(r"[.!?;,]", turn[span.end : span.end + 40])[0]
    # the first numbers of a list are followed by its unit too; what is measured stands behind the unit: "3 l of milk"
    counted = span.unit if span.unit != "%" else ""
    if counted and (behind := _OF_WHAT.match(follows, follows.find(counted) + len(counted))):
        counted = f"{behind[1]} {counted}"
    after = re.findall(r"[^\W\d_][\w'-]*", (counted or follows).lower())[:2]
    for distance, word in enumerate(after):
        stem = root_of(word)
        if stem in slot.words:
            fit += 2.5 - distance
            break
    inside = set(stems(span.text))
    if span.kind in ("phrase", "name") and inside & slot.words and inside - slot.words - slot.about:
        fit += 2.0  # "the living room"
    if span.kind == "name" and inside & (known - slot.words - slot.about):
        fit -= 1.5  # "the Sheraton Hotel" is no location where there is a parameter for hotels
    if span.kind in ("phrase", "name") and inside and inside <= (slot.words | slot.about | known):
        fit -= 4.0  # the parameter's own name is not its value
    return fit
