"""What a server has said so far: its chunks put together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentkit.messages import Usage

_CALL_CHARS = 16
"""What a call counts for that says nothing."""


class BadAnswer(Exception):
    """A chunk is not what the protocol says; the message says how."""


@dataclass(slots=True)
class CallDraft:
    """A call as far as it has come; nothing in it has been checked."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def is_whole(self) -> bool:
        """Whether the arguments are a complete object, which nothing can continue."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


@dataclass(slots=True)
class Answer:
    """The chunks of one answer, added up."""

    calls: list[CallDraft] = field(default_factory=list)
    finish: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    has_choices: bool = False
    refused: bool = False
    """The model said that it will not answer; its text says why."""
    size: int = 0
    """Characters of text and calls."""
    _has_list: bool = False
    """Calls come as ``tool_calls``."""
    _by_index: dict[int, CallDraft] = field(default_factory=dict)

    def add(self, chunk: Mapping[str, Any]) -> str:
        """Take a chunk, or a whole completion from a server that does not stream.

        Returns:
            The text in it.

        Raises:
            BadAnswer: It cannot be read.
        """
        self._count(chunk.get("usage"))
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return ""  # the chunk of the usage, or of something unknown
        choice = choices[0]
        if not isinstance(choice, Mapping):
            raise BadAnswer("a choice is no object")
        if choice.get("index", 0) not in (0, None):
            return ""
        self.has_choices = True
        reason = choice.get("finish_reason")
        self.finish = str(reason) if reason else self.finish
        body = choice.get("delta") or choice.get("message") or {}
        if not isinstance(body, Mapping):
            raise BadAnswer("a delta is no object")
        calls = body.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
            raise BadAnswer("tool_calls is no list of objects")
        for call in calls:
            self._add_call(call)
        self._has_list = self._has_list or bool(calls)
        if body.get("function_call") and not self._has_list:
            # The form before tool_calls, which has one call only; llama-cpp-python sends the same call in both.
            self._add_call({"index": 0, "function": body["function_call"]})
        text, refusal = _text(body.get("content")), _text(body.get("refusal"))
        self.refused = self.refused or bool(refusal)
        text += refusal
        self.size += len(text)
        return text

    def usage(self, started: float, first: float, now: float) -> Usage:
        """As far as the server reports it; 0 where it does not."""
        ttft = (first or now) - started
        return Usage(self.prompt_tokens, self.cached_tokens, self.completion_tokens, 0, ttft, now - started)

    def _add_call(self, body: Mapping[str, Any]) -> None:
        function = body.get("function") or {}
        if not isinstance(function, Mapping):
            raise BadAnswer("a call's function is no object")
        raw = function.get("arguments")
        more = raw if isinstance(raw, str) else "" if raw is None else json.dumps(raw)
        name = str(function.get("name") or "")
        draft = self._draft(body.get("index"), str(body.get("id") or ""), name, more)
        draft.name = draft.name or name  # some repeat it in every chunk
        draft.arguments += more
        self.size += len(more) + len(name)

    def _draft(self, index: Any, id: str, name: str, more: str) -> CallDraft:
        """The call that a piece belongs to. Not every server numbers them, and some give every call number 0."""
        if isinstance(index, int):
            draft = self._by_index.get(index)
        elif id:
            draft = next((call for call in self.calls if call.id == id), None)
        else:
            draft = self.calls[-1] if self.calls else None
        # A call begins with its name: some servers give each of its pieces another id.
        other_id = draft is not None and name and id and draft.id and id != draft.id
        if draft is None or other_id or (name and more and draft.is_whole()):
            draft = CallDraft(id)
            self.calls.append(draft)
            self.size += _CALL_CHARS
            if isinstance(index, int):
                self._by_index[index] = draft
        return draft

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, Mapping):
            return
        self.prompt_tokens = _number(usage.get("prompt_tokens")) or self.prompt_tokens
        self.completion_tokens = _number(usage.get("completion_tokens")) or self.completion_tokens
        details = usage.get("prompt_tokens_details")
        if isinstance(details, Mapping):
            self.cached_tokens = _number(details.get("cached_tokens")) or self.cached_tokens


def read_chunk(data: str) -> Mapping[str, Any]:
    """The JSON object of one event.

    Raises:
        BadAnswer: It is none.
    """
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadAnswer("a chunk is no JSON") from error
    if not isinstance(chunk, Mapping):
        raise BadAnswer("a chunk is no object")
    return chunk


class TextFilter:
    """Holds back what may be the beginning of a stop string, or half a character.

    Args:
        stop: The text ends before any of these, whether or not the server sees to it.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = [text for text in stop if text]
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What may be shown now that ``text`` has come."""
        if self.stopped:
            return ""
        self._held += text
        found = min((at for s in self._stop if (at := self._held.find(s)) >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return self._take(found)
        return self._take(len(self._held) - self._unsure())

    def finish(self) -> str:
        """What was still held back."""
        return "" if self.stopped else self._take(len(self._held))

    def _take(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        # JSON writes some characters as two escapes, which servers send together or in two chunks
        return shown.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if shown else ""

    def _unsure(self) -> int:
        """Length of the end that only what follows can settle."""
        longest = max((len(text) for text in self._stop), default=0)
        for length in range(min(longest - 1, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-length:]) for s in self._stop):
                return length
        return int("\ud800" <= self._held[-1:] <= "\udbff")


def _text(content: Any) -> str:
    """Text, or a list of parts of which some are text."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    raise BadAnswer("the content is no text")


def _number(value: Any) -> int:
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53
    return value if counts else 0
