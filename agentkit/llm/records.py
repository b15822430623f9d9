"""What a turn says for each of several calls of one tool.

"Put Ann at table 4 and Tom at 7" holds two records. They are found as the best way to give the turn's spans, in their
order, to parameters, where a record has each parameter once at most and every further record costs something: dynamic
programming over the spans, with the parameters that a record has already as the state.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentkit.llm.english import words
from agentkit.llm.fits import LEADS_TO, takes_regions
from agentkit.llm.named import Part
from agentkit.llm.places import CITIES, REGIONS
from agentkit.llm.slots import Slot, stem_of, takes_currency
from agentkit.llm.spans import Span
from agentkit.llm.tuples import pairwise, tuples
from agentkit.llm.units import currency

ANOTHER, ITEM = 2.0, 0.4
"""What a further record costs; and where it goes on with a list."""
GAIN = 0.5
"""What it counts that a span is given to a parameter at all."""
ORDER = 0.1
"""What it counts that a record's values stand in the order of the parameters."""
BREAK = 0.4
"""What it counts for a further record, and against going on with one, that a clause ends before it."""
_CLAUSE = re.compile(r", (?:and|then|another)\b|[.;?!](?=\s)|\bthen\b|\banother\b")
_BREAK = re.compile(r"[,;:?!]|\.(?=\s)|\b(?:and|then|but|while|plus)\b")
_SLOTS = 8
"""Parameters that tell records apart, at most: there are two to the power of them states."""
_STATES = 64
"""States that are followed."""
_JOINTS = words("and or & plus as well then also again both a an the")
_BETWEEN = re.compile(r"[^\s,]+")
_NOUN = re.compile(r" (?!and\b|or\b|in\b|on\b|at\b|to\b|for\b|from\b|with\b|of\b|by\b|is\b)[a-z]")
_MEMBER = 3.0
"""Fit of a member of a tuple."""
_WORSE = 3.0
"""By so much less than the one chosen does no text fit that is of its kind."""
_CROSSED = 256
"""Pairs of two lists that are looked at, at most."""
_GAP = 40
"""Characters between the items of a list, at most."""
_ENDS = re.compile(r"[.?!;:](?=\s|$)")


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
    part: Part,
    least: Mapping[str, float],
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
    inside = [n for n, span in enumerate(spans) if part[0] <= span.start < part[1]]
    inside.sort(key=lambda n: (spans[n].start, -spans[n].end))
    reading = _Reading(slots, spans, turn, inside, part)
    return reading.crossed(part)[:most] or _spread(reading.told, reading.best(least, most), part)


class _Reading:
    """A part of a turn, read for a tool."""

    def __init__(
        self, slots: Sequence[Slot], spans: Sequence[Span], turn: str, inside: Sequence[int], part: Part
    ) -> None:
        self.told = [slot for slot in slots if slot.chosen is not None][:_SLOTS]
        self.untold = [slot for slot in slots if slot.chosen is None]
        self.spans, self.turn, self.inside = spans, turn, inside
        self.fits = {slot.name: self._fits(slot) for slot in self.told}
        """The spans that are like what was chosen, with their fits; those of a list fit like its first."""
        self.pairwise = pairwise(turn, part)
        self.firsts = self._order_tuples()
        """The first numbers of tuples."""

    def _fits(self, slot: Slot) -> dict[int, float]:
        assert slot.chosen is not None
        found: dict[int, float] = {}
        words = self.spans[slot.chosen].kind in ("name", "phrase")
        closed = takes_currency(slot)
        worst = slot.fits[slot.chosen] - _WORSE if words else -math.inf
        for n in self.inside:
            if n in slot.fits and (
                _alike(self.spans[n], self.spans[slot.chosen]) or (closed and self._is_new(n, found))
            ):
                before = () if LEADS_TO.match(self.turn, self.spans[n].end) else found.items()
                found[n] = max([slot.fits[n], *(fit for m, fit in before if self._follows(m, n))])
        if takes_regions(slot) and self.spans[slot.chosen].text in REGIONS:
            found = {n: fit for n, fit in found.items() if self.spans[n].text in REGIONS}
        else:
            found = {n: fit for n, fit in found.items() if not self._tells_where(n)}
        return {n: fit for n, fit in found.items() if fit > worst}

    def _tells_where(self, n: int) -> bool:
        """Whether a region only says where the city before it is: "Lyon, France"."""
        span = self.spans[n]
        return span.text in REGIONS and any(
            self.turn[self.spans[m].end : span.start] == ", "
            and (self.spans[m].text in CITIES or self.spans[m].text not in REGIONS)
            for m in self.inside
            if self.spans[m].kind == "name"
        )

    def _is_new(self, n: int, found: Mapping[int, float]) -> bool:
        """Whether a word stands elsewhere than those that were found."""
        return all(self.spans[m].start != self.spans[n].start for m in found)

    def _follows(self, before: int, n: int) -> bool:
        """Whether both stand in one list, one after the other: "after day 10 and after day 20"."""
        first, span = self.spans[before], self.spans[n]
        if not 0 < span.start - first.end < _GAP:
            return False
        between = self.turn[first.end : span.start].lower()
        repeated = self.turn[max(0, first.start - _GAP) : first.start].lower().split()[-2:]
        said = {*_JOINTS, *repeated, first.unit.lower()}
        return not _ENDS.search(between) and all(word in said for word in _BETWEEN.findall(between))

    def _order_tuples(self) -> set[int]:
        """Give the numbers of tuples to their parameters; returns the first number of each."""
        found = tuples(self.told, self.untold, self.spans, self.turn, self.inside, self.pairwise)
        for slot, numbers in found:
            if slot.chosen is None:
                self.told.append(slot)
                slot.chosen = numbers[-1]
            self.fits[slot.name] = dict.fromkeys(numbers, _MEMBER)
        return set(found[0][1]) if found else set()

    def _breaks(self, before: int, n: int) -> bool:
        """Whether a clause ends between two spans."""
        return _CLAUSE.search(self.turn, self.spans[before].end, self.spans[n].start) is not None

    def crossed(self, part: Part) -> list[Record]:
        """Every value of one list with every value of another, or pairs where the turn says so; none where there are no
        two lists, or further values beside them.
        """
        if self.firsts:
            return []
        runs = {slot.name: self._run(slot) for slot in self.told}
        if self.pairwise and (rows := self._rows()):
            once = {name: run[0] for name, run in runs.items() if name not in rows[0]}
            return [Record({**once, **row}, *part) for row in rows]
        several = [name for name, run in runs.items() if len(run) > 1]
        taken = sorted((self.spans[n].start, self.spans[n].end) for name in several for n in runs[name])
        if len(several) < 2 or any(after[0] < before[1] for before, after in itertools.pairwise(taken)):
            return []
        others = (self.spans[n] for name in several for n in self.fits[name] if not self._is_attribute(n))
        if any(all(span.end <= a or span.start >= b for a, b in taken) for span in others):
            return []
        lists = [runs[name] for name in several]
        once = {name: run[0] for name, run in runs.items() if name not in several}
        return [
            Record({**once, **dict(zip(several, row, strict=True))}, *part)
            for row in itertools.islice(itertools.product(*lists), _CROSSED)
        ]

    def _rows(self) -> list[dict[str, int]]:
        """The longest lists of parameters, pair by pair; none where they differ in length."""
        lists = {slot.name: max(self._runs(slot), key=len, default=[]) for slot in self.told}
        lists = {name: run for name, run in lists.items() if len(run) > 1}
        if len(lists) < 2 or len({len(run) for run in lists.values()}) > 1:
            return []
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]

    def _is_attribute(self, n: int) -> bool:
        """A name before another word says of what kind that is: "NBA seasons"."""
        return self.spans[n].kind == "name" and _NOUN.match(self.turn, self.spans[n].end) is not None

    def _run(self, slot: Slot) -> list[int]:
        """The list of values that the chosen one stands in."""
        assert slot.chosen is not None
        return next((run for run in self._runs(slot) if slot.chosen in run), [slot.chosen])

    def _runs(self, slot: Slot) -> list[list[int]]:
        runs: list[list[int]] = []
        for n in self.fits[slot.name]:
            if runs and self._follows(runs[-1][-1], n):
                runs[-1].append(n)
            else:
                runs.append([n])
        return runs

    def best(self, least: Mapping[str, float], most: int) -> list[Record]:
        """The records with the highest sum of fits."""
        states: dict[tuple[int, int], State] = {(0, 0): (0.0, ())}
        """By the record's parameters, as bits, and where the last span ends."""
        for n in self.inside:
            grown = dict(states)
            for (filled, end), (score, given) in states.items():
                if self.spans[n].start < end:
                    continue
                for bit, slot in enumerate(self.told):
                    fit = self.fits[slot.name].get(n)
                    if fit is None or fit < least[slot.name]:
                        continue
                    again = filled >> bit & 1
                    number = given[-1][0] + again if given else 0
                    if number == most:
                        continue
                    key = (1 << bit if again else filled | 1 << bit, self.spans[n].end)
                    listed = given and given[-1][1] == slot.name and self._follows(given[-1][2], n)
                    goes_on = listed or n in self.firsts
                    cost = (ITEM if goes_on else ANOTHER) if again else -ORDER if filled >> bit == 0 else 0.0
                    if given and not listed and self._breaks(given[-1][2], n):
                        cost += -BREAK if again else BREAK
                    made = score + fit - least[slot.name] + GAIN - cost
                    if key not in grown or made > grown[key][0]:
                        grown[key] = (made, (*given, (number, slot.name, n)))
            states = dict(sorted(grown.items(), key=lambda item: -item[1][0])[:_STATES])
        found: list[Record] = []
        end = 0
        for number, name, n in max(states.values(), key=lambda state: state[0])[1]:
            if number == len(found):
                start = self.spans[n].start
                breaks = [match.start() for match in _BREAK.finditer(self.turn, end, start)] if found else []
                found.append(Record(start=breaks[-1] if breaks else start))
            found[-1].spans[name] = n
            end = self.spans[n].end
        return found


State = tuple[float, tuple[tuple[int, str, int], ...]]
"""The score, and for each span that was given: the record, the parameter, the span."""


def _alike(span: Span, model: Span) -> bool:
    if span.kind != model.kind:
        return False
    if span.kind == "code":
        return span.text.isdigit() == model.text.isdigit()
    if span.kind != "number":
        return True
    if span.text[-1].isalpha() != model.text[-1].isalpha():
        return False  # "the two rooms, 14 and 16"
    if currency(span.unit) and currency(model.unit):
        return True
    return not span.unit or not model.unit or stem_of(span.unit.lower()) == stem_of(model.unit.lower())


def _spread(told: Sequence[Slot], found: list[Record], part: Part) -> list[Record]:
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
