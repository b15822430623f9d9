"""The bar of indexing: on a terminal only, gone at the end, and not styled by names of files."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agentkit.cli.progress import indexing, training
from agentkit.retrieval.sync import Step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """stderr is a terminal; pytest sets its own stderr between fixtures and tests."""
    stream = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        yield stream


def test_a_bar_with_count_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as stream:
        with indexing(as_json=False) as progress:
            assert progress is not None
            assert stream.getvalue() == ""
            progress(Step("orders/[red]\x1b[31mreturns.md", 3, 7))
        shown = stream.getvalue()
    assert "3/7" in shown
    assert "orders/[red]" in shown
    assert "\x1b[31mreturns" not in shown
    assert shown.rstrip("\n").endswith("\x1b[2K")  # the bar is gone


def test_nothing_is_drawn_where_nothing_is_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as stream:
        with indexing(as_json=False) as progress:
            assert progress is not None
        assert stream.getvalue() == ""


def test_programs_see_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch), indexing(as_json=True) as progress:
        assert progress is None
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with indexing(as_json=False) as progress:
        assert progress is None


def test_a_bar_of_training_tells_what_the_job_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as stream:
        with training(as_json=False) as show:
            assert show is not None
            show({"step": 3, "steps": 40, "loss": 1.25, "eta_s": 125.0})
        shown = stream.getvalue()
    assert "3/40" in shown
    assert "loss 1.250, 2 min left" in shown
    with training(as_json=True) as show:
        assert show is None
