"""Sessions in SQLite: every message is committed, and synced to disk, before `Session.append` returns.

One database holds all sessions of a project. A message is one JSON body, so text of any kind (lone
surrogates and NUL included) comes back as it went in. A damaged database is reported, never touched.
"""

from __future__ import annotations

import difflib
import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from agentkit.database import Database, exclusive
from agentkit.errors import NotFoundError, StoreError, UsageError
from agentkit.messages import Message, ToolCall, ToolResult

SCHEMA_VERSION = 2
APPLICATION_ID = 0x61676B74  # "agkt"
TITLE_CHARS = 60
INTERRUPTED = "interrupted: the program ended before this call finished; it may or may not have taken effect"

_SCHEMA = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL, parent TEXT,
    rating TEXT);
CREATE TABLE messages (
    session TEXT NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
    position INTEGER NOT NULL, created TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (session, position)) WITHOUT ROWID;
"""
_UPGRADES = {1: "ALTER TABLE sessions ADD COLUMN rating TEXT"}
_START = "start one with `agentkit chat`"
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing to misread, sorts like the number

Rating = Literal["good", "bad"]
RATINGS: tuple[Rating, ...] = get_args(Rating)

JsonLines = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One line of `agentkit sessions list`."""

    id: str
    title: str
    """As given, else the beginning of the first user message."""
    created: str
    """ISO 8601, UTC; so is ``updated``, the time of the last message."""
    updated: str
    messages: int
    parent: str | None
    """The session this one was forked from (which may have been deleted since)."""
    rating: Rating | None = None
    """What somebody thought of it."""


class SessionStore:
    """All sessions of one database file; safe to use from several threads and processes.

    Args:
        path: The database, created with mode 0600 when missing.

    Raises:
        StoreError: The file is damaged, not ours, written by a newer version, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA, APPLICATION_ID, SCHEMA_VERSION, _UPGRADES)

    def close(self) -> None:
        """Close the database; using the store afterwards is a StoreError."""
        self._db.close()

    def create(self, title: str = "") -> Session:
        """Start an empty session."""
        return self._insert(title, None)

    def open(self, id: str) -> Session:
        """The session with this id, with a unique beginning of it, or of its part after the date.

        Raises:
            NotFoundError: There is none, or more than one.
        """
        known = [row[0] for row in self._db.read("SELECT id FROM sessions ORDER BY rowid DESC")]
        if id in known:
            return Session(self, id)
        found = [name for name in known if id and (name.startswith(id) or name[11:].startswith(id))]
        if len(found) == 1:
            return Session(self, found[0])
        if found:
            raise NotFoundError(f"session {id!r} could be {', '.join(found[:5])}", "give more of the id")
        near = ", ".join(difflib.get_close_matches(id, known, 3) or known[:3])
        raise NotFoundError(f"no session {id!r}", f"nearest: {near}" if near else _START)

    def list(self) -> list[SessionInfo]:
        """All sessions, the last used first."""
        count = "(SELECT count(*) FROM messages WHERE session = id)"
        columns = f"id, title, created, updated, {count}, parent, rating"
        query = f"SELECT {columns} FROM sessions ORDER BY updated DESC"
        return [SessionInfo(*row) for row in self._db.read(query)]

    def delete(self, id: str) -> None:
        """Delete a session (named as for `open`) and wipe its text from the file.

        Raises:
            StoreError: It is deleted, but another process holds on to the log that still has its text.
        """
        session = self.open(id)
        with self._db.write() as db:
            db.execute("DELETE FROM sessions WHERE id = ?", (session.id,))
        # Else the text would live on in the -wal file.
        [(busy, _, _)] = self._db.read("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            cause = f"session {session.id} is deleted, but another process still reads the file: its text is in the log"
            raise StoreError(
                cause, "stop that process and delete any session, or end all: the last one wipes it"
            )

    def fork(self, id: str, upto: int | None = None) -> Session:
        """Copy a session's first ``upto`` messages (all by default) into a new one.

        Raises:
            UsageError: The session has fewer messages.
        """
        source = self.open(id)
        length = len(source.messages())
        if upto is not None and not 0 <= upto <= length:
            raise UsageError(f"{source.id} cannot be forked at {upto}", f"choose 0 to {length}, its length")
        kept = length if upto is None else upto
        with self._db.write() as db:
            session = self._insert(source.title, source.id)
            copied = "SELECT ?, position, created, body FROM messages WHERE session = ? AND position < ?"
            db.execute(f"INSERT INTO messages {copied}", (session.id, source.id, kept))
        return session

    def export(self, id: str) -> JsonLines:
        """Everything stored of a session: one ``session`` object, then one ``message`` object each."""
        session = self.open(id)
        columns = ("id", "title", "created", "updated", "parent", "rating")
        query = f"SELECT {', '.join(columns)} FROM sessions WHERE id = ?"
        head = dict(zip(columns, self._db.read(query, session.id)[0], strict=True))
        query = "SELECT position, created, body FROM messages WHERE session = ? ORDER BY position"
        return [{"type": "session", **head}] + [
            {"type": "message", "position": position, "created": created, **asdict(_load(self._db, body))}
            for position, created, body in self._db.read(query, session.id)
        ]

    def _insert(self, title: str, parent: str | None) -> Session:
        with self._db.write() as db:
            while True:
                now = datetime.now(UTC)
                values = (_new_id(now), _clean(title), now.isoformat(), now.isoformat(), parent)
                if db.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, ?, NULL)", values).rowcount:
                    return Session(self, values[0])


class Session:
    """One conversation in the store."""

    def __init__(self, store: SessionStore, id: str) -> None:
        self._store = store
        self.id = id

    @property
    def title(self) -> str:
        """As given, else the beginning of the first user message; empty before that."""
        rows = self._store._db.read("SELECT title FROM sessions WHERE id = ?", self.id)
        return str(rows[0][0]) if rows else ""

    def rate(self, rating: Rating | None) -> None:
        """Keep what somebody thought of the conversation; ``None`` takes it back. It chooses training data.

        Raises:
            UsageError: It is none of `RATINGS`.
            NotFoundError: The session has been deleted.
        """
        if rating is not None and rating not in RATINGS:
            raise UsageError(f"unknown rating {rating!r}", f"use {' or '.join(RATINGS)}")
        with self._store._db.write() as db:
            if not db.execute("UPDATE sessions SET rating = ? WHERE id = ?", (rating, self.id)).rowcount:
                raise NotFoundError(f"session {self.id} has been deleted", _START)

    def append(self, message: Message) -> int:
        """Store a message; when this returns it is on disk.

        A result takes the place of the "interrupted" one that another process gave its call meanwhile.

        Returns:
            Its position, from 0.

        Raises:
            NotFoundError: The session has been deleted.
            StoreError: The message cannot be written; nothing has changed.
        """
        body = _dump(message)
        title = _clean(message.content) if message.role == "user" else ""
        now = datetime.now(UTC).isoformat()
        with self._store._db.write() as db:
            touch = "UPDATE sessions SET updated=?, title=CASE title WHEN '' THEN ? ELSE title END WHERE id=?"
            if not db.execute(touch, (now, title, self.id)).rowcount:
                raise NotFoundError(f"session {self.id} has been deleted", _START)
            if message.role == "tool" and (healed := self._healed(db, message.tool_call_id)) is not None:
                change = "UPDATE messages SET created = ?, body = ? WHERE session = ? AND position = ?"
                db.execute(change, (now, body, self.id, healed))
                return healed
            next_position = "SELECT coalesce(max(position) + 1, 0) FROM messages WHERE session = ?"
            position = int(db.execute(next_position, (self.id,)).fetchone()[0])
            db.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", (self.id, position, now, body))
        return position

    def _healed(self, db: sqlite3.Connection, call: str | None) -> int | None:
        """Where the result of a call stands already, if `heal` has put it there; ids may come again in later turns."""
        rows = db.execute(
            "SELECT position, body FROM messages WHERE session = ? ORDER BY position DESC", (self.id,)
        )
        for position, text in rows:
            message = _load(self._store._db, text)
            if any(made.id == call for made in message.tool_calls):
                return None
            if message.tool_call_id == call:
                return int(position) if message.meta.get("interrupted") else None
        return None

    def messages(self) -> list[Message]:
        """All messages in order; lists stand in ``meta`` where tuples were stored."""
        rows = self._store._db.read("SELECT body FROM messages WHERE session = ? ORDER BY position", self.id)
        return [_load(self._store._db, body) for (body,) in rows]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One turn at a time, among all threads and processes: two would answer each other's questions.

        The lock is the operating system's: a killed process gives it up.

        Raises:
            UsageError: Another turn of this session is under way.
        """
        with exclusive(self._store._db.path.with_name(f".{self.id}.turn")) as alone:
            if not alone:
                cause = f"session {self.id} is in the middle of a turn, in another thread or program"
                raise UsageError(cause, "wait for its end, or go on in a fork: `agentkit sessions fork`")
            yield

    def dangling(self) -> list[ToolCall]:
        """Calls without a result: what a kill between call and result leaves behind."""
        return [call for _, call in _unanswered(self.messages())]

    def heal(self) -> list[Message]:
        """Give every dangling call an "interrupted" result right behind it; the conversation is valid again.

        Returns:
            The added messages. Call this within `turn`, or while no other process runs one of the session.
        """
        added = []
        with self._store._db.write() as db:
            now = datetime.now(UTC).isoformat()
            for earlier, (position, call) in enumerate(_unanswered(self.messages())):
                at = position + earlier
                # Two steps through negative numbers: positions stay unique while they move up by one.
                shift_up = "UPDATE messages SET position = -position {} WHERE session = ? AND position {}"
                db.execute(shift_up.format("- 1", ">= ?"), (self.id, at))
                db.execute(shift_up.format("", "< 0"), (self.id,))
                content = ToolResult(call.id, call.name, ok=False, error=INTERRUPTED).content()
                message = Message("tool", content, (), call.id, call.name, {"interrupted": True})
                db.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", (self.id, at, now, _dump(message)))
                added.append(message)
        return added


def _new_id(now: datetime) -> str:
    """``2026-11-23-k3f9qx``: date, time of day in 82 ms steps (UTC), 10 random bits; sorts by time."""
    day_s = now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6
    number = int(day_s / 86_400 * 2**20) << 10 | secrets.randbits(10)
    return f"{now:%Y-%m-%d}-" + "".join(_DIGITS[number >> 5 * place & 31] for place in range(5, -1, -1))


def _clean(title: str) -> str:
    """One short line that any terminal encoding and SQLite can hold."""
    return " ".join(title.split())[:TITLE_CHARS].encode(errors="replace").decode()


def _dump(message: Message) -> str:
    try:
        return json.dumps(asdict(message))
    except (TypeError, ValueError, RecursionError) as error:
        cause = f"a {message.role} message cannot be stored: {error}"
        raise StoreError(cause, "keep plain JSON values in it") from error


def _load(db: Database, text: str) -> Message:
    try:
        body = json.loads(text)
        return Message(**{**body, "tool_calls": tuple(ToolCall(**call) for call in body["tool_calls"])})
    except (KeyError, TypeError, ValueError) as error:
        raise db.damaged(f"a message cannot be read: {error}") from error


def _unanswered(messages: list[Message]) -> list[tuple[int, ToolCall]]:
    """Calls without a result, each with the position its result belongs at: behind those that are there.

    Ids count only within their own assistant message: models may number calls from 0 in every turn.
    """
    missing: list[tuple[int, ToolCall]] = []
    for start, message in enumerate(messages):
        end = start + 1
        while end < len(messages) and messages[end].role == "tool":
            end += 1
        answered = {result.tool_call_id for result in messages[start + 1 : end]}
        missing += [(end, call) for call in message.tool_calls if call.id not in answered]
    return missing
