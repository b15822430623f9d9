"""Asking: sessions, what is noted of a turn, and going on after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import ModelError
from agentkit.evaluation.journal import Journal
from agentkit.evaluation.questions import Question
from agentkit.evaluation.rag import WARM_UP, Evaluation, Watched
from agentkit.evaluation.ranking import Dense
from agentkit.evaluation.rows import row_from_json
from agentkit.evaluation.sources import Sources
from agentkit.evaluation.summary import summarize
from agentkit.events import Event, Notice, TurnDone, TurnFailed
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import Citation, Message, Reply
from agentkit.retrieval.embedder import MiniLMEmbedder
from agentkit.retrieval.knowledge import KnowledgeBase

QUOTE = "You can return an item within 30 days of delivery."
DECLINED = Notice("declined", "no evidence")


class Agents:
    """Stands in for the wiring: every session plays the events that its question is given."""

    def __init__(self) -> None:
        self.turns: dict[str, list[Event]] = {WARM_UP: [TurnDone(Reply("Hello!"))]}
        self.asked: list[tuple[str, ...]] = []
        self.open_sessions = 0

    @contextmanager
    def open(self, history: Sequence[Message], knowledge: Any) -> Iterator[Agents]:
        self.open_sessions += 1
        self._history, self._knowledge = history, knowledge
        try:
            yield self
        finally:
            self.open_sessions -= 1

    def stream(self, text: str) -> Iterator[Event]:
        assert self.open_sessions == 1
        self.asked.append((*(message.content for message in self._history), text))
        found = self._knowledge.search(f"{text} returns", 4)
        assert self._knowledge.answerable(text, found) >= 0
        yield from self.turns[text]


def question(id: str, text: str, **changes: Any) -> Question:
    values: dict[str, Any] = {
        "kind": "plain",
        "documents": ("orders/returns.md",),
        "facts": (("30 days",),),
        "history": (),
        "split": "tune",
        **changes,
    }
    return Question(1, id, text, **values)


UNANSWERABLE: dict[str, Any] = {"kind": "unanswerable", "documents": (), "facts": ()}
CITED = TurnDone(
    Reply(f"{QUOTE} [1]", citations=(Citation(1, "orders/returns.md", "Returns", None, QUOTE, 1.0),))
)


@pytest.fixture
def agents() -> Agents:
    return Agents()


@pytest.fixture
def make(base: KnowledgeBase, minilm: MiniLMEmbedder, agents: Agents) -> Callable[..., Evaluation]:
    sources = Sources.of(base)

    def make(*raw: str) -> Evaluation:
        model = ScriptedModel(raw)
        return Evaluation(base, agents.open, model, "Be kind.", sources, Dense(sources.all, minilm), minilm)

    return make


def test_a_turn_is_noted(make: Callable[..., Evaluation], agents: Agents) -> None:
    agents.turns["How long?"] = [CITED]
    history = (Message("user", "Hi"), Message("assistant", "Hello"))
    evaluation = make("You have 30 days. We were founded in 1850.")
    row = evaluation.ask(question("q", "How long?", kind="follow_up", history=history))
    assert agents.asked == [("Hi", "Hello", "How long?")]
    assert row.query == "How long? returns"
    assert row.ranking == ("orders/returns.md", "care.txt")
    assert set(row.dense) == {"orders/returns.md", "care.txt"}
    assert (row.right, row.abstained) == (True, False)
    assert [(claim.grounded, claim.quotes) for claim in row.claims] == [(True, ("verbatim",))]
    assert [citation.quote for citation in row.citations] == [QUOTE]
    assert row.model_right
    assert [claim.text for claim in row.model_claims] == ["You have 30 days.", "We were founded in 1850."]
    assert not row.model_claims[1].grounded
    assert 0 < row.search_s < row.turn_s
    assert 0 <= row.answerable <= 1
    asked = evaluation.model.seen[0]  # type: ignore[attr-defined]
    assert [message.content for message in asked] == ["Be kind.", "Hi", "Hello", "How long?"]


def test_putting_the_spelling_right_is_a_part_of_the_search(base: KnowledgeBase) -> None:
    watched = Watched(base)
    assert watched.corrected("how do I get a retrun label") == base.corrected("how do I get a retrun label")
    spelling = watched.seconds
    assert spelling > 0
    watched.search("how do I get a return label")
    assert watched.seconds > spelling


@pytest.mark.parametrize(
    ("events", "abstained"),
    [
        ([DECLINED, TurnDone(Reply("I do not know."))], True),
        ([TurnDone(Reply("I do not know."))], False),
        ([DECLINED, CITED], False),
        ([Notice("quoted", "…"), TurnDone(Reply("Perhaps."))], False),
    ],
)
def test_an_abstention_is_a_decline_without_citations(
    make: Callable[..., Evaluation], agents: Agents, events: list[Event], abstained: bool
) -> None:
    agents.turns["Why?"] = events
    row = make("Because.").ask(question("q", "Why?", **UNANSWERABLE))
    assert (row.abstained, row.right) == (abstained, abstained)
    assert not row.model_right


def test_a_footnote_number_is_no_fact(make: Callable[..., Evaluation], agents: Agents) -> None:
    agents.turns["How many?"] = [CITED]
    assert not make("1").ask(question("q", "How many?", facts=(("1",),))).right


def test_a_question_that_fails_is_wrong_and_asked_again_by_the_next_run(
    make: Callable[..., Evaluation], agents: Agents, tmp_path: Path
) -> None:
    questions = [question("q1", "How long?"), question("q2", "Until when?"), question("q3", "How many days?")]
    agents.turns = {**agents.turns, "How long?": [CITED], "How many days?": [CITED]}
    agents.turns["Until when?"] = [TurnFailed("the model died")]
    rows = make("A week.", "Ten.").run(questions, Journal(tmp_path, {}, row_from_json), lambda text: None)
    assert [row.failed for row in rows] == [
        "",
        "the model died; run again: what was asked before is kept",
        "",
    ]
    told = summarize(rows)
    assert (told["questions"], told["failed"]) == (3, 1)
    assert told["answers"]["agent"]["right"]["value"] == pytest.approx(2 / 3)
    assert told["kinds"]["plain"]["right"]["value"] == pytest.approx(2 / 3)
    assert told["answers"]["model"]["right"]["count"] == told["retrieval"]["agent"]["hit@1"]["count"] == 2
    assert told["latency_s"]["turn"]["p50"] > 0
    agents.turns["Until when?"] = [CITED]
    agents.asked.clear()
    said: list[str] = []
    rows = make("A month.").run(questions, Journal(tmp_path, {}, row_from_json), said.append)
    assert [(row.id, row.failed) for row in rows] == [("q1", ""), ("q2", ""), ("q3", "")]
    assert agents.asked == [(WARM_UP,), ("Until when?",)]
    assert said == ["warming up", "2 of 3: q2"]
    agents.asked.clear()
    assert make().run(questions, Journal(tmp_path, {}, row_from_json), said.append) == rows
    assert agents.asked == []


def test_a_run_in_which_every_question_fails_has_no_figures(
    make: Callable[..., Evaluation], agents: Agents, tmp_path: Path
) -> None:
    agents.turns["Why?"] = [TurnFailed("the model died")]
    with pytest.raises(ModelError, match="every question failed, the last of them because the model died"):
        make().run([question("q", "Why?")], Journal(tmp_path, {}, row_from_json), lambda text: None)


def test_cosine_alone_is_asked_what_the_agent_understands(
    base: KnowledgeBase, minilm: MiniLMEmbedder, agents: Agents
) -> None:
    class Recording:
        def documents(self, query: str, count: int) -> list[str]:
            asked.append(query)
            return []

    asked: list[str] = []
    agents.turns["And to Spain?"] = [CITED]
    history = (Message("user", "What is the fee of a return?"), Message("assistant", "It depends."))
    evaluation = Evaluation(
        base, agents.open, ScriptedModel(["Ten."]), "", Sources.of(base), Recording(), minilm  # type: ignore[arg-type]
    )  # fmt: skip
    evaluation.ask(question("q", "And to Spain?", kind="follow_up", history=history))
    assert asked == ["What is the fee of a return? And to Spain? returns"]


def test_what_a_knowledge_base_is_told_is_watched(base: KnowledgeBase) -> None:
    class Filtering:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def search(self, query: str, limit: int = 4, **options: Any) -> list[Any]:
            self.calls.append((query, limit, options))
            return []

    inner = Filtering()
    watched = Watched(inner)  # type: ignore[arg-type]
    watched.search("a", 2)
    watched.search("b", language="en")
    watched.again(9)
    assert inner.calls == [("a", 2, {}), ("b", 4, {"language": "en"}), ("b", 9, {"language": "en"})]
    assert watched.query == "b"
    assert Watched(base).folder == base.folder
