"""A tool call on one line; opened, it shows the whole call and its result."""

from __future__ import annotations

from typing import cast

from textual.content import Content
from textual.widgets import Collapsible, Static

from agentkit.messages import ToolCall, ToolResult
from agentkit.ui.clean import call_text, clean, json_text, one_line

CALL_CHARS = 60
RESULT_CHARS = 200
"""Of the title; what does not fit into the line is cut by the widget."""
BODY_CHARS = 4_000


class ToolCallLine(Collapsible):
    """One call, running or finished."""

    DEFAULT_CSS = """
    ToolCallLine {
        height: auto;
        background: $background;
        border: none;
        padding: 0;
        margin: 0 0 1 0;
        color: $text-muted;
        &:focus-within { background-tint: $foreground 0%; }
        & CollapsibleTitle {
            width: 100%;
            padding: 0 1;
            color: $text-muted;
            text-style: none;
            text-wrap: nowrap;
            text-overflow: ellipsis;
        }
        & CollapsibleTitle:focus { background: $surface; color: $text; }
        & Contents { padding: 0 0 0 3; }
        &.failed CollapsibleTitle { color: $text-error; }
    }
    """

    def __init__(self, call: ToolCall) -> None:
        self._body = Static(Content(_details(call, None)))
        super().__init__(
            self._body, title=self._title_of(call, "…"), collapsed_symbol="▸", expanded_symbol="▾"
        )
        self.call = call

    def show_result(self, result: ToolResult) -> None:
        """The call is over."""
        text = json_text(result.value) if result.ok else f"failed: {result.error}"
        took = f"{result.seconds:.2f} s " if result.seconds else ""  # the store does not keep it
        self.title = self._title_of(self.call, f"{took}→ {one_line(text, RESULT_CHARS)}")
        self.set_class(not result.ok, "failed")
        self._body.update(Content(_details(self.call, result)))

    @staticmethod
    def _title_of(call: ToolCall, state: str) -> str:
        # Textual declares a str and reads it as markup; a Content is taken as it is.
        return cast(str, Content(f"{call_text(call.name, call.arguments, CALL_CHARS)}  {state}"))


def _details(call: ToolCall, result: ToolResult | None) -> str:
    lines = [json_text(call.arguments, indent=2)]
    if result is not None:
        value = json_text(result.value, indent=2) if result.ok else result.error or "failed"
        cut = value if len(value) <= BODY_CHARS else value[:BODY_CHARS] + " …"
        lines.append(f"→ {cut}" + (" (cut to the tool's output limit)" if result.truncated else ""))
    return clean("\n".join(lines))
