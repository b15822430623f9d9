"""One turn on a plain terminal or in a pipe: the answer on stdout, what happens on the way on stderr."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentkit.cli.output import can_ask, clean, confirm, data, is_terminal, json_line, note, notices, status
from agentkit.events import (
    ApprovalRequired,
    Event,
    Notice,
    Retrieved,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnDone,
    TurnFailed,
)
from agentkit.ui.clean import call_text, first_of, json_text, one_line, source_text

if TYPE_CHECKING:
    from agentkit.build import Agent, Workspace
    from agentkit.messages import Reply, ToolChoice

RESULT_CHARS = 200


def make_agent(workspace: Workspace, session: str | None = None) -> Agent:
    """The project's agent; what takes long is told on stderr while it does."""
    if session is not None:
        workspace.store.open(session)  # an unknown id is told before anything is loaded
    status("reading the knowledge base")
    knowledge = workspace.ready_knowledge(lambda name: status(f"indexing {name}"))
    notices(first_of(knowledge.notices))
    status(f"loading {workspace.settings.model}")
    agent = workspace.agent(session)
    status("")
    return agent


def approver(no_input: bool | None, asking: threading.Event) -> Callable[[ApprovalRequired], bool] | None:
    """Asks the person at the terminal, while ``asking`` is set; ``None`` where there is none, which denies."""
    if not can_ask(no_input):
        return None

    def approve(request: ApprovalRequired) -> bool:
        call = call_text(request.call.name, request.call.arguments)  # whole: it is what is decided on
        asking.set()
        try:
            return confirm(f"{one_line(request.reason)}. Allow {call}?")
        except KeyboardInterrupt:  # the turn is cancelled: nothing is allowed any more
            return False
        finally:
            asking.clear()

    return approve


def play_turn(agent: Agent, text: str, *, as_json: bool | None, no_input: bool | None, **options: Any) -> int:
    """Run a turn and print it.

    Args:
        agent: Whose turn it is.
        text: The user's message.
        as_json: Print the events, one a line.
        no_input: Never ask for approval.
        **options: Further ones of `Agent.stream`.

    Returns:
        0, 1 where the turn failed, 130 where it was stopped by Ctrl+C; what was said until then is kept.
    """
    cancel, asking = threading.Event(), threading.Event()
    show = _as_json if as_json else TurnPrinter().show
    failed = False
    with _stopping(cancel, asking):
        for event in agent.stream(text, approve=approver(no_input, asking), cancel=cancel, **options):
            show(event)
            if isinstance(event, TurnFailed):
                failed = True
                print(f"agentkit: {one_line(event.error)}", file=sys.stderr)
    return 130 if cancel.is_set() else int(failed)


def tool_choice(text: str, workspace: Workspace) -> ToolChoice:
    """``auto``, ``none``, ``required`` or a tool's name.

    Raises:
        NotFoundError: There is no such tool.
    """
    choices: dict[str, ToolChoice] = {"auto": "auto", "none": "none", "required": "required"}
    return choices[text] if text in choices else {"name": workspace.registry.get(text).name}


class TurnPrinter:
    """Prints the events of one turn for a person."""

    def __init__(self) -> None:
        self._streams = is_terminal(sys.stdout)
        self._streamed = ""

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Retrieved):
            status(f"{len(event.passages)} passages found")
        elif isinstance(event, TextDelta):
            self._stream(clean(event.text))
        elif isinstance(event, ToolStarted):
            self._replace("")
            note(call_text(event.call.name, event.call.arguments, 500), "→")
        elif isinstance(event, ToolFinished):
            result = event.result
            text = json_text(result.value) if result.ok else f"failed: {result.error}"
            note(f"{one_line(text, RESULT_CHARS)}  {result.seconds:.2f} s", "←")
        elif isinstance(event, Notice):
            self._replace("")  # the final text follows; a notice must not stand in the middle of it
            note(one_line(event.text), "!")
        elif isinstance(event, TurnDone):
            self._finish(event.reply)
        elif isinstance(event, TurnFailed):
            self._end_line()

    def _stream(self, text: str) -> None:
        if self._streams:
            status("")
            data(text, end="")
            self._streamed += text

    def _finish(self, reply: Reply) -> None:
        status("")
        text = clean(reply.text)
        if text == self._streamed:
            data("")
        elif not self._streamed or self._replace(text):
            data(text)
        if reply.citations:
            data("")
        for citation in reply.citations:
            data(f"[{citation.number}] {source_text(citation.document, citation.heading, citation.page)}")

    def _replace(self, text: str) -> bool:
        """Take back what was streamed, to be said again in its checked form; False where it stays."""
        if not self._streamed:
            return True
        import shutil

        from rich.cells import cell_len

        size = shutil.get_terminal_size()
        rows = sum(
            max(1, -(-cell_len(line.expandtabs()) // size.columns)) for line in self._streamed.split("\n")
        )
        if rows >= size.lines:  # its beginning has scrolled out of reach
            self._end_line()
            data(text, end="\n" if text else "")
            return False
        sys.stdout.write(f"\r\x1b[{rows - 1}A\x1b[J" if rows > 1 else "\r\x1b[J")
        sys.stdout.flush()
        self._streamed = ""
        return True

    def _end_line(self) -> None:
        status("")
        if self._streamed and not self._streamed.endswith("\n"):
            data("")
        self._streamed = ""


def _as_json(event: Event) -> None:
    json_line(event.to_json())


@contextmanager
def _stopping(cancel: threading.Event, asking: threading.Event) -> Iterator[None]:
    """Ctrl+C stops the turn so that its text is kept, and a question that waits; a second one stops everything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()
        if asking.is_set():  # reading a line goes on after a signal, unless its handler raises
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
