"""What a wheel holds: everything that an installed agentkit reads."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SUITES = ("rag", "routing", "tools")


def files(folder: str, pattern: str = "*") -> set[str]:
    """Paths within the repository."""
    found = (path for path in (REPOSITORY / folder).rglob(pattern) if path.is_file())
    return {path.relative_to(REPOSITORY).as_posix() for path in found if path.parent.name != "__pycache__"}


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("build.__main__", "hatchling")),
    reason="needs build and hatchling",
)
def test_a_wheel_holds_the_code_the_starter_and_the_adapters(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(REPOSITORY),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = (
        files("agentkit", "*.py")
        | {"agentkit/llm/routing.json", "agentkit/retrieval/abstention.json"}
        | files("agentkit/_adapters")
        | files("agentkit/_judges")
        | {"agentkit/py.typed"}
    )
    for folder in ("tools", "prompts", "knowledge", "examples"):
        assert files(folder)
        expected |= {f"agentkit/_starter/{name}" for name in files(folder)}
    expected |= {f"agentkit/_starter/suites/{name}.jsonl" for name in SUITES}
    assert sorted(expected - held) == []
