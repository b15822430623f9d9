"""What the model reads of a conversation that has outgrown its context.

The policy: first the results of the oldest tool calls are replaced by a marker, then the oldest turns are left out.
System message, tools and the turn under way stay. Only where that turn is too long by itself, the older of its own
results are marked too. Nothing is deleted from the session.

The cut is found by walking through the conversation as it grew, message by message, so that it depends on nothing
but the messages: nothing needs to be stored, and every later turn finds the same cut again. A cut makes room for a
quarter of the context. Until that is used up the model reads the same beginning, and has it in its cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentkit.llm.formats import GENERIC
from agentkit.messages import Message, ToolResult

MARKER = "[result left out]"
"""What stands in place of a result."""

_SLACK = 1 / 4
"""Share of the context that a cut makes free."""

Room = Callable[[Sequence[Message]], int | None]
"""Tokens the context has left after some messages; None where unknown."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """A conversation as the model reads it."""

    messages: list[Message]
    results: int = 0
    """Tool results replaced by a marker."""
    turns: int = 0
    """Turns left out."""

    def __str__(self) -> str:
        """What was left out, in words."""
        parts = []
        if self.results:
            parts.append(f"{_count(self.results, 'older tool result')}")
        if self.turns:
            parts.append(f"the oldest {_count(self.turns, 'turn')}")
        return " and ".join(parts)


def compact(messages: Sequence[Message], room: Room, reserved: int) -> Compacted:
    """Fit a conversation into the context, with ``reserved`` tokens left for the answer.

    What cannot be fitted, because the last turn is too long, comes back as short as the policy allows.
    """
    left = room(messages)
    if left is None or left >= reserved:
        return Compacted(list(messages))
    head = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
    tokens = _Tokens(room)
    budget = tokens.left(messages[:head]) - reserved
    sizes = [tokens.count(message) for message in messages]
    marker = tokens.count(Message("tool", MARKER))
    # Sizes taken message by message are a few tokens off: if the sum is too, a little less has to do.
    for share in (1.0, 0.95, 0.9, 0.8, 0.6):
        walk = _Walk(messages, sizes, marker, head, int(budget * share))
        found = walk.result()
        if (room(found.messages) or 0) >= reserved:
            break
    return found


def fitted(
    result: ToolResult, opening: Sequence[Message], room: Room, reserved: int, results: int = 1
) -> ToolResult:
    """A tool's result, cut where the context has no room for it twice: once as it is, once to be put into words.

    Args:
        result: Of a call of the turn under way.
        opening: What the model reads in any case: the system message and the question.
        room: Tokens the context has left.
        reserved: Tokens for the answer.
        results: How many results share the room.
    """
    left = room(opening)
    if left is None:
        return result
    most = max(0, left - reserved) // (2 * results + 1)
    content = result.content()
    if len(content.encode(errors="replace")) <= most:  # a token has a byte at least
        return result

    def fits(text: str) -> bool:
        longer = [*opening, Message("tool", text, (), "", result.name)]
        return left - (room(longer) or 0) <= most

    if fits(content):
        return result
    whole = result.value if result.ok else result.error
    text = whole if isinstance(whole, str) else json.dumps(whole, ensure_ascii=False)
    short, long = 0, len(text)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if fits(_beginning(result, text[:middle]).content()) else (short, middle)
    return _beginning(result, text[:short])


def _beginning(result: ToolResult, text: str) -> ToolResult:
    """The result with only this of its text."""
    if result.ok:
        return replace(result, value=text, truncated=True)
    return replace(result, error=text, truncated=True)


class _Tokens:
    """Counts the tokens of single messages by the room that they take away."""

    def __init__(self, room: Room) -> None:
        self._room = room
        nothing = Message("user", "")
        self._empty = room([nothing]) or 0
        between = self._empty - (room([nothing, Message("assistant", ""), nothing]) or 0)
        self._frame = -(-between // 2)  # what the template puts around a message

    def left(self, messages: Sequence[Message]) -> int:
        return (self._room([*messages, Message("user", "")]) or 0) + self._frame

    def count(self, message: Message) -> int:
        if message.role != "tool":  # by its text: a template may refuse to begin with an assistant
            text = "\n".join((message.content, *GENERIC.calls(message.tool_calls)))
            message = Message("user", text)
        return self._empty - (self._room([message]) or 0) + self._frame


class _Walk:
    """The cut after each message of a growing conversation; it only moves when the budget is exceeded."""

    def __init__(
        self, messages: Sequence[Message], sizes: list[int], marker: int, head: int, budget: int
    ) -> None:
        self._messages, self._sizes, self._marker, self._head = messages, list(sizes), marker, head
        self._budget, self._goal = budget, budget - int(max(budget, 0) * _SLACK)
        self._used = 0
        self._start = head
        """The first message that is kept."""
        self._turns: list[int] = []
        """Where turns begin."""
        self._marked: set[int] = set()
        for n in range(head, len(messages)):
            self._used += self._sizes[n]
            if not self._turns or self._begins_turn(n):
                self._turns.append(n)
            if self._used > self._budget:
                self._cut(n)

    def result(self) -> Compacted:
        kept = [
            replace(self._messages[n], content=MARKER) if n in self._marked else self._messages[n]
            for n in range(self._start, len(self._messages))
        ]
        marked = sum(n >= self._start for n in self._marked)
        turns = sum(n < self._start for n in self._turns)
        return Compacted([*self._messages[: self._head], *kept], marked, turns)

    def _begins_turn(self, n: int) -> bool:
        """A context message behind a result goes on with the turn, though a user's by its role."""
        message = self._messages[n]
        goes_on = message.meta.get("kind") == "context" and self._messages[n - 1].role == "tool"
        return message.role == "user" and not goes_on

    def _cut(self, last: int) -> None:
        turn = self._turns[-1]
        self._mark(range(self._start, turn))
        for start in self._turns:
            if self._used <= self._goal:
                return
            if start > self._start:
                self._used -= sum(self._sizes[self._start : start])
                self._start = start
        if self._used > self._budget:
            results = [n for n in range(turn, last + 1) if self._messages[n].role == "tool"]
            self._mark(results[:-1])

    def _mark(self, candidates: Sequence[int]) -> None:
        """Replace results, the oldest first, until the goal is reached."""
        for n in candidates:
            if self._used <= self._goal:
                return
            if self._messages[n].role == "tool" and self._sizes[n] > self._marker:
                self._used -= self._sizes[n] - self._marker
                self._sizes[n] = self._marker
                self._marked.add(n)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
