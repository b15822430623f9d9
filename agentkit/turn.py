"""What a turn is made of: the texts an agent speaks with, what has happened so far, and what was said before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agentkit.events import ApprovalRequired
from agentkit.llm.protocol import Route
from agentkit.messages import Citation, Message, Passage, ToolCall, ToolResult, ToolSpec, Usage
from agentkit.policy import Breaker
from agentkit.prompts import PromptTemplate
from agentkit.retrieval.followup import Question

Approve = Callable[[ApprovalRequired], bool]
"""Asked for every call that needs approval; blocks until a person has decided."""


class Tools(Protocol):
    """The registry, as the agent sees it."""

    def specs(self) -> list[ToolSpec]: ...

    def get(self, name: str) -> Any: ...

    def run(self, call: ToolCall, cancel: threading.Event | None = None) -> ToolResult: ...


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts an agent speaks with, rendered or to be rendered."""

    system: str
    passages: PromptTemplate
    tool_call: PromptTemplate
    tool_result: PromptTemplate
    decline: str


@dataclass(slots=True)
class Turn:
    """What has happened so far in one turn."""

    question: str
    cancel: threading.Event | None
    approve: Approve | None
    words: str
    """What arguments are taken from: the question, and what it goes on from."""
    asked: Question
    """The question within the conversation."""
    said: Sequence[Message]
    """What users and agent have said before this turn."""
    route: Route | None = None
    lacks: tuple[ToolSpec, Sequence[str]] | None = None
    """A tool, and its required arguments that have to be asked for."""
    passages: tuple[Passage, ...] = ()
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    fresh: int = 0
    """Results of the last step."""
    citations: tuple[Citation, ...] = ()
    notices: list[str] = field(default_factory=list)
    breaker: Breaker = field(default_factory=Breaker)
    unfinished: str = ""
    """Why the answer did not come to its end: ``length`` or ``cancelled``."""
    compacted: bool = False
    """The user knows already that something was left out."""
    own: dict[str, Any] = field(default_factory=dict)
    """Options that only this model knows: its adapter."""


def since_tools(said: Sequence[Message]) -> list[Message]:
    """What was said after the last turn that called a tool: no question to the documents goes on from before."""
    acted = [n for n, message in enumerate(said) if message.role == "tool" or message.tool_calls]
    users = [n for n, message in enumerate(said) if message.role == "user" and n > max(acted, default=-1)]
    return list(said[users[0] :]) if users else []


def conversation(stored: Sequence[Message]) -> list[Message]:
    """Stored messages as the model reads them: a context message takes the place of the question it repeats, and is
    the user's message from then on. One that stands behind a tool's result goes on with the turn.
    """
    read: list[Message] = []
    for message in stored:
        if message.meta.get("kind") == "context" and read and read[-1].role == "user":
            read.pop()
            message = replace(message, meta={})
        read.append(message)
    return read
