"""Kills during updates: the next opening finds the old or the new state."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import survive


def test_a_kill_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    counted = survive(tmp_path / "index.db", 25)
    assert counted["changes"] > 10
    assert counted["during, old state"] + counted["during, new state"] >= 5


@pytest.mark.slow
def test_500_kills(tmp_path: Path) -> None:
    counted = survive(tmp_path / "index.db", 500, seed=1000)
    assert min(counted.values()) > 0
    assert len(list(tmp_path.glob("*.tmp"))) <= 1
