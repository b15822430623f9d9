"""`@tool`: a typed, documented function becomes something a model can call."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from pydantic_core import to_jsonable_python

from agentkit.errors import ProjectError, SchemaError, UsageError
from agentkit.messages import ToolExample, ToolSpec
from agentkit.prompts import check_template
from agentkit.tooling.schema import Arguments, arguments_of, describe

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
FOREIGN_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.:/-]{0,127}")
"""Names of schemas that others wrote (dots are common there); `@tool` itself is stricter."""

Example = tuple[str, Mapping[str, Any]]
"""A user turn and the arguments of the call it should lead to."""


@dataclass(frozen=True, eq=False)
class Tool:
    """A function with its schema and limits. Calling it calls the function, without sandbox or validation."""

    spec: ToolSpec
    fn: Callable[..., Any] | None
    """``None`` for a tool that is only described, by `from_schema`."""
    arguments: Arguments | None = None
    side_effect: bool = False
    """Changes something outside: calls need approval."""
    timeout_s: float | None = None
    """Overrides ``[tools] timeout_s``."""
    output_limit: int | None = None
    """Overrides ``[tools] output_limit``, in characters of JSON."""
    source: Path | None = None
    """The file it was loaded from; such a tool runs in the worker process."""
    reply: str | None = None
    """Jinja2 template that puts a result into words, given ``result`` and ``arguments``."""
    entry_point: str | None = None
    """Its name in the entry-point group ``agentkit.tools``; such a tool runs in the worker process too."""

    @property
    def name(self) -> str:
        """The name models call it by."""
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:
            raise UsageError(f"tool {self.name!r} is only a schema", "run it where it is implemented")
        return self.fn(*args, **kwargs)

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Validate and coerce JSON arguments, then call the function; coroutines are awaited.

        Raises:
            UsageError: The arguments do not fit the schema, or the tool is only a schema.
        """
        values = self.arguments.validate(arguments) if self.arguments else dict(arguments)
        result = self(**values)
        return asyncio.run(_await(result)) if inspect.isawaitable(result) else result

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any]) -> Tool:
        """A tool without code from an OpenAI tool schema, with or without its ``function`` wrapper.

        Raises:
            SchemaError: Name or parameters are missing or malformed.
        """
        body = schema.get("function", schema) if isinstance(schema, Mapping) else None
        name = body.get("name") if isinstance(body, Mapping) else None
        if not isinstance(body, Mapping) or not isinstance(name, str) or not FOREIGN_NAME.fullmatch(name):
            remedy = "pass {'type': 'function', 'function': {'name', 'description', 'parameters'}}"
            raise SchemaError(f"a tool schema has no usable name ({name!r})", remedy)
        parameters = body.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") not in ("object", "dict"):
            raise SchemaError(
                f"tool {name!r}: parameters must be a JSON schema of an object", 'use "type": "object"'
            )
        return cls(ToolSpec(name, str(body.get("description") or ""), dict(parameters)), None)


@overload
def tool(fn: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    side_effect: bool = False,
    timeout_s: float | None = None,
    output_limit: int | None = None,
    examples: Iterable[Example] = (),
    reply: str | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    side_effect: bool = False,
    timeout_s: float | None = None,
    output_limit: int | None = None,
    examples: Iterable[Example] = (),
    reply: str | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, bare (``@tool``) or with options (``@tool(side_effect=True)``).

    Args:
        fn: The function; every parameter needs an annotation, the function a docstring.
        name: Defaults to the function's name.
        side_effect: It changes something outside; a person or the policy must approve its calls.
        timeout_s: Seconds a call may take; unset uses ``[tools] timeout_s``.
        output_limit: Characters of JSON a result may have; unset uses ``[tools] output_limit``.
        examples: Pairs of a user turn and the arguments of the right call, for routing and prompts.
        reply: Jinja2 template that puts a result into words, for models too small to do so faithfully; it sees
            ``result`` and ``arguments``.

    Raises:
        SchemaError: The signature, docstring, name, a limit or an example cannot be used.
    """
    local_names = sys._getframe(1).f_locals  # types defined inside a function are legal annotations

    def make(function: Callable[..., Any]) -> Tool:
        chosen = name if name is not None else getattr(function, "__name__", type(function).__name__)
        if not isinstance(chosen, str) or not NAME.fullmatch(chosen):
            remedy = "use letters, digits and underscores, at most 64, not starting with a digit"
            raise SchemaError(f"{chosen!r} is no name for a tool", remedy)
        _check_limits(chosen, timeout_s, output_limit)
        _check_reply(chosen, reply)
        description, texts = describe(function)
        arguments = arguments_of(function, texts, local_names)
        checked = tuple(_example(chosen, arguments, pair) for pair in examples)
        spec = ToolSpec(chosen, description, arguments.parameters, checked)
        return Tool(spec, function, arguments, side_effect, timeout_s, output_limit, reply=reply)

    return make if fn is None else make(fn)


def _check_limits(name: str, timeout_s: float | None, output_limit: int | None) -> None:
    for limit, value, kinds, remedy in (
        ("timeout_s", timeout_s, (int, float), "a number"),
        ("output_limit", output_limit, (int,), "a whole number"),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not value > 0):
            raise SchemaError(f"tool {name!r}: {limit}={value!r} is no limit", f"use {remedy} above 0")


def _check_reply(name: str, reply: str | None) -> None:
    try:
        check_template(reply or "")
    except ProjectError as error:
        raise SchemaError(f"tool {name!r}: its reply is no template: {error.cause}", error.remedy) from error


def _example(name: str, arguments: Arguments, pair: Example) -> ToolExample:
    try:
        text, values = pair
        arguments.validate(values)
        plain = to_jsonable_python(dict(values))  # a date is written as one
    except (TypeError, ValueError, UsageError) as error:
        problem = error.cause if isinstance(error, UsageError) else str(error)
        cause = f"tool {name!r}: the example {str(pair)[:80]} does not fit ({problem})"
        raise SchemaError(cause, "give (text, {parameter: value})") from error
    return ToolExample(text, plain)


async def _await(value: Any) -> Any:
    return await value
