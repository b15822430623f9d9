"""Sessions of the store as training data: which, in what form, and that training reads what serving read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from agentkit.agent import AgentLoop
from agentkit.errors import NotFoundError, UsageError
from agentkit.llm.encoding import ChatEncoder
from agentkit.llm.local import LocalModel
from agentkit.llm.protocol import Route
from agentkit.messages import Message, ToolCall, ToolSpec
from agentkit.project import starter_root
from agentkit.prompts import load_prompt
from agentkit.settings import SamplingSettings
from agentkit.store import Session, SessionStore
from agentkit.tooling.registry import ToolRegistry
from agentkit.tooling.tool import tool
from agentkit.training.data import IGNORED, Row, encode, load_chats
from agentkit.training.prepare import Chosen, place_of, prepare, to_lines
from agentkit.training.sessions import Selection, choose, make_selection
from agentkit.turn import Prompts

ADD = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    opened = SessionStore(tmp_path / "sessions.sqlite")
    yield opened
    opened.close()


def say(store: SessionStore, *messages: Message) -> Session:
    session = store.create()
    for message in messages:
        session.append(message)
    return session


def talk(store: SessionStore, question: str) -> Session:
    return say(store, Message("system", "Be kind."), Message("user", question), Message("assistant", "Fine."))


def chosen(store: SessionStore, **conditions: Any) -> list[str]:
    examples = choose(store, Selection(**conditions), [ADD], describe_tools=False).examples
    return [example.messages[1].content for example in examples]


def test_sessions_are_chosen_by_id_day_and_rating(store: SessionStore) -> None:
    first, second, third = (talk(store, text) for text in ("one", "two", "three"))
    first.rate("good")
    second.rate("bad")
    assert chosen(store) == ["one", "two", "three"]
    assert chosen(store, rated="good") == ["one"]
    assert chosen(store, ids=(third.id[11:], first.id)) == ["one", "three"]
    days = [datetime.fromisoformat(info.updated).astimezone(UTC).date() for info in store.list()]
    assert chosen(store, since=min(days), until=max(days)) == ["one", "two", "three"]
    for conditions in (
        {"since": date(9999, 1, 1)},
        {"until": date(2000, 1, 1)},
        {"rated": "bad", "ids": (first.id,)},
    ):
        with pytest.raises(NotFoundError, match="none of the 3 sessions fits; see `agentkit sessions list`"):
            chosen(store, **conditions)
    with pytest.raises(NotFoundError, match="no session 'nothing'"):
        chosen(store, ids=("nothing",))


def test_what_is_typed() -> None:
    assert make_selection(["a"], "2026-01-02", None, "good") == Selection(
        ("a",), date(2026, 1, 2), None, "good"
    )
    for wrong, told in (
        (("x", None, None), "'x' is no day; write it as"),
        (("2026-01-02", "2026-01-01", None), "no day is since 2026-01-02 and until 2026-01-01"),
        ((None, None, "great"), "unknown rating 'great'; use good or bad"),
    ):
        with pytest.raises(UsageError, match=told):
            make_selection((), *wrong)


def test_a_session_is_read_as_the_model_read_it(store: SessionStore) -> None:
    say(
        store,
        Message("system", "Be kind."),
        Message("user", "Where do you sit?"),
        Message("user", "Passages: write to help@shop.example. Where do you sit?", meta={"kind": "context"}),
        Message("assistant", "Write to help@shop.example.", meta={"citations": [1]}),
        Message("user", "Add 1 for ada@mail.example"),
        Message("assistant", "", (ToolCall("1", "add", {"a": 1}),)),
        Message("tool", '{"result": 1}', (), "1", "add", {"ok": True}),
        Message("assistant", "Done."),
        Message("user", "Nobody answered this"),
    )
    talk(store, "Other")
    found = choose(store, Selection(), [ADD], describe_tools=False)
    example = found.examples[0]
    assert [message.content for message in example.messages] == [
        "Be kind.",
        "Passages: write to help@shop.example. Where do you sit?",
        "Write to help@shop.example.",
        "Add 1 for ada@mail.example",
        "",
        '{"result": 1}',
        "Done.",
    ]
    assert not any(message.meta for message in example.messages)
    assert (example.tools, example.describe_tools) == ((ADD,), False)
    assert found.house == {("EMAIL", "help@shop.example")}
    ready, report = prepare(found.examples, shares={}, house=found.house)
    assert ready[0].messages[2].content == "Write to help@shop.example."
    assert ready[0].messages[3].content == "Add 1 for [EMAIL_1]"
    assert report.personal == {"EMAIL": 1}


def test_what_cannot_be_learned_from_is_skipped_and_told(store: SessionStore) -> None:
    call = Message("assistant", "", (ToolCall("1", "gone", {}),))
    silent, gone = say(store, Message("user", "Hi")), say(store, Message("user", "Hi"), call)
    with pytest.raises(NotFoundError, match="none of the 2 chosen sessions can be learned from"):
        chosen(store)
    talk(store, "one")
    found = choose(store, Selection(), [ADD], describe_tools=False)
    assert len(found.examples) == 1
    assert found.skipped == (
        f"{silent.id}: no assistant message",
        f"{gone.id}: message 2: 'gone' is called, but is no tool of this chat",
    )


def test_a_session_keeps_its_split_while_it_grows_and_shares_it_with_its_forks(store: SessionStore) -> None:
    session = talk(store, "one")
    fork = store.fork(store.fork(session.id).id)
    fork.append(Message("user", "more"))
    fork.append(Message("assistant", "Fine again."))
    examples = choose(store, Selection(), [ADD], describe_tools=False).examples
    assert sorted(len(example.messages) for example in examples) == [3, 3, 5]
    assert len({place_of(example) for example in examples}) == 1
    assert place_of(examples[0]) != place_of(
        choose(store, Selection((talk(store, "two").id,)), [], describe_tools=False).examples[0]
    )


@tool(examples=[("Weigh 12 kg", {"kilos": 12})])
def weigh(kilos: int) -> dict[str, int]:
    """Weigh a parcel.

    Args:
        kilos: How heavy it is.
    """
    return {"grams": kilos * 1000}


class AlwaysWeigh:
    """Routes every turn to the tool."""

    def route(self, text: str, tools: Any, answerable: Any) -> Route:
        return Route("tool", "weigh", {"weigh": 1.0}, tools[0].examples)


@pytest.mark.parametrize("routed", [True, False])
def test_training_reads_the_ids_that_serving_read_and_wrote(
    smollm: LocalModel, store: SessionStore, tmp_path: Path, routed: bool
) -> None:
    """A real turn with a call, and an answer in the model's own words."""
    model = LocalModel(smollm._loaded, sampling=SamplingSettings(max_new_tokens=40))
    folder = starter_root() / "prompts"
    templates = [load_prompt(folder, name) for name in ("passages", "tool_call", "tool_result")]
    registry = ToolRegistry([weigh])
    session = store.create()
    agent = AgentLoop(
        model, session, Prompts("Be kind.", *templates, decline="No."),
        tools=registry, router=AlwaysWeigh() if routed else None,
    )  # fmt: skip
    agent.ask("Please weigh a parcel of 12 kilos", tool_choice="auto" if routed else "required")
    registry.close()
    (ledger,) = model._pool._ledgers
    calls = [call for message in session.messages() for call in message.tool_calls]
    assert calls[0].arguments == {"kilos": 12}

    row = row_of(choose(store, Selection(), registry.specs(), describe_tools=not routed), model, tmp_path)
    assert len(ledger.ids) > 100
    assert row.ids[: len(ledger.ids)] == ledger.ids
    # The labels are what the model wrote, call and answer.
    learned = model.tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert learned.startswith(model.call_text(calls[0]))


def row_of(found: Chosen, model: LocalModel, folder: Path) -> Row:
    """What a worker makes of the only session, with an encoder that has never heard the model speak."""
    path = folder / "data.jsonl"
    path.write_bytes(to_lines(found.examples))
    encoder = ChatEncoder(model.tokenizer, model._loaded.eos_ids)
    (row,), _ = encode(load_chats(path), encoder, 8192)
    return row


def test_an_answer_that_was_cut_or_stopped_is_not_learned_from(store: SessionStore) -> None:
    """Its end would be learned as one."""
    for meta, text in (({"unfinished": "length"}, "First, you should open the"), ({}, "")):
        session = talk(store, "How?")
        for message in (
            Message("user", "And then?"),
            Message("assistant", text, meta=meta),
            Message("user", "Go on"),
        ):
            session.append(message)
        session.append(Message("assistant", "You close it."))
    examples = choose(store, Selection(), [ADD], describe_tools=False).examples
    assert [[message.content for message in example.messages] for example in examples] == 2 * [
        ["Be kind.", "How?", "Fine."]
    ]
    say(store, Message("user", "Only this?"), Message("assistant", "It w", meta={"unfinished": "cancelled"}))
    assert len(choose(store, Selection(), [ADD], describe_tools=False).skipped) == 1
