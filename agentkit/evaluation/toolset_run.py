"""Labelled tool calls put to a model: rows, figures and tables.

Messages that need several calls have rows of their own (`agentkit.evaluation.several_run`), and figures
of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentkit.evaluation import several_run
from agentkit.evaluation.accepted import fits_parameter
from agentkit.evaluation.calls import Call, Choice, answer, are_valid, decides
from agentkit.evaluation.metrics import Share, share
from agentkit.evaluation.several import SeveralCase
from agentkit.evaluation.several_run import SeveralRow
from agentkit.evaluation.tables import Table, percent
from agentkit.evaluation.toolset import Case, ToolCase
from agentkit.llm.missing import words_for
from agentkit.llm.protocol import ChatModel
from agentkit.llm.slots import slot_of, text_kind
from agentkit.messages import Message

BUDGET = 160
"""Tokens an answer may have."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call, or one that the call should have had."""

    name: str
    type: str
    """As `type_of` calls it."""
    valid: bool
    """It fits the parameter's schema; one that may be left out is left out."""
    right: bool


@dataclass(frozen=True, slots=True)
class ToolRow:
    """One turn, asked."""

    id: str
    split: str
    text: str
    lacking: bool
    """The turn leaves out what the call needs."""
    calls: tuple[Call, ...]
    reply: str
    """What was said beside the call or instead of it."""
    arguments: tuple[Argument, ...]
    """Of the first call, where nothing is lacking; what it should have had included."""
    asked: bool
    """A question came, or would come, in place of the call."""
    exactly: bool
    """Asked for just the parameters that are missing, as far as agentkit itself asks."""
    valid: bool
    right: bool
    """There is one call, with accepted arguments alone; where something is lacking, it is asked for."""
    passes: int
    """Forward passes."""
    seconds: float
    failed: str
    """The model's error; the turn counts as wrong."""


AnyRow = ToolRow | SeveralRow


def row_from_json(body: dict[str, Any]) -> AnyRow:
    """The inverse of `asdict`, for JSON's lists.

    Raises:
        TypeError, ValueError, KeyError: It is no row.
    """
    if "wanted" in body:
        return several_run.row_from_json(body)
    calls = tuple((name, dict(values)) for name, values in body["calls"])
    arguments = tuple(Argument(**argument) for argument in body["arguments"])
    return ToolRow(**{**body, "calls": calls, "arguments": arguments})


def ask_any(model: ChatModel, case: Case, *, tool_choice: Choice, unconstrained: bool = False) -> AnyRow:
    """Put one turn to a model, whatever its kind."""
    if isinstance(case, SeveralCase):
        return several_run.ask(model, case, tool_choice=tool_choice, unconstrained=unconstrained)
    return ask(model, case, tool_choice=tool_choice, unconstrained=unconstrained)


def ask(model: ChatModel, case: ToolCase, *, tool_choice: Choice, unconstrained: bool = False) -> ToolRow:
    """Put one turn of a tool to a model.

    Under ``required`` the call is a matter of course, so turns that lack something never reach the model: what counts
    is whether agentkit asks before every call that has been decided on (`agentkit.llm.missing`). Under ``auto``, and
    without a grammar, the model decides between calling, asking and answering; asked is a reply without a call that
    holds a question mark.
    """
    _, missing = words_for(case.tool, case.text, ())
    is_free = decides(tool_choice, unconstrained)
    made = None
    if is_free or not case.missing:
        made = answer(
            model,
            [Message("user", case.text)],
            [case.tool],
            tool_choice=tool_choice,
            max_new_tokens=BUDGET,
            unconstrained=unconstrained,
        )
    calls, reply = (made.calls, made.text) if made else ((), "")
    by_agentkit = bool(missing) if made is None or not is_free else "missing_argument" in made.notices
    asked = by_agentkit or (is_free and not calls and "?" in reply)
    arguments = () if case.missing else _arguments(case, calls)
    is_called = len(calls) == 1 and calls[0][0] == case.tool.name
    return ToolRow(
        case.id,
        case.split,
        case.text,
        bool(case.missing),
        calls,
        reply,
        arguments,
        asked=asked,
        exactly=by_agentkit and set(missing) == set(case.missing),
        valid=bool(calls) and are_valid(calls, [case.tool]),
        right=asked if case.missing else is_called and not case.wrong(calls[0][1]),
        passes=made.passes if made else 0,
        seconds=made.seconds if made else 0.0,
        failed=made.failed if made else "",
    )


def type_of(name: str, schema: Mapping[str, Any] | bool) -> str:
    """``number``, ``integer``, ``boolean``, ``list``, ``object``, ``choice``; of texts ``date``, ``time``, ``code``,
    ``email`` or ``path`` where name or description ask for it, else ``text``; ``any`` where the schema says none.
    """
    if not isinstance(schema, Mapping) or "$ref" in schema:
        return "any"
    if "enum" in schema:
        return "choice"
    kind = str(schema.get("type", "any"))
    if kind == "string":
        return text_kind(slot_of(name, schema, True)) or "text"
    return {"array": "list"}.get(kind, kind)


def _arguments(case: ToolCase, calls: Sequence[Call]) -> tuple[Argument, ...]:
    given = calls[0][1] if calls and calls[0][0] == case.tool.name else None
    properties = case.tool.parameters["properties"]
    names = {*case.accepted, *(given or {})}
    wrong = set(names) if given is None else set(case.wrong(given))
    found = []
    for name in sorted(names):
        schema = properties.get(name, {})
        is_absent = given is not None and name not in given
        may_be_absent = None in case.accepted.get(name, [])
        valid = may_be_absent if is_absent else given is not None and name in properties
        if valid and not is_absent and given is not None:
            valid = fits_parameter(name, given[name], case.tool)
        found.append(Argument(name, type_of(name, schema), valid, name not in wrong))
    return tuple(found)


def summarize(every: Sequence[AnyRow], *, is_free: bool) -> dict[str, Any]:
    """Every figure as plain JSON values; shares as ``{"value", "low", "high", "count"}``.

    Those of messages that need several calls stand under ``several``, and count nowhere else.

    Args:
        every: The rows.
        is_free: The model decided whether to call. Under ``required`` with a grammar it did not: whether it
            ``called`` and ``called_all_the_same`` says nothing then, and is None.
    """
    rows = [row for row in every if isinstance(row, ToolRow)]
    several = [row for row in every if isinstance(row, SeveralRow)]
    complete, lacking = [row for row in rows if not row.lacking], [row for row in rows if row.lacking]
    arguments = [argument for row in complete for argument in row.arguments]
    called = [row for row in complete if row.calls]
    splits = {row.split for row in complete}
    return {
        "calls": len(complete),
        "failed": sum(bool(row.failed) for row in rows),
        "called": asdict(_share([bool(row.calls) for row in complete])) if is_free else None,
        "valid": asdict(_share([row.valid for row in complete])),
        "right": asdict(_share([row.right for row in complete])),
        "splits": {
            split: asdict(_share([row.right for row in complete if row.split == split]))
            for split in sorted(splits)
        },
        "arguments": {
            name: _arguments_of([argument for argument in arguments if argument.type == name])
            for name in sorted({argument.type for argument in arguments})
        },
        "missing": {
            "lacking": len(lacking),
            "asked": asdict(_share([row.asked for row in lacking])),
            "asked_exactly": asdict(_share([row.exactly for row in lacking])),
            "called_all_the_same": asdict(_share([bool(row.calls) for row in lacking])) if is_free else None,
            "asked_without_cause": asdict(_share([row.asked for row in complete])),
        },
        "passes_per_call": sum(row.passes for row in called) / len(called) if called else None,
        "seconds_per_call": sum(row.seconds for row in called) / len(called) if called else None,
        "several": several_run.summarize(several) if several else None,
    }


def _arguments_of(arguments: Sequence[Argument]) -> dict[str, Any]:
    return {
        "arguments": len(arguments),
        "valid": asdict(_share([argument.valid for argument in arguments])),
        "right": asdict(_share([argument.right for argument in arguments])),
    }


def tables(summary: dict[str, Any]) -> list[Table]:
    """Calls, arguments by type, and what is asked for; several calls; each where there are such turns."""
    single = _single_tables(summary) if summary["calls"] + summary["missing"]["lacking"] else []
    return single if summary["several"] is None else [*single, several_run.table(summary["several"])]


def _single_tables(summary: dict[str, Any]) -> list[Table]:
    missing, passes = summary["missing"], summary["passes_per_call"]
    calls = [
        ["turns", str(summary["calls"])],
        *([key, percent(summary[key])] for key in ("called", "valid")),
        ["right", percent(summary["right"])],
        *([f"right, {name}", percent(body)] for name, body in summary["splits"].items()),
        ["passes a call", "–" if passes is None else f"{passes:.1f}"],
        ["seconds a call", "–" if passes is None else f"{summary['seconds_per_call']:.2f}"],
        ["turns on which the model failed", str(summary["failed"])],
    ]
    types = [
        [name, str(body["arguments"]), percent(body["valid"]), percent(body["right"])]
        for name, body in summary["arguments"].items()
    ]
    asked = [
        ["turns that lack something", str(missing["lacking"])],
        ["asked", percent(missing["asked"])],
        ["asked for exactly that", percent(missing["asked_exactly"])],
        ["called all the same", percent(missing["called_all_the_same"])],
        ["asked without cause", percent(missing["asked_without_cause"])],
    ]
    return [
        Table(["calls", ""], calls),
        Table(["arguments", "count", "valid", "right"], types),
        Table(["missing arguments", ""], asked),
    ]


def _share(values: Sequence[bool]) -> Share:
    return share([float(value) for value in values])
