"""How far indexing or training is: a bar on stderr, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentkit.cli.output import has_colours, is_terminal, one_line
from agentkit.training.job import duration

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


@contextmanager
def training(as_json: bool | None) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """What takes the lines of a job's progress; ``None`` where nobody watches or stdout is for programs."""
    if as_json or not is_terminal(sys.stderr):
        yield None
        return
    bar: Bar | None = None

    def show(line: dict[str, Any]) -> None:
        nonlocal bar
        if bar is None:
            bar = _training_bar()
            bar.start()
            bar.add_task("", total=line["steps"])
        left = f"{duration(line['eta_s'])} left" if line.get("eta_s") else ""
        parts = (f"loss {line['loss']:.3f}", left)
        text = ", ".join(part for part in parts if part)
        bar.update(bar.task_ids[0], completed=line["step"], total=line["steps"], description=text)

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    # Without markup: the name of a file must not style the terminal.
    name = TextColumn("{task.description}", markup=False)
    return _made(
        TextColumn("indexing"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn(), name
    )


def _training_bar() -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    # The job itself knows how long it will take: a watcher that has just come does not.
    told = TextColumn("{task.description}", markup=False)
    return _made(TextColumn("training"), BarColumn(bar_width=30), MofNCompleteColumn(), told)


def _made(*columns: Any) -> Bar:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, no_color=not has_colours(sys.stderr))
    return Progress(*columns, console=console, transient=True)
