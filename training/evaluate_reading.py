"""How well a model judges whether a passage states the answer to a question.

Run: ``python training/evaluate_reading.py [--adapter A] [--limit N] [--json FILE]``

Two sets, on neither of which anything is trained: the held-out passages of ``benchmarks/data/answerable.jsonl`` with
all their questions, and the report half of ``tests/data/rag.jsonl`` with the passages that the retriever finds in
``knowledge/``; of these the best score counts. A threshold is chosen on the first set only, as the one with the most
right judgements, and used on both. Precision and recall are those of "the passage does not answer it".
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from passages import ROOT, held_out

from agentkit.assets import asset_path
from agentkit.build import load_model
from agentkit.evaluation.questions import read_questions
from agentkit.llm.local import LocalModel
from agentkit.llm.reading import supported
from agentkit.messages import Passage
from agentkit.retrieval.abstention import READ
from agentkit.retrieval.embedder import load_embedder
from agentkit.retrieval.followup import understood
from agentkit.retrieval.knowledge import KnowledgeBase


@dataclass(frozen=True, slots=True)
class Judged:
    """A question, its label and what the model makes of it."""

    question: str
    answerable: bool
    kind: str
    score: float
    """Log-odds that it is answered."""


def judged_held_out(model: LocalModel, limit: int) -> list[Judged]:
    """Questions about ``limit`` held-out passages."""
    found = []
    for text in held_out()[:limit]:
        passage = Passage(0, text.name, text.heading, text.text, 0.0)
        asked = [(questions[0], "answered") for questions, _ in text.answered]
        for question, kind in [*asked, *((question, "near") for question in text.near)]:
            found.append(Judged(question, kind == "answered", kind, supported(model, question, passage)))
    return found


def judged_retrieved(model: LocalModel, limit: int) -> list[Judged]:
    """``limit`` questions to the starter's knowledge base, each with the passages that are found for it."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        embedder = load_embedder(asset_path("minilm"))
        base = KnowledgeBase(ROOT / "knowledge", Path(temporary) / "index.db", embedder)
        base.sync()
        questions = read_questions(ROOT / "tests" / "data" / "rag.jsonl", "report")
        for item in questions[:: -(-len(questions) // limit)]:  # of a part, one from everywhere
            question = understood(item.question, item.history, base.corrected).standalone
            passages = base.search(item.question, history=item.history)
            score = max(supported(model, question, passage) for passage in passages[:READ])
            kind = "near" if item.near_miss else item.kind
            found.append(Judged(question, item.answerable, kind, score))
        base.close()
    return found


def auc(rows: Sequence[Judged]) -> float:
    """The chance that an answered question scores above one that is not: Mann and Whitney's U over all pairs."""
    yes = [row.score for row in rows if row.answerable]
    no = [row.score for row in rows if not row.answerable]
    wins = sum((a > b) + 0.5 * (a == b) for a in yes for b in no)
    return wins / (len(yes) * len(no))


def best_threshold(rows: Sequence[Judged]) -> float:
    """The score from which a question counts as answered for most to be right."""
    scores = sorted({row.score for row in rows})
    middles = [(a + b) / 2 for a, b in pairwise(scores)]
    return max(middles, key=lambda cut: sum((row.score >= cut) == row.answerable for row in rows))


def figures(rows: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """Figures of one set; those of declining are of questions that are not answered."""
    declined = [row for row in rows if row.score < threshold]
    misses = [row for row in rows if not row.answerable]
    right = sum(not row.answerable for row in declined)
    kinds = sorted({row.kind for row in rows})
    return {
        "questions": len(rows),
        "auc": round(auc(rows), 4),
        "right": round(sum((row.score >= threshold) == row.answerable for row in rows) / len(rows), 4),
        "decline_precision": round(right / len(declined), 4) if declined else None,
        "decline_recall": round(right / len(misses), 4),
        "accepted": {
            kind: round(statistics.mean(row.score >= threshold for row in rows if row.kind == kind), 4)
            for kind in kinds
        },
    }


def seconds_per_question(model: LocalModel, rounds: int = 12) -> dict[str, float]:
    """Median time of a judgement about a passage of 150 tokens: the first one about it, and further ones."""
    passage = (
        "Tickets are sold at the desk from nine in the morning until half an hour before closing time. " * 40
    )
    ids = model.tokenizer(passage)["input_ids"][:150]
    first, further = [], []
    for n in range(rounds):
        text = f"{n} {model.tokenizer.decode(ids)}"
        for question, into in (("Until when are tickets sold?", first), ("Is there a café?", further)):
            started = time.perf_counter()
            supported(model, question, Passage(0, "a.md", "Tickets", text, 0.0))
            into.append(time.perf_counter() - started)
    return {
        "first_ms": round(1000 * statistics.median(first), 1),
        "further_ms": round(1000 * statistics.median(further), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", default="none", help="name or path; none for the base model")
    parser.add_argument(
        "--limit", type=int, default=10_000, help="passages and questions of each set at most"
    )
    parser.add_argument("--json", type=Path, help="write figures and scores")
    arguments = parser.parse_args()
    model = load_model(adapter=arguments.adapter, router=None)
    assert isinstance(model, LocalModel)
    own = judged_held_out(model, arguments.limit)
    threshold = best_threshold(own)
    retrieved = judged_retrieved(model, arguments.limit)
    report = {
        "adapter": arguments.adapter,
        "threshold": round(threshold, 3),
        "held_out": figures(own, threshold),
        "retrieved": figures(retrieved, threshold),
        "cost": seconds_per_question(model),
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        rows = {"held_out": list(map(asdict, own)), "retrieved": list(map(asdict, retrieved))}
        arguments.json.write_text(json.dumps({**report, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
