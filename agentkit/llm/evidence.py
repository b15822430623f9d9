"""What a conversation says about the arguments of a call: candidates for each parameter, and how well they fit.

A span of the turn fits a parameter by its type and unit, by the parameter's words beside it ("base 14 cm"), by the
preposition before it ("from Oslo"), and by its place in the order. The best assignment of spans to parameters, each
used once, is weighed heavily; what else would fit is weighed lightly. Weights are in nats: they are added to the
model's own scores, so that a sure model overrules them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentkit.llm.denied import is_denied, said_of
from agentkit.llm.fits import fit_of
from agentkit.llm.listed import item_runs, items_of, named_items
from agentkit.llm.measures import added_up
from agentkit.llm.named import Part, named_as_code, named_in
from agentkit.llm.records import Record, records
from agentkit.llm.slots import Slot, parts_of, slot_of, stem_of, stems
from agentkit.llm.spans import Span, spans
from agentkit.llm.writing import as_json

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

_WISHED = re.compile(r"\b(?:need|want|with|like|includ(?:e|ing)|add|plus)\b(?: [\w-]+){0,3} $", re.I)
_NEAR = 60
"""Characters before a word in which a wish for it stands."""
_OF_BOOLEANS = frozenset(stem_of(word) for word in ("is", "has", "include", "only", "show", "get", "return", "allow",
                                                    "allowed", "included", "free", "friendly", "available", "enable",
                                                    "enabled", "need", "needed", "want", "with", "use", "keep", "send",
                                                    "add"))  # fmt: skip
"""Words in names of parameters that are true or false which say nothing of what they are about."""
MENTIONED = 4.0
"""Fit of a value that schema or description name."""
HOME = 3.0
"""What it counts that a span stands in the words that ask for the tool."""
_CLAUSE = re.compile(r"(?:[^.;,?!]|[.,](?=\S))+")
_OF_ALL = re.compile(r"\b(?:their|both|all|each|every|either)\b", re.I)
_SAME = re.compile(
    r"\b(?:do(?:ing)? (?:it|that|the same)|the same (?:for|but|with|thing|as|goes)|same calculation|again|likewise"
    r"|repeat|instead)\b",
    re.I,
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


@dataclass(frozen=True, slots=True)
class Said:
    """A turn, and what of it is said for one tool."""

    spans: list[Span]
    turn: str
    part: Part

    @property
    def whole(self) -> Part:
        """All of the turn."""
        return 0, len(self.turn)

    def has(self, span: Span) -> bool:
        """Whether a span is said for the tool."""
        return self.part[0] <= span.start < self.part[1]


def evidence(
    schema: Mapping[str, Any],
    turn: str,
    most: int = 1,
    part: Part | None = None,
    tools: Collection[str] = (),
) -> list[list[Parameter]]:
    """What ``turn`` says about the parameters of an object schema, in the schema's order.

    Args:
        schema: Of the arguments.
        turn: The user's words.
        most: Calls at most.
        part: Where in the turn this tool is asked for, from and to; what stands there comes before what stands
            elsewhere.
        tools: Names that are no values.

    Returns:
        The parameters of a first call. A further one follows where the turn, or the part, holds other values like
        those of the first: what it repeats is the same, what it does not name again stays.
    """
    required = set(schema.get("required", ()))
    slots = [slot_of(name, child, name in required) for name, child in schema.get("properties", {}).items()]
    values = list(_values(turn, tuple(tools)))
    said = Said(added_up(values, slots[:MOST], turn), turn, part or (0, len(turn)))
    known = {word for slot in slots for word in slot.words}
    for slot in slots[:MOST]:
        if slot.type == "string" and slot.choices and named_in(slot.choices, turn, said.part):
            continue
        fits = ((n, fit_of(slot, span, turn, known)) for n, span in enumerate(said.spans))
        slot.fits = {n: fit for n, fit in fits if fit is not None}
    _leave_named(slots, said)
    _assign(slots, said)
    once = _parameters(slots, said, said.part)
    if most == 1:
        return [once]
    for slot in slots[:MOST]:
        _mention(slot, said)
    least = {slot.name: _least(slot) for slot in slots}
    found = records(slots, said.spans, turn, said.part, least, most)
    if len(found) < 2:
        return [once]
    calls: list[list[Parameter]] = []
    for record in found:
        for slot in slots:
            slot.chosen = record.spans.get(slot.name)
        calls.append(_parameters(slots, said, (record.start, record.end)))
    _share(slots, said, found, calls)
    return calls


@lru_cache(maxsize=4)
def _values(turn: str, tools: tuple[str, ...]) -> tuple[Span, ...]:
    """What could be a value: no names of functions ("use the 'send_mail' function"). Asked for every tool of a turn."""
    called = [span for name in tools for span in named_as_code(name, turn)]
    return tuple(
        span for span in spans(turn) if all(span.end <= start or span.start >= end for start, end in called)
    )


def _share(
    slots: Sequence[Slot], said: Said, found: Sequence[Record], calls: Sequence[list[Parameter]]
) -> None:
    """What may be left out holds for all calls where it is said before the first or of several ("both", "their"), and
    for a call that is to be the same as the one before.
    """
    first = min(said.spans[n].start for record in found for n in record.spans.values())
    clauses = [match.span() for match in _CLAUSE.finditer(said.turn, *said.part)]
    common = [clause for clause in clauses if _OF_ALL.search(said.turn, *clause)]
    for k, slot in enumerate(slots):
        if slot.required:
            continue
        for start, end in [(said.part[0], first), *common]:
            if slot.type == "boolean":
                parameter = _boolean(slot, said.turn[start:end])
            else:
                spans = [record.spans[slot.name] for record in found if slot.name in record.spans]
                slot.chosen = next((n for n in spans if start <= said.spans[n].start < end), None)
                if slot.chosen is None:
                    continue
                parameter = _parameter(slot, said, set(), (start, end))
            if parameter.weight > 0:
                for call in calls:
                    call[k] = parameter if call[k].weight < 0 else call[k]
        for record, before, call in zip(found[1:], calls, calls[1:], strict=False):
            if call[k].weight < 0 < before[k].weight and _SAME.search(said.turn, record.start, record.end):
                call[k] = before[k]


def _leave_named(slots: Sequence[Slot], said: Said) -> None:
    """The values of one parameter's enumeration are no texts for another."""
    for closed in slots[:MOST]:
        values = closed.schema.get("enum") or items_of(closed).get("enum") or ()
        for _, start, end in named_in(values, said.turn, said.part):
            for slot in slots[:MOST]:
                if slot is not closed and slot.type == "string":
                    slot.fits = {
                        n: fit for n, fit in slot.fits.items()
                        if said.spans[n].start < start or said.spans[n].end > end
                    }  # fmt: skip


def _parameters(slots: Sequence[Slot], said: Said, part: Part) -> list[Parameter]:
    chosen = {slot.chosen for slot in slots if slot.chosen is not None}
    return [_parameter(slot, said, chosen - {slot.chosen}, part) for slot in slots]


def _mention(slot: Slot, said: Said) -> None:
    """Lists, and the values of an enumeration, as spans."""
    new: list[Span] = []
    if "enum" in slot.schema or (slot.type == "string" and slot.chosen is None):
        values = slot.schema.get("enum", slot.choices)
        named = named_in(values, said.turn, said.part)
        new = [Span("phrase", said.turn[start:end], start, end, value) for value, start, end in named]
    elif slot.type == "array":
        tells = items_of(slot).get("type") != "string"  # a single word could be anything
        runs = [
            each
            for each in item_runs(slot, said.spans, said.turn, said.part)
            if len(each[0]) > 1 or (tells and slot.required)
        ]
        new = [Span("list", said.turn[a:b], a, b, run) for run, a, b in runs]
    for span in new:
        slot.fits[len(said.spans)] = MENTIONED
        slot.chosen = len(said.spans) if slot.chosen is None else slot.chosen
        said.spans.append(span)


def _assign(slots: Sequence[Slot], said: Said) -> None:
    """The best pairs first, each span and each parameter once; among equals in the order of both.

    Of what stands outside of the tool's own words the nearest before them comes first: "to Rome, and a hotel there".
    """
    pairs = [(fit, slot.required, slot, n) for slot in slots for n, fit in slot.fits.items()]
    order = {id(slot): n for n, slot in enumerate(slots)}
    home = [said.has(span) for span in said.spans]
    away = [max(said.part[0] - span.start, 0) or len(said.turn) + span.start for span in said.spans]
    place = [n if home[n] else away[n] for n in range(len(home))]
    pairs.sort(
        key=lambda pair: (
            -pair[0] - HOME * (home[pair[3]] and pair[0] >= _least(pair[2])),
            not pair[1],
            order[id(pair[2])],
            place[pair[3]],
        )
    )
    used: list[Span] = []
    for fit, required, slot, n in pairs:
        span = said.spans[n]
        if not required and not said.has(span):
            continue
        if slot.chosen is not None or any(
            span.start < other.end and other.start < span.end for other in used
        ):
            continue
        if fit < _least(slot):
            continue
        slot.chosen = n
        used.append(span)


def _least(slot: Slot) -> float:
    """The fit from which on a span may be a parameter's value."""
    if not slot.required:
        return CUE
    return -1.0 if slot.type in ("number", "integer") else WEAK


def _parameter(slot: Slot, said: Said, taken: set[int], part: Part) -> Parameter:
    """What is known of one, for a call that is asked for in this part."""
    if slot.type == "boolean":
        return _boolean(slot, said.turn[part[0] : part[1]])
    if "enum" in slot.schema or (slot.type == "string" and slot.choices and slot.chosen is None):
        named = _enumerated(slot, said, part)
        if named is not None:
            return named
    if slot.type == "array":
        return _listed(slot, said, part)
    found = said.spans
    best = max(slot.fits.values(), default=0.0)
    weak = ASSIGNED if slot.chosen is None else POSSIBLE
    candidates = [
        Candidate(
            as_json(slot, found[n], said.turn),
            ASSIGNED if n == slot.chosen else weak if fit > best - 1.5 else POSSIBLE,
        )
        for n, fit in slot.fits.items()
        if n == slot.chosen
        or all(found[n].end <= found[m].start or found[m].end <= found[n].start for m in taken)
    ]
    return Parameter(slot.name, _best(candidates), _wanted(slot, slot.chosen is not None))


def _wanted(slot: Slot, spoken_of: bool) -> float:
    return STRUCTURE if slot.required or spoken_of else -STRUCTURE


def _best(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    best: dict[str, float] = {}
    for candidate in candidates:
        best[candidate.json] = max(candidate.weight, best.get(candidate.json, candidate.weight))
    return tuple(Candidate(text, weight) for text, weight in best.items())


def _boolean(slot: Slot, turn: str) -> Parameter:
    """True where its words are mentioned, false where they are denied."""
    own = slot.words - _OF_BOOLEANS
    head = stem_of((parts_of(slot) or [""])[-1])
    first: tuple[int, int, bool] | None = None
    found: set[str] = set()
    for match in re.finditer(r"(un|non-?)?([^\W\d_]+)", turn, re.I):
        whole, rest = (next(iter(stems(part)), "") for part in (match[0], match[2]))
        denied = bool(match[1]) and rest in own
        if denied or whole in own:
            found.add(rest if denied else whole)
            if whole == head and _WISHED.search(turn, max(0, match.start() - _NEAR), match.start()):
                found |= own  # "I'll need a replacement car" is enough for a loaner car
            first = first or (match.start(), match.end(), denied)
    if first is None or (len(found) < len(own) and not slot.required):
        return Parameter(slot.name, (), STRUCTURE if slot.required else -STRUCTURE)
    start, end, denied = first
    said = said_of(turn, end)
    true = said if said is not None else not (denied or is_denied(turn, start, end))
    return Parameter(slot.name, (Candidate(json.dumps(true), ASSIGNED),), STRUCTURE)


def _enumerated(slot: Slot, said: Said, part: Part) -> Parameter | None:
    """One of the values that the schema or the description names, where the turn names it too."""
    closed = "enum" in slot.schema
    if slot.chosen is not None and said.spans[slot.chosen].kind == "phrase":
        named = [str(said.spans[slot.chosen].value)]
    else:
        values = slot.schema["enum"] if closed else slot.choices
        where = [part, said.part, *([said.whole] if slot.required else [])]
        found = next(filter(None, (named_in(values, said.turn, each) for each in where)), [])
        named = _wished(found, said.turn)
    if not named and not closed:
        return None
    candidates = tuple(
        Candidate(json.dumps(value, ensure_ascii=False), ASSIGNED) for value in dict.fromkeys(named)
    )
    return Parameter(slot.name, candidates, _wanted(slot, bool(named)))


def _wished(found: Sequence[tuple[str, int, int]], turn: str) -> list[str]:
    """The values without those that the turn does not want, as far as there are others."""
    wished = [value for value, start, end in found if not is_denied(turn, start, end)]
    return wished or [value for value, _, _ in found]


def _listed(slot: Slot, said: Said, part: Part) -> Parameter:
    if slot.chosen is not None:
        runs = [(said.spans[slot.chosen].value, 0, 0)]
    else:
        runs = item_runs(slot, said.spans, said.turn, part)
        named = [item for run, _, _ in runs for item in run]
        if named and all(item in named_items(slot) for item in named):
            runs = [(list(dict.fromkeys(named)), 0, 0)]
        if not runs and slot.required:
            runs = item_runs(slot, said.spans, said.turn, said.whole)
    lists = sorted((run for run, _, _ in runs), key=len, reverse=True)
    closed = bool(lists) and all(item in named_items(slot) for item in lists[0])
    spoken_of = bool(lists) and (slot.required or len(lists[0]) > 1 or closed)
    candidates = [
        Candidate(json.dumps(run, ensure_ascii=False), ASSIGNED if n == 0 and spoken_of else POSSIBLE)
        for n, run in enumerate(lists)
    ]
    return Parameter(slot.name, _best(candidates), _wanted(slot, spoken_of))
