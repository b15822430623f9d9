"""tests/data/rag.jsonl: enough questions of every kind, labels that hold, and nothing taken from the older set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from agentkit.evaluation.questions import Question, check_labels, read_questions
from agentkit.evaluation.sources import Sources
from agentkit.retrieval.words import stems

REPOSITORY = Path(__file__).parents[2]
KNOWLEDGE = REPOSITORY / "knowledge"
FILE = REPOSITORY / "tests" / "data" / "rag.jsonl"
QUESTIONS = read_questions(FILE)
ALIKE = 0.6
"""Jaccard similarity of stems from which two questions count as the same."""


def of(split: str) -> list[Question]:
    return [question for question in QUESTIONS if question.split == split]


def test_there_are_enough_of_each_kind() -> None:
    report, tune = (Counter(question.kind for question in of(split)) for split in ("report", "tune"))
    assert set(question.split for question in QUESTIONS) == {"report", "tune"}
    assert report.total() >= 120
    assert (report["unanswerable"], report["follow_up"]) == (30, 20)
    assert (report["paraphrase"], report["misspelt"]) == (10, 10)
    assert report["plain"] >= 50
    assert tune.total() >= 80
    for kind, count in report.items():
        assert abs(tune[kind] / tune.total() - count / report.total()) < 0.05, kind


def test_twins_stand_in_the_tuning_half() -> None:
    bodies = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    twins = [body for body in bodies if "same_as" in body]
    assert len(twins) > 10
    assert {body["split"] for body in twins} == {"tune"}


def test_half_of_the_unanswerable_are_near_misses() -> None:
    for split in ("report", "tune"):
        unanswerable = [question for question in of(split) if not question.answerable]
        assert sum(question.near_miss for question in unanswerable) * 2 == len(unanswerable)


def test_labels_hold() -> None:
    files = [path for path in KNOWLEDGE.rglob("*") if path.is_file()]
    sources = Sources({path.relative_to(KNOWLEDGE).as_posix(): path for path in files})
    check_labels(FILE, QUESTIONS, sources.text)
    for split in ("report", "tune"):
        asked = {name for question in of(split) for name in question.documents}
        assert asked == set(sources.names), split


def test_follow_ups_go_on_from_a_short_conversation() -> None:
    for question in QUESTIONS:
        if question.kind == "follow_up":
            assert 1 <= len(question.history) <= 3, question.id
            assert question.history[0].role == "user", question.id


def test_questions_are_new() -> None:
    lines = (REPOSITORY / "tests" / "data" / "knowledge_questions.jsonl").read_text(encoding="utf-8")
    known = [(body["id"], body["question"]) for body in map(json.loads, lines.splitlines())]
    own = [(question.id, question.question) for question in QUESTIONS if question.kind != "follow_up"]
    alike = []
    for place, (name, text) in enumerate(own):
        for other, other_text in known + own[:place]:
            a, b = stems(text), stems(other_text)
            if a and b and len(a & b) / len(a | b) >= ALIKE:
                alike.append((name, other))
    assert alike == []
