"""What stands in a text that an argument could be: numbers, dates, times, addresses, names, quotes, phrases.

Numbers and dates are recognised in English. Every span keeps its place, so that the words around it can tell what it
is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from agentkit.llm.english import SMALL, WORD, words
from agentkit.llm.grounding import QUOTED
from agentkit.llm.numbers import numbers
from agentkit.llm.places import CITIES, REGIONS, WITHIN
from agentkit.llm.units import unit

Kind = Literal[
    "number", "date", "time", "email", "path", "quoted", "code", "formula", "name", "phrase", "list"
]

LIMIT = 4_000
"""Characters of a turn that are searched."""
MOST = 200
"""Spans of one text."""

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
           "november", "december")  # fmt: skip
MONTH = "|".join(f"{month}|{month[:3]}" for month in _MONTHS) + "|sept"
"""Names of months, whole and short."""
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DATES = (
    (re.compile(r"(?<![\w-])(\d{4})-(\d{1,2})-(\d{1,2})(?![^\WT]|-)"), "ymd"),
    (re.compile(r"(?<![\w/])(\d{4})/(\d{1,2})/(\d{1,2})(?![\w/])"), "ymd"),
    (re.compile(r"(?<![\w.])(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\w)"), "dmy"),
    (re.compile(r"(?<![\w/])(\d{1,2})[/-](\d{1,2})[/-](\d{4})(?![\w/])"), "mdy"),
    (re.compile(rf"(?<!\w){_DAY}\.?(?: of)? ({MONTH})\.?,? (\d{{4}})(?!\w)", re.I), "dmy"),
    (re.compile(rf"(?<!\w)({MONTH})[. ]{{0,2}}{_DAY},? (\d{{4}})(?!\w)", re.I), "mdy"),
)
_TIME = re.compile(
    r"(?<![\w:.])(\d{1,2})(?::(\d{2}))?(?::\d{2})? ?([ap])\.?m\b\.?"
    r"|(?:(?<![\w:.])|(?<=\dT))(\d{1,2}):(\d{2})(?::\d{2})?(?![\w:])"
    r"|(?<![\w:.])(\d{1,2})(?:[.:](\d{2}))? ?(?:o['’]?clock|uhr)\b",
    re.I,
)
_LATE = re.compile(r"\b(?:tonight|evening|afternoon|dinner|at night)\b", re.I)
"""What makes half past seven 19:30."""
_EARLY = re.compile(r"\b(?:morning|breakfast|lunch|noon)\b", re.I)
_NEXT_CLAUSE = re.compile(r"[,.;!?]|\b(?:and|then|but)\b")
_NEAR = 30
"""Characters before and behind a time in which that is looked for."""
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"\bhttps?://[^\s\"'<>]*[\w/]")
_PATH = re.compile(
    r"(?<![\w./\\~-])(?:~?/[\w.-]+(?:/[\w.-]*\w)*|(?:[\w-]+/)+[\w.-]*\w|[\w./\\~-]*\w\.[A-Za-z]\w{1,4}\b)"
)
_ADDRESSES: tuple[tuple[Kind, re.Pattern[str]], ...] = (("email", _EMAIL), ("path", _URL), ("path", _PATH))
_QUOTED = re.compile(rf"{QUOTED.pattern}|`([^`]+)`", re.DOTALL)
_AROUND = {('"', '"'), ("“", "”"), ("«", "»"), ("„", "“"), ("„", "”"), ("»", "«")}
_CODE = re.compile(
    r"(?<![\w.,^-])(?=[\w-]*\d)(?!\d+(?:st|nd|rd|th|k|K|bn|kg|g|km|m|cm|mm|s|h|l|v|w|x)\b)(?!\d+-[a-z]{3,}\b)"
    r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*(?![\w-]|[.,:]\d)"
    r"|(?<![\w/])\d{4}/\d{2}(?![\w/])|(?<!\w)[ACGTU]{4,}(?!\w)",
    re.A,
)
_MEASURED = re.compile(r"(?<!\d)\d+(?:\.\d+)?(?:[eE][-+]?\d+|([A-Za-z]+))")
_HOST = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:[/:]\d{1,5})?(?![\w.]*\w)")
_PHONE = re.compile(r"(?<![\w.])(?:(?:\+|\(|0|\d{3}-)[\d ()/-]{5,}\d|\d{3}[ .]\d{3}[ .]\d{4})(?!\w)")
_GROUPED = re.compile(
    r"(?<!\w)(?:\d{4}(?: \d{4}){2,4}|[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?"
    r"|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|[A-Z]\d[A-Z] \d[A-Z]\d)(?!\w)"
)
"""Codes that are written with blanks: cards, IBANs, British and Canadian post codes."""
_CONNECTORS = r"(?:v|vs|versus|of|the|de|da|del|di|van|von|&|la|le|el)"
_CAPITAL = r"[A-ZÄÖÜÀ-Þ][\w'’&.-]*"
_NAME = re.compile(
    rf"(?<![\w'’.])(?:\d+ (?={_CAPITAL} {_CAPITAL}))?{_CAPITAL}"
    rf"(?:(?<![^\W\d_]{{4}}\.)(?: {_CONNECTORS}\.?){{0,2}} (?:{_CAPITAL}|\d+\b(?![.,:/]\d)))*(?<![.'])"
)
_SHORTENED = re.compile(
    r"(?:St|Ste|Dr|Mr|Mrs|Ms|Mt|Ft|Jr|Sr|Prof|Inc|Corp|Co|Ltd|Ave|No|[Vv]s?|[A-Z](?:\.[A-Z])*)\."
)
"""What a name goes on behind, in spite of the dot."""
_DATED = re.compile(
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.? \d{1,2}(?:st|nd|rd|th)?\b"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day (?:morning|afternoon|evening|night)\b"
)
_OWNER = re.compile(r"['’]s$")
_OWNED = re.compile(r" [a-zà-ÿ]")
_NO_PHRASE = SMALL | {"today", "tomorrow", "tonight", "yesterday"}
_CAPITALS = frozenset({"US", "IT", "WHO"})
"""What is no small word when it is written so."""
_VERBS = words(
    "add analyse analyze apply assign book buy call cancel change check choose close compare compute convert copy "
    "count create delete dim download draw estimate export fetch file fill generate get go import install list load "
    "log look lower make mark measure move note open order pay pick play plot post predict print pull put raise "
    "rank read record register remind remove rent replace report reserve reset resize roll run save schedule search "
    "sell send set show solve sort start stop store submit subscribe summarise summarize switch take tell track "
    "transfer translate turn update upload use watch write"
)
"""With which a request begins, in capitals at the beginning of a sentence."""
_TERM = (
    r"(?:\d+(?:\.\d+)?[a-z]?|[a-z]|sin|cos|tan|exp|log|ln|sqrt)(?:\([^()\s]*\))?(?:\s?(?:\^|\*\*)\s?-?\d+)?"
)
_FORMULA = re.compile(rf"(?<![\w.])-?{_TERM}(?: ?[-+*/] ?{_TERM})*(?![\w(])")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text."""

    kind: Kind
    text: str
    """As it stands there."""
    start: int
    end: int
    value: Any
    """A number; a `datetime.date`; a time as ``HH:MM``; else the text."""
    unit: str = ""
    """The word after a number, or ``%``."""


def spans(text: str) -> list[Span]:
    """Everything in ``text`` that an argument could be, in the order of the text; spans may lie within others."""
    text = unquoted(text)[:LIMIT]
    found: list[Span] = []
    taken: list[tuple[int, int]] = []

    def free(start: int, end: int) -> bool:
        return all(end <= a or start >= b for a, b in taken)

    for finder in (_quotes, _dates, _addresses, _times):
        new = [span for span in finder(text) if free(span.start, span.end)]
        found += new
        taken += [(span.start, span.end) for span in new if span.kind != "quoted"]
    quoted = [(s.start, s.end) for s in found if s.kind == "quoted"]
    for finder in (_formulas, _codes, _names, _phrases):
        found += [span for span in finder(text) if free(span.start, span.end)]
    terms = [s for s in found if s.kind == "formula" and re.search(r"[-+*/^]", s.text)]
    codes = [s for s in found if s.kind == "code"]
    taken += [(s.start, s.end) for s in terms + codes if not _is_number(s.text)]
    found += [Span("number", *number) for number in numbers(text) if free(number.start, number.end)]
    outside = [s for s in found if s.kind == "quoted" or all(s.end <= a or s.start >= b for a, b in quoted)]
    return sorted(_unique(outside), key=lambda span: (span.start, -span.end))[:MOST]


def unquoted(text: str) -> str:
    """The text with spaces for quotation marks around all of it: they quote nothing."""
    inner = text.strip()
    if len(inner) < 3 or (inner[0], inner[-1]) not in _AROUND or inner[-1] in inner[1:-1]:
        return text
    start = text.index(inner)
    return f"{text[:start]} {inner[1:-1]} {text[start + len(inner) :]}"


def _is_number(code: str) -> bool:
    """Whether a code may as well be a number: ``40``, ``1e-4``, ``220V``."""
    match = _MEASURED.fullmatch(code)
    return code.isdigit() or (match is not None and (not match[1] or unit(match[1]) is not None))


def _unique(found: list[Span]) -> list[Span]:
    return list({(s.kind, s.start, s.end): s for s in found}.values())


def _quotes(text: str) -> Iterator[Span]:
    for match in _QUOTED.finditer(text):
        inner = next(group for group in match.groups() if group)
        if inner.strip():
            yield Span("quoted", inner.strip(), match.start(), match.end(), inner.strip())


def _dates(text: str) -> Iterator[Span]:
    for pattern, order in _DATES:
        for match in pattern.finditer(text):
            parts = dict(zip(order, match.groups(), strict=True))
            month, day = _month(parts["m"]), int(parts["d"])
            if month > 12 and day <= 12:
                month, day = day, month
            try:
                value = date(int(parts["y"]), month, day)
            except ValueError:
                continue
            yield Span("date", match[0], match.start(), match.end(), value)


def is_month(text: str) -> bool:
    """Whether a text is the name of a month."""
    return len(text) > 2 and any(month in (text.lower(), text.lower() + month[3:]) for month in _MONTHS)


def _month(text: str) -> int:
    if text.isdigit():
        return int(text)
    return next(n for n, month in enumerate(_MONTHS, 1) if month.startswith(text[:3].lower()))


def _times(text: str) -> Iterator[Span]:
    end = 0
    for match in _TIME.finditer(text):
        hour, minute = int(match[1] or match[4] or match[6]), int(match[2] or match[5] or match[7] or 0)
        around = text[max(end, match.start() - _NEAR) : match.start()]
        around = f"{around} {_NEXT_CLAUSE.split(text[match.end() : match.end() + _NEAR])[0]}"
        end = match.end()
        if match[3]:
            hour = hour % 12 + (12 if match[3].lower() == "p" else 0)
        elif 0 < hour < 12 and _LATE.search(around) and not _EARLY.search(around):
            hour += 12
        if hour < 24 and minute < 60:
            yield Span("time", match[0], match.start(), match.end(), f"{hour:02}:{minute:02}")


def _addresses(text: str) -> Iterator[Span]:
    end = 0
    found = [(m, kind) for kind, pattern in _ADDRESSES for m in pattern.finditer(text)]
    for match, kind in sorted(found, key=lambda pair: (pair[0].start(), -pair[0].end())):
        if match.start() >= end:  # the host of an address is no path
            kind = "phrase" if unit(match[0]) else kind  # "m/s"
            yield Span(kind, match[0], match.start(), match.end(), match[0])
            end = match.end()


def _formulas(text: str) -> Iterator[Span]:
    """Terms of letters with operators between or powers: ``3x^2 + 2x - 1``."""
    for match in _FORMULA.finditer(text):
        if re.search(r"[a-z]", match[0]) and re.search(r"[-+*/^]|\d[a-z]", match[0]):
            yield Span("formula", match[0], match.start(), match.end(), match[0])


def _codes(text: str) -> Iterator[Span]:
    end = 0
    found = [match for pattern in (_HOST, _PHONE, _GROUPED, _CODE) for match in pattern.finditer(text)]
    for match in sorted(found, key=lambda match: (match.start(), -match.end())):
        if match.start() >= end:  # a group of a number is none
            yield Span("code", match[0].strip(), match.start(), match.end(), match[0].strip())
            end = match.end()


def _names(text: str) -> Iterator[Span]:
    for start, run in _runs_of_names(text):
        while run and (
            _is_no_name(run[0], text, start)
            or _is_amount(run)
            or (_starts_sentence(text, start) and len(run) > 1)
        ):
            if not (_is_no_name(run[0], text, start) or _is_amount(run)):
                yield Span("name", " ".join(run), start, start + len(" ".join(run)), " ".join(run))
            start += len(run[0]) + 1
            run = run[1:]
        if run:
            name = " ".join(run)
            end = start + len(name)
            if _OWNED.match(text, end):
                name = _OWNER.sub("", name)
                end = start + len(name)
            yield Span("name", name, start, end, name)
            if (within := WITHIN.match(text, end)) and (name in CITIES or name not in REGIONS):
                yield Span(
                    "name", text[start : within.end()], start, within.end(), text[start : within.end()]
                )


def _runs_of_names(text: str) -> Iterator[tuple[int, list[str]]]:
    """Where words with capitals that belong together begin, and the words: sentences and days part them."""
    for match in _NAME.finditer(text):
        start, words = match.start(), list[str]()
        for word in match[0].split(" "):
            ends = bool(words) and words[-1].endswith(".") and not _SHORTENED.fullmatch(words[-1])
            if words and (ends or _DATED.match(text, start + len(" ".join(words)) + 1)):
                run = " ".join(words)
                yield start, run.removesuffix(".").split(" ") if ends else words
                start, words = start + len(run) + 1, []
            words.append(word)
        if words and not _DATED.match(text, start):
            yield start, words


def _is_amount(words: Sequence[str]) -> bool:
    """Whether a name begins with a number that is none of its own: "2024 Apple", but not "5 Oak Street"."""
    return words[0].isdigit() and len(words) < 3


def _is_no_name(word: str, text: str, start: int) -> bool:
    if word in _CAPITALS and not text.isupper():
        return False
    lowered = word.lower().rstrip(".")
    return lowered in SMALL or (lowered in _VERBS and _starts_sentence(text, start))


def _starts_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip()
    return not before or before[-1] in ".!?:"


def _phrases(text: str) -> Iterator[Span]:
    """Runs of words between stop words and punctuation."""
    run: list[re.Match[str]] = []
    for match in [*WORD.finditer(text), None]:
        joined = bool(run) and match is not None and text[run[-1].end() : match.start()] == " "
        if match is not None and match[0].lower() not in _NO_PHRASE and (joined or not run):
            run.append(match)
            continue
        if run:
            start, end = run[0].start(), run[-1].end()
            yield Span("phrase", text[start:end], start, end, text[start:end])
        run = [match] if match is not None and match[0].lower() not in _NO_PHRASE else []
