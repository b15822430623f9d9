"""Loss and metrics of a run over its steps: as text for a terminal, as a picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentkit.errors import MissingBackendError, UsageError
from agentkit.training.report import score_name

CURVES = "curves.png"
WIDTH, HEIGHT = 60, 6
"""Characters of a curve in a terminal."""
_BLOCKS = " ▁▂▃▄▅▆▇█"
_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#718096"


def text_curve(values: Sequence[float], width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines of block characters, the highest value and the lowest beside them; each column is the mean of its steps.

    Args:
        values: One a step; at least one.
        width: Columns at most.
        height: Lines.
    """
    count = min(width, len(values))
    bounds = [len(values) * n // count for n in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    eighths = [1 + round((mean - low) / span * (height * 8 - 1)) for mean in means]
    labels = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    room = max(map(len, labels.values()))
    lines = []
    for row in range(height):
        below = (height - 1 - row) * 8
        bar = "".join(_BLOCKS[max(0, min(8, level - below))] for level in eighths)
        lines.append(f"{labels.get(row, ''):>{room}} {bar}".rstrip())
    return lines


def series(progress: Sequence[dict[str, Any]], per: str = "token") -> dict[str, list[float]]:
    """Loss, held-out loss and scores over the steps, each by its title; those that were measured.

    Args:
        progress: Lines of ``progress.jsonl``.
        per: What the losses are the mean over.
    """
    steps = f"steps 1 to {progress[-1]['step']}" if progress else ""
    found = {
        f"{name}, {steps}, nats per {per}": [line[key] for line in progress if line.get(key) is not None]
        for name, key in (("loss", "loss"), ("held out", "val_loss"))
    }
    for key, measured in _scores(progress).items():
        found[f"{score_name(key)}, {steps}"] = [value for _, value in measured]
    return {title: values for title, values in found.items() if values}


def _scores(progress: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each score."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in progress:
        for key, value in (line.get("scores") or {}).items():
            found.setdefault(key, []).append((line["step"], value))
    return found


def draw_curves(progress: Sequence[dict[str, Any]], path: Path) -> None:
    """A PNG: training and held-out loss, scores, learning rate and gradient norm over the steps.

    Args:
        progress: Lines of ``progress.jsonl``.
        path: The picture.

    Raises:
        MissingBackendError: matplotlib is not installed.
        UsageError: There is no step to draw, or the file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingBackendError("curves need matplotlib", "pip install 'matplotlib>=3.10'")
    if not progress:
        raise UsageError("there are no steps to draw yet", "wait for the first one")
    from matplotlib.figure import Figure

    scores = _scores(progress)
    figure = Figure(figsize=(7, 7.5 if scores else 5.5), layout="constrained")
    loss, *between, rate = figure.subplots(
        3 if scores else 2, 1, sharex=True, height_ratios=(2, 1, 1) if scores else (2, 1)
    )
    steps = [line["step"] for line in progress]
    loss.plot(steps, [line["loss"] for line in progress], color=_BLUE, linewidth=1, label="training")
    held_out = [(line["step"], line["val_loss"]) for line in progress if line.get("val_loss") is not None]
    if held_out:
        loss.plot(*zip(*held_out, strict=True), color=_ORANGE, marker="o", label="held out")
    loss.set(ylabel="loss, nats per label" if scores else "loss, nats per token")
    loss.legend(frameon=False)
    for key, measured in scores.items():
        between[0].plot(*zip(*measured, strict=True), marker="o", markersize=3, label=score_name(key))
    if scores:
        between[0].set(ylabel="held-out scores")
        between[0].legend(frameon=False)
    rate.plot(steps, [line.get("lr") for line in progress], color=_BLUE, label="learning rate")
    rate.set(xlabel="step", ylabel="learning rate")
    norm = rate.twinx()
    norm.plot(steps, [line.get("grad_norm") for line in progress], color=_GREY, linewidth=1)
    norm.set_ylabel("gradient norm", color=_GREY)
    for axes in (loss, *between, rate):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    try:
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
    except OSError as error:
        cause = f"cannot write {path}: {error.strerror or error}"
        raise UsageError(cause, "name a file in a folder that exists") from error
