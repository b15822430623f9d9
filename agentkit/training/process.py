"""The process behind a job: starting it, ending it, and whether it is alive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import agentkit
from agentkit.database import exclusive
from agentkit.training.memory import HUGE_PAGES

WORKER = "agentkit.training.worker"
"""Module that a worker's process runs."""
LOCK = "lock"
"""In a job's folder: locked as long as its worker lives."""
_LOOK_S = 0.05
GRACE_S = 10.0
"""A process that has not ended by then is killed."""
_LINUX = sys.platform == "linux"
_CLOCK_S = 0.05 if _LINUX else 10.0
"""By so much start times of one process may differ: elsewhere they are told by the clock, which may be set."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from a later one with the same number by when it started."""

    pid: int
    started: float
    """On Linux seconds since the machine was booted, which no setting of the clock moves; elsewhere since the epoch."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now; start time 0 where there is none any more."""
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            return cls(pid, _start_of(pid))
        return cls(pid, 0.0)

    def alive(self) -> bool:
        """Whether it is still at work; one that has ended but was not yet collected is not."""
        import psutil

        try:
            same = abs(_start_of(self.pid) - self.started) < _CLOCK_S
            return bool(same and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return False
        except (psutil.Error, OSError):  # not ours to look at, but there
            return True

    def works_at(self, folder: Path) -> bool:
        """Whether it is the worker of a job's folder."""
        import psutil

        with contextlib.suppress(psutil.Error):
            *_, module, given = ["", "", *psutil.Process(self.pid).cmdline()]
            return self.alive() and module == WORKER and Path(given).name == folder.name
        return False


def at_work(process: Process, folder: Path) -> bool:
    """Whether the process of a job lives. That of another container, or of a machine that shares the folder, cannot be
    seen: there its lock tells."""
    return process.alive() or _is_locked(folder / LOCK)


@contextlib.contextmanager
def working(folder: Path) -> Iterator[None]:
    """A job's folder is being worked in."""
    while True:
        with exclusive(folder / LOCK) as mine:
            if mine:  # else somebody is just looking
                yield
                return
        time.sleep(_LOOK_S)


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with exclusive(path) as mine:
        return not mine


def _start_of(pid: int) -> float:
    """When a process began; FileNotFoundError, ProcessLookupError or psutil's NoSuchProcess where there is none."""
    import psutil

    if not _LINUX:
        return float(psutil.Process(pid).create_time())
    # Behind the name, which may hold anything, the twentieth number: man 5 proc, starttime.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def launch(folder: Path, log_file: Path) -> Process:
    """Start the worker of a job; what it prints goes into the log, which must exist."""
    # -P: a json.py in the working folder must not stand in for the real one
    command = [sys.executable, "-P", "-m", WORKER, str(folder)]
    home = str(Path(next(iter(agentkit.__path__))).resolve().parent)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    # Passive: waiting threads sleep. Where they spin, training and a chat beside it both crawl.
    defaults = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONIOENCODING": "utf-8", **HUGE_PAGES}
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**defaults, **os.environ, "PYTHONPATH": path},
            start_new_session=True,  # outlives this process, its terminal, and the group a tool runs in
        )
    # Collects the process when it ends: nobody else here waits for it.
    threading.Thread(target=process.wait, name="training-wait", daemon=True).start()
    return Process.of(process.pid)


def stop(process: Process) -> None:
    """Ask a process to end, and end it if it does not."""
    for demand in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if not process.alive() or process.pid == os.getpid():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, demand)
        deadline = time.monotonic() + GRACE_S
        while process.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
