"""The process of one job: ``python -m agentkit.training.worker JOBDIR``. What it prints is the job's log."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agentkit.errors import TrainingError
from agentkit.llm.adapters import PLAIN
from agentkit.training import settings as job_settings
from agentkit.training.adapters import HELD_OUT, Adapter, add, traits_of
from agentkit.training.curves import CURVES, draw_curves
from agentkit.training.data import SPLITS, Report
from agentkit.training.failures import explain, how_to_resume
from agentkit.training.job import (
    CANCEL,
    CHECKPOINTS,
    DATA,
    PROGRESS,
    START,
    clear,
    clear_done,
    duration,
    read_progress,
    stage_dir,
)
from agentkit.training.process import Process, working
from agentkit.training.report import FILE as REPORT
from agentkit.training.report import read_report, score_name
from agentkit.training.run import Stopped, Trained
from agentkit.training.settings import JobSettings
from agentkit.training.table import JobTable, job_table
from agentkit.training.work import Work, make_work

POLL_S = 0.3
"""How often a job that waits looks whether it is its turn."""


class Cancelled(BaseException):
    """Somebody cancels. No `Exception`, so that no library's handler takes it for a failure of its own."""


class Interrupted(BaseException):
    """SIGTERM has come from elsewhere, e.g. from a shutdown: the job can be resumed."""


class Demand:
    """What SIGTERM asks of the worker.

    Args:
        folder: Of the job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_training = False
        """There is something to save: an interruption is left to the loop, which looks at `stop`."""
        self.stop = False

    def __call__(self, signum: int, frame: object) -> None:
        if (self._folder / CANCEL).exists():
            raise Cancelled
        if not self.is_training:
            raise Interrupted
        self.stop = True


def main(folder: Path) -> int:
    """Run the job of a folder to its end; returns the exit code."""
    demand = Demand(folder)
    signal.signal(signal.SIGTERM, demand)
    job = JobSettings.model_validate_json((folder / job_settings.FILE).read_bytes())
    with working(folder), job_table(folder.parent) as table:
        try:
            if not _wait_for_turn(table, folder.name):
                return 1
            _train(folder, job, table, demand)
        except Cancelled:
            _leave(folder, job)
            table.end(folder.name, "cancelled")
            _say("cancelled")
            return 1
        except Interrupted:
            _leave(folder, job)
            table.end(folder.name, "failed", f"interrupted; {how_to_resume(folder.name)}")
            _say("interrupted")
            return 1
        except BaseException as error:  # also a signal: the job must not be left as running
            _leave(folder, job)
            with contextlib.suppress(OSError):  # the log may be on the disk that is full
                traceback.print_exc()
            table.end(folder.name, "failed", explain(error, folder.name))
            return 1
    return 0


def _wait_for_turn(table: JobTable, id: str) -> bool:
    """Wait until the jobs before this one have ended; false if it was ended meanwhile."""
    told = False
    while (turn := table.run(id, Process.of(os.getpid()))) == "later":
        if not told:
            _say("waiting for the jobs before this one")
            told = True
        time.sleep(POLL_S)
    return turn == "now"


def _train(folder: Path, job: JobSettings, table: JobTable, demand: Demand) -> None:
    _say(f"loading {job.model_name}")
    work = make_work(job, folder / DATA)
    _note_data(folder, job, work)
    _say(f"{work.report} on {work.device}")
    if job.task == "chat":
        _say(f"beginning from {f'the adapter {job.start}' if job.start_sha256 else 'the bare model'}")
    trained = _learn(folder, work, demand)
    adapter = _describe(folder, job, work.report, trained)
    # From here a cancellation would come too late: the adapter is there, and the job is done.
    name = _save(folder, job, adapter, partial(work.save, trained)).name
    table.end(folder.name, "done", name=name)
    clear_done(folder)
    if name != job.name:
        _say(f"the name {job.name!r} was taken meanwhile: the result is called {name!r}")
    _say(f"done in {trained.seconds:.0f} s; held-out loss {trained.loss_before} to {trained.loss_after}")


def _learn(folder: Path, work: Work, demand: Demand) -> Trained:
    """The seam to the training loop: everything it needs to be watched, interrupted and resumed."""
    _mend(folder / PROGRESS)
    demand.is_training = True
    try:
        with (folder / PROGRESS).open("a", encoding="utf-8") as progress:
            trained: Trained = work.train(
                _reporter(progress.write, progress.flush),
                checkpoint_dir=folder / CHECKPOINTS,
                should_stop=lambda: demand.stop,
            )
            return trained
    except Stopped as error:
        raise Interrupted from error
    finally:
        demand.is_training = False


def _note_data(folder: Path, job: JobSettings, work: Work) -> None:
    """Add to the report of the data what only the model's own tokens could tell."""
    before, report = read_report(folder / REPORT), work.report
    if not work.splits["train"]:
        cause = f"none of the {before.unit} to learn from is left: {report.cut} were too long"
        raise TrainingError(cause, f"shorten the {before.unit}, or raise max_length if the model allows it")
    if job.patience is not None and not work.splits["validation"]:
        cause = f"patience needs {before.unit} to validate by, and all that were held out were too long"
        raise TrainingError(
            cause, "leave patience out, shorten them, or raise max_length if the model allows it"
        )
    splits: dict[str, int] = {name: work.splits[name] for name in SPLITS}
    duplicates = (
        before.found - before.unredactable - report.cut - report.count
    )  # also those equal by their tokens
    replace(
        before,
        duplicates=duplicates,
        cut=report.cut,
        splits=splits,
        tokens=report.tokens,
        assistant_tokens=report.assistant_tokens,
        shortened=work.shortened,
    ).write(folder / REPORT)


def _mend(path: Path) -> None:
    """Cut off the half line that a kill may have left, so that the next one begins on a line of its own."""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("rb+") as handle:
                handle.truncate(len(whole))


def _reporter(write: Callable[[str], Any], flush: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def report(progress: dict[str, Any]) -> None:
        write(json.dumps(progress) + "\n")
        flush()
        held_out = progress.get("val_loss")
        told = "" if held_out is None else f", held out {held_out}"
        told += "".join(f", {score_name(key)} {value}" for key, value in progress.get("scores", {}).items())
        left = duration(progress["eta_s"])
        _say(f"step {progress['step']}/{progress['steps']} loss {progress['loss']}{told}, {left} left")

    return report


def _say(text: str) -> None:
    print(text, flush=True)


def _describe(folder: Path, job: JobSettings, report: Report, trained: Trained) -> Adapter:
    from agentkit.__about__ import __version__

    traits = traits_of(folder / START) if job.start_sha256 else PLAIN  # what it began from, it still can
    return Adapter(
        name=job.name,
        path=job.adapters_dir / job.name,
        base=job.model_name,
        data=job.data_name,
        data_sha256=job.data_sha256,
        examples=report.count,
        duplicates=read_report(folder / REPORT).duplicates,
        cut=report.cut,
        epochs=job.epochs,
        steps=trained.steps,
        train_loss=round(trained.train_loss, 4),
        loss_before=None if trained.loss_before is None else round(trained.loss_before, 4),
        loss_after=None if trained.loss_after is None else round(trained.loss_after, 4),
        seconds=round(trained.seconds, 1),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        task=job.task,
        scores={key: round(value, 4) for key, value in trained.scores.items()},
        scored_on=trained.scored_on if trained.scores else "",
        scored=trained.scored if trained.scores else 0,
        reads=traits.reads,
        decides=traits.decides,
        evidence={} if traits == PLAIN else asdict(traits.strength),
        job=folder.name,
    )


def _save(folder: Path, job: JobSettings, adapter: Adapter, save: Callable[[Path], None]) -> Adapter:
    def write(stage: Path) -> None:
        save(stage)
        shutil.copyfile(folder / job_settings.FILE, stage / job_settings.FILE)
        shutil.copyfile(folder / REPORT, stage / REPORT)
        _keep_held_out(folder, stage)
        _keep_curves(folder, stage)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    return add(job.adapters_dir, adapter, write, stage=stage_dir(job.adapters_dir, folder.name))


def _keep_held_out(folder: Path, stage: Path) -> None:
    """The chats that judge the result: the gate needs them when the job's own files may be long gone."""
    rows = [line for line in (folder / DATA).read_bytes().splitlines(keepends=True) if line.strip()]
    kept = [line for line in rows if json.loads(line).get("split") == "test"]
    if kept:
        (stage / HELD_OUT).touch(0o600)
        (stage / HELD_OUT).write_bytes(b"".join(kept))


def _leave(folder: Path, job: JobSettings) -> None:
    """Nothing half-written stays; a second SIGTERM must not interrupt the clearing up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    clear(folder, job.adapters_dir)


def _keep_curves(folder: Path, stage: Path) -> None:
    """The figures of each step, and their picture where matplotlib is installed."""
    lines = read_progress(folder)
    (stage / PROGRESS).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    try:
        draw_curves(lines, stage / CURVES)
    except Exception as error:  # a picture is no reason to lose the adapter, whatever drawing it died of
        _say(f"no {CURVES}: {error}")


if __name__ == "__main__":
    with contextlib.suppress(AttributeError, OSError):
        os.nice(5)  # a chat beside it stays quick
    sys.exit(main(Path(sys.argv[1])))
