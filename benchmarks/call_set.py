"""The tool calls of `data/calls.txt`: 220 of them over 55 tools, written for this project."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.messages import ToolSpec

DATA = Path(__file__).parent / "data" / "calls.txt"
_PARAMETER = re.compile(r"  (\w+) (\w+)(?:\(([\w,]+)\))?(!?) (.*)")
ABSENT = "-"


@dataclass(frozen=True)
class Case:
    """One turn and the arguments of a right call."""

    tool: ToolSpec
    text: str
    accepted: dict[str, list[Any]]
    """By parameter; `ABSENT` among the values of one that may be left out."""
    tuning: bool
    """Of the half that was looked at while the method was made."""

    def correct(self, arguments: dict[str, Any]) -> bool:
        """Whether every argument is one of those accepted."""
        return not self.wrong(arguments)

    def wrong(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments that are not accepted; `ABSENT` for one that is missing."""
        names = {*self.accepted, *arguments}
        return {
            name: arguments.get(name, ABSENT)
            for name in sorted(names)
            if not any(_same(arguments.get(name, ABSENT), value) for value in self.accepted.get(name, []))
        }


def _same(given: Any, accepted: Any) -> bool:
    if isinstance(given, list) and isinstance(accepted, list):
        return len(given) == len(accepted) and all(map(_same, given, accepted))
    if isinstance(given, bool) or isinstance(accepted, bool):
        return given is accepted
    if isinstance(given, str) and isinstance(accepted, str):
        return given.casefold() == accepted.casefold()
    return bool(given == accepted)


def load(path: Path = DATA) -> list[Case]:
    """Every case of the file, in its order."""
    cases: list[Case] = []
    for n, block in enumerate(path.read_text(encoding="utf-8").split("\ntool ")[1:]):
        head, *lines = block.strip().splitlines()
        name, description = head.split(": ", 1)
        parameters = [m for line in lines if (m := _PARAMETER.fullmatch(line))]
        schema = {
            "type": "object",
            "properties": {m[1]: _schema(m[2], m[3], m[5]) for m in parameters},
            "required": [m[1] for m in parameters if m[4]],
        }
        tool = ToolSpec(name, description, schema)
        for line, answer in itertools.pairwise(lines):
            if line.startswith("> "):
                accepted = {key: _accepted(value) for key, value in json.loads(answer).items()}
                cases.append(Case(tool, line[2:], accepted, n % 2 == 0))
    return cases


def _schema(kind: str, inner: str | None, description: str) -> dict[str, Any]:
    body: dict[str, Any] = {"type": kind}
    if kind == "enum":
        body = {"type": "string", "enum": (inner or "").split(",")}
    elif kind == "list":
        body = {"type": "array", "items": {"type": inner}}
    return {**body, "description": description}


def _accepted(value: Any) -> list[Any]:
    if not isinstance(value, str) or " | " not in value:
        return [value]
    return [_plain(part) for part in value.split(" | ")]


def _plain(text: str) -> Any:
    try:
        return json.loads(text) if re.fullmatch(r"true|false|-?\d+(\.\d+)?", text) else text
    except ValueError:
        return text
