"""One way of asking made into several calls: what differs is listed, or said again after it."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import yaml
from domains import Ask, Function

PHRASES: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text("utf-8"))
COUNTS = (2, 3, 4), (55, 30, 15)
"""How many calls, and how often."""


def several(function: Function, ask: Ask, random: Random) -> Ask | None:
    """The same request for two to four values of a slot or of a pair of slots; None where no slot can vary."""
    again = random.random() < 0.35
    able = [slot for slot in ask.slots if _can_vary(function, ask, slot, again)]
    if not able:
        return None
    count = random.choices(*COUNTS)[0]
    varied = random.sample(able, min(len(able), random.choices((1, 2, 3), (50, 35, 15))[0]))
    if again:
        return Ask(_said_again(ask, varied, count, random), ask.given)
    if len(varied) > 1 and random.random() < 0.4:
        return _combined(ask, varied[:2], random)
    return Ask(_listed(ask, varied[:2], count, random), ask.given)


def _can_vary(function: Function, ask: Ask, slot: str, again: bool) -> bool:
    """A word or number of many, standing free and once; a list only where all is said again."""
    leaf = function.leaves.get(slot)
    if leaf is None or leaf["type"] not in ("string", "integer", "number", *(("array",) if again else ())):
        return False
    if "enum" in leaf and len(leaf["enum"]) < 5:
        return False
    pattern = r"(?<![^\s(])\{" + re.escape(slot) + r"\}(?![^\s.,?!;:)])"
    return len(re.findall(pattern, ask.say)) == 1 == ask.say.count("{" + slot + "}")


def _list_of(slot: str, count: int, random: Random) -> str:
    joint = random.choices((" and ", ", and ", " & ", ", "), (7, 3, 1, 1))[0]
    marked = [f"{{{slot}}}", *(f"{{{slot}~{number}}}" for number in range(2, count + 1))]
    last = joint if count > 2 or joint != ", and " else " and "
    return ", ".join(marked[:-1]) + last + marked[-1]


def _combined(ask: Ask, varied: list[str], random: Random) -> Ask:
    """Lists in place of two slots, each of the one with each of the other: four calls, seldom six."""
    say = ask.say
    counts = random.choice(((2, 2), (2, 2), (2, 2), (3, 2), (2, 3)))
    for slot, count in zip(varied, counts, strict=True):
        say = say.replace(f"{{{slot}}}", _list_of(slot, count, random))
    first, second = sorted(varied, key=ask.slots.index)
    if random.random() < 0.3:
        say = say.rstrip(".?!") + random.choice(PHRASES["each"])
    return Ask(say, ask.given, (first, second))


def _listed(ask: Ask, varied: list[str], count: int, random: Random) -> str:
    """``{a}, {a~2} and {a~3}`` in place of ``{a}``, and with two slots each with its own, in the same order."""
    say = ask.say
    for slot in varied:
        say = say.replace(f"{{{slot}}}", _list_of(slot, count, random))
    if len(varied) == 2:
        end = re.search(r"[.?!]*$", say)
        cut = end.start() if end else len(say)
        say = f"{say[:cut]}{random.choice(PHRASES['respectively'])}{say[cut:]}"
    return say


def _said_again(ask: Ask, varied: list[str], count: int, random: Random) -> str:
    """``{a}``, and after it all: the same for ``{a~2}`` and ``{a~3}``."""
    between = random.choice(PHRASES["within"])
    sets = [between.join(f"{{{slot}~{number}}}" for slot in varied) for number in range(2, count + 1)]
    listed = ", ".join(sets[:-1]) + (" and " if len(sets) > 1 else "") + sets[-1]
    after = random.choice(PHRASES["again"]).replace("…", listed)
    return (ask.say.rstrip(".?!") if after.startswith(";") else ask.say) + after
