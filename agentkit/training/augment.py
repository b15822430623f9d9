"""Chats read with variations, anew in each pass; what the assistant says stays as it is.

- Tools stand in another order, so that a model does not learn their places (arXiv:2409.03215, section 4).
- Users type carelessly: a letter swapped, left out or doubled, no capitals, no mark at the end. Models that are trained
  on such noise are less disturbed by it (arXiv:1711.02173); calls of functions are (arXiv:2504.00914).

What an argument could be copied or computed from is left alone: every word that an assistant says or puts into a call,
and every number, date, address, quote and name. Whatever is drawn depends on the seed, the pass and what has been said
so far, so that chats that begin alike go on doing so, and what they share is still read once.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agentkit.llm.spans import spans
from agentkit.messages import Message, ToolSpec
from agentkit.training.data import Example, Row, encode_one

if TYPE_CHECKING:
    from agentkit.llm.encoding import ChatEncoder

TYPOS = 0.1
"""Share of the words of an altered turn that are mistyped."""
LONGEST = 400
"""Characters of a turn; what is longer was pasted, not typed."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_END = re.compile(r"(?<=[^\s.?!])[.?!]+\s*$")


@dataclass
class Said:
    """What must not be altered in a turn, by the assistants of all chats that begin like this one."""

    words: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=set)


class Augmenter:
    """Variations of the rows that are learned from.

    Args:
        rows: As `data.encode` gives them.
        encoder: That encoded them.
        context_length: Tokens per row, at most.
        system: System prompt for chats that have none.
        rate: Share of the user turns, and of the sets of tools, that are altered in a pass.
        seed: Of the run.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        encoder: ChatEncoder,
        context_length: int,
        *,
        system: str = "",
        rate: float,
        seed: int,
    ) -> None:
        self._rows = [row for row in rows if row.split == "train"]
        self._encoder, self._length, self._system = encoder, context_length, system
        self._rate, self._seed = rate, seed
        self._said: dict[str, Said] = defaultdict(Said)
        for row in self._rows:
            if row.example is not None:
                words, values = _spoken(row.example.messages)
                for _, key in _turns(row.example):
                    self._said[key].words |= words
                    self._said[key].values |= values

    def rows(self, epoch: int) -> list[Row]:
        """The rows of a pass, in the order of those they were made from.

        A chat that would no longer fit into the context is read as it is.
        """
        return [self._varied(row, epoch) for row in self._rows]

    def _varied(self, row: Row, epoch: int) -> Row:
        if row.example is None:
            return row
        varied = self._example(row.example, epoch)
        if varied == row.example:
            return row
        found = encode_one(varied, self._encoder, self._length, system=self._system)
        return row if found is None else replace(found, weight=row.weight, example=row.example)

    def _example(self, example: Example, epoch: int) -> Example:
        messages = list(example.messages)
        for number, key in _turns(example):
            chance = self._chance(epoch, key)
            if chance.random() < self._rate:
                text = altered(messages[number].content, chance, self._said[key])
                messages[number] = replace(messages[number], content=text)
        tools = self._ordered(example.tools, epoch) if example.describe_tools else example.tools
        return replace(example, messages=tuple(messages), tools=tools)

    def _ordered(self, tools: tuple[ToolSpec, ...], epoch: int) -> tuple[ToolSpec, ...]:
        chance = self._chance(epoch, _key_of(tools))
        if chance.random() >= self._rate:
            return tools
        found = sorted(tools, key=lambda tool: tool.name)
        chance.shuffle(found)
        return tuple(found)

    def _chance(self, epoch: int, key: str) -> random.Random:
        return random.Random(f"{self._seed} {epoch} {key}")


def altered(text: str, chance: random.Random, said: Said) -> str:
    """A user's turn as somebody careless would have typed it."""
    if len(text) > LONGEST:
        return text
    fixed = [(span.start, span.end) for span in spans(text) if span.kind != "phrase"]
    is_lower, is_open = chance.random() < 0.5, chance.random() < 0.5

    def retyped(match: re.Match[str]) -> str:
        word = match[0]
        mistyped = chance.random() < TYPOS  # drawn for every word, so that one that is fixed moves no other
        typo = _typo(word, chance)
        if word.casefold() in said.words or any(a < match.end() and match.start() < b for a, b in fixed):
            return word
        found = typo if mistyped and typo.casefold() not in said.words else word
        return found.lower() if is_lower else found

    found = _WORD.sub(retyped, text)
    end = _END.search(text)
    if is_open and end and all(stop <= end.start() for _, stop in fixed):
        found = _END.sub("", found)
    kept = all(found.count(value) >= text.count(value) for value in said.values)
    return found if kept else text


def _typo(word: str, chance: random.Random) -> str:
    """The word with two letters within swapped, one left out or one doubled; short words stay."""
    kind, where = chance.randrange(3), chance.random()
    if len(word) < 4 or not word.isalpha():
        return word
    at = 1 + int(where * (len(word) - 3))  # neither the first letter nor the last
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return (swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:])[kind]


def _turns(example: Example) -> Iterator[tuple[int, str]]:
    """Number of each user turn, and a key that is the same where all that was said until then is."""
    said = hashlib.sha256(_key_of(example.tools if example.describe_tools else ()).encode())
    for number, message in enumerate(example.messages):
        calls = [[call.name, call.arguments] for call in message.tool_calls]
        said.update(json.dumps([message.role, message.content, calls]).encode())
        if message.role == "user":
            yield number, said.hexdigest()


def _key_of(tools: Sequence[ToolSpec]) -> str:
    """The same for the same tools in whichever order."""
    return json.dumps(sorted(json.dumps(tool.to_openai(), sort_keys=True) for tool in tools))


def _spoken(messages: Sequence[Message]) -> tuple[set[str], set[str]]:
    """Words of all that assistants say and call with, and the values of their arguments as text."""
    said, values = [], set()
    for message in messages:
        if message.role == "assistant":
            found = [value for call in message.tool_calls for value in _leaves(call.arguments)]
            said += [message.content, *found]
            values |= {value for value in found if value}
    return {word.casefold() for text in said for word in _WORD.findall(text)}, values


def _leaves(value: Any) -> Iterator[str]:
    """Keys and values within a JSON value, as text."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value if isinstance(value, str) else json.dumps(value)
