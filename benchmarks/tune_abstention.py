"""When to say "I don't know": measures the signals on the labelled questions, and fits the weights.

Run: ``python benchmarks/tune_abstention.py [--fit] [--adapter A | --reranker NAME] [--embedder NAME]``. ``--fit`` fits
on the tune and stress splits, prints the cross-validated accuracy, and writes ``agentkit/retrieval/abstention.json``,
which holds a fit for each embedder. Without it the shipped weights are measured on every split. With an adapter of the
embedded model that reads, or a reranker that does, all this is done for the weights that take its judgement too, and it
is told how much that judgement is worth alone; the file holds all of them, and the digests of the adapters' weights,
for another adapter needs another fit.

Questions that ask what a report question of either file asks (``same_as``) train nothing. Training holds many more
near misses than customers ask, so its questions are weighted to the mix of `MIX`, and accuracy is weighted alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentkit.build import DEFAULT_MODEL, EMBEDDER_ASSET, adapter_folder, load_embedder, load_model
from agentkit.build.knowledge import reranker_of
from agentkit.engine.peft_files import WEIGHTS
from agentkit.llm.adapters import AdapterFolder
from agentkit.llm.reading import CHAT, ModelReader
from agentkit.messages import Message
from agentkit.retrieval.abstention import Abstention, evidence, load_abstention
from agentkit.retrieval.followup import understood
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.protocol import Embedder, Reader, Reranker
from agentkit.training.adapters import judging

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "agentkit" / "retrieval" / "abstention.json"
STEPS, RATE, DECAY = 4000, 0.1, 2.0
THRESHOLD = 0.5
"""Not fitted: the best cut of a few hundred questions would fit their noise."""
FOLDS = 10
MIX = {"answerable": 58, "near": 12, "off_topic": 12}
"""Questions by kind in the first tuning set (q001 to q082): what customers are taken to ask."""


@dataclass(frozen=True, slots=True)
class Row:
    """A question as measured."""

    signals: dict[str, float]
    answerable: bool
    split: str
    kind: str
    """A key of `MIX`."""
    trains: bool


def trains(question: Mapping[str, Any]) -> bool:
    """Whether weights may be fitted on a labelled question."""
    return question["split"] in ("tune", "stress") and "same_as" not in question


def kind(question: Mapping[str, Any]) -> str:
    """The key of `MIX`."""
    if question["document"]:
        return "answerable"
    return "off_topic" if question.get("off_topic") else "near"


def labelled() -> list[dict[str, Any]]:
    """The questions of both files, in one form; the second has follow-ups, paraphrases and misspelt ones."""
    data = ROOT / "tests" / "data"
    single = (data / "knowledge_questions.jsonl").read_text(encoding="utf-8").splitlines()
    found: list[dict[str, Any]] = [{"file": "single", **json.loads(line)} for line in single]
    for line in (data / "rag.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        found.append(
            {
                "file": "rag",
                "question": question["question"],
                "document": next(iter(question["documents"]), None),
                "off_topic": question["kind"] == "unanswerable" and not question.get("near_miss"),
                "history": [Message(m["role"], m["content"]) for m in question.get("history", ())],
                "split": question["split"],
                **{key: question[key] for key in ("same_as",) if key in question},
            }
        )
    return found


def mix(kinds: list[str]) -> NDArray[np.float64]:
    """A weight for each question, 1 on average, that gives every kind its share of `MIX`."""
    counts = Counter(kinds)
    weights = np.array([MIX[kind] / counts[kind] for kind in kinds])
    return weights / weights.mean()


def measure(
    embedder: Embedder, reader: Reader | None, reranker: Reranker | None, training: bool = False
) -> list[Row]:
    """The signals of every question, or of those that are fitted on."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        base = KnowledgeBase(ROOT / "knowledge", Path(temporary) / "index.db", embedder, reranker=reranker)
        base.sync()
        for question in filter(trains, labelled()) if training else labelled():
            history = question.get("history", ())
            text = understood(base.corrected(question["question"]), history).standalone
            found = base.search(question["question"], history=history)
            signals = evidence(text, found, embedder, base._index(), reader)
            answerable = question["document"] is not None
            split = f"{question['split']} ({question['file']})"
            rows.append(Row(signals, answerable, split, kind(question), trains(question)))
        base.close()
    return rows


def fit(rows: list[Row]) -> Abstention:
    """Logistic regression with L2 by gradient descent over standardised signals."""
    names = list(rows[0].signals)
    signals = np.array([[row.signals[name] for name in names] for row in rows])
    answerable = np.array([float(row.answerable) for row in rows])
    shares = mix([row.kind for row in rows])
    mean, scale = signals.mean(0), signals.std(0) + 1e-9
    inputs = (signals - mean) / scale
    weights, bias = np.zeros(len(names)), 0.0
    for _ in range(STEPS):
        error = shares * (1 / (1 + np.exp(-(inputs @ weights + bias))) - answerable)
        weights -= RATE * (inputs.T @ error + DECAY * weights) / len(inputs)
        bias -= RATE * error.mean()
    raw = weights / scale
    return Abstention(dict(zip(names, raw.tolist(), strict=True)), float(bias - raw @ mean), THRESHOLD)


def right(model: Abstention, rows: list[Row]) -> list[bool]:
    """Whether the model accepts or declines each question rightly."""
    return [(model.score(row.signals) >= model.threshold) == row.answerable for row in rows]


def cross_validate(rows: list[Row]) -> list[bool]:
    """`right`, each question under weights fitted without its fold."""
    found = [False] * len(rows)
    for fold in range(FOLDS):
        model = fit([row for n, row in enumerate(rows) if n % FOLDS != fold])
        found[fold::FOLDS] = right(model, rows[fold::FOLDS])
    return found


def weighted(found: list[bool], rows: list[Row]) -> float:
    """Share of right questions under `MIX`."""
    return float(mix([row.kind for row in rows]) @ np.array(found) / len(rows))


def alone(rows: list[Row]) -> float:
    """How well the reader's judgement alone tells answerable questions from near misses: area under the ROC curve."""
    own, near = (
        np.array([row.signals["stated"] for row in rows if row.kind == name and row.trains])
        for name in ("answerable", "near")
    )
    return float((own[:, None] > near).mean() + (own[:, None] == near).mean() / 2)


def weights_digest(adapter: Path) -> str:
    """SHA-256 of an adapter's weights."""
    with (adapter / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fitted_on(embedder: str = EMBEDDER_ASSET, reader: str = CHAT) -> int | None:
    """Questions that the weights with a reader were fitted on; None for a fit that twins took part in."""
    fits = json.loads(TARGET.read_text("utf-8"))["fits"]
    found: int | None = fits[embedder]["readings"][reader].get("questions")
    return found


def with_fit(
    before: Mapping[str, Any],
    embedder: str,
    vectors: str,
    model: Abstention,
    validated: float,
    asked: int,
    adapter: AdapterFolder | None,
    reader: str = CHAT,
) -> dict[str, Any]:
    """What ``abstention.json`` holds after a fit; with an adapter its reader's part changes.

    Args:
        before: What it held.
        embedder: Name of the embedder.
        vectors: `Embedder.name` of it.
        model: As fitted.
        validated: Cross-validated accuracy.
        asked: Questions that it was fitted on.
        adapter: With which they were measured.
        reader: `Reader.name` of what it belongs to.
    """
    fitted = {
        "questions": asked,
        "weights": {name: round(weight, 4) for name, weight in model.weights.items()},
        "bias": round(model.bias, 4),
        "cross_validated_accuracy": round(validated, 4),
    }
    fits = dict(before.get("fits", {}))
    own = {**fits.get(embedder, {}), "vectors": vectors}
    if adapter is None:
        own |= fitted
    else:
        told = {"adapter": adapter.name, "adapter_sha256": weights_digest(adapter.path)}
        own["readings"] = {**own.get("readings", {}), reader: {**told, **fitted}}
    written = {"written_by": "benchmarks/tune_abstention.py --fit", "threshold": model.threshold}
    return {**written, "fits": {**fits, embedder: own}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the weights and write them")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--adapter", help="name or path of an adapter of the embedded model, which reads")
    given.add_argument("--reranker", default="", help="an embedded chat model for which a judge ships")
    parser.add_argument("--embedder", default=EMBEDDER_ASSET, help="name, folder or hub id")
    arguments = parser.parse_args()
    judge = judging(arguments.reranker)
    if arguments.reranker and judge is None:
        parser.error(f"{arguments.reranker!r} has not learned to judge: see agentkit/_judges")
    embedder, reranker = load_embedder(arguments.embedder), reranker_of(arguments.reranker)
    reader: Reader | None = getattr(reranker, "reader", None)
    adapter: AdapterFolder | None = judge and AdapterFolder("shipped", judge)
    if arguments.adapter:
        reader = ModelReader(load_model(adapter=arguments.adapter, router=None))
        adapter = adapter_folder(arguments.adapter, DEFAULT_MODEL)
    rows = measure(embedder, reader, reranker, training=arguments.fit)
    if reader:
        print(f"the reader alone, answerable from near misses: AUC {alone(rows):.3f}")
    if not arguments.fit:
        model = load_abstention(embedder.name, reader.name if reader else "")
        for split in sorted({row.split for row in rows}):
            found = right(model, [row for row in rows if row.split == split])
            print(f"{split}: {sum(found)} of {len(found)} right")
        print(f"all: {sum(right(model, rows))} of {len(rows)} right")
        return
    model, found = fit(rows), cross_validate(rows)
    for name in MIX:
        own = [hit for hit, row in zip(found, rows, strict=True) if row.kind == name]
        print(f"{name}: cross-validated {sum(own)} of {len(own)} right")
    validated = weighted(found, rows)
    print(f"mixed as customers ask: cross-validated {validated:.4f}")
    before, name = json.loads(TARGET.read_text("utf-8")), reader.name if reader else ""
    body = with_fit(before, arguments.embedder, embedder.name, model, validated, len(rows), adapter, name)
    TARGET.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
