"""JSON as a model wrote it, read strictly: what the standard does not know, or no number can hold, is no value."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

_SHOWN = 40
"""Characters of a number that a message repeats."""


class TooLarge(Exception):
    """A number is beyond every number that could be stored or sent on; the message is its beginning."""


def _real(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _too_large(text)
    return value


def _whole(text: str) -> int:
    try:
        value = int(text)  # Python itself reads no more than 4,300 digits
        float(value)
    except (OverflowError, ValueError) as error:
        raise _too_large(text) from error
    return value


def _too_large(text: str) -> TooLarge:
    return TooLarge(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_float=_real, parse_int=_whole, parse_constant=_no_constant)


def read_json(text: str) -> Any:
    """The value that a text is.

    Raises:
        TooLarge: It holds a number like ``1e999``, which Python would read as infinity.
        ValueError: It is no JSON; ``NaN`` and ``Infinity`` are none.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


def read_json_at(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at ``start`` and where it ends; raises as `read_json` does."""
    return _DECODER.raw_decode(text, start)
