"""What callers pass to a model, read into agentkit's own types; wrong input is refused here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentkit.errors import SchemaError, UsageError
from agentkit.llm.missing import going_on
from agentkit.llm.protocol import Router
from agentkit.messages import Message, ToolChoice, ToolSpec
from agentkit.settings import SamplingSettings

AnyTool = ToolSpec | Mapping[str, Any] | Callable[..., Any]
"""A `ToolSpec`, an OpenAI schema, an `agentkit.Tool` or a plain typed function with a docstring."""
AnyMessage = Message | Mapping[str, Any]
"""A `Message` or the OpenAI chat form."""


def read_messages(messages: Sequence[AnyMessage]) -> list[Message]:
    """Messages in either form; at least one."""
    if not messages:
        raise UsageError("there are no messages", "pass at least one user message")
    return [Message.from_openai(message) for message in messages]


def read_tools(tools: Sequence[AnyTool]) -> list[ToolSpec]:
    """Tools in any form a caller may hold; names are unique."""
    specs = [_spec(tool) for tool in tools]
    names = [spec.name for spec in specs]
    for spec in specs:
        try:
            _ = spec.schema
        except RecursionError as error:
            cause = f"tool {spec.name!r}: the schema at # is nested too deeply"
            raise SchemaError(cause, "simplify it") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"two tools are called {twice!r}", "rename one")
    return specs


def read_tool_choice(choice: ToolChoice, specs: Sequence[ToolSpec]) -> list[ToolSpec]:
    """The tools of which one must be called; empty where none must.

    Raises:
        UsageError: The choice is unknown, or names no tool of this call.
    """
    if isinstance(choice, Mapping):
        function: Any = choice.get("function")
        wanted = choice.get("name") or (function.get("name") if isinstance(function, Mapping) else None)
        found = [spec for spec in specs if spec.name == wanted]
        if not found:
            known = ", ".join(spec.name for spec in specs) or "none"
            raise UsageError(
                f"tool_choice names {wanted!r}, which is no tool of this call", f"tools: {known}"
            )
        return found
    if choice not in ("auto", "none", "required"):
        raise UsageError(f"unknown tool_choice {choice!r}", "use auto, none, required or {'name': ...}")
    if choice == "required" and not specs:
        raise UsageError("tool_choice is required, but there are no tools", "pass tools")
    return list(specs) if choice == "required" else []


def routed(
    messages: Sequence[Message], specs: Sequence[ToolSpec], choice: ToolChoice, router: Router | None
) -> ToolChoice:
    """The choice; under ``auto``, what a router makes of the user's turn where there is one."""
    if choice != "auto" or not specs or router is None or messages[-1].role != "user":
        return choice
    wanted = router.route(going_on(messages), specs, None).tool
    return next(({"name": spec.name} for spec in specs if spec.name == wanted), "none")


def read_sampling(defaults: SamplingSettings, overrides: Mapping[str, Any]) -> SamplingSettings:
    """The defaults with a call's own options laid over them; unknown options are refused."""
    from pydantic import ValidationError

    try:
        changes = {key: value for key, value in overrides.items() if value is not None}
        return SamplingSettings.model_validate({**defaults.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(SamplingSettings.model_fields)
        raise UsageError(f"sampling option {first['loc'][0]}: {first['msg']}", f"options: {known}") from error


def read_response_format(value: Any) -> dict[str, Any] | None:
    """The JSON schema that an answer must satisfy, from OpenAI's forms or a bare schema; None for free text.

    Raises:
        UsageError: It is none of these.
    """
    remedy = "use {'type': 'text'}, {'type': 'json_object'}, a json_schema wrapper or a JSON schema"
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise UsageError(f"response_format must be an object, not {type(value).__name__}", remedy)
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":  # llama.cpp's servers take a schema beside it
        schema = value.get("schema") or {"type": "object"}
        if not isinstance(schema, Mapping):
            kind = type(schema).__name__
            raise UsageError(f"the schema of response_format must be an object, not {kind}", remedy)
        return dict(schema)
    if kind != "json_schema" and "json_schema" not in value:
        if not value:
            raise UsageError("response_format is empty", remedy)
        return dict(value)
    wrapper = value.get("json_schema")
    schema = (
        wrapper.get("schema", None if "name" in wrapper else wrapper)
        if isinstance(wrapper, Mapping)
        else None
    )
    if not isinstance(schema, Mapping):
        raise UsageError("response_format has no schema in its json_schema", remedy)
    return dict(schema)


def _spec(tool: AnyTool) -> ToolSpec:
    if isinstance(tool, ToolSpec):
        return tool
    if isinstance(tool, Mapping):
        function = tool.get("function", tool)
        try:
            parameters = dict(function.get("parameters") or {"type": "object", "properties": {}})
            # Some clients write an empty map, or an empty list, as null.
            given = {key: value for key, value in parameters.items() if value is not None}
            return ToolSpec(str(function["name"]), str(function.get("description") or ""), given)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"a tool schema cannot be read ({error})", "use the OpenAI form") from error
    from agentkit.tooling.tool import Tool
    from agentkit.tooling.tool import tool as make_tool

    made = tool if isinstance(tool, Tool) else make_tool(tool)
    return made.spec
