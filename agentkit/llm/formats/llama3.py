"""Llama 3.1, 3.2 and 3.3: a message that is one JSON object, results in the role ``ipython``.

``<|python_tag|>`` may stand before the object; it opens a call, but is not written here. Several calls are
separated by semicolons.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agentkit.llm.formats.base import Format, Markup, Parts, example_calls, name_and_arguments, schema_lines
from agentkit.messages import Message, ToolSpec


class Llama3(Format):
    name = "llama3"
    triggers = (Markup("<|python_tag|>"),)
    openings = ('{"name": "%s"', '{"name":"%s"', '{"type": "function"')
    between = ("; ",)
    result_role = "ipython"

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        return "ipython" in template and '"parameters": ' in template

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        if not tools:
            return (prompt,)
        text = (
            "Environment: ipython\n\nYou may call these functions. To call one, answer with a JSON object of "
        )
        text += 'the form {"name": function name, "parameters": its arguments by name}, with values only, '
        text += f"and with nothing else:\n\n{schema_lines(tools)}"
        examples = example_calls(self, tools)
        parts: Parts = (f"{text}\n\nExamples:", *sum(examples, ())) if examples else (text,)
        return (*parts, f"\n\n{prompt}") if prompt else parts

    def head(self, name: str) -> Parts:
        return (name_and_arguments(name, "parameters"),)

    def tail(self, call_id: str) -> Parts:
        return ("}",)

    def result(self, message: Message) -> Parts:
        return (message.content,)


FORMAT = Llama3()
