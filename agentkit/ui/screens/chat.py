"""The chat screen: the user's messages go to the agent's thread, the thread's to the widgets."""

from __future__ import annotations

from collections import deque
from typing import ClassVar
from urllib.parse import quote

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Markdown

from agentkit.events import Retrieved, TextDelta, ToolStarted, TurnDone
from agentkit.ui.clean import one_line
from agentkit.ui.commands import command_of
from agentkit.ui.messages import AgentEvent, Answered, ApprovalAsked, JobsSeen, Loading, Ready, TurnEnded
from agentkit.ui.protocol import ChatWorkspace
from agentkit.ui.runner import Runner
from agentkit.ui.watch import JobWatch
from agentkit.ui.widgets.composer import Composer
from agentkit.ui.widgets.conversation import Conversation
from agentkit.ui.widgets.question import ApprovalQuestion
from agentkit.ui.widgets.status import StatusBar

WATCH_S = 2.0
"""Between two looks at the fine-tuning jobs."""
NOT_ANSWERED = "no result: the turn has ended; whether it took effect is not known"
KEYS = """

Enter          send                       Esc       stop the answer; its text is kept
Shift+Enter    new line (also Ctrl+J)     Ctrl+Y    copy the last answer
PgUp PgDn      scroll                     Ctrl+T    light or dark
Tab            to tool calls              Ctrl+Q    quit (also Ctrl+C twice)"""


class ChatScreen(Screen[None]):
    """One conversation.

    Args:
        workspace: The opened project.
        session: Id of the session to resume.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop"),
        Binding("ctrl+y", "copy_answer", "Copy the answer", priority=True),
        Binding("pageup", "scroll(-1)", "Scroll up", priority=True),
        Binding("pagedown", "scroll(1)", "Scroll down", priority=True),
    ]

    def __init__(self, workspace: ChatWorkspace, session: str | None) -> None:
        super().__init__()
        self._runner = Runner(workspace, self.post_message)
        self._watch = JobWatch(workspace)
        self._resume = session
        self._waiting: deque[str] = deque()
        """Messages sent while the agent was loading or busy."""
        self.unsent: list[str] = []
        """What waited or was being written when the chat ended."""
        self._busy = True
        self.session = ""
        """Id of the session, once it is open."""

    def compose(self) -> ComposeResult:
        yield Conversation()
        yield Composer()
        yield StatusBar()

    def on_mount(self) -> None:
        self.query_one(Composer).focus()
        self._run_load()
        self.set_interval(WATCH_S, self._run_watch)

    def on_unmount(self) -> None:
        self.quit()  # however the app ends, the thread must not wait for an answer

    @property
    def busy(self) -> bool:
        """Whether the agent is loading or in a turn."""
        return self._busy

    @property
    def is_opening(self) -> bool:
        """Whether what the first conversation needs is still being loaded."""
        return self._busy and not self.session

    def quit(self) -> None:
        """Let the agent's thread end; `unsent` holds what waited, and last what was being written."""
        self.unsent += self._waiting
        self._waiting.clear()
        for composer in self.query(Composer):  # none any more where the screen is gone
            self.unsent += [composer.text] * bool(composer.text.strip())
            composer.clear()
        self._runner.quit()

    # What the user does

    @on(Composer.Submitted)
    async def send(self, submitted: Composer.Submitted) -> None:
        """Take a message or a command; it waits its turn."""
        if command_of(submitted.text) == "/quit":
            await self.app.run_action("quit")
            return
        if not command_of(submitted.text):
            await self.query_one(Conversation).say(submitted.text)
        self._waiting.append(submitted.text)
        self._next()

    def action_stop(self) -> None:
        """Stop the answer and keep its text; messages that wait are not sent."""
        if self._busy and self.session:
            self.query_one(StatusBar).doing("stopping", busy=True)
            self._runner.stop()
            if self._waiting:
                unsent = "; ".join(one_line(text) for text in self._waiting)
                self._waiting.clear()
                self.call_later(self.query_one(Conversation).explain, f"Not sent, as you stopped: {unsent}")
        self.query_one(Composer).focus()

    def interrupt(self, hint: str, seconds: float) -> None:
        """Ctrl+C: stop the answer and tell, for as long as it is true, what a second one does."""
        self.action_stop()
        status = self.query_one(StatusBar)
        before = status.shown
        status.doing(hint, busy=True)

        def restore() -> None:
            if status.shown[0] == hint:
                status.doing(*before) if self._busy else status.doing("")

        self.set_timer(seconds, restore)

    def copy_selection(self) -> bool:
        """Copy text selected in the conversation or in the input, if there is any."""
        text = self.get_selected_text() or self.query_one(Composer).selected_text
        if text:
            self.app.copy_to_clipboard(text)
            self.query_one(StatusBar).doing("copied")
        return bool(text)

    def action_copy_answer(self) -> None:
        """Copy the last answer, also through ssh."""
        text = self.query_one(Conversation).last_answer
        if text:
            self.app.copy_to_clipboard(text)
        self.query_one(StatusBar).doing("answer copied" if text else "there is no answer yet")

    def action_scroll(self, pages: int) -> None:
        """Scroll the conversation, wherever the focus is."""
        conversation = self.query_one(Conversation)
        conversation.scroll_page_up() if pages < 0 else conversation.scroll_page_down()

    @on(Markdown.LinkClicked)
    def copy_link(self, clicked: Markdown.LinkClicked) -> None:
        """Links in answers are foreign: show where they lead instead of going there."""
        href = quote(
            clicked.href, safe=":/?#[]@!$&'()*+,;=%~"
        )  # Textual has decoded it: a line break is one again
        self.app.copy_to_clipboard(href)
        self.query_one(StatusBar).doing(f"link copied: {one_line(href, 100)}")

    @on(ApprovalQuestion.Decided)
    async def go_on(self) -> None:
        """Back to writing; what has been answered asks no more."""
        for question in self.query(ApprovalQuestion):
            if question.approval.answered:
                await question.remove()
        self.query_one(Composer).focus()

    # What the agent's thread tells

    @on(Loading)
    def show_loading(self, message: Loading) -> None:
        """Say what is being loaded; the input works meanwhile."""
        self.query_one(StatusBar).doing(f"{message.text} …", busy=True)

    @on(Ready)
    async def show_session(self, message: Ready) -> None:
        """Show the session's history; then the messages that waited are sent."""
        is_first = not self.session
        self.session = message.session
        self.query_one(StatusBar).facts(message.model, message.session)
        if message.history or not is_first:
            await self.query_one(Conversation).replay(message.history)
            for text in [
                text for text in self._waiting if not command_of(text)
            ]:  # keys may empty it meanwhile
                await self.query_one(Conversation).say(text)
        if is_first:
            self._free()

    @on(AgentEvent)
    async def show_event(self, message: AgentEvent) -> None:
        """Show an event in the conversation and in the status line."""
        event, status = message.event, self.query_one(StatusBar)
        await self.query_one(Conversation).show(event)
        if isinstance(event, Retrieved):
            status.doing(f"reading {len(event.passages)} passages · Esc stops", busy=True)
        elif isinstance(event, ToolStarted):
            status.doing(f"running {event.call.name} · Esc stops", busy=True)
        elif isinstance(event, TextDelta):
            status.doing("answering · Esc stops", busy=True)
        elif isinstance(event, TurnDone):
            status.cost(event.reply.usage)

    @on(ApprovalAsked)
    async def ask(self, message: ApprovalAsked) -> None:
        """Ask the person; the agent's thread waits."""
        question = await self.query_one(Conversation).ask(message.approval)
        self.query_one(StatusBar).doing("waiting for your decision", busy=True)
        question.focus()

    @on(Answered)
    async def show_answer(self, message: Answered) -> None:
        """Show a command's answer."""
        await self.query_one(Conversation).explain(message.text)

    @on(JobsSeen)
    async def show_jobs(self, message: JobsSeen) -> None:
        """Show how far training is, and tell what has ended."""
        self.query_one(StatusBar).training(message.progress)
        for line in message.ended:
            await self.query_one(Conversation).explain(f"Fine-tuning {line}")

    @on(TurnEnded)
    async def _free_again(self) -> None:
        await self.query(ApprovalQuestion).remove()
        self.query_one(Conversation).end_calls(NOT_ANSWERED)
        self.query_one(Composer).focus()
        self._free()

    def _free(self) -> None:
        self._busy = False
        self.query_one(StatusBar).doing("")
        self._next()

    def _next(self) -> None:
        """Start what waits longest, if the agent is free."""
        if self._busy or not self._waiting:
            return
        text = self._waiting.popleft()
        self._busy = True
        self._runner.begin()
        command = command_of(text)
        if command == "/new":
            self._run_new()
        elif command:
            self._run_command(command)
        else:
            self.query_one(StatusBar).doing("thinking · Esc stops", busy=True)
            self._run_turn(text)

    # The only things that run in a thread

    @work(thread=True, group="agent")
    def _run_load(self) -> None:
        self._runner.load(self._resume)

    @work(thread=True, group="agent")
    def _run_turn(self, text: str) -> None:
        self._runner.turn(text)

    @work(thread=True, group="agent")
    def _run_new(self) -> None:
        self._runner.new_session()

    @work(thread=True, group="agent")
    def _run_command(self, command: str) -> None:
        self._runner.command(command, KEYS if command == "/help" else "")

    @work(thread=True, group="jobs")
    def _run_watch(self) -> None:
        self.post_message(self._watch.look())
