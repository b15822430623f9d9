"""Which sentences of an answer are supported: by what they cite, or, where nothing is cited, by the best passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agentkit.errors import AgentkitError
from agentkit.messages import Citation, Passage
from agentkit.retrieval.citations import SUPPORT_THRESHOLD, is_courtesy, support
from agentkit.retrieval.documents import CELL, COLUMN
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.sentences import sentences
from agentkit.retrieval.words import words

Form = Literal["verbatim", "list", "table", "absent"]
"""How a quote stands in its document: as it is, as a lead-in and one line of the list below it, as a row of a table
read out with its column names (the table's lead-in may come first), or not at all."""

_CITED = re.compile(r"(.*?)((?:[ \t]*\[\d{1,3}\])+)|(.+)")
_NUMBER = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer that is no courtesy."""

    text: str
    grounded: bool
    quotes: tuple[Form, ...] = ()
    """How each quote that it cites stands in its document."""


def claims(
    text: str, citations: Sequence[Citation], text_of: Callable[[str], str], embedder: Embedder
) -> list[Claim]:
    """The claims of a reply, each held against what it cites.

    A claim is grounded if a quote that it cites stands in the cited document, and the claim is that quote, or has
    nothing but the quote's numbers and is supported by it.

    Args:
        text: A reply's text, with footnote numbers behind the sentences.
        citations: The reply's.
        text_of: A document's text by its name, from its file.
        embedder: For `agentkit.retrieval.citations.support`.
    """
    by_number = {citation.number: citation for citation in citations}
    found = []
    for sentence, numbers in cited_sentences(text):
        if is_courtesy(sentence):
            continue
        cited = [by_number[number] for number in numbers if number in by_number]
        forms = [_form(citation, text_of) for citation in cited]
        pairs = zip(cited, forms, strict=True)
        good = any(form != "absent" and _follows(sentence, citation, embedder) for citation, form in pairs)
        found.append(Claim(sentence, good, tuple(forms)))
    return found


def uncited_claims(text: str, passages: Sequence[Passage], embedder: Embedder) -> list[Claim]:
    """The claims of an answer without citations; grounded are those that one of the passages supports."""
    return [
        Claim(sentence, support(sentence, passages, embedder).score >= SUPPORT_THRESHOLD)
        for sentence in sentences(text)
        if not is_courtesy(sentence)
    ]


def cited_sentences(text: str) -> list[tuple[str, list[int]]]:
    """The sentences of a reply in order, each with the footnote numbers right behind it."""
    found: list[tuple[str, list[int]]] = []
    for line in text.splitlines():
        for match in _CITED.finditer(line):
            own = sentences(match[1] if match[2] else match[3])
            numbers = [int(number) for number in _NUMBER.findall(match[2] or "")]
            found += [(sentence, []) for sentence in own[:-1]]
            found += [(own[-1], numbers)] if own else []
    return found


def without_marks(text: str) -> str:
    """A reply without its footnote numbers, which are no facts."""
    return re.sub(r"[ \t]*\[\d{1,3}\]", "", text)


def quote_form(quote: str, text: str) -> Form:
    """How a quote stands in a document's text; white space does not count."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    plain, quote = " ".join(" ".join(lines).split()), " ".join(quote.split())
    if quote and quote in plain:
        return "verbatim"
    for colon in re.finditer(":", quote):
        lead, line = quote[: colon.end()], quote[colon.end() :].strip()
        start = plain.find(lead)
        if start >= 0 and line and line in plain[start + len(lead) :]:
            return "list"
        if start >= 0 and _is_any_row(line, lines):
            return "table"
    return "table" if _is_any_row(quote, lines) else "absent"


def _is_any_row(quote: str, lines: Sequence[str]) -> bool:
    return any(_is_row(quote, line, lines) for line in lines if CELL in line)


def _is_row(quote: str, line: str, lines: Sequence[str]) -> bool:
    """Whether the quote holds all cells of a table's row in order, and beyond them only names of its columns."""
    rest, between = quote.casefold(), []
    for n, cell in enumerate(line.casefold().split(CELL)):
        before, found, rest = rest.partition(cell)
        if not found or (n == 0 and before):
            return False
        between.append(before)
    extra = set(words(" ".join([*between, rest])))
    columns = line.count(CELL)
    return any(
        extra <= set(words(other)) for other in lines if columns in (other.count(CELL), other.count(COLUMN))
    )


def _form(citation: Citation, text_of: Callable[[str], str]) -> Form:
    try:
        return quote_form(citation.quote, text_of(citation.document))
    except AgentkitError:  # a document that is gone, or cannot be read, supports nothing
        return "absent"


def _follows(sentence: str, citation: Citation, embedder: Embedder) -> bool:
    """Whether the sentence is the quote, or is supported by the quote alone, its numbers included."""
    if _bare(sentence) == _bare(citation.quote):
        return True
    quote = Passage(0, citation.document, citation.heading, citation.quote, 1.0)
    return support(sentence, [quote], embedder).score >= SUPPORT_THRESHOLD


def _bare(text: str) -> str:
    return " ".join(text.split()).rstrip(".!?…;, ")
