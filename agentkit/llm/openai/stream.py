"""An answer as it comes: bytes to events to text, within bounds."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from agentkit.errors import ModelError
from agentkit.events import Notice, TextDelta
from agentkit.llm.openai.answer import Answer, BadAnswer, TextFilter, read_chunk
from agentkit.llm.openai.exchange import Cancelled, TooMuch
from agentkit.llm.openai.server import AGAIN, Lost, Server
from agentkit.llm.openai.sse import EventReader
from agentkit.settings import SamplingSettings

_DONE = "[DONE]"
_BROKEN = re.compile(r"error|abort|cancel|insufficient|timeout|fail|interrupt", re.IGNORECASE)
"""Reasons to end that are no end of the answer: DeepSeek's ``insufficient_system_resource``, SGLang's ``abort``."""
_TOO_LONG = ("model_length", "max_tokens", "max_length")
"""Other names of ``length``."""
_FIRST = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?:data|event|id|retry)[:\r\n]|:[^\r\n]*[\r\n])")
"""How server-sent events begin: a field of theirs, or a comment, which is a whole line."""
_UNSURE = re.compile(rb"(?:\xef(?:\xbb\xbf?)?)?\s*(?:[deir][a-z]{0,4}|:[^\r\n]*)?\Z")
"""What may still become such a beginning."""
_SPARE_BYTES, _BYTES_PER_TOKEN = 2_000_000, 2_000
"""What is read of an answer at most: a chunk of one token takes about 300 bytes."""
_SPARE_CHARS, _CHARS_PER_TOKEN = 4_000, 64


class Silent(ModelError):
    """The server accepted the request and then said nothing at all."""


class Reader:
    """Reads one answer.

    Args:
        server: Where it comes from.
        sampling: How long it may be, and before which strings it ends.
    """

    def __init__(self, server: Server, sampling: SamplingSettings) -> None:
        self._server = server
        self._budget = sampling.max_new_tokens
        self._filter = TextFilter(sampling.stop)
        self._ended = self._heard = False
        self._heard_at = 0.0
        """When something came last that was no keep-alive."""
        self._cancel: threading.Event | None = None
        self.answer = Answer()
        self.first = 0.0
        """When the first text or call came."""

    def read(self, path: str, body: Any, cancel: threading.Event | None) -> Iterator[TextDelta | Notice]:
        """Send the request and yield the text of its answer; calls are in ``answer`` at the end.

        Raises:
            BadAnswer: A chunk cannot be read.
            ModelError: The server failed, or its answer has no end.
            Silent: It said nothing.
            Cancelled: ``cancel`` was set.
        """
        self._cancel, self._heard_at = cancel, 0.0
        limit = _SPARE_BYTES + _BYTES_PER_TOKEN * self._budget
        parts = self._server.post(path, body, limit, cancel)
        try:
            yield from self._events(parts)
        except TooMuch as error:
            if not self.answer.size:
                raise BadAnswer("it has no end") from error
            self._cut()
        except Lost:
            if self.answer.finish is None:  # else all was said, and only the farewell is missing
                raise
        finally:
            parts.close()  # type: ignore[attr-defined]  # also where the answer is cut here
        rest = self._filter.finish()
        if rest:
            yield TextDelta(rest)
        self._check_end()

    def _events(self, parts: Iterator[Notice | bytes]) -> Iterator[TextDelta | Notice]:
        events, whole = EventReader(), b""
        is_stream: bool | None = None
        for part in parts:
            if isinstance(part, Notice):
                yield part
                continue
            self._check_alive()
            if not is_stream:
                whole = (whole + part).lstrip()
            if is_stream is None and not _UNSURE.match(whole):
                is_stream, part = _FIRST.match(whole) is not None, whole
            if is_stream:
                found = events.feed(part)
                yield from self._take(found)
                if self._ended:
                    return
                if any(data.strip() for data in found):
                    self._heard_at = time.monotonic()
            elif part.strip():
                self._heard_at = time.monotonic()
        if is_stream:
            yield from self._take(events.finish())
        elif whole.strip():
            yield from self._take_whole(whole)

    def _check_alive(self) -> None:
        """A server may hang and go on sending comments, which keep the connection but say nothing."""
        timeout_s = self._server.timeout_s
        self._heard_at = self._heard_at or time.monotonic()
        if time.monotonic() - self._heard_at > timeout_s:
            cause = f"{self._server.address.base_url} sent nothing but keep-alives for {timeout_s:g} s"
            raise Lost(cause, "try again, or raise [remote] timeout_s")

    def _take(self, events: list[str]) -> Iterator[TextDelta]:
        for data in events:
            if self._ended:
                return
            if self._cancel is not None and self._cancel.is_set():
                raise Cancelled  # many events may have come at once
            self._heard = self._heard or bool(data.strip())
            if data.strip() == _DONE:
                calls = self.answer.calls
                if not calls or calls[-1].is_whole():  # half a call is no end
                    self.answer.finish = self.answer.finish or "stop"
                self._ended = True
            elif data.strip():
                yield from self._add(read_chunk(data))

    def _take_whole(self, body: bytes) -> Iterator[TextDelta]:
        """A server that does not stream sends one object."""
        self._heard = True
        try:
            chunk = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._server.no_json(body) from error
        if not isinstance(chunk, dict):
            raise BadAnswer("it is no object")
        yield from self._add(chunk)
        self.answer.finish = self.answer.finish or "stop"

    def _add(self, chunk: Any) -> Iterator[TextDelta]:
        if chunk.get("error") or chunk.get("object") == "error":
            said = self._server.error(chunk)
            raise ModelError(f"{self._server.address.base_url} failed while answering: {said}", "ask again")
        text = self._filter.push(self.answer.add(chunk))
        if self.answer.size and not self.first:
            self.first = time.perf_counter()
        if text:
            yield TextDelta(text)
        if self._filter.stopped:
            self.answer.finish, self._ended = "stop", True
        elif self.answer.size > _SPARE_CHARS + _CHARS_PER_TOKEN * self._budget:
            self._cut()

    def _cut(self) -> None:
        """It goes on far beyond what was asked for."""
        self.answer.finish, self._ended = "length", True

    def _check_end(self) -> None:
        if not self._heard and not self._ended:
            raise Silent(f"{self._server.address.base_url} gave an empty answer", "see the server's log")
        if not self.answer.has_choices:
            raise BadAnswer("it holds no choices")
        if _BROKEN.search(self.answer.finish or ""):
            reason = self._server.clean(self.answer.finish or "")
            raise Lost(f"{self._server.address.base_url} broke its answer off ({reason})", AGAIN)
        if self.answer.finish in _TOO_LONG:
            self.answer.finish = "length"
        if self.answer.finish is None:
            raise Lost(f"{self._server.address.base_url} ended in the middle of its answer", AGAIN)
