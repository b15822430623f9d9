"""Measured retrieval and abstention over the starter knowledge base; the targets are those of issue 2.

Retrieval is tuned on the split "tune", abstention on "tune" and "stress", without what asks the same as a report
question of this file or of rag.jsonl (``same_as``); "report" is only looked at here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.loaders import load_document

KNOWLEDGE = Path(__file__).parents[2] / "knowledge"
DATA = Path(__file__).parents[1] / "data"


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


QUESTIONS = read("knowledge_questions.jsonl")
REPORT = [question for question in QUESTIONS if question["split"] == "report"]


def first_documents(base: KnowledgeBase, question: str, count: int = 3) -> list[str]:
    """The documents of the best passages, each once, in order; search widens until there are ``count``."""
    limit, found = 4 * count, dict[str, None]()
    while len(found) < count:
        found = dict.fromkeys(passage.document for passage in base.search(question, limit=limit))
        limit *= 2
    return list(found)[:count]


def documents_hit(base: KnowledgeBase) -> list[tuple[str, bool]]:
    """Of each answerable question its split, and whether the right document is among the first three."""
    asked = [question for question in QUESTIONS if question["document"]]
    return [(q["split"], q["document"] in first_documents(base, q["question"])) for q in asked]


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


def test_answers_stand_in_their_documents() -> None:
    for question in QUESTIONS:
        if question["document"]:
            document = load_document(KNOWLEDGE / question["document"], question["document"])
            text = " ".join(document.text.split()).replace("**", "")
            assert any(answer in text for answer in question["answer_contains"]), question["id"]


def test_no_report_question_is_trained_on() -> None:
    every = [*QUESTIONS, *read("rag.jsonl"), *read("routing.jsonl")]
    report = {question["id"] for question in every if question["split"] == "report"}
    twins = [question for question in every if "same_as" in question]
    assert {question["same_as"] for question in twins} <= report
    assert {question["split"] for question in twins} == {"tune", "stress"}
    texts = [question["question"].lower() for question in QUESTIONS if "same_as" not in question]
    assert len(set(texts)) == len(texts)


def test_retrieval(starter: KnowledgeBase) -> None:
    found = documents_hit(starter)
    for hits in ([hit for split, hit in found if split == "report"], [hit for _, hit in found]):
        assert sum(hits) / len(hits) >= 0.95


def test_abstention(starter: KnowledgeBase) -> None:
    assert abstention(starter, REPORT) >= 0.90


@pytest.mark.parametrize("question", ["Who won the football world cup?", "write me a poem about black holes"])
def test_far_questions_are_declined(starter: KnowledgeBase, question: str) -> None:
    assert starter.answerable(question, starter.search(question)) < starter.answer_threshold
