"""Where a turn names the values that a schema or a description offers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agentkit.llm.slots import stems
from agentkit.llm.spans import LIMIT
from agentkit.llm.units import unit

Part = tuple[int, int]
"""From where to where in a turn."""

_WORDS = re.compile(r"[^\W\d_]+\d?")


def named_in(values: Iterable[Any], turn: str, part: Part) -> list[tuple[str, int, int]]:
    """Where a part of a turn names which of the texts; of "vice president" and "president" only the longer one."""
    part = (part[0], min(part[1], LIMIT))
    words = [(match[0], *match.span()) for match in _WORDS.finditer(turn, *part)]
    said = [
        ({stem, word.lower().removesuffix("s")}, start, end)
        for word, start, end in words
        for stem in stems(word)
    ]
    found: list[tuple[str, int, int]] = []

    def add(text: str, start: int, end: int) -> None:
        if all(end <= a or start >= b for _, a, b in found):
            found.append((text, start, end))

    for text in sorted((value for value in values if isinstance(value, str)), key=lambda text: -len(text)):
        wanted = stems(text)
        if len(wanted) < len(_WORDS.findall(text)):  # "A minor" is more than "minor"
            for match in re.compile(rf"(?<!\w){re.escape(text)}(?!\w)").finditer(turn, *part):
                add(text, *match.span())
            continue
        for n in range(len(said) - len(wanted) + 1 if wanted else 0):
            if all(
                stem in forms for stem, (forms, _, _) in zip(wanted, said[n : n + len(wanted)], strict=True)
            ):
                add(text, said[n][1], said[n + len(wanted) - 1][2])
        measure = unit(text)
        for word, start, end in words if measure else ():
            if unit(word) == measure and len(word) > 1:  # "in miles" for `mi`
                add(text, start, end)
    return sorted(found, key=lambda each: each[1])


def named_as_code(name: str, turn: str) -> list[Part]:
    """Where a turn has a function's name as it is written in code; a plain word is none."""
    if not re.search(r"[a-z][A-Z]|[_.]", name):
        return []
    return [match.span() for match in re.finditer(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\w)", turn)]
