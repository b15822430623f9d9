"""What a tool returned or raised, as bounded plain JSON: shared by the worker process and the thread."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from agentkit.errors import AgentkitError

ERROR_LIMIT = 1_000
"""Characters of an error's text."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A `ToolResult` before it knows its call."""

    ok: bool
    value: Any = None
    error: str | None = None
    truncated: bool = False


def run_bounded(
    call: Callable[[Mapping[str, Any]], Any], arguments: Mapping[str, Any], limit: int
) -> Outcome:
    """Call a tool and turn whatever happens into an `Outcome`; only the end of the process escapes.

    Args:
        call: `Tool.call`.
        arguments: JSON arguments.
        limit: Characters of JSON the value may have.
    """
    try:
        return bounded(call(arguments), limit)
    except BaseException as error:  # SystemExit of a tool is its failure too
        return Outcome(False, error=error_text(error))


def bounded(value: Any, limit: int) -> Outcome:
    """The value as plain JSON; longer than ``limit`` it becomes the first characters of its text.

    Dates, paths, enums, dataclasses, pydantic models and numpy values are converted; anything else
    that JSON does not know is an error.
    """
    if isinstance(value, str) and len(value) > limit:  # cut before anything copies a huge string
        return Outcome(True, _encodable(value[:limit]), truncated=True)
    try:
        plain = to_jsonable_python(value, fallback=_fallback)
        text = json.dumps(plain, ensure_ascii=False)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        return Outcome(False, error=f"the tool returned a value that is not JSON ({_one_line(str(error))})")
    if len(text) > limit:
        return Outcome(True, _encodable(plain if isinstance(plain, str) else text)[:limit], truncated=True)
    return Outcome(True, json.loads(_encodable(text), parse_constant=str))  # NaN is no JSON: "NaN" is


def error_text(error: BaseException) -> str:
    """``ValueError: message`` on one line; an `AgentkitError` speaks for itself."""
    try:
        message = _one_line(str(error))
    except Exception:  # a broken __str__ must not hide that the tool failed
        message = "no message"
    if isinstance(error, AgentkitError):
        return message
    if isinstance(error, SystemExit):
        return f"SystemExit: the tool tried to end the process ({message or 'no code'})"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _fallback(value: Any) -> Any:
    if hasattr(value, "tolist") and hasattr(
        value, "dtype"
    ):  # numpy scalars and arrays, without importing numpy
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"type {type(value).__name__}")


def _one_line(text: str) -> str:
    line = " ".join(_encodable(text[: 4 * ERROR_LIMIT]).split())
    return line if len(line) <= ERROR_LIMIT else line[: ERROR_LIMIT - 1] + "…"


def _encodable(text: str) -> str:
    """Lone surrogates replaced: no file, database or socket could take them."""
    return text.encode("utf-8", "replace").decode("utf-8")
