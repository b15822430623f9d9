"""Going through cases: what is known, what failed, and a model that is gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from agentkit.errors import ModelError
from agentkit.evaluation.journal import Journal
from agentkit.evaluation.run import IN_A_ROW, run


@dataclass(frozen=True)
class Item:
    id: str


@dataclass(frozen=True)
class Told:
    id: str
    failed: str = ""


CASES = [Item(f"c{n}") for n in range(8)]


def journal(folder: Path) -> Journal[Told]:
    return Journal(folder, {}, lambda body: Told(**body))


def test_rows_come_in_order_and_none_is_asked_twice(tmp_path: Path) -> None:
    told: list[str] = []
    run(CASES[2:4], lambda case: Told(case.id), journal(tmp_path))
    rows = run(CASES[:4], lambda case: Told(case.id), journal(tmp_path), told.append)
    assert [row.id for row in rows] == ["c0", "c1", "c2", "c3"]
    assert told == ["1 of 4: c0", "2 of 4: c1"]


def test_a_case_that_failed_is_kept_and_asked_again(tmp_path: Path) -> None:
    rows = run(CASES[:3], lambda case: Told(case.id, "no" if case.id == "c1" else ""), journal(tmp_path))
    assert [row.failed for row in rows] == ["", "no", ""]
    told: list[str] = []
    rows = run(CASES[:3], lambda case: Told(case.id), journal(tmp_path), told.append)
    assert [row.failed for row in rows] == ["", "", ""]
    assert told == ["2 of 3: c1"]
    assert not journal(tmp_path).rows["c1"].failed


def test_a_model_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(case: Item) -> Told:
        asked.append(case.id)
        return Told(case.id, "" if case.id == "c0" else "the server is gone")

    with pytest.raises(ModelError, match=f"{IN_A_ROW} cases in a row failed.*the server is gone"):
        run(CASES, ask, journal(tmp_path))
    assert asked == [f"c{n}" for n in range(IN_A_ROW + 1)]
    assert not journal(tmp_path).rows["c0"].failed
