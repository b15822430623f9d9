"""Where messages are written: grows with the text, Enter sends, a paste of many lines is one message."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from agentkit.ui.clean import clean

PLACEHOLDER = "Write a message · Enter sends · /help"


class Composer(TextArea):
    """The message being written."""

    DEFAULT_CSS = """
    Composer {
        height: auto;
        min-height: 3;
        max-height: 12;
        margin: 0 2;
        padding: 0 1;
        border: round $panel;
        background: $background;
        scrollbar-size-vertical: 1;
        &:focus { border: round $primary; }
        & .text-area--cursor-line { background: $background; }
    }
    """

    @dataclass
    class Submitted(Message):
        """A message is to be sent."""

        text: str

    def __init__(self) -> None:
        super().__init__(placeholder=PLACEHOLDER, highlight_cursor_line=False)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            if self.text.strip():
                self.post_message(self.Submitted(self.text.strip("\n")))
                self.clear()
        elif event.key in ("shift+enter", "ctrl+j", "ctrl+enter", "alt+enter"):
            event.stop()
            event.prevent_default()
            self.insert("\n")
        else:
            await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        # Pasted text comes from anywhere and would be passed on to the terminal.
        event.stop()
        event.prevent_default()
        await super()._on_paste(events.Paste(clean(event.text)))
