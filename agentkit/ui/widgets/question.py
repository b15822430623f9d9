"""Asks whether a call may run, in the conversation; the agent waits meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from agentkit.ui.approval import Approval
from agentkit.ui.clean import clean, json_text, one_line

GRACE_S = 0.4
"""Without a key, before one counts: who is still typing a message has not read the question."""


class ApprovalQuestion(Vertical, can_focus=True):
    """One call that needs a person's decision."""

    DEFAULT_CSS = """
    ApprovalQuestion {
        height: auto;
        margin: 0 0 1 0;
        padding: 0 1;
        border: round $warning 50%;
        &:focus { border: round $warning; background: $surface; }
        & > Static { height: auto; }
        & > #keys { color: $text-muted; margin: 1 0 0 0; }
        &:focus > #keys { color: $text-warning; text-style: bold; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Allow"),
        Binding("n", "answer(False)", "Deny"),
    ]

    @dataclass
    class Decided(Message):
        """The person has answered."""

        granted: bool

    def __init__(self, approval: Approval) -> None:
        super().__init__()
        self.approval = approval
        self._quiet_since = time.monotonic()

    def compose(self) -> ComposeResult:
        request = self.approval.request
        yield Static(Content(one_line(f"{request.reason}. Allow it?")))
        yield Static(Content(clean(f"{request.call.name} {json_text(request.call.arguments, indent=2)}")))
        yield Static(Content("y allow   n deny   Esc stop the turn"), id="keys")

    def on_mount(self) -> None:
        self._quiet_since = time.monotonic()

    def on_focus(self) -> None:
        self._quiet_since = time.monotonic()

    def on_key(self) -> None:  # comes before the key's action
        if not self._is_read():
            self._quiet_since = time.monotonic()

    def _is_read(self) -> bool:
        return time.monotonic() - self._quiet_since >= GRACE_S

    def action_answer(self, granted: bool) -> None:
        """Answer, once."""
        if self._is_read() and not self.approval.answered:
            self.approval.answer(granted)
            self.post_message(self.Decided(granted))
