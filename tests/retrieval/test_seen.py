"""Untouched files are not read again; whatever may have changed is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from agentkit.retrieval import seen
from agentkit.retrieval.seen import Seen


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(seen, "_RECENT_NS", 0)
    path = tmp_path / "a.md"
    path.write_bytes(b"text")
    time.sleep(0.01)
    return path


def noted(store: Path, file: Path) -> str:
    first = Seen(store)
    assert first.digest(file) is None
    digest = first.note(file, file.read_bytes(), seen.state(file))
    first.save()
    return digest


def test_an_untouched_file_keeps_its_digest(tmp_path: Path, file: Path) -> None:
    digest = noted(tmp_path / "seen", file)
    again = Seen(tmp_path / "seen")
    assert again.digest(file) == digest
    again.save()
    assert Seen(tmp_path / "seen").digest(file) == digest
    assert (tmp_path / "seen").stat().st_mode & 0o777 == 0o600


def test_a_change_that_keeps_size_and_modification_time_is_seen(tmp_path: Path, file: Path) -> None:
    noted(tmp_path / "seen", file)
    times = file.stat()
    file.write_bytes(b"TEXT")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Seen(tmp_path / "seen").digest(file) is None


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"text")
    first = Seen(tmp_path / "seen")
    first.note(path, b"text", seen.state(path))
    first.save()
    assert Seen(tmp_path / "seen").digest(path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "\x00", '{"%s": [1, 2]}', '{"%s": null}'])
def test_a_damaged_store_is_ignored(tmp_path: Path, file: Path, content: str) -> None:
    (tmp_path / "seen").write_text(content.replace("%s", str(file)))
    assert Seen(tmp_path / "seen").digest(file) is None


@pytest.mark.parametrize("rest", [[5], [None], ["x", 5, "y"], ["x", "y"], []])
def test_a_damaged_entry_of_the_right_state_is_ignored(
    tmp_path: Path, file: Path, rest: list[object]
) -> None:
    (tmp_path / "seen").write_text(json.dumps({str(file): [*seen.state(file), *rest]}))
    again = Seen(tmp_path / "seen")
    assert again.digest(file) is None
    assert again.failure(file) == again.failure(file, "x") == ""


def test_a_file_that_changes_while_it_is_read_is_not_trusted(tmp_path: Path, file: Path) -> None:
    first = Seen(tmp_path / "seen")
    before = seen.state(file)
    data = file.read_bytes()
    time.sleep(0.01)
    file.write_bytes(b"TEXT")  # as long as before
    first.note(file, data, before)
    first.save()
    assert Seen(tmp_path / "seen").digest(file) is None


def test_a_failure_is_remembered_for_the_same_content_and_version(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = noted(tmp_path / "seen", file)
    first = Seen(tmp_path / "seen")
    first.digest(file)
    first.fail(file, digest, "is damaged")
    first.save()
    for _ in range(2):
        again = Seen(tmp_path / "seen")
        assert again.failure(file) == again.failure(file, digest) == "is damaged"
        assert again.failure(file, "another digest") == ""
        again.save()
    monkeypatch.setattr(seen, "__version__", "another")
    assert Seen(tmp_path / "seen").failure(file) == ""
    monkeypatch.undo()
    file.write_bytes(b"other")
    assert Seen(tmp_path / "seen").failure(file) == ""


def test_what_cannot_be_written_costs_nothing(tmp_path: Path, file: Path) -> None:
    store = Seen(tmp_path / "missing" / "seen")
    store.note(file, b"text", seen.state(file))
    store.save()
    assert not (tmp_path / "missing").exists()
