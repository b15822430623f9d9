"""Evidence, added to the model's scores while it writes a call: a grammar says what may come, this what is likely.

At every step the text written so far tells which argument is being written. The texts that the evidence would have
come next are put into tokens, and their first tokens get the evidence's weight on top of the model's own logits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from agentkit.llm.evidence import STRUCTURE, Parameter

if TYPE_CHECKING:
    import torch

    from agentkit.engine.decode import MaskProvider

_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"(: ?)?')
_AHEAD = 48
"""Characters of a continuation that decide about its first token."""


class Guided:
    """A grammar for calls whose arguments, written in JSON, are weighed by evidence.

    Args:
        grammar: Decides what is allowed.
        known: What is known about the parameters of a tool, by what stands before its arguments in the text.
        closing: What follows the arguments.
        encode: Text to token ids, without control tokens.
        decode: Token ids to text.
    """

    def __init__(
        self,
        grammar: MaskProvider,
        known: Mapping[str, Sequence[Parameter]],
        closing: str,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self._grammar, self._known, self._closing = grammar, known, closing
        self._decode = decode
        self._encode = lru_cache(maxsize=1024)(lambda text: tuple(encode(text)))
        self._ids: list[int] = []

    @property
    def complete(self) -> bool:
        return self._grammar.complete

    def accept(self, token: int) -> None:
        self._grammar.accept(token)
        self._ids.append(token)

    def forced(self) -> list[int]:
        tokens = self._grammar.forced()
        self._ids += tokens
        return tokens

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """The grammar's mask, then the weights."""
        logits = self._grammar.mask(logits, remaining)
        weights = self.weights()
        if weights:
            logits = logits.clone()
            for token, weight in weights.items():
                logits[token] += weight
        return logits

    def weights(self) -> dict[int, float]:
        """Nats for the tokens with which the likely continuations begin."""
        weights: dict[int, float] = {}
        for text, weight in self.continuations(self._decode(self._ids)):
            ids = self._encode(text[:_AHEAD])
            if ids and not abs(weights.get(ids[0], 0.0)) > abs(weight):
                weights[ids[0]] = weight
        return weights

    def continuations(self, written: str) -> list[tuple[str, float]]:
        """What the evidence would have come next, with its weight."""
        at, head = max(((written.rfind(head), head) for head in self._known), default=(-1, ""))
        if at < 0:
            return []
        body, parameters = written[at + len(head) :], self._known[head]
        used, tail = _members(body)
        key = _KEY.match(tail.lstrip(", "))
        names = [parameter.name for parameter in parameters]
        if key is None or not key[2] or key[1] not in names:
            follow = self._follow(parameters, next(reversed(used), None))
            return [(follow[len(tail) :], STRUCTURE)] if follow.startswith(tail) else []
        value = tail.lstrip(", ")[key.end() :]
        gap = "" if key[2] == ": " or value else " "
        follow = self._follow(parameters, key[1])
        offered = parameters[names.index(key[1])].candidates
        own = [candidate for candidate in offered if candidate.json not in used.values()] or offered
        found = [
            (gap + candidate.json[len(value) :] + follow, candidate.weight)
            for candidate in own
            if candidate.json.startswith(value)
        ]
        if _finished(value):
            more = any(c.json != value and c.json.startswith(value) for c in own)
            found.append((follow, -STRUCTURE / 2 if more else STRUCTURE / 2))
        elif value.startswith('"'):
            other = "}" + self._closing if follow.startswith(",") else ", "
            found.append(('"' + other, -STRUCTURE))
        return found

    def _follow(self, parameters: Sequence[Parameter], last: str | None) -> str:
        """What comes after the argument ``last``: the next one that is wanted, or the end."""
        names = [parameter.name for parameter in parameters]
        start = names.index(last) + 1 if last in names else 0
        following = next((p.name for p in parameters[start:] if p.weight > 0), None)
        if following is None:
            return "}" + self._closing
        return (", " if last is not None else "") + f'"{following}": '


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
                members[key[1]] = member[key.end() :]
            start = n
    return members, body[start:]


def _finished(value: str) -> bool:
    return bool(re.fullmatch(r'-?\d+(\.\d+)?|true|false|null|"(?:[^"\\]|\\.)*"|\[.*\]', value, re.DOTALL))
