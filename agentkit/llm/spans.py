"""What stands in a text that an argument could be: numbers, dates, times, addresses, names, quotes, phrases.

Numbers and dates are recognised in English. Every span keeps its place, so that the words around it can tell what it
is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

from agentkit.llm.places import CITIES, REGIONS, WITHIN
from agentkit.llm.units import currency, unit


def words(text: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(text.split())


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
    (re.compile(r"(?<![\w-])(\d{4})-(\d{1,2})-(\d{1,2})(?![\w-])"), "ymd"),
    (re.compile(r"(?<![\w/])(\d{4})/(\d{1,2})/(\d{1,2})(?![\w/])"), "ymd"),
    (re.compile(r"(?<![\w.])(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\w)"), "dmy"),
    (re.compile(r"(?<![\w/])(\d{1,2})[/-](\d{1,2})[/-](\d{4})(?![\w/])"), "mdy"),
    (re.compile(rf"(?<!\w){_DAY}\.?(?: of)? ({MONTH})\.?,? (\d{{4}})(?!\w)", re.I), "dmy"),
    (re.compile(rf"(?<!\w)({MONTH})[. ]{{0,2}}{_DAY},? (\d{{4}})(?!\w)", re.I), "mdy"),
)
_TIME = re.compile(
    r"(?<![\w:.])(\d{1,2})(?::(\d{2}))?(?::\d{2})? ?([ap])\.?m\b\.?|(?<![\w:.])(\d{1,2}):(\d{2})(?![\w:])",
    re.I,
)
_LATE = re.compile(r"\b(?:tonight|evening|afternoon|dinner|at night)\b", re.I)
"""What makes half past seven 19:30."""
_NEAR = 30
"""Characters before and behind a time in which that is looked for."""
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"\bhttps?://[^\s\"'<>]*[\w/]")
_PATH = re.compile(
    r"(?<![\w./\\~-])(?:~?/[\w.-]+(?:/[\w.-]*\w)*|(?:[\w-]+/)+[\w.-]*\w|[\w./\\~-]*\w\.[A-Za-z]\w{1,4}\b)"
)
_ADDRESSES: tuple[tuple[Kind, re.Pattern[str]], ...] = (("email", _EMAIL), ("path", _URL), ("path", _PATH))
_QUOTED = re.compile(
    r"“([^”]+)”|«([^»]+)»|\"([^\"]+)\"|(?<!\w)'(.{1,2000}?)'(?!\w)|‘(.{1,2000}?)’(?!\w)|`([^`]+)`", re.DOTALL
)
_AROUND = {('"', '"'), ("“", "”"), ("«", "»")}
_ONES = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_WORDS = {**_ONES, **_TENS, "zero": 0, "once": 1, "twice": 2, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13,
          "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
          "hundred": 100}  # fmt: skip
_SCALES = {"dozen": 12, "thousand": 1e3, "k": 1e3, "million": 1e6, "mln": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9,
           "b": 1e9, "trillion": 1e12}  # fmt: skip
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_POWER = r"(?:[eE][-+]?\d+| ?[x×] ?10\^[-−]?\d+)"
"""``1e-4``, ``8.8 x 10^-12``"""
_TO_99 = (
    rf"(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_ONES)})|{'|'.join(w for w in _WORDS if w != 'hundred')})"
)
_NUMBER = re.compile(
    rf"(?<![\w.^])(?:(?<=[\s(\[,=:])|(?<!.))(?:[-−][$€£]|[$€£][-−]|[-−$€£])?{_DIGITS}{_POWER}?"
    rf"|(?<![\w.^])[$€£]?{_DIGITS}"
    rf"|(?<!\w)(?:(?:(?:{'|'.join(_ONES)}) )?hundred(?:(?: and)? {_TO_99})?|{_TO_99})(?!\w)",
    re.I,
)
_SPACES = {ord(space): " " for space in "\u00a0\u2009\u202f"}
_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d{1,2})(?= ?(?:€|%|euros?\b|(?:m|cm|km|kg|l)\b))")
"""A comma before decimals, where a unit follows: "25,50 €". Without one it may divide a list."""
_GROUPS = re.compile(r"(?<![\d.,])(?:\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:['’]\d{3})+)(?![,'’]?\d)")
"""1,00,000 and 1'000"""
_POINTS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d)")
"""1.234,56"""
_SWAPPED = str.maketrans(".,", ",.")
_MINUS = re.compile(r"(?<![\w-])(?<!\d )(?:minus|negative) $", re.I)
_LARGEST = 1e100
"""A number beyond it is no argument, and its arithmetic would overflow."""
_AFTER_NUMBER = re.compile(
    r"(?: (dozen|thousand|million|billion|trillion)\b|(k|mln|bn)\b)?[ -]?(%|percent\b)?"
    r"(?:[ -]?([a-zA-Zµμ°Ω][\w/²³]*(?:\^-?\d)?))?",
    re.I,
)
_MONEY = re.compile(r"[mMbB]\b")
"""Millions and billions behind a sum of money; "5M" may be molar."""
_LISTED = re.compile(r",? ?(?:(?:and|or|to) )?")
"""Between the numbers of a list."""
_CODE = re.compile(
    r"(?<![\w.,^-])(?=[\w-]*\d)(?!\d+(?:st|nd|rd|th|k|K|bn|kg|g|km|m|cm|mm|s|h|l|v|w)\b)(?!\d+-[a-z]{3,}\b)"
    r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*(?![\w-]|[.,:]\d)"
    r"|(?<![\w/])\d{4}/\d{2}(?![\w/])|(?<!\w)[ACGTU]{4,}(?!\w)",
    re.A,
)
_MEASURED = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+|([A-Za-z]+))")
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
_HALF = re.compile(r" and a half\b", re.I)
_ONE = re.compile(
    r"(?P<half>\bhalf )an? (?P<unit>[a-z]+)|\b(?:for|in|within|after|lasts?|takes?) an? (?P<other>[a-z]+)"
    r"|\ba (?P<many>hundred|thousand|million|billion|dozen)\b(?! (?:and|of|or|times)\b)",
    re.I,
)
"""A quantity without a number: "half an hour", "within a week"."""
_IN_WORDS = re.compile(r"[A-Za-z -]+")
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
_STOP = words(
    "a an the of in on at to for from by with and or but is are was were be been am do does did have has "
    "had will would can could should may might must i you he she it we they me my your his her its our "
    "their this that these those what which who whom when where why how much many please give tell show "
    "find get need want like look let make some any all each every if so as than then there here out up "
    "over under into about per it's what's i'm i'd i've us not no yes just also whether between using use "
    "given whose during after before since because while once she'd he'd we'd they'd you'd i'll she'll he'll we'll "
    "they'll you'll it'll don't can't won't doesn't isn't that's there's here's he's she's they're we're you're "
    "let's another same calculate compute determine identify retrieve search provide help know"
)
_NO_PHRASE = _STOP | {"today", "tomorrow", "tonight", "yesterday"}
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
_FOREIGN = words(
    "der die das den dem und ist ein eine einen einem ich wir mir mich bitte wie nicht von zu zum zur mit für auf im "
    "le les des un une et est je pour avec dans ce que qui quel quelle du au sur el los las y es en por con qué como "
    "cuál para il lo gli che di è sono della o os um uma não em de het een ik van voor op och att det som på jag"
)
_TERM = (
    r"(?:\d+(?:\.\d+)?[a-z]?|[a-z]|sin|cos|tan|exp|log|ln|sqrt)(?:\([^()\s]*\))?(?:\s?(?:\^|\*\*)\s?-?\d+)?"
)
_FORMULA = re.compile(rf"(?<![\w.])-?{_TERM}(?: ?[-+*/] ?{_TERM})*(?![\w(])")
_NO_UNIT = _STOP - words("per")
"""What follows a number without being what it counts."""
_WORD = re.compile(r"[^\W\d_][\w'’-]*")


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
    found += [span for span in _numbers(text) if free(span.start, span.end)]
    outside = [s for s in found if s.kind == "quoted" or all(s.end <= a or s.start >= b for a, b in quoted)]
    return sorted(_unique(outside), key=lambda span: (span.start, -span.end))[:MOST]


def unquoted(text: str) -> str:
    """The text with spaces for quotation marks around all of it: they quote nothing."""
    inner = text.strip()
    if len(inner) < 3 or (inner[0], inner[-1]) not in _AROUND or inner[-1] in inner[1:-1]:
        return text
    start = text.index(inner)
    return f"{text[:start]} {inner[1:-1]} {text[start + len(inner) :]}"


def is_small(word: str) -> bool:
    """Whether a word is one of those that only join others."""
    return word.lower() in _STOP


def is_english(text: str) -> bool:
    """Whether the text has English function words, and more of them than of other languages."""
    found = [match[0].lower() for match in _WORD.finditer(text[:LIMIT])]
    return sum(word in _STOP for word in found) > sum(word in _FOREIGN for word in found)


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
    for match in _TIME.finditer(text):
        hour, minute = int(match[1] or match[4]), int(match[2] or match[5] or 0)
        if match[3]:
            hour = hour % 12 + (12 if match[3].lower() == "p" else 0)
        elif 0 < hour < 12 and _LATE.search(text, max(0, match.start() - _NEAR), match.end() + _NEAR):
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


def _numbers(text: str) -> list[Span]:
    """In "10, 20 and 30 years" all three are years."""
    numbers = sorted((*_single_numbers(text), *_quantities(text)), key=lambda span: span.start)
    found = _added_up(numbers, text)
    for n in range(len(found) - 2, -1, -1):
        span, after = found[n], found[n + 1]
        if not span.unit and span.text[0] not in "$€£" and _LISTED.fullmatch(text, span.end, after.start):
            found[n] = replace(span, unit=after.unit)
    return found


def _quantities(text: str) -> Iterator[Span]:
    """Quantities without a number."""
    for match in _ONE.finditer(text):
        if many := match["many"]:
            after = _AFTER_NUMBER.match(text, match.end())
            unit_of = after[4] if after and after[4] and after[4].lower() not in _NO_UNIT else ""
            yield Span(
                "number", match[0], match.start(), match.end(), int(_SCALES.get(many.lower(), 100)), unit_of
            )
            continue
        name = match["unit"] or match["other"]
        if unit(name) is not None and len(name) > 2:
            start = match.start("half") if match["half"] else match.end() - len(name)
            yield Span(
                "number", text[start : match.end()], start, match.end(), 0.5 if match["half"] else 1, name
            )


def _added_up(numbers: Sequence[Span], text: str) -> list[Span]:
    """Number words that follow each other as one number: "three thousand" and "five hundred"."""
    found: list[Span] = []
    for span in numbers:
        last = found[-1] if found else None
        if last and _IN_WORDS.fullmatch(last.text) and _IN_WORDS.fullmatch(span.text):
            scale = _SCALES.get(last.text.split()[-1].lower(), 0)
            if span.value < scale and text[last.end : span.start] in (" ", " and "):
                whole = text[last.start : span.end]
                found[-1] = Span("number", whole, last.start, span.end, last.value + span.value, span.unit)
                continue
        found.append(span)
    return found


def _single_numbers(text: str) -> Iterator[Span]:
    said = text  # each of these keeps its length
    text = _GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]).rjust(len(found[0]), "0"), text)
    text = _POINTS.sub(lambda found: found[0].translate(_SWAPPED), text)
    text = _COMMA.sub(r"\1.\2", text.translate(_SPACES))
    for match in _NUMBER.finditer(text):
        is_version = re.match(r"\.\d", text[match.end() : match.end() + 2])
        if is_version or (text[match.end() : match.end() + 1].isalpha() and not match[0][-1].isdigit()):
            continue
        minus = _MINUS.search(text, max(0, match.start() - 11), match.start())
        start, end = minus.start() if minus else match.start(), match.end()
        value, unit = _number(match[0].lower()), ""
        if half := _HALF.match(text, match.end()):
            value, end = value + 0.5, half.end()
        after = _AFTER_NUMBER.match(text, end)
        if after is not None:
            scale = (after[1] or after[2] or "").lower()
            kelvins = after[2] == "K" and match[0][0] not in "$€£" and not currency(after[4] or "")
            if kelvins:
                scale, unit = "", "K"
            if not scale and match[0][0] in "$€£" and (money := _MONEY.match(text, match.end())):
                value, end = _exact(value * _SCALES[money[0].lower()]), match.end() + 1
            if scale and abs(value) < _LARGEST:
                value, end = _exact(value * _SCALES[scale]), after.end(1 if after[1] else 2)
            if after[3]:
                unit, end = "%", after.end(3)
            elif not kelvins and after[4] and after[4].lower() not in _NO_UNIT and end <= after.start(4):
                unit = after[4]
        if abs(value) < _LARGEST:
            yield Span("number", said[start:end], start, end, -value if minus else value, unit)


_PLAIN = str.maketrans({"−": "-", ",": None, "$": None, "€": None, "£": None})


def _number(literal: str) -> int | float:
    parts = [_WORDS.get(word) for word in re.split(r"[- ]", literal) if word != "and"]
    if None in parts:
        plain = re.sub(" ?[x×] ?10\\^", "e", literal.translate(_PLAIN))
        return int(plain) if re.fullmatch(r"-?\d+", plain) else float(plain)
    total = 0
    for part in parts:
        total = (total or 1) * 100 if part == 100 else total + (part or 0)
    return total


def _exact(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


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
    for start, words in _runs_of_names(text):
        while words and (
            _is_no_name(words[0], text, start)
            or _is_amount(words)
            or (_starts_sentence(text, start) and len(words) > 1)
        ):
            if not (_is_no_name(words[0], text, start) or _is_amount(words)):
                yield Span("name", " ".join(words), start, start + len(" ".join(words)), " ".join(words))
            start += len(words[0]) + 1
            words = words[1:]
        if words:
            name = " ".join(words)
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
    return lowered in _STOP or (lowered in _VERBS and _starts_sentence(text, start))


def _starts_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip()
    return not before or before[-1] in ".!?:"


def _phrases(text: str) -> Iterator[Span]:
    """Runs of words between stop words and punctuation."""
    run: list[re.Match[str]] = []
    for match in [*_WORD.finditer(text), None]:
        joined = bool(run) and match is not None and text[run[-1].end() : match.start()] == " "
        if match is not None and match[0].lower() not in _NO_PHRASE and (joined or not run):
            run.append(match)
            continue
        if run:
            start, end = run[0].start(), run[-1].end()
            yield Span("phrase", text[start:end], start, end, text[start:end])
        run = [match] if match is not None and match[0].lower() not in _NO_PHRASE else []
