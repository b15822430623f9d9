"""Files of questions: what is read, and what is said of a bad line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import NotFoundError, UsageError
from agentkit.evaluation.questions import check_labels, has_fact, read_questions
from agentkit.messages import Message

GOOD: dict[str, Any] = {
    "id": "q1",
    "question": "How long?",
    "kind": "plain",
    "documents": ["returns.md"],
    "facts": ["30 days | thirty days"],
    "history": [],
    "split": "tune",
}


def write(path: Path, *bodies: Any) -> Path:
    file = path / "questions.jsonl"
    lines = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_file_is_read(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    follow_up = {**GOOD, "id": "q2", "kind": "follow_up", "history": history, "split": "report"}
    file = write(tmp_path, GOOD, "", follow_up)
    first, second = read_questions(file)
    assert first.facts == (("30 days", "thirty days"),)
    assert (first.line, second.line) == (1, 3)
    assert second.history == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert [question.id for question in read_questions(file, "report")] == ["q2"]


def test_a_question_may_name_one_that_asks_the_same(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path, {**GOOD, "same_as": "r1"}))
    assert question.id == "q1"


def test_line_separators_of_unicode_are_no_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({**GOOD, "question": "a\u2028b"}, ensure_ascii=False), encoding="utf-8-sig")
    assert read_questions(file)[0].question == "a\u2028b"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deeply|recursion"),
        ("3", "must be a JSON object"),
        ({key: GOOD[key] for key in GOOD if key != "facts"}, "facts missing"),
        ({**GOOD, "fact": []}, "unknown fact; the keys are documents, facts"),
        ({**GOOD, "kind": "hard"}, "unknown kind 'hard'; the kinds are plain"),
        ({**GOOD, "question": " "}, "question must be text"),
        ({**GOOD, "id": 7}, "id must be text"),
        ({**GOOD, "documents": []}, "needs documents and facts"),
        ({**GOOD, "documents": "returns.md"}, "documents must be a list of texts"),
        ({**GOOD, "facts": ["a||b"]}, "an alternative of 'a||b' is empty"),
        ({**GOOD, "kind": "unanswerable"}, "has no documents and no facts"),
        ({**GOOD, "near_miss": True}, "only an unanswerable question"),
        ({**GOOD, "near_miss": "yes"}, "near_miss must be true or false"),
        ({**GOOD, "same_as": ["q1"]}, "same_as must be text"),
        ({**GOOD, "kind": "follow_up"}, "needs a history"),
        ({**GOOD, "history": [{"role": "user", "content": "Hi"}]}, "no other kind has one"),
        ({**GOOD, "history": [{"role": "system", "content": "Hi"}]}, "of user or assistant"),
        ({**GOOD, "history": ["Hi"]}, "has role and content"),
        (GOOD, "the id 'q1' stands in line 1 already"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, body: Any, told: str) -> None:
    file = write(tmp_path, GOOD, body)
    with pytest.raises(UsageError, match=rf"questions\.jsonl, line 2: .*({told.replace('||', '..')})"):
        read_questions(file)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="cannot read"):
        read_questions(tmp_path)
    with pytest.raises(UsageError, match="has no examples; write"):
        read_questions(write(tmp_path, "", " "))
    with pytest.raises(UsageError, match="no examples of the split 'dev'; its splits: tune"):
        read_questions(write(tmp_path, GOOD), "dev")
    (tmp_path / "questions.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="byte 0 is not UTF-8"):
        read_questions(tmp_path / "questions.jsonl")


@pytest.mark.parametrize(
    ("text", "fact", "stands"),
    [
        ("within 30 days of", "30 days", True),
        ("within 30\n days of", "30  DAYS", True),
        ("within 130 days", "30 days", False),
        ("costs €4.95.", "4.95", True),
        ("costs €4.95", "€4.95", True),
        ("costs €4.95", "4", False),
        ("costs €14.95", "4.95", False),
        ("costs 1,500 euros", "500", False),
        ("up to 4. Then", "4", True),
        ("freely", "free", False),
        ("It is Free!", "free", True),
        ("a (b) c", "(b)", True),
    ],
)
def test_facts(text: str, fact: str, stands: bool) -> None:
    assert has_fact(text, [fact]) is stands


def test_one_alternative_is_enough() -> None:
    assert has_fact("thirty days", ["30 days", "thirty days"])
    assert not has_fact("a month", ["30 days", "thirty days"])


def test_labels_are_held_against_the_documents(tmp_path: Path) -> None:
    def text_of(name: str) -> str:
        if name != "returns.md":
            raise NotFoundError(f"there is no document {name!r}")
        return "You have thirty days."

    path = tmp_path / "questions.jsonl"
    check_labels(path, read_questions(write(tmp_path, GOOD)), text_of)
    gone = read_questions(write(tmp_path, "", {**GOOD, "documents": ["gone.md"]}))
    with pytest.raises(UsageError, match=r"line 2: there is no document 'gone\.md'"):
        check_labels(path, gone, text_of)
    wrong = read_questions(write(tmp_path, {**GOOD, "facts": ["thirty", "14 days"]}))
    with pytest.raises(UsageError, match=r"line 1: '14 days' stands in none of returns\.md"):
        check_labels(path, wrong, text_of)
