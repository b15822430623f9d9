"""Labelled questions: one JSON object a line, read strictly, and held against the documents they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from agentkit.errors import KnowledgeError, NotFoundError
from agentkit.evaluation.lines import check_keys, check_texts, of_split, read_lines, wrong
from agentkit.messages import Message

Kind = Literal["plain", "paraphrase", "misspelt", "follow_up", "unanswerable"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KEYS = {"id", "question", "kind", "documents", "facts", "history", "split"}
_OPTIONAL = frozenset({"near_miss", "same_as"})


@dataclass(frozen=True, slots=True)
class Question:
    """One question and what a right answer to it is."""

    line: int
    """In its file, from 1."""
    id: str
    question: str
    kind: Kind
    documents: tuple[str, ...]
    """Names of the documents that answer it; none where ``kind`` is ``unanswerable``."""
    facts: tuple[tuple[str, ...], ...]
    """Each with its alternatives, one of which a right answer holds."""
    history: tuple[Message, ...]
    """Earlier messages of the conversation, where ``kind`` is ``follow_up``."""
    split: str
    near_miss: bool = False
    """Unanswerable, yet about something that the documents deal with."""

    @property
    def answerable(self) -> bool:
        """Whether the documents answer it."""
        return self.kind != "unanswerable"


def read_questions(path: Path, split: str | None = None) -> list[Question]:
    """Read a file of questions.

    Args:
        path: JSON lines with the fields of `Question`; the alternatives of a fact are separated by ``|``. ``same_as``
            may name a question of another split that asks the same, so that nothing is fitted on this one.
        split: Keep only the questions of this split.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is wrong, an id stands twice, or no question is left; names line and cause.
    """
    return of_split(path, read_lines(path, _question), lambda question: question.split, split)


def check_labels(path: Path, questions: Sequence[Question], text_of: Callable[[str], str]) -> None:
    """Hold the labels against the documents.

    Args:
        path: Where the questions were read from, for the message.
        questions: What to check.
        text_of: The text of a document by its name.

    Raises:
        UsageError: A document does not exist, or holds none of a fact's alternatives; names line and cause.
    """
    for question in questions:
        try:
            texts = [text_of(name) for name in question.documents]
        except (NotFoundError, KnowledgeError) as error:
            raise wrong(path, question.line, error.cause) from error
        for fact in question.facts:
            if not any(has_fact(text, fact) for text in texts):
                cause = f"{' | '.join(fact)!r} stands in none of {', '.join(question.documents)}"
                raise wrong(path, question.line, cause)


def has_fact(text: str, alternatives: Sequence[str]) -> bool:
    """Whether one of the alternatives stands in the text: whole words and numbers, case and spaces aside.

    ``5 days`` does not stand in ``15 days``, nor ``4`` in ``4.95``.
    """
    plain = " ".join(text.split())
    return any(_pattern(alternative).search(plain) for alternative in alternatives)


def _pattern(alternative: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, alternative.split()))
    return re.compile(rf"(?<!\w)(?<!\d[.,:]){words}(?!\w)(?![.,:]\d)", re.IGNORECASE)


def _question(line: int, body: dict[str, Any]) -> Question:
    """One line; every problem is a `ValueError`."""
    check_keys(body, _KEYS, _OPTIONAL)
    check_texts(body, "id", "question", "split", *body.keys() & {"same_as"})
    if not isinstance(body.get("near_miss", False), bool):
        raise ValueError("near_miss must be true or false")
    if body["kind"] not in KINDS:
        raise ValueError(f"unknown kind {body['kind']!r}; the kinds are {', '.join(KINDS)}")
    question = Question(
        line,
        body["id"],
        body["question"],
        body["kind"],
        _texts(body, "documents"),
        tuple(map(_alternatives, _texts(body, "facts"))),
        _history(body["history"]),
        body["split"],
        body.get("near_miss", False),
    )
    _check_kind(question)
    return question


def _check_kind(question: Question) -> None:
    """What a kind needs and excludes."""
    if question.answerable and not (question.documents and question.facts):
        raise ValueError(f"a question of the kind {question.kind} needs documents and facts")
    if not question.answerable and (question.documents or question.facts):
        raise ValueError("an unanswerable question has no documents and no facts")
    if question.near_miss and question.answerable:
        raise ValueError("only an unanswerable question can be a near miss")
    if (question.kind == "follow_up") != bool(question.history):
        raise ValueError("a follow_up needs a history, and no other kind has one")


def _texts(body: dict[str, Any], key: str) -> tuple[str, ...]:
    value = body[key]
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(f"{key} must be a list of texts")
    return tuple(value)


def _alternatives(fact: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in fact.split("|"))
    if not all(parts):
        raise ValueError(f"an alternative of {fact!r} is empty")
    return parts


def _history(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise ValueError("history must be a list of messages")
    messages = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            raise ValueError("a message of the history has role and content")
        if item["role"] not in ("user", "assistant") or not isinstance(item["content"], str):
            raise ValueError("a message of the history is of user or assistant, and its content is text")
        messages.append(Message(item["role"], item["content"]))
    return tuple(messages)
