"""The assistant's text: streamed, then replaced once by its checked form, with footnotes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from markdown_it import MarkdownIt
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from agentkit.messages import Citation
from agentkit.ui.clean import clean, source_text

FLUSH_S = 0.1
"""Ten updates a second look fluent; one per token makes the screen flicker."""


def _parser() -> MarkdownIt:
    # HTML would be dropped unseen, and entities could bring back the controls that `clean` has removed; so could the
    # text of a link, in which "%1b" is shown as the character that it stands for.
    parser = MarkdownIt("gfm-like").disable(["html_block", "html_inline", "entity"])
    shown = parser.normalizeLinkText

    def clean_link(link: str) -> str:
        return clean(shown(link))

    parser.normalizeLinkText = clean_link  # type: ignore[method-assign]
    return parser


class Answer(Vertical):
    """One text of the assistant.

    Args:
        text: The whole text, if it is known already.
        citations: Its footnotes.
    """

    DEFAULT_CSS = """
    Answer {
        height: auto;
        & > Markdown { padding: 0 1; background: $background; }
        & MarkdownFence { background: $surface; margin: 0 0 1 0; }
        & > #footnotes { height: auto; color: $text-muted; margin: 0 0 1 1; display: none; }
        &.cited > #footnotes { display: block; }
    }
    """

    def __init__(self, text: str = "", citations: Sequence[Citation] = ()) -> None:
        super().__init__()
        self.text = clean(text)
        """What is or will be shown, without footnotes."""
        self._citations = citations
        self._buffer = ""
        self._stream: MarkdownStream | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Markdown(self.text, parser_factory=_parser, open_links=False)
        yield Static(id="footnotes")

    def on_mount(self) -> None:
        self._show_footnotes()

    def append(self, text: str) -> None:
        """Add a piece of streamed text; it is shown within a tenth of a second."""
        self.text += clean(text)
        self._buffer += clean(text)
        if self._timer is None:
            self._timer = self.set_interval(FLUSH_S, self._flush)

    async def finish(self, text: str, citations: Sequence[Citation] = ()) -> None:
        """Replace what was streamed by the final text."""
        if self._timer is not None:
            self._timer.stop()
        if self._stream is not None:
            await asyncio.sleep(0)  # a stream whose task has not begun yet would raise CancelledError here
            await self._stream.stop()
            self._stream = None
        self.text, self._citations, self._buffer = clean(text), citations, ""
        await self.query_one(Markdown).update(self.text)
        self._show_footnotes()

    async def _flush(self) -> None:
        pending, self._buffer = self._buffer, ""
        if pending:
            self._stream = self._stream or Markdown.get_stream(self.query_one(Markdown))
            await self._stream.write(pending)

    def _show_footnotes(self) -> None:
        notes = [f"[{c.number}] {source_text(c.document, c.heading, c.page)}" for c in self._citations]
        self.query_one("#footnotes", Static).update(Content("\n".join(notes)))
        self.set_class(bool(notes), "cited")
