"""The plain parts of a conversation: what the user said, notices, errors, answers to commands."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from agentkit.ui.clean import clean, one_line


class UserMessage(Static):
    """What the user said."""

    DEFAULT_CSS = """
    UserMessage {
        height: auto;
        margin: 0 0 1 0;
        padding: 0 1;
        border-left: thick $primary;
        background: $surface;
    }
    """

    def __init__(self, text: str) -> None:
        super().__init__(Content(clean(text)))


class NoticeLine(Static):
    """Something was cut, refused, declined."""

    DEFAULT_CSS = "NoticeLine { height: auto; color: $text-muted; text-style: italic; margin: 0 0 1 1; }"

    def __init__(self, text: str) -> None:
        super().__init__(Content(one_line(text)))


class ErrorMessage(Static):
    """The turn failed."""

    DEFAULT_CSS = """
    ErrorMessage {
        height: auto;
        margin: 0 0 1 0;
        padding: 0 1;
        color: $text-error;
        border-left: thick $error;
    }
    """

    def __init__(self, text: str) -> None:
        super().__init__(Content(one_line(text)))


class CommandAnswer(Static):
    """What ``/tools`` and the like show."""

    DEFAULT_CSS = "CommandAnswer { height: auto; color: $text-muted; margin: 0 0 1 1; }"

    def __init__(self, text: str) -> None:
        super().__init__(Content(clean(text)))
