"""The dialogues that were written one by one: their calls are what the schemas allow, and training accepts them."""

from __future__ import annotations

import json
from pathlib import Path

import make_adapter
import written
from jsonschema import Draft202012Validator

from agentkit.training.data import load_chats


def test_every_call_is_one_that_its_tool_allows() -> None:
    sets = written.written_sets()
    assert len(sets) >= 300
    for each in sets:
        tools = {tool["name"]: tool["parameters"] for tool in each["tools"]}
        assert len(tools) == len(each["tools"]) <= 5
        assert each["beside"]
        for message in each["messages"]:
            assert message["calls"], message["text"]
            for call in message["calls"]:
                schema = {**tools[call["name"]], "additionalProperties": False}
                Draft202012Validator(schema).validate(call["arguments"])


def test_arguments_stand_in_the_order_of_the_schema() -> None:
    for _, example in written.grouped_written(1):
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example["tools"]}
        for call in example["messages"][-1].get("tool_calls", ()):
            order = list(schemas[call["function"]["name"]]["properties"])
            given = list(json.loads(call["function"]["arguments"]))
            assert given == sorted(given, key=order.index)


def test_a_time_through_has_every_dialogue_once_with_other_tools_beside_it() -> None:
    first, second = (list(written.grouped_written(seed)) for seed in (1, 2))
    expected = sum(len(each["messages"]) + len(each["beside"]) for each in written.written_sets())
    assert len(first) == len(second) == expected
    assert [example for _, example in first] == [example for _, example in written.grouped_written(1)]
    texts = [{example["messages"][-2]["content"] for _, example in time} for time in (first, second)]
    assert texts[0] == texts[1]
    assert [example for _, example in first] != [example for _, example in second]


def test_what_is_held_out_is_the_same_every_time() -> None:
    held = [
        {
            min(groups)
            for groups, _ in written.grouped_written(seed)
            if make_adapter.split_of(groups) != "train"
        }
        for seed in (1, 2)
    ]
    assert held[0] == held[1]
    assert held[0]


def test_training_accepts_them(tmp_path: Path) -> None:
    lines = [json.dumps({**example, "split": "train"}) for _, example in written.grouped_written(1)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert len(load_chats(tmp_path / "data.jsonl")) == len(lines)
