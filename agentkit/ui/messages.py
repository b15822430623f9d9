"""What the agent's thread tells the screen. A thread posts these and touches no widget."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from agentkit.events import Event
from agentkit.messages import Message as ChatMessage
from agentkit.ui.approval import Approval


@dataclass
class Loading(Message):
    """What is being loaded."""

    text: str


@dataclass
class Ready(Message):
    """The agent can take messages."""

    model: str
    session: str
    history: list[ChatMessage]


@dataclass
class LoadFailed(Message):
    """There will be no agent."""

    error: Exception


@dataclass
class AgentEvent(Message):
    """One event of the turn."""

    event: Event


@dataclass
class ApprovalAsked(Message):
    """The agent's thread waits for a person."""

    approval: Approval


@dataclass
class TurnEnded(Message):
    """The agent is free; comes after the turn's last event."""


@dataclass
class Answered(Message):
    """A command's answer, for the reader only."""

    text: str


@dataclass
class JobsSeen(Message):
    """How far fine-tuning is."""

    progress: str
    """Of the job that trains; empty where none does."""
    ended: list[str]
    """One line for each job that has ended since the last look."""
