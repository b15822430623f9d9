"""What a model wrote under the grammar of a call, read as calls and validated by an independent validator."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentkit.errors import ModelError
from agentkit.llm.formats.base import Format
from agentkit.llm.strict import TooLarge
from agentkit.llm.validator import validator_class
from agentkit.messages import ToolCall, ToolSpec

_THINK_END = "</think>"


@dataclass(frozen=True, slots=True)
class Written:
    """A message that makes calls."""

    said: str
    """The thought before the first call."""
    calls: tuple[ToolCall, ...]
    repeated: tuple[ToolCall, ...]
    """Calls left out because one before says the same."""


def read_message(text: str, tools: Sequence[ToolSpec], format: Format, *, thinks: bool = False) -> Written:
    """The whole calls of a message; what follows the last of them, because the budget ended, is left out.

    Args:
        text: What the model wrote.
        tools: Those that could be called.
        format: The model's tool-call format.
        thinks: A thought may stand before the calls.

    Raises:
        ModelError: A call passed the grammar, but not its schema, or holds a number that nothing can hold.
    """
    said, end, rest = text.partition(_THINK_END) if thinks else ("", "", text)
    if thinks and not end:
        said, rest = "", text
    elif thinks:
        said += f"{end}\n"
        rest = rest.removeprefix(f"\n{format.before_call}")
    specs = {tool.name: tool for tool in tools}
    calls: dict[str, ToolCall] = {}
    repeated = []
    for name, arguments, call_id in _read(rest, list(specs), format):
        _validate(specs[name], arguments)
        arguments = as_formatted(arguments, specs[name].schema)
        call = ToolCall(call_id or f"call_{uuid.uuid4().hex[:12]}", name, arguments)
        key = json.dumps([name, arguments], sort_keys=True)
        if key in calls:
            repeated.append(call)
        else:
            calls[key] = call
    return Written(said, tuple(calls.values()), tuple(repeated))


def _read(text: str, names: list[str], format: Format) -> list[tuple[str, dict[str, Any], str]]:
    try:
        return format.read_calls(text, names)
    except TooLarge as error:  # the grammar of a number knows no bound
        cause = f"the model called a tool with the number {error}, which is too large"
        raise ModelError(cause, "ask differently, or give the parameter a maximum in its schema") from error


def as_formatted(value: Any, schema: Any) -> Any:
    """Numbers whose schema says ``"format": "float"`` or ``"double"``, as OpenAPI has it, with a decimal point."""
    if not isinstance(schema, dict):
        return value
    branches = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(branches) == 1:  # or null
        return as_formatted(value, branches[0])
    if isinstance(value, dict):
        children = schema.get("properties", {})
        return {key: as_formatted(each, children.get(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [as_formatted(each, schema.get("items")) for each in value]
    if schema.get("format") in ("float", "double") and type(value) is int and int(float(value)) == value:
        return float(value)
    return value


def _validate(spec: ToolSpec, arguments: dict[str, object]) -> None:
    import jsonschema

    try:
        validator_class()(spec.schema).validate(arguments)
    except jsonschema.ValidationError as error:
        cause = f"the call of {spec.name} passed the grammar but not its schema: {error.message}"
        raise ModelError(cause, "report this schema") from error
