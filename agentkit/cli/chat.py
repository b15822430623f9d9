"""`agentkit chat`: the Textual chat on a terminal, a plain one line by line elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentkit.cli.common import Common, command_app, common
from agentkit.cli.output import data, is_terminal, note, notices
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
    from agentkit.cli import turns

    with options.workspace() as workspace:
        if session is not None:
            session = workspace.store.open(session).id
        if is_terminal(sys.stdin) and is_terminal(sys.stdout) and not (options.as_json or options.no_input):
            from agentkit.ui.app import run_chat

            ended = run_chat(workspace, session)
            if ended and not turns.forget_if_empty(workspace, ended):
                note(f"Go on with: agentkit chat --session {ended}")
            return 0
        return chat_lines(workspace, options, session)


def chat_lines(workspace: Workspace, options: Common, session: str | None) -> int:
    """One turn per line of stdin until it ends.

    Returns:
        1 where a turn failed, else 0.
    """
    from agentkit.cli import turns
    from agentkit.errors import AgentkitError
    from agentkit.ui.commands import answer, command_of

    agent = turns.make_agent(workspace, session)
    note(f"session {agent.session.id}; /help for help, Ctrl+D to end")
    failed = False
    while line := _read_line():
        text, command = line.strip(), command_of(line)
        if command == "/quit":
            break
        if command == "/new":
            told = len(workspace.knowledge.notices)
            agent = workspace.agent(None)
            notices(first_of(workspace.knowledge.notices[told:]))
            note(f"session {agent.session.id}")
        elif command:
            data(answer(command, workspace, agent.session.id))
        elif text:
            try:
                # Approvals would be answered by the next line of a pipe; `can_ask` sees to that.
                code = turns.play_turn(agent, text, as_json=options.as_json, no_input=options.no_input)
            except AgentkitError as error:  # e.g. a line longer than the context; nothing has been stored
                note(str(error), "agentkit:")
                code = 1
            failed = failed or code == 1
    turns.forget_if_empty(workspace, agent.session.id)
    return int(failed)


def _read_line() -> str:
    if is_terminal(sys.stdin):
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.buffer.readline().decode("utf-8", errors="replace")
