"""Server-sent events out of bytes that are cut anywhere.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6, of which the data alone matters.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Collects bytes and returns the data of the events that are complete."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        """How much of the rest is known to hold no line end: a line may come in thousands of pieces."""
        self._data: list[str] = []
        self._first = True

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes.

        Returns:
            The data of each event that ended in them, its lines joined by ``\\n``.
        """
        self._rest += data
        events: list[str] = []
        start = 0
        while found := _LINE_END.search(self._rest, max(start, self._searched)):
            if found.group() == b"\r" and found.end() == len(self._rest):
                break  # the other half of a line end may be on its way
            self._line(bytes(self._rest[start : found.start()]), events)
            start = found.end()
        del self._rest[:start]
        self._searched = max(0, len(self._rest) - 1)
        return events

    def finish(self) -> list[str]:
        """Whatever is left when the stream has ended: many servers leave out the last blank line."""
        events: list[str] = []
        for line in (bytes(self._rest).rstrip(b"\r"), b""):
            self._line(line, events)
        self._rest.clear()
        self._searched = 0
        return events

    def _line(self, line: bytes, events: list[str]) -> None:
        text = line.decode("utf-8", "replace")  # whole lines, so no character is cut
        if self._first:
            self._first, text = False, text.removeprefix("\ufeff")
        if not text:
            if self._data:
                events.append("\n".join(self._data))
                self._data = []
            return
        field, _, value = text.partition(":")
        if field == "data":  # a comment has no field name; event, id and retry say nothing here
            self._data.append(value.removeprefix(" "))
