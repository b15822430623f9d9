"""Fit when to say "I don't know": reads the tuning questions, writes ``agentkit/retrieval/abstention.json``.

Run: ``python benchmarks/tune_abstention.py MODEL_FOLDER`` (the embedder; default: the embedded MiniLM).
Prints the accuracy on both splits; only the tune split is fitted.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from agentkit.retrieval.abstention import Abstention, evidence
from agentkit.retrieval.embedder import load_embedder
from agentkit.retrieval.knowledge import KnowledgeBase

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "agentkit" / "retrieval" / "abstention.json"
SIGNALS = (
    "passage_cosine", "sentence_cosine", "second_sentence_cosine", "margin", "coverage", "coverage_together",
    "unknown_words",
)  # fmt: skip
STEPS, RATE, DECAY = 4000, 0.1, 1.0


def measure(folder: Path) -> list[tuple[dict[str, float], bool, str]]:
    """(signals, answerable, split) of every question."""
    lines = (ROOT / "tests" / "data" / "knowledge_questions.jsonl").read_text(encoding="utf-8").splitlines()
    embedder = load_embedder(folder)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        base = KnowledgeBase(ROOT / "knowledge", Path(temporary) / "index.db", embedder)
        base.sync()
        for question in map(json.loads, lines):
            passages = base.search(question["question"])
            signals = evidence(question["question"], passages, embedder, base._index())
            rows.append((signals, question["document"] is not None, question["split"]))
        base.close()
    return rows


def fit(signals: np.ndarray, answerable: np.ndarray) -> Abstention:
    """Logistic regression with L2 by gradient descent; signals (n, k), answerable (n,) of 0 and 1."""
    mean, scale = signals.mean(0), signals.std(0) + 1e-9
    inputs = (signals - mean) / scale
    weights, bias = np.zeros(inputs.shape[1]), 0.0
    for _ in range(STEPS):
        error = 1 / (1 + np.exp(-(inputs @ weights + bias))) - answerable
        weights -= RATE * (inputs.T @ error + DECAY * weights) / len(inputs)
        bias -= RATE * error.mean()
    raw = weights / scale
    model = Abstention(dict(zip(SIGNALS, raw.tolist(), strict=True)), float(bias - raw @ mean), 0.5)
    scores = np.array([model.score(dict(zip(SIGNALS, row, strict=True))) for row in signals])
    ordered = np.sort(scores)
    cuts = (ordered[1:] + ordered[:-1]) / 2
    right = np.array([np.mean((scores >= cut) == answerable) for cut in cuts])
    best = cuts[right == right.max()]
    return Abstention(model.weights, model.bias, float(best[len(best) // 2]))


def main() -> None:
    from agentkit.assets import asset_path

    rows = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else asset_path("minilm"))
    tune = [row for row in rows if row[2] == "tune"]
    signals = np.array([[row[0][name] for name in SIGNALS] for row in tune])
    model = fit(signals, np.array([float(row[1]) for row in tune]))
    body = {
        "written_by": "benchmarks/tune_abstention.py",
        "weights": {name: round(weight, 4) for name, weight in model.weights.items()},
        "bias": round(model.bias, 4),
        "threshold": round(model.threshold, 4),
    }
    for split in ("tune", "report"):
        own = [row for row in rows if row[2] == split]
        right = sum((model.score(row[0]) >= model.threshold) == row[1] for row in own)
        body[f"{split}_accuracy"] = round(right / len(own), 4)
        print(f"{split}: {right} of {len(own)} right")
    TARGET.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
