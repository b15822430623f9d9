"""When to say "I don't know": measures the signals on the labelled questions, and fits the weights.

Run: ``python benchmarks/tune_abstention.py [--fit] [MODEL_FOLDER]`` (the embedder; default: MiniLM).
``--fit`` fits on the tune split, prints the cross-validated accuracy, and writes
``agentkit/retrieval/abstention.json``.
Without it the shipped weights are measured on both splits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from agentkit.retrieval.abstention import Abstention, evidence, load_abstention
from agentkit.retrieval.embedder import load_embedder
from agentkit.retrieval.knowledge import KnowledgeBase

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "agentkit" / "retrieval" / "abstention.json"
STEPS, RATE, DECAY = 4000, 0.1, 1.0
THRESHOLD = 0.5
"""Not fitted: the best cut of 82 questions would fit their noise."""
FOLDS = 10

Row = tuple[dict[str, float], bool, str]
"""Signals, whether the question is answerable, its split."""


def measure(folder: Path) -> list[Row]:
    """The signals of every question."""
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


def fit(rows: list[Row]) -> Abstention:
    """Logistic regression with L2 by gradient descent over standardised signals."""
    names = list(rows[0][0])
    signals = np.array([[row[0][name] for name in names] for row in rows])
    answerable = np.array([float(row[1]) for row in rows])
    mean, scale = signals.mean(0), signals.std(0) + 1e-9
    inputs = (signals - mean) / scale
    weights, bias = np.zeros(len(names)), 0.0
    for _ in range(STEPS):
        error = 1 / (1 + np.exp(-(inputs @ weights + bias))) - answerable
        weights -= RATE * (inputs.T @ error + DECAY * weights) / len(inputs)
        bias -= RATE * error.mean()
    raw = weights / scale
    return Abstention(dict(zip(names, raw.tolist(), strict=True)), float(bias - raw @ mean), THRESHOLD)


def right(model: Abstention, rows: list[Row]) -> int:
    """How many questions the model accepts or declines rightly."""
    return sum((model.score(signals) >= model.threshold) == answerable for signals, answerable, _ in rows)


def cross_validate(rows: list[Row]) -> int:
    """How many questions are right under weights fitted without their fold."""
    total = 0
    for fold in range(FOLDS):
        total += right(fit([row for n, row in enumerate(rows) if n % FOLDS != fold]), rows[fold::FOLDS])
    return total


def main() -> None:
    from agentkit.assets import asset_path

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the weights and write them")
    parser.add_argument("folder", nargs="?", type=Path, help="the embedder")
    arguments = parser.parse_args()
    rows = measure(arguments.folder or asset_path("minilm"))
    splits = {name: [row for row in rows if row[2] == name] for name in ("tune", "report")}
    if not arguments.fit:
        model = load_abstention()
        for name, own in splits.items():
            print(f"{name}: {right(model, own)} of {len(own)} right")
        return
    tune = splits["tune"]
    model = fit(tune)
    validated = cross_validate(tune)
    print(f"tune: {right(model, tune)} of {len(tune)} right, cross-validated {validated}")
    body = {
        "written_by": "benchmarks/tune_abstention.py --fit",
        "weights": {name: round(weight, 4) for name, weight in model.weights.items()},
        "bias": round(model.bias, 4),
        "threshold": model.threshold,
        "cross_validated_accuracy": round(validated / len(tune), 4),
    }
    TARGET.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
