"""Evidence, added to the model's scores while it writes a call: a grammar says what may come, this what is likely.

At every step the text written so far tells which argument is being written. The texts that the evidence would have
come next are put into tokens, and their first tokens get the evidence's weight on top of the model's own logits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from agentkit.llm.evidence import ASSIGNED, POSSIBLE, STRUCTURE, Candidate, Parameter
from agentkit.llm.formats.base import Markup

if TYPE_CHECKING:
    import torch

    from agentkit.llm.grammar import Grammar

Cut = Literal["value", "end"] | None
"""What the budget did to an output: a value is shorter than the model would have it, or nothing follows that it would
have said; none where it is all there."""
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"(: ?)?')
_FINISHED = re.compile(
    r'-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|"(?:[^"\\]|\\.)*"|\[.*\]', re.DOTALL
)
_CONTEXT = 4
"""Tokens before the new ones that decide how they are decoded: some tokenizers drop a space at the beginning."""
_AHEAD = 64
"""Characters of a continuation that are put into tokens."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How far evidence counts beside a model's own scores. 1 suits a small model that was not tuned to call tools; one
    that was knows better than any rule how many calls a turn asks for."""

    values: float = 1.0
    """Which arguments a call has, and what they are."""
    calls: float = 1.0
    """Whether another call follows."""


FULL = Strength()
NO_EVIDENCE = Strength(0.0, 0.0)
NAMED = 4.0
"""Weight of the tool that the turn's words speak of, for the first call."""
ENOUGH = 3.0
"""Weight of the end, once all that the turn was found to ask for has been called."""
CUT = 12.0
"""Against the end of a number of which the turn says more: 8.854 of 8.854e-12."""
DIGITS = "0123456789"


@dataclass(frozen=True, slots=True)
class CallText:
    """What a format writes around the arguments of a call, control tokens by their texts."""

    tails: Sequence[str]
    """What may come after the arguments: where calls have ids, something else after each."""
    between: str
    """Between one call and the next."""
    ending: str
    """After the last call."""
    ends: frozenset[int]
    """Tokens that end a message."""
    control: Mapping[str, int] = field(default_factory=dict)
    """Which parts of these texts, and of what stands before the arguments, are control tokens."""

    def plain(self, text: str) -> str:
        """The beginning of a text, up to its first control token."""
        return text[: min((text.find(mark) for mark in self.control if mark in text), default=len(text))]


class Guided:
    """A grammar for calls whose arguments, written in JSON, are weighed by evidence.

    Args:
        grammar: Decides what is allowed.
        known: What is known about the parameters of a tool in its first call, its second and so on, by what stands
            before its arguments in the text.
        around: What stands around the arguments.
        encode: Text to token ids, without control tokens.
        decode: Token ids to text.
        strength: Factors for the weights.
        order: The calls that the turn asks for, where it tells: what stands before the arguments, and a factor for how
            sure that is.
    """

    def __init__(
        self,
        grammar: Grammar,
        known: Mapping[str, Sequence[Sequence[Parameter]]],
        around: CallText,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
        strength: Strength = FULL,
        order: Sequence[tuple[str, float]] = (),
    ) -> None:
        self._grammar, self._known, self._around = grammar, known, around
        self._closing = around.plain(around.tails[0])
        self._order = order
        every = (call for calls in known.values() for call in calls)
        self._said = {c.json for call in every for parameter in call for c in parameter.candidates}
        self._strength = strength
        self._decode = decode
        self._encode = encode
        self._ids: list[int] = []
        self._text, self._read = "", 0
        self._paths: list[tuple[Sequence[int], float]] = []
        """What the evidence would have come next, as tokens; while the model follows one, nothing is read anew."""
        self._stale = True
        self._number = False
        """Whether a number is being written: it is read anew at every token, as its digits decide what may end it."""

    @property
    def complete(self) -> bool:
        return self._grammar.complete

    @property
    def cut(self) -> Cut:
        """What the budget did to the output."""
        return self._grammar.cut

    def accept(self, token: int) -> None:
        self._grammar.accept(token)
        self._advance([token])

    def forced(self) -> list[int]:
        tokens = self._grammar.forced()
        self._advance(tokens)
        return tokens

    def _advance(self, tokens: Sequence[int]) -> None:
        self._ids += tokens
        for token in tokens:
            followed = [(ids[1:], w) for ids, w in self._paths if w > 0 and len(ids) > 1 and ids[0] == token]
            # What would end a value too soon would do so until it is whole.
            keep = followed and not self._number
            self._paths = followed + [path for path in self._paths if path[1] < 0] if keep else []
        self._stale = not self._paths

    def allows(self, draft: Sequence[int]) -> int:
        return self._grammar.allows(draft)

    def permits(self, token: int, remaining: int) -> bool:
        weights = self.weights()
        best = max(weights.values(), default=0.0)
        return weights.get(token, 0.0) >= max(best, 0.0) and self._grammar.permits(token, remaining)

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """The grammar's mask, then the weights."""
        logits = self._grammar.mask(logits, remaining)
        for token, weight in self.weights().items():
            logits[token] += weight
        return logits

    def weights(self) -> dict[int, float]:
        """Nats for the tokens with which the likely continuations begin."""
        if self._stale:
            self._stale = self._number = False
            self._paths = []
            for text, weight in self.continuations(self._written()):
                if isinstance(text, Markup):
                    self._paths.append(((self._around.control[text],), weight))
                elif text:
                    self._paths.append((self._encode(text[:_AHEAD]), weight))
                else:
                    self._paths += [((token,), weight) for token in self._around.ends]
        weights: dict[int, float] = {}
        for ids, weight in self._paths:
            if ids and not abs(weights.get(ids[0], 0.0)) > abs(weight):
                weights[ids[0]] = weight
        return weights

    def _written(self) -> str:
        """The text so far; only its end is decoded anew."""
        start = max(0, self._read - _CONTEXT)
        before, now = self._decode(self._ids[start : self._read]), self._decode(self._ids[start:])
        if now.endswith("\ufffd"):  # half a character
            return self._text + now[len(before) :]
        self._text, self._read = self._text + now[len(before) :], len(self._ids)
        return self._text

    def continuations(self, written: str) -> list[tuple[str, float]]:
        """What the evidence would have come next, with its weight.

        The empty text is the end, a `Markup` a control token; no other text holds one, whatever it says.
        """
        found = ((written.rfind(head), head) for head in self._known)
        # of heads that end alike the longest is the one written
        at, head = max(found, key=lambda pair: (pair[0] >= 0, pair[0] + len(pair[1]), len(pair[1])))
        if at < 0:
            return self._named(written)
        number, calls = written.count(head) - 1, self._known[head]
        parameters = calls[min(number, len(calls) - 1)]
        used, tail = _members(written[at + len(head) :])
        after = _closed(tail) if "}" in tail else None
        if after is not None:
            return self._after(after, written)
        return [
            (text, weight * self._strength.values)
            for text, weight in self._arguments(parameters, used, tail, beyond=number >= len(calls))
        ]

    def _next(self, written: str) -> tuple[str, float] | None:
        """The first call that the turn asks for and that is not there yet; none where all are."""
        there = {head: written.count(head) for head, _ in self._order}
        for head, sure in self._order:
            there[head] -= 1
            if there[head] < 0:
                return head, sure
        return None

    def _named(self, written: str) -> list[tuple[str, float]]:
        """While the name of the first call is being written."""
        if not self._order or not self._strength.calls:
            return []
        head, sure = self._order[0]
        most = next((n for n in range(len(head) - 1, 0, -1) if written.endswith(head[:n])), 0)
        return [(self._piece(head[most:]), NAMED * sure * self._strength.calls)] if most else []

    def _piece(self, text: str) -> str:
        """Of a text around the arguments what comes before its first control token, or that token."""
        plain = self._around.plain(text)
        if plain or not text:
            return plain
        return Markup(next(mark for mark in self._around.control if text.startswith(mark)))

    def _arguments(
        self, parameters: Sequence[Parameter], used: dict[str, str], tail: str, *, beyond: bool
    ) -> list[tuple[str, float]]:
        """Within the arguments of a call, ``beyond`` those that the turn was found to ask for."""
        key = _KEY.match(tail.lstrip(", "))
        names = [parameter.name for parameter in parameters]
        name = _name(key)
        if key is None or not key[2] or name not in names:
            follow = self._follow(parameters, next(reversed(used), None))
            return [(follow[len(tail) :], STRUCTURE)] if follow.startswith(tail) else []
        value = tail.lstrip(", ")[key.end() :]
        offered = parameters[names.index(name)].candidates
        # "2 rooms for 2 adults": numbers may be the same, what has a name is rarely meant twice
        free = (
            c
            for c in offered
            if c.json not in used.values() or (c.weight >= ASSIGNED and not c.json.startswith('"'))
        )
        own = list(free) or offered
        if beyond:
            own = [replace(candidate, weight=min(candidate.weight, POSSIBLE)) for candidate in own]
        return self._value(value, own, self._follow(parameters, name), "" if key[2] == ": " or value else " ")

    def _value(
        self, value: str, candidates: Sequence[Candidate], follow: str, gap: str
    ) -> list[tuple[str, float]]:
        """While a value is being written, of which ``value`` is there already."""
        found = [
            (gap + c.json[len(value) :] + follow, c.weight) for c in candidates if c.json.startswith(value)
        ]
        if _finished(value):
            own = max((c.weight for c in candidates if c.json == value), default=0.0)
            more = any(c.json != value and c.json.startswith(value) and c.weight >= own for c in candidates)
            further = STRUCTURE if follow.startswith(",") else STRUCTURE / 2
            if more:
                further = -STRUCTURE / 2 if own else -CUT
            found.append((follow, further))
            self._number = value[0] in "-" + DIGITS
            if own and self._number:
                found += [(digit, -STRUCTURE) for digit in DIGITS if not self._is_said(value + digit)]
        elif value.startswith('"') or any(c.json.startswith('"') for c in candidates):
            other = "}" + self._closing if follow.startswith(",") else ","
            found.append(('"' + other, -STRUCTURE))
        elif candidates and value[:1] not in ("[", "{"):
            self._number = True
            found.append((follow, -STRUCTURE / 2))  # no number ends before all of it has been written
        return found

    def _is_said(self, beginning: str) -> bool:
        """Whether a number that the turn speaks of begins so: a comma of "1,5 and 10" can make a 15 of the first."""
        return any(said.startswith(beginning) for said in self._said)

    def _after(self, rest: str, written: str) -> list[tuple[str, float]]:
        """Behind the arguments: the next call that the turn asks for, or the end."""
        around = self._around
        tail = next((tail for tail in around.tails if rest.startswith(tail)), None)
        if tail is None or not self._order or not self._strength.calls:
            return []
        rest, following = rest[len(tail) :], self._next(written)
        more, weight = around.ending, ENOUGH
        if following is not None:
            more, weight = around.between + following[0], STRUCTURE * following[1]
        if not more.startswith(rest) or (rest and rest == more):
            return []
        return [(self._piece(more[len(rest) :]), weight * self._strength.calls)]

    def _follow(self, parameters: Sequence[Parameter], last: str | None) -> str:
        """What comes after the argument ``last``: the next one that is wanted, or the end."""
        names = [parameter.name for parameter in parameters]
        start = names.index(last) + 1 if last in names else 0
        following = next((p.name for p in parameters[start:] if p.weight > 0), None)
        if following is None:
            return "}" + self._closing
        # Without the space behind the colon: in most vocabularies it belongs to the value's first token.
        return (", " if last is not None else "") + f"{json.dumps(following, ensure_ascii=False)}:"


def _name(key: re.Match[str] | None) -> str:
    """A member's key as the schema has it, without escapes."""
    if key is None:
        return ""
    try:
        return str(json.loads(f'"{key[1]}"', strict=False))
    except ValueError:  # not the arguments: a text that looks like a call
        return key[1]


def _members(body: str) -> tuple[dict[str, str], str]:
    """The finished members of a JSON object without its opening brace, key to value, and what follows them."""
    members: dict[str, str] = {}
    start = depth = 0
    quoted = escaped = False
    for n, letter in enumerate(body):
        if quoted:
            quoted, escaped = escaped or letter != '"', not escaped and letter == "\\"
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            member = body[start:n].lstrip(", ")
            if key := _KEY.match(member):
                members[_name(key)] = member[key.end() :]
            start = n
    return members, body[start:]


def _closed(tail: str) -> str | None:
    """What follows the brace that closes the arguments; none while they are open."""
    depth, quoted, escaped = 0, False, False
    for n, letter in enumerate(tail):
        if quoted:
            quoted, escaped = escaped or letter != '"', not escaped and letter == "\\"
        elif letter == '"':
            quoted = True
        else:
            depth += (letter in "[{") - (letter in "]}")
            if depth < 0:
                return tail[n + 1 :]
    return None


def _finished(value: str) -> bool:
    return bool(_FINISHED.fullmatch(value))
