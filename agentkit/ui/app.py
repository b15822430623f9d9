"""The Textual chat: themes, quitting, and the one screen."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.theme import Theme

from agentkit.errors import AgentkitError
from agentkit.ui.commands import forget_if_empty
from agentkit.ui.messages import LoadFailed
from agentkit.ui.protocol import ChatWorkspace
from agentkit.ui.screens.chat import ChatScreen

AGAIN_S = 2.0
"""How soon the second Ctrl+C must follow the first."""

WAITING = "agentkit: ends as soon as what it was loading is there"

DARK = Theme(
    "agentkit-dark",
    primary="#6f9fc8",
    secondary="#8a93a6",
    accent="#d3a15f",
    warning="#d3a15f",
    error="#d0706c",
    success="#86b37a",
    foreground="#d8dade",
    background="#15171b",
    surface="#1d2026",
    panel="#262a31",
    dark=True,
)
LIGHT = Theme(
    "agentkit-light",
    primary="#2f6594",
    secondary="#5d6675",
    accent="#8f5a12",
    warning="#8f5a12",
    error="#a8322d",
    success="#3b7330",
    foreground="#23272d",
    background="#fcfbf8",
    surface="#f1f0ec",
    panel="#e6e4de",
    dark=False,
)


class ChatApp(App[str]):
    """Ends with the id of the session.

    Args:
        workspace: The opened project.
        session: Id of the session to resume.
    """

    TITLE = "agentkit"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+c", "interrupt", "Copy, stop or quit", priority=True),
        Binding("ctrl+t", "toggle_theme", "Light or dark", priority=True),
    ]

    def __init__(self, workspace: ChatWorkspace, session: str | None = None) -> None:
        super().__init__()
        self._chat = ChatScreen(workspace, session)
        self._interrupted = float("-inf")
        self.unsent = self._chat.unsent
        """What was typed and not sent when the chat ended."""
        self.load_error: Exception | None = None
        """Why there was no chat."""

    @property
    def session_id(self) -> str:
        """Of the conversation that was shown last; empty where none was opened yet."""
        return self._chat.session

    def on_mount(self) -> None:
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name
        self.push_screen(self._chat)
        # Else the terminal would stay as the chat has set it up. Only the main thread may, and not on Windows.
        with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self._terminated, number)

    def _terminated(self, number: int) -> None:
        self._end(128 + number)

    def on_load_failed(self, message: LoadFailed) -> None:
        """There is nothing to chat with: end, and let the command line tell why."""
        self.load_error = message.error
        self._chat.quit()
        self.exit()

    async def action_quit(self) -> None:
        """Quit; every message that was sent is on disk, and the text being written by the agent is kept too."""
        self._end()

    def _end(self, return_code: int = 0) -> None:
        self._chat.quit()
        # What loads cannot be stopped, and the program ends after it.
        self.exit(self._chat.session, return_code, message=WAITING if self._chat.is_opening else None)

    async def action_interrupt(self) -> None:
        """Copy what is selected; else stop the answer; twice: quit."""
        if self._chat.copy_selection():
            return
        if time.monotonic() - self._interrupted < AGAIN_S:
            await self.action_quit()
            return
        self._interrupted = time.monotonic()
        self._chat.interrupt("press Ctrl+C again to quit; the conversation is kept", AGAIN_S)

    def action_toggle_theme(self) -> None:
        """Change between light and dark."""
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name


def run_chat(
    workspace: ChatWorkspace,
    session: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
    project: str = "",
) -> None:
    """Run the chat until it is quit. A session in which nothing was said is forgotten.

    Args:
        workspace: The opened project.
        session: Id of the session to resume.
        tell: Hears of every message that was typed and not sent, and how to go on with the session.
        project: The option that a command needs to find this project, if it needs one.

    Raises:
        AgentkitError: The agent cannot be loaded, or the chat has crashed.
        SystemExit: A signal has ended it.
    """
    app = ChatApp(workspace, session)
    app.run()
    for text in app.unsent:
        tell(f"not sent: {text}")
    if (ended := app.session_id) and not forget_if_empty(workspace, ended):
        tell(f"Go on with: agentkit chat --session {ended}{project}")
    if app.load_error is not None:
        raise app.load_error
    if app.return_code and app.return_code > 128:
        raise SystemExit(app.return_code)
    if app.return_code:
        raise AgentkitError(
            "the chat has crashed, as told above", "every message that was sent is kept: go on with it"
        )
