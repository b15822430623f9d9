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
from dataclasses import dataclass
from typing import Any

from agentkit.llm.fits import Slot, converted, fit_of, slot_of, stem_of, stems
from agentkit.llm.spans import Span, spans

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

_NEGATIVE = re.compile(
    r"\b(?:no|not|without|don't|doesn't|never|exclude|excluding|except|off|isn't)\b(?: \w+){0,2} ?$"
)
MOST = 200
"""Parameters of a tool for which spans are weighed."""


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
    for slot in slots[:MOST]:
        fits = ((n, fit_of(slot, span, turn, known)) for n, span in enumerate(found))
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
        value = converted(slot, span)
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
        if stem_of(match[0]) in slot.words - {"is", "ha", "includ", "only", "show", "get", "return", "allow"}:
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
