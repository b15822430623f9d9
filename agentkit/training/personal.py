"""Personal data in chats: e-mail addresses, phone numbers, IBANs, card numbers and IP addresses become placeholders.

Only what its own form gives away, checked where it carries a check digit. Names and postal addresses are not found:
a recogniser of names small enough to be at hand takes products for people, and misses people.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentkit.messages import Message

HOUSE_CHATS, HOUSE_SHARE = 3, 0.1
"""What assistants say by themselves in that many conversations is the contact of the house, and stays; so does what
stands in the system prompts of that many, and of that share of them."""
GREETING_WORDS = 3
"""Many conversations begin with a message of no more words, and the same answer to it."""

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,24}(?![^\W_]|-\w)")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])"
)
_CARD = re.compile(r"(?<![\w.,+])(?<!\d-)\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\w)")
_PHONE = re.compile(
    r"""(?<![\w.,/+-])(?:
        (?:\+|(?<!\d[ ])00(?=[1-9]))[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,5}\)?){2,6}   # +44 20 7946 0958
        | (?<!\d[ ])(?:(?:1[ .-])?\(0?\d{2,4}\)[ -]?\d{2,5}(?:[ -]?\d{2,5}){1,3}   # (020) 7946 0958, 1 (555) 010-4477
        | 0\d{1,4}(?:[ /-]\d{2,8}){1,4}                               # 020 7946 0958
        | 0\d(?:\.\d{2}){4}                                           # 06.12.34.56.78
        | (?:1[ .-])?[2-9]\d{2}([ .-])\d{3}\1\d{4})                   # 555-010-4477, 1-555-010-4477
    )(?![\w-]|[.,/]\d)""",
    re.VERBOSE,
)
_PHONE_WORDS = frozenset({
    "phone", "phones", "telephone", "mobile", "cell", "fax", "whatsapp", "sms", "tel", "handy", "telefon", "rufnummer",
})  # fmt: skip
_BETWEEN = (
    r"(?:[\s:=#.,-]|\b(?:me|us|him|her|them|my|the|is|it|it's|at|on|under|number|num|no|nr|back|please)\b)"
)
_CUED = re.compile(
    rf"\b(?:{'|'.join(sorted(_PHONE_WORDS))}|call|ring|dial|text|reach|number\s+is){_BETWEEN}{{1,12}}"
    r"(?P<value>\d{9,13})(?![\w-]|[.,/]\d)",
    re.IGNORECASE,
)
"""A number without anything that tells it from others, behind a word that does: ``call me at 5550104477``."""
_KEY_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_DATE = re.compile(r"(?:\d{1,2}([./-])\d{1,2}\1(?:\d{2}){1,2}|\d{4}-\d{2}-\d{2})(?= |$)")
_CARD_BRANDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"  # American Express, Diners Club, JCB
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}"  # Discover
    r"|62\d{14,17}|220[0-4]\d{12,15}"  # UnionPay, Mir
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{9,15}"  # Maestro
)


def is_card(digits: str) -> bool:
    """Whether the digits are those of a payment card: a brand's beginning and length, and its check digit (Luhn)."""
    if not _CARD_BRANDS.fullmatch(digits):
        return False
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(reversed(digits))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: its remainder by 97 is 1 (ISO 13616)."""
    compact = text.replace(" ", "").upper()
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    digits = sum(letter.isdigit() for letter in text)
    return 9 <= digits <= 16 and not _DATE.match(text)


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


Value = tuple[str, str]
"""Kind of a value, and what its spellings have in common."""
Check = Callable[[str], bool]
_KINDS: tuple[tuple[str, re.Pattern[str], Check], ...] = (
    ("EMAIL", _EMAIL, lambda text: True),
    ("IBAN", _IBAN, is_iban),
    ("CARD", _CARD, lambda text: is_card(re.sub(r"\D", "", text))),
    ("IP", _IPV4, _is_ip),
    ("IP", _IPV6, _is_ip),
    ("PHONE", _PHONE, _is_phone),
    ("PHONE", _CUED, _is_phone),
)
"""In this order: what an earlier one has taken, a later one does not see."""
_GROUPED = {"IBAN": "[ -]", "CARD": "[ -]", "PHONE": " (?=0)"}
"""Where a number that is written in groups may end: what stands behind it may look like one more group."""
_PLAIN = str.maketrans("\u00a0\u2007\u202f\u2010\u2011", "   --")
"""Spaces and hyphens that do not break a line: numbers are typeset with them."""
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _KINDS))
_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(KINDS)})_\d+\]")


def _key(kind: str, text: str) -> str:
    """What two spellings of one value have in common."""
    if kind == "EMAIL":
        return text.lower()
    if kind == "IBAN":
        return text.replace(" ", "").upper()
    return ipaddress.ip_address(text).compressed if kind == "IP" else re.sub(r"[^\d+]", "", text)


@dataclass
class Redactor:
    """Replaces the personal data of one chat; the same value gets the same placeholder wherever it stands.

    Args:
        kept: Values that are nobody's.
    """

    kept: frozenset[Value] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    """Replacements, by kind."""
    _known: dict[Value, str] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)
    """Placeholders that stood there before, whose values nobody knows."""

    def text(self, text: str) -> str:
        """The text with placeholders."""
        self._written.update(_PLACEHOLDER.findall(text))
        for kind, pattern, check in _KINDS:
            text = self._without(text, kind, pattern, check)
        for (kind, key), name in self._known.items():
            if kind == "PHONE":  # calls take numbers without the separators that tell them from others
                text, count = re.subn(rf"(?<![\w+]){key.lstrip('+')}(?!\w)", name, text)
                if count:
                    self.counts[kind] += count
        return text

    def value(self, value: Any) -> Any:
        """A JSON value with placeholders in its texts, its keys, and for numbers that are a card's or known."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self._under(str(key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            text = str(value)
            known = [name for (_, key), name in self._known.items() if key.lstrip("+0") == text]
            if known or is_card(text):
                self.counts[known[0][1:].split("_")[0] if known else "CARD"] += 1
                return known[0] if known else self._placeholder("CARD", text)
        return value

    def _under(self, key: str, item: Any) -> Any:
        """The value of a key, which may tell that it is a phone number."""
        text = str(item) if isinstance(item, str | int) else ""
        says_so = not _PHONE_WORDS.isdisjoint(word.lower() for word in _KEY_WORD.findall(key))
        if not (says_so and text.isdecimal() and _is_phone(text)) or ("PHONE", text) in self.kept:
            return self.value(item)
        self.counts["PHONE"] += 1
        return self._placeholder("PHONE", text)

    def message(self, message: Message) -> Message:
        """The message with placeholders; a result that is JSON stays JSON."""
        calls = tuple(replace(call, arguments=self.value(call.arguments)) for call in message.tool_calls)
        if message.role == "tool":
            return replace(message, content=self._result(message.content))
        return replace(message, content=self.text(message.content), tool_calls=calls)

    def _result(self, content: str) -> str:
        try:
            value = json.loads(content)
            json.dumps(value, ensure_ascii=False).encode()  # JSON can spell half a character: \ud800
        except (ValueError, RecursionError):
            return self.text(content)
        redacted = self.value(value)
        return content if redacted == value else json.dumps(redacted, ensure_ascii=False)

    def _without(self, text: str, kind: str, pattern: re.Pattern[str], check: Check) -> str:
        """The text with placeholders for what the pattern finds and the check lets pass.

        A pattern takes all that may belong to a number: of groups, fewer are tried, and what begins with a later one.
        """
        parts, done, at = [], 0, 0
        plain = text.translate(_PLAIN)  # of the same length
        group = "value" if "value" in pattern.groupindex else 0
        while match := pattern.search(plain, at):
            whole, begin = match[group], match.start(group)
            ends = re.finditer(_GROUPED[kind], whole) if kind in _GROUPED else ()
            groups = [gap.start() for gap in ends]
            found = next((part for n in (None, *reversed(groups)) if check(part := whole[:n])), "")
            at = begin + (len(found) or next(iter(groups), len(whole)) or 1)
            if found and (kind, _key(kind, found)) not in self.kept:
                self.counts[kind] += 1
                parts += [text[done:begin], self._placeholder(kind, _key(kind, found))]
                done = at
            if found:
                plain = " " * at + plain[at:]  # what is another value is no part of the next
        return "".join([*parts, text[done:]])

    def _placeholder(self, kind: str, key: str) -> str:
        if (kind, key) in self._known:
            return self._known[kind, key]
        number = 1 + sum(known == kind for known, _ in self._known)
        while (name := f"[{kind}_{number}]") in self._written or name in self._known.values():
            number += 1
        self._known[kind, key] = name
        return name


def house_values(chats: Sequence[Sequence[Message]]) -> frozenset[Value]:
    """The contacts of the house: what system prompts or assistants say unasked in several conversations.

    Without them a model would learn to send customers to ``[EMAIL_1]``. What stands in few of many system prompts is a
    customer's; of a few conversations it is in all of them.

    Args:
        chats: Of each its messages; several may be beginnings of one conversation.
    """
    told: dict[Value, set[str]] = {}
    said: dict[Value, set[str]] = {}
    conversations = _conversations(chats)
    for messages, about in zip(chats, conversations, strict=True):
        heard: set[Value] = set()
        for message in messages:
            values = values_of(message)
            if message.role in ("system", "assistant"):
                for value in values if message.role == "system" else values - heard:
                    (told if message.role == "system" else said).setdefault(value, set()).add(about)
            heard |= values
    count = len(set(conversations))
    enough = min(count, max(HOUSE_CHATS, HOUSE_SHARE * count))
    return frozenset(
        {value for value, where in told.items() if len(where) >= enough}
        | {value for value, where in said.items() if len(where) >= HOUSE_CHATS}
    )


def conversation_of(messages: Sequence[Message]) -> str:
    """Equal for chats that begin as one: with the same words up to the first answer to more than a greeting, but for
    spaces and capitals."""
    begins, asked = list[Message](), False
    for message in messages:
        begins.append(message)
        asked = asked or (message.role == "user" and len(message.content.split()) > GREETING_WORDS)
        if asked and message.role == "assistant":
            break
    return json.dumps(_said(begins))


def _conversations(chats: Sequence[Sequence[Message]]) -> list[str]:
    """The conversation of each chat: that of the longest one which it is the beginning of."""
    said = [_said(messages) for messages in chats]
    order = sorted(range(len(chats)), key=lambda n: said[n])
    found = [""] * len(chats)
    for n, longer in zip(reversed(order), [None, *reversed(order)], strict=False):
        goes_on = longer is not None and said[longer][: len(said[n])] == said[n]
        found[n] = found[longer] if goes_on and longer is not None else conversation_of(chats[n])
    return found


def _said(messages: Sequence[Message]) -> list[list[Any]]:
    """What was said, without what the system prompt says."""
    return [
        [m.role, normal(m.content), [[c.name, json.dumps(c.arguments, sort_keys=True)] for c in m.tool_calls]]
        for m in messages
        if m.role != "system"
    ]


def normal(text: str) -> str:
    """Equal for texts that differ in spaces and capitals alone."""
    return " ".join(text.casefold().split())


def values_of(message: Message) -> set[Value]:
    """`values_in` what a message says; of a tool's result that is JSON in its texts, not in how these are written."""
    redactor = Redactor()
    redactor.message(replace(message, tool_calls=()))
    return set(redactor._known)


def values_in(text: str) -> set[Value]:
    """Kind and key of everything in a text that `Redactor` would replace."""
    redactor = Redactor()
    redactor.text(text)
    return set(redactor._known)
