"""What a turn yields, in order. Every event is a frozen dataclass with ``type`` and ``to_json()``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from agentkit.messages import Passage, Reply, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    type: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        """The event as plain JSON values, ``type`` first."""
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Retrieved(Event):
    """The knowledge base was searched.

    Passages are best first, by several signals together; ``score`` is one of them, so it need not fall.
    """

    type: ClassVar[str] = "retrieved"
    query: str
    passages: tuple[Passage, ...]

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "query": self.query, "passages": [p.to_json() for p in self.passages]}


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """A piece of the answer's text, as it is decoded."""

    type: ClassVar[str] = "text_delta"
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallProposed(Event):
    """The model made a complete, schema-valid call; nothing has run yet."""

    type: ClassVar[str] = "tool_call_proposed"
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ApprovalRequired(Event):
    """The policy wants a person to decide before this call runs."""

    type: ClassVar[str] = "approval_required"
    call: ToolCall
    reason: str


@dataclass(frozen=True, slots=True)
class ToolStarted(Event):
    """The call is stored and the tool is running."""

    type: ClassVar[str] = "tool_started"
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolFinished(Event):
    """The tool's result is stored."""

    type: ClassVar[str] = "tool_finished"
    result: ToolResult


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something was cut, repaired, refused, retried or declined. Never silent."""

    type: ClassVar[str] = "notice"
    code: str
    """Stable, for programs: ``declined``, ``unsupported_sentence``, ``truncated``, ``repeated_call``, …"""
    text: str
    """For people."""


@dataclass(frozen=True, slots=True)
class TurnDone(Event):
    """The turn is over and its reply is stored."""

    type: ClassVar[str] = "turn_done"
    reply: Reply

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, **self.reply.to_json()}


@dataclass(frozen=True, slots=True)
class TurnFailed(Event):
    """The turn ended with an error; everything up to it is stored and the session stays usable."""

    type: ClassVar[str] = "turn_failed"
    error: str
