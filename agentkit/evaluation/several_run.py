"""Messages that need several tool calls put to a model: rows, figures and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentkit.evaluation.calls import Call, Choice, answer, are_valid
from agentkit.evaluation.metrics import Share, share
from agentkit.evaluation.several import KINDS, SeveralCase
from agentkit.evaluation.tables import Table, percent
from agentkit.llm.protocol import ChatModel
from agentkit.messages import Message

BUDGET = 400
"""Tokens all the calls of an answer may have together."""


@dataclass(frozen=True, slots=True)
class SeveralRow:
    """One message, asked."""

    id: str
    split: str
    text: str
    kind: str
    """As `SeveralCase.kind` calls it."""
    wanted: int
    """Calls that the message asks for."""
    met: int
    """Those of them that were made."""
    calls: tuple[Call, ...]
    reply: str
    """What was said beside the calls or instead of them."""
    functions: bool
    """Each function is called as often as it should be, whatever the arguments."""
    valid: bool
    """There are calls, and all are of functions on offer, with arguments of their schemas."""
    right: bool
    """The wanted calls in any order, and no others."""
    passes: int
    """Forward passes."""
    seconds: float
    cut: bool
    """The token budget ended before the answer did."""
    failed: str
    """The model's error; the message counts as wrong."""


def row_from_json(body: dict[str, Any]) -> SeveralRow:
    """The inverse of `asdict`, for JSON's lists.

    Raises:
        TypeError, ValueError, KeyError: It is no row.
    """
    return SeveralRow(**{**body, "calls": tuple((name, dict(values)) for name, values in body["calls"])})


def ask(
    model: ChatModel, case: SeveralCase, *, tool_choice: Choice, unconstrained: bool = False
) -> SeveralRow:
    """Put one message to a model, which may make several calls whether or not it should."""
    made = answer(
        model,
        [Message("user", case.text)],
        case.tools,
        tool_choice=tool_choice,
        max_new_tokens=BUDGET,
        parallel=True,
        unconstrained=unconstrained,
    )
    calls = made.calls
    return SeveralRow(
        case.id,
        case.split,
        case.text,
        case.kind,
        wanted=len(case.wanted),
        met=case.met(calls),
        calls=calls,
        reply=made.text,
        functions=sorted(name for name, _ in calls) == sorted(call.name for call in case.wanted),
        valid=bool(calls) and are_valid(calls, case.tools),
        right=case.is_right(calls),
        passes=made.passes,
        seconds=made.seconds,
        cut=made.cut,
        failed=made.failed,
    )


def summarize(rows: Sequence[SeveralRow]) -> dict[str, Any]:
    """Every figure of one row or more, as plain JSON values; shares as ``{"value", "low", "high", "count"}``.

    ``recall`` is the share of the wanted calls that were made, ``precision`` that of the calls made that were wanted.
    """
    splits, kinds = sorted({row.split for row in rows}), {row.kind for row in rows}
    return {
        "messages": len(rows),
        "failed": sum(bool(row.failed) for row in rows),
        "valid": asdict(_share([row.valid for row in rows])),
        "right": asdict(_share([row.right for row in rows])),
        "kinds": {
            kind: asdict(_share([row.right for row in rows if row.kind == kind]))
            for kind in KINDS
            if kind in kinds
        },
        "splits": {
            split: asdict(_share([row.right for row in rows if row.split == split])) for split in splits
        },
        "count": asdict(_share([len(row.calls) == row.wanted for row in rows])),
        "functions": asdict(_share([row.functions for row in rows])),
        "recall": asdict(share([row.met for row in rows], [row.wanted for row in rows])),
        "precision": asdict(share([row.met for row in rows], [len(row.calls) for row in rows])),
        "too_few": sum(len(row.calls) < row.wanted for row in rows),
        "too_many": sum(len(row.calls) > row.wanted for row in rows),
        "cut": sum(row.cut for row in rows),
        "passes_per_message": sum(row.passes for row in rows) / len(rows),
        "seconds_per_message": sum(row.seconds for row in rows) / len(rows),
    }


def table(summary: dict[str, Any]) -> Table:
    """The figures of `summarize`."""
    return Table(
        ["several calls", ""],
        [
            ["messages", str(summary["messages"])],
            ["valid", percent(summary["valid"])],
            ["right", percent(summary["right"])],
            *([f"right, {name}", percent(body)] for name, body in summary["kinds"].items()),
            *([f"right, {name}", percent(body)] for name, body in summary["splits"].items()),
            ["right number of calls", percent(summary["count"])],
            ["right functions, each as often as it should", percent(summary["functions"])],
            ["wanted calls that were made", percent(summary["recall"])],
            ["calls made that were wanted", percent(summary["precision"])],
            ["too few calls", str(summary["too_few"])],
            ["too many calls", str(summary["too_many"])],
            ["cut by the token budget", str(summary["cut"])],
            ["passes a message", f"{summary['passes_per_message']:.1f}"],
            ["seconds a message", f"{summary['seconds_per_message']:.2f}"],
            ["messages on which the model failed", str(summary["failed"])],
        ],
    )


def _share(values: Sequence[bool]) -> Share:
    return share([float(value) for value in values])
