"""`agentkit knowledge`: search the knowledge base and keep it in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.output import data, json_line, note, notices, one_line, table
from agentkit.cli.progress import indexing
from agentkit.errors import UsageError
from agentkit.ui.clean import first_of, source_text

if TYPE_CHECKING:
    from agentkit.retrieval.sync import SyncReport

app = group_app("knowledge", "Search and keep the knowledge base.")
PASSAGE_CHARS = 300


@app.command()
@common
def add(
    options: Common,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files and folders; they are copied.")],
) -> None:
    """Add documents."""
    with options.workspace() as workspace:
        with indexing(options.as_json) as progress:
            report = workspace.knowledge.add(paths, progress)
        _report(report, options.as_json)
        notices(workspace.knowledge.notices)


@app.command()
@common
def search(
    options: Common,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    limit: Annotated[int | None, typer.Option(metavar="N", help="Passages at most.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only such documents, e.g. folder=orders; may be repeated."),
    ] = None,
) -> None:
    """Show the best passages, best first."""
    wanted_only = _conditions(where or [])
    with options.workspace() as workspace:
        wanted = limit if limit is not None else workspace.settings.knowledge.limit
        with indexing(options.as_json) as progress:
            knowledge = workspace.ready_knowledge(progress)
        notices(first_of(knowledge.notices))
        told = len(knowledge.notices)
        passages = knowledge.search(text, wanted, where=wanted_only or None)
        notices(knowledge.notices[told:])  # what had to be repaired for it
        for number, passage in enumerate(passages, 1):
            if options.as_json:
                json_line(passage.to_json())
                continue
            place = source_text(passage.document, passage.heading, passage.page)
            data(f"{number}. {place}  ({passage.score:.2f})")
            data(f"   {one_line(passage.text, PASSAGE_CHARS)}")
        if not passages:
            note("no passages; " + ("nothing is like that" if where else "the knowledge base is empty"))


def _conditions(where: Sequence[str]) -> dict[str, list[str]]:
    """KEY=VALUE options as a filter; a key that comes several times may have any of its values."""
    found: dict[str, list[str]] = {}
    for condition in where:
        key, equals, value = condition.partition("=")
        if not equals or not key:
            raise UsageError(f"{condition!r} is no condition", "write --where KEY=VALUE")
        found.setdefault(key.strip(), []).append(value.strip())
    return found


@app.command("list")
@common
def list_documents(options: Common) -> None:
    """List the documents."""
    with options.workspace() as workspace:
        with indexing(options.as_json) as progress:
            knowledge = workspace.ready_knowledge(progress)
        documents = knowledge.list()
        notices(knowledge.notices)
        if options.as_json:
            for document in documents:
                json_line(asdict(document))
            return
        rows = [(d.name, d.title, f"{d.chunks} chunks", d.origin) for d in documents]
        table(rows, ("ID", "TITLE", "SIZE", "FROM"))


@app.command()
@common
def remove(
    options: Common, id: Annotated[str, typer.Argument(metavar="ID", help="As `knowledge list` shows it.")]
) -> None:
    """Remove a document that was added."""
    with options.workspace() as workspace:
        with indexing(options.as_json) as progress:
            knowledge = workspace.ready_knowledge(progress)
        notices(first_of(knowledge.notices))
        told = len(knowledge.notices)
        knowledge.remove(id)
        notices(knowledge.notices[told:])
        _done({"removed": id}, f"removed {id}", options.as_json)


@app.command()
@common
def verify(options: Common) -> None:
    """Check the index; exit 1 where it is damaged."""
    with options.workspace() as workspace:
        knowledge = workspace.knowledge
        knowledge.verify()
        documents = knowledge.list()
        chunks = sum(document.chunks for document in documents)
        notices(knowledge.notices)
        found = {"ok": True, "documents": len(documents), "chunks": chunks}
        _done(found, f"ok: {len(documents)} documents, {chunks} chunks", options.as_json)


@app.command()
@common
def rebuild(options: Common) -> None:
    """Make the index anew from the documents."""
    with options.workspace() as workspace:
        with indexing(options.as_json) as progress:
            report = workspace.knowledge.rebuild(progress)
        _report(report, options.as_json)
        notices(workspace.knowledge.notices)


def _report(report: SyncReport, as_json: bool | None) -> None:
    body = asdict(report)
    body["skipped"] = [{"document": name, "reason": reason} for name, reason in report.skipped]
    body["notices"] = [{"document": name, "notice": text} for name, text in report.notices]
    counts = ", ".join(
        f"{len(getattr(report, kind))} {kind}" for kind in ("added", "changed", "removed", "unchanged")
    )
    _done(body, counts, as_json)


def _done(body: dict[str, Any], text: str, as_json: bool | None) -> None:
    if as_json:
        json_line(body)
    else:
        data(text)
