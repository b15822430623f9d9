"""Hermes and Qwen: JSON between ``<tool_call>`` tags, which are tokens of their own in newer vocabularies.

Source: the NousResearch Hermes function-calling format, which the templates of Qwen 2.5 and 3 use too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agentkit.llm.formats.base import (
    Format,
    Markup,
    Parts,
    example_calls,
    name_and_arguments,
    schema_lines,
    within,
)
from agentkit.messages import Message, ToolSpec

_OPEN, _CLOSE = Markup("<tool_call>"), Markup("</tool_call>")
_OTHER_WITHIN = ("<function=", "<arg_key>")
"""Families that write something else than JSON between the same tags."""


class Hermes(Format):
    name = "hermes"
    triggers = (_OPEN,)
    between = ("\n",)
    between_results = "\n"

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        if any(mark in template for mark in _OTHER_WITHIN):
            return False
        return _OPEN in template or (_OPEN in tokens and "tools" not in template)

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        if not tools:
            return (prompt,)
        intro = (
            "# Tools\n\nYou may call functions to help the user. Their signatures stand within tools tags:\n"
        )
        parts: Parts = (f"{prompt}\n\n{intro}" if prompt else intro, Markup("<tools>"))
        parts += (f"\n{schema_lines(tools)}\n", Markup("</tools>"))
        parts += (
            "\n\nTo call a function, return a JSON object with its name and arguments within tool_call tags:\n",
        )
        parts += (_OPEN, '\n{"name": <function-name>, "arguments": <args-json-object>}\n', _CLOSE)
        examples = example_calls(self, tools)
        return parts + (("\nExamples:", *sum(examples, ())) if examples else ())

    def head(self, name: str) -> Parts:
        return (_OPEN, f"\n{name_and_arguments(name)}")

    def tail(self, call_id: str) -> Parts:
        return ("}\n", _CLOSE)

    def result(self, message: Message) -> Parts:
        content = within(message.content, "</tool_response>")
        return (Markup("<tool_response>"), f"\n{content}\n", Markup("</tool_response>"))


FORMAT = Hermes()
