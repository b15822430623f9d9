"""How far indexing is: a bar on stderr, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agentkit.cli.output import has_colours, is_terminal, one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from agentkit.retrieval.sync import Step

NAME_CHARS = 40


@contextmanager
def indexing(as_json: bool | None) -> Iterator[Callable[[Step], None] | None]:
    """What a knowledge base is to tell its progress to; ``None`` where nobody watches or stdout is for programs.

    The bar appears with the first document that is indexed, and is gone at the end.
    """
    if as_json or not is_terminal(sys.stderr):
        yield None
        return
    bar: Bar | None = None

    def show(step: Step) -> None:
        nonlocal bar
        if bar is None:
            bar = _bar()
            bar.start()
            bar.add_task("", total=step.total)
        name = one_line(step, NAME_CHARS)
        bar.update(bar.task_ids[0], completed=step.done, total=step.total, description=name)

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # Without markup: the name of a file must not style the terminal.
    name = TextColumn("{task.description}", markup=False)
    columns = (
        TextColumn("indexing"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        name,
    )
    console = Console(stderr=True, no_color=not has_colours(sys.stderr))
    return Progress(*columns, console=console, transient=True)
