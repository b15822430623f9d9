"""Mistral up to the Small 3.1 of 2025: ``[TOOL_CALLS] [{…}]``, a JSON list whose calls have ids of nine characters."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from agentkit.llm.formats.base import Format, Markup, Parts, example_calls, name_and_arguments, short_id
from agentkit.messages import Message, ToolSpec

CALLS = Markup("[TOOL_CALLS]")
RESULTS, RESULTS_END = Markup("[TOOL_RESULTS]"), Markup("[/TOOL_RESULTS]")


def describe(format: Format, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
    """The system message: the templates put the tools before the latest question, which would rewrite history."""
    if not tools:
        return (prompt,)
    listed = json.dumps([tool.to_openai() for tool in tools], ensure_ascii=False)
    parts: Parts = (f"{prompt}\n\n",) if prompt else ()
    parts += (Markup("[AVAILABLE_TOOLS]"), listed, Markup("[/AVAILABLE_TOOLS]"))
    examples = example_calls(format, tools)
    return parts + (("\n\nExamples:", *sum(examples, ())) if examples else ())


class Mistral(Format):
    name = "mistral"
    triggers = (CALLS,)
    opening = (CALLS, " [")
    between = (", ",)
    closing = ("]",)
    before_call = ""
    between_results = ""
    around_result = (r"\[INST\] ?\Z", r"\A ?\[/INST\]")

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        return CALLS in template or (CALLS in tokens and "tools" not in template)

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        return describe(self, prompt, tools)

    def head(self, name: str) -> Parts:
        return (name_and_arguments(name),)

    def tail(self, call_id: str) -> Parts:
        return (f', "id": "{short_id(call_id) if call_id != chr(0) else call_id}"}}',)

    def result(self, message: Message) -> Parts:
        call_id = short_id(message.tool_call_id or "")
        return (RESULTS, f' {{"content": {message.content}, "call_id": "{call_id}"}}', RESULTS_END)


FORMAT = Mistral()
