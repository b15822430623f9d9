"""Whether a chat makes sense: calls of tools that are there, with arguments they take, and results of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agentkit.errors import UsageError
from agentkit.llm.validator import validator_class
from agentkit.messages import Message, ToolCall, ToolSpec


def check_chat(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
    """Check one chat; messages are counted from 1.

    Raises:
        UsageError: There is no assistant's message to learn from; a tool's schema is none; a call names no tool of
            the chat or violates its schema; a result answers no call; a call is left without a result although the
            chat goes on.
    """
    if not any(m.role == "assistant" and (m.content.strip() or m.tool_calls) for m in messages):
        raise UsageError("no assistant message", "each chat needs an answer to learn from")
    specs = {tool.name: tool for tool in tools}
    for name, tool in specs.items():
        _validator(json.dumps(tool.schema), name)
    waiting: dict[str, str] = {}
    """Id and tool of the calls that have no result yet."""
    for number, message in enumerate(messages, 1):
        if message.role == "tool":
            _answer(message, waiting, f"message {number}")
            continue
        if waiting:
            id, name = next(iter(waiting.items()))
            cause = f"message {number}: the call {id!r} of {name} has no result before it"
            raise UsageError(cause, "put a 'tool' message behind each call")
        if message.tool_calls and message.role != "assistant":
            raise UsageError(
                f"message {number}: a {message.role} message makes a call", "only assistants call"
            )
        for call in message.tool_calls:
            check_call(call, specs, f"message {number}")
            if call.id in waiting:
                raise UsageError(f"message {number}: two calls have the id {call.id!r}", "number them")
            waiting[call.id] = call.name


def check_call(call: ToolCall, specs: dict[str, ToolSpec], where: str) -> None:
    """Check a call against the tools it can name.

    Raises:
        UsageError: There is no such tool, its schema is none, or the arguments violate it.
    """
    if call.name not in specs:
        known = ", ".join(list(specs)[:5]) or "none"
        raise UsageError(f"{where}: {call.name!r} is called, but is no tool of this chat", f"tools: {known}")
    text = json.dumps(specs[call.name].schema)
    validator: Any = _validator(text, call.name)
    errors: list[Any] = sorted(
        validator.iter_errors(call.arguments), key=lambda error: list(map(str, error.path))
    )
    if errors:
        path = ".".join(str(part) for part in errors[0].absolute_path) or "arguments"
        reason = errors[0].message if len(errors[0].message) <= 200 else f"{errors[0].message[:200]} …"
        raise UsageError(
            f"{where}: wrong arguments of {call.name}: {path}: {reason}", "see the tool's schema"
        )


@lru_cache(maxsize=1024)
def _validator(schema: str, name: str) -> Any:
    from jsonschema import Draft202012Validator, SchemaError

    from agentkit.llm.checkable import fault

    try:
        Draft202012Validator.check_schema(json.loads(schema))
        found = fault(json.loads(schema), arguments=True)
    except SchemaError as error:
        found = "#" + "".join(f"/{part}" for part in error.absolute_path), error.message
    if found:
        raise UsageError(f"the schema of {name}'s arguments is wrong at {found[0]}: {found[1]}", "correct it")
    return validator_class()(json.loads(schema))


def _answer(message: Message, waiting: dict[str, str], where: str) -> None:
    id = message.tool_call_id
    if id is None and len(waiting) >= 1:  # some data sets leave the ids out: results come in the calls' order
        id = next((call for call, name in waiting.items() if message.name in (None, name)), None)
    if id is None or id not in waiting:
        cause = f"{where}: this result answers no call" + (f" ({id!r})" if id is not None else "")
        raise UsageError(cause, "put it behind the assistant's call, with the call's id as tool_call_id")
    if message.name is not None and message.name != waiting[id]:
        cause = f"{where}: this result is of {message.name!r}, but the call {id!r} was of {waiting[id]!r}"
        raise UsageError(cause, "give it the name of the tool that was called")
    del waiting[id]
