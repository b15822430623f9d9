"""The journal of a run: nothing is lost, nothing is mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from agentkit.errors import StoreError, UsageError
from agentkit.evaluation.journal import ROWS, RUN, Journal, digest
from agentkit.evaluation.rows import Row, row_from_json

IDENTITY = {"model": "m", "data": "1"}


def test_rows_come_back(tmp_path: Path, row: Callable[..., Row]) -> None:
    first, second = row(text="a\u2028b\nc \ud800"), row(id="a2", kind="unanswerable")
    journal = Journal(tmp_path / "deep" / "out", IDENTITY, row_from_json)
    journal.add(first)
    journal.add(second)
    assert Journal(tmp_path / "deep" / "out", IDENTITY, row_from_json).rows == {"a1": first, "a2": second}


def test_a_row_cut_by_a_kill_is_dropped_and_written_again(tmp_path: Path, row: Callable[..., Row]) -> None:
    journal = Journal(tmp_path, IDENTITY, row_from_json)
    journal.add(row())
    whole = (tmp_path / ROWS).read_bytes()
    journal.add(row(id="a2"))
    path = tmp_path / ROWS
    path.write_bytes(path.read_bytes()[:-20])
    again = Journal(tmp_path, IDENTITY, row_from_json)
    assert list(again.rows) == ["a1"]
    assert path.read_bytes() == whole
    again.add(row(id="a2"))
    assert list(Journal(tmp_path, IDENTITY, row_from_json).rows) == ["a1", "a2"]


def test_a_run_of_something_else_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, IDENTITY, row_from_json)
    with pytest.raises(UsageError, match="a run under other model, data; name another --out"):
        Journal(tmp_path, {"model": "n", "data": "2"}, row_from_json)


def test_damage_is_told(tmp_path: Path, row: Callable[..., Row]) -> None:
    Journal(tmp_path, IDENTITY, row_from_json)
    for lacking in ({"right"}, set(asdict(row())) - {"id"}):
        body = {key: value for key, value in asdict(row()).items() if key not in lacking}
        (tmp_path / ROWS).write_text(json.dumps(body) + "\n")
        with pytest.raises(StoreError, match=r"rows\.jsonl, line 1 is no row"):
            Journal(tmp_path, IDENTITY, row_from_json)
    (tmp_path / RUN).write_text("{")
    with pytest.raises(StoreError, match=r"run\.json is damaged"):
        Journal(tmp_path, IDENTITY, row_from_json)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another --out"):
        Journal(tmp_path / "file", IDENTITY, row_from_json)


def test_a_digest_is_of_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest([tmp_path / "a"])
    (tmp_path / "a").write_text("2")
    assert digest([tmp_path / "a"]) != before
