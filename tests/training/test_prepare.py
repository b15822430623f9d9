from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import UsageError
from agentkit.messages import Message, ToolCall, ToolExample, ToolSpec
from agentkit.training.data import Example, Split, load_chats
from agentkit.training.prepare import fingerprint, place_of, prepare, split, to_lines

SHARES: dict[Split, float] = {"validation": 0.1, "test": 0.1}
PAY = ToolSpec(
    "pay",
    "Pay by card.",
    {"type": "object", "properties": {"card": {"type": "integer"}, "to": {"type": "string"}}},
)


def chat(question: str, answer: str = "Fine.", **more: Any) -> Example:
    return Example((Message("user", question), Message("assistant", answer)), **more)


def chats(count: int) -> list[Example]:
    return [chat(f"Question {n}?") for n in range(count)]


def splits(examples: list[Example]) -> dict[str, str | None]:
    return {example.messages[0].content: example.split for example in prepare(examples, shares=SHARES)[0]}


def test_copies_are_left_out_whatever_their_spaces_and_capitals() -> None:
    examples = [
        chat("Hello there", "Hi"),
        chat(" hello  THERE\n", "hi"),
        chat("Hello there", "Hi", tools=(PAY,)),
    ]
    ready, report = prepare(examples, shares=SHARES)
    assert [example.messages[0].content for example in ready] == ["Hello there", "Hello there"]
    assert (report.found, report.duplicates) == (3, 1)


def test_a_chat_stays_in_its_split_when_data_grows() -> None:
    few, many = splits(chats(150)), splits(list(reversed(chats(600))))
    assert {key: many[key] for key in few} == few
    share = {name: sum(value == name for value in many.values()) / 600 for name in ("validation", "test")}
    assert share == {"validation": pytest.approx(0.1, abs=0.035), "test": pytest.approx(0.1, abs=0.035)}
    # Neither spaces and capitals, nor the system prompt, nor whose address it is decide where a chat belongs.
    one = chat("I am ada@mail.example")
    other = Example((Message("system", "Be kind."), *chat("i am  bob@mail.example").messages), tools=(PAY,))
    assert fingerprint(one) != fingerprint(other)
    assert place_of(chat("a", key="s1")) == place_of(chat("b", key="s1")) != place_of(chat("a", key="s2"))
    both = [prepare([*chats(1), each], shares=SHARES)[0][1] for each in (one, other)]
    assert place_of(both[0]) == place_of(both[1])


def test_a_contact_that_becomes_the_houses_moves_no_chat() -> None:
    """Assistants tell it in two conversations, and in a third once data grows."""
    few = [chat(f"Question {n}?", f"Write to help@shop.example, number {n}.") for n in range(2)]
    rest = chats(150)[2:]
    grown = [*few, chat("One more?", "Write to help@shop.example."), *rest]
    before, after = splits([*few, *rest]), splits(grown)
    assert {key: after[key] for key in before} == before
    ready = [prepare(examples, shares=SHARES)[0] for examples in ([*few, *rest], grown)]
    assert ["help@shop.example" in examples[0].messages[1].content for examples in ready] == [False, True]
    assert place_of(ready[0][0]) != place_of(ready[1][0])  # what they say is not the same


@pytest.mark.parametrize("count", [2, 9, 10, 11, 24])
def test_every_split_holds_something_from_ten_chats_on(count: int) -> None:
    _, report = prepare(chats(count), shares=SHARES)
    assert sum(report.splits.values()) == count
    assert [report.splits[name] > 0 for name in ("validation", "test")] == [count >= 10] * 2
    _, report = prepare(chats(count), shares={"validation": 0.1, "test": 0.0})
    assert report.splits["test"] == 0


def test_forks_of_one_session_are_never_parted() -> None:
    for sessions in (range(2, 5), range(40)):
        forks = [chat(f"{n} of {s}", key=f"s{s}") for s in sessions for n in range(5)]
        ready, report = prepare(forks, shares=SHARES)
        assert len({(example.key, example.split) for example in ready}) == len(sessions)
        assert all(report.splits.values())


@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_chats_of_one_place_are_all_learned(place: float) -> None:
    alike = {str(n): place for n in range(12)}
    assert set(split(alike, SHARES, {}).values()) == {"train"}


def test_a_session_with_most_of_the_chats_is_learned() -> None:
    others = split(dict.fromkeys("0123456789", 0.15) | {"a": 0.2, "b": 0.8}, SHARES, {})
    assert {key: name for key, name in others.items() if name != "train"} == {"a": "test", "b": "validation"}


def test_no_split_takes_all() -> None:
    near = {str(n): n / 1000 for n in range(12)}
    found = split(near, SHARES, {})
    assert [key for key, name in found.items() if name != "train"] == ["0", "11"]


def test_splits_of_the_user_count(tmp_path: Path) -> None:
    examples = [chat("a", split="test"), *chats(20)]
    ready, report = prepare(examples, shares=SHARES)
    assert report.splits == {"train": 20, "validation": 0, "test": 1}
    path = tmp_path / "chats.jsonl"
    path.write_bytes(to_lines(ready))
    assert [example.split for example in load_chats(path)] == [example.split for example in ready]
    with pytest.raises(UsageError, match="no chat is left to learn from"):
        prepare([chat("a", split="test"), chat("b", split="validation")], shares=SHARES)


def test_personal_data_is_replaced_unless_it_is_kept() -> None:
    call = ToolCall("1", "pay", {"to": "ada@mail.example"})
    paid = Example(
        (
            Message("user", "Pay ada@mail.example"),
            Message("assistant", "", (call,)),
            Message("tool", '{"result": "ada@mail.example"}', (), "1", "pay"),
            Message("assistant", "Paid ADA@mail.example"),
        ),
        (PAY,),
    )
    ready, report = prepare([paid, chat("Hi")], shares=SHARES)
    assert [message.content for message in ready[0].messages] == [
        "Pay [EMAIL_1]", "", '{"result": "[EMAIL_1]"}', "Paid [EMAIL_1]",
    ]  # fmt: skip
    assert ready[0].messages[1].tool_calls[0].arguments == {"to": "[EMAIL_1]"}
    assert report.personal == {"EMAIL": 4}
    kept, report = prepare([paid, chat("Hi")], shares=SHARES, keep_personal_data=True)
    assert kept[0].messages == paid.messages
    assert report.personal == {}


def test_a_call_that_no_placeholder_fits_is_left_out_with_its_chat() -> None:
    call = ToolCall("1", "pay", {"card": 4111111111111111})
    messages = (Message("user", "Pay with 4111 1111 1111 1111"), Message("assistant", "", (call,)))
    ready, report = prepare([Example(messages, (PAY,)), *chats(2)], shares=SHARES)
    assert (len(ready), report.unredactable) == (2, 1)
    assert "1 that cannot be redacted" in report.sentence()


def test_lines_read_back_as_the_same_examples(tmp_path: Path) -> None:
    call = ToolCall("c1", "pay", {"to": "Zoë"})
    shown = replace(PAY, examples=(ToolExample("Pay Zoë", {"to": "Zoë"}),))
    examples = [
        Example((Message("user", "Pay"), Message("assistant", "", (call,))), (PAY,), describe_tools=False),
        Example((Message("user", "Pay"), Message("assistant", "", (call,))), (shown,)),
        chat("ünïcode \u2028 stays", split="test"),
        replace(chat("as before"), keep=True),
    ]
    path = tmp_path / "chats.jsonl"
    path.write_bytes(to_lines(examples))
    assert [
        (e.messages, e.tools, e.describe_tools, e.split, e.keep) for e in load_chats(path)
    ] == [(e.messages, e.tools, e.describe_tools, e.split, e.keep) for e in examples]  # fmt: skip


@pytest.mark.parametrize("examples", [[chat("a")], [chat("a"), chat("A ")]])
def test_one_chat_is_too_little(examples: list[Example]) -> None:
    with pytest.raises(UsageError, match=r"1 usable chat in [12]; at least 2 different chats"):
        prepare(examples, shares=SHARES)
