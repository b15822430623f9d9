"""The line at the bottom: what goes on at the left, what it runs on and costs at the right."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from agentkit.messages import Usage
from agentkit.ui.clean import one_line

MEASURABLE_S = 0.1
"""Of decoding; under it a speed means nothing, e.g. where most tokens were forced."""


class StatusBar(Horizontal):
    """Set its parts; it shows them."""

    DEFAULT_CSS = """
    StatusBar {
        height: 1;
        margin: 0 3;
        color: $text-muted;
        & > Static { text-wrap: nowrap; text-overflow: ellipsis; }
        & > #doing { width: auto; max-width: 100%; margin: 0 2 0 0; }
        & > #facts { width: 1fr; text-align: right; }
        &.busy > #doing { color: $accent; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._model = self._session = self._usage = self._training = ""
        self.shown = ("", False)
        """What goes on, and whether it stands out."""

    def compose(self) -> ComposeResult:
        yield Static(id="doing")
        yield Static(id="facts")

    def doing(self, text: str, busy: bool = False) -> None:
        """Show what goes on; ``busy`` makes it stand out."""
        self.shown = (text, busy)
        self.set_class(busy, "busy")
        self.query_one("#doing", Static).update(Content(one_line(text)))

    def facts(self, model: str, session: str) -> None:
        """Show model and session; what the last turn cost is forgotten."""
        self._model, self._session, self._usage = model, session, ""
        self._refresh_facts()

    def cost(self, usage: Usage) -> None:
        """Show what a turn cost."""
        new = usage.prompt_tokens - usage.cached_tokens
        self._usage = f"{usage.cached_tokens:,} cached + {new:,} new"
        decoding_s = usage.seconds - usage.ttft_s
        if decoding_s >= MEASURABLE_S:
            self._usage += f" · {usage.completion_tokens / decoding_s:.0f} tok/s"
        self._refresh_facts()

    def training(self, text: str) -> None:
        """Show how far a fine-tuning job is; an empty text shows none."""
        if text != self._training:
            self._training = text
            self._refresh_facts()

    def _refresh_facts(self) -> None:
        parts = [part for part in (self._training, self._usage, self._session, self._model) if part]
        self.query_one("#facts", Static).update(Content(one_line(" · ".join(parts))))
