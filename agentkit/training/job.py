"""A job as users see it, read from its row and its folder.

The folder holds ``settings.json``, the job's own copy of the data, ``data.json`` (what became of it),
``progress.jsonl``, ``log.txt`` and, while there is something left to do, the newest checkpoint and the job's own copy
of the adapter that it begins from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentkit.errors import NotFoundError, TrainingError
from agentkit.training import settings as job_settings
from agentkit.training.adapters import CARD, Adapter, get_adapter
from agentkit.training.report import FILE as REPORT
from agentkit.training.report import DataReport, read_report, scores_text
from agentkit.training.settings import JobSettings, Task
from agentkit.training.table import ACTIVE, Record, Status

DATA, PROGRESS, LOG = "data.jsonl", "progress.jsonl", "log.txt"
CHECKPOINTS, START = "checkpoints", "start"
CANCEL = "cancel"
"""There while somebody cancels: tells SIGTERM from that of a shutdown, after which the job can be resumed."""
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job as it stood when it was looked at."""

    id: str
    name: str
    """Of the adapter or model."""
    status: Status
    created: str
    """ISO 8601, UTC."""
    model: str
    """Name of the base model."""
    start: str
    """Adapter that it begins from; ``none`` for the bare model."""
    folder: Path
    log: Path
    adapter: Path | None
    """The finished adapter or model; ``None`` until the job is done."""
    pid: int
    step: int
    steps: int
    """0 until the first step is done."""
    epoch: int
    epochs: int
    loss: float | None
    """Of the last step, in nats per label, which is a token of chats."""
    val_loss: float | None
    """Of the held-out examples, as it was last measured; of a job that is done, that of its result, which with
    ``patience`` has the weights of an earlier step."""
    tokens_per_s: float | None
    eta_s: float | None
    """Seconds left, from the speed so far; ``None`` unless the job runs."""
    report: str
    """What became of the data, in a sentence."""
    ahead: int
    """Jobs that come before it; 0 unless it is queued."""
    error: str | None
    task: Task = "chat"
    scores: dict[str, float] = field(default_factory=dict)
    """What a task other than chat is judged by, measured with ``val_loss``; of a job that is done, the scores that its
    result is judged by (`adapters.Adapter.scores`)."""

    @property
    def active(self) -> bool:
        """Whether the job is queued or running."""
        return self.status in ACTIVE

    def progress(self) -> str:
        """How far it is, or how it ended, in a few words."""
        if self.status == "queued":
            return f"queued behind {self.ahead}" if self.ahead else "about to start"
        done = f"step {self.step} of {self.steps}" if self.steps else ""
        early = "stopped early" if self.status == "done" and self.step < self.steps else ""
        loss = f"loss {self.loss:.3f}" if self.loss is not None else ""
        held_out = f"held out {self.val_loss:.3f}" if self.val_loss is not None else ""
        scores = scores_text(self.scores)
        left = f"{duration(self.eta_s)} left" if self.eta_s else ""
        reason = self.error if self.status == "failed" else ""
        parts = (self.status, done, early, loss, held_out, scores, left, reason)
        return ", ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def duration(seconds: float) -> str:
    """Seconds for a person: ``40 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def view(record: Record, folder: Path, ahead: int = 0) -> Job:
    """The job of a row, with ``ahead`` jobs before it."""
    try:
        settings: JobSettings | None = read_settings(folder)
    except (
        OSError,
        ValueError,
    ):  # the folder was deleted or damaged by hand; the row still tells how it ended
        settings = None
    try:
        report: DataReport | None = read_report(folder / REPORT)
    except (OSError, ValueError):
        report = None
    last, val_loss, scores = _newest(folder)
    place = settings.adapters_dir / record.name if settings and record.status == "done" else None
    if made := _result(place, record.id):
        val_loss, scores = made.loss_after, made.scores
    return Job(
        id=record.id,
        name=record.name,
        status=record.status,
        created=record.created,
        model=settings.model_name if settings else "",
        start=settings.start if settings else "",
        folder=folder,
        log=folder / LOG,
        adapter=place,
        pid=record.process.pid,
        step=last.get("step", 0),
        steps=last.get("steps", 0),
        epoch=last.get("epoch", 0),
        epochs=settings.epochs if settings else 0,
        loss=last.get("loss"),
        val_loss=val_loss,
        tokens_per_s=last.get("tokens_per_s"),
        eta_s=last.get("eta_s") if record.status == "running" else None,
        report=report.sentence() if report else "",
        ahead=ahead,
        error=record.error,
        task=settings.task if settings else "chat",
        scores=dict(scores),
    )


def _result(place: Path | None, id: str) -> Adapter | None:
    """The adapter or model that a job has made; ``None`` where it was deleted or is damaged, which `list` is for."""
    with contextlib.suppress(NotFoundError, TrainingError):
        if place is not None and (place / CARD).is_file():
            found = get_adapter(place.parent, place.name)
            return found if found.job == id else None  # else another one of that name
    return None


Newest = tuple[dict[str, Any], float | None, dict[str, float]]
"""The line of the last step, and what was measured last, by whichever step: loss of held-out examples, and scores."""


def _newest(folder: Path) -> Newest:
    try:
        state = (folder / PROGRESS).stat()
    except OSError:
        return {}, None, {}
    return _newest_of(folder, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _newest_of(folder: Path, size: int, changed: int) -> Newest:
    """Read once for every state of the file: who watches a job lists them all, and most have ended."""
    lines = read_progress(folder)
    val_losses = (line["val_loss"] for line in reversed(lines) if line.get("val_loss") is not None)
    scores = (line["scores"] for line in reversed(lines) if line.get("scores"))
    return lines[-1] if lines else {}, next(val_losses, None), next(scores, {})


def stage_dir(adapters_dir: Path, id: str) -> Path:
    """Where a job writes its adapter before it is whole."""
    return adapters_dir / f".{id}.tmp"


def clear(folder: Path, adapters_dir: Path) -> None:
    """Remove what a job has left half written: an adapter, a checkpoint. Whole checkpoints stay."""
    shutil.rmtree(stage_dir(adapters_dir, folder.name), ignore_errors=True)
    for path in (folder / CHECKPOINTS).glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def clear_done(folder: Path) -> None:
    """Remove what only a job that is under way needs."""
    for name in (CHECKPOINTS, START):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_settings(folder: Path) -> JobSettings:
    """The settings in a job's folder; OSError or ValueError where they are gone or damaged."""
    return JobSettings.model_validate_json((folder / job_settings.FILE).read_bytes())


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """The line of each step: steps that a resumed job has done again are told once, and half lines not at all."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in (folder / PROGRESS).read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                progress = json.loads(line)
                while found and found[-1]["step"] >= progress["step"]:
                    found.pop()
                found.append(progress)
    return found


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    with contextlib.suppress(OSError):
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL))
            lines = log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "none")
    return "none"


def write_new(path: Path, content: bytes) -> None:
    """A new file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)
