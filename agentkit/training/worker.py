"""The process of one job: ``python -m agentkit.training.worker JOBDIR``. What it prints is the job's log."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError
from agentkit.training import settings as job_settings
from agentkit.training.adapters import Adapter, add
from agentkit.training.data import Report, encode, load_chats
from agentkit.training.job import DATA, PROGRESS, stage_dir
from agentkit.training.process import Process
from agentkit.training.settings import JobSettings
from agentkit.training.table import JobTable, job_table


class Cancelled(BaseException):
    """SIGTERM has come. No `Exception`, so that no library's handler takes it for a failure of its own."""


def main(folder: Path) -> int:
    """Run the job of a folder to its end; returns the exit code."""
    signal.signal(signal.SIGTERM, _cancel)
    job = JobSettings.model_validate_json((folder / job_settings.FILE).read_bytes())
    with job_table(folder.parent) as table:
        if not table.run(folder.name, Process.of(os.getpid())):
            return 1
        try:
            _train(folder, job, table)
        except Cancelled:
            _leave(folder, job)
            table.end(folder.name, "cancelled")
            print("cancelled", flush=True)
            return 1
        except BaseException as error:  # also a signal: the job must not be left as running
            _leave(folder, job)
            traceback.print_exc()
            table.end(folder.name, "failed", explain(error))
            return 1
    return 0


def explain(error: BaseException) -> str:
    """One line that names the cause, and the remedy where one is known."""
    if isinstance(error, AgentkitError):
        return str(error)
    text = str(error).strip()
    line = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({line}); free some space and start again"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"out of memory ({line}); lower batch_size, batch_tokens or max_length"
    return line


def _train(folder: Path, job: JobSettings, table: JobTable) -> None:
    from agentkit.engine.weights import load_weights
    from agentkit.llm.encoding import ChatEncoder
    from agentkit.training import lora

    print(f"loading {job.model_name}", flush=True)
    loaded = load_weights(
        job.model_source, name=job.model_name, device=job.device, quantize="none", trainable=True
    )
    encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids)
    length = min(loaded.context_length, job.max_length)
    rows, report = encode(load_chats(folder / DATA), encoder, length, system=job.system)
    print(f"{report} on {loaded.device}", flush=True)
    with (folder / PROGRESS).open("a", encoding="utf-8") as progress:
        trained = lora.train(job, loaded.model, rows, _reporter(progress.write, progress.flush))
    adapter = _describe(job, report, trained)
    # From here a cancellation would come too late: the adapter is there, and the job is done.
    _save(folder, job, adapter, trained.model)
    table.end(folder.name, "done")
    print(
        f"done in {trained.seconds:.0f} s; held-out loss {trained.loss_before} to {trained.loss_after}",
        flush=True,
    )


def _reporter(write: Callable[[str], Any], flush: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def report(progress: dict[str, Any]) -> None:
        write(json.dumps(progress) + "\n")
        flush()
        print(f"step {progress['step']}/{progress['steps']} loss {progress['loss']}", flush=True)

    return report


def _describe(job: JobSettings, report: Report, trained: Any) -> Adapter:
    from agentkit.__about__ import __version__

    return Adapter(
        name=job.name,
        path=job.adapters_dir / job.name,
        base=job.model_name,
        data=job.data_name,
        data_sha256=job.data_sha256,
        examples=report.count,
        duplicates=report.duplicates,
        cut=report.cut,
        epochs=job.epochs,
        steps=trained.steps,
        train_loss=round(trained.train_loss, 4),
        loss_before=None if trained.loss_before is None else round(trained.loss_before, 4),
        loss_after=None if trained.loss_after is None else round(trained.loss_after, 4),
        seconds=round(trained.seconds, 1),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
    )


def _save(folder: Path, job: JobSettings, adapter: Adapter, model: Any) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    def write(stage: Path) -> None:
        config = model.peft_config["default"]
        config.base_model_name_or_path = job.model_name  # else the path of a folder on this machine
        config.inference_mode = True
        config.save_pretrained(stage)
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        save_file(weights, stage / "adapter_model.safetensors", metadata={"format": "pt"})
        shutil.copyfile(folder / job_settings.FILE, stage / job_settings.FILE)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    add(job.adapters_dir, adapter, write, stage=stage_dir(job.adapters_dir, folder.name))


def _leave(folder: Path, job: JobSettings) -> None:
    """Nothing half-written stays; a second SIGTERM must not interrupt the clearing up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    shutil.rmtree(stage_dir(job.adapters_dir, folder.name), ignore_errors=True)


def _cancel(signum: int, frame: object) -> None:
    raise Cancelled


if __name__ == "__main__":
    with contextlib.suppress(AttributeError, OSError):
        os.nice(5)  # a chat beside it stays quick
    sys.exit(main(Path(sys.argv[1])))
