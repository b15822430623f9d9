"""The Berkeley function-calling cases put to a model: rows, figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentkit.evaluation.bfcl import CALLING, CATEGORIES, FOUR, UNNEEDED, Case, Checker
from agentkit.evaluation.calls import Call, Choice, answer, are_valid
from agentkit.evaluation.metrics import Share, share
from agentkit.evaluation.tables import Table, percent
from agentkit.llm.protocol import ChatModel


@dataclass(frozen=True, slots=True)
class BfclRow:
    """One case, asked."""

    id: str
    category: str
    calls: tuple[Call, ...]
    text: str
    """What was said beside the calls or instead of them."""
    valid: bool
    """Every call is of a function on offer, with arguments of its schema; where one is needed, there is one."""
    right: bool
    error_type: str
    """The checker's kind of error; empty where the calls are right."""
    passes: int
    """Forward passes."""
    seconds: float
    cut: bool
    """The token budget ended before the answer did."""
    failed: str
    """The model's error; the case counts as wrong."""


def row_from_json(body: dict[str, Any]) -> BfclRow:
    """The inverse of `asdict`, for JSON's lists.

    Raises:
        TypeError, ValueError, KeyError: It is no row.
    """
    return BfclRow(**{**body, "calls": tuple((name, dict(values)) for name, values in body["calls"])})


def choice_of(case: Case, tool_choice: Choice) -> Choice:
    """Where it may be right to call nothing, the model always decides."""
    return tool_choice if case.category in CALLING else "auto"


def ask(model: ChatModel, case: Case, check: Checker, *, tool_choice: Choice, unconstrained: bool) -> BfclRow:
    """Put one case to a model."""
    tools = case.tools
    made = answer(
        model,
        case.messages,
        tools,
        tool_choice=choice_of(case, tool_choice),
        max_new_tokens=case.budget,
        parallel=case.parallel,
        unconstrained=unconstrained,
    )
    error_type = "failed" if made.failed else check(case, made.calls)
    is_complete = bool(made.calls) or case.category not in CALLING
    return BfclRow(
        case.id,
        case.category,
        made.calls,
        made.text,
        valid=not made.failed and is_complete and are_valid(made.calls, tools),
        right=not error_type,
        error_type=error_type,
        passes=made.passes,
        seconds=made.seconds,
        cut=made.cut,
        failed=made.failed,
    )


def summarize(rows: Sequence[BfclRow], *, is_free: bool) -> dict[str, Any]:
    """Every figure as plain JSON values; shares as ``{"value", "low", "high", "count"}``.

    ``average`` is the mean of the four categories of the goal, where all were run, not weighted by their cases.
    ``recall`` is the share of the cases that need calls in which there is one, ``irrelevance`` that of the others in
    which there is none: each is worth something only beside the other.

    Args:
        rows: Of every case.
        is_free: The model decided whether to call where a call is needed. Under ``required`` with a grammar it did
            not: then there is always a call, and ``recall`` is None.
    """
    categories = {
        name: _category([row for row in rows if row.category == name])
        for name in CATEGORIES
        if any(row.category == name for row in rows)
    }
    values = [categories[name]["right"]["value"] for name in FOUR if name in categories]
    needed = [row for row in rows if row.category not in UNNEEDED]
    unneeded = [row for row in rows if row.category in UNNEEDED]
    return {
        "cases": len(rows),
        "failed": sum(bool(row.failed) for row in rows),
        "average": sum(values) / len(values) if len(values) == len(FOUR) else None,
        "recall": asdict(_share([bool(row.calls) for row in needed])) if is_free else None,
        "irrelevance": asdict(_share([row.right for row in unneeded])),
        "categories": categories,
    }


def _category(rows: Sequence[BfclRow]) -> dict[str, Any]:
    called = [row for row in rows if row.calls]
    calls = sum(len(row.calls) for row in called)
    return {
        "cases": len(rows),
        "called": len(called),
        "valid": asdict(_share([row.valid for row in rows])),
        "right": asdict(_share([row.right for row in rows])),
        "cut": sum(row.cut for row in rows),
        "failed": sum(bool(row.failed) for row in rows),
        "passes_per_call": sum(row.passes for row in called) / calls if calls else None,
        "seconds_per_case": sum(row.seconds for row in rows) / len(rows),
        "errors": dict(Counter(row.error_type for row in rows if row.error_type).most_common()),
    }


def tables(summary: dict[str, Any]) -> list[Table]:
    """The figures by category, and those over all."""
    rows = []
    for name, body in summary["categories"].items():
        passes = body["passes_per_call"]
        rows.append(
            [
                name,
                str(body["cases"]),
                str(body["called"]),
                percent(body["valid"]),
                percent(body["right"]),
                "–" if passes is None else f"{passes:.1f}",
                f"{body['seconds_per_case']:.2f}",
            ]
        )
    heading = ["category", "cases", "called", "valid", "right", "passes a call", "seconds a case"]
    average = "–" if summary["average"] is None else f"{summary['average']:.1%}"
    whole = [
        ["average of the four", average],
        ["calls where needed", percent(summary["recall"])],
        ["no call where not needed", percent(summary["irrelevance"])],
        ["cases on which the model failed", str(summary["failed"])],
    ]
    errors = [
        [name, kind, str(count)]
        for name, body in summary["categories"].items()
        for kind, count in body["errors"].items()
    ]
    found = [Table(heading, rows), Table(["over all", ""], whole)]
    return [*found, Table(["category", "error", "cases"], errors)] if errors else found


def _share(values: Sequence[bool]) -> Share:
    return share([float(value) for value in values])
