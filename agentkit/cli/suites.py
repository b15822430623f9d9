"""`agentkit eval bfcl`, `tools`, `routing` and `perplexity`: a model's calls, turns, how a model talks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agentkit.cli.common import Common, common
from agentkit.cli.measured import (
    Limit,
    NoAdapter,
    Split,
    finish,
    identity,
    knowledge_digest,
    tell_resumed,
    without_adapter,
)
from agentkit.cli.output import notices, status

if TYPE_CHECKING:
    from agentkit.evaluation.calls import Choice

_Choice = Annotated[
    Literal["required", "auto"],
    typer.Option(metavar="C", help="required, or auto: the model decides whether to call."),
]
_Routing = Annotated[
    Literal["model", "auto"],
    typer.Option(metavar="R", help="Who decides under auto: the model, or auto: the project's router."),
]
_Unconstrained = Annotated[
    bool, typer.Option("--unconstrained", help="Without grammar: calls are read out of free text.")
]


@common
def bfcl(
    options: Common,
    category: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Again for several; by default the four, and irrelevance."),
    ] = None,
    limit: Limit = None,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="Skip the first N.")] = 0,
    tool_choice: _Choice = "required",
    routing: _Routing = "model",
    unconstrained: _Unconstrained = False,
    no_adapter: NoAdapter = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Rows and figures; a run goes on there.")] = Path(
        "eval-bfcl"
    ),
) -> None:
    """Put the Berkeley function-calling cases to the model.

    Categories: simple_python, multiple, parallel, parallel_multiple, irrelevance, and live_simple, live_multiple,
    live_parallel, live_parallel_multiple, live_irrelevance, live_relevance; --limit and --offset count in each. Valid
    are calls that fit their schemas, right are those that the leaderboard's own checker passes. Whether several calls
    are wanted is told from the category, as no request says it: the grammar allows them in those named parallel. In
    irrelevance right is to call nothing, so the tool choice is always auto there. Needs `pip install --no-deps
    bfcl-eval`. An interrupted run loses nothing: the same command goes on where it stopped.
    """
    from agentkit.evaluation import suite
    from agentkit.evaluation.bfcl import CATEGORIES, data_file, load
    from agentkit.evaluation.bfcl_run import row_from_json
    from agentkit.evaluation.journal import Journal

    names = list(dict.fromkeys(category or suite.CATEGORIES))
    cases = [case for name in names for case in load(name, limit, offset)]
    parts = [data_file(name, folder) for name in CATEGORIES for folder in ("", "possible_answer")]
    more = without_adapter(options, no_adapter)
    with options.workspace(**{"agent.routing": routing, **more}) as workspace:
        decoding = _decoding(tool_choice, routing, unconstrained)
        run = {**decoding, **identity(workspace, filter(Path.is_file, parts))}
        journal = Journal(out, run, row_from_json)
        tell_resumed(journal.rows, (case.id for case in cases))
        scores = suite.bfcl(
            workspace.model,
            limit,
            categories=names,
            offset=offset,
            tool_choice=tool_choice,
            unconstrained=unconstrained,
            journal=journal,
            progress=status,
        )
    status("")
    finish(scores, run, out, options.as_json)


@common
def tools(
    options: Common,
    file: Annotated[
        Path, typer.Option("--data", metavar="FILE", help="Tools with turns, or messages, JSON lines.")
    ],
    split: Split = None,
    limit: Limit = None,
    tool_choice: _Choice = "required",
    routing: _Routing = "model",
    unconstrained: _Unconstrained = False,
    no_adapter: NoAdapter = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Rows and figures; a run goes on there.")] = Path(
        "eval-tools"
    ),
) -> None:
    """Put the turns of a file to the model, each with the tool or tools that it calls.

    A line of FILE is a tool: tool (name, description, parameters), split, calls (text, arguments: the accepted values
    of each, null where it may be left out) and lacking (text, missing: what has to be asked for). Or it is a message
    that may need several calls: id, split, tools, text and calls (name, arguments), right in any order, but all of
    them and no others. --limit counts turns of each kind, going round the tools. With --tool-choice auto the model
    decides between calling, asking and answering. An interrupted run loses nothing: the same command goes on where it
    stopped.
    """
    from agentkit.evaluation import suite
    from agentkit.evaluation.journal import Journal
    from agentkit.evaluation.toolset import read_tool_cases
    from agentkit.evaluation.toolset_run import row_from_json

    cases = read_tool_cases(file, split, limit)
    more = without_adapter(options, no_adapter)
    with options.workspace(**{"agent.routing": routing, **more}) as workspace:
        run = {**_decoding(tool_choice, routing, unconstrained), **identity(workspace, [file])}
        journal = Journal(out, run, row_from_json)
        tell_resumed(journal.rows, (case.id for case in cases))
        scores = suite.tools(
            workspace.model,
            cases,
            tool_choice=tool_choice,
            unconstrained=unconstrained,
            journal=journal,
            progress=status,
        )
    status("")
    finish(scores, run, out, options.as_json)


@common
def routing(
    options: Common,
    file: Annotated[Path, typer.Option("--data", metavar="FILE", help="Labelled turns, JSON lines.")],
    split: Split = None,
    limit: Limit = None,
    no_adapter: NoAdapter = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Rows and figures; a run goes on there.")] = Path(
        "eval-routing"
    ),
) -> None:
    """Measure what the project's agent would do with each turn of a file.

    Each line of FILE holds id, text, route (a tool's name, knowledge, chat or decline) and split. Asked is whoever
    decides in this project: the router, or with [agent] routing = "model" the model, whose first call or whose answer
    tells. No tool runs. --limit goes round the routes. An interrupted run loses nothing: the same command goes on where
    it stopped.
    """
    from agentkit.evaluation import suite
    from agentkit.evaluation.journal import Journal
    from agentkit.evaluation.routing import read_turns, row_from_json

    with options.workspace(**without_adapter(options, no_adapter)) as workspace:
        names = [spec.name for spec in workspace.registry.specs()]
        turns = read_turns(file, names, split)[:limit]
        knowledge = workspace.ready_knowledge(lambda name: status(f"indexing {name}"))
        notices(knowledge.notices)
        documents = {"documents": knowledge_digest(knowledge)}
        run = {"decided by": workspace.settings.agent.routing, **identity(workspace, [file]), **documents}
        journal = Journal(out, run, row_from_json)
        tell_resumed(journal.rows, (turn.id for turn in turns))
        scores = suite.route(lambda: workspace.once(knowledge), turns, journal=journal, progress=status)
    status("")
    finish(scores, run, out, options.as_json)


@common
def perplexity(
    options: Common,
    file: Annotated[Path, typer.Option("--data", metavar="FILE", help="Prompts with answers, JSON lines.")],
    limit: Limit = None,
    no_adapter: NoAdapter = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Rows and figures; a run goes on there.")] = Path(
        "eval-perplexity"
    ),
) -> None:
    """Measure how likely the model finds written answers to plain prompts.

    Each line of FILE holds id, text and answer, and if you like kind. Nothing is decoded: the answers are read as the
    model is served, with its weights as packed and its adapter beside them. The figure is the perplexity of a token
    over all answers, with a bootstrap interval over the prompts; it means something beside that of the same model
    without an adapter, or with another one. --limit goes round the kinds. An interrupted run loses nothing: the same
    command goes on where it stopped.
    """
    from agentkit.evaluation import suite
    from agentkit.evaluation.journal import Journal
    from agentkit.evaluation.perplexity import read_references, row_from_json

    references = read_references(file)[:limit]
    with options.workspace(**without_adapter(options, no_adapter)) as workspace:
        run = identity(workspace, [file])
        journal = Journal(out, run, row_from_json)
        tell_resumed(journal.rows, (reference.id for reference in references))
        scores = suite.perplexities(workspace.model, references, journal=journal, progress=status)
    status("")
    finish(scores, run, out, options.as_json)


def _decoding(tool_choice: Choice, routing: str, unconstrained: bool) -> dict[str, str]:
    """How calls are asked for, as part of what rows depend on."""
    who = "the model" if routing == "model" else "the router"
    return {"tool choice": tool_choice, "auto decides": who, "grammar": "no" if unconstrained else "yes"}
