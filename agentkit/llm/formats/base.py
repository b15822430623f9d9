"""What a tool-call format is. Each file beside this one has one, a `Format` by the name of ``FORMAT``.

A format writes *parts*: plain text, which is never control, and `Markup`, the format's own delimiters, which become
control tokens where the vocabulary has them. The same parts give the grammar of a call and its rendering in history.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agentkit.llm.arguments import argument_rules
from agentkit.llm.grounding import Source
from agentkit.llm.strict import read_json_at
from agentkit.messages import Message, ToolCall, ToolSpec

MAX_RULES = 4000
"""Rules that may build on each other; llguidance, which follows them by recursion, dies of some 10,000."""

Parts = tuple[str, ...]
"""Text in pieces; those that are `Markup` may become control tokens."""


class Markup(str):
    """Text of the format itself; no word of a user, a tool or a document is ever in it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ArgumentSyntax:
    """What the rules for arguments need to know of the vocabulary."""

    escape: int | None = None
    """Id of the token around texts, in formats that have one; None where it is written out."""


class Format:
    """The names that every format has; the defaults are those of formats whose arguments are JSON."""

    name: ClassVar[str]
    triggers: ClassVar[tuple[str, ...]]
    """With any of these a call begins in free text."""
    openings: ClassVar[tuple[str, ...]] = ()
    """With these a call begins where they are the first words of a message; ``%s`` stands for a tool's name."""
    opening: ClassVar[Parts] = ()
    """Before the first call."""
    between: ClassVar[Parts]
    """Between two calls."""
    closing: ClassVar[Parts] = ()
    """After the last call."""
    before_call: ClassVar[str] = "\n"
    """Between words and the calls that follow them."""
    result_role: ClassVar[str] = "user"
    """The role of results where the chat template has it; else the user's."""
    between_results: ClassVar[str] = "\n\n"
    around_result: ClassVar[tuple[str, str] | None] = None
    """Patterns of what a chat template puts before and after a user's turn, but not before and after a result."""
    escape: ClassVar[str | None] = None
    """The delimiter of texts where it is not a quotation mark."""

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        """Whether a model with this chat template and these added tokens was trained on the format."""
        raise NotImplementedError

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        """The system message: the prompt, then what may be called; the prompt alone without tools."""
        raise NotImplementedError

    def head(self, name: str) -> Parts:
        """What stands before a call's arguments."""
        raise NotImplementedError

    def tail(self, call_id: str) -> Parts:
        """What stands after them."""
        raise NotImplementedError

    def result(self, message: Message) -> Parts:
        """A tool's result as the model reads it."""
        raise NotImplementedError

    def arguments(self, values: dict[str, Any]) -> Parts:
        """A call's arguments."""
        return (json.dumps(values, ensure_ascii=False),)

    def argument_rules(
        self, name: str, schema: dict[str, Any], found: dict[str, Source], syntax: ArgumentSyntax
    ) -> list[str]:
        """Lark rules for the arguments, the first of them called ``name``.

        Raises:
            SchemaError: The format has no way to write a value of the schema; names the path.
        """
        return argument_rules(name, schema, found)

    def read_arguments(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        """The arguments that begin at ``start`` and where they end.

        Raises:
            ValueError: They are not whole.
            TooLarge: They hold a number that nothing can hold.
        """
        values, end = read_json_at(text, start)
        if not isinstance(values, dict):
            raise ValueError("arguments are no object")
        return values, end

    def call(self, call: ToolCall) -> Parts:
        """One call without what stands around all of them."""
        return (*self.head(call.name), *self.arguments(call.arguments), *self.tail(call.id))

    def calls(self, calls: Sequence[ToolCall]) -> Parts:
        """The calls of one message, as the model writes them."""
        parts = self.opening
        for n, call in enumerate(calls):
            parts += (*(self.between if n else ()), *self.call(call))
        return parts + self.closing

    def read_calls(self, text: str, names: Sequence[str]) -> list[tuple[str, dict[str, Any], str]]:
        """Name, arguments and id of every whole call of a text that the grammar let through.

        What follows the last whole call, because the budget ended, is left out. The id is empty where the format
        writes none.

        Raises:
            TooLarge: The arguments hold a number that nothing can hold.
        """
        opening, between = "".join(self.opening), "".join(self.between)
        heads = {"".join(self.head(name)): name for name in names}
        before_id, _, after_id = "".join(self.tail("\0")).partition("\0")
        tail = re.compile(re.escape(before_id) + (rf"(\w+){re.escape(after_id)}" if after_id else "()"))
        found: list[tuple[str, dict[str, Any], str]] = []
        at = len(opening)
        while True:
            head = next((h for h in heads if text.startswith(f"{h}{{", at)), None)
            if head is None:
                return found
            try:
                values, at = self.read_arguments(text, at + len(head))
            except (ValueError, RecursionError):
                return found
            ended = tail.match(text, at)
            if ended is None:
                return found
            found.append((heads[head], values, ended.group(1)))
            if not text.startswith(between, ended.end()):
                return found
            at = ended.end() + len(between)


def within(content: str, end: str) -> str:
    """A result's JSON that cannot end the block it stands in: ``\\/`` says the same as ``/`` there."""
    return content.replace(end, end.replace("/", "\\/"))


def short_id(call_id: str) -> str:
    """A call's id in nine letters and digits, as some formats want it; an id that is so already stays."""
    if re.fullmatch(r"[A-Za-z0-9]{9}", call_id):
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:9]


def name_and_arguments(name: str, key: str = "arguments") -> str:
    """The beginning of the JSON object that most formats write: up to the arguments."""
    return f'{{"name": {json.dumps(name)}, {json.dumps(key)}: '


def schema_lines(tools: Sequence[ToolSpec]) -> str:
    """The tools in the OpenAI form, one a line."""
    return "\n".join(json.dumps(tool.to_openai(), ensure_ascii=False) for tool in tools)


def example_calls(format: Format, tools: Sequence[ToolSpec]) -> list[Parts]:
    """The first two example calls of each tool, each after its turn."""
    shown = [(tool.name, example) for tool in tools for example in tool.examples[:2]]
    return [
        (f"\n{e.text}\n", *format.calls([ToolCall(f"{name}{n}", name, e.arguments)]))
        for n, (name, e) in enumerate(shown)
    ]
