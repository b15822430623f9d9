"""Conversations of the store as chats to learn from, in the form in which the model read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from agentkit.errors import NotFoundError, UsageError
from agentkit.messages import Message, ToolSpec
from agentkit.store import RATINGS, Rating, SessionInfo, SessionStore
from agentkit.training.checks import check_chat
from agentkit.training.data import Example
from agentkit.training.personal import Value, values_in, values_of
from agentkit.training.prepare import Chosen
from agentkit.turn import conversation


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sessions to learn from; every condition that is given must hold."""

    ids: tuple[str, ...] = ()
    """Sessions, or unique beginnings of their ids; all where there are none."""
    since: date | None = None
    """First and last day (UTC) on which the session may have been used last."""
    until: date | None = None
    rated: Rating | None = None


def make_selection(
    ids: Sequence[str] = (), since: str | None = None, until: str | None = None, rated: str | None = None
) -> Selection:
    """A selection from what is typed; days as ``2026-11-25``.

    Raises:
        UsageError: A date or the rating cannot be read, or the range is empty.
    """
    if rated is not None and rated not in RATINGS:
        raise UsageError(f"unknown rating {rated!r}", f"use {' or '.join(RATINGS)}")
    first, last = _day(since), _day(until)
    if first and last and first > last:
        raise UsageError(f"no day is since {first} and until {last}", "swap them")
    return Selection(tuple(ids), first, last, next((known for known in RATINGS if known == rated), None))


def choose(
    store: SessionStore, selection: Selection, tools: Sequence[ToolSpec], *, describe_tools: bool
) -> Chosen:
    """The chosen sessions as chats, the oldest first.

    Args:
        store: Where they are.
        selection: Which.
        tools: Those of the agent, so that calls can be checked, and learned.
        describe_tools: Whether the agent's system prompt describes them, as it does without a router.

    Raises:
        NotFoundError: A named session does not exist, or no session fits.
    """
    wanted = {store.open(id).id for id in selection.ids}
    infos = store.list()
    found = sorted((i for i in infos if _fits(i, selection, wanted)), key=lambda info: info.created)
    if not found:
        cause = f"none of the {len(infos)} sessions fits" if infos else "there are no sessions"
        raise NotFoundError(cause, "see `agentkit sessions list`, and `agentkit sessions rate ID good`")
    parents = {info.id: info.parent for info in infos}
    examples, skipped = [], []
    house: set[Value] = set()
    for info in found:
        stored = store.open(info.id).messages()
        house.update(_shown(stored))
        messages = _spoken(conversation(stored))
        try:
            check_chat(messages, tools)
        except UsageError as error:
            skipped.append(f"{info.id}: {error.cause}")
            continue
        key = _origin(info.id, parents)
        examples.append(Example(messages, tuple(tools), f"session {info.id}", describe_tools, key=key))
    if not examples:
        cause = f"none of the {len(found)} chosen sessions can be learned from ({skipped[0]})"
        raise NotFoundError(cause, "choose others: `agentkit sessions list`")
    return Chosen(examples, tuple(skipped), frozenset(house))


def _fits(info: SessionInfo, selection: Selection, wanted: set[str]) -> bool:
    day = datetime.fromisoformat(info.updated).astimezone(UTC).date()
    return (
        (not selection.ids or info.id in wanted)
        and (selection.since is None or day >= selection.since)
        and (selection.until is None or day <= selection.until)
        and (selection.rated is None or info.rating == selection.rated)
    )


def _spoken(read: Sequence[Message]) -> tuple[Message, ...]:
    """Up to the last answer that came to its end, without what is not shown to the model."""
    read = read[: next((n for n, message in enumerate(read) if _is_unfinished(message)), len(read))]
    end = max((n for n, message in enumerate(read, 1) if message.role == "assistant"), default=0)
    results = next((n for n, message in enumerate(read[end:]) if message.role != "tool"), len(read) - end)
    return tuple(
        Message(m.role, m.content, m.tool_calls, m.tool_call_id, m.name) for m in read[: end + results]
    )


def _is_unfinished(message: Message) -> bool:
    """Whether an answer was cut or stopped, or nothing came of it: its end would be learned as one."""
    said = message.content.strip() or message.tool_calls
    return message.role == "assistant" and (not said or "unfinished" in message.meta)


def _shown(stored: Sequence[Message]) -> Iterator[Value]:
    """Values of the passages that were put before the model, without those of the question that stands beside them."""
    asked: set[Value] = set()
    for message in stored:
        if message.role == "user" and message.meta.get("kind") == "context":
            yield from values_in(message.content) - asked
        elif message.role != "assistant":
            asked |= values_of(message)


def _origin(id: str, parents: dict[str, str | None]) -> str:
    """The first of the sessions that a session was forked from: they share their beginning, and so their split."""
    seen = {id}
    while (parent := parents.get(id)) and parent not in seen:
        id = parent
        seen.add(id)
    return id


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no day", "write it as 2026-11-25") from error
