"""Labelled turns and what the agent would do with each: a tool, the knowledge base, small talk, or a polite no."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from agentkit.errors import AgentkitError, ModelError
from agentkit.evaluation.lines import check_keys, check_texts, of_split, read_lines, round_robin, wrong
from agentkit.evaluation.metrics import share
from agentkit.evaluation.tables import Table, percent
from agentkit.events import Event, Notice, ToolCallProposed, TurnDone, TurnFailed
from agentkit.llm.protocol import Route

OPTIONS = ("knowledge", "chat", "decline")
"""What a turn may need beside the tools."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One labelled turn."""

    line: int
    """In its file, from 1."""
    id: str
    text: str
    route: str
    """A tool's name, or one of `OPTIONS`."""
    split: str


@dataclass(frozen=True, slots=True)
class RoutingRow:
    """One turn, routed."""

    id: str
    text: str
    split: str
    route: str
    decided: str
    """What the agent would do; empty where it failed."""
    right: bool
    seconds: float
    failed: str


class Router(Protocol):
    """An agent in a session of its own."""

    def route(self, text: str) -> Route | None: ...

    def stream(self, text: str) -> Iterator[Event]: ...


Open = Callable[[], AbstractContextManager[Router]]
"""An agent in a fresh session, which is gone when left."""


def read_turns(path: Path, tools: Sequence[str], split: str | None = None) -> list[Turn]:
    """Read a file of turns.

    Args:
        path: JSON lines with ``id``, ``text``, ``route`` and ``split``, and if you like ``same_as``.
        tools: Names of the tools on offer.
        split: Keep only the turns of this split.

    Returns:
        The turns, going round the labels, so that the first few are of as many labels.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is wrong, an id stands twice, a route is no tool of the project, or none is left; names
            line and cause.
    """
    turns = of_split(path, read_lines(path, _turn), lambda turn: turn.split, split)
    for turn in turns:
        if turn.route not in (*OPTIONS, *tools):
            known = ", ".join((*OPTIONS, *tools))
            raise wrong(path, turn.line, f"there is no tool {turn.route!r}; the routes are {known}")
    labels = dict.fromkeys(turn.route for turn in turns)
    return round_robin([turn for turn in turns if turn.route == label] for label in labels)


def _turn(line: int, body: dict[str, Any]) -> Turn:
    keys = ("id", "text", "route", "split")
    check_keys(body, set(keys), frozenset({"same_as"}))
    check_texts(body, *keys)
    return Turn(line, *(body[key] for key in keys))


def row_from_json(body: dict[str, Any]) -> RoutingRow:
    """The inverse of `asdict`.

    Raises:
        TypeError: It is no row.
    """
    return RoutingRow(**body)


def ask(agent: Open, turn: Turn) -> RoutingRow:
    """Have one turn routed."""
    decided, failed = "", ""
    start = time.perf_counter()
    try:
        with agent() as opened:
            decided = decide(opened, turn.text)
    except AgentkitError as error:
        failed = str(error)
    seconds = time.perf_counter() - start
    return RoutingRow(
        turn.id, turn.text, turn.split, turn.route, decided, decided == turn.route, seconds, failed
    )


def decide(agent: Router, text: str) -> str:
    """What the agent does with a turn: a tool's name, or one of `OPTIONS`.

    Where the model itself decides, the turn is begun: the first call tells, or a question for an argument of one; if
    there is none, what the answer rests on. No tool runs.

    Raises:
        ModelError: The turn failed.
    """
    route = agent.route(text)
    if route is not None:
        return route.tool or route.kind
    declined = False
    for event in agent.stream(text):
        if isinstance(event, ToolCallProposed):
            return event.call.name
        if isinstance(event, Notice) and event.code == "missing_argument":
            return event.text.partition(" waits for ")[
                0
            ]  # `agentkit.llm.missing.ask_for` begins with the tool
        if isinstance(event, Notice) and event.code == "declined":
            declined = True
        if isinstance(event, TurnFailed):
            raise ModelError(event.error)
        if isinstance(event, TurnDone):
            return "decline" if declined else "knowledge" if event.reply.citations else "chat"
    raise ModelError("the turn ended without a reply", "report this turn")


def summarize(rows: Sequence[RoutingRow]) -> dict[str, Any]:
    """Every figure as plain JSON values; ``confusion`` counts decisions by label and decision."""
    routes = sorted({row.route for row in rows}, key=_order)
    decisions = sorted({*routes, *(row.decided for row in rows)}, key=_order)
    counts = Counter((row.route, row.decided) for row in rows)
    return {
        "turns": len(rows),
        "failed": sum(bool(row.failed) for row in rows),
        "accuracy": asdict(share([float(row.right) for row in rows])),
        "routes": {
            route: asdict(share([float(row.right) for row in rows if row.route == route])) for route in routes
        },
        "confusion": {route: {name: counts[route, name] for name in decisions} for route in routes},
        "seconds_per_turn": sum(row.seconds for row in rows) / len(rows),
    }


def _order(name: str) -> tuple[bool, str]:
    """Tools first."""
    return name in (*OPTIONS, ""), name


def tables(summary: dict[str, Any]) -> list[Table]:
    """Accuracy by label, and which label was taken for what."""
    rows = [
        [route, str(sum(counts.values())), percent(summary["routes"][route]), *map(_count, counts.values())]
        for route, counts in summary["confusion"].items()
    ]
    decisions = list(next(iter(summary["confusion"].values())))
    heading = ["label", "turns", "right", *(f"as {name or 'failed'}" for name in decisions)]
    whole = [
        ["turns", str(summary["turns"])],
        ["right", percent(summary["accuracy"])],
        ["seconds a turn", f"{summary['seconds_per_turn']:.3f}"],
        ["turns that failed", str(summary["failed"])],
    ]
    return [Table(["routing", ""], whole), Table(heading, rows)]


def _count(number: int) -> str:
    return str(number) if number else "·"
