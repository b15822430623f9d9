"""Asks an agent labelled questions, each in a session of its own, and notes what it found, said and cited.

The same questions go to the dense part of the search alone and to the model without any knowledge: what the whole
is worth shows against its parts. The dense part gets a follow-up as the agent understands it, so that only the
retrieval differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agentkit.answers import Knowledge
from agentkit.errors import AgentkitError, ModelError
from agentkit.evaluation.grounded import claims, uncited_claims, without_marks
from agentkit.evaluation.journal import Journal
from agentkit.evaluation.questions import Question, has_fact
from agentkit.evaluation.ranking import Dense, first_documents
from agentkit.evaluation.rows import Row, row_of
from agentkit.evaluation.run import run
from agentkit.evaluation.sources import Sources
from agentkit.events import Event, Notice, TurnDone, TurnFailed
from agentkit.llm.protocol import ChatModel, drained
from agentkit.messages import Message, Passage, Reply
from agentkit.retrieval.followup import understood
from agentkit.retrieval.protocol import Embedder, Reader
from agentkit.retrieval.sentences import sentences

RANKED = 10
"""Documents of a ranking: as many as nDCG@10 looks at."""
BEST_PASSAGES = 3
"""Passages that the raw model's sentences are held against."""
WARM_UP = "Hello"


class Talker(Protocol):
    """An agent in one session."""

    def stream(self, text: str) -> Iterator[Event]: ...


Open = Callable[[Sequence[Message], Knowledge], AbstractContextManager[Talker]]
"""A fresh session that goes on from earlier messages, over the given knowledge; it is gone when left."""


class Watched:
    """A knowledge base that notes what one turn asks of it, and how long searching takes, spelling included."""

    def __init__(self, inner: Knowledge) -> None:
        self._inner = inner
        self.seconds = 0.0
        """Of all searches, and of putting their questions' spelling right before them."""
        self.query = ""
        """Of the last search."""
        self.probability: float | None = None
        """Of the last `answerable`."""
        self._options: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def embedder(self) -> Embedder:
        """The inner one's; so is every other name."""
        return self._inner.embedder

    @property
    def answer_threshold(self) -> float:
        return self._inner.answer_threshold

    def search(self, query: str, limit: int = 4, **options: Any) -> list[Passage]:
        """Search, and note it."""
        self.query, self._options = query, options
        start = time.perf_counter()
        passages = self._inner.search(query, limit, **options)
        self.seconds += time.perf_counter() - start
        return passages

    def corrected(self, query: str) -> str:
        """Put the spelling right; a turn does so before its search, so the time counts as the search's."""
        start = time.perf_counter()
        corrected = self._inner.corrected(query)
        self.seconds += time.perf_counter() - start
        return corrected

    def again(self, limit: int) -> list[Passage]:
        """The last search with another limit, unnoted."""
        return self._inner.search(self.query, limit, **self._options)

    def answerable(self, query: str, passages: Sequence[Passage], reader: Reader | None = None) -> float:
        """Judge, and note it."""
        self.probability = self._inner.answerable(query, passages, reader)
        return self.probability


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that is asked, and what answers are held against."""

    knowledge: Knowledge
    open: Open
    model: ChatModel
    """The agent's own, for its raw answers."""
    system: str
    """The agent's system prompt; the raw model gets it too."""
    sources: Sources
    dense: Dense | None
    """The search by cosine alone; ``None`` asks neither it nor the model without knowledge."""
    embedder: Embedder
    """Judges answers. Not the agent's own instance, whose memory of sentences would make its turns faster."""

    def run(
        self, questions: Sequence[Question], journal: Journal[Row], progress: Callable[[str], None]
    ) -> list[Row]:
        """Ask what the journal does not know yet.

        Args:
            questions: All of the run.
            journal: Where every row goes at once.
            progress: Told before each question.

        Returns:
            A row for every question, in their order; those that failed are asked again in the next run.

        Raises:
            AgentkitError: The turn to warm up failed; or as in `rows`. What was asked before is kept.
        """
        known = {id for id, row in journal.rows.items() if not row.failed}
        if any(question.id not in known for question in questions):
            progress("warming up")
            self._turn(WARM_UP, (), Watched(self.knowledge))
        return self.rows(questions, progress, journal)

    def rows(
        self,
        questions: Sequence[Question],
        progress: Callable[[str], None],
        journal: Journal[Row] | None = None,
    ) -> list[Row]:
        """A row for every question, in their order, those that fail included.

        Raises:
            ModelError: `agentkit.evaluation.run.IN_A_ROW` turns failed one after the other, or all did.
            StoreError: A row cannot be written.
        """
        rows = run(questions, self._row, journal, progress)
        if all(row.failed for row in rows):
            cause = f"every question failed, the last of them because {rows[-1].failed}"
            raise ModelError(cause, "see to the model and run again")
        return rows

    def _row(self, question: Question) -> Row:
        try:
            return self.ask(question)
        except AgentkitError as error:
            return replace(row_of(question), failed=str(error))

    def ask(self, question: Question) -> Row:
        """Ask one question.

        Raises:
            AgentkitError: The turn failed, or the model's raw answer did.
        """
        watched = Watched(self.knowledge)
        reply, notices, seconds = self._turn(question.question, question.history, watched)
        if not watched.query:
            watched.search(question.question)
        abstained = "declined" in notices and not reply.citations
        spoken = without_marks(reply.text)
        raw = self._raw_answer(question) if self.dense else ""
        passages = watched.again(BEST_PASSAGES)
        return replace(
            row_of(question),
            query=watched.query,
            ranking=tuple(first_documents(watched.again, RANKED)),
            dense=self._by_cosine(watched.query, question),
            answerable=_probability(watched, passages),
            text=reply.text,
            claims=tuple(claims(reply.text, reply.citations, self.sources.text, self.embedder)),
            citations=reply.citations,
            tools=tuple(call.name for call in reply.tool_calls),
            notices=tuple(notices),
            abstained=abstained,
            right=not abstained and _all_facts(spoken, question) if question.answerable else abstained,
            search_s=watched.seconds,
            turn_s=seconds,
            model_text=raw,
            model_claims=tuple(uncited_claims(raw, passages, self.embedder)),
            model_right=question.answerable and _all_facts(raw, question),
        )

    def _turn(
        self, text: str, history: Sequence[Message], knowledge: Knowledge
    ) -> tuple[Reply, list[str], float]:
        """Reply, codes of the notices, seconds.

        Raises:
            ModelError: The turn failed.
        """
        notices: list[str] = []
        with self.open(history, knowledge) as agent:
            start = time.perf_counter()
            for event in agent.stream(text):
                if isinstance(event, Notice):
                    notices.append(event.code)
                if isinstance(event, TurnFailed):
                    raise ModelError(event.error, "run again: what was asked before is kept")
                if isinstance(event, TurnDone):
                    return event.reply, notices, time.perf_counter() - start
        raise ModelError("the turn ended without a reply", "report this conversation")

    def _by_cosine(self, query: str, question: Question) -> tuple[str, ...]:
        """The documents that the dense part alone finds."""
        if self.dense is None:
            return ()
        asked = understood(query, question.history, self.knowledge.corrected)
        return tuple(self.dense.documents(asked.standalone, RANKED))

    def _raw_answer(self, question: Question) -> str:
        """The model's answer without knowledge or tools; a last sentence that the token limit cut is left out."""
        messages = [Message("system", self.system), *question.history, Message("user", question.question)]
        completion = drained(self.model.stream(messages, tool_choice="none"))
        said = sentences(completion.text)
        if completion.finish_reason == "length" and len(said) > 1:
            return completion.text[: completion.text.rfind(said[-1])].rstrip()
        return completion.text


def _all_facts(text: str, question: Question) -> bool:
    return all(has_fact(text, fact) for fact in question.facts)


def _probability(watched: Watched, passages: Sequence[Passage]) -> float:
    """As the turn saw it; a turn that did not ask is made up for."""
    if watched.probability is None:
        watched.answerable(watched.query, passages)
    assert watched.probability is not None
    return watched.probability
