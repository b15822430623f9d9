"""Figures as tables, for the terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


def percent(share: Mapping[str, Any] | None) -> str:
    """A `Share` as JSON, with its interval: ``62.0% (55–69)``; a dash where there is none."""
    if share is None or share["value"] is None:
        return "–"
    return f"{share['value']:.1%} ({100 * share['low']:.0f}–{100 * share['high']:.0f})"


def markdown(title: str, identity: Mapping[str, str], tables: Sequence[Table]) -> str:
    """A page of Markdown: what was run, then the tables."""
    lines = [f"# {title}", "", *(f"- {key}: {_cell(value)}" for key, value in identity.items())]
    for table in tables:
        lines += ["", _row(table.heading), _row(["---"] * len(table.heading)), *map(_row, table.rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Foreign text in one cell."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).replace("\\", "\\\\").replace("|", "\\|")
