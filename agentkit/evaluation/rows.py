"""What is known of each question once it has been asked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from agentkit.evaluation.grounded import Claim
from agentkit.evaluation.questions import Kind, Question
from agentkit.messages import Citation


@dataclass(frozen=True, slots=True)
class Row:
    """One question, asked; empty as far as it has no answer."""

    id: str
    question: str
    kind: Kind
    near_miss: bool
    split: str
    documents: tuple[str, ...]
    """Those that answer it."""
    facts: tuple[tuple[str, ...], ...]
    query: str = ""
    """What the agent searched for."""
    ranking: tuple[str, ...] = ()
    """The first documents of the search, each once, best first."""
    dense: tuple[str, ...] = ()
    """The same by cosine alone."""
    answerable: float = 0.0
    """Probability that the passages answer the question, as the knowledge base sees it."""
    text: str = ""
    """The agent's reply."""
    claims: tuple[Claim, ...] = ()
    citations: tuple[Citation, ...] = ()
    """The reply's."""
    tools: tuple[str, ...] = ()
    """Tools that were called."""
    notices: tuple[str, ...] = ()
    """Codes."""
    abstained: bool = False
    """The reply cites nothing and its notices include ``declined``."""
    right: bool = False
    """All facts stand in the reply; of an unanswerable question: it abstained."""
    search_s: float = 0.0
    """Seconds of the search alone, the question's embedding included."""
    turn_s: float = 0.0
    """Seconds from question to stored reply."""
    model_text: str = ""
    """The answer of the same model without knowledge."""
    model_claims: tuple[Claim, ...] = ()
    model_right: bool = False
    """All facts stand in the model's answer; never of an unanswerable question."""
    failed: str = ""
    """What ended the turn; then the question counts as wrong, and from the query on all else is empty."""

    @property
    def is_answerable(self) -> bool:
        """Whether the documents answer the question."""
        return self.kind != "unanswerable"


def row_of(question: Question) -> Row:
    """The row of a question, as far as its labels go."""
    return Row(
        id=question.id,
        question=question.question,
        kind=question.kind,
        near_miss=question.near_miss,
        split=question.split,
        documents=question.documents,
        facts=question.facts,
    )


def row_from_json(body: dict[str, Any]) -> Row:
    """The inverse of `asdict`, for JSON's lists.

    Raises:
        TypeError, KeyError: It is no row.
    """
    if missing := {field.name for field in fields(Row)} - {"failed"} - body.keys():
        raise TypeError(f"a row without {', '.join(sorted(missing))}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in body.items()
    }
    values["facts"] = tuple(map(tuple, body["facts"]))
    for key in ("claims", "model_claims"):
        values[key] = tuple(Claim(c["text"], c["grounded"], tuple(c["quotes"])) for c in body[key])
    values["citations"] = tuple(Citation(**citation) for citation in body["citations"])
    return Row(**values)
