"""Why a job failed, in one line that names the cause and the remedy."""

from __future__ import annotations

import errno

from agentkit.errors import AgentkitError

_NO_SPACE = ("No space left on device", "PytorchStreamWriter failed", "database or disk is full")
"""How libraries that raise no OSError tell of a full disk."""
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def how_to_resume(id: str) -> str:
    """The remedy for a job that can go on."""
    return f"go on with `agentkit finetune resume {id}`"


def explain(error: BaseException, id: str = "ID") -> str:
    """One line that names the cause, and the remedy where one is known."""
    text = str(error).strip()
    line = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or any(
        sign in text for sign in _NO_SPACE
    ):
        return f"the disk is full ({line}); free some space, then {how_to_resume(id)}"
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return f"out of memory ({line}); lower batch_size, batch_tokens or max_length"
    return text.splitlines()[0] if isinstance(error, AgentkitError) else line
