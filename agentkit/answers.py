"""Answers that rest on passages: quoted from them, or in the model's own words and then checked.

A model of 135M parameters, asked to answer from a passage, says something the passage does not say more often than
not (docs/decisions/answers.md). Its answers are therefore put together from the passages' own sentences. A larger
model speaks freely, every sentence is tied to the passage that supports it, and what has no support is taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentkit.events import Notice
from agentkit.messages import Citation, Passage
from agentkit.prompts import PromptTemplate
from agentkit.retrieval.citations import check_answer
from agentkit.retrieval.documents import clean_line
from agentkit.retrieval.followup import Question
from agentkit.retrieval.protocol import Embedder, Reader, Retriever
from agentkit.retrieval.quotes import passage_quotes
from agentkit.retrieval.quoting import best_quotes

QUOTES = 2
"""Sentences of a quoted answer."""
RUN = 16
"""Backticks in a row that a passage keeps."""
_RUN = re.compile(f"`{{{RUN + 1},}}")


class Knowledge(Retriever, Protocol):
    """A retriever that also says whether its passages answer a question."""

    @property
    def embedder(self) -> Embedder: ...

    @property
    def answer_threshold(self) -> float: ...

    def corrected(self, query: str) -> str:
        """The question with its spelling put right."""
        ...

    def answerable(self, query: str, passages: Sequence[Passage], reader: Reader | None = None) -> float: ...


@dataclass(frozen=True, slots=True)
class Grounded:
    """An answer and what it rests on; no citations means that nothing supports it."""

    text: str
    citations: tuple[Citation, ...]
    notices: tuple[Notice, ...] = ()


def fenced(texts: Iterable[str]) -> tuple[str, list[str]]:
    """A line of backticks, longer than any run of them in the texts, and the texts: what is in them cannot end the
    block that they stand in. Runs of absurd length are shortened."""
    kept = [_RUN.sub("`" * RUN, text) for text in texts]
    longest = max((len(run) for text in kept for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1), kept


def passages_prompt(template: PromptTemplate, passages: Sequence[Passage], asked: Question, said: str) -> str:
    """Passages and a question as the model reads them; fine-tuning renders with this too.

    Args:
        template: ``prompts/passages.md``.
        passages: Numbered from 1 in this order.
        asked: The question within the conversation.
        said: The question as the user wrote it; the spelling of a text that stands alone is left to it.
    """
    fence, texts = fenced(passage.text for passage in passages)
    numbered = [
        {
            **passage.to_json(),
            "heading": clean_line(passage.heading),  # both may come from a file's name, which may hold lines
            "document": clean_line(passage.document),
            "number": n,
            "text": text,
        }
        for n, (passage, text) in enumerate(zip(passages, texts, strict=True), 1)
    ]
    question = said if asked.standalone == asked.text else asked.standalone
    return template.render(passages=numbered, question=question, fence=fence)


def quoted(question: Question, passages: Sequence[Passage], embedder: Embedder) -> str:
    """The passages' sentences that answer the question best: best passage first, within it as they are written."""
    quotes = best_quotes(question, passages, embedder, limit=QUOTES)
    order = list(dict.fromkeys(quote.passage.id for quote in quotes))
    quotes.sort(key=lambda quote: (order.index(quote.passage.id), quote.start))
    texts = (quote.text.rstrip(",; ") for quote in quotes)  # a list's items end in them
    return " ".join(text if text[-1:] in ".!?…。！？" else f"{text}." for text in texts)


def _told_apart(question: Question, passages: Sequence[Passage], embedder: Embedder) -> Sequence[Passage]:
    """Where passages share a sentence ("Delivery is free."), those first that answer the question best by it."""
    texts = [text for passage in passages for text in {quote.text for quote in passage_quotes(passage)}]
    if len(texts) == len(set(texts)):
        return passages
    best = [quote.passage.id for quote in best_quotes(question, passages, embedder, limit=QUOTES)]
    return sorted(passages, key=lambda passage: best.index(passage.id) if passage.id in best else len(best))


def checked(text: str, question: Question, passages: Sequence[Passage], embedder: Embedder) -> Grounded:
    """The supported part of an answer, with footnotes; the best quotes where no part of it is supported."""
    passages = _told_apart(question, passages, embedder)
    answer = check_answer(text, passages, embedder)
    notices = [
        Notice("unsupported_sentence", f"removed, no passage supports it: {sentence}")
        for sentence in answer.dropped
    ]
    if answer.refused and not answer.citations:
        return Grounded("", (), tuple(notices))  # it says that it does not know, whatever else it said
    if not answer.citations:
        answer = check_answer(quoted(question, passages, embedder), passages, embedder)
        notices.append(Notice("quoted", "the passages are quoted instead of the model's own words"))
    return Grounded(answer.text, tuple(answer.citations), tuple(notices))


def plainly(value: Any) -> str:
    """A tool's result as readable text, for tools without a reply template."""
    if isinstance(value, dict):
        return ", ".join(f"{str(key).replace('_', ' ')}: {plainly(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(plainly(item) for item in value) or "nothing"
    return "nothing" if value is None else str(value)
