"""Measured retrieval and abstention over the starter knowledge base.

The floors stand just under what was measured; raise them with every improvement. The targets are what issue 2
asks for; both are missed today.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentkit.retrieval.knowledge import KnowledgeBase

LINES = (Path(__file__).parents[1] / "data" / "knowledge_questions.jsonl").read_text(encoding="utf-8")
QUESTIONS: list[dict[str, Any]] = [json.loads(line) for line in LINES.splitlines() if line.strip()]
REPORT = [question for question in QUESTIONS if question["split"] == "report"]


def documents_hit(base: KnowledgeBase, questions: list[dict[str, Any]]) -> float:
    """Share of answerable questions with the right document among the three best documents."""
    hits = []
    for question in questions:
        if question["document"]:
            found = dict.fromkeys(passage.document for passage in base.search(question["question"], limit=12))
            hits.append(question["document"] in list(found)[:3])
    return sum(hits) / len(hits)


def abstention(base: KnowledgeBase, questions: list[dict[str, Any]]) -> float:
    """Share of questions rightly accepted or rejected."""
    right = [
        (base.answerable(q["question"], base.search(q["question"])) >= base.answer_threshold)
        == (q["document"] is not None)
        for q in questions
    ]
    return sum(right) / len(right)


def test_labels(starter: KnowledgeBase) -> None:
    known = {document.name for document in starter.list()}
    assert {question["document"] for question in QUESTIONS if question["document"]} <= known
    assert len(QUESTIONS) >= 40


def test_retrieval_floor(starter: KnowledgeBase) -> None:
    assert documents_hit(starter, QUESTIONS) >= 0.92


def test_abstention_floor(starter: KnowledgeBase) -> None:
    assert abstention(starter, REPORT) >= 0.85


@pytest.mark.xfail(reason="measured: 0.93 of all, 0.90 of the report split", strict=False)
def test_retrieval_target(starter: KnowledgeBase) -> None:
    assert documents_hit(starter, QUESTIONS) >= 0.95


@pytest.mark.xfail(reason="measured: 0.88 (36 of 41)", strict=False)
def test_abstention_target(starter: KnowledgeBase) -> None:
    assert abstention(starter, REPORT) >= 0.90


@pytest.mark.parametrize("question", ["Who won the football world cup?", "write me a poem about black holes"])
def test_far_questions_are_declined(starter: KnowledgeBase, question: str) -> None:
    assert starter.answerable(question, starter.search(question)) < starter.answer_threshold
