"""What a chat needs of a project; `build.Workspace` and `build.Agent` fit, and so do the tests' own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from agentkit.events import ApprovalRequired, Event
from agentkit.messages import Message, ToolSpec
from agentkit.store import Rating, SessionInfo

Approve = Callable[[ApprovalRequired], bool]


class ChatSession(Protocol):
    """A conversation in the store."""

    id: str

    def messages(self) -> list[Message]: ...


class ChatAgent(Protocol):
    """Runs turns in one session."""

    @property
    def session(self) -> ChatSession: ...

    def stream(
        self, text: str, *, approve: Approve | None = None, cancel: threading.Event | None = None
    ) -> Iterator[Event]: ...

    def close(self) -> None: ...


class ChatTools(Protocol):
    """The tools, as far as they are shown."""

    def specs(self) -> list[ToolSpec]: ...


class RatedSession(Protocol):
    """A conversation, as far as it is rated, and looked at."""

    def messages(self) -> list[Message]: ...

    def rate(self, rating: Rating | None) -> None: ...


class ChatStore(Protocol):
    """The sessions, as far as they are listed, rated and deleted."""

    def list(self) -> list[SessionInfo]: ...

    def open(self, id: str) -> RatedSession: ...

    def delete(self, id: str) -> None: ...


class ChatJob(Protocol):
    """A fine-tuning job, as far as it is shown."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def active(self) -> bool: ...

    @property
    def model(self) -> str:
        """Name of the base model."""
        ...

    @property
    def adapter(self) -> Path | None:
        """The finished adapter's folder."""
        ...

    def progress(self) -> str: ...


class ChatWorkspace(Protocol):
    """An opened project; its parts may take seconds to load."""

    @property
    def settings(self) -> Any: ...

    @property
    def registry(self) -> ChatTools: ...

    @property
    def store(self) -> ChatStore: ...

    @property
    def model(self) -> Any: ...

    def jobs(self) -> Sequence[ChatJob]: ...

    def ready_knowledge(self, progress: Callable[[str], None] | None = None) -> Any: ...

    def agent(self, session: str | None = None) -> ChatAgent: ...
