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
    able = [slot for slot in ask.slots if _can_vary(function, ask, slot)]
    if not able:
        return None
    count = random.choices(*COUNTS)[0]
    first = random.choice(able)
    others = [slot for slot in able if slot != first]
    varied = [first, random.choice(others)] if others and random.random() < 0.4 else [first]
    say = _said_again if random.random() < 0.3 else _listed
    return Ask(say(ask, varied, count, random), ask.given)


def _can_vary(function: Function, ask: Ask, slot: str) -> bool:
    """A word or number of many, standing free and once."""
    leaf = function.leaves.get(slot)
    if leaf is None or leaf["type"] not in ("string", "integer", "number"):
        return False
    if "enum" in leaf and len(leaf["enum"]) < 5:
        return False
    pattern = r"(?<![^\s(])\{" + re.escape(slot) + r"\}(?![^\s.,?!;:)])"
    return len(re.findall(pattern, ask.say)) == 1 == ask.say.count("{" + slot + "}")


def _listed(ask: Ask, varied: list[str], count: int, random: Random) -> str:
    """``{a}, {a~2} and {a~3}`` in place of ``{a}``, and with two slots each with its own, in the same order."""
    joint = random.choices((" and ", ", and ", " & ", ", "), (7, 3, 1, 1))[0]
    say = ask.say
    for slot in varied:
        marked = [f"{{{slot}}}", *(f"{{{slot}~{number}}}" for number in range(2, count + 1))]
        last = joint if count > 2 or joint != ", and " else " and "
        say = say.replace(marked[0], ", ".join(marked[:-1]) + last + marked[-1])
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
