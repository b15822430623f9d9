"""Token ids to text, piece by piece: never half a character, never a stop string."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_TORN = 8
"""A character has four bytes, each of which may share its token with a byte of a neighbour."""


class TextStream:
    """Turns a growing list of ids into deltas of text.

    Text is held back while it ends in an unfinished UTF-8 character or could be the beginning of a stop string.

    Args:
        tokenizer: Decodes ids.
        stops: Strings that end the answer; they are not part of it.
        triggers: Strings that end the answer because a call begins with them.
        openings: Triggers only as the first words of the answer.
        before_trigger: Text that is no part of the answer where it stands right before a trigger.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: Sequence[str] = (),
        *,
        triggers: Sequence[str] = (),
        openings: Sequence[str] = (),
        before_trigger: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stop for stop in stops if stop)
        self._triggers, self._openings, self._before_trigger = (
            tuple(triggers),
            tuple(openings),
            before_trigger,
        )
        self._ids: list[int] = []
        self._settled = 0
        """Ids before this index are decoded for good; the rest is decoded again with the next token."""
        self._prefix = ""
        self.text = ""
        """Everything handed out so far."""
        self._pending = ""
        self.stopped = False
        self.triggered = False
        """It was a trigger that ended the answer."""

    def push(self, ids: Iterable[int]) -> str:
        """Add tokens and return the text that is now certain."""
        if self.stopped:
            return ""
        self._ids.extend(ids)
        window = self._decode(self._ids[self._settled :])
        if window.endswith("\ufffd"):
            return ""
        fresh = window[len(self._prefix) :]
        self._settle(window)
        return self._release(fresh)

    def _settle(self, window: str) -> None:
        """Shorten the window to the last whole character.

        At least a token stays in it, for some tokenizers decode one differently at the start; and no character is
        torn, for its last bytes alone would make rubbish of the bytes that follow.
        """
        for start in range(len(self._ids) - 1, max(len(self._ids) - _TORN, self._settled) - 1, -1):
            prefix = self._decode(self._ids[start:])
            if not prefix.startswith("\ufffd"):
                self._settled, self._prefix = start, prefix
                return
        self._prefix = window

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        if self.stopped:
            return ""
        ends = range(len(self._ids), max(len(self._ids) - _TORN, self._settled), -1)
        windows = [self._decode(self._ids[self._settled : end]) for end in ends] or [""]
        # Some decoders replace every byte beside a broken one: with less at the end more may be readable.
        window = max((window.rstrip("\ufffd") for window in windows), key=len)
        delta = self._release(window[len(self._prefix) :])
        rest, self._pending, self._prefix = self._pending, "", window
        self.text += rest
        return delta + rest

    def trigger(self) -> str:
        """End the answer here, for a token has come with which a call begins; the rest of the text."""
        window = self._decode(self._ids[self._settled :])
        return self._end(self._pending + window[len(self._prefix) :].rstrip("\ufffd"), triggered=True)

    def _end(self, text: str, *, triggered: bool) -> str:
        self.stopped, self.triggered = True, triggered
        self._pending = ""
        delta = text.removesuffix(self._before_trigger) if triggered else text
        self.text += delta
        return delta

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _release(self, fresh: str) -> str:
        text = self._pending + fresh
        ends = (*self._stops, *self._triggers)
        found = [(i, end in self._triggers) for end in ends if (i := text.find(end)) >= 0]
        if found:
            at, triggered = min(found)
            return self._end(text[:at], triggered=triggered)
        if self._openings and not self.text:
            first = text.lstrip()
            if first.startswith(self._openings):
                return self._end("", triggered=True)
            if any(opening.startswith(first) for opening in self._openings):
                self._pending = text
                return ""
        hold = max((_overlap(text, end) for end in ends), default=0)
        if self._before_trigger and text[: len(text) - hold].endswith(self._before_trigger):
            hold += len(self._before_trigger)
        self._pending = text[len(text) - hold :]
        delta = text[: len(text) - hold]
        self.text += delta
        return delta


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
