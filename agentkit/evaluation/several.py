"""Labelled messages that need several tool calls: the calls that are right, in any order, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentkit.evaluation.accepted import Accepted, read_accepted, read_tool, wrong_arguments
from agentkit.evaluation.calls import Call
from agentkit.evaluation.lines import check_keys, check_texts
from agentkit.messages import ToolSpec

Kind = Literal["one function", "several functions", "one call"]
KINDS: tuple[Kind, ...] = ("one function", "several functions", "one call")
"""One function called several times, calls of different functions, and only one call among several tools."""


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call that the message asks for."""

    name: str
    accepted: Accepted

    def is_met_by(self, call: Call) -> bool:
        """Whether a call is this one, every argument being accepted."""
        name, arguments = call
        return name == self.name and not wrong_arguments(self.accepted, arguments)


@dataclass(frozen=True, slots=True)
class SeveralCase:
    """One message."""

    id: str
    split: str
    tools: tuple[ToolSpec, ...]
    text: str
    wanted: tuple[WantedCall, ...]

    @property
    def kind(self) -> Kind:
        """What makes the message hard."""
        if len(self.wanted) == 1:
            return "one call"
        return "one function" if len({call.name for call in self.wanted}) == 1 else "several functions"

    def met(self, calls: Sequence[Call]) -> int:
        """How many of the wanted calls are there, no call standing for two of them.

        A maximum matching by augmenting paths (Kuhn, Naval Research Logistics Quarterly 2, 1955): accepted values may
        overlap, so the first call that fits is not always the one to take.
        """
        taken: dict[int, int] = {}  # call to wanted call

        def place(wanted: int, tried: set[int]) -> bool:
            for number, call in enumerate(calls):
                if number in tried or not self.wanted[wanted].is_met_by(call):
                    continue
                tried.add(number)
                if number not in taken or place(taken[number], tried):
                    taken[number] = wanted
                    return True
            return False

        return sum(place(wanted, set()) for wanted in range(len(self.wanted)))

    def is_right(self, calls: Sequence[Call]) -> bool:
        """Whether these are the wanted calls, in any order, and nothing else."""
        return len(calls) == len(self.wanted) == self.met(calls)


def read_several(body: dict[str, Any]) -> SeveralCase:
    """The case of a line.

    Raises:
        ValueError: It is wrong.
    """
    check_keys(body, {"id", "split", "tools", "text", "calls"})
    check_texts(body, "id", "split", "text")
    if "/" in body["id"]:
        raise ValueError("an id cannot hold a slash: those of the turns of a tool do")
    if not isinstance(body["tools"], list) or not body["tools"]:
        raise ValueError("tools must be a list of tools")
    tools = tuple(read_tool(tool) for tool in body["tools"])
    by_name = {tool.name: tool for tool in tools}
    if len(by_name) < len(tools):
        raise ValueError("two tools have the same name")
    calls = body["calls"]
    if not isinstance(calls, list) or not calls:
        raise ValueError("calls must be a list of calls")
    wanted = tuple(_wanted(number, call, by_name) for number, call in enumerate(calls, 1))
    for number, call in enumerate(wanted, 1):
        if call in wanted[: number - 1]:
            raise ValueError(f"call {number} is the same as call {wanted.index(call) + 1}")
    return SeveralCase(body["id"], body["split"], tools, body["text"], wanted)


def _wanted(number: int, body: Any, tools: dict[str, ToolSpec]) -> WantedCall:
    try:
        if not isinstance(body, dict):
            raise ValueError("it must be an object")
        check_keys(body, {"name", "arguments"})
        check_texts(body, "name")
        if body["name"] not in tools:
            raise ValueError(f"no tool is called {body['name']!r}; there are {', '.join(tools)}")
        return WantedCall(body["name"], read_accepted(body["arguments"], tools[body["name"]]))
    except ValueError as error:
        raise ValueError(f"call {number}: {error}") from error
