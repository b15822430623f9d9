"""A parameter of a tool, as its name and description present it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentkit.llm.english import words
from agentkit.llm.spans import Kind
from agentkit.llm.units import Unit, units_in

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
_OF_FORMAT: dict[str, Kind] = {"date": "date", "date-time": "date", "time": "time", "email": "email"}
"""The kinds of span that formats of JSON schema ask for."""
_OF_SUCH = words("zone timezone unit units range type format mode style")
"""Last in a name, they make it one of something else: a date range, a file format."""
_FORM = re.compile(r"yyyy|hh:mm")
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
    return [root_of(word) for word in words if word not in _EMPTY]


def stem_of(word: str) -> str:
    """A word without its ending."""
    for ending in ("ies", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) > 2:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def root_of(word: str) -> str:
    """The stem of a word, or of the one that parameters are called by in its place."""
    return stem_of(_SYNONYMS.get(word, word))


def parts_of(slot: Slot) -> list[str]:
    """The words of a parameter's name."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", slot.name).lower())


def takes_currency(slot: Slot) -> bool:
    """Whether a text parameter is a currency."""
    name = slot.name.replace("_", " ").lower()
    return "currenc" in slot.about_text and not re.search(r"number|amount|country|region", name)


def kind_of_format(slot: Slot) -> Kind | None:
    """The kind of span that the format of a parameter's schema asks for."""
    return _OF_FORMAT.get(str(slot.schema.get("format")))


def kinds_in(text: str) -> list[Kind]:
    """The kinds of span that a description or a name in small letters speaks of."""
    return [kind for kind, pattern in _WANTS if re.search(pattern, text)]


def text_kind(slot: Slot) -> Kind | None:
    """The kind of span that a text parameter takes and no other, where its name or the form it asks for tells."""
    if kind := kind_of_format(slot):
        return kind
    about, name = slot.about_text, slot.name.replace("_", " ").lower()
    asked = [kind for kind in kinds_in(about) if kind in ("date", "time") and _FORM.search(about)]
    named = kinds_in(name)
    if named and named[0] in ("email", "path", "date", "time", "code") and not _is_about(named[0], slot):
        return named[0]
    return asked[0] if asked else None


def _is_about(kind: Kind, slot: Slot) -> bool:
    """Whether a parameter's name speaks of an address or a time that its value is not: a subject, a zone, a person."""
    last = parts_of(slot)[-1:]
    if kind == "email":
        mail = re.search(r"mail", slot.description.lower())
        return not (last and re.fullmatch(r"e?mails?|address(?:es)?|to|from|cc|bcc", last[0])) and not mail
    return bool(last) and last[0] in _OF_SUCH
