"""The conversation: one widget per message, always scrolled to the end unless the reader scrolls away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual.containers import VerticalScroll
from textual.widget import Widget

from agentkit.events import Event, Notice, TextDelta, ToolCallProposed, ToolFinished, TurnDone, TurnFailed
from agentkit.messages import Citation, Message, ToolCall, ToolResult
from agentkit.store import INTERRUPTED
from agentkit.ui.approval import Approval
from agentkit.ui.clean import clean
from agentkit.ui.widgets.answer import Answer
from agentkit.ui.widgets.lines import CommandAnswer, ErrorMessage, NoticeLine, UserMessage
from agentkit.ui.widgets.question import ApprovalQuestion
from agentkit.ui.widgets.tool_call import ToolCallLine

REPLAYED = 100
"""Messages of a stored conversation that are shown, and the rest of the turn that they begin in: each is a widget, and
a thousand of them take the terminal seconds."""
LEFT_OUT = "earlier messages that are not shown here: {}; agentkit sessions show prints them"


class Conversation(VerticalScroll, can_focus=False):
    """Shows messages and the events of a turn."""

    DEFAULT_CSS = """
    Conversation {
        height: 1fr;
        padding: 1 3 0 3;
        scrollbar-size-vertical: 1;
        scrollbar-color: $panel;
        scrollbar-color-hover: $secondary;
        scrollbar-color-active: $secondary;
        scrollbar-background: $background;
        scrollbar-background-hover: $background;
        scrollbar-background-active: $background;
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._answer: Answer | None = None
        """The one that is being streamed."""
        self._calls: dict[str, ToolCallLine] = {}
        self.last_answer = ""
        """Text of the last finished answer, clean: it goes to the clipboard, and from there anywhere."""

    def on_mount(self) -> None:
        self.anchor()

    async def say(self, text: str) -> None:
        """Show what the user said."""
        self.anchor()  # who sends a message wants to see what comes
        await self.mount(UserMessage(text))

    async def explain(self, text: str) -> None:
        """Show a command's answer."""
        await self.mount(CommandAnswer(text))

    async def ask(self, approval: Approval) -> ApprovalQuestion:
        """Show a question that the agent waits for."""
        question = ApprovalQuestion(approval)
        await self.mount(question)
        return question

    async def show(self, event: Event) -> None:
        """Show one event of the running turn."""
        if isinstance(event, TextDelta):
            if self._answer is None:
                self._answer = Answer()
                await self.mount(self._answer)
            self._answer.append(event.text)
        elif isinstance(event, ToolCallProposed):
            await self._end_answer()
            await self._add_call(event.call)
        elif isinstance(event, ToolFinished):
            self._finish_call(event.result)
        elif isinstance(event, Notice):
            await self.mount(NoticeLine(event.text))
        elif isinstance(event, TurnDone):
            await self._end_answer(event.reply.text, event.reply.citations)
        elif isinstance(event, TurnFailed):
            await self._end_answer()
            await self.mount(ErrorMessage(event.error))

    async def replay(self, messages: Sequence[Message]) -> None:
        """Show the end of a conversation from the store instead of what is there."""
        await self.remove_children()
        self._answer, self._calls, self.last_answer = None, {}, ""
        first = _first_shown(messages)
        left_out = sum(_is_shown(message) for message in messages[:first])
        widgets: list[Widget] = [NoticeLine(LEFT_OUT.format(left_out))] if left_out else []
        results: list[tuple[ToolCallLine, ToolResult]] = []
        for message in messages[first:]:
            if message.role == "tool":
                result = _stored_result(message)
                if line := self._calls.pop(result.call_id, None):  # later turns may use the same id again
                    results.append((line, result))
            elif _is_shown(message):
                widgets += self._stored(message)
        await self.mount_all(widgets)
        for line, result in results:
            line.show_result(result)
        self.end_calls(INTERRUPTED)

    def _stored(self, message: Message) -> list[Widget]:
        if message.role == "user":
            return [UserMessage(message.content)]
        citations = tuple(Citation(**citation) for citation in message.meta.get("citations") or ())
        widgets: list[Widget] = [Answer(message.content, citations)] if message.content else []
        self.last_answer = clean(message.content) or self.last_answer
        for call in message.tool_calls:
            self._calls[call.id] = ToolCallLine(call)
            widgets.append(self._calls[call.id])
        return [*widgets, *(NoticeLine(text) for text in message.meta.get("notices") or ())]

    async def _add_call(self, call: ToolCall) -> None:
        self._calls[call.id] = ToolCallLine(call)
        await self.mount(self._calls[call.id])

    def end_calls(self, error: str) -> None:
        """Calls without a result do not run any more: say why there is none."""
        for line in self._calls.values():
            line.show_result(ToolResult(line.call.id, line.call.name, ok=False, error=error))
        self._calls.clear()

    def _finish_call(self, result: ToolResult) -> None:
        if line := self._calls.pop(result.call_id, None):
            line.show_result(result)

    async def _end_answer(self, text: str | None = None, citations: tuple[Citation, ...] = ()) -> None:
        """Finish the streamed answer, with what was streamed where there is no final text."""
        answer, self._answer = self._answer, None
        if text is None and answer is None:
            return
        final = text if text is not None else answer.text if answer is not None else ""
        if answer is None and final:
            await self.mount(answer := Answer(final, citations))
        elif answer is not None and final:
            await answer.finish(final, citations)
        elif answer is not None:
            await answer.remove()
        self.last_answer = clean(final) or self.last_answer


def _is_shown(message: Message) -> bool:
    """Whether it was said, by the user or the agent."""
    return message.role in ("user", "assistant") and message.meta.get("kind") != "context"


def _first_shown(messages: Sequence[Message]) -> int:
    """Where the turn begins in which the last `REPLAYED` messages begin."""
    start = max(0, len(messages) - REPLAYED)
    asked = (n for n in range(start, 0, -1) if messages[n].role == "user" and _is_shown(messages[n]))
    return next(asked, 0)


def _stored_result(message: Message) -> ToolResult:
    import json

    try:
        body: Any = json.loads(message.content)
    except ValueError:
        body = {}
    error = body.get("error") if isinstance(body, dict) else None
    value = body.get("result") if isinstance(body, dict) else message.content
    return ToolResult(message.tool_call_id or "", message.name or "", error is None, value, error)
