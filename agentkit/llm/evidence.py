"""What a conversation says about the arguments of a call: candidates for each parameter, and how well they fit.

A span of the turn fits a parameter by its type and unit, by the parameter's words beside it ("base 14 cm"), by the
preposition before it ("from Oslo"), and by its place in the order. The best assignment of spans to parameters, each
used once, is weighed heavily; what else would fit is weighed lightly. Weights are in nats: they are added to the
model's own scores, so that a sure model overrules them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentkit.llm.spans import Kind, Span, spans, words
from agentkit.llm.units import Unit, unit, units_in

ASSIGNED = 8.0
"""Weight of the span that fits a parameter best."""
POSSIBLE = 2.0
"""Weight of another span that fits."""
STRUCTURE = 6.0
"""Weight of giving an argument that the turn speaks of, and of leaving out what it does not."""
WEAK = 1.5
"""Fit below which no span is preferred: the model decides between them."""
CUE = 2.5
"""Fit from which on an optional parameter counts as spoken of."""

_PREPOSITIONS = {
    "from": "from source origin start departure sender input base begin",
    "to": "to target destination end goal arrival recipient output into",
    "into": "to target destination output into",
    "in": "city location place country state region language currency court unit year folder room color colour",
    "at": "location place address time rate restaurant venue",
    "on": "date day",
    "by": "author artist director by creator",
    "for": "restaurant person customer city place",
    "under": "max maximum limit price", "below": "max maximum", "over": "min minimum", "above": "min minimum",
    "since": "from start year", "until": "end to return", "till": "end to return", "named": "name title",
    "called": "name title label", "labelled": "label title", "with": "percent reference subject",
}  # fmt: skip
_SYNONYMS = {"tall": "height", "high": "height", "wide": "width", "long": "length", "deep": "depth", "old": "age",
             "aged": "age", "weighs": "weight", "weighing": "weight", "mass": "weight", "moves": "velocity",
             "speed": "velocity", "cost": "price", "costs": "price", "text": "body", "message": "body",
             "number": "phone", "arriving": "arrival", "people": "guest"}  # fmt: skip
_EMPTY = words(
    "the a an of in on to for and or is be it by with from as at e g default optional form name number "
    "value string what how which where when that this if given used use between known one its not list"
)
_NEGATIVE = re.compile(
    r"\b(?:no|not|without|don't|doesn't|never|exclude|excluding|except|off|isn't)\b(?: \w+){0,2} ?$"
)
_WANTS: tuple[tuple[Kind, str], ...] = (
    ("email", r"e-?mail|\brecipient"),
    ("path", r"\bpath|\bfile|folder|directory|\bimage|picture|photo|\burl|\blink|website|document"),
    ("date", r"\bdate|\bday\b|birthday|yyyy|deadline|check.?in\b|check.?out\b"),
    ("time", r"\btime\b|hh:mm|o'clock|\bhour\b"),
    ("formula", r"function|equation|expression|polynomial|formula|integrand"),
    ("code", r"\bids?\b|sequence|tracking|serial|phone|\bzip\b|postal|account|iban|isbn|\bsku\b|\bvin\b"),
    (
        "quoted",
        r"\btitle|subject|\blabel|\btext|message|\bbody|\bnote|question|pattern|phrase|reference|sentence",
    ),
    (
        "name",
        r"\bname|\btitle|song|album|movie|\bbook|city|country|person|author|artist|company|place|location|state|team|player|street|address",
    ),
)
_SHARES = re.compile(r"rate|percent|fraction|probab|ratio|interest|discount|chance|share|0 to 1")
_FORM = re.compile(r"yyyy|hh:mm")
_ABBREVIATED = re.compile(r"\biso\b|currency|\bsymbol|ticker|abbreviat|language code|country code")
_PER = re.compile(r"\b(?:per|a|an|each)[ _](\w+)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that a parameter could have."""

    json: str
    """As it is written in the call."""
    weight: float
    """Nats in its favour."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is known about one parameter."""

    name: str
    candidates: tuple[Candidate, ...] = ()
    weight: float = 0.0
    """Nats in favour of giving it; negative where it is optional and not spoken of."""


@dataclass(slots=True)
class Slot:
    """A parameter, and the spans that could be its value."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    words: frozenset[str]
    """Stems of its name."""
    about: frozenset[str]
    """Stems of its description."""
    description: str
    fits: dict[int, float] = field(default_factory=dict)
    """Span number to fit."""
    chosen: int | None = None

    @property
    def about_text(self) -> str:
        """Name and description in small letters."""
        return f"{self.name.replace('_', ' ')} {self.description}".lower()

    def units(self) -> list[Unit]:
        """What it is measured in; the unit that a rate is per does not count."""
        return units_in(re.sub(r"(\w+) per \w+", r"\1", f"{self.description} {self.name.replace('_', ' ')}"))

    @property
    def type(self) -> str:
        named = self.schema.get("type", "string" if "enum" in self.schema else "any")
        several = [each for each in named if each != "null"] if isinstance(named, list) else [named]
        return str(several[0]) if len(several) == 1 else "any"


def evidence(schema: Mapping[str, Any], turn: str, most: int = 1) -> list[list[Parameter]]:
    """What ``turn`` says about the parameters of an object schema, in the schema's order.

    Args:
        schema: Of the arguments.
        turn: The user's words.
        most: Calls at most.

    Returns:
        The parameters of a first call. A further one follows where the turn holds other values like those of the
        first: what it repeats is the same, what it does not name again stays.
    """
    found = spans(turn)
    required = set(schema.get("required", ()))
    slots = [slot_of(name, child, name in required) for name, child in schema.get("properties", {}).items()]
    known = {word for slot in slots for word in slot.words}
    for slot in slots:
        fits = ((n, _fit(slot, span, turn, known)) for n, span in enumerate(found))
        slot.fits = {n: fit for n, fit in fits if fit is not None}
    _assign(slots, found)
    calls = [_parameters(slots, found, turn, 0)]
    firsts = {slot.name: slot.chosen for slot in slots}
    used = {slot.chosen for slot in slots if slot.chosen is not None}
    while len(calls) < most:
        _assign_like(slots, found, firsts, used)
        chosen = {slot.chosen for slot in slots if slot.chosen is not None}
        parameters = _parameters(slots, found, turn, len(calls))
        if chosen <= used and parameters == calls[-1]:
            break
        if not chosen - used and not any(_is_listed(slot) for slot in slots):
            break
        used |= chosen
        calls.append(parameters)
    return calls


def _parameters(slots: Sequence[Slot], found: Sequence[Span], turn: str, call: int) -> list[Parameter]:
    chosen = {slot.chosen for slot in slots if slot.chosen is not None}
    return [_parameter(slot, found, turn, chosen - {slot.chosen}, call) for slot in slots]


def _is_listed(slot: Slot) -> bool:
    return slot.type == "array" or "enum" in slot.schema


def _assign_like(
    slots: Sequence[Slot], found: Sequence[Span], firsts: Mapping[str, int | None], used: set[int]
) -> None:
    """For a further call: spans not used yet that are like those of the first; else what the call before had."""
    taken = [found[n] for n in used]
    for slot in slots:
        first = firsts[slot.name]
        if first is None:
            continue
        model = found[first]
        for n, fit in slot.fits.items():
            span = found[n]
            like = span.kind == model.kind and (span.unit == model.unit or span.kind != "number")
            apart = all(span.end <= other.start or other.end <= span.start for other in taken)
            if like and apart and n > first and fit >= slot.fits[first] - CUE:
                slot.chosen = n
                taken.append(span)
                break


def slot_of(name: str, schema: Mapping[str, Any] | bool, required: bool) -> Slot:
    """A parameter as its name and description present it; the schema `true` says nothing about it."""
    schema = schema if isinstance(schema, Mapping) else {}
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1 and isinstance(options[0], Mapping):
        schema = {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    description = str(schema.get("description", ""))
    own = frozenset(stems(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)) or [name.lower()])
    return Slot(name, schema, required, own, frozenset(stems(description)) - own, description)


def stems(text: str) -> list[str]:
    """The words of a text that mean something, without their endings."""
    words = re.findall(r"[^\W\d_]+\d?", text.lower())
    return [_stem(_SYNONYMS.get(word, word)) for word in words if word not in _EMPTY]


def _stem(word: str) -> str:
    for ending in ("ies", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) > 2:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def _fit(slot: Slot, span: Span, turn: str, known: set[str]) -> float | None:
    """How well a span fits a parameter; none where it cannot be its value."""
    if slot.type in ("number", "integer"):
        base = _number_fit(slot, span, turn)
    elif slot.type == "string" and "enum" not in slot.schema:
        base = _text_fit(slot, span)
    else:
        return None
    return None if base is None else base + _cues(slot, span, turn, known)


def _number_fit(slot: Slot, span: Span, turn: str) -> float | None:
    if span.kind != "number" or turn[: span.start].endswith("per "):
        return None
    value = _converted(slot, span)
    if slot.type == "integer" and not float(value).is_integer():
        return None
    # "two numbers, 4 and 5": what is written out mostly counts
    fit = 0.0 if re.search(r"\d", span.text) else -0.75
    rate = _PER.match(turn[span.end :].lstrip())
    if rate and re.search(rf"per {re.escape(_stem(rate[1].lower()))}", slot.about_text):
        fit += 3.0
    if span.unit and not rate:
        measured = unit(span.unit)
        wanted = slot.units()
        if measured and measured[0] in {each[0] for each in wanted}:
            fit += 2.5
        elif measured and wanted:
            fit -= 2.0
        stem = _stem(_SYNONYMS.get(span.unit.lower(), span.unit.lower()))
        fit += 3.0 if stem in slot.words else 1.5 if stem in slot.about else 0.0
        if span.unit == "%" and _SHARES.search(slot.about_text):
            fit += 2.0
    elif re.search(r"year", slot.name) and isinstance(value, int) and 1000 <= value <= 2200:
        fit += 2.5
    return fit


def _converted(slot: Slot, span: Span) -> int | float:
    """The number in the unit that the parameter asks for."""
    value: int | float = span.value
    about = slot.about_text
    if span.unit == "%":
        fraction = slot.type == "number" and (
            re.search(r"fraction|decimal|0\.\d|0 to 1|probab", about) or not re.search(r"percent|%", about)
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
    about, name = slot.about_text, slot.name.replace("_", " ").lower()
    if re.search(r"\bunits?\b", name):
        return 2.0 if unit(span.text) and span.kind == "phrase" else None
    if _ABBREVIATED.search(about) and re.fullmatch(r"[A-Z]{2,5}", span.text):
        return 4.0
    strict = text_kind(slot)
    if strict in ("email", "date", "time") and span.kind != strict:
        return None
    wants = [kind for kind, pattern in _WANTS if re.search(pattern, about)]
    by_name = [kind for kind, pattern in _WANTS if re.search(pattern, name)]
    if span.kind == "code" and span.text.isdigit() and "code" not in wants:
        return None
    verb = 0.0 if span.start or span.kind not in ("name", "phrase") else 1.5  # a first word is mostly a verb
    if span.kind in by_name:
        return 3.0 - verb
    if span.kind in wants:
        return 2.0 - verb
    fits = {"quoted": 1.5, "name": 1.0, "phrase": 0.5, "code": 0.0, "path": -1.0, "email": -1.0}
    return None if span.kind not in fits else fits[span.kind] - verb


def text_kind(slot: Slot) -> Kind | None:
    """The kind of span that a text parameter takes and no other, where its name or the form it asks for tells."""
    about, name = slot.about_text, slot.name.replace("_", " ").lower()
    asked = [
        k
        for k, pattern in _WANTS
        if k in ("date", "time") and re.search(pattern, about) and _FORM.search(about)
    ]
    named = [kind for kind, pattern in _WANTS if re.search(pattern, name)][:1]
    if named and named[0] in ("email", "path", "date", "time", "code"):
        return named[0]
    return asked[0] if asked else None


def _cues(slot: Slot, span: Span, turn: str, known: set[str]) -> float:
    """Words around a span that speak of the parameter."""
    before = re.split(r"[.!?;](?:\s|$)", turn[: span.start])[-1]
    words = re.findall(r"[^\W\d_][\w'-]*\d?", before.lower())[-4:]
    fit = 0.0
    for distance, word in enumerate(reversed(words)):
        stem = _stem(_SYNONYMS.get(word, word))
        near = max(0.0, 1 - distance * 0.2)
        if stem in slot.words or word in slot.words:
            fit += 4.0 * near
            break
        if stem in slot.about:
            fit += 1.0 * near
        if stem in known:
            break  # it speaks of another parameter
    if "unit" in slot.words and re.search(r"\d[\d.,]* ?$", turn[: span.start]):
        fit += -2.0 if slot.words & {"to", "target"} else 2.0
    if words:
        roles = _PREPOSITIONS.get(words[-1] if words[-1] != "the" else (words[-2:-1] or [""])[0], "").split()
        parts = _parts(slot.name)
        away = bool({"from", "source", "origin"} & set(parts)) and "from" not in roles
        if not away and any(role in slot.words or role in parts for role in roles):
            fit += 3.0
    after = re.findall(r"[^\W\d_][\w'-]*", re.split(r"[.!?;,]", turn[span.end : span.end + 40])[0].lower())[
        :2
    ]
    for distance, word in enumerate(after):
        stem = _stem(_SYNONYMS.get(word, word))
        if stem in slot.words:
            fit += 2.5 - distance
            break
    inside = set(stems(span.text))
    if span.kind in ("phrase", "name") and inside & slot.words and inside - slot.words - slot.about:
        fit += 2.0  # "the living room"
    if span.kind in ("phrase", "name") and inside and inside <= (slot.words | slot.about | known):
        fit -= 4.0  # the parameter's own name is not its value
    return fit


def _parts(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())


def _assign(slots: Sequence[Slot], found: Sequence[Span]) -> None:
    """The best pairs first, each span and each parameter once; among equals in the order of both."""
    pairs = [(fit, slot.required, slot, n) for slot in slots for n, fit in slot.fits.items()]
    order = {id(slot): n for n, slot in enumerate(slots)}
    pairs.sort(key=lambda pair: (-pair[0], not pair[1], order[id(pair[2])], pair[3]))
    used: list[Span] = []
    for fit, required, slot, n in pairs:
        span = found[n]
        if slot.chosen is not None or any(
            span.start < other.end and other.start < span.end for other in used
        ):
            continue
        if fit < (CUE if not required else -1.0 if slot.type in ("number", "integer") else WEAK):
            continue
        slot.chosen = n
        used.append(span)


def _parameter(slot: Slot, found: Sequence[Span], turn: str, taken: set[int], call: int) -> Parameter:
    if slot.type == "boolean":
        return _boolean(slot, turn)
    if "enum" in slot.schema:
        return _enumerated(slot, turn, call)
    if slot.type == "array":
        return _listed(slot, found, turn, call)
    best = max(slot.fits.values(), default=0.0)
    weak = ASSIGNED if slot.chosen is None else POSSIBLE
    candidates = [
        Candidate(
            _json(slot, found[n]), ASSIGNED if n == slot.chosen else weak if fit > best - 1.5 else POSSIBLE
        )
        for n, fit in slot.fits.items()
        if n not in taken
    ]
    return Parameter(slot.name, _best(candidates), _wanted(slot, slot.chosen is not None))


def _wanted(slot: Slot, spoken_of: bool) -> float:
    return STRUCTURE if slot.required or spoken_of else -STRUCTURE


def _best(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    best: dict[str, float] = {}
    for candidate in candidates:
        best[candidate.json] = max(candidate.weight, best.get(candidate.json, candidate.weight))
    return tuple(Candidate(text, weight) for text, weight in best.items())


def _json(slot: Slot, span: Span) -> str:
    if slot.type in ("number", "integer"):
        value = _converted(slot, span)
        return json.dumps(int(value) if slot.type == "integer" else value)
    if span.kind == "date":
        return json.dumps(_date_text(slot, span))
    return json.dumps(span.value if isinstance(span.value, str) else span.text, ensure_ascii=False)


_FORMS = (("YYYY-MM-DD", "%Y-%m-%d"), ("MM/DD/YYYY", "%m/%d/%Y"), ("DD/MM/YYYY", "%d/%m/%Y"),
          ("YYYY/MM/DD", "%Y/%m/%d"), ("DD-MM-YYYY", "%d-%m-%Y"), ("MM-DD-YYYY", "%m-%d-%Y"),
          ("DD.MM.YYYY", "%d.%m.%Y"))  # fmt: skip


def _date_text(slot: Slot, span: Span) -> str:
    asked = slot.description.upper()
    for name, form in _FORMS:
        if name in asked:
            return str(span.value.strftime(form))
    iso = slot.schema.get("format") == "date" or re.search(r"\d{4}-\d{2}-\d{2}", asked)
    return str(span.value.isoformat()) if iso else span.text


def _boolean(slot: Slot, turn: str) -> Parameter:
    """True where its words are mentioned, false where they are denied."""
    lowered = turn.lower()
    for match in re.finditer(r"[^\W\d_]+", lowered):
        if _stem(match[0]) in slot.words - {"is", "ha", "includ", "only", "show", "get", "return", "allow"}:
            value = "false" if _NEGATIVE.search(lowered[: match.start()]) else "true"
            return Parameter(slot.name, (Candidate(value, ASSIGNED),), STRUCTURE)
    return Parameter(slot.name, (), STRUCTURE if slot.required else -STRUCTURE)


def _enumerated(slot: Slot, turn: str, call: int) -> Parameter:
    said = set(stems(turn))
    values = [value for value in slot.schema["enum"] if isinstance(value, str)]
    named = [v for v in values if stems(v) and set(stems(v)) <= said]
    if call and named:
        named = [named[min(call, len(named) - 1)]]
    candidates = tuple(Candidate(json.dumps(v, ensure_ascii=False), ASSIGNED) for v in named)
    return Parameter(slot.name, candidates, _wanted(slot, bool(named)))


def _listed(slot: Slot, found: Sequence[Span], turn: str, call: int) -> Parameter:
    items = slot.schema.get("items")
    items = items if isinstance(items, Mapping) else {}
    kind = items.get("type")
    runs: list[list[Any]] = []
    if kind in ("number", "integer"):
        numbers = [s for s in found if s.kind == "number" and (kind == "number" or isinstance(s.value, int))]
        numbers = [s for s in numbers if re.search(r"\d", s.text)] or numbers
        runs = [[span.value for span in run] for run in _runs(numbers, turn)]
    elif isinstance(items.get("enum"), list):
        said = set(stems(turn))
        named = [v for v in items["enum"] if set(stems(str(v))) <= said and stems(str(v))]
        runs = [named] if named else []
    elif kind == "string":
        for kinds in (("quoted",), ("name",), ("phrase",)):
            pieces = [s for s in found if s.kind in kinds]
            runs += [[span.text for span in run] for run in _runs(pieces, turn)]
    if call and runs:
        longest = [run for run in runs if len(run) > 1] or runs
        runs = [longest[min(call, len(longest) - 1)]]
    runs.sort(key=len, reverse=True)
    spoken_of = bool(runs) and (slot.required or len(runs[0]) > 1)
    candidates = [
        Candidate(json.dumps(run, ensure_ascii=False), ASSIGNED if n == 0 and spoken_of else POSSIBLE)
        for n, run in enumerate(runs)
    ]
    return Parameter(slot.name, _best(candidates), _wanted(slot, spoken_of))


def _runs(pieces: Sequence[Span], turn: str) -> list[list[Span]]:
    """Pieces that follow each other with nothing but commas and conjunctions between them."""
    runs: list[list[Span]] = []
    for span in pieces:
        if runs and re.fullmatch(
            r",? ?(?:(?:and|or|&|to) )?(?:a |an |the )?", turn[runs[-1][-1].end : span.start]
        ):
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs
