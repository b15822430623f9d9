"""The demo is what a newcomer sees first: the whole of agentkit, on the embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_every_step_does_its_job(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "agentkit", "demo", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "AGENTKIT_DATA_DIR": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"},
        check=False,
        timeout=600,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, [line for line in lines if line.get("problem")] or run.stderr[-2000:]
    assert lines[-1]["type"] == "demo_done"
    assert lines[-1]["failed"] == 0
    # Only the translation may be left out, where its Debian package is missing.
    assert lines[-1]["done"] >= 11
    assert lines[-1]["done"] + lines[-1]["skipped"] == 12
