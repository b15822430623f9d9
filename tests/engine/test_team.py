"""A team runs in as many threads as there are cores for it, and all of them at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agentkit.engine.team import Team, usable_cores


def test_every_thread_runs_the_function_at_the_same_time() -> None:
    barrier, seen = threading.Barrier(3), []

    def meet(number: int, word: str) -> str:
        barrier.wait(timeout=20)
        seen.append((number, word))
        return f"{word} {number}"

    crew = Team(3)
    assert [crew.run(meet, word) for word in ("a", "b")] == ["a 0", "b 0"]
    assert sorted(seen) == [(n, word) for n in range(3) for word in ("a", "b")]


@pytest.mark.parametrize(("text", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_a_containers_share_of_the_cores_is_the_limit(tmp_path: Path, text: str, cores: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text, encoding="ascii")
    assert usable_cores(quota) == (cores or usable_cores(tmp_path / "missing"))
