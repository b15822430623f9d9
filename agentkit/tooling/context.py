"""What a running tool may ask of its surroundings: its own options from ``[tools.options.NAME]``."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

Options = Mapping[str, Mapping[str, Any]]
"""Tool name to its free settings."""

_default: Options = {}
_current: ContextVar[Options | None] = ContextVar("agentkit_tool_options", default=None)


def tool_options(name: str) -> dict[str, Any]:
    """The settings ``[tools.options.NAME]`` of the running project; empty where there are none.

    Args:
        name: The tool's name.

    Returns:
        A copy: a tool may change it without harm.
    """
    current = _current.get()
    return copy.deepcopy(dict((_default if current is None else current).get(name, {})))


def set_options(options: Options) -> None:
    """Set the options of every tool of this process (the worker does so when it starts)."""
    global _default
    _default = copy.deepcopy(dict(options))


@contextlib.contextmanager
def using_options(options: Options | None) -> Iterator[None]:
    """Options for the tools called in this context only; ``None`` leaves the process's own."""
    token = _current.set(options)
    try:
        yield
    finally:
        _current.reset(token)
