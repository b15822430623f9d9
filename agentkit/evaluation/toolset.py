"""Labelled tool calls: tools with turns that call them or leave out what a call needs, and messages that need several
calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.evaluation.accepted import Accepted, check_names, read_accepted, read_tool, wrong_arguments
from agentkit.evaluation.lines import check_keys, check_texts, of_split, read_lines, round_robin
from agentkit.evaluation.several import SeveralCase, read_several
from agentkit.messages import ToolSpec


@dataclass(frozen=True, slots=True)
class ToolCase:
    """One turn."""

    id: str
    tool: ToolSpec
    split: str
    text: str
    accepted: Accepted
    missing: tuple[str, ...] = ()
    """Required parameters that the turn says nothing of; nothing is ``accepted`` then."""

    def wrong(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments that are not accepted; None for one that is missing."""
        return wrong_arguments(self.accepted, arguments)


Case = ToolCase | SeveralCase


@dataclass(frozen=True, slots=True)
class _Line:
    """A tool with all of its turns."""

    id: str
    split: str
    calls: tuple[ToolCase, ...]
    lacking: tuple[ToolCase, ...]


def read_tool_cases(path: Path, split: str | None = None, limit: int | None = None) -> list[Case]:
    """Read a file of tools, of messages that need several calls, or of both.

    Args:
        path: JSON lines. A tool: ``tool`` (name, description, parameters), ``split``, ``calls`` (text, and arguments:
            lists of the values that are right, null where it may be left out) and ``lacking`` (text, and missing: the
            names of the parameters to ask for). A message: ``id``, ``split``, ``tools`` (a list), ``text`` and
            ``calls`` (name and arguments), which are right in any order.
        split: Keep only the lines of this split.
        limit: At most this many turns of each kind.

    Returns:
        The turns to be answered with a call, then those that lack something, then the messages. The first two go round
        the tools, so that the first few are of as many tools.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is wrong, a tool or id stands twice, or none is left; names line and cause.
    """
    lines = of_split(path, read_lines(path, _line), lambda line: line.split, split)
    tools = [line for line in lines if isinstance(line, _Line)]
    calls, lacking = round_robin(line.calls for line in tools), round_robin(line.lacking for line in tools)
    several = [line for line in lines if isinstance(line, SeveralCase)]
    return [*calls[:limit], *lacking[:limit], *several[:limit]]


def _line(number: int, body: dict[str, Any]) -> _Line | SeveralCase:
    return read_several(body) if "tools" in body else _tool_line(body)


def _tool_line(body: dict[str, Any]) -> _Line:
    check_keys(body, {"tool", "split", "calls", "lacking"})
    check_texts(body, "split")
    tool = read_tool(body["tool"])
    calls = [
        ToolCase(
            f"{tool.name}/{n}", tool, body["split"], case["text"], read_accepted(case["arguments"], tool)
        )
        for n, case in enumerate(_cases(body, "calls", "arguments"), 1)
    ]
    lacking = [
        ToolCase(f"{tool.name}/lacking/{n}", tool, body["split"], case["text"], {}, _missing(case, tool))
        for n, case in enumerate(_cases(body, "lacking", "missing"), 1)
    ]
    return _Line(tool.name, body["split"], tuple(calls), tuple(lacking))


def _cases(body: dict[str, Any], key: str, label: str) -> list[dict[str, Any]]:
    cases = body[key]
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise ValueError(f"{key} must be a list of objects")
    for case in cases:
        check_keys(case, {"text", label})
        check_texts(case, "text")
    return cases


def _missing(case: dict[str, Any], tool: ToolSpec) -> tuple[str, ...]:
    names = case["missing"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("missing must be a list of parameters")
    check_names(names, tool)
    return tuple(names)
