"""`agentkit sessions`: conversations of the project."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.output import can_ask, confirm, data, json_line, note, one_line, table
from agentkit.errors import UsageError
from agentkit.ui.clean import call_text, source_text

if TYPE_CHECKING:
    from agentkit.messages import Message

app = group_app("sessions", "List, show, rate, export, fork and delete conversations.")
Id = Annotated[str, typer.Argument(metavar="ID", help="A session id, or a unique beginning of one.")]
RESULT_CHARS = 300


@app.command("list")
@common
def list_sessions(options: Common) -> None:
    """List conversations, the last used first."""
    with options.workspace() as workspace:
        found = workspace.store.list()
        if options.as_json:
            for info in found:
                json_line(asdict(info))
            return
        rows = [
            (i.id, i.updated[:16].replace("T", " "), i.messages, i.rating or "", i.title or "(empty)")
            for i in found
        ]
        table(rows, ("ID", "LAST USED (UTC)", "MESSAGES", "RATED", "TITLE"))
        if not rows:
            note("no conversations yet; start one with `agentkit chat`")


@app.command()
@common
def show(options: Common, id: Id) -> None:
    """Show a conversation."""
    with options.workspace() as workspace:
        session = workspace.store.open(id)
        if options.as_json:
            for message in session.messages():
                json_line(asdict(message))
            return
        data(f"{session.id}  {session.title}")
        for message in session.messages():
            _show(message)


@app.command()
@common
def export(options: Common, id: Id) -> None:
    """Print everything stored of a conversation as JSON lines."""
    with options.workspace() as workspace:
        for line in workspace.store.export(id):
            json_line(line)


@app.command()
@common
def rate(
    options: Common,
    id: Id,
    rating: Annotated[str, typer.Argument(metavar="RATING", help="good, bad, or none to take it back.")],
) -> None:
    """Rate a conversation; `agentkit finetune start --rated good` learns from the good ones."""
    from agentkit.store import RATINGS

    if rating not in (*RATINGS, "none"):
        raise UsageError(f"unknown rating {rating!r}", "use good, bad or none")
    with options.workspace() as workspace:
        session = workspace.store.open(id)
        session.rate(next((known for known in RATINGS if known == rating), None))
        if options.as_json:
            json_line({"id": session.id, "rating": None if rating == "none" else rating})
        else:
            data(f"{session.id} is rated {rating}" if rating != "none" else f"{session.id} is not rated")


@app.command()
@common
def fork(
    options: Common,
    id: Id,
    upto: Annotated[int | None, typer.Option(metavar="N", help="Only the first N messages.")] = None,
) -> None:
    """Copy a conversation into a new one and print the new id."""
    with options.workspace() as workspace:
        parent = workspace.store.open(id).id
        session = workspace.store.fork(parent, upto)
        if options.as_json:
            json_line({"id": session.id, "parent": parent, "messages": len(session.messages())})
        else:
            data(session.id)


@app.command()
@common
def delete(
    options: Common,
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Delete a conversation; asks first on a terminal, and needs --yes there where it cannot ask."""
    with options.workspace() as workspace:
        session = workspace.store.open(id)
        title = session.title or "empty"
        if not yes and can_ask(options.no_input):
            if not confirm(f"Delete {session.id} ({title}) for good?"):
                note("nothing was deleted")
                return 1
        elif not yes and sys.stdin is not None and sys.stdin.isatty():  # a dumb terminal is one too
            raise UsageError(f"nobody was asked whether to delete {session.id} ({title})", "add --yes")
        workspace.store.delete(session.id)
        if options.as_json:
            json_line({"deleted": session.id})
        else:
            data(f"deleted {session.id}")
    return 0


def _show(message: Message) -> None:
    if message.role == "system" or message.meta.get("kind") == "context":
        return  # what only the model reads
    if message.role == "tool":
        data(f"  ← {one_line(message.content, RESULT_CHARS)}")
        return
    for call in message.tool_calls:
        data(f"  → {call_text(call.name, call.arguments)}")
    if message.role == "user" or message.content:
        data(f"\n{'You' if message.role == 'user' else 'Assistant'}: {message.content}")
    for citation in message.meta.get("citations") or ():
        where = source_text(citation["document"], citation["heading"], citation["page"])
        data(f"[{citation['number']}] {where}")
