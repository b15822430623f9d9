"""Newer Mistral models: ``[TOOL_CALLS]name[ARGS]{…}`` for every call, no ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agentkit.llm.formats.base import Format, Markup, Parts
from agentkit.llm.formats.mistral import CALLS, RESULTS, RESULTS_END, describe
from agentkit.messages import Message, ToolSpec

_ARGS = Markup("[ARGS]")


class MistralArgs(Format):
    name = "mistral-args"
    triggers = (CALLS,)
    between = ()
    before_call = ""
    between_results = ""
    around_result = (r"\[INST\] ?\Z", r"\A ?\[/INST\]")

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        return CALLS in template and _ARGS in template

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        return describe(self, prompt, tools)

    def head(self, name: str) -> Parts:
        return (CALLS, name, _ARGS)

    def tail(self, call_id: str) -> Parts:
        return ()

    def result(self, message: Message) -> Parts:
        return (RESULTS, message.content, RESULTS_END)


FORMAT = MistralArgs()
