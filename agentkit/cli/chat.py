"""`agentkit chat`: the Textual chat on a terminal, a plain one line by line elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentkit.cli.common import Common, command_app, common
from agentkit.cli.output import data, is_terminal, json_line, note, notices
from agentkit.ui.clean import first_of

if TYPE_CHECKING:
    from agentkit.build import Workspace

app = command_app()


@app.command()
@common
def chat(
    options: Common,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")] = None,
) -> int:
    """Chat; /help shows what else can be typed. Every message is kept: see `agentkit sessions`."""
    with options.workspace() as workspace:
        if session is not None:
            session = workspace.store.open(session).id
        # Textual draws on stderr.
        watched = all(map(is_terminal, (sys.stdin, sys.stdout, sys.stderr)))
        if watched and not (options.as_json or options.no_input):
            from agentkit.ui.app import run_chat

            run_chat(workspace, session, note, options.again)
            return 0
        return LineChat(workspace, options, session).run()


class LineChat:
    """One turn per line of stdin until it ends."""

    def __init__(self, workspace: Workspace, options: Common, session: str | None) -> None:
        from agentkit.cli import turns

        self._workspace, self._options = workspace, options
        self._agent = turns.make_agent(workspace, session)
        note(f"session {self._agent.session.id}; /help for help, Ctrl+D to end")

    def run(self) -> int:
        """Chat.

        Returns:
            1 where a turn or a command failed, else 0.
        """
        from agentkit.ui.commands import forget_if_empty

        failed = False
        try:
            while (line := _read_line()) and line.strip() != "/quit":
                failed = self._take(line.strip()) == 1 or failed
        finally:  # Ctrl+C at the first prompt is an end too
            forget_if_empty(self._workspace, self._agent.session.id)
        return int(failed)

    def _take(self, text: str) -> int:
        """Play a turn or answer a command; the code is 1 where it failed."""
        from agentkit.cli import turns
        from agentkit.errors import AgentkitError
        from agentkit.ui.commands import command_of

        as_json, command = self._options.as_json, command_of(text)
        try:
            if command == "/new":
                self._start_anew()
            elif command:
                self._answer(command)
            elif text:
                # Approvals would be answered by the next line of a pipe; `can_ask` sees to that.
                return turns.play_turn(self._agent, text, as_json=as_json, no_input=self._options.no_input)
        except AgentkitError as error:  # e.g. a line longer than the context; nothing has been stored
            note(str(error), "agentkit:")
            if as_json:  # who reads until a turn's end must not wait for ever
                json_line({"type": "turn_failed", "error": str(error)})
            return 1
        return 0

    def _answer(self, command: str) -> None:
        from agentkit.ui.commands import answer

        text = answer(command, self._workspace, self._agent.session.id)
        if self._options.as_json:
            json_line({"type": "command", "command": command, "text": text})
        else:
            data(text)

    def _start_anew(self) -> None:
        from agentkit.ui.commands import forget_if_empty

        told, before = len(self._workspace.knowledge.notices), self._agent
        self._agent = self._workspace.agent(None)
        notices(first_of(self._workspace.knowledge.notices[told:]))
        note(f"session {self._agent.session.id}")
        if self._options.as_json:
            json_line({"type": "command", "command": "/new", "text": self._agent.session.id})
        forget_if_empty(self._workspace, before.session.id)


def _read_line() -> str:
    if is_terminal(sys.stdin):
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.buffer.readline().decode("utf-8", errors="replace")
