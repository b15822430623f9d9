"""`agentkit ask`: one question, one answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentkit.cli.common import Common, command_app, common
from agentkit.cli.output import is_terminal

app = command_app()


@app.command()
@common
def ask(
    options: Common,
    text: Annotated[str | None, typer.Argument(help="The question; - or nothing reads stdin.")] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="F", help="A picture for the tools; its path joins the question.")
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")] = None,
    tool_choice: Annotated[
        str, typer.Option(metavar="C", help="auto, none, required or a tool's name.")
    ] = "auto",
    approve: Annotated[
        str | None,
        typer.Option(metavar="all|none", help="What calls with side effects get; asks on a terminal."),
    ] = None,
) -> int:
    """Ask one question; the answer goes to stdout, tool calls and notices to stderr."""
    from agentkit.cli import turns
    from agentkit.errors import UsageError
    from agentkit.ui.commands import forget_if_empty

    if approve not in (None, "all", "none", "ask"):
        raise UsageError(f"--approve {approve}: unknown choice", "use all or none")
    if image is not None and not image.is_file():
        raise UsageError(f"--image {image}: no such file", "name an existing picture")
    question = "" if text is None and image is not None and is_terminal(sys.stdin) else _question(text)
    if not question.strip() and image is None:
        raise UsageError("the question is empty", 'ask something: agentkit ask "Can I return a lamp?"')
    with options.workspace(**{"agent.approve": approve}) as workspace:
        choice = turns.tool_choice(tool_choice, workspace)
        agent = turns.make_agent(workspace, session)
        try:
            return turns.play_turn(
                agent,
                question,
                as_json=options.as_json,
                # Where stdin holds the question, it does not hold answers.
                no_input=options.no_input or text == "-" or (text is None and not is_terminal(sys.stdin)),
                tool_choice=choice,
                image=str(image.resolve()) if image is not None else None,
            )
        finally:
            forget_if_empty(workspace, agent.session.id)


def _question(text: str | None) -> str:
    from agentkit.errors import UsageError

    if text is not None and text != "-":
        return text
    if text is None and is_terminal(sys.stdin):
        raise UsageError("there is no question", 'give one: agentkit ask "Can I return a lamp?"')
    return sys.stdin.buffer.read().decode("utf-8", errors="replace").rstrip("\r\n")
