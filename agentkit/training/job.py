"""A job as users see it, read from its row and its folder.

The folder holds ``settings.json``, the job's own copy of the data, ``progress.jsonl`` and ``log.txt``.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentkit.training import settings as job_settings
from agentkit.training.settings import JobSettings
from agentkit.training.table import ACTIVE, Record, Status

DATA, PROGRESS, LOG = "data.jsonl", "progress.jsonl", "log.txt"
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job as it stood when it was looked at."""

    id: str
    name: str
    """Of the adapter."""
    status: Status
    created: str
    """ISO 8601, UTC."""
    model: str
    """Name of the base model."""
    folder: Path
    log: Path
    adapter: Path | None
    """The finished adapter; ``None`` until the job is done."""
    pid: int
    step: int
    steps: int
    """0 until the first step is done."""
    epoch: int
    epochs: int
    loss: float | None
    """Of the last step, in nats per token."""
    tokens_per_s: float | None
    eta_s: float | None
    """Seconds left, from the speed so far; 0 when the last step is done."""
    error: str | None

    @property
    def active(self) -> bool:
        """Whether the job is queued or running."""
        return self.status in ACTIVE

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def view(record: Record, folder: Path) -> Job:
    """The job of a row."""
    try:
        settings: JobSettings | None = read_settings(folder)
    except (
        OSError,
        ValueError,
    ):  # the folder was deleted or damaged by hand; the row still tells how it ended
        settings = None
    lines = read_progress(folder)
    last = lines[-1] if lines else {}
    done = settings is not None and record.status == "done"
    return Job(
        id=record.id,
        name=record.name,
        status=record.status,
        created=record.created,
        model=settings.model_name if settings else "",
        folder=folder,
        log=folder / LOG,
        adapter=settings.adapters_dir / record.name if settings and done else None,
        pid=record.process.pid,
        step=last.get("step", 0),
        steps=last.get("steps", 0),
        epoch=last.get("epoch", 0),
        epochs=settings.epochs if settings else 0,
        loss=last.get("loss"),
        tokens_per_s=last.get("tokens_per_s"),
        eta_s=last.get("eta_s"),
        error=record.error,
    )


def stage_dir(adapters_dir: Path, id: str) -> Path:
    """Where a job writes its adapter before it is whole."""
    return adapters_dir / f".{id}.tmp"


def read_settings(folder: Path) -> JobSettings:
    """The settings in a job's folder; OSError or ValueError where they are gone or damaged."""
    return JobSettings.model_validate_json((folder / job_settings.FILE).read_bytes())


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """Every whole line; the last may still be in the making."""
    with contextlib.suppress(OSError, ValueError):
        lines = (folder / PROGRESS).read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]
    return []


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
