"""Labelled tool calls: tools with turns that call them, and turns that leave out what a call needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.evaluation.lines import check_keys, check_texts, of_split, read_lines, round_robin
from agentkit.messages import ToolSpec


@dataclass(frozen=True, slots=True)
class ToolCase:
    """One turn."""

    id: str
    tool: ToolSpec
    split: str
    text: str
    accepted: dict[str, list[Any]]
    """Values by parameter; None among those of one that may be left out."""
    missing: tuple[str, ...] = ()
    """Required parameters that the turn says nothing of; nothing is ``accepted`` then."""

    def wrong(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments that are not accepted; None for one that is missing."""
        names = {*self.accepted, *arguments}
        return {
            name: arguments.get(name)
            for name in sorted(names)
            if not any(_same(arguments.get(name), value) for value in self.accepted.get(name, []))
        }


@dataclass(frozen=True, slots=True)
class _Line:
    """A tool with all of its turns."""

    id: str
    split: str
    calls: tuple[ToolCase, ...]
    lacking: tuple[ToolCase, ...]


def read_tool_cases(path: Path, split: str | None = None, limit: int | None = None) -> list[ToolCase]:
    """Read a file of tools.

    Args:
        path: JSON lines, a tool each: ``tool`` (name, description, parameters), ``split``, ``calls`` (text, and
            arguments: lists of the values that are right, null where it may be left out) and ``lacking`` (text, and
            missing: the names of the parameters to ask for).
        split: Keep only the tools of this split.
        limit: At most this many turns of either kind.

    Returns:
        The turns to be answered with a call, then those that lack something. Each kind goes round the tools, so that
        the first few are of as many tools.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is wrong, a tool stands twice, or none is left; names line and cause.
    """
    lines = of_split(path, read_lines(path, _line), lambda line: line.split, split)
    calls, lacking = round_robin(line.calls for line in lines), round_robin(line.lacking for line in lines)
    return [*calls[:limit], *lacking[:limit]]


def _line(number: int, body: dict[str, Any]) -> _Line:
    check_keys(body, {"tool", "split", "calls", "lacking"})
    check_texts(body, "split")
    tool = _tool(body["tool"])
    calls = [
        ToolCase(f"{tool.name}/{n}", tool, body["split"], case["text"], _accepted(case["arguments"], tool))
        for n, case in enumerate(_cases(body, "calls", "arguments"), 1)
    ]
    lacking = [
        ToolCase(f"{tool.name}/lacking/{n}", tool, body["split"], case["text"], {}, _missing(case, tool))
        for n, case in enumerate(_cases(body, "lacking", "missing"), 1)
    ]
    return _Line(tool.name, body["split"], tuple(calls), tuple(lacking))


def _tool(body: Any) -> ToolSpec:
    if not isinstance(body, dict):
        raise ValueError("tool must be an object")
    check_keys(body, {"name", "description", "parameters"})
    check_texts(body, "name", "description")
    parameters = body["parameters"]
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties"), dict):
        raise ValueError("the tool's parameters must be a schema with properties")
    return ToolSpec(body["name"], body["description"], parameters)


def _cases(body: dict[str, Any], key: str, label: str) -> list[dict[str, Any]]:
    cases = body[key]
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise ValueError(f"{key} must be a list of objects")
    for case in cases:
        check_keys(case, {"text", label})
        check_texts(case, "text")
    return cases


def _accepted(values: Any, tool: ToolSpec) -> dict[str, list[Any]]:
    if not isinstance(values, dict) or not all(isinstance(v, list) and v for v in values.values()):
        raise ValueError("arguments must hold a list of accepted values for each parameter")
    _check_names(values, tool)
    if left := [name for name in tool.parameters.get("required", ()) if name not in values]:
        raise ValueError(f"arguments has nothing for {', '.join(left)}, which the tool requires")
    return values


def _missing(case: dict[str, Any], tool: ToolSpec) -> tuple[str, ...]:
    names = case["missing"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("missing must be a list of parameters")
    _check_names(names, tool)
    return tuple(names)


def _check_names(names: Any, tool: ToolSpec) -> None:
    if unknown := [name for name in names if name not in tool.parameters["properties"]]:
        raise ValueError(f"{tool.name} has no parameter {unknown[0]!r}")


def _same(given: Any, accepted: Any) -> bool:
    """Whether a value is the accepted one; case does not count, and 1 is 1.0 but not true."""
    if isinstance(given, list) and isinstance(accepted, list):
        return len(given) == len(accepted) and all(map(_same, given, accepted))
    if isinstance(given, bool) or isinstance(accepted, bool):
        return given is accepted
    if isinstance(given, str) and isinstance(accepted, str):
        return given.casefold() == accepted.casefold()
    return bool(given == accepted)
