"""Hermes tool calls: JSON between ``<tool_call>`` tags. Plain text, so it suits any chat template.

Source: the NousResearch Hermes function-calling format, which Qwen's templates use too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from agentkit.messages import ToolCall, ToolSpec

OPEN = "<tool_call>\n"
CLOSE = "\n</tool_call>"


def system(prompt: str, tools: Sequence[ToolSpec]) -> str:
    """The system message: the prompt, then the tools' signatures and one example call each."""
    if not tools:
        return prompt
    lines = [prompt, "", "You may call one of these functions:", "<tools>"] if prompt else ["<tools>"]
    lines += [json.dumps(tool.to_openai(), ensure_ascii=False) for tool in tools]
    lines += [
        "</tools>",
        "To call a function, return a JSON object with its name and arguments within tool_call tags:",
        f'{OPEN}{{"name": <function-name>, "arguments": <args-json-object>}}{CLOSE}',
    ]
    examples = [(tool.name, example) for tool in tools for example in tool.examples[:2]]
    if examples:
        lines.append("Examples:")
    for name, example in examples:
        lines.append(f"{example.text}\n{OPEN}{_body(name, example.arguments)}{CLOSE}")
    return "\n".join(lines).strip()


def call(tool_call: ToolCall) -> str:
    """A call as the model writes it."""
    return f"{OPEN}{_body(tool_call.name, tool_call.arguments)}{CLOSE}"


def result(content: str) -> str:
    """A tool's result as the model reads it."""
    return f"<tool_response>\n{content}\n</tool_response>"


def _body(name: str, arguments: dict[str, object]) -> str:
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
