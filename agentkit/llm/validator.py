"""The independent validator that every call must pass: jsonschema's, with exact multiples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from functools import cache
from typing import Any

_EXACT = Context(prec=700)
"""Digits enough for the remainder of any two floats."""


@cache
def validator_class() -> Any:
    """`jsonschema.Draft202012Validator`; but 19.99 is a multiple of 0.01, as it is written."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    return extend(Draft202012Validator, {"multipleOf": _multiple_of})  # type: ignore[no-untyped-call]


def _multiple_of(validator: Any, factor: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Exception]:
    from jsonschema import ValidationError

    if validator.is_type(value, "number") and _EXACT.remainder(Decimal(repr(value)), Decimal(repr(factor))):
        yield ValidationError(f"{value!r} is not a multiple of {factor!r}")
