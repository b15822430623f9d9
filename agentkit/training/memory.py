"""Memory of a process that asks for the same large pieces at every step."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Environment under which glibc asks for pages of 2 MB. With small ones a training falls to four fifths of its
speed within minutes, as what it keeps is scattered over more and more of them; elsewhere this does nothing."""


def keep_memory() -> None:
    """Let the C library keep what is freed.

    glibc maps a piece above 32 MiB at most anew each time and gives it back when it is freed, so that every tensor of
    an activation begins with page faults, which can take longer than what is computed. Elsewhere this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_TOP_PAD):
            mallopt(option, _LARGE if option != _M_TOP_PAD else _LARGE >> 4)
