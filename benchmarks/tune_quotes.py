"""Which sentence answers a question: the weights of `agentkit.retrieval.quoting`, measured.

python benchmarks/tune_quotes.py [--grid] [--embedder NAME]

Two sets of questions: the tuning questions over the starter's documents, right if the first two sentences hold what
the label asks for; and those of `benchmarks/data/answerable.jsonl` and `training/data/contrast` over passages of other
domains, each among the three passages nearest to its own, right if the labelled sentence is the first, or among the
first two. ``--grid`` tries other weights; the best by the sum of both shares comes first. The report splits take no
part, and neither do questions that ask the same (``same_as``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tune_abstention import labelled, trains

from agentkit.build import EMBEDDER_ASSET, load_embedder
from agentkit.evaluation.questions import has_fact
from agentkit.messages import Passage
from agentkit.retrieval.followup import alone, understood
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.quoting import WEIGHTS, Candidate, Weights, candidates

ROOT = Path(__file__).resolve().parents[1]
NEAR = 3
"""Passages of other texts beside a question's own."""
GRID = {
    "rank": (-0.06, -0.08, -0.1, -0.12),
    "number": (0.0, 0.03, 0.06, 0.12, 0.18),
    "words": (0.1, 0.15, 0.2),
}
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's sentences, and what is right."""

    candidates: list[Candidate]
    facts: tuple[tuple[str, ...], ...] = ()
    """Alternatives for each fact that the answer must hold."""
    quote: str = ""
    """The labelled sentence, where there are no facts."""

    def first(self, weights: Weights, count: int) -> list[str]:
        """The best sentences, each once."""
        found = sorted(self.candidates, key=lambda candidate: -candidate.score(weights))
        return list(dict.fromkeys(candidate.sentence.text for candidate in found))[:count]

    def right(self, weights: Weights, count: int) -> bool:
        """Whether the first ``count`` sentences answer."""
        texts = self.first(weights, count)
        if self.facts:
            return all(has_fact(" ".join(texts), alternatives) for alternatives in self.facts)
        return any(self.quote in text or text in self.quote for text in texts)


def shop(embedder: Embedder) -> list[Asked]:
    """The answerable tuning questions over the starter's documents, as the agent searches for them."""
    facts = {}
    for line in (ROOT / "tests/data/rag.jsonl").read_text(encoding="utf-8").splitlines():
        body = json.loads(line)
        facts[body["question"]] = tuple(tuple(fact.split("|")) for fact in body["facts"])
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        base = KnowledgeBase(ROOT / "knowledge", Path(temporary) / "index.db", embedder)
        base.sync()
        for question in labelled():
            if question["document"] is None or not trains(question):
                continue
            text, history = question["question"], question.get("history", ())
            asked = understood(base.corrected(text), history)
            own = facts[text] if question["file"] == "rag" else _contained(question)
            passages = base.search(text, history=history)
            found.append(Asked(candidates(asked, passages, embedder), own))
        base.close()
    return found


def _contained(question: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple((text,) for text in question["answer_contains"])


def elsewhere(embedder: Embedder) -> list[Asked]:
    """The written questions over passages of other domains."""
    sys.path.insert(0, str(ROOT / "training"))
    from passages import written_rows  # the recipe reads the same files, and leaves the evaluated domain out

    rows = written_rows()
    vectors = embedder.embed([f"{row['heading']} {row['text']}" for row in rows])
    found = []
    for number, row in enumerate(rows):
        order = np.argsort(-(vectors @ vectors[number]), kind="stable")
        others = [rows[n] for n in order.tolist() if n != number and not _versions(row, rows[n])]
        passages = [
            Passage(n, "passages.md", each["heading"], each["text"], 0.5)
            for n, each in enumerate([row, *others[:NEAR]])
        ]
        for item in row["answerable"]:
            asked = alone(item["question"])
            found.append(Asked(candidates(asked, passages, embedder), quote=item["quote"]))
    return found


def _versions(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return "pair" in one and one["pair"] == other.get("pair")


def shares(weights: Weights, own: Sequence[Asked], others: Sequence[Asked]) -> tuple[float, float, float]:
    """Right in two sentences in the shop; right in one and in two elsewhere."""
    return _share(own, weights, 2), _share(others, weights, 1), _share(others, weights, 2)


def _share(asked: Sequence[Asked], weights: Weights, count: int) -> float:
    return sum(each.right(weights, count) for each in asked) / len(asked)


def _print(rows: Iterable[tuple[Weights, tuple[float, float, float]]]) -> None:
    print(f"{'rank':>6} {'number':>7} {'words':>6} {'said':>6}   shop, two  elsewhere, one, two")
    for weights, (own, one, two) in rows:
        told = f"{weights.rank:>6} {weights.number:>7} {weights.words:>6} {weights.said:>6}"
        print(f"{told}   {own:9.3f}  {one:14.3f}, {two:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", action="store_true", help="try other weights too")
    parser.add_argument("--embedder", default=EMBEDDER_ASSET, help="name, folder or hub id")
    options = parser.parse_args()
    embedder = load_embedder(options.embedder)
    own, others = shop(embedder), elsewhere(embedder)
    print(f"{len(own)} questions over the starter's documents, {len(others)} elsewhere")
    _print(
        [
            (WEIGHTS, shares(WEIGHTS, own, others)),
            (Weights(0, 0, 0, 0), shares(Weights(0, 0, 0, 0), own, others)),
        ]
    )
    if options.grid:
        tried = [Weights(rank, number, words) for rank, number, words in itertools.product(*GRID.values())]
        found = [(weights, shares(weights, own, others)) for weights in tried]
        _print(sorted(found, key=lambda row: -(row[1][0] + row[1][2]))[:SHOWN])


if __name__ == "__main__":
    main()
