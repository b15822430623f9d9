"""The one sink for text that agentkit did not write itself: what passes here cannot steer a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""CSI sequences; they hold no readable text, so nothing that a model has read is hidden by dropping them."""
_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]")
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks that let text be displayed in another order than it is stored."""
_SURROGATES = "\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROLS}{_BIDI}{_SURROGATES}]")
_UNSAFE_IN_JSON = re.compile(f"[\x7f-\x9f\u2028\u2029{_BIDI}{_SURROGATES}]")


def clean(text: str) -> str:
    """Text without C0, C1, escape and bidi controls; line ends become ``\\n``, tabs stay."""
    return _UNSAFE.sub("", _LINE_ENDS.sub("\n", _COLOURS.sub("", text)))


def one_line(text: str, limit: int = 0) -> str:
    """Clean text on one line, cut to ``limit`` characters (0: not cut)."""
    line = " ".join(clean(text).split())
    return line if not limit or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def json_text(value: Any, indent: int | None = None, ascii_only: bool = False) -> str:
    """Readable JSON that is safe to print: what `clean` would strip is escaped, so nothing is lost."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, default=str)
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def call_text(name: str, arguments: dict[str, Any], limit: int = 0) -> str:
    """A tool call on one line: ``order_status(order_id="1042")``."""
    values = ", ".join(f"{key}={json_text(value)}" for key, value in arguments.items())
    return one_line(f"{name}({values})", limit)


def source_text(document: str, heading: str, page: int | None) -> str:
    """Where a passage stands: ``orders/returns.md › Returns › Deadline, page 2``."""
    parts = [document, *(part for part in heading.split(" > ") if part)]
    return one_line(" › ".join(parts) + (f", page {page}" if page is not None else ""))


def first_of(notices: Sequence[str], most: int = 5) -> list[str]:
    """What is said of a knowledge base at the start of something else: the first notices, and how many more."""
    if len(notices) <= most:
        return [*notices]
    more = f"{len(notices) - most + 1} more; `agentkit knowledge list` shows them all"
    return [*notices[: most - 1], more]
