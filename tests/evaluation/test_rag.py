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


def test_a_failed_turn_ends_the_run_and_the_next_run_goes_on(
    make: Callable[..., Evaluation], agents: Agents, tmp_path: Path
) -> None:
    questions = [question("q1", "How long?"), question("q2", "Why?", **UNANSWERABLE)]
    agents.turns = {**agents.turns, "How long?": [CITED], "Why?": [TurnFailed("the model died")]}
    with pytest.raises(ModelError, match="the model died; run again"):
        make("A week.").run(questions, Journal(tmp_path, {}, row_from_json), lambda text: None)
    agents.turns["Why?"] = [DECLINED, TurnDone(Reply("I do not know."))]
    agents.asked.clear()
    told: list[str] = []
    rows = make("Because.").run(questions, Journal(tmp_path, {}, row_from_json), told.append)
    assert [row.id for row in rows] == ["q1", "q2"]
    assert agents.asked == [(WARM_UP,), ("Why?",)]
    assert told == ["warming up", "2 of 2: Why?"]
    agents.asked.clear()
    assert make().run(questions, Journal(tmp_path, {}, row_from_json), told.append) == rows
    assert agents.asked == []


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
