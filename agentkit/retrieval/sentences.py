"""Text to sentences, by small rules of our own; chunks and citations share them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentkit.retrieval.documents import CELL, COLUMN

_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]+")
"""A run of marks is tried once, from its first one: a line of dots would cost quadratic time."""
_LAST_WORD = re.compile(r"[\w.&-]{1,40}$")
_ABBREVIATIONS_TEXT = (
    "mr mrs ms dr prof st no nr vs etc e.g i.e cf approx ca max min incl excl inc ltd co corp dept est "
    "fig tel ext art vol pp p a.m p.m u.s u.k jan feb mar apr jun jul aug sep sept oct nov dec mon tue "
    "wed thu fri sat sun z.b bzw usw d.h ggf inkl zzgl mind bspw evtl std hr fr"
)
_ABBREVIATIONS = frozenset(_ABBREVIATIONS_TEXT.split())
_ALWAYS_INSIDE = frozenset(
    "mr mrs ms dr prof e.g i.e cf approx ca no nr vs fig z.b d.h bzw inkl zzgl mind bspw evtl ggf hr fr".split()  # noqa: SIM905
)
"""Abbreviations that never end a sentence; the others do before a capital letter."""


_BEFORE_ORDINAL = re.compile(
    r"\b(?:zum|am|der|die|das|dem|den|des|vom|im|ab|zur|beim|bis|jede[nrsm]?)\s+\d{1,2}$", re.IGNORECASE
)
_MONTH_BEHIND = re.compile(r"\.\s+(?:jan|jän|feb|mär|apr|mai|jun|jul|aug|sep|okt|nov|dez)", re.IGNORECASE)
"""German: "nach der 2. Mahnung", "bis 31. Dezember"."""
_ROW = 1_000
"""Characters that a table's row has at most."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, without surrounding space; a line break always ends one."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence, in order; what lies between is white space."""
    return [span for line in re.finditer(r"[^\n]+", text) for span in _line_spans(text, *line.span())]


def _line_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    if end - start <= _ROW and (
        CELL in text[start:end] or COLUMN in text[start:end]
    ):  # a row stays whole, whatever its cells say
        yield from _stripped(text, start, end)
        return
    for mark in _END.finditer(text, start, end):
        if _ends_sentence(text, begin, mark, end):
            yield from _stripped(text, begin, mark.end())
            begin = mark.end()
    yield from _stripped(text, begin, end)


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end


def _ends_sentence(text: str, begin: int, mark: re.Match[str], end: int) -> bool:
    """Whether the punctuation at ``mark`` closes the sentence that starts at ``begin``."""
    following = text[mark.end() : min(mark.end() + 8, end)].lstrip()
    if following[:1].islower():  # also after "?": a label such as "Forgot password?" stands inside a sentence
        return False
    if mark.group()[0] != ".":
        return True
    found = _LAST_WORD.search(text[max(begin, mark.start() - 40) : mark.start()])
    word = found.group() if found else ""
    if word.lower() in _ALWAYS_INSIDE or (len(word) == 1 and word.isupper() and word != "I"):
        return False
    if word.isdigit() and _is_ordinal(text, begin, mark.start()):
        return False
    if word.lower() in _ABBREVIATIONS:
        return following[:1].isupper()
    # "1. Open the app": the number of a list line is no sentence.
    return not (word.isdigit() and not text[begin : mark.start() - len(word)].strip(" -*•"))


def _is_ordinal(text: str, begin: int, dot: int) -> bool:
    """Whether the number before the full stop at ``dot`` is an ordinal, as German writes them."""
    before, behind = text[max(begin, dot - 20) : dot], text[dot : dot + 12]
    return bool(_BEFORE_ORDINAL.search(before) or _MONTH_BEHIND.match(behind))
