"""`agentkit eval`: measure the project's agent over labelled questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.output import data, json_line, note, notices, status, table

if TYPE_CHECKING:
    from agentkit.answers import Knowledge
    from agentkit.build import Agent, Workspace
    from agentkit.evaluation.questions import Question
    from agentkit.evaluation.rag import Evaluation
    from agentkit.messages import Message
    from agentkit.retrieval.knowledge import KnowledgeBase

app = group_app("eval", "Measure the agent over labelled questions.")
OUT = Path("eval-rag")
FACES = ("cli", "ui")
SHOWING = ("metrics", "summary", "plots", "page")
"""Code that no row depends on: it may change, and the rows still hold."""


@app.command()
@common
def rag(
    options: Common,
    file: Annotated[Path, typer.Option("--data", metavar="FILE", help="Labelled questions, JSON lines.")],
    split: Annotated[str | None, typer.Option(metavar="S", help="Only the questions of this split.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N questions.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Rows, figures and page; a run goes on there.")
    ] = OUT,
) -> None:
    """Ask every question of a file; measure retrieval and answers, and write a page.

    Measured are hit@k, MRR and nDCG of the search and of cosine alone, groundedness, right answers, abstention and
    latency; the same model without knowledge stands beside. Each line of FILE holds id, question, kind (plain,
    paraphrase, misspelt, follow_up or unanswerable), documents, facts, history and split. An interrupted run loses
    nothing: the same command goes on where it stopped.
    """
    from agentkit.evaluation.page import render
    from agentkit.evaluation.plots import check_matplotlib
    from agentkit.evaluation.questions import check_labels, read_questions
    from agentkit.evaluation.rows import Journal
    from agentkit.evaluation.summary import summarize

    check_matplotlib()
    questions = read_questions(file, split)[:limit]
    with options.workspace() as workspace:
        knowledge = workspace.ready_knowledge(_indexing)
        notices(knowledge.notices)
        evaluation = _evaluation(workspace, knowledge)
        check_labels(file, questions, evaluation.sources.text)
        identity = _identity(workspace, knowledge, file)
        journal = Journal(out, identity)
        _tell_resumed(journal.rows, questions)
        rows = evaluation.run(questions, journal, status)
        status("")
        summary = summarize(rows)
        _write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
        _write(out / "index.html", render(rows, summary, identity, knowledge.answer_threshold))
    if options.as_json:
        json_line(summary)
    else:
        _print(summary)
    note(f"page: {out / 'index.html'}")


def _indexing(name: str) -> None:
    status(f"indexing {name}")


def _evaluation(workspace: Workspace, knowledge: KnowledgeBase) -> Evaluation:
    """Wire the parts; a second embedder judges, so that the agent's own memory of sentences stays its own."""
    from agentkit.build import Agent, load_embedder
    from agentkit.evaluation.rag import Evaluation
    from agentkit.evaluation.ranking import Dense
    from agentkit.evaluation.sources import Sources
    from agentkit.messages import Message

    @contextmanager
    def opened(history: Sequence[Message], watched: Knowledge) -> Iterator[Agent]:
        session = workspace.store.create("evaluation")
        try:
            for message in (Message("system", workspace.prompts.system), *history) if history else ():
                session.append(message)
            yield Agent(
                workspace.model,
                tools=workspace.registry,
                knowledge=watched,
                workspace=workspace,
                session=session.id,
            )
        finally:
            workspace.store.delete(session.id)

    sources, embedder = Sources.of(knowledge), load_embedder()
    status("embedding the documents")
    dense = Dense(sources.all, embedder)
    return Evaluation(knowledge, opened, workspace.model, workspace.prompts.system, sources, dense, embedder)


def _identity(workspace: Workspace, knowledge: KnowledgeBase, file: Path) -> dict[str, str]:
    """What the rows depend on, the program itself included."""
    import hashlib

    import agentkit
    from agentkit.evaluation.rows import digest

    documents = "\n".join(f"{document.name} {document.sha256}" for document in knowledge.list())
    package = Path(agentkit.__file__).parent
    code = [path for suffix in ("*.py", "*.json") for path in package.rglob(suffix)]
    code = [
        path for path in code if path.relative_to(package).parts[0] not in FACES and path.stem not in SHOWING
    ]
    folders = (workspace.project.prompts_dir, workspace.project.tools_dir)
    project = [path for folder in folders if folder.is_dir() for path in folder.glob("*.*") if path.is_file()]
    return {
        "model": workspace.model.name,
        "embedder": knowledge.embedder.name,
        "data": digest([file]),
        "documents": hashlib.sha256(documents.encode()).hexdigest()[:16],
        "settings": hashlib.sha256(workspace.settings.model_dump_json().encode()).hexdigest()[:16],
        "project": digest(project),
        "code": digest(code),
    }


def _tell_resumed(known: dict[str, Any], questions: Sequence[Question]) -> None:
    asked = sum(question.id in known for question in questions)
    if asked:
        note(f"{asked} of {len(questions)} questions have been asked before; going on")


def _write(path: Path, text: str) -> None:
    from agentkit.errors import StoreError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", "make room and run again") from error


def _print(summary: dict[str, Any]) -> None:
    """The figures as tables, one blank line between them."""
    labels = {"agent": "agent", "dense": "cosine alone", "model": "model alone"}
    for title in ("retrieval", "answers"):
        _shares(title, {labels[key]: group for key, group in summary[title].items()})
    _shares("abstention", {"agent": summary["abstention"]})
    _shares("kind", {kind.replace("_", "-"): group for kind, group in summary["kinds"].items()})
    parts = summary["latency_s"].items()
    rows = [[part, *(f"{seconds * 1000:.0f} ms" for seconds in values.values())] for part, values in parts]
    table([["latency", *summary["latency_s"]["turn"]], *rows])


def _shares(title: str, groups: dict[str, dict[str, Any]]) -> None:
    names = list(next(iter(groups.values())))
    rows = [[label, *(_share(group[name]) for name in names)] for label, group in groups.items()]
    table([[title, *(name.replace("_", " ") for name in names)], *rows])
    data("")


def _share(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if value["value"] is None:
        return "-"
    return f"{value['value']:.3f} ({value['low']:.2f}–{value['high']:.2f})"
