"""Fine-tuning jobs: each its own process, which outlives the one that started it; one of them trains at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentkit.errors import NotFoundError, TrainingError, UsageError
from agentkit.settings import private_dir
from agentkit.training import settings as job_settings
from agentkit.training.adapters import SPECS, check_name, free_name, list_adapters
from agentkit.training.bases import check_folder
from agentkit.training.data import Split, load_chats
from agentkit.training.failures import how_to_resume
from agentkit.training.job import (
    CANCEL,
    DATA,
    LOG,
    START,
    Job,
    clear,
    clear_done,
    last_line,
    read_progress,
    read_settings,
    view,
    write_new,
)
from agentkit.training.labelled import Labelled, load_labelled, task_of
from agentkit.training.labelled import to_lines as labelled_lines
from agentkit.training.partition import partition
from agentkit.training.prepare import Chosen, prepare, to_lines
from agentkit.training.process import Process, at_work, launch, stop
from agentkit.training.report import FILE as REPORT
from agentkit.training.report import DataReport
from agentkit.training.settings import JobSettings, Task, epochs_for, make_settings
from agentkit.training.table import ACTIVE, FILE, JobTable, Record, job_table
from agentkit.training.warm_start import Start, find_start, settings_for

__all__ = ["Job", "cancel", "get_job", "list_jobs", "resume", "start", "wait"]

POLL_S = 0.2


def start(
    data: Path | Chosen,
    *,
    model_name: str,
    model_source: str | Path,
    jobs_dir: Path,
    adapters_dir: Path,
    name: str | None = None,
    epochs: int | None = None,
    options: Mapping[str, Any] | None = None,
    keep_personal_data: bool = False,
) -> Job:
    """Check data and settings, then start a process that trains and outlives this one.

    One job trains at a time; the process of another waits for its turn.

    Args:
        data: A file whose columns tell the task (`labelled.task_of`), or sessions; copied, so it may change afterwards.
        model_name: What the base model is called; an adapter will only fit a model of this name.
        model_source: Folder, ``.gguf`` file or hub id to load it from.
        jobs_dir: Where jobs keep their files.
        adapters_dir: Where the result will lie, in a folder of its name.
        name: Of the result; by default that of the file, with a number where it is taken.
        epochs: Passes over the data; by default by the number of examples.
        options: Other fields of `JobSettings`.
        keep_personal_data: Leave e-mail addresses, phone numbers and the like as they are.

    Raises:
        NotFoundError: There is no such adapter to begin from.
        UsageError: A line of the data, the name, the model or a setting is wrong; nothing was started.
        TrainingError: The process cannot be started, or the adapter to begin from is damaged.
    """
    task: Task = "chat" if isinstance(data, Chosen) else task_of(data)
    loaded = _load(data, task)
    examples = loaded.examples if isinstance(loaded, Chosen) else loaded
    source = to_lines(data.examples) if isinstance(data, Chosen) else data.read_bytes()
    given = {key: value for key, value in (options or {}).items() if value is not None}
    stem = "sessions" if isinstance(data, Chosen) else data.stem
    values = {
        "epochs": epochs_for(len(examples), task),
        **given,
        "task": task,
        "name": name or _free_name(stem, jobs_dir, adapters_dir),
        "model_name": model_name,
        "model_source": str(Path(model_source).absolute() if Path(model_source).exists() else model_source),
        "data_name": "sessions" if isinstance(data, Chosen) else data.name,
        "data_sha256": hashlib.sha256(source).hexdigest(),
        "adapters_dir": adapters_dir.absolute(),
        "keep_personal_data": keep_personal_data,
    }
    settings = make_settings(values | ({"epochs": epochs} if epochs is not None else {}))
    check_name(adapters_dir, settings.name)
    begin = find_start(settings)
    settings = settings_for(settings, begin)
    check_folder(settings.model_source, model_name, task, settings.method)
    ready, report = _prepared(loaded, settings)
    if settings.patience is not None and not report.splits["validation"]:
        cause = f"patience needs {report.unit} to validate by, and none is held out"
        remedy = f"leave patience out, or hold some out: validation above 0, of ten {report.unit} or more"
        if any(example.split for example in examples):  # then the shares of the settings do not count
            remedy = f"leave patience out, or mark some {report.unit} as validation"
        raise UsageError(cause, remedy)
    return _begin(settings, ready, report, begin, jobs_dir)


def resume(job: Job) -> Job:
    """Let a job that has failed or was killed go on from its newest checkpoint, or from the beginning without one.

    Raises:
        UsageError: It has not failed, or its files are gone.
        TrainingError: The process cannot be started.
    """
    jobs_dir, now = job.folder.parent, get_job(job.folder.parent, job.id)
    reasons = {"done": "is done", "cancelled": "was cancelled, and what it had learned is gone"}
    if now.status != "failed":
        raise UsageError(
            f"job {job.id} {reasons.get(now.status, 'is under way')}", "see `agentkit finetune status`"
        )
    try:
        read_settings(job.folder)
        if not (job.folder / DATA).is_file():
            raise FileNotFoundError(job.folder / DATA)
    except (OSError, ValueError) as error:
        raise UsageError(f"the files of job {job.id} are gone or damaged", "start it again") from error
    with job_table(jobs_dir) as table:  # where the name was taken meanwhile, the result gets a number
        if not table.requeue(job.id, Process.of(os.getpid())):
            raise UsageError(f"job {job.id} is under way", "see `agentkit finetune status`")
        _launch(table, job.folder)
    return get_job(jobs_dir, job.id)


def list_jobs(jobs_dir: Path) -> list[Job]:
    """All jobs, the newest first; those whose process has died are found and marked as failed."""
    return [view(record, jobs_dir.absolute() / record.id, ahead) for record, ahead in _records(jobs_dir)]


def get_job(jobs_dir: Path, id: str) -> Job:
    """A job by its id, the beginning of it, or the name of its adapter: then the one under way, else the newest.

    Raises:
        NotFoundError: There is none, or the beginning fits several.
    """
    found = _records(jobs_dir)
    begin = [(record, ahead) for record, ahead in found if id and record.id.startswith(id)]
    named = [(record, ahead) for record, ahead in found if id in (record.id, record.name)]
    if named or len(begin) == 1:
        record, ahead = min(named or begin, key=lambda row: (row[0].id != id, row[0].status not in ACTIVE))
        return view(record, jobs_dir.absolute() / record.id, ahead)
    cause = f"{len(begin)} jobs begin with {id!r}" if begin else f"there is no job {id!r}"
    raise NotFoundError(cause, "see `agentkit finetune status`")


def cancel(job: Job) -> Job:
    """End a job; nothing of its adapter is kept. Returns how it ended: ``done`` if that came first.

    Raises:
        UsageError: The job has ended already, or its process is out of reach.
    """
    jobs_dir = job.folder.parent
    if not get_job(jobs_dir, job.id).active:
        raise UsageError(f"job {job.id} has ended already", "see `agentkit finetune status`")
    with job_table(jobs_dir) as table:
        if not _record(table, job.id).process.alive() and get_job(jobs_dir, job.id).active:
            cause = f"job {job.id} runs in another container or on another machine"
            raise UsageError(cause, "cancel it there")
        with contextlib.suppress(
            OSError
        ):  # without the mark the worker takes it for a shutdown, and ends too
            (job.folder / CANCEL).touch()
        # The process of a queued job may not listen yet, and would end without a word.
        if _record(table, job.id).status == "queued":
            table.end(job.id, "cancelled")
        # Read again: until then it could change hands. Who is still starting it is spared; its worker will not run.
        process = _record(table, job.id).process
        if process.works_at(job.folder):
            stop(process)
        table.end(job.id, "cancelled")
        _clear(job.folder)
        (job.folder / CANCEL).unlink(missing_ok=True)
        clear_done(job.folder)
    return get_job(jobs_dir, job.id)


def wait(
    job: Job, timeout: float | None = None, on_progress: Callable[[dict[str, Any]], None] | None = None
) -> Job:
    """Wait until the job has ended.

    Args:
        job: A job in any state.
        timeout: Seconds; afterwards the job is returned as it then is.
        on_progress: Called once for each step since the job began, with its line of ``progress.jsonl``.
    """
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    seen = 0
    while True:
        now = get_job(job.folder.parent, job.id)
        lines = read_progress(job.folder) if on_progress else []
        for line in lines[seen:]:
            assert on_progress is not None
            on_progress(line)
        seen = len(lines)
        if not now.active or time.monotonic() >= deadline:
            return now
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))


def _load(data: Path | Chosen, task: Task) -> Chosen | list[Labelled]:
    if isinstance(data, Chosen):
        return data
    return Chosen(load_chats(data), (), frozenset()) if task == "chat" else load_labelled(data, task)


def _prepared(loaded: Chosen | list[Labelled], settings: JobSettings) -> tuple[bytes, DataReport]:
    """The data of a job as it is stored, and what became of it."""
    shares: dict[Split, float] = {"validation": settings.validation, "test": settings.test}
    if not isinstance(loaded, Chosen):
        labelled, report = partition(
            loaded, settings.task, shares=shares, keep_personal_data=settings.keep_personal_data
        )
        return labelled_lines(labelled, settings.task), report
    chats, report = prepare(
        loaded.examples,
        shares=shares,
        keep_personal_data=settings.keep_personal_data,
        house=loaded.house,
        skipped=loaded.skipped,
    )
    return to_lines(chats), report


def _begin(
    settings: JobSettings, data: bytes, report: DataReport, begin: Start | None, jobs_dir: Path
) -> Job:
    created = datetime.now(UTC)
    folder = jobs_dir.absolute() / f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    with job_table(jobs_dir) as table:
        when = created.isoformat(timespec="seconds")
        table.reserve(folder.name, settings.name, when, Process.of(os.getpid()))
        try:
            private_dir(folder)
            write_new(folder / DATA, data)
            replace(report, job=folder.name).write(folder / REPORT)
            write_new(folder / job_settings.FILE, settings.model_dump_json(indent=1).encode())
            if begin is not None:
                private_dir(folder / START)
                for name, content in begin.files.items():
                    write_new(folder / START / name, content)
            write_new(folder / LOG, f"{report.sentence()}\n".encode())
        except OSError as error:
            table.end(folder.name, "failed", str(error))
            raise _cannot_start(folder, error) from error
        except BaseException:  # else it would hold up the queue as long as this process lives
            table.end(folder.name, "failed", "interrupted before it was started")
            raise
        _launch(table, folder)
    return get_job(jobs_dir, folder.name)


def _launch(table: JobTable, folder: Path) -> None:
    try:
        table.hand_over(folder.name, launch(folder, folder / LOG))
    except OSError as error:
        table.end(folder.name, "failed", str(error))
        raise _cannot_start(folder, error) from error


def _cannot_start(folder: Path, error: OSError) -> TrainingError:
    remedy = "check free space and rights of that folder"
    return TrainingError(f"cannot start a job in {folder}: {error.strerror or error}", remedy)


def _free_name(stem: str, jobs_dir: Path, adapters_dir: Path) -> str:
    stem = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")[:56] or "adapter"
    taken = {*SPECS, *(record.name for record, _ in _records(jobs_dir) if record.status in ACTIVE)}
    return free_name(adapters_dir, stem, taken)


def _record(table: JobTable, id: str) -> Record:
    return next(record for record in table.all() if record.id == id)


def _records(jobs_dir: Path) -> list[tuple[Record, int]]:
    """The row of each job, the newest first, and how many come before it; those that have died are marked as failed."""
    if not (jobs_dir / FILE).is_file():
        return []
    with job_table(jobs_dir) as table:
        _bury(table, jobs_dir)
        records = table.all()
    before = sum(record.status == "running" for record in records)
    found = []
    for record in records:
        waits = record.status == "queued"
        found.append((record, before if waits else 0))
        before += waits
    return found[::-1]


def _bury(table: JobTable, jobs_dir: Path) -> None:
    for record in table.all():
        folder = jobs_dir / record.id
        if record.status in ACTIVE and not at_work(record.process, folder):
            if made := _made(record, folder):
                if table.end(record.id, "done", name=made):
                    clear_done(folder)
                continue
            last = last_line(folder / LOG)
            # Nothing changes if the process ended the job between the two looks.
            cause = "the process ended unexpectedly (killed, out of memory, or the machine went down)"
            if table.end(record.id, "failed", f"{cause}; {how_to_resume(record.id)}; last log line: {last}"):
                _clear(folder)


def _made(record: Record, folder: Path) -> str | None:
    """Name of the adapter, if it was in its place already when the process died."""
    with contextlib.suppress(OSError, ValueError):
        adapters = list_adapters(read_settings(folder).adapters_dir)
        return next((adapter.name for adapter in adapters if adapter.job == record.id), None)
    return None


def _clear(folder: Path) -> None:
    """Remove what a process that was killed may have left among the adapters."""
    with contextlib.suppress(OSError, ValueError):
        clear(folder, read_settings(folder).adapters_dir)
