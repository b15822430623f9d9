"""How the threads of a compiled function divide their work, and meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentkit.engine.compiled import part
from agentkit.engine.simd import atomic_increment, atomic_read, give_way

Ints = NDArray[np.int64]
Span = tuple[int, int]

_SPINS = 4_000
"""Looks at the barrier before a waiting thread gives its core away."""


@part
def share(count: int, thread: int, threads: int) -> Span:
    """This thread's part of ``count`` pieces."""
    return count * thread // threads, count * (thread + 1) // threads


@part
def arrive(meeting: Ints, threads: int) -> None:
    """Tell the others that this thread has done its share of a phase."""
    if threads > 1:
        atomic_increment(meeting.ctypes.data)


@part
def await_others(meeting: Ints, phase: int, threads: int) -> int:
    """Returns the next phase when all threads have arrived."""
    if threads > 1:
        address: Any = meeting.ctypes.data
        spins = 0
        while atomic_read(address) < (phase + 1) * threads:
            spins += 1
            if spins > _SPINS:
                give_way()
    return phase + 1


@part
def wait(meeting: Ints, phase: int, threads: int) -> int:
    """Meet the other threads: returns the next phase when all of them have come."""
    arrive(meeting, threads)
    return await_others(meeting, phase, threads)


@part
def wait_if(shared: bool, meeting: Ints, phase: int, threads: int) -> int:
    """`wait` where there is something to hand over."""
    return wait(meeting, phase, threads) if shared else phase
