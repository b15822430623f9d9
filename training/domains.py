"""Domain files: hand-written functions with many ways of asking for them. README.md describes their form."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random
from typing import Any

import yaml
from values import Value, draw

FOLDER = Path(__file__).parent / "domains"
_SLOT = re.compile(r"\{([^{}]+)\}")
Json = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """A way of asking: words with slots, and what else the words imply."""

    say: str
    given: Json
    combined: tuple[str, ...] = ()
    """Two slots of which each value is wanted with each of the other's."""

    @cached_property
    def slots(self) -> list[str]:
        """Names in braces, in order, with ``~2`` and the like."""
        return _SLOT.findall(self.say)

    def numbers(self) -> list[dict[str, int]]:
        """For each call that it is asking for, which value of each slot is its own, counted from 1."""
        most: dict[str, int] = {}
        for slot in self.slots:
            name, _, mark = slot.partition("~")
            most[name] = max(most.get(name, 1), int(mark or 1))
        if self.combined:
            ranges = [range(1, most[name] + 1) for name in self.combined]
            return [dict(zip(self.combined, chosen, strict=True)) for chosen in itertools.product(*ranges)]
        return [dict.fromkeys(most, n) for n in range(1, max(most.values(), default=1) + 1)]

    def calls(self) -> int:
        """How many calls it is asking for."""
        return len(self.numbers())


@dataclass(frozen=True)
class Function:
    """A function of a domain."""

    domain: str
    name: str
    description: str
    params: dict[str, Json]
    ask: list[Ask]
    many: list[Ask]
    missing: dict[str, list[str]]
    partial: list[Ask]
    replies: list[Json]
    near: list[Ask]

    @cached_property
    def leaves(self) -> dict[str, Json]:
        """Parameters by dotted name; objects are taken apart."""
        return dict(_leaves(self.params))

    def fill(self, ask: Ask, random: Random) -> tuple[str, list[Json]]:
        """Words with values in them, and the arguments of each call that they ask for."""
        values = self._values(ask, random)
        said = _SLOT.sub(lambda slot: values[slot[1]].said if slot[1] in values else slot[0], ask.say)
        calls = []
        for numbers in ask.numbers():
            given: Json = {}
            for name in self.leaves:
                number = numbers.get(name, 1)
                marked = f"{name}~{number}"
                value = values.get(marked if marked in values else name)
                if value is not None and (number == 1 or marked in values or not _varies(name, ask)):
                    _put(given, name, value.called)
            for name, value in ask.given.items():
                _put(given, name, deepcopy(value))
            calls.append(self.in_order(given))
        return said, calls

    def _values(self, ask: Ask, random: Random) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for slot in ask.slots:
            leaf = self.leaves.get(slot.partition("~")[0])
            if leaf is not None:
                draw_distinct(values, slot, leaf, random)
        return values

    def in_order(self, given: Json) -> Json:
        """Arguments in the order of the schema."""
        return {name: given[name] for name in self.params if name in given}


@dataclass(frozen=True)
class Together:
    """One message that asks for calls of several functions of a domain."""

    domain: str
    say: str
    """Words with slots ``{function.parameter}``."""
    calls: list[tuple[Function, Json]]
    """In order, each with what its slots do not tell: values, or ``"{slot}"`` for the value of a slot."""

    @cached_property
    def names(self) -> set[str]:
        """Of its functions."""
        return {function.name for function, _ in self.calls}

    def fill(self, random: Random) -> tuple[str, list[tuple[Function, Json]]]:
        """Words with values in them, and the arguments of each call that they ask for."""
        values = self._values(random)
        said = _SLOT.sub(lambda slot: values[slot[1]].said, self.say)
        return said, self._called(values)

    def _values(self, random: Random) -> dict[str, Value]:
        functions = {function.name: function for function, _ in self.calls}
        values: dict[str, Value] = {}
        for slot in _SLOT.findall(self.say):
            name, _, parameter = slot.partition("~")[0].partition(".")
            draw_distinct(values, slot, functions[name].leaves[parameter], random)
        return values

    def _called(self, values: dict[str, Value]) -> list[tuple[Function, Json]]:
        made = []
        counts: dict[str, int] = {}
        for function, told in self.calls:
            number = counts[function.name] = counts.get(function.name, 0) + 1
            given: Json = {}
            for slot, value in values.items():
                path, _, mark = slot.partition("~")
                name, _, parameter = path.partition(".")
                if name == function.name and int(mark or 1) == number:
                    _put(given, parameter, value.called)
            for path, value in _paths(told):
                slot = _SLOT.fullmatch(value) if isinstance(value, str) else None
                _put(given, path, values[slot[1]].called if slot else deepcopy(value))
            made.append((function, function.in_order(given)))
        return made


def draw_distinct(values: dict[str, Value], slot: str, leaf: Json, random: Random) -> None:
    """A value for a slot, and as people do not write the same one twice in a message, another than those before."""
    if slot in values:
        return
    others = [value.called for value in values.values()]
    for _ in range(20):
        values[slot] = value_of(leaf, random)
        if values[slot].called not in others:
            return


def value_of(leaf: Json, random: Random) -> Value:
    """A value for a parameter that is no object."""
    if "enum" in leaf:
        entry = random.choice(leaf["enum"])
        ways = (leaf.get("said") or {}).get(entry)
        return Value(str(random.choice(ways) if ways else str(entry).replace("_", " ")), entry)
    value = draw(leaf["value"], random, items=leaf.get("items"))
    while leaf["type"] == "integer" and isinstance(value.called, float):
        value = draw(leaf["value"], random, items=leaf.get("items"))
    if leaf["type"] == "string" and not isinstance(value.called, str):
        return Value(value.said, str(value.called))
    return value


def load(folder: Path = FOLDER) -> list[Function]:
    """All functions, by domain and name."""
    return [_function(body["domain"], entry) for body in _bodies(folder) for entry in body["functions"]]


def load_together(functions: Iterable[Function], folder: Path = FOLDER) -> list[Together]:
    """All messages that want several functions.

    Raises:
        KeyError: One names a function that its domain does not have.
    """
    known = {(function.domain, function.name): function for function in functions}
    return [
        Together(
            domain,
            entry["say"],
            [(known[domain, name], told) for call in entry["calls"] for name, told in call.items()],
        )
        for body in _bodies(folder)
        for domain in [body["domain"]]
        for entry in body.get("together", [])
    ]


@cache
def _bodies(folder: Path) -> list[Json]:
    return [yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.glob("*.yaml"))]


def _function(domain: str, entry: Json) -> Function:
    return Function(
        domain,
        entry["name"],
        entry["description"],
        entry["params"],
        _asks(entry["ask"]),
        _asks(entry.get("many", [])),
        entry.get("missing", {}),
        _asks(entry.get("partial", [])),
        entry.get("replies", []),
        _asks(entry.get("near", [])),
    )


def _asks(entries: Iterable[str | Json]) -> list[Ask]:
    return [Ask(e, {}) if isinstance(e, str) else Ask(e["say"], e.get("with", {})) for e in entries]


def _leaves(params: dict[str, Json], before: str = "") -> Iterator[tuple[str, Json]]:
    for name, param in params.items():
        if param["type"] == "object":
            yield from _leaves(param["properties"], f"{before}{name}.")
        else:
            yield before + name, param


def _varies(name: str, ask: Ask) -> bool:
    return any(slot.startswith(f"{name}~") for slot in ask.slots)


def _paths(given: Json, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")
        else:
            yield before + name, value


def _put(given: Json, name: str, value: Any) -> None:
    *outer, last = name.split(".")
    for part in outer:
        given = given.setdefault(part, {})
    if isinstance(value, dict) and isinstance(given.get(last), dict):
        given[last].update(value)
    else:
        given[last] = value
