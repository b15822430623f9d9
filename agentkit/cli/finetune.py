"""`agentkit finetune`: adapters from chats and models from labelled data, trained in a process of their own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.gated import evaluate, gate_state, use
from agentkit.cli.output import can_draw, data, json_line, note, one_line, status, table
from agentkit.cli.progress import training
from agentkit.errors import UsageError

if TYPE_CHECKING:
    from agentkit.training.adapters import Adapter
    from agentkit.training.jobs import Job
    from agentkit.training.sessions import Selection

app = group_app("finetune", "Train adapters and models, and use them.")
JobId = Annotated[
    str, typer.Argument(metavar="ID", help="A job, the beginning of its id, or its result's name.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Stay and show the progress.")]


@app.command()
@common
def start(
    options: Common,
    chats: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="JSONL of chats; or CSV or JSONL of examples.")
    ] = None,
    sessions: Annotated[bool, typer.Option("--sessions", help="Learn from conversations instead.")] = False,
    session: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this one; may be given several times.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="Only those used since.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Only those used until.")] = None,
    rated: Annotated[str | None, typer.Option(metavar="R", help="Only those rated good, or bad.")] = None,
    keep_personal_data: Annotated[
        bool, typer.Option("--keep-personal-data", help="Put no placeholders for addresses and numbers.")
    ] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the result; else the file's.")] = None,
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML of training settings; options win over it.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the data; else by their number.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="M", help="lora, dora, adalora, qlora or full.")
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option("--start", metavar="A", help="Adapter to begin from: auto, none, a name or path."),
    ] = None,
    rank: Annotated[int | None, typer.Option(metavar="N", help="Of the adapter.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", metavar="X", help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(metavar="O", help="adamw or sgd.")] = None,
    schedule: Annotated[str | None, typer.Option(metavar="S", help="cosine, linear or constant.")] = None,
    max_length: Annotated[int | None, typer.Option(metavar="N", help="Tokens of an example at most.")] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after N passes that did not help what is held out.")
    ] = None,
    wait: Wait = False,
) -> int:
    """Start a training job and return; it goes on by itself, behind those that were started before it.

    Learns from a file, or from conversations. The file's columns tell what: chats (messages) make an adapter of the
    chat model; text and label a classifier, tokens and tags a tagger, both from the base that --model names, else the
    embedded encoder; source and target a seq2seq model, whose base --model has to name. --seed is that of the run.
    """
    _check_options(options)
    source = _source(chats, sessions, session or (), since, until, rated)
    chosen = _training_settings(
        settings,
        method=method,
        start=start_from,
        rank=rank,
        learning_rate=learning_rate,
        optimizer=optimizer,
        schedule=schedule,
        max_length=max_length,
        patience=patience,
        seed=options.seed,
    )
    with options.workspace() as workspace:
        job = workspace.start_finetune(
            source, name, epochs, options=chosen, keep_personal_data=keep_personal_data
        )
        return _begun(job, options, wait)


@app.command()
@common
def resume(options: Common, id: JobId, wait: Wait = False) -> int:
    """Let a job that failed or was killed go on from its newest checkpoint."""
    from agentkit.training import jobs

    with options.workspace() as workspace:
        job = jobs.resume(jobs.get_job(workspace.jobs_dir, id))
        return _begun(job, options, wait)


@app.command("status")
@common
def show_status(
    options: Common,
    id: Annotated[str | None, typer.Argument(metavar="ID", help="All jobs by default.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the curves of this job into a PNG.")
    ] = None,
) -> None:
    """Show jobs, the newest first; of a single one, the loss over its steps too."""
    from agentkit.training import jobs

    if plot is not None and id is None:
        raise UsageError("--plot needs a job", "name one: agentkit finetune status ID --plot FILE")
    with options.workspace() as workspace:
        if id is not None:
            job = jobs.get_job(workspace.jobs_dir, id)
            _print_job(job, options.as_json)
            _show_details(job, options.as_json, plot)
            return
        found = jobs.list_jobs(workspace.jobs_dir)
        for job in found:
            _print_job(job, options.as_json)
        if not found:
            note("no jobs yet; start one with `agentkit finetune start DATA`")


@app.command("list")
@common
def list_adapters(options: Common) -> None:
    """List finished adapters and models."""
    from agentkit.training import adapters
    from agentkit.training.labelled import UNITS

    with options.workspace() as workspace:
        folder = workspace.adapters_dir
        rows = []
        for adapter in adapters.list_adapters(folder):
            found = adapters.use_of(folder, adapter.base)
            used = found is not None and found.adapter == adapter.name
            forced = found.because if used and found and found.forced else ""
            gate = gate_state(workspace, adapter.name) if adapter.task == "chat" else ""
            if options.as_json:
                body = {"in_use": used, "forced": forced or None, "gate": gate}
                json_line({**adapter.to_json(), **body})
            about = f"{adapter.examples} {UNITS[adapter.task]}"
            about += f", {adapter.task}" if adapter.task != "chat" else ""
            state = f"in use by force: {forced}" if forced else "in use" * used
            rows.append((adapter.name, adapter.base, about, _held_out(adapter), gate, state))
        if not rows:
            note("nothing trained yet; begin with `agentkit finetune start DATA`")
        if not options.as_json:
            table(rows, ("NAME", "MODEL", "DATA", "HELD OUT", "GATE", ""))


app.command()(evaluate)
app.command()(use)


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


def _check_options(options: Common) -> None:
    """Raise `UsageError` for common options that are about running a model."""
    if options.adapter is not None:
        cause = "--adapter is for running a model, and says nothing about training"
        raise UsageError(cause, f"use --start {options.adapter}")
    if options.quantize is not None:
        cause = "--quantize is for running a model, and says nothing about training"
        raise UsageError(cause, "use --method qlora for a base of nf4 weights, or leave it out")


def _source(
    chats: Path | None,
    sessions: bool,
    session: Sequence[str],
    since: str | None,
    until: str | None,
    rated: str | None,
) -> Path | Selection:
    """The file or the conversations to learn from, of which one has to be given."""
    from agentkit.training.sessions import make_selection

    narrowed = {"session": session, "since": since, "until": until, "rated": rated}
    given = next((f"--{key}" for key, value in narrowed.items() if value), None)
    if chats is not None and (sessions or given):
        raise UsageError(f"DATA and {given or '--sessions'} name two sources", "leave one out")
    if chats is None and not (sessions or given):
        raise UsageError("there is nothing to learn from", "name a file of examples, or use --sessions")
    return chats if chats is not None else make_selection(session, since, until, rated)


def _training_settings(file: Path | None, **options: Any) -> dict[str, Any]:
    """The settings of a file, under the options that are given."""
    from agentkit.training.settings import read_settings_file

    given = {key: value for key, value in options.items() if value is not None}
    return {**(read_settings_file(file) if file else {}), **given}


def _begun(job: Job, options: Common, wait: bool) -> int:
    as_json = options.as_json
    if not as_json:
        note(job.report)
        if job.start != "none":
            note(f"begins from the adapter {job.start}")
    if not wait:
        _print_job(job, as_json)
        note(f"follow it with `agentkit finetune status {job.id}{options.again}`")
        return 0
    note(f"job {job.id}; Ctrl+C leaves it running")
    return _follow(job, as_json)


def _follow(job: Job, as_json: bool | None) -> int:
    from agentkit.training import jobs

    with training(as_json) as show:

        def tell(step: dict[str, Any]) -> None:
            if as_json:
                json_line({"type": "progress", **step})
            elif show is not None:
                show(step)

        ended = jobs.wait(job, on_progress=tell)
    _print_job(ended, as_json)
    return 0 if ended.status == "done" else 1


def _show_details(job: Job, as_json: bool | None, plot: Path | None) -> None:
    from agentkit.training.curves import draw_curves, series, text_curve
    from agentkit.training.job import read_progress

    lines = read_progress(job.folder)
    if not as_json and lines and can_draw(sys.stdout):
        for name, values in series(lines, "token" if job.task == "chat" else "label").items():
            if len(values) > 1:
                data(f"\n{name}")
                data("\n".join(text_curve(values)))
    if plot is not None:
        draw_curves(lines, plot)
        note(f"drawn into {plot}")
    if not as_json:
        note(f"log: {job.log}")


def _print_job(job: Job, as_json: bool | None) -> None:
    status("")
    if as_json:
        json_line(job.to_json())
        return
    parts = [job.id, job.name, job.progress() if job.status != "failed" else _failed(job)]
    if job.adapter is not None:
        parts.append(str(job.adapter))
    data("  ".join(part for part in parts if part))
    if job.error:
        note(one_line(job.error), "!")


def _failed(job: Job) -> str:
    return f"failed at step {job.step} of {job.steps}" if job.steps else "failed"


def _held_out(adapter: Adapter) -> str:
    from agentkit.training.report import scores_text

    if adapter.scores:
        return f"{scores_text(adapter.scores)} ({adapter.scored} {adapter.scored_on})"
    return f"loss {_loss(adapter.loss_before)} → {_loss(adapter.loss_after)}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _done(body: dict[str, Any], text: str, as_json: bool | None) -> None:
    if as_json:
        json_line(body)
    else:
        data(text)
