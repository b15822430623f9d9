"""Values for the slots of domain files: how people say them, and what a call holds.

A kind such as ``city``, ``int:1-6`` or ``list:food:2-3`` (README.md lists them) draws a `Value`: words and JSON.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

POOLS: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "pools.yaml").read_text("utf-8"))

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_TENS = {30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety"}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


@dataclass(frozen=True, slots=True)
class Value:
    """What is said and what it means."""

    said: str
    called: Any
    """JSON."""


def draw(kind: str | list[Any], random: Random, *, items: list[Any] | None = None) -> Value:
    """A value of a kind.

    Raises:
        ValueError: There is no such kind.
    """
    if isinstance(kind, list):
        return _own(random.choice(kind))
    if kind in POOLS:
        return _own(random.choice(POOLS[kind]))
    if kind in _SIMPLE:
        return _SIMPLE[kind](random)
    name, _, rest = kind.partition(":")
    if name == "list":
        return _list(rest, random, items)
    if name == "id":
        return _plain("".join(_ID.get(c, lambda _, c=c: c)(random) for c in rest))
    if name in _RANGES and (match := re.fullmatch(r"(-?[\d.]+)-(-?[\d.]+)(?::(\d))?", rest)):
        low, high, decimals = float(match[1]), float(match[2]), match[3]
        return _RANGES[name](low, high, int(decimals) if decimals else None, random)
    raise ValueError(f"no such kind of value: {kind!r}")


def _plain(text: str) -> Value:
    return Value(text, text)


def _own(entry: Any) -> Value:
    if not isinstance(entry, str) or " => " not in entry:
        return Value(str(entry), entry)
    said, called = entry.split(" => ", 1)
    try:
        return Value(said, json.loads(called))
    except ValueError:
        return Value(said, called)


def number(value: float, random: Random) -> str:
    """A number as people write it."""
    if isinstance(value, float) and not value.is_integer():
        text = f"{value:,}" if abs(value) >= 1000 and random.random() < 0.6 else f"{value}"
        return text
    value = int(value)
    ways = [str(value)] * 6
    if 0 <= value <= 20:
        ways += [_SMALL[value]] * (3 if value else 1)
    elif value in _TENS:
        ways += [_TENS[value]]
    if abs(value) >= 1000:
        ways += [f"{value:,}"] * 8
    if value >= 1_000_000 and value % 100_000 == 0:
        ways += [f"{value / 1_000_000:g} million"] * 8
    elif value >= 1000 and value % 1000 == 0 and value < 1_000_000:
        ways += [f"{value // 1000}k", f"{value // 1000} thousand"]
    return random.choice(ways)


def _int(low: float, high: float, decimals: int | None, random: Random) -> Value:
    value = _in_range(low, high, random)
    return Value(number(value, random), value)


def _in_range(low: float, high: float, random: Random) -> int:
    value = random.randint(int(low), int(high))
    if high - low > 500 and random.random() < 0.6:  # people like round numbers
        digits = 10 ** max(0, len(str(abs(value))) - random.choice((1, 2)))
        rounded = value // digits * digits
        value = rounded if low <= rounded <= high else value
    return value


def _float(low: float, high: float, decimals: int | None, random: Random) -> Value:
    value = round(random.uniform(low, high), 2 if decimals is None else decimals)
    if random.random() < 0.35 and low <= int(value) <= high and int(value):
        value = int(value)
    return Value(number(value, random), value)


def _money(low: float, high: float, decimals: int | None, random: Random) -> Value:
    value: float = _in_range(low, high, random)
    if value < 1000 and random.random() < 0.3:
        value = round(value + random.choice((0.5, 0.99, 0.25, 0.95)), 2)
    said = f"{value:,.2f}" if isinstance(value, float) else number(value, random)
    ways = [] if said.isalpha() else [f"${said}"] * 4 + [f"{said} USD"]
    ways.append(f"{said} dollars")
    return Value(random.choice(ways), value)


def _percent(low: float, high: float, decimals: int | None, random: Random) -> Value:
    value = _share(low, high, decimals, random)
    return Value(random.choice((f"{value}%", f"{value}%", f"{value} %", f"{value} percent")), value)


def _rate(low: float, high: float, decimals: int | None, random: Random) -> Value:
    said = _percent(low, high, decimals, random)
    return Value(said.said, round(said.called / 100, 8))


def _share(low: float, high: float, decimals: int | None, random: Random) -> float:
    whole = float(low).is_integer() and float(high).is_integer() and random.random() < 0.65
    value = random.randint(int(low), int(high)) if whole else round(random.uniform(low, high), decimals or 1)
    return int(value) if float(value).is_integer() else value


def _list(rest: str, random: Random, items: list[Any] | None) -> Value:
    kind, _, counts = rest.rpartition(":")
    fewest, most = (int(n) for n in counts.split("-"))
    wanted = random.randint(fewest, most)
    found: list[Value] = []
    for _ in range(wanted * 20):
        value = draw(kind if kind else (items or []), random)
        numbers = kind.partition(":")[0] in ("int", "float")
        if len(found) < wanted and (numbers or value.called not in [v.called for v in found]):
            found.append(Value(str(value.called), value.called) if numbers else value)
    return Value(_enumerated([value.said for value in found], random), [value.called for value in found])


def _enumerated(words: list[str], random: Random) -> str:
    if len(words) == 1:
        return words[0]
    style = random.random()
    if style < 0.25:
        return ", ".join(words)
    comma = "," if style > 0.8 and len(words) > 2 else ""
    return f"{', '.join(words[:-1])}{comma} and {words[-1]}"


def _ordinal(day: int) -> str:
    ending = "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


def _day(random: Random) -> dt.date:
    return dt.date(2019, 1, 1) + dt.timedelta(days=random.randrange(365 * 11))


def _date_words(day: dt.date, random: Random) -> str:
    month = _MONTHS[day.month - 1]
    return random.choice(
        (
            day.isoformat(), day.isoformat(), f"{month} {day.day}, {day.year}",
            f"{month} {_ordinal(day.day)}, {day.year}", f"{day.day} {month} {day.year}",
            f"the {_ordinal(day.day)} of {month} {day.year}", f"{month[:3]} {day.day}, {day.year}",
            f"{day.day} {month[:3]} {day.year}", f"{month} {_ordinal(day.day)} {day.year}",
            f"{day.month:02}/{day.day:02}/{day.year}" if day.day > 12 else day.isoformat(),
        )
    )  # fmt: skip


def _date(random: Random) -> Value:
    day = _day(random)
    return Value(_date_words(day, random), day.isoformat())


def _us_date(random: Random) -> Value:
    day = _day(random)
    return Value(_date_words(day, random), f"{day.month:02}/{day.day:02}/{day.year}")


def _text_date(random: Random) -> Value:
    day = _day(random)
    others = ["tomorrow", "today", "next Friday", "this weekend", f"next {random.choice(_DAYS)}"]
    return _plain(random.choice([_date_words(day, random)] * 3 + others))


def _clock(random: Random) -> tuple[int, int]:
    return random.randrange(6, 23), random.choice((0, 0, 0, 15, 30, 30, 45, random.randrange(60)))


def _clock_words(hour: int, minute: int, random: Random) -> str:
    half, twelve = "am" if hour < 12 else "pm", hour % 12 or 12
    ways = [f"{hour:02}:{minute:02}", f"{twelve}:{minute:02} {half}", f"{twelve}:{minute:02}{half}"]
    if not minute:
        ways += [f"{twelve} {half}", f"{twelve}{half}", f"{twelve} {half.upper()}"]
        ways += [] if hour != 12 else ["noon"]
    if minute == 30 and hour >= 12:
        ways += [f"half past {_SMALL[twelve]} {half}"]
    return random.choice(ways)


def _time(random: Random) -> Value:
    hour, minute = _clock(random)
    return Value(_clock_words(hour, minute, random), f"{hour:02}:{minute:02}")


def _datetime(random: Random) -> Value:
    day, (hour, minute) = _day(random), _clock(random)
    clock, date = _clock_words(hour, minute, random), _date_words(day, random)
    said = random.choice((f"{date} at {clock}", f"{date}, {clock}", f"{clock} on {date}"))
    return Value(said, f"{day.isoformat()}T{hour:02}:{minute:02}")


def _person(random: Random) -> Value:
    return _plain(f"{random.choice(POOLS['first_name'])} {random.choice(POOLS['last_name'])}")


def _email(random: Random) -> Value:
    first, last = random.choice(POOLS["first_name"]).lower(), random.choice(POOLS["last_name"]).lower()
    user = random.choice((f"{first}.{last}", first, f"{first[0]}{last}", f"{last}{random.randrange(100)}"))
    domain = random.choice(("example.com", "example.org", "mail.example.net", "acme.example"))
    return _plain(re.sub(r"[^a-z0-9.]", "", user) + "@" + domain)


def _phone(random: Random) -> Value:
    digits = "".join(str(random.randrange(10)) for _ in range(4))
    return _plain(
        random.choice(
            (f"+1-555-{digits}", f"555-{digits}", f"(555) 01{digits[0]}-{digits}", f"+44 20 7946 {digits}")
        )
    )


def _url(random: Random) -> Value:
    words = random.sample(POOLS["topic"], 2)
    slug = [re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words]
    host = random.choice(("example.com", "www.example.org", "blog.example.net", "docs.example.com"))
    return _plain(
        f"https://{host}/{slug[0]}" + random.choice(("", f"/{slug[1]}", f"?page={random.randrange(2, 9)}"))
    )


def _path(random: Random) -> Value:
    names = [
        "report",
        "notes",
        "data",
        "invoice",
        "photo",
        "backup",
        "budget",
        "results",
        "draft",
        "log",
        "config",
        "sales",
        "scan",
    ]
    folder = random.choice(
        ("", "/home/user/", "/var/data/", "documents/", "~/Downloads/", "./out/", "C:\\Users\\me\\")
    )
    name = random.choice(names) + random.choice(("", "_2024", "-final", "_v2", str(random.randrange(10))))
    return _plain(
        folder + name + random.choice((".txt", ".csv", ".pdf", ".jpg", ".json", ".md", ".png", ".log"))
    )


def _street(random: Random) -> Value:
    kind = random.choice(("Street", "Avenue", "Road", "Lane", "Drive", "Way"))
    return _plain(f"{random.randrange(1, 990)} {random.choice(POOLS['last_name'])} {kind}")


def _year(random: Random) -> Value:
    year = random.choice((random.randrange(1850, 2027), random.randrange(1990, 2027)))
    return Value(str(year), year)


_ID: dict[str, Callable[[Random], str]] = {
    "#": lambda random: random.choice("0123456789"),
    "@": lambda random: random.choice("ABCDEFGHJKLMNPQRSTUVWXYZ"),
    "?": lambda random: random.choice("abcdefghijkmnopqrstuvwxyz"),
}
_SIMPLE: dict[str, Callable[[Random], Value]] = {
    "date": _date, "date:us": _us_date, "date:text": _text_date, "time": _time, "datetime": _datetime,
    "month": lambda random: _plain(random.choice(_MONTHS)), "weekday": lambda random: _plain(random.choice(_DAYS)),
    "year": _year, "person": _person, "email": _email, "phone": _phone, "url": _url, "path": _path, "street": _street,
}  # fmt: skip
_RANGES: dict[str, Callable[[float, float, int | None, Random], Value]] = {
    "int": _int, "float": _float, "money": _money, "percent": _percent, "rate": _rate,
}  # fmt: skip
