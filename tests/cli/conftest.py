from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Cli


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Command lines in an empty folder, with a data folder of their own."""
    return Cli(tmp_path, capsys, monkeypatch)
