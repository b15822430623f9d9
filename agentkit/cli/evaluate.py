"""`agentkit eval`: its commands, and the one that measures the project's agent over labelled questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.measured import (
    Limit,
    NoAdapter,
    Split,
    identity,
    knowledge_digest,
    tell_resumed,
    without_adapter,
    write,
)
from agentkit.cli.output import data, json_line, note, notices, status, table
from agentkit.cli.suites import bfcl, perplexity, routing, tools

if TYPE_CHECKING:
    from agentkit.answers import Knowledge
    from agentkit.build import Agent, Workspace
    from agentkit.evaluation.rag import Evaluation
    from agentkit.messages import Message
    from agentkit.retrieval.knowledge import KnowledgeBase

app = group_app("eval", "Measure answers, tool calls, routing and perplexity over labelled examples.")
for command in (bfcl, tools, routing, perplexity):
    app.command()(command)
OUT = Path("eval-rag")


@app.command()
@common
def rag(
    options: Common,
    file: Annotated[Path, typer.Option("--data", metavar="FILE", help="Labelled questions, JSON lines.")],
    split: Split = None,
    limit: Limit = None,
    no_adapter: NoAdapter = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Rows, figures and page; a run goes on there.")
    ] = OUT,
) -> None:
    """Ask every question of a file; measure retrieval and answers, and write a page.

    Measured are hit@k, MRR and nDCG of the search and of cosine alone, groundedness, right answers, abstention and
    latency; the same model without knowledge stands beside. Each line of FILE holds id, question, kind (plain,
    paraphrase, misspelt, follow_up or unanswerable), documents, facts, history and split. Facts are texts that a right
    answer holds, alternatives separated by |, each to be found in one of the documents. An interrupted run loses
    nothing: the same command goes on where it stopped.
    """
    from agentkit.evaluation.journal import Journal
    from agentkit.evaluation.page import render
    from agentkit.evaluation.plots import check_matplotlib
    from agentkit.evaluation.questions import check_labels, read_questions
    from agentkit.evaluation.rows import row_from_json
    from agentkit.evaluation.summary import summarize

    check_matplotlib()
    questions = read_questions(file, split)[:limit]
    # A question that is taken for a request must cancel no order.
    changes = {"agent.approve": "none", **without_adapter(options, no_adapter)}
    with options.workspace(**changes) as workspace:
        knowledge = workspace.ready_knowledge(_indexing)
        notices(knowledge.notices)
        evaluation = _evaluation(workspace, knowledge)
        check_labels(file, questions, evaluation.sources.text)
        depends = _identity(workspace, knowledge, file)
        journal = Journal(out, depends, row_from_json)
        tell_resumed(journal.rows, (question.id for question in questions))
        rows = evaluation.run(questions, journal, status)
        status("")
        summary = summarize(rows)
        write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
        write(out / "index.html", render(rows, summary, depends, knowledge.answer_threshold))
    if options.as_json:
        json_line(summary)
    else:
        _print(summary)
    note(f"page: {out / 'index.html'}")


def _indexing(name: str) -> None:
    status(f"indexing {name}")


def _evaluation(workspace: Workspace, knowledge: KnowledgeBase) -> Evaluation:
    """Wire the parts; second embedders compare and judge, so that the agent's own memory of sentences stays its own."""
    from agentkit.build import load_embedder
    from agentkit.evaluation.rag import Evaluation
    from agentkit.evaluation.ranking import Dense
    from agentkit.evaluation.sources import Sources

    def fresh(history: Sequence[Message], watched: Knowledge) -> AbstractContextManager[Agent]:
        return workspace.once(watched, history)

    sources, judge = Sources.of(knowledge), load_embedder()
    status("embedding the documents")
    dense = Dense(sources.all, load_embedder(workspace.settings.knowledge.embedder))
    return Evaluation(knowledge, fresh, workspace.model, workspace.prompts.system, sources, dense, judge)


def _identity(workspace: Workspace, knowledge: KnowledgeBase, file: Path) -> dict[str, str]:
    """What the rows depend on."""
    own = {"embedder": knowledge.embedder.name, "documents": knowledge_digest(knowledge)}
    return {**identity(workspace, [file]), **own}


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
    if summary["failed"]:
        data(f"\nturns that failed, counted as wrong answers: {summary['failed']}")


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
