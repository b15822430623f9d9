"""Passages with questions that they answer and near misses: for training a model to read and to decline."""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "data" / "answerable.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_quotes_stand_in_their_passages() -> None:
    assert len(ROWS) >= 300
    for row in ROWS:
        assert row["heading"]
        assert all(answer["quote"] in row["text"] for answer in row["answerable"]), row["heading"]


def test_questions_are_distinct_and_both_kinds_are_there() -> None:
    questions = [answer["question"] for row in ROWS for answer in row["answerable"]]
    near_misses = [question for row in ROWS for question in row["unanswerable"]]
    assert len({*questions, *near_misses}) == len(questions) + len(near_misses)
    assert len(questions) == len(near_misses)
