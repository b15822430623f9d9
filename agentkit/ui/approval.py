"""A question from the agent's thread to the person; the thread waits for the answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from agentkit.events import ApprovalRequired


@dataclass(eq=False)
class Approval:
    """One question; the first answer counts."""

    request: ApprovalRequired
    _granted: bool = False
    _answered: threading.Event = field(default_factory=threading.Event)

    def answer(self, granted: bool) -> None:
        """Let the thread go on."""
        if not self._answered.is_set():
            self._granted = granted
            self._answered.set()

    @property
    def answered(self) -> bool:
        """Whether somebody decided."""
        return self._answered.is_set()

    def wait(self) -> bool:
        """Block until there is an answer."""
        self._answered.wait()
        return self._granted
