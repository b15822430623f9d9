"""For models whose chat template knows no tools: JSON between ``<tool_call>`` tags, all of it plain text."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from agentkit.llm.formats.base import Format, Parts, name_and_arguments, within
from agentkit.messages import Message, ToolSpec

_OPEN, _CLOSE = "<tool_call>\n", "\n</tool_call>"


class Generic(Format):
    name = "generic"
    triggers = ("<tool_call>",)
    between = ("\n",)

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        return True

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        if not tools:
            return (prompt,)
        lines = [prompt, "", "You may call one of these functions:", "<tools>"] if prompt else ["<tools>"]
        lines += [json.dumps(tool.to_openai(), ensure_ascii=False) for tool in tools]
        lines += [
            "</tools>",
            "To call a function, return a JSON object with its name and arguments within tool_call tags:",
            f'{_OPEN}{{"name": <function-name>, "arguments": <args-json-object>}}{_CLOSE}',
        ]
        examples = [(tool.name, example) for tool in tools for example in tool.examples[:2]]
        if examples:
            lines.append("Examples:")
        for name, example in examples:
            call = "".join((*self.head(name), *self.arguments(example.arguments), *self.tail("")))
            lines.append(f"{example.text}\n{call}")
        return ("\n".join(lines).strip(),)

    def head(self, name: str) -> Parts:
        return (f"{_OPEN}{name_and_arguments(name)}",)

    def tail(self, call_id: str) -> Parts:
        return (f"}}{_CLOSE}",)

    def result(self, message: Message) -> Parts:
        return (f"<tool_response>\n{within(message.content, '</tool_response>')}\n</tool_response>",)


FORMAT = Generic()
