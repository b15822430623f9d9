"""Going through cases: what is known already is not asked again, and a model that is gone ends the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from agentkit.errors import ModelError
from agentkit.evaluation.journal import Journal, Named
from agentkit.evaluation.lines import Labelled

IN_A_ROW = 5
"""Failures after which it is not the cases that are wrong."""


class Result(Named, Protocol):
    """The row of a case."""

    @property
    def failed(self) -> str:
        """The model's error, if it had one."""
        ...


C = TypeVar("C", bound=Labelled)
R = TypeVar("R", bound=Result)


def run(
    cases: Sequence[C],
    ask: Callable[[C], R],
    journal: Journal[R] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[R]:
    """A row for every case, in their order.

    Args:
        cases: With ids of their own each.
        ask: Makes the row of a case.
        journal: Where every row goes at once, and which rows there are; those that failed are asked again.
        progress: Told before each case.

    Raises:
        ModelError: `IN_A_ROW` cases failed one after the other. What came before them is kept.
        StoreError: A row cannot be written.
    """
    known = {} if journal is None else {id: row for id, row in journal.rows.items() if not row.failed}
    failed: list[R] = []
    rows: dict[str, R] = {}
    for number, case in enumerate(cases, 1):
        if case.id in known:
            rows[case.id] = known[case.id]
            continue
        progress(f"{number} of {len(cases)}: {case.id}")
        row = rows[case.id] = ask(case)
        failed = [*failed, row] if row.failed else []
        if len(failed) == IN_A_ROW:
            cause = f"{IN_A_ROW} cases in a row failed, the last of them because {row.failed}"
            raise ModelError(cause, "see to the model and run again: what was asked before is kept")
        if journal is not None:
            journal.add(row)
    return [rows[case.id] for case in cases]
