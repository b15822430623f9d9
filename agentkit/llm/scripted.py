"""A `ChatModel` that says what it is told: for tests, demonstrations and the development of interfaces."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from agentkit.errors import AgentkitError, ModelError
from agentkit.events import TextDelta, ToolCallProposed
from agentkit.llm.options import AnyMessage, AnyTool, read_messages
from agentkit.llm.protocol import ModelEvent
from agentkit.messages import Completion, Message, ToolCall, ToolChoice, ToolSpec, Usage

Step = str | ToolCall | tuple[ToolCall, ...] | AgentkitError
"""Words to say, a call or calls to make, or an error to fail with."""


class ScriptedModel:
    """Plays its steps in order, one for each call of `stream`.

    Args:
        steps: What to answer; asking for more than that is an error.
        name: How it is called in messages.
    """

    def __init__(self, steps: Sequence[Step], name: str = "scripted") -> None:
        self._steps = list(steps)
        self._name = name
        self.seen: list[list[Message]] = []
        """The conversation of every call so far."""

    @property
    def name(self) -> str:
        return self._name

    def stream(
        self,
        messages: Sequence[AnyMessage],
        *,
        tools: Sequence[AnyTool] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = False,
        describe_tools: bool = True,
        turn: str | None = None,
        choices: Sequence[str] = (),
        cancel: threading.Event | None = None,
        **options: Any,
    ) -> Iterator[ModelEvent]:
        """The next step as events, words one by one; stops between words when ``cancel`` is set."""
        self.seen.append(read_messages(messages))
        if not self._steps:
            raise ModelError("the script has no more steps", "give ScriptedModel as many steps as calls")
        step = self._steps.pop(0)
        if isinstance(step, AgentkitError):
            raise step
        if isinstance(step, ToolCall | tuple):
            calls = (step,) if isinstance(step, ToolCall) else step
            yield from map(ToolCallProposed, calls)
            yield Completion("", calls, Usage(completion_tokens=1, forward_passes=1), "tool_calls")
            return
        said = ""
        for word in step.splitlines(keepends=True) if "\n" in step else _words(step):
            if cancel is not None and cancel.is_set():
                yield Completion(said, (), Usage(completion_tokens=len(said.split())), "cancelled")
                return
            said += word
            yield TextDelta(word)
        yield Completion(said, (), Usage(completion_tokens=len(said.split())), "stop")

    def room(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        """Unlimited."""
        return None


def _words(text: str) -> list[str]:
    parts = text.split(" ")
    return [part + " " for part in parts[:-1]] + parts[-1:]
