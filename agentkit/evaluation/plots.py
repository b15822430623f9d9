"""The page's plots as SVG text. The only module that imports matplotlib, and only when a plot is drawn."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from agentkit.errors import MissingBackendError
from agentkit.evaluation.metrics import hit
from agentkit.evaluation.rag import RANKED
from agentkit.evaluation.rows import Row
from agentkit.evaluation.summary import curve

BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#c05621", "#2f855a", "#718096"
WIDTH, HEIGHT = 6.4, 3.2
"""Inches."""
BINS = 20


def check_matplotlib() -> None:
    """Before an hour of questions, not behind it.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingBackendError("the page's plots need matplotlib", "pip install 'matplotlib>=3.10'")


def hit_curve(rows: Sequence[Row]) -> str:
    """hit@k over k, whole search against cosine alone."""
    asked = [row for row in rows if row.is_answerable]
    ks = range(1, RANKED + 1)

    def draw(axes: Any) -> None:
        for label, colour, mark, ranking in (
            ("search", BLUE, "o", [row.ranking for row in asked]),
            ("cosine alone", ORANGE, "s", [row.dense for row in asked]),
        ):
            hits = [
                _mean([hit(r, row.documents, k) for r, row in zip(ranking, asked, strict=True)]) for k in ks
            ]
            axes.plot(ks, hits, color=colour, marker=mark, label=label)
        axes.set(xlabel="k", ylabel="hit@k", xticks=list(ks), ylim=(min(0.5, axes.get_ylim()[0]), 1.02))

    return _svg("hits", draw)


def score_histogram(rows: Sequence[Row], threshold: float) -> str:
    """The knowledge base's score of answerable and of unanswerable questions."""

    def draw(axes: Any) -> None:
        for label, colour, wanted in (("answerable", BLUE, True), ("unanswerable", ORANGE, False)):
            scores = [row.answerable for row in rows if row.is_answerable == wanted]
            axes.hist(scores, bins=BINS, range=(0, 1), color=colour, alpha=0.65, label=label)
        axes.axvline(threshold, color=GREY, linestyle="--", label=f"threshold {threshold:.2f}")
        axes.set(xlabel="probability that the passages answer the question", ylabel="questions")
        axes.yaxis.get_major_locator().set_params(integer=True)

    return _svg("scores", draw)


def abstention_curve(rows: Sequence[Row], threshold: float) -> str:
    """Precision and recall of abstaining below a threshold, over the threshold."""
    points = curve(rows)

    def draw(axes: Any) -> None:
        thresholds = [point[0] for point in points]
        axes.plot(thresholds, [point[1] for point in points], color=GREEN, label="precision")
        axes.plot(thresholds, [point[2] for point in points], color=ORANGE, label="recall")
        axes.axvline(threshold, color=GREY, linestyle="--", label=f"threshold {threshold:.2f}")
        axes.set(xlabel="abstain below this score", ylabel="share", xlim=(0, 1), ylim=(0, 1.02))

    return _svg("abstention", draw)


def kind_bars(kinds: dict[str, Any]) -> str:
    """Groundedness and right answers by kind of question, with their intervals."""
    names = list(kinds)

    def draw(axes: Any) -> None:
        for shift, key, colour, label in (
            (-0.2, "groundedness", GREEN, "grounded claims"),
            (0.2, "right", BLUE, "right"),
        ):
            for place, name in enumerate(names):
                body = kinds[name][key]
                if body["value"] is not None:
                    error = [[body["value"] - body["low"]], [body["high"] - body["value"]]]
                    bar = axes.bar(place + shift, body["value"], 0.38, color=colour, yerr=error, ecolor=GREY)
                    bar.set_label(label if label not in axes.get_legend_handles_labels()[1] else "_")
        labels = [f"{name.replace('_', '-')}\n({kinds[name]['questions']})" for name in names]
        axes.set(xticks=range(len(names)), xticklabels=labels, ylabel="share", ylim=(0, 1.05))

    return _svg("kinds", draw)


def latency_histogram(rows: Sequence[Row]) -> str:
    """Seconds of a whole turn and of the search within it, on a logarithmic axis."""
    import numpy as np

    def draw(axes: Any) -> None:
        turns, searches = [row.turn_s for row in rows], [row.search_s for row in rows]
        low = max(min(searches), 1e-4)
        bins = np.geomspace(low, max(*turns, low * 2), 30)
        axes.hist(searches, bins=bins, color=ORANGE, alpha=0.65, label="search")
        axes.hist(turns, bins=bins, color=BLUE, alpha=0.65, label="whole turn")
        axes.set(xscale="log", xlabel="seconds", ylabel="questions")
        axes.yaxis.get_major_locator().set_params(integer=True)

    return _svg("latency", draw)


def _svg(name: str, draw: Callable[[Any], None]) -> str:
    """One plot. Ids begin with ``name``: all plots stand in one page."""
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    # A salt instead of random ids, and no date: the same rows give the same page.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        draw(axes)
        # Above the plot: within it, a legend hides bars sooner or later.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
