"""`agentkit finetune`: LoRA adapters from chats, trained in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.output import data, is_terminal, json_line, note, one_line, status, table

if TYPE_CHECKING:
    from agentkit.training.jobs import Job

app = group_app("finetune", "Train LoRA adapters and use them.")
JobId = Annotated[
    str, typer.Argument(metavar="ID", help="A job, the beginning of its id, or its adapter's name.")
]


@app.command()
@common
def start(
    options: Common,
    chats: Annotated[Path, typer.Argument(metavar="DATA", help="JSONL, one chat a line: {'messages': […]}.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the adapter; else the file's.")] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the data.")] = 3,
    wait: Annotated[bool, typer.Option("--wait", help="Stay and show the progress.")] = False,
) -> int:
    """Start a training job and return; it goes on by itself."""
    with options.workspace() as workspace:
        job = workspace.start_finetune(chats, name, epochs)
        if not wait:
            _print_job(job, options.as_json)
            note(f"follow it with `agentkit finetune status {job.id}`")
            return 0
        note(f"job {job.id}; Ctrl+C leaves it running")
        return _follow(job, options.as_json)


@app.command("status")
@common
def show_status(
    options: Common,
    id: Annotated[str | None, typer.Argument(metavar="ID", help="All jobs by default.")] = None,
) -> None:
    """Show jobs, the newest first."""
    from agentkit.training import jobs

    with options.workspace() as workspace:
        found = (
            [jobs.get_job(workspace.jobs_dir, id)] if id is not None else jobs.list_jobs(workspace.jobs_dir)
        )
        for job in found:
            _print_job(job, options.as_json)
        if id is not None and found[0].error and not options.as_json:
            note(f"log: {found[0].log}")
        if not found:
            note("no jobs yet; start one with `agentkit finetune start DATA`")


@app.command("list")
@common
def list_adapters(options: Common) -> None:
    """List finished adapters."""
    from agentkit.training import adapters

    with options.workspace() as workspace:
        folder = workspace.adapters_dir
        rows = []
        for adapter in adapters.list_adapters(folder):
            used = adapters.in_use(folder, adapter.base) == adapter.name
            if options.as_json:
                json_line({**adapter.to_json(), "in_use": used})
            loss = f"{_loss(adapter.loss_before)} → {_loss(adapter.loss_after)}"
            rows.append(
                (adapter.name, adapter.base, f"{adapter.examples} chats", f"loss {loss}", "in use" * used)
            )
        if not rows:
            note("no adapters yet; train one with `agentkit finetune start DATA`")
        if not options.as_json:
            table(rows, ("NAME", "MODEL", "DATA", "HELD OUT", ""))


@app.command()
@common
def use(
    options: Common, name: Annotated[str, typer.Argument(metavar="NAME", help="As `finetune list` shows it.")]
) -> None:
    """Let chats use an adapter from now on, those that are open at their next turn."""
    from agentkit.training import adapters

    with options.workspace() as workspace:
        adapter = adapters.use(workspace.adapters_dir, name)
    _done({"in_use": name, "model": adapter.base}, f"{adapter.base} now runs with {name}", options.as_json)


@app.command()
@common
def unuse(options: Common) -> None:
    """Take an adapter out of use; what comes with agentkit takes its place (`--adapter none`: nothing)."""
    from agentkit.training import adapters

    with options.workspace() as workspace:
        base = workspace.settings.model
        name = adapters.unuse(workspace.adapters_dir, base)
        own = adapters.shipped(base) is not None
    text = f"{base} now runs without {name}" if name else f"no adapter was in use for {base}"
    if own:
        text += ", with the adapter that comes with agentkit"
    _done({"in_use": None, "before": name, "model": base}, text, options.as_json)


@app.command()
@common
def cancel(options: Common, id: JobId) -> None:
    """End a running job."""
    from agentkit.training import jobs

    with options.workspace() as workspace:
        job = jobs.cancel(jobs.get_job(workspace.jobs_dir, id))
        _print_job(job, options.as_json)


def _follow(job: Job, as_json: bool | None) -> int:
    from agentkit.training import jobs

    def show(step: dict[str, Any]) -> None:
        if as_json:
            json_line({"type": "progress", **step})
        elif is_terminal(sys.stderr):
            status(_progress(step.get("step", 0), step.get("steps", 0), step.get("loss"), step.get("eta_s")))

    ended = jobs.wait(job, on_progress=show)
    _print_job(ended, as_json)
    return 0 if ended.status == "done" else 1


def _print_job(job: Job, as_json: bool | None) -> None:
    status("")
    if as_json:
        json_line(job.to_json())
        return
    progress = (
        _progress(job.step, job.steps, job.loss, job.eta_s if job.active else None) if job.steps else ""
    )
    parts = [f"{job.id}  {job.name}  {job.status}", progress]
    if job.adapter is not None:
        parts.append(str(job.adapter))
    data("  ".join(part for part in parts if part))
    if job.error:
        note(one_line(job.error), "!")


def _progress(step: int, steps: int, loss: float | None, eta_s: float | None) -> str:
    left = f", {eta_s:.0f} s left" if eta_s else ""
    return f"step {step}/{steps}, loss {_loss(loss)}{left}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _done(body: dict[str, Any], text: str, as_json: bool | None) -> None:
    if as_json:
        json_line(body)
    else:
        data(text)
