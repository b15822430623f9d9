"""How well a span of a text fits a parameter: by type and unit, by the words and the preposition beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import ge, gt, le, lt
from typing import Any

from agentkit.llm.english import words
from agentkit.llm.places import CITIES, REGIONS, WITHIN
from agentkit.llm.spans import Kind, Span, is_month
from agentkit.llm.units import Unit, currency, unit, units_in

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
_SYNONYMS = {"tall": "height", "high": "height", "wide": "width", "long": "length", "deep": "depth", "old": "age",
             "aged": "age", "weighs": "weight", "weighing": "weight", "mass": "weight", "moves": "velocity",
             "speed": "velocity", "cost": "price", "costs": "price", "text": "body", "message": "body",
             "arriving": "arrival", "people": "guest"}  # fmt: skip
_EMPTY = words(
    "the a an of in on to for and or is be it by with from as at e g default optional form name number "
    "value string what how which where when that this if given used use between known one its not list"
)
_WANTS: tuple[tuple[Kind, str], ...] = (
    ("email", r"e-?mail|\brecipient"),
    ("path", r"\bpath|\bfile|folder|directory|\bimage|picture|photo|\burl|\blink|website|document"),
    ("date", r"\bdate|\bday\b|birthday|yyyy|deadline|check.?in\b|check.?out\b"),
    ("time", r"\btime\b|hh:mm|o'clock|\bhour\b"),
    ("formula", r"function|equation|expression|polynomial|formula|integrand"),
    (
        "code",
        r"\bids?\b|sequence|tracking|serial|phone|number\b|\bzip\b|postal|account|iban|isbn|\bsku\b|\bvin\b",
    ),
    (
        "quoted",
        r"\btitle|subject|\blabel|\btext|message|\bbody|\bnote|question|pattern|phrase|reference|sentence",
    ),
    (
        "name",
        r"\bname|\btitle|song|album|movie|\bbook|city|country|person|author|artist|company|place|location|state|team|player|street|address",
    ),
)
_SHARES = re.compile(r"rate|percent|fraction|probab|ratio|interest|discount|chance|share|confidence|0 to 1")
_FORM = re.compile(r"yyyy|hh:mm")
_ABBREVIATED = re.compile(r"\biso\b|currency|\bsymbol|ticker|abbreviat|language code|country code")
_PER = re.compile(r"\b(?:per|a|an|each)[ _](\w+)")


_DESCRIPTION = 1_000
"""Characters of a description that are read."""
_NAMED = re.compile(r"(?<!\w)(?:'([^'\n]{1,40})'|\"([^\"\n]{1,40})\"|`([^`\n]{1,40})`)(?!\w)")
"""A value that a description names."""
_VALUE = r"[\w+-]+(?: [\w+-]+){0,2}"
_NAMED_LIST = re.compile(
    r"(?:\(|\b(?:e\. ?g\.|such as|for example|like|either|one of|can be|options?:|options are"
    r"|choices are|values?:),? ?:? ?)"
    rf"((?:{_VALUE}(?:, (?:or |and )?| or | and |/)){{1,20}}{_VALUE})(?=[.);,]|$| etc)",
    re.I,
)
_NAMED_MOST = 60


@dataclass(slots=True)
class Slot:
    """A parameter, and the spans that could be its value."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    words: frozenset[str]
    """Stems of its name."""
    about: frozenset[str]
    """Stems of its description, but for those of values that it names."""
    description: str
    choices: tuple[str, ...] = ()
    """Values that the description names."""
    fits: dict[int, float] = field(default_factory=dict)
    """Span number to fit."""
    chosen: int | None = None

    @property
    def about_text(self) -> str:
        """Name and description in small letters."""
        return f"{self.name.replace('_', ' ')} {self.description}".lower()

    def units(self) -> list[Unit]:
        """What it is measured in, such as metres per second; the unit that a rate is per does not count alone."""
        # "min" is no minute where a name begins with it
        text = f"{self.description} {re.sub(r'^(?:min|max|second)_', '', self.name).replace('_', ' ')}"
        compound = [each for each in units_in(text) if "/" in each[0]]
        return compound or units_in(re.sub(r"(\w+) per \w+", r"\1", text))

    @property
    def type(self) -> str:
        named = self.schema.get("type", "string" if "enum" in self.schema else "any")
        several = [each for each in named if each != "null"] if isinstance(named, list) else [named]
        return str(several[0]) if len(several) == 1 else "any"


def slot_of(name: str, schema: Mapping[str, Any] | bool, required: bool) -> Slot:
    """A parameter as its name and description present it; the schema `true` says nothing about it."""
    schema = schema if isinstance(schema, Mapping) else {}
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1 and isinstance(options[0], Mapping):
        schema = {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    description = str(schema.get("description", ""))[:_DESCRIPTION]
    own = frozenset(stems(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)) or [name.lower()])
    named = _choices(description)
    about = frozenset(stems(description)) - own - {word for value in named for word in stems(value)}
    return Slot(name, schema, required, own, about, description, named)


def _choices(description: str) -> tuple[str, ...]:
    """``by 'train', 'bus' or 'tram'``, ``How to travel (walk, bike, drive)``: values that a description names."""
    found = [next(filter(None, match.groups())) for match in _NAMED.finditer(description)]
    for match in _NAMED_LIST.finditer(description):
        found += re.split(r", (?:or |and )?| or | and |/", match[1])
    return tuple(dict.fromkeys(text.strip() for text in found if text.strip()))[:_NAMED_MOST]


def stems(text: str) -> list[str]:
    """The words of a text that mean something, without their endings."""
    words = re.findall(r"[^\W\d_]+\d?", text.lower())
    return [stem_of(_SYNONYMS.get(word, word)) for word in words if word not in _EMPTY]


def stem_of(word: str) -> str:
    """A word without its ending."""
    for ending in ("ies", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) > 2:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


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
    if span.unit and not rate:
        measured = unit(span.unit)
        wanted = slot.units()
        if measured and measured[0] in {each[0] for each in wanted}:
            fit += 2.5
        elif measured and wanted:
            fit -= 2.0
        stem = stem_of(_SYNONYMS.get(span.unit.lower(), span.unit.lower()))
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
    if _OF_FORMAT.get(str(slot.schema.get("format"))) == "date":
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
    wants = [kind for kind, pattern in _WANTS if re.search(pattern, about)]
    by_name = [kind for kind, pattern in _WANTS if re.search(pattern, name)]
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


def takes_currency(slot: Slot) -> bool:
    """Whether a text parameter is a currency."""
    name = slot.name.replace("_", " ").lower()
    return "currenc" in slot.about_text and not re.search(r"number|amount|country|region", name)


_OF_FORMAT: dict[str, Kind] = {"date": "date", "date-time": "date", "time": "time", "email": "email"}
"""The kinds of span that formats of JSON schema ask for."""


def text_kind(slot: Slot) -> Kind | None:
    """The kind of span that a text parameter takes and no other, where its name or the form it asks for tells."""
    if kind := _OF_FORMAT.get(str(slot.schema.get("format"))):
        return kind
    about, name = slot.about_text, slot.name.replace("_", " ").lower()
    asked = [
        k
        for k, pattern in _WANTS
        if k in ("date", "time") and re.search(pattern, about) and _FORM.search(about)
    ]
    named = [kind for kind, pattern in _WANTS if re.search(pattern, name)][:1]
    if named and named[0] in ("email", "path", "date", "time", "code") and not _is_about(named[0], slot):
        return named[0]
    return asked[0] if asked else None


_OF_SUCH = words("zone timezone unit units range type format mode style")
"""Last in a name, they make it one of something else: a date range, a file format."""


def _is_about(kind: Kind, slot: Slot) -> bool:
    """Whether a parameter's name speaks of an address or a time that its value is not: a subject, a zone, a person."""
    last = parts_of(slot)[-1:]
    if kind == "email":
        mail = re.search(r"mail", slot.description.lower())
        return not (last and re.fullmatch(r"e?mails?|address(?:es)?|to|from|cc|bcc", last[0])) and not mail
    return bool(last) and last[0] in _OF_SUCH


def _cues(slot: Slot, span: Span, turn: str, known: set[str]) -> float:
    """Words around a span that speak of the parameter."""
    before = re.split(r"[.!?;](?:\s|$)", turn[: span.start])[-1]
    if _OF_ANOTHER.search(before):
        before = ""
    words = re.findall(r"[^\W\d_][\w'-]*\d?", before.lower())[-4:]
    fit = 0.0
    for distance, word in enumerate(reversed(words)):
        stem = stem_of(_SYNONYMS.get(word, word))
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
        stem = stem_of(_SYNONYMS.get(word, word))
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


def parts_of(slot: Slot) -> list[str]:
    """The words of a parameter's name."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", slot.name).lower())
