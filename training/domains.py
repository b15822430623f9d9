"""Domain files: hand-written functions with many ways of asking for them. README.md describes their form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def slots(self) -> list[str]:
        """Names in braces, in order, with ``~2`` and the like."""
        return _SLOT.findall(self.say)

    def calls(self) -> int:
        """How many calls it is asking for."""
        marks = [int(slot.partition("~")[2] or 1) for slot in self.slots]
        return max(marks, default=1)


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
        for number in range(1, ask.calls() + 1):
            given: Json = {}
            for name in self.leaves:
                marked = f"{name}~{number}"
                value = values.get(marked if marked in values else name)
                if value is not None and (number == 1 or marked in values or not _varies(name, ask)):
                    _put(given, name, value.called)
            for name, value in ask.given.items():
                _put(given, name, deepcopy(value))
            calls.append(self._in_order(given))
        return said, calls

    def _values(self, ask: Ask, random: Random) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for slot in ask.slots:
            leaf = self.leaves.get(slot.partition("~")[0])
            if leaf is None or slot in values:
                continue
            for _ in range(20):  # the same value twice in a message is nothing that people write
                values[slot] = value_of(leaf, random)
                others = [value.called for name, value in values.items() if name != slot]
                if values[slot].called not in others:
                    break
        return values

    def _in_order(self, given: Json) -> Json:
        return {name: given[name] for name in self.params if name in given}


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
    found = []
    for path in sorted(folder.glob("*.yaml")):
        body = yaml.safe_load(path.read_text("utf-8"))
        found += [_function(body["domain"], entry) for entry in body["functions"]]
    return found


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


def _put(given: Json, name: str, value: Any) -> None:
    *outer, last = name.split(".")
    for part in outer:
        given = given.setdefault(part, {})
    if isinstance(value, dict) and isinstance(given.get(last), dict):
        given[last].update(value)
    else:
        given[last] = value
