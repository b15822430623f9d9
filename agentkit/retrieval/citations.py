"""Which passage supports a sentence of an answer; sentences nothing supports are dropped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.messages import Citation, Passage
from agentkit.retrieval.numbers import contradicts, numbers
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.quotes import Sentence, last_heading, passage_quotes
from agentkit.retrieval.sentences import sentences
from agentkit.retrieval.words import negations, stems, words

SUPPORT_THRESHOLD = 0.6
"""Support from which a sentence is cited; the pairs in ``tests/retrieval/support_pairs.jsonl`` measure it."""
COURTESY_WORDS = 8
REFUSAL_WORDS = 24

_REFUSAL = re.compile(
    r"\bI (?:do not|don't|can't|cannot|could not|couldn't) (?:know|say|tell|find|answer)\b|\bI(?:'m| am) not sure\b"
    r"|\b(?:passages?|documents?|texts?|information|context|sources?)\b.{0,40}\b(?:do|does|did)(?: not|n't) "
    r"(?:mention|say|state|tell|answer|contain|specify|provide|include)\b"
    r"|\b(?:(?:das|dies|dazu|es)\s)?(?:weiß|weiss) ich (?:(?:leider|es|das) ){0,2}nicht\b"
    r"|\bich (?:weiß|weiss) (?:(?:leider|es|das) ){0,2}nicht\b"
    r"|\b(?:(?:das|dies|dazu)\s)?kann ich (?:(?:leider|es|dazu|das) ){0,2}nicht (?:sagen|beantworten)\b"
    r"|\bich kann (?:(?:leider|es|dazu|das) ){0,3}nicht (?:sagen|beantworten)\b"
    r"|\bje ne (?:le )?sais pas\b|\bno (?:lo )?sé\b"
    r"|(?P<subject>\bnot (?:mentioned|stated|specified|answered|covered) (?:in|by) the (?:\w+ ){0,2}"
    r"(?:passages?|documents?|texts?|information|context|sources?|excerpts?|knowledge base)\b)"
    r"|\bno information (?:about|on|regarding|concerning|available|(?:is|was) (?:given|available|provided|found))\b"
    r"|\b(?:there(?: is|'s)|I(?: have|'ve)|I found|we have|contains?|provides?|gives?) no information\b",
    re.IGNORECASE,
)
_ENDS, _STRAY = ".!?…。！？", ",; "
_CLOSES = re.compile(rf"\s*\Z|[{_ENDS}]+[\"'”’»)\]]*(?=\s|\Z)|[。！？]+")
"""What a sentence of an answer ends in."""
_GOES_ON = re.compile(r"\b(?:but|however|although|though)\b|[,;]\s*(?:so|yet|and)\b|;", re.IGNORECASE)
_FEEL_FREE = re.compile(r"\bfeel free\b", re.IGNORECASE)
_MARKER = re.compile(r"[ \t]*\[\d{1,3}\]")
_NUMBERING = re.compile(r"\s*\(?\d{1,3}[.)]\s+")
_COURTESY = stems(
    "go help hope happy glad thank thanks sorry welcome please let know question questions anything else "
    "contact hello hi hey sure course great good answer assist assistance reach feel ask enjoy day "
    "wish kind regards further more here there pleasure apologies afraid moment check look nice"
)
_SOURCES = stems(
    "unfortunately based according given provided passages documents texts information context sources answer above "
    "however but while looked read checked searched far see leider das tut mir leid désolé malheureusement siento"
)
"""Beside courtesies all that may stand before the words of a refusal: what they rest on."""
_CLAIMS = re.compile(r"\b(?:yes|you)\b", re.IGNORECASE)
"""Stop words that claim something before a refusal."""
_POLITE = frozenset({"thank", "thanks", "hello", "hi", "hey", "please", "sorry", "welcome", "okay"})
"""Stop words that make a courtesy."""


@dataclass(frozen=True, slots=True)
class Support:
    """The best support of one sentence."""

    passage: Passage | None
    """``None`` where nothing supports it at all."""
    quote: Sentence
    """The sentence of the passage."""
    score: float
    """0 to 1; 1 where the sentence is the quote."""


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """An answer that holds only supported sentences and courtesies."""

    text: str
    """With footnote numbers: ``You have 30 days. [1]``"""
    citations: tuple[Citation, ...]
    dropped: tuple[str, ...]
    """Sentences that no passage supports, in order."""
    refused: bool = False
    """A sentence says that the passages do not tell."""


def support(sentence: str, passages: Sequence[Passage], embedder: Embedder) -> Support:
    """The passage and quote that support a sentence best.

    A sentence that is one of a passage's own has score 1. Else the score is the mean of two measures: the share
    of the sentence's content words that passage and quote have, and the cosine with the quote; a negation on one side
    only halves it. A number, amount or date that neither the quote nor its heading has makes it 0.
    """
    own = verbatim(sentence, passages)
    if own is not None:
        return own
    best, wanted = Support(None, Sentence("", 0, 0), 0.0), stems(sentence)
    for passage in passages:
        quotes = passage_quotes(passage)
        if not quotes:
            continue
        vectors = embedder.embed([sentence, *(quote.text for quote in quotes)])
        whole = wanted & stems(f"{passage.heading} {passage.text}")
        for quote, cosine in zip(quotes, (vectors[1:] @ vectors[0]).tolist(), strict=True):
            # Words scattered over a passage need not be about one another; those of the quote mostly are.
            shared = len(whole) + len(wanted & stems(f"{last_heading(passage)} {quote.text}"))
            score = (shared / (2 * len(wanted) or 1) + max(0.0, cosine)) / 2
            if _negative(sentence) != _negative(quote.text):
                score /= 2
            if score > best.score:
                best = Support(passage, quote, min(score, 1.0))
    # Held against the nearest quote, not against any that has the number: "express costs 9" is no support for
    # "standard costs 9" where "standard costs 4" stands beside it.
    if best.passage and contradicts(sentence, f"{best.passage.heading}\n{best.quote.text}"):
        return Support(None, best.quote, 0.0)
    return best


def verbatim(sentence: str, passages: Sequence[Passage]) -> Support | None:
    """The passage of which this is a sentence, word for word; none where there is none."""
    plain = _plain(sentence)
    for passage in passages:
        for quote in passage_quotes(passage):
            if plain and _plain(quote.text) == plain:
                return Support(passage, quote, 1.0)
    return None


def check_answer(
    text: str, passages: Sequence[Passage], embedder: Embedder, threshold: float = SUPPORT_THRESHOLD
) -> CheckedAnswer:
    """Number the supported sentences of an answer and drop the others.

    A courtesy ("I hope that helps!") stays as it is; footnote marks the model wrote itself are removed.
    Sentences that rest on the same quote share a number.
    """
    citations: dict[tuple[str, str], Citation] = {}
    dropped: list[str] = []
    lines: list[str] = []
    refused = False
    quotes = _whole(passages)
    marked = [quote for quote in quotes if _MARKER.search(quote)]
    for line in text.splitlines():
        kept: list[str] = []
        line = _unmarked(line, marked)
        number = _numbering(line, quotes)
        line = line.removeprefix(number)
        for sentence in _sentences(line, quotes):
            found = verbatim(sentence, passages)
            if found is None and (is_courtesy(sentence) or is_refusal(sentence)):
                refused = refused or is_refusal(sentence)
                kept.append(sentence)
                continue
            found = found or support(sentence, passages, embedder)
            if found.passage is None or found.score < threshold:
                dropped.append(sentence)
                continue
            new = _citation(len(citations) + 1, found.passage, found)
            kept.append(f"{sentence} [{citations.setdefault((new.document, new.quote), new).number}]")
        if kept or not line.strip():
            lines.append(number + " ".join(kept))
    checked = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return CheckedAnswer(checked, tuple(citations.values()), tuple(dropped), refused)


def _unmarked(line: str, marked: Sequence[str]) -> str:
    """A line without footnote marks; what the passages have in brackets themselves ("items[0]") stays.

    Args:
        line: Of an answer.
        marked: Quotes with such brackets.
    """
    for quote in marked:
        before, found, after = line.partition(quote)
        if found:
            return _unmarked(before, marked) + quote + _unmarked(after, marked)
    return _MARKER.sub("", line)


def _numbering(line: str, quotes: Sequence[str]) -> str:
    """The number of a step ("2. ") before what an answer says; empty where it is part of a quote, or there is none."""
    found = _NUMBERING.match(line)
    return "" if found is None or line.strip().startswith(tuple(quotes)) else found[0]


def _sentences(line: str, quotes: Sequence[str]) -> list[str]:
    """The sentences of a line; a quote stays one, whatever it looks like ("Is it free? No.") and however it ends.

    Args:
        line: Of an answer.
        quotes: Without the marks at their end, the longest first.
    """
    for quote in quotes:
        before, found, after = line.partition(quote)
        mark = _CLOSES.match(after)
        if found and mark and not before.rstrip()[-1:].strip(_ENDS):
            rest = after[mark.end() :]
            return [*_sentences(before, quotes), quote + mark[0], *_sentences(rest, quotes)]
    return sentences(line)


def _whole(passages: Sequence[Passage]) -> list[str]:
    """What `_sentences` keeps whole."""
    found = {quote.text.rstrip(_ENDS + _STRAY) for passage in passages for quote in passage_quotes(passage)}
    return sorted(found - {""}, key=len, reverse=True)


def _citation(number: int, passage: Passage, found: Support) -> Citation:
    quote, start, end = found.quote
    start, end = passage.start + start, passage.start + end
    return Citation(
        number, passage.document, passage.heading, passage.page_at(start), quote, found.score, start, end
    )


def is_courtesy(sentence: str) -> bool:
    """Whether a sentence claims nothing: short, without number or negation, and made of polite words only."""
    if len(words(sentence)) >= COURTESY_WORDS or any(character.isdigit() for character in sentence):
        return False
    own = stems(_FEEL_FREE.sub("feel", sentence))  # "it is free" is a claim
    polite = bool(own) or not _POLITE.isdisjoint(words(sentence))  # "yes, you can" is a claim too
    return polite and own <= _COURTESY and not _negative(sentence)


def is_refusal(sentence: str) -> bool:
    """Whether a sentence says that the passages do not tell, and no more.

    "I'm not sure, but returns are free" claims something, and so does a number.
    """
    found = _REFUSAL.search(sentence)
    if found is None or len(words(sentence)) > REFUSAL_WORDS or numbers(sentence):
        return False
    before, after = _GOES_ON.split(sentence[: found.start()]), _GOES_ON.split(sentence[found.end() :])[1:]
    if found["subject"]:
        before.pop()  # "The price" is not mentioned in the passages
    first = " ".join(before)
    if _CLAIMS.search(first) or not stems(_FEEL_FREE.sub("feel", first)) <= _COURTESY | _SOURCES:
        return False  # "Yes, you can, but I'm not sure"
    return all(is_courtesy(part) or is_refusal(part) for part in after if words(part))


def _plain(text: str) -> str:
    """Case, space and marks at the end make no other sentence."""
    return " ".join(text.lower().split()).rstrip(_ENDS + _STRAY)


def _negative(text: str) -> bool:
    return bool(negations(text))
