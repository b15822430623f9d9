"""What the rows of an evaluation depend on."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentkit.cli.measured import identity, stamp
from agentkit.project import find_project
from agentkit.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    (root / "config.json").write_text("{}")
    (root / "model.safetensors").write_bytes(b"weights")
    return root


def test_other_files_have_another_stamp(folder: Path) -> None:
    file = folder / "model.safetensors"
    before = stamp(folder)
    assert stamp(str(folder)) == before
    os.utime(file, ns=(0, 1))
    touched = stamp(folder)
    file.write_bytes(b"other weights")
    os.utime(file, ns=(0, 1))
    assert len({before, touched, stamp(folder)}) == 3
    assert stamp(file) != stamp(folder)


def test_a_run_names_the_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model = SimpleNamespace(name="mine", hf_model=None, info=lambda: {"quantization": "int4"})
    settings = Settings(model=str(folder), adapter="none")
    workspace: Any = SimpleNamespace(model=model, settings=settings, project=find_project())
    assert identity(workspace, [])["weights"] == f"int4 {stamp(folder)}"
    (folder / "model.safetensors").write_bytes(b"longer weights")
    assert identity(workspace, [])["weights"] == f"int4 {stamp(folder)}"


def test_a_model_of_the_hub_is_known_by_its_cached_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "1f2e"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1f2e")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert stamp("org/name") == stamp(snapshot)
