"""The reporting half of the labelled turns, with the starter project as it is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agentkit.build import open_project
from agentkit.llm.routing import EmbeddingRouter, load_weights
from agentkit.messages import ToolExample, ToolSpec
from agentkit.retrieval import kept
from agentkit.retrieval.kept import kept_vectors
from agentkit.retrieval.protocol import Embedder

ROUTING = Path(__file__).parents[1] / "data" / "routing.jsonl"
QUESTIONS = ROUTING.with_name("knowledge_questions.jsonl")


def test_the_reporting_half() -> None:
    cases = [json.loads(line) for line in ROUTING.read_text(encoding="utf-8").splitlines()]
    report = [case for case in cases if case["split"] == "report"]
    assert len(cases) >= 150
    right: Counter[str] = Counter()
    wrong = []
    with open_project() as workspace:
        knowledge, specs = workspace.ready_knowledge(), workspace.registry.specs()
        for case in report:
            passages = knowledge.search(case["text"], 4)
            route = workspace.router.route(case["text"], specs, knowledge.answerable(case["text"], passages))
            assert sum(route.scores.values()) == pytest.approx(1)
            got = route.tool or route.kind
            right[case["route"]] += got == case["route"]
            if got != case["route"]:
                wrong.append((case["id"], case["route"], got))
    counts = Counter(case["route"] for case in report)
    shares = {name: right[name] / count for name, count in counts.items()}
    print(shares, wrong)
    assert sum(right.values()) / len(report) >= 0.80
    assert min(shares.values()) >= 0.6, (shares, wrong)


def test_questions_are_answered_where_the_knowledge_base_answers_them() -> None:
    cases = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    report = [case for case in cases if case["split"] == "report"]
    right = 0
    with open_project() as workspace:
        knowledge, specs = workspace.ready_knowledge(), workspace.registry.specs()
        for case in report:
            text = case["question"]
            answerable = knowledge.answerable(text, knowledge.search(text))
            route = workspace.router.route(text, specs, answerable)
            right += (route.kind == "knowledge") == (case["document"] is not None)
    assert right / len(report) >= 0.90


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    from agentkit.build import load_embedder

    return load_embedder()


ORDER = ToolSpec(
    "order_status",
    "Look up an order.",
    {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    (
        ToolExample("Where is order 1042?", {"order_id": "1042"}),
        ToolExample("Has 77 shipped?", {"order_id": "77"}),
    ),
)


def test_a_route_shows_the_nearest_examples(embedder: Embedder) -> None:
    router = EmbeddingRouter(embedder, [("Hello!", "Hi!")], ["Who won the match?"])
    route = router.route("Where is order 9?", [ORDER], None)
    assert (route.kind, route.tool) == ("tool", "order_status")
    assert route.examples[-1].text == "Where is order 1042?"
    assert set(route.scores) == {"order_status", "chat", "decline"}


def test_small_talk_comes_with_replies(embedder: Embedder) -> None:
    router = EmbeddingRouter(embedder, [("Hello!", "Hi!"), ("Bye", ""), ("Hello there", "Hey!")])
    route = router.route("Hello!", [ORDER], 0.0)
    assert route.kind == "chat"
    assert route.small_talk[-1] == "Hi!"
    assert "" not in route.small_talk


@pytest.mark.parametrize("text", ["", "?", "x" * 100_000, "\x00 \ud800".encode("utf-8", "replace").decode()])
def test_odd_turns_are_routed_somewhere(embedder: Embedder, text: str) -> None:
    assert EmbeddingRouter(embedder).route(text, [], 0.5).kind in ("knowledge", "chat", "decline")


def test_every_feature_has_a_weight(embedder: Embedder) -> None:
    features = EmbeddingRouter(embedder).features("Where is order 9?", [ORDER], 0.5)
    kinds = {"order_status": "tool"}
    for option, values in features.items():
        assert set(values) <= set(load_weights()[kinds.get(option, option)])


def test_short_greetings_are_known_by_their_words(embedder: Embedder) -> None:
    router = EmbeddingRouter(embedder, [("Hola, guten Tag, ciao!", "Hello!")], ["Who won the match?"])
    features = router.features("hola", [], None)
    assert features["chat"]["words"] == pytest.approx(2 / 5)
    assert features["decline"]["words"] == 0.0


def test_a_text_to_work_on_does_not_count_as_request(embedder: Embedder) -> None:
    router = EmbeddingRouter(embedder)
    tool = ToolSpec(
        "translator",
        "Translate a text.",
        {},
        (ToolExample("Translate into Dutch: 'thanks'", {"text": "thanks"}),),
    )
    material = "the cup came broken, please cancel the contract"
    bare, loaded = (
        router.features(f"Translate into Dutch: '{text}'", [tool], None)["translator"]
        for text in ("", material)
    )
    assert loaded["request"] == pytest.approx(bare["request"], abs=0.01) == pytest.approx(1.0, abs=0.01)
    assert loaded["best"] < bare["best"]


def test_vectors_of_phrases_are_kept(tmp_path: Path, embedder: Embedder) -> None:
    class Counting:
        name, dimension, asked = embedder.name, embedder.dimension, 0

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.asked += len(texts)
            return embedder.embed(texts)

    phrases = [("Hello!", "Hi!"), ("Bye", "See you!")]
    scores, asked = [], []
    for _ in range(2):
        counting = Counting()
        router = EmbeddingRouter(counting, phrases, ["Who won?"], tmp_path)
        scores.append(router.route("Good morning", [ORDER], 0.1).scores)
        asked.append(counting.asked)
    assert scores[0] == scores[1]
    assert asked[1] < asked[0] - len(phrases)


def test_vectors_that_cannot_be_kept_are_made_anyway(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "file").write_text("in the way")
    vectors = kept_vectors(embedder, ["one", "two"], tmp_path / "file" / "vectors")
    assert np.array_equal(vectors, embedder.embed(["one", "two"]))


@pytest.mark.parametrize("damage", ["cut", "zeros", "one bit", "a zip", "empty"])
def test_damaged_vectors_are_made_anew(damage: str, tmp_path: Path, embedder: Embedder) -> None:
    right = kept_vectors(embedder, ["one", "two"], tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 64]) + whole[-4:]
    file.write_bytes(
        {
            "cut": whole[:-9],
            "zeros": bytes(len(whole)),
            "one bit": flipped,
            "a zip": b"PK\3\4" + whole,
            "empty": b"",
        }[damage]
    )
    assert np.array_equal(kept_vectors(embedder, ["one", "two"], tmp_path), right)
    assert file.read_bytes() == whole


def test_a_second_run_reads_the_vectors_of_many_texts(tmp_path: Path, embedder: Embedder) -> None:
    class Refusing:
        name, dimension = embedder.name, embedder.dimension

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise AssertionError(f"{texts} had been kept")

    for n in range(100):
        kept_vectors(embedder, [f"text {n}"], tmp_path)
    for n in range(100):
        kept_vectors(Refusing(), [f"text {n}"], tmp_path)


def test_the_vectors_that_were_not_read_for_longest_make_room(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "vectors"
    kept_vectors(embedder, ["text 0"], folder)
    (first,) = folder.iterdir()
    assert folder.stat().st_mode & 0o077 == folder.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(kept, "MOST_BYTES", 3 * first.stat().st_size)
    os.utime(first, (0, 0))
    (folder / "killed.part").write_bytes(b"half")
    os.utime(folder / "killed.part", (0, 0))
    (folder / "busy.part").write_bytes(b"half")
    for n in range(1, 4):
        kept_vectors(embedder, [f"text {n}"], folder)
    assert not first.exists()
    assert sorted(file.suffix for file in folder.iterdir()) == [".part", *[".vectors"] * 3]
