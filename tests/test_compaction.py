"""What is left out of a conversation that has outgrown the context: oldest results, then oldest turns, rarely."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_agent import prompts

from agentkit.agent import AgentLoop
from agentkit.compaction import MARKER, Compacted, Room, compact
from agentkit.events import Event, Notice, TurnDone
from agentkit.llm.local import LocalModel
from agentkit.messages import Message, ToolCall, ToolResult, ToolSpec
from agentkit.settings import SamplingSettings
from agentkit.store import SessionStore

SYSTEM = Message("system", "s" * 100)
RESERVED = 50


def letters(capacity: int) -> Room:
    """A context of so many characters, with a frame of three around each message."""

    def room(messages: Sequence[Message]) -> int:
        return capacity - sum(len(message.content) + 3 for message in messages)

    return room


def plain_turn(length: int = 100) -> list[Message]:
    return [Message("user", "q" * length), Message("assistant", "a" * length)]


def tool_turn(result: int = 300) -> list[Message]:
    call = ToolCall("1", "f", {})
    return [
        Message("user", "q" * 20),
        Message("assistant", "", (call,)),
        Message("tool", "r" * result, (), "1", "f"),
        Message("user", "put it into words", meta={"kind": "context"}),
        Message("assistant", "a" * 20),
    ]


def ask(*turns: list[Message]) -> list[Message]:
    return [SYSTEM, *(message for turn in turns for message in turn), Message("user", "and now?")]


def test_what_fits_is_left_alone() -> None:
    messages = ask(*[plain_turn()] * 4)
    for room in (letters(2000), lambda messages: None):
        assert compact(messages, room, RESERVED) == Compacted(messages)


def test_the_oldest_results_go_first() -> None:
    messages = ask(plain_turn(), tool_turn(600), plain_turn(), tool_turn(600), tool_turn(600))
    found = compact(messages, letters(2300), RESERVED)
    assert (found.results, found.turns) == (2, 0)
    assert [m.content for m in found.messages if m.role == "tool"] == [MARKER, MARKER, "r" * 600]
    for before, after in zip(messages, found.messages, strict=True):
        assert after == before or (before.role == "tool" and after.content == MARKER)
    assert str(found) == "2 older tool results"


def test_then_the_oldest_turns_go() -> None:
    messages = ask(plain_turn(), tool_turn(), *[plain_turn()] * 4)
    found = compact(messages, letters(1000), RESERVED)
    assert found.turns == 3
    assert found.results == 0  # the marked one was in a turn that is gone
    assert found.messages == [SYSTEM, *messages[10:]]
    found = compact(ask(plain_turn(300), tool_turn(), plain_turn()), letters(700), RESERVED)
    assert str(found) == "1 older tool result and the oldest 1 turn"


def test_the_last_turn_is_kept_even_where_nothing_else_is() -> None:
    messages = ask(*[plain_turn(300)] * 3)
    for capacity in (700, 120, 0):
        found = compact(messages, letters(capacity), RESERVED)
        assert found.messages[0] == SYSTEM
        assert found.messages[-1] == messages[-1]
    assert found.messages == [SYSTEM, messages[-1]]


def test_a_turn_too_long_by_itself_loses_all_results_but_the_newest() -> None:
    """A loop of many tool calls is one turn."""
    steps = [tool_turn(300)[1:3] for _ in range(4)]
    messages = [SYSTEM, Message("user", "go"), *(message for step in steps for message in step)]
    found = compact(messages, letters(1000), RESERVED)
    assert found.turns == 0
    contents = [m.content for m in found.messages if m.role == "tool"]
    assert contents[0] == MARKER
    assert contents[-1] == "r" * 300
    assert compact(messages, letters(10), RESERVED).results == 3


def test_the_beginning_stays_the_same_for_many_turns() -> None:
    room, messages, read, cuts = letters(4000), [SYSTEM], [SYSTEM], 0
    for n in range(120):
        for message in tool_turn(150) if n % 3 == 0 else plain_turn(60):
            messages.append(message)
            before, read = read, compact(messages, room, RESERVED).messages
            cuts += read[: len(before)] != before
            assert room(read) is None or room(read) >= RESERVED  # type: ignore[operator]
    written = sum(len(message.content) for message in messages)
    assert written > 15_000
    assert 3 < cuts < 2 * written / 1000  # each cut frees about a quarter of the context


TURNS = st.one_of(
    st.integers(0, 300).map(plain_turn),
    st.integers(0, 600).map(tool_turn),
    st.just([Message("user", "lost")]),
)


@given(st.lists(TURNS, max_size=12), st.integers(0, 3000))
def test_the_policy_holds_for_any_conversation(turns: list[list[Message]], capacity: int) -> None:
    messages, room = ask(*turns), letters(capacity)
    found = compact(messages, room, RESERVED)
    assert found == compact(messages, room, RESERVED)
    assert found.messages[0] == SYSTEM
    assert found.messages[-1] == messages[-1]
    # What is kept is the end of the conversation, but for marked results.
    kept = messages[len(messages) - len(found.messages) + 1 :]
    same = [
        a == b or (b.role, a.content) == ("tool", MARKER)
        for a, b in zip(found.messages[1:], kept, strict=True)
    ]
    assert all(same)
    assert found.messages[1].role == "user"
    if room([SYSTEM, messages[-1]]) >= RESERVED:  # type: ignore[operator]
        assert room(found.messages) >= RESERVED  # type: ignore[operator]


class Look:
    """One tool with long results."""

    def specs(self) -> list[ToolSpec]:
        return [ToolSpec("look", "Look it up.", {"type": "object", "properties": {}})]

    def get(self, name: str) -> Any:
        return type("Tool", (), {"spec": self.specs()[0], "side_effect": False, "reply": None})

    def run(self, call: ToolCall, cancel: Any = None) -> ToolResult:
        return ToolResult(call.id, call.name, True, "word " * 60)


@pytest.fixture
def short(smollm: LocalModel) -> LocalModel:
    """The embedded model with a context of 1,400 tokens."""
    loaded = dataclasses.replace(smollm._loaded, context_length=1400)
    return LocalModel(loaded, sampling=SamplingSettings(max_new_tokens=24))


def test_the_cache_outlives_a_compaction(short: LocalModel, tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions.sqlite")
    session = store.create()
    stored: list[Message] = []
    compacted, cached, asked = 0, [], []
    for n in range(12):
        # As a server does: a new loop for every turn. Whatever was decided before must follow from the messages.
        agent = AgentLoop(short, session, prompts(), tools=Look(), max_steps=2)
        choice: Any = {"name": "look"} if n in (1, 2) else "none"
        events: list[Event] = list(
            agent.stream(f"Question {n}: " + "why is it so? " * 12, tool_choice=choice)
        )
        assert isinstance(events[-1], TurnDone)
        told = [event for event in events if isinstance(event, Notice) and event.code == "compacted"]
        if told and not compacted:
            assert "left out of what it reads" in told[0].text
        compacted += bool(told)
        usage = events[-1].reply.usage
        cached.append(usage.cached_tokens)
        asked.append(usage.prompt_tokens)
        assert usage.prompt_tokens < 2 * (1400 - 512)
        now = session.messages()
        assert now[: len(stored)] == stored  # nothing in the store is changed
        stored = now
    assert compacted >= 5
    assert min(cached[1:]) > 0
    # Only the turns in which something more was left out read the conversation anew.
    anew = [n for n in range(1, 12) if cached[n] < asked[n] / 2]
    assert len(anew) <= 4
    assert len(anew) < compacted
    store.close()
