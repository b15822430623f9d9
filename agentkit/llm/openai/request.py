"""What goes out: conversations, tools and options in the OpenAI chat form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.messages import Message, ToolChoice, ToolSpec
from agentkit.settings import SamplingSettings

_MERGED = ("system", "user", "assistant")
OPTIONAL = ("stream_options", "parallel_tool_calls", "seed", "temperature", "top_p")
"""Fields without which the answer is as good: what they ask for is checked on arrival, or only reported."""
CHOICE = "answer"
"""The property that holds the chosen text: OpenAI's API takes objects only."""


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation; one message where a role speaks twice in a row, for many templates insist on alternation."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        body = message.to_openai()
        if merged and body["role"] in _MERGED and merged[-1]["role"] == body["role"]:
            body = _joined(merged.pop(), body)
        merged.append(body)
    return merged


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    content = "\n\n".join(text for text in (first["content"], second["content"]) if text)
    calls = [*first.get("tool_calls", ()), *second.get("tool_calls", ())]
    return {"role": first["role"], "content": content, **({"tool_calls": calls} if calls else {})}


def answered(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with a word of the assistant between a tool's result and what the user says next."""
    found: list[dict[str, Any]] = []
    for body in messages:
        if found and found[-1]["role"] == "tool" and body["role"] == "user":
            found.append({"role": "assistant", "content": "…"})
        found.append(body)
    return found


def tool_fields(
    specs: Sequence[ToolSpec],
    choice: ToolChoice,
    forced: Sequence[ToolSpec],
    parallel: bool,
    *,
    in_a_word: bool = False,
) -> dict[str, Any]:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls``; nothing without tools.

    Where only one tool can be meant it is named: more servers know that than know ``required``. For those that know
    words alone (``in_a_word``) it is the only one, and required.
    """
    if not specs:
        return {}
    named = forced if len(forced) == 1 else []
    if named and in_a_word:
        return {"tools": [named[0].to_openai()], "tool_choice": "required", "parallel_tool_calls": parallel}
    return {
        "tools": [spec.to_openai() for spec in specs],
        "tool_choice": {"type": "function", "function": {"name": named[0].name}} if named else choice,
        "parallel_tool_calls": parallel,
    }


def sampling_fields(sampling: SamplingSettings) -> dict[str, Any]:
    """Sampling by OpenAI's names; what they lack goes out only where it was set, for strict servers refuse it."""
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.top_p < 1:
        fields["top_p"] = sampling.top_p
    if sampling.temperature > 0:
        fields["seed"] = sampling.seed
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    default = SamplingSettings()
    for name in ("top_k", "min_p", "repetition_penalty"):
        if getattr(sampling, name) != getattr(default, name):
            fields[name] = getattr(sampling, name)
    return fields


def format_fields(schema: Mapping[str, Any] | None, form: int) -> dict[str, Any]:
    """``response_format`` in the form that the server takes.

    Args:
        schema: Of the answer.
        form: 0 is OpenAI's, 1 the older one of llama-cpp-python and others, 2 none at all.
    """
    if schema is None or form >= 2:
        return {}
    if form == 1:
        return {"response_format": {"type": "json_object", "schema": dict(schema)}}
    wrapped = {"name": "answer", "schema": dict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": wrapped}}


def in_words(schema: Mapping[str, Any]) -> str:
    """The schema as an instruction, for servers and models that know no ``response_format``."""
    return f"Answer with JSON only, which must fit this JSON schema: {json.dumps(schema, ensure_ascii=False)}"


def with_request(messages: list[dict[str, Any]], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation with the schema told at its end."""
    last, told = messages[-1], {"role": "user", "content": in_words(schema)}
    return [*messages[:-1], _joined(last, told)] if last["role"] == "user" else [*messages, told]


def reply(said: str, complaint: str) -> list[dict[str, Any]]:
    """A wrong answer and what is wrong with it."""
    return [{"role": "assistant", "content": said or "…"}, {"role": "user", "content": complaint}]


def choice_schema(choices: Sequence[str]) -> dict[str, Any]:
    """A schema whose only answers are these texts."""
    one = {"enum": list(choices)}
    return {
        "type": "object",
        "properties": {CHOICE: one},
        "required": [CHOICE],
        "additionalProperties": False,
    }
