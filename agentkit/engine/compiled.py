"""Compiled functions that are kept on disk: compiling the engine takes ten seconds, loading it a fraction of one.

numba looks at the time stamp of a function's own file only. Here the name of the folder is a digest of all the files
that the machine code comes from, so that code of another version is never found.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config
from numba.extending import intrinsic as numba_intrinsic

from agentkit import settings

F = TypeVar("F", bound=Callable[..., Any])
_kept: list[Any] = []
"""Functions whose addresses are in use."""
_SOURCES = ("barrier.py", "compiled.py", "forward.py", "lora.py", "simd.py")


@cache
def kernel_cache() -> Path:
    """Where the machine code is kept."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return settings.cache_dir() / "kernels" / digest.hexdigest()[:16]


def part(function: F) -> F:
    """A part of a compiled function: machine code in it, plain Python outside of it."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that emits LLVM code."""
    return numba_intrinsic(function)


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code for this processor, without the interpreter's lock; compiled when first called."""
    with _cache_folder(kernel_cache()) as kept:
        return numba.njit(nogil=True, cache=kept)(function)


def compiled_address(function: Callable[..., Any], signature: Any, name: str) -> int:
    """Where the machine code of a function of numbers is; ``name`` tells it from others of the same lines."""
    with _cache_folder(kernel_cache() / name) as kept:
        code = numba.cfunc(signature, cache=kept)(function)
    _kept.append(code)
    return int(code.address)


@contextmanager
def _cache_folder(folder: Path) -> Iterator[bool]:
    """Have numba keep code in a folder; false where it cannot be written, and every start compiles."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield writable
    finally:
        config.CACHE_DIR = before
