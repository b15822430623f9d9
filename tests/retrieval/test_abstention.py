"""The signals behind "I don't know", over the starter knowledge base."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CountingEmbedder
from numpy.typing import NDArray

from agentkit.assets import ASSETS, EMBEDDER
from agentkit.build import DEFAULT_MODEL
from agentkit.errors import KnowledgeError
from agentkit.llm import routing
from agentkit.llm.reading import CHAT
from agentkit.messages import Passage
from agentkit.retrieval import abstention
from agentkit.retrieval.abstention import READ, SUREST, evidence, load_abstention
from agentkit.retrieval.embedder import MiniLMEmbedder
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.sentences import sentences
from agentkit.training.adapters import JUDGES, SHIPPED

JUDGED = sorted(path.name for path in JUDGES.iterdir())


def signals(base: KnowledgeBase, question: str) -> dict[str, float]:
    return evidence(question, base.search(question), base.embedder, base._index())


def test_every_signal_has_a_weight(starter: KnowledgeBase) -> None:
    assert set(signals(starter, "How much is delivery?")) == set(
        load_abstention(starter.embedder.name).weights
    )


@pytest.mark.parametrize(
    ("stated", "not_stated"),
    [
        ("Is your cotton organic?", "Is your cotton grown in Egypt?"),
        ("Can a lamp be gift-wrapped?", "Can a lamp be painted?"),
        ("Can I hand in repairs at the showroom?", "Can I get married at the showroom?"),
    ],
)
def test_a_near_miss_has_weaker_evidence(starter: KnowledgeBase, stated: str, not_stated: str) -> None:
    strong, weak = signals(starter, stated), signals(starter, not_stated)
    assert strong["joined"] > weak["joined"]
    assert strong["coverage"] > weak["coverage"]
    model = load_abstention(starter.embedder.name)
    assert model.score(strong) > model.score(weak)


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("Who sews the curtains?", "asks_who"),
        ("How wide is the bench?", "asks_count"),
        ("What is a pendant?", "asks_what"),
        ("how long is the wait", "asks_time"),
        ("is your shop old", "asks_about_you"),
    ],
)
def test_forms_of_question(starter: KnowledgeBase, question: str, form: str) -> None:
    found = {name for name, value in signals(starter, question).items() if name.startswith("asks_") and value}
    assert found == {form}


@pytest.mark.parametrize("question", ["?", "what is it", "x" * 20_000, "ﬁ \x00 'quoted\" *"])
def test_odd_questions_are_measured(starter: KnowledgeBase, question: str) -> None:
    assert 0 <= starter.answerable(question, starter.search(question)) <= 1


def test_a_passage_put_together_counts_with_all_its_chunks(starter: KnowledgeBase) -> None:
    index = starter._index()
    first, second = list(index.fetch(list(range(1, 200))).values())[:2]
    alone, other, both = (
        [Passage(ids[0], first.document, first.heading, first.text, 0.5, chunks=ids)]
        for ids in ((first.id,), (second.id,), (first.id, second.id))
    )
    question = second.text[:80]
    read = [evidence(question, passages, starter.embedder, index) for passages in (alone, other, both)]
    assert read[2]["nearest"] == pytest.approx(read[1]["nearest"])
    assert read[1]["nearest"] > read[0]["nearest"]
    assert read[2]["coverage"] >= read[1]["coverage"] > read[0]["coverage"]
    gone = [Passage(first.id, "x", "x", "x", 0.5, chunks=(first.id, 10**6))]
    assert evidence(question, gone, starter.embedder, index) == read[0]


class Reader:
    """Its judgement of each passage in turn."""

    name = "scripted"

    def __init__(self, *scores: float) -> None:
        self.scores, self.read = list(scores), []  # type: ignore[var-annotated]

    def supported(self, question: str, passage: Passage) -> float:
        self.read.append((question, passage))
        return self.scores[len(self.read) - 1]


def test_a_reader_adds_its_best_judgements(starter: KnowledgeBase) -> None:
    question = "How much is delivery?"
    found, reader = starter.search(question), Reader(-1.0, 2.5, 0.5, 1.5)
    read = evidence(question, found, starter.embedder, starter._index(), reader)
    assert read == {**signals(starter, question), "stated": 2.5, "stated_alone": 1.5}
    asked, passages = zip(*reader.read, strict=True)
    assert set(asked) == {question}
    assert passages[:READ] == tuple(found[:READ])
    better = found[1]
    for sentence in passages[READ:]:
        assert sentence.text in better.text
        assert sentence == replace(better, text=sentence.text)
    vectors = starter.embedder.embed([question, *(passage.text for passage in passages[READ:])])
    nearest = starter.embedder.embed(sentences(better.text)) @ vectors[0]
    assert sorted(nearest)[-READ:] == pytest.approx(sorted(vectors[1:] @ vectors[0]), abs=1e-5)


def test_a_reader_of_a_passage_that_has_left_the_index_reads_the_others(starter: KnowledgeBase) -> None:
    found = starter.search("How much is delivery?")
    left = replace(found[0], id=10**9, chunks=())
    reader = Reader(1.0, 1.0, 1.0, 1.0)
    evidence("How much is delivery?", [left, *found[1:]], starter.embedder, starter._index(), reader)
    assert [passage for _, passage in reader.read[:READ]] == found[1 : 1 + READ]


def test_a_reader_that_is_very_sure_does_not_decide_alone(starter: KnowledgeBase) -> None:
    found = starter.search("How much is delivery?")
    for score in (-900.0, 900.0):
        read = evidence("x", found, starter.embedder, starter._index(), Reader(*[score] * 4))
        assert read["stated"] == read["stated_alone"] == (SUREST if score > 0 else -SUREST)


def test_a_reader_has_weights_of_its_own(starter: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_abstention(starter.embedder.name)
    model = abstention.Abstention({**plain.weights, "stated": 1.0}, plain.bias, plain.threshold)
    monkeypatch.setattr(
        "agentkit.retrieval.knowledge.load_abstention",
        lambda name, reader="": model if reader == Reader.name else plain,
    )
    question = "Do you sell trampolines?"
    found = starter.search(question)
    low, high = (starter.answerable(question, found, Reader(*[score] * 4)) for score in (-9.0, 9.0))
    assert low < starter.answerable(question, found) < high


def test_a_reranker_that_judges_reads_instead_of_the_chat_model(
    tmp_path: Path, minilm: MiniLMEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Judge:
        def __init__(self, reader: Reader | None) -> None:
            self.reader = reader

        def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.arange(len(texts), dtype=np.float32)

    model = abstention.Abstention({"stated": 1.0}, 0.0, 0.5)
    asked: list[str] = []
    monkeypatch.setattr(
        "agentkit.retrieval.knowledge.load_abstention",
        lambda name, reader="": (asked.append(reader), replace(model, vectors=name))[1],
    )
    (tmp_path / "a.md").write_text("# Shop\n\nWe open at nine.\n", encoding="utf-8")
    for reads in (True, False):
        judge, chat = Reader(1.0, 1.0), Reader(2.0, 2.0)
        reranker = Judge(judge if reads else None)
        with KnowledgeBase(tmp_path, tmp_path / "i.db", minilm, reranker=reranker) as base:
            base.sync()
            found = base.search("When do you open?")
            probability = base.answerable("When do you open?", found, chat)
            assert base.judged == reads
        assert probability == pytest.approx(1 / (1 + math.exp(-1.0 if reads else -2.0)))
        assert (len(judge.read), len(chat.read)) == ((2, 0) if reads else (0, 2))
    assert asked == ["scripted"] * 2


def test_each_embedder_has_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = {
        name: {"vectors": f"{name}-1", "weights": {"nearest": n}, "bias": 0} for n, name in enumerate("ab")
    }
    body = json.dumps({"threshold": 0.5, "fits": fits})
    monkeypatch.setattr(abstention.resources, "files", lambda package: _Files(body))
    load_abstention.cache_clear()
    try:
        found = [load_abstention(name).weights["nearest"] for name in ("a-1", "b-1", "of nobody")]
        assert found == [0, 1, 0]
    finally:
        load_abstention.cache_clear()


def test_an_embedder_without_a_fit_is_told_once(tmp_path: Path, minilm: MiniLMEmbedder) -> None:
    (tmp_path / "a.md").write_text("# Shop\n\nWe open at nine.\n", encoding="utf-8")
    for name, told in (("", 0), ("of nobody", 1)):
        with KnowledgeBase(tmp_path, tmp_path / f"{name}.db", CountingEmbedder(minilm, name)) as base:
            base.sync()
            found = base.search("When do you open?")
            probabilities = {base.answerable("When do you open?", found) for _ in range(2)}
            assert len(probabilities) == 1
            assert sum("not fitted for the embedder of nobody" in text for text in base.notices) == told


def test_the_embedders_that_come_with_agentkit_have_fits(minilm: MiniLMEmbedder) -> None:
    file = Path(abstention.__file__).with_suffix(".json")
    fits = json.loads(file.read_text(encoding="utf-8"))["fits"]
    assert list(fits) == [name for name, asset in ASSETS.items() if asset.use == EMBEDDER]
    assert fits["minilm"]["vectors"] == minilm.name
    for fit in fits.values():
        assert set(fit["readings"]) == {CHAT, *JUDGED}
        assert all(
            set(reading["weights"]) == {*fit["weights"], "stated", "stated_alone"}
            for reading in fit["readings"].values()
        )


def test_the_weights_are_those_of_the_adapters_that_come_with_agentkit() -> None:
    """The digest of each adapter is noted by the fit."""
    folders = {CHAT: SHIPPED / DEFAULT_MODEL, **{name: JUDGES / name for name in JUDGED}}
    digests = {
        name: hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        for name, folder in folders.items()
    }
    file = Path(abstention.__file__).with_suffix(".json")
    for fit in json.loads(file.read_text(encoding="utf-8"))["fits"].values():
        assert {name: reading["adapter_sha256"] for name, reading in fit["readings"].items()} == digests
    router = json.loads(Path(routing.__file__).with_suffix(".json").read_text(encoding="utf-8"))
    assert router["adapter_sha256"] == digests[CHAT]


def test_without_weights_for_a_reader_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = '{"vectors": "some", "weights": {}, "bias": 0}'
    body = f'{{"threshold": 0.5, "fits": {{"minilm": {fit}}}}}'
    monkeypatch.setattr(abstention.resources, "files", lambda package: _Files(body))
    load_abstention.cache_clear()
    try:
        assert load_abstention("some").threshold == 0.5
        with pytest.raises(KnowledgeError, match=r"no weights for 'some judge' as a reader.*--fit"):
            load_abstention("some", "some judge")
    finally:
        load_abstention.cache_clear()


class _Files:
    """The package's folder with one file."""

    def __init__(self, body: str) -> None:
        self._body = body

    def joinpath(self, name: str) -> _Files:
        return self

    def read_text(self, encoding: str) -> str:
        return self._body
