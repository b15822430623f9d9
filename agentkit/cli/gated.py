"""`agentkit finetune evaluate` and `use`: an adapter is compared with what runs without it, then used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common
from agentkit.cli.output import data, json_line, note, status, table

if TYPE_CHECKING:
    from agentkit.build import Workspace
    from agentkit.training.gate import GateReport, Part

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `finetune list` shows it.")]
LABELS = {"better": "better", "match": "as good", "worse": "WORSE", "not run": "not run"}


@common
def evaluate(
    options: Common,
    name: Name,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cases of each suite at most; 60 by default.")
    ] = None,
) -> int:
    """Compare an adapter with what runs without it: on its held-out chats, in routing, answers and tool calls.

    Both answer the same cases, in a place of its own that is gone afterwards. Exit code 1 where
    the adapter falls behind. The report is kept with the adapter; `finetune use` goes by it, if it looked at no fewer
    cases than the default.
    """
    from agentkit import gate

    with options.workspace() as workspace:
        report = _evaluate(workspace, name, limit or gate.LIMIT)
    show(report, options.as_json)
    return 0 if report.passed else 1


@common
def use(
    options: Common,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Use it whatever the comparison says; that is kept and shown.")
    ] = False,
) -> None:
    """Let chats use an adapter from now on, those that are open at their next turn.

    It must have passed `finetune evaluate`; where there is no report that still counts, that runs first.
    """
    from agentkit import gate
    from agentkit.training.adapters import use_of

    with options.workspace() as workspace:
        report, why = gate.standing(workspace, name)
        if report is None and not force:
            note(why)
            report = _evaluate(workspace, name, gate.LIMIT)
            show(report, None, note)
        adapter = gate.use(workspace, name, force=force)
        found = use_of(workspace.adapters_dir, adapter.base)
    forced = found.because if found and found.forced else ""
    if options.as_json:
        json_line({"in_use": name, "model": adapter.base, "forced": forced or None})
        return
    data(f"{adapter.base} now runs with {name}" + (f", by force: {forced}" if forced else ""))


def show(report: GateReport, as_json: bool | None, say: Any = data) -> None:
    """Print a report: its parts, and what follows from them."""
    if as_json:
        json_line(report.to_json())
        return
    if say is data:
        table([_row(part) for part in report.parts], ("", "WITHOUT", "WITH", "", ""))
    else:
        for part in report.parts:
            say(" ".join(f"{part.name}: {LABELS[part.verdict]}, {part.change} {part.evidence}".split()))
    say(f"{report.name} {'passed' if report.passed else f'did not pass: {report.failures()}'}")


def gate_state(workspace: Workspace, name: str) -> str:
    """What is known of an adapter: passed, failed, outdated, or not evaluated."""
    from agentkit import gate
    from agentkit.errors import AgentkitError
    from agentkit.training.gate import FILE

    try:
        report, _ = gate.standing(workspace, name)
    except AgentkitError:  # a list shows what is damaged too
        return "unreadable"
    if report is not None:
        return "passed" if report.passed else "failed"
    return "outdated" if (workspace.adapters_dir / name / FILE).exists() else "not evaluated"


def _evaluate(workspace: Workspace, name: str, limit: int) -> GateReport:
    from agentkit import gate

    note(f"comparing {name} with what runs without it, up to {limit} cases of each suite: this takes minutes")
    report = gate.evaluate(workspace, name, limit=limit, progress=status)
    status("")
    return report


def _row(part: Part) -> tuple[str, ...]:
    figure = "{:.3f}" if part.unit == "nats" else "{:.1%}"
    sides = ["–" if value is None else figure.format(value) for value in (part.base, part.adapter)]
    name = f"{part.name}, loss" if part.unit == "nats" else f"{part.name}, right"
    return (name, *sides, LABELS[part.verdict], part.evidence)
