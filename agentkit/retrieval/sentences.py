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
    "wed thu fri sat sun z.b bzw usw d.h ggf inkl zzgl bspw evtl std"
)
_ABBREVIATIONS = frozenset(_ABBREVIATIONS_TEXT.split())
_ALWAYS_TEXT = (
    "mr mrs ms dr prof e.g i.e cf approx ca no nr vs fig incl excl z.b d.h bzw ggf inkl zzgl bspw evtl"
)
_ALWAYS_INSIDE = frozenset(_ALWAYS_TEXT.split())
"""Abbreviations that never end a sentence; the others do before a capital letter."""
_BEFORE_A_NUMBER = "mind"
"""German for "at least", where a number follows; else the last word of "change your mind"."""
_BEFORE_A_NAME = ("Hr", "Fr")
_DAYS = ("Mo", "Di", "Mi", "Do", "Fr", "Sa", "So")
"""German days of the week, where an hour follows."""
_OF_A_DAY = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*(?: ?[-–] ?| (?:to|through|and) )|(?:[ECMPBG][DS]?T|UTC|GMT|CET|CEST)\b"
)
"""What goes on behind "9 a.m.": days of the week, a time zone."""
_ORDINAL = re.compile(
    r"\b(?:zum|(?<!I )am|der|die|das|dem|den|des|vom|im|ab|zur|beim|bis|jede[nrsm]?)\s+\d{1,2}$",
    re.IGNORECASE,
)
"""German: "nach der 2. Mahnung"."""
_DAY = re.compile(
    r"\.\s+(?:Jan(?:uar)?|Jän(?:ner)?|Feb(?:ruar)?|März?|Apr(?:il)?|Mai|Juni?|Juli?|Aug(?:ust)?|Sept?(?:ember)?|"
    r"Okt(?:ober)?|Nov(?:ember)?|Dez(?:ember)?)\b"
)
"""German: "bis 31. Dezember"."""
_ROW = 1_000
"""Characters that a table's row has at most."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, without surrounding space; a line break always ends one."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence, in order; what lies between is white space. A table's row is one."""
    lines = [match.span() for match in re.finditer(r"[^\n]+", text)]
    columns = [_columns(text[start:end]) for start, end in lines]
    found: list[tuple[int, int]] = []
    for n, (start, end) in enumerate(lines):
        # Running text has bars too; a table has several rows.
        is_row = columns[n] and columns[n] in (*columns[max(n - 1, 0) : n], *columns[n + 1 : n + 2])
        found += _stripped(text, start, end) if is_row else _line_spans(text, start, end)
    return found


def _columns(line: str) -> int:
    return line.count(CELL) + line.count(COLUMN) if len(line) <= _ROW else 0


def _line_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
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
    following = text[mark.end() : min(mark.end() + 20, end)].lstrip()
    if following[:1].islower():  # also after "?": a label such as "Forgot password?" stands inside a sentence
        return False
    if mark.group()[0] != ".":
        return True
    found = _LAST_WORD.search(text[max(begin, mark.start() - 40) : mark.start()])
    word = found.group() if found else ""
    if word.lower() in _ALWAYS_INSIDE or (len(word) == 1 and word.isupper() and word != "I"):
        return False
    if len(word) == 1 and word.islower() and re.match(r"[A-Z]\.", following):  # "z. B."
        return False
    if word.rpartition("-")[2] in _DAYS and following[:1].isdigit():  # "Mo.-Fr. 9-17 Uhr"
        return False
    if word.lower() in ("a.m", "p.m") and _OF_A_DAY.match(following):
        return False
    if word.lower() == _BEFORE_A_NUMBER and following[:1].isdigit():
        return False
    if word in _BEFORE_A_NAME and following[:1].isupper():
        return False
    if word.isdigit() and len(word) <= 2 and _is_ordinal(text, begin, mark.start()):
        return False
    if word.lower() in _ABBREVIATIONS:
        return following[:1].isupper()
    # "1. Open the app": the number of a list line is no sentence.
    return not (word.isdigit() and not text[begin : mark.start() - len(word)].strip(" -*•"))


def _is_ordinal(text: str, begin: int, dot: int) -> bool:
    """Whether the number before the full stop at ``dot`` is an ordinal, as German writes them."""
    return bool(_ORDINAL.search(text[max(begin, dot - 20) : dot]) or _DAY.match(text[dot : dot + 14]))
