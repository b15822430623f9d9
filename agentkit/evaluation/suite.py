"""The suites that a model or an agent is held to, each one function.

Every score is a share between 0 and 1, higher is better. Two runs over the same cases are compared case by case
through `Scores.verdicts`: with a few dozen cases the scores alone say little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentkit.evaluation import bfcl_run, perplexity, routing, toolset_run
from agentkit.evaluation.bfcl import FOUR, UNNEEDED, load, load_checker
from agentkit.evaluation.bfcl_run import BfclRow
from agentkit.evaluation.calls import Choice, check_unconstrained, decides
from agentkit.evaluation.journal import Journal
from agentkit.evaluation.perplexity import PerplexityRow, Reference
from agentkit.evaluation.questions import Question
from agentkit.evaluation.rag import Evaluation
from agentkit.evaluation.routing import RoutingRow, Turn
from agentkit.evaluation.run import run
from agentkit.evaluation.tables import Table
from agentkit.evaluation.toolset import Case
from agentkit.evaluation.toolset_run import AnyRow
from agentkit.llm.protocol import ChatModel

CATEGORIES = (*FOUR, UNNEEDED[0])
"""Of the Berkeley data, where none are named."""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scores:
    """What came of one suite."""

    suite: str
    cases: int
    scores: dict[str, float]
    """Shares by name; those that have no value in this run are left out."""
    verdicts: dict[str, bool]
    """Case id to whether it was right; empty where nothing is right or wrong."""
    summary: dict[str, Any]
    """Every figure, as plain JSON values."""
    tables: list[Table]
    """The figures to be read."""


def _silent(text: str) -> None:
    pass


def bfcl(
    model: ChatModel,
    limit: int | None = None,
    *,
    categories: Sequence[str] = CATEGORIES,
    offset: int = 0,
    tool_choice: Choice = "required",
    unconstrained: bool = False,
    journal: Journal[BfclRow] | None = None,
    progress: Progress = _silent,
) -> Scores:
    """The Berkeley function-calling cases.

    Args:
        model: Makes the calls. Where it has a router, that decides under ``auto``.
        limit: Cases of each category.
        categories: Some of `agentkit.evaluation.bfcl.CATEGORIES`.
        offset: Cases of each category to skip.
        tool_choice: For the categories that need calls; in the others the model always decides.
        unconstrained: Decode free text, without grammar.
        journal: Where every row goes at once.
        progress: Told before each case.

    Raises:
        MissingBackendError: ``bfcl-eval`` is not installed.
        UsageError: A category is unknown or has no cases there, or the model cannot be decoded unconstrained.
        ModelError: The model fails in one case after the other.
    """
    if unconstrained:
        check_unconstrained(model)
    cases = [case for name in dict.fromkeys(categories) for case in load(name, limit, offset)]
    check = load_checker()
    rows = run(
        cases,
        lambda case: bfcl_run.ask(model, case, check, tool_choice=tool_choice, unconstrained=unconstrained),
        journal,
        progress,
    )
    told = bfcl_run.summarize(rows, is_free=decides(tool_choice, unconstrained))
    shares = {name: body["right"] for name, body in told["categories"].items()}
    if told["average"] is not None:
        shares["average"] = {"value": told["average"]}
    if told["recall"] is not None:
        shares["recall"] = told["recall"]
    return _scores("bfcl", rows, shares, told, bfcl_run.tables(told))


def tools(
    model: ChatModel,
    cases: Sequence[Case],
    *,
    tool_choice: Choice = "required",
    unconstrained: bool = False,
    journal: Journal[AnyRow] | None = None,
    progress: Progress = _silent,
) -> Scores:
    """The project's own tool calls, turns that lack an argument, and messages that need several calls.

    Args:
        model: Makes the calls. Where it has a router, that decides under ``auto``.
        cases: `agentkit.evaluation.toolset.read_tool_cases`, which also limits them.
        tool_choice: ``auto`` lets the model decide between calling, asking and answering.
        unconstrained: Decode free text, without grammar.
        journal: Where every row goes at once.
        progress: Told before each turn.

    Raises:
        UsageError: The model cannot be decoded unconstrained.
        ModelError: The model fails in one turn after the other.
    """
    if unconstrained:
        check_unconstrained(model)
    rows = run(
        cases,
        lambda case: toolset_run.ask_any(model, case, tool_choice=tool_choice, unconstrained=unconstrained),
        journal,
        progress,
    )
    told = toolset_run.summarize(rows, is_free=decides(tool_choice, unconstrained))
    missing = told["missing"]
    shares = {key: told[key] for key in ("valid", "right")}
    shares |= {key: missing[key] for key in ("asked", "asked_exactly")}
    if missing["asked_without_cause"]["value"] is not None:
        shares["not_asked_without_cause"] = {"value": 1 - missing["asked_without_cause"]["value"]}
    if (several := told["several"]) is not None:
        shares |= {
            f"several_{key}": several[key] for key in ("valid", "right", "count", "recall", "precision")
        }
    return _scores("tools", rows, shares, told, toolset_run.tables(told))


def route(
    agent: routing.Open,
    turns: Sequence[Turn],
    *,
    journal: Journal[RoutingRow] | None = None,
    progress: Progress = _silent,
) -> Scores:
    """The routing set: what the agent would do with each turn.

    Args:
        agent: Opens an agent in a fresh session.
        turns: `agentkit.evaluation.routing.read_turns`.
        journal: Where every row goes at once.
        progress: Told before each turn.

    Raises:
        ModelError: One turn after the other fails.
    """
    rows = run(turns, lambda turn: routing.ask(agent, turn), journal, progress)
    told = routing.summarize(rows)
    shares = {"accuracy": told["accuracy"], **told["routes"]}
    return _scores("routing", rows, shares, told, routing.tables(told))


def perplexities(
    model: ChatModel,
    references: Sequence[Reference],
    *,
    journal: Journal[PerplexityRow] | None = None,
    progress: Progress = _silent,
) -> Scores:
    """How likely a model finds answers that others wrote.

    The score is the geometric mean of the tokens' probabilities, 1 / perplexity.

    Args:
        model: Runs in this process.
        references: `agentkit.evaluation.perplexity.read_references`.
        journal: Where every row goes at once.
        progress: Told before each prompt.

    Raises:
        UsageError: The model cannot score a text.
        ModelError: One prompt after the other fails, or all do.
    """
    scorer = perplexity.scorer_of(model)
    rows = run(references, lambda reference: perplexity.ask(scorer, reference), journal, progress)
    told = perplexity.summarize(rows)
    scores = {"token_probability": 1 / told["perplexity"]["value"]}
    return Scores("perplexity", len(rows), scores, {}, told, perplexity.tables(told))


def rag(evaluation: Evaluation, questions: Sequence[Question], *, progress: Progress = _silent) -> Scores:
    """The project's agent over labelled questions.

    A verdict is right where all facts stand in the answer and every claim of it is supported by what it cites, and of
    an unanswerable question where the agent abstained.

    Args:
        evaluation: What is asked, and what answers are held against.
        questions: `agentkit.evaluation.questions.read_questions`.
        progress: Told before each question.

    A question whose turn fails is a wrong one, and in no other figure.

    Raises:
        ModelError: `agentkit.evaluation.run.IN_A_ROW` turns failed one after the other, or all did.
    """
    from agentkit.evaluation.summary import summarize

    rows = evaluation.rows(questions, progress)
    told = summarize(rows)
    answers, abstention = told["answers"]["agent"], told["abstention"]
    shares = {"hit@3": told["retrieval"]["agent"]["hit@3"], **answers}
    shares |= {f"abstention_{key}": abstention[key] for key in ("precision", "recall")}
    values = {name: body["value"] for name, body in shares.items() if body["value"] is not None}
    verdicts = {
        row.id: row.right and (row.abstained or all(claim.grounded for claim in row.claims)) for row in rows
    }
    return Scores("rag", len(questions), values, verdicts, told, [])


def _scores(
    suite: str, rows: Sequence[Any], shares: dict[str, Any], told: dict[str, Any], tables: list[Table]
) -> Scores:
    values = {name: body["value"] for name, body in shares.items() if body["value"] is not None}
    return Scores(suite, len(rows), values, {row.id: row.right for row in rows}, told, tables)
