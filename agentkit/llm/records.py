"""What a turn says for each of several calls of one tool.

"Put Ann at table 4 and Tom at 7" holds two records. They are found as the best way to give the turn's spans, in their
order, to parameters, where a record has each parameter once at most and every further record costs something: dynamic
programming over the spans, with the parameters that a record has already as the state.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentkit.llm.fits import Slot, stem_of
from agentkit.llm.spans import Span, words

ANOTHER, ITEM = 2.0, 0.4
"""What a further record costs; and where it goes on with a list."""
ORDER = 0.1
"""What it counts that a record's values stand in the order of the parameters."""
_SLOTS = 8
"""Parameters that tell records apart, at most: there are two to the power of them states."""
_STATES = 64
"""States that are followed."""
_JOINTS = words("and or & plus as well then also again both a an the")
_BETWEEN = re.compile(r"[^\s,]+")
_GAP = 40
"""Characters between the items of a list, at most."""
_ENDS = re.compile(r"[.?!;:]")
_PAIRWISE = re.compile(r"\brespectively\b|\bin (?:that|this) order\b", re.I)


@dataclass(slots=True)
class Record:
    """What is said for one call."""

    spans: dict[str, int] = field(default_factory=dict)
    """Parameter to span number."""
    start: int = 0
    end: int = 0
    """Where in the turn it is said."""


def records(
    slots: Sequence[Slot],
    spans: Sequence[Span],
    turn: str,
    part: tuple[int, int],
    least: dict[str, float],
    most: int,
) -> list[Record]:
    """The records of a part of a turn.

    Args:
        slots: Parameters; `Slot.chosen` is what a value of each looks like.
        spans: Of the turn.
        turn: The user's words.
        part: From and to.
        least: The fit from which on a span may be a parameter's value.
        most: Records at most.
    """
    told = [slot for slot in slots if slot.chosen is not None][:_SLOTS]
    inside = [n for n, span in enumerate(spans) if part[0] <= span.start < part[1]]
    inside.sort(key=lambda n: (spans[n].start, -spans[n].end))
    fits = {slot.name: _fits(slot, spans, inside, turn) for slot in told}
    runs = {slot.name: _run(slot, fits[slot.name], spans, turn) for slot in told}
    several = [name for name, run in runs.items() if len(run) > 1]
    if (
        len(several) > 1
        and not _overlap([runs[name] for name in several], spans)
        and _only(runs, fits, several, spans)
    ):
        return _crossed(told, runs, several, turn, part)[:most]
    return _spread(told, _best(told, fits, least, spans, inside, turn, most), part)


def _fits(slot: Slot, spans: Sequence[Span], inside: Sequence[int], turn: str) -> dict[int, float]:
    """The spans that are like what was chosen, with their fits; those of a list fit like its first."""
    assert slot.chosen is not None
    model = spans[slot.chosen]
    found: dict[int, float] = {}
    for n in inside:
        if n in slot.fits and _alike(spans[n], model):
            before = [m for m in found if _follows(turn, spans[m], spans[n])]
            found[n] = max([slot.fits[n], *(found[m] for m in before)])
    return found


def _follows(turn: str, before: Span, span: Span) -> bool:
    """Whether both stand in one list, one after the other: "after day 10 and after day 20"."""
    if not 0 < span.start - before.end < _GAP:
        return False
    between = turn[before.end : span.start].lower()
    repeated = turn[max(0, before.start - _GAP) : before.start].lower().split()[-2:]
    said = {*_JOINTS, *repeated, before.unit.lower()}
    return not _ENDS.search(between) and all(word in said for word in _BETWEEN.findall(between))


def _alike(span: Span, model: Span) -> bool:
    if span.kind != model.kind:
        return False
    if span.kind == "code":
        return span.text.isdigit() == model.text.isdigit()
    if span.kind != "number":
        return True
    if span.text[-1].isalpha() != model.text[-1].isalpha():
        return False  # "the two rooms, 14 and 16"
    return not span.unit or not model.unit or stem_of(span.unit.lower()) == stem_of(model.unit.lower())


def _run(slot: Slot, fits: dict[int, float], spans: Sequence[Span], turn: str) -> list[int]:
    """The list of values that the chosen one stands in."""
    assert slot.chosen is not None
    run: list[int] = []
    for n in sorted(fits, key=lambda n: spans[n].start):
        if run and _follows(turn, spans[run[-1]], spans[n]):
            run.append(n)
        elif slot.chosen in run:
            break
        else:
            run = [n]
    return run if slot.chosen in run else [slot.chosen]


def _overlap(runs: Sequence[Sequence[int]], spans: Sequence[Span]) -> bool:
    taken = sorted((spans[n].start, spans[n].end) for run in runs for n in run)
    return any(after[0] < before[1] for before, after in itertools.pairwise(taken))


def _only(
    runs: dict[str, list[int]],
    fits: dict[str, dict[int, float]],
    several: Sequence[str],
    spans: Sequence[Span],
) -> bool:
    """Whether nothing outside of the lists looks like a further value."""
    taken = [(spans[n].start, spans[n].end) for run in runs.values() for n in run]
    return not any(
        all(spans[n].end <= a or spans[n].start >= b for a, b in taken)
        for name in several
        for n in fits[name]
    )


def _crossed(
    told: Sequence[Slot], runs: dict[str, list[int]], several: Sequence[str], turn: str, part: tuple[int, int]
) -> list[Record]:
    """Every value of one list with every value of the other; pairs where the turn says so."""
    lists = [runs[name] for name in several]
    pairwise = _PAIRWISE.search(turn) and len({len(each) for each in lists}) == 1
    once = {slot.name: runs[slot.name][0] for slot in told if slot.name not in several}
    rows = zip(*lists, strict=True) if pairwise else itertools.product(*lists)
    return [Record({**once, **dict(zip(several, row, strict=True))}, *part) for row in rows]


State = tuple[float, tuple[tuple[int, str, int], ...]]
"""The score, and for each span that was given: the record, the parameter, the span."""


def _best(
    told: Sequence[Slot],
    fits: dict[str, dict[int, float]],
    least: dict[str, float],
    spans: Sequence[Span],
    inside: Sequence[int],
    turn: str,
    most: int,
) -> list[Record]:
    """The records with the highest sum of fits."""
    states: dict[tuple[int, int], State] = {(0, 0): (0.0, ())}
    """By the record's parameters, as bits, and where the last span ends."""
    for n in inside:
        grown = dict(states)
        for (filled, end), (score, given) in states.items():
            if spans[n].start < end:
                continue
            for bit, slot in enumerate(told):
                fit = fits[slot.name].get(n)
                if fit is None or fit < least[slot.name]:
                    continue
                again = filled >> bit & 1
                number = given[-1][0] + again if given else 0
                if number >= most:
                    continue
                key = (1 << bit if again else filled | 1 << bit, spans[n].end)
                goes_on = (
                    given and given[-1][1] == slot.name and _follows(turn, spans[given[-1][2]], spans[n])
                )
                cost = (ITEM if goes_on else ANOTHER) if again else -ORDER if filled >> bit == 0 else 0.0
                made = score + fit - least[slot.name] + 0.5 - cost
                if key not in grown or made > grown[key][0]:
                    grown[key] = (made, (*given, (number, slot.name, n)))
        best = sorted(grown.items(), key=lambda item: -item[1][0])[:_STATES]
        states = dict(best)
    _, given = max(states.values(), key=lambda state: state[0])
    found: list[Record] = []
    for number, name, n in given:
        if number == len(found):
            found.append(Record(start=spans[n].start, end=spans[n].end))
        found[-1].spans[name] = n
        found[-1].end = spans[n].end
    return found


def _spread(told: Sequence[Slot], found: list[Record], part: tuple[int, int]) -> list[Record]:
    """What one record says and another does not holds for both, unless it may be left out."""
    if not found:
        return [Record({slot.name: slot.chosen for slot in told if slot.chosen is not None}, *part)]
    listed = len(found) > 1 and all(len(record.spans) == 1 for record in found[:-1])
    for slot in told:
        having = [n for n, record in enumerate(found) if slot.name in record.spans]
        for n, record in enumerate(found):
            if slot.name in record.spans or not (slot.required or (listed and having)):
                continue
            near = max((m for m in having if m < n), default=min(having, default=None))
            value = slot.chosen if near is None else found[near].spans[slot.name]
            assert value is not None
            record.spans[slot.name] = value
    for record, after in itertools.pairwise(found):
        record.end = after.start
    found[0].start, found[-1].end = part[0], part[1]
    return found
