"""The contract between the agent and any language model: embedded, hub, remote or scripted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from agentkit.errors import ModelError
from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.messages import Completion, Message, ToolChoice, ToolExample, ToolSpec

ModelEvent = TextDelta | ToolCallProposed | Notice | Completion
"""What `ChatModel.stream` yields; a `Completion` comes last, exactly once."""


def drained(events: Iterable[ModelEvent]) -> Completion:
    """The completion that ends the events of a model.

    Raises:
        ModelError: They end without one.
    """
    last = deque(events, maxlen=1).pop()
    if not isinstance(last, Completion):
        raise ModelError("the model ended without a completion", "report this conversation")
    return last


class ChatModel(Protocol):
    """A model that continues a conversation. Stateless for the caller."""

    @property
    def name(self) -> str: ...

    def stream(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        tools: Sequence[ToolSpec] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = False,
        describe_tools: bool = True,
        turn: str | None = None,
        choices: Sequence[str] = (),
        stop: Sequence[str] | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[ModelEvent]:
        """Yield text as it comes and calls when they are complete.

        Args:
            messages: The conversation.
            tools: What may be called.
            tool_choice: Whether something must be called.
            parallel_tool_calls: One answer may make several calls.
            describe_tools: Tell the model about the tools; false where the conversation does so already.
            turn: The user's own words, from which arguments may be copied.
            choices: Texts of which the answer must be one.
            stop: Strings before which the answer ends; ``None`` leaves the model its own.
            cancel: Set it from any thread to stop.

        Raises:
            ModelError: Decoding failed; the model stays usable.
        """
        ...

    def room(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        """Tokens the context has left after ``messages`` (negative if they do not fit); None where unknown."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A model that can run with one adapter or another."""

    def choose_adapter(self, spec: str | None = None, *, quiet: bool = False) -> tuple[Any, Sequence[Notice]]:
        """What a turn that begins now runs with, for the option ``adapter`` of `stream`, and what has changed.

        Args:
            spec: ``auto``, ``none``, a name or a path; the model's own setting by default.
            quiet: Nobody would see what has changed: it is told at the next look.

        Raises:
            AgentkitError: There is no such adapter, or it cannot be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """The outcome of routing one user turn."""

    kind: Literal["knowledge", "tool", "chat", "decline"]
    tool: str | None
    """The tool's name where ``kind`` is ``tool``."""
    scores: dict[str, float]
    """Probability of each option: the tools by name, and ``knowledge``, ``chat``, ``decline``."""
    examples: tuple[ToolExample, ...] = ()
    """The tool's examples that are most like the turn, the nearest last."""
    small_talk: tuple[str, ...] = ()
    """Replies to the phrases that are most like the turn, the nearest last, where ``kind`` is ``chat``."""


class Router(Protocol):
    """Decides what a user turn needs before the model speaks."""

    def route(self, text: str, tools: Sequence[ToolSpec], answerable: float | None) -> Route:
        """Choose between answering from knowledge, one of the tools, small talk and declining.

        Args:
            text: The user's turn.
            tools: The tools on offer.
            answerable: Probability that the knowledge base answers the turn; ``None`` without one.
        """
        ...
