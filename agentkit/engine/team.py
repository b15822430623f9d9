"""The threads that compute together: as many as torch would use, started once, asleep between calls."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_Job = tuple[Callable[..., Any], tuple[Any, ...], "queue.SimpleQueue[None]"]


class Team:
    """Runs a compiled function in all of its threads at once, this one included.

    Args:
        size: Threads, this one included.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._jobs: list[queue.SimpleQueue[_Job]] = [queue.SimpleQueue() for _ in range(size - 1)]
        for number, jobs in enumerate(self._jobs, 1):
            threading.Thread(
                target=self._work, args=(number, jobs), daemon=True, name=f"agentkit-{number}"
            ).start()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function(thread, *args)`` in every thread; returns this thread's result when all are through."""
        done: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # its own: nothing is left over from an interrupted run
        with self._lock:
            for jobs in self._jobs:
                jobs.put((function, args, done))
            result = function(0, *args)
            for _ in self._jobs:
                done.get()
        return result

    def _work(self, number: int, jobs: queue.SimpleQueue[_Job]) -> None:
        while True:
            function, args, done = jobs.get()
            function(number, *args)
            done.put(None)


@cache
def team() -> Team:
    """The team of this process."""
    import torch

    return Team(max(1, min(torch.get_num_threads(), usable_cores())))


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: threads that wait for each other must not outnumber them.

    torch counts the machine's cores, whatever a container leaves of them.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, int(limit) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return cores
