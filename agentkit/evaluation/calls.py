"""One case put to a model, and the tool calls it answers with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentkit.errors import AgentkitError, ModelError, UsageError
from agentkit.events import Notice
from agentkit.llm.protocol import ChatModel
from agentkit.messages import Completion, Message, ToolSpec

Call = tuple[str, dict[str, Any]]
"""Name and arguments."""
Choice = Literal["required", "auto"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of a case."""

    calls: tuple[Call, ...] = ()
    text: str = ""
    """What it said, beside calls or instead of them."""
    notices: tuple[str, ...] = ()
    """Codes."""
    passes: int = 0
    """Forward passes."""
    seconds: float = 0.0
    """From asking to the end of the answer, reading the prompt and making the grammar included."""
    cut: bool = False
    """The token budget ended before the answer did."""
    failed: str = ""
    """The model's error; there is no answer then."""


def answer(
    model: ChatModel,
    messages: Sequence[Message | Mapping[str, Any]],
    tools: Sequence[ToolSpec],
    *,
    tool_choice: Choice,
    max_new_tokens: int,
    parallel: bool = False,
    unconstrained: bool = False,
) -> Answer:
    """Ask a model once.

    Args:
        model: Decodes calls under its grammar.
        messages: The conversation.
        tools: What may be called.
        tool_choice: Whether something must be called.
        max_new_tokens: Budget of the answer.
        parallel: Several calls may be made under the grammar.
        unconstrained: Decode free text without any grammar and read all calls out of it (`parse`).

    Returns:
        The answer; an error of the model is part of it, so that a run goes on.
    """
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if parallel:
        options["parallel_tool_calls"] = True
    notices: list[str] = []
    start = time.perf_counter()
    try:
        choice = "none" if unconstrained else tool_choice
        for event in model.stream(messages, tools=tools, tool_choice=choice, **options):
            if isinstance(event, Notice):
                notices.append(event.code)
            if isinstance(event, Completion):
                calls = tuple((call.name, call.arguments) for call in event.tool_calls)
                if unconstrained:
                    calls = parse(event.text)
                seconds, passes = time.perf_counter() - start, event.usage.forward_passes
                cut = event.finish_reason == "length"
                return Answer(calls, event.text, tuple(notices), passes, seconds, cut)
        raise ModelError("the model ended without a completion", "report this conversation")
    except AgentkitError as error:
        return Answer(notices=tuple(notices), failed=str(error))


def decides(tool_choice: Choice, unconstrained: bool) -> bool:
    """Whether the model is free to call nothing: under ``required`` the grammar leaves it no choice."""
    return tool_choice == "auto" or unconstrained


def parse(text: str) -> tuple[Call, ...]:
    """Every JSON object with a name and arguments in free text, in order."""
    calls: list[Call] = []
    end = 0
    for match in re.finditer(r"\{", text):
        if match.start() < end:  # inside of a call
            continue
        try:
            body, after = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        arguments = body.get("arguments", body.get("parameters"))
        if isinstance(body.get("name"), str) and isinstance(arguments, dict):
            calls.append((body["name"], arguments))
            end = after
    return tuple(calls)


def check_unconstrained(model: Any) -> None:
    """Refuse models whose free text `parse` could not read.

    Raises:
        UsageError: The model is on a server, or its format writes calls that are no JSON objects.
    """
    encoder = getattr(model, "encoder", None)
    if encoder is None:
        cause = "only a model in this process can be decoded without a grammar"
        raise UsageError(cause, "leave out --unconstrained")
    if '"name"' not in "".join(encoder.format.head("f")):
        cause = f"calls in the format {encoder.format.name} are no JSON objects that free text could be searched for"
        raise UsageError(cause, "leave out --unconstrained, or name another tool_format in agentkit.toml")


def are_valid(calls: Sequence[Call], tools: Sequence[ToolSpec]) -> bool:
    """Whether all calls are of given tools, with arguments of their schemas; so are no calls."""
    schemas = {tool.name: tool.schema for tool in tools}
    return all(name in schemas and fits(arguments, schemas[name]) for name, arguments in calls)


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is one of the schema's."""
    from jsonschema import Draft202012Validator

    return bool(Draft202012Validator(dict(schema)).is_valid(value))
