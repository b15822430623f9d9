"""Where a command prints: data to stdout, everything else to stderr, foreign text cleaned on the way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from agentkit.ui.clean import clean, json_text, one_line

__all__ = [
    "clean",
    "confirm",
    "data",
    "json_line",
    "json_text",
    "note",
    "notices",
    "one_line",
    "status",
    "table",
]


def data(text: str, end: str = "\n") -> None:
    """A piece of the command's result."""
    sys.stdout.write(clean(text) + end)
    sys.stdout.flush()


def json_line(value: Any) -> None:
    """One object on one line of stdout."""
    line = json_text(value)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # the stream would write \xfc, which JSON does not know
        line = json_text(value, ascii_only=True)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(text: str, mark: str = "") -> None:
    """Something for the person watching; never data. ``mark`` is agentkit's own prefix, e.g. an arrow."""
    _settle()
    line = clean(f"{mark} {text}" if mark else text)
    sys.stderr.write(_dimmed(line) + "\n")
    sys.stderr.flush()


def notices(texts: Iterable[str]) -> None:
    """What should be known of a knowledge base, one a line: repairs, and files that cannot be read."""
    for text in texts:
        note(one_line(text), "!")


_status_shown = False


def status(text: str) -> None:
    """What is going on; each line replaces the one before. Shown on a terminal only, empty clears it."""
    global _status_shown
    if is_terminal(sys.stderr) and (text or _status_shown):
        line = one_line(text, max(20, _width() - 1))
        sys.stderr.write("\r\x1b[K" + (_dimmed(line) if line else ""))
        sys.stderr.flush()
        _status_shown = bool(line)


def _settle() -> None:
    if _status_shown:
        status("")


def table(rows: Iterable[Sequence[object]], heading: Sequence[str] = ()) -> None:
    """Aligned columns on stdout; the heading is shown on a terminal only, so that pipes get rows alone."""
    _settle()
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    if heading and cells and is_terminal(sys.stdout):
        cells.insert(0, list(heading))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        data("  ".join([*padded, row[-1]]).rstrip())


def confirm(question: str) -> bool:
    """Ask on stderr; anything but yes, and the end of input, is no. What was typed before is no answer."""
    _settle()
    _forget_typed()
    sys.stderr.write(f"{clean(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _forget_typed() -> None:
    """Drop the lines that wait in the terminal; nobody had read the question when they were typed."""
    try:
        import termios
    except ImportError:  # Windows
        return
    with suppress(termios.error, OSError, ValueError):  # no terminal
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def can_ask(no_input: bool | None) -> bool:
    """Whether a person can be asked."""
    return not no_input and is_terminal(sys.stdin) and is_terminal(sys.stderr)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream shows lines to a person; a dumb terminal cannot redraw and counts as a file."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def can_draw(stream: TextIO) -> bool:
    """Whether the stream's encoding has block characters."""
    try:
        "▁█".encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def has_colours(stream: TextIO) -> bool:
    """Whether to style text; NO_COLOR switches it off."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def _dimmed(line: str) -> str:
    return f"\x1b[2m{line}\x1b[0m" if has_colours(sys.stderr) else line


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
