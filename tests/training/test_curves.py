from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from agentkit.errors import MissingBackendError, UsageError
from agentkit.training import curves
from agentkit.training.curves import draw_curves, text_curve

LINES = [
    {"step": n, "loss": 4.0 / n, "val_loss": 1.0 if n == 4 else None, "lr": 0.1, "grad_norm": 1.0}
    for n in range(1, 5)
]


def test_a_curve_in_blocks() -> None:
    assert text_curve([4.0, 2.0, 1.0, 0.0], height=2) == ["4.000 █▁", "0.000 ██▅▁"]
    assert text_curve([1.0, 1.0], height=2) == ["1.000", "1.000 ▁▁"]
    wide = text_curve([float(n) for n in range(600)], width=60, height=6)
    assert len(wide) == 6
    assert [line.split()[0] for line in (wide[0], wide[-1])] == ["594.500", "4.500"]
    assert wide[-1].endswith("█")
    assert len(wide[-1]) == len("594.500 ") + 60


def test_a_picture(tmp_path: Path) -> None:
    draw_curves(LINES, tmp_path / "a.png")
    draw_curves([{"step": 1, "loss": 2.0}], tmp_path / "old.png")  # of a version that told less
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
    with pytest.raises(UsageError, match="no steps to draw"):
        draw_curves([], tmp_path / "b.png")
    with pytest.raises(UsageError, match=r"none/a\.png: No such file or directory; name a file in a folder"):
        draw_curves(LINES, tmp_path / "none" / "a.png")


def test_without_matplotlib_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"pip install 'matplotlib>="):
        draw_curves(LINES, tmp_path / "a.png")
