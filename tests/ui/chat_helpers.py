"""A scripted agent and helpers for the tests of the terminal chat."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agentkit.events import (
    ApprovalRequired,
    Event,
    TextDelta,
    ToolCallProposed,
    ToolFinished,
    ToolStarted,
    TurnDone,
)
from agentkit.messages import Citation, Message, Reply, ToolCall, ToolResult, ToolSpec, Usage
from agentkit.store import SessionStore

Script = Callable[["Turn"], Iterator[Event]]


@dataclass
class Turn:
    """What a script sees of the turn it plays."""

    text: str
    approve: Callable[[ApprovalRequired], bool]
    cancel: threading.Event
    go: threading.Event


@dataclass
class ScriptedAgent:
    """Plays one script per turn; stores what an agent would."""

    session: Any
    scripts: list[Script]
    go: threading.Event
    seen: list[str] = field(default_factory=list)

    def stream(
        self, text: str, *, approve: Any = None, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        self.seen.append(text)
        self.session.append(Message("user", text))
        script = self.scripts.pop(0) if self.scripts else say("Fine.")
        for event in script(Turn(text, approve, cancel or threading.Event(), self.go)):
            if isinstance(event, TurnDone):
                self.session.append(Message("assistant", event.reply.text))
            yield event

    def close(self) -> None:
        pass


class ScriptedWorkspace:
    """A project whose agent is scripted; loading waits for `loaded`."""

    def __init__(self, folder: Path, *scripts: Script) -> None:
        self.store = SessionStore(folder / "sessions.sqlite")
        self.settings = SimpleNamespace(model="scripted")
        self.registry = SimpleNamespace(specs=lambda: [ToolSpec("order_status", "Look up an order.", {})])
        self.model = None
        self.loaded = threading.Event()
        self.loaded.set()
        self.go = threading.Event()
        """Scripts that wait for it go on when it is set."""
        self.scripts = list(scripts)
        self.agents: list[ScriptedAgent] = []
        self.load_error: Exception | None = None
        self.notices: list[str] = []
        """Of the knowledge base."""
        self.running: list[Any] = []
        """Fine-tuning jobs."""

    def jobs(self) -> list[Any]:
        return list(self.running)

    def ready_knowledge(self, progress: Callable[[str], None] | None = None) -> SimpleNamespace:
        if progress:
            progress("orders/returns.md")
        self.loaded.wait(60)
        return SimpleNamespace(notices=self.notices)

    def agent(self, session: str | None = None) -> ScriptedAgent:
        if self.load_error:
            raise self.load_error
        opened = self.store.open(session) if session else self.store.create()
        self.agents.append(ScriptedAgent(opened, self.scripts, self.go))
        return self.agents[-1]

    def close(self) -> None:
        self.store.close()


USAGE = Usage(
    prompt_tokens=1248, cached_tokens=1203, completion_tokens=51, forward_passes=51, ttft_s=0.5, seconds=1.5
)


def say(text: str, *, citations: tuple[Citation, ...] = (), final: str | None = None) -> Script:
    """Streams a text word by word; ``final`` is what the checked reply says instead."""

    def play(turn: Turn) -> Iterator[Event]:
        for word in text.split(" "):
            yield TextDelta(word + " ")
        yield TurnDone(Reply(text if final is None else final, citations=citations, usage=USAGE))

    return play


def say_until_stopped(turn: Turn) -> Iterator[Event]:
    """Streams until it is cancelled, then keeps what it said."""
    said = ""
    while not turn.cancel.wait(0.01):
        said += "more "
        yield TextDelta("more ")
    yield TurnDone(Reply(said.strip(), usage=USAGE))


def call_tool(call: ToolCall, result: ToolResult, text: str = "Done.", ask: bool = False) -> Script:
    """Calls a tool, after approval if asked to, and says something."""

    def play(turn: Turn) -> Iterator[Event]:
        yield ToolCallProposed(call)
        allowed = True
        if ask:
            request = ApprovalRequired(call, f"{call.name} changes something")
            yield request
            allowed = turn.approve(request)
        if allowed:
            yield ToolStarted(call)
            yield ToolFinished(result)
        else:
            yield ToolFinished(ToolResult(call.id, call.name, False, error="not run: denied"))
        yield from say(text if allowed else "I did not do it.")(turn)

    return play


async def wait_until(condition: Callable[[], object], what: str = "", seconds: float = 60.0) -> None:
    """Wait for a condition instead of a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain{f' for {what}' if what else ''}")
        await asyncio.sleep(0.01)
