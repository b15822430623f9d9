"""What can be typed in a chat besides messages; the same in the Textual chat and in the plain one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentkit.errors import NotFoundError
from agentkit.store import Rating
from agentkit.training.adapters import use_of
from agentkit.ui.clean import one_line

if TYPE_CHECKING:
    from agentkit.ui.protocol import ChatJob, ChatWorkspace

COMMANDS = {
    "/help": "show this list",
    "/tools": "what the assistant can call",
    "/sessions": "earlier conversations",
    "/jobs": "fine-tuning, and how far it is",
    "/good": "this conversation is worth learning from",
    "/bad": "it is not",
    "/new": "start a new conversation",
    "/quit": "end; everything is kept",
}
SESSIONS_SHOWN = 15
JOBS_SHOWN = 10


def command_of(text: str) -> str:
    """The command a message consists of, or an empty string; ``/etc/hosts`` and longer texts are messages."""
    word = text.strip()
    return word if word.startswith("/") and word[1:].isidentifier() else ""


def answer(command: str, workspace: ChatWorkspace, session: str) -> str:
    """The text that a command other than ``/new`` and ``/quit`` shows.

    Args:
        command: With its slash.
        workspace: Whose tools and sessions are listed.
        session: The current one, which is marked.
    """
    if command == "/help":
        return _columns(list(COMMANDS.items()))
    if command == "/tools":
        rows = [
            (spec.name, one_line(spec.description.split("\n")[0], 70)) for spec in workspace.registry.specs()
        ]
        return _columns(rows) or "This project has no tools."
    if command == "/sessions":
        return _sessions(workspace, session)
    if command == "/jobs":
        jobs = workspace.jobs()[:JOBS_SHOWN]
        rows = [(job.name, one_line(f"{job.progress()}{_in_use(job)}", 160)) for job in jobs]
        return _columns(rows) or "There are no fine-tuning jobs; start one with `agentkit finetune start`."
    if command in ("/good", "/bad"):
        rating: Rating = "good" if command == "/good" else "bad"
        workspace.store.open(session).rate(rating)
        return f"This conversation is rated {rating}; `agentkit finetune start --rated good` learns from good ones."
    near = difflib.get_close_matches(command, COMMANDS, 1)
    return f"There is no {command}; {f'did you mean {near[0]}?' if near else '/help lists what there is.'}"


def forget_if_empty(workspace: ChatWorkspace, session: str) -> bool:
    """Delete a session in which nothing was said; tells whether it is gone."""
    try:
        empty = not workspace.store.open(session).messages()
        if empty:
            workspace.store.delete(session)
    except NotFoundError:  # deleted elsewhere meanwhile
        return True
    return empty


def _in_use(job: ChatJob) -> str:
    if job.adapter is None:
        return ""
    found = use_of(job.adapter.parent, job.model)
    if found is None or found.adapter != job.name:
        return ""
    return ", in use by force" if found.forced else ", in use"


def _sessions(workspace: ChatWorkspace, session: str) -> str:
    found = [info for info in workspace.store.list() if info.messages]
    rows = [
        (
            f"{'*' if info.id == session else ' '} {info.id}",
            f"{info.messages} messages",
            one_line(info.title, 50),
        )
        for info in found[:SESSIONS_SHOWN]
    ]
    more = f"\n… {len(found) - len(rows)} more: agentkit sessions list" if len(found) > len(rows) else ""
    return (_columns(rows) + more) or "There are no earlier conversations."


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
