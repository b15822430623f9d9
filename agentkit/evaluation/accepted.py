"""Labels of tool calls: the functions on offer, and the values that are right for each argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentkit.evaluation.calls import fits
from agentkit.evaluation.lines import check_keys, check_texts
from agentkit.messages import ToolSpec

Accepted = dict[str, list[Any]]
"""Values by parameter; None among those of one that may be left out."""


def read_tool(body: Any) -> ToolSpec:
    """A function in OpenAI's form: ``name``, ``description`` and ``parameters``.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(body, dict):
        raise ValueError("tool must be an object")
    check_keys(body, {"name", "description", "parameters"})
    check_texts(body, "name", "description")
    parameters = body["parameters"]
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties"), dict):
        raise ValueError("the tool's parameters must be a schema with properties")
    _check_schema(parameters)
    return ToolSpec(body["name"], body["description"], parameters)


def read_accepted(values: Any, tool: ToolSpec) -> Accepted:
    """The accepted values of a call.

    Raises:
        ValueError: They are not lists, not of the tool's parameters, or nothing that its schema allows.
    """
    if not isinstance(values, dict) or not all(isinstance(v, list) and v for v in values.values()):
        raise ValueError("arguments must hold a list of accepted values for each parameter")
    check_names(values, tool)
    required = tool.parameters.get("required", ())
    if left := [name for name in required if name not in values]:
        raise ValueError(f"arguments has nothing for {', '.join(left)}, which the tool requires")
    for name, accepted in values.items():
        _check_values(name, accepted, tool, name in required)
    return values


def check_names(names: Iterable[str], tool: ToolSpec) -> None:
    """Refuse what is no parameter of the tool.

    Raises:
        ValueError: Names the first.
    """
    if unknown := [name for name in names if name not in tool.parameters["properties"]]:
        raise ValueError(f"{tool.name} has no parameter {unknown[0]!r}")


def fits_parameter(name: str, value: Any, tool: ToolSpec) -> bool:
    """Whether a value is one that a parameter of the tool allows; what the schema refers to is looked up in it."""
    schema = tool.schema
    alone = {**schema, "properties": {name: schema["properties"][name]}, "required": []}
    return fits({name: value}, alone)


def wrong_arguments(accepted: Mapping[str, list[Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not accepted; None for one that is missing."""
    return {
        name: arguments.get(name)
        for name in sorted({*accepted, *arguments})
        if not any(_same(arguments.get(name), value) for value in accepted.get(name, []))
    }


def _check_schema(parameters: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    from agentkit.llm.checkable import fault

    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        raise ValueError(f"the tool's parameters are no JSON schema: {error.message}") from error
    if found := fault(parameters, arguments=True):
        raise ValueError(f"the schema of the tool's parameters cannot be used: {found[1]} (at {found[0]})")


def _check_values(name: str, accepted: list[Any], tool: ToolSpec, is_required: bool) -> None:
    for value in accepted:
        if (value is None and not is_required) or fits_parameter(name, value, tool):
            continue
        if value is None:
            raise ValueError(f"{name} cannot be left out, {tool.name} requires it")
        raise ValueError(f"{value!r} is no {name} that the schema of {tool.name} allows")


def _same(given: Any, accepted: Any) -> bool:
    """Whether a value is the accepted one; case does not count, and 1 is 1.0 but not true."""
    if isinstance(given, list) and isinstance(accepted, list):
        return len(given) == len(accepted) and all(map(_same, given, accepted))
    if isinstance(given, dict) and isinstance(accepted, dict):
        return given.keys() == accepted.keys() and all(_same(given[key], accepted[key]) for key in given)
    if isinstance(given, bool) or isinstance(accepted, bool):
        return given is accepted
    if isinstance(given, str) and isinstance(accepted, str):
        return given.casefold() == accepted.casefold()
    return bool(given == accepted)
