"""The signals behind "I don't know", over the starter knowledge base."""

from __future__ import annotations

import pytest

from agentkit.retrieval.abstention import evidence, load_abstention
from agentkit.retrieval.knowledge import KnowledgeBase


def signals(base: KnowledgeBase, question: str) -> dict[str, float]:
    return evidence(question, base.search(question), base.embedder, base._index())


def test_every_signal_has_a_weight(starter: KnowledgeBase) -> None:
    assert set(signals(starter, "How much is delivery?")) == set(load_abstention().weights)


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
    assert load_abstention().score(strong) > load_abstention().score(weak)


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
