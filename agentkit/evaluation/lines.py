"""Files of labelled examples: one JSON object a line, each problem told with its line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agentkit.errors import NotFoundError, UsageError


class Labelled(Protocol):
    """What a line becomes."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Labelled)


def read_lines(path: Path, parse: Callable[[int, dict[str, Any]], T]) -> list[T]:
    """Read a file; empty lines do not count.

    Args:
        path: JSON lines, UTF-8.
        parse: Makes something of a line's number, from 1, and its object; every problem is a `ValueError`.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is wrong, or an id stands twice; names line and cause.
    """
    found: list[T] = []
    lines: dict[str, int] = {}
    for number, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        try:
            body = json.loads(text)
            if not isinstance(body, dict):
                raise ValueError("it must be a JSON object")
            item = parse(number, body)
            if item.id in lines:
                raise ValueError(f"the id {item.id!r} stands in line {lines[item.id]} already")
        except (ValueError, RecursionError) as error:
            raise wrong(path, number, str(error) or "nested too deeply") from error
        lines[item.id] = number
        found.append(item)
    return found


def wrong(path: Path, line: int, cause: str) -> UsageError:
    """The error about a line."""
    return UsageError(f"{path}, line {line}: {cause}", "correct that line")


def check_keys(body: dict[str, Any], keys: set[str], optional: frozenset[str] = frozenset()) -> None:
    """Refuse an object that lacks a key, or has one too many.

    Raises:
        ValueError: Names the keys.
    """
    if missing := sorted(keys - set(body)):
        raise ValueError(f"{', '.join(missing)} missing")
    if unknown := sorted(set(body) - keys - optional):
        raise ValueError(f"unknown {', '.join(unknown)}; the keys are {', '.join(sorted(keys | optional))}")


def check_texts(body: dict[str, Any], *keys: str) -> None:
    """Refuse an object in which one of these keys is no text.

    Raises:
        ValueError: Names the key.
    """
    for key in keys:
        if not isinstance(body[key], str) or not body[key].strip():
            raise ValueError(f"{key} must be text")


def of_split(path: Path, items: list[T], split_of: Callable[[T], str], split: str | None) -> list[T]:
    """Those of a split, or all.

    Raises:
        UsageError: None is left; names the splits that there are.
    """
    kept = [item for item in items if split in (None, split_of(item))]
    if not kept:
        splits = ", ".join(sorted({split_of(item) for item in items}))
        cause = f"{path} has no examples" + (f" of the split {split!r}" if splits else "")
        raise UsageError(cause, f"its splits: {splits}" if splits else "write one JSON object a line into it")
    return kept


def round_robin(groups: Iterable[Sequence[T]]) -> list[T]:
    """The first of every group, then the second of every group, and so on: the first few are of many groups."""
    return [item for turn in zip_longest(*groups) for item in turn if item is not None]


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines: JSON strings may hold the line separators of Unicode.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", "name a file of labelled examples") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not text: byte {error.start} is not UTF-8", "save it as UTF-8"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", "name a file of labelled examples"
        ) from error
