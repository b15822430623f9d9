from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentkit.assets import asset_path
from agentkit.errors import NotFoundError, TrainingError, UsageError
from agentkit.llm.encoding import ChatEncoder
from agentkit.messages import ToolCall
from agentkit.training.data import IGNORED, encode, load_chats

GOOD = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}'
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(asset_path("smollm2-135m"))


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> ChatEncoder:
    return ChatEncoder(tokenizer, frozenset({tokenizer.eos_token_id}))


def says(*messages: Any, **more: Any) -> bytes:
    return json.dumps({"messages": list(messages), **more}).encode()


def assistant(**call: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", **call}}]}


USER = {"role": "user", "content": "Hi"}
DONE = {"role": "assistant", "content": "Done."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://shop.example/lamp.png"}}
PICTURE = "message 1: message content has a part of type 'image_url' that cannot be read"
STRICT = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


def result(id: str | None = "1", name: str | None = None) -> dict[str, Any]:
    given = {"tool_call_id": id, "name": name}
    return {
        "role": "tool",
        "content": "2",
        **{key: value for key, value in given.items() if value is not None},
    }


def calls(*bodies: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(bodies)}


def odd(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "add", "parameters": parameters}}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "'messages'"),
        (b'{"messages": []}', "'messages'"),
        (b'{"messages": "hi"}', "'messages'"),
        (says("hi"), "must be an object"),
        (says({"role": "robot", "content": "Hi"}), "unknown message role 'robot'"),
        (says({"role": ["user"], "content": "Hi"}), "unknown message role"),
        (says({"role": "assistant", "content": 5}), "must be text"),
        (says({"role": "assistant", "content": [{"text": None}]}), "cannot be read"),
        (says(USER), "no assistant message"),
        (says(USER, {"role": "assistant", "content": " "}), "the assistant says nothing"),
        (says(assistant(arguments="{")), "tool call 0"),
        (says(assistant(arguments=[1])), "tool call 0"),
        (says(assistant(arguments="[" * 5_000)), "tool call 0"),
        (says(assistant(arguments='{"a": NaN}')), "NaN is no JSON"),
        (says({"role": "assistant", "content": "", "tool_calls": 3}), "message 1: tool_calls must be a list"),
        (says(USER, tools="add"), "'tools'"),
        (says(USER, tools=["add"]), "'tools'"),
        (says(USER, tools=[{"function": {}}]), "tool schema"),
        (says(USER, tools=[TOOL, TOOL]), "two tools"),
        (says(USER, calls(CALL)), "'add' is called, but is no tool of this chat; tools: none"),
        (
            says(USER, {"role": "assistant", "content": "Hi"}, tools=odd({"type": "what"})),
            "the schema of add's arguments is wrong at #/type",
        ),
        (
            says(USER, calls(CALL), tools=odd({"type": "what"})),
            "the schema of add's arguments is wrong at #/type",
        ),
        (says(USER, calls(CALL), tools=odd({"$ref": "#/no"})), "wrong at #/$ref"),
        (says(USER, calls(CALL), tools=odd({"type": "array"})), "arguments are an object"),
        (
            says(USER, assistant(arguments={"a": "1"}), tools=[STRICT]),
            "wrong arguments of add: a: '1' is not",
        ),
        (
            says(USER, assistant(arguments={"a": 1, "b": 2}), tools=[STRICT]),
            "message 2: wrong arguments of add",
        ),
        (says(USER, assistant(arguments="{}"), tools=[STRICT]), "'a' is a required property"),
        (says(USER, DONE, result()), "message 3: this result answers no call ('1')"),
        (says(USER, DONE, result(None)), "message 3: this result answers no call"),
        (says(USER, calls(CALL), result("2"), tools=[TOOL]), "this result answers no call ('2')"),
        (says(USER, calls(CALL), result(), result(), tools=[TOOL]), "message 4: this result answers no call"),
        (
            says(USER, calls(CALL), result("1", "sub"), tools=[TOOL]),
            "is of 'sub', but the call '1' was of 'add'",
        ),
        (
            says(USER, calls(CALL), DONE, tools=[TOOL]),
            "message 3: the call '1' of add has no result before it",
        ),
        (says(USER, calls(CALL, CALL), tools=[TOOL]), "two calls have the id '1'"),
        (says({**USER, "tool_calls": [CALL]}, DONE, tools=[TOOL]), "a user message makes a call"),
        (
            says(USER, DONE, tools=[{**TOOL, "x-examples": [{"text": 1, "arguments": {}}]}]),
            "'x-examples' of a tool",
        ),
        (says(USER, DONE, tools=[{**TOOL, "x-examples": ["x"]}]), "'x-examples' of a tool cannot be read"),
        (says(USER, DONE, describe_tools="no"), "'describe_tools'"),
        (says(USER, DONE, keep=1), "'keep' is neither true nor false"),
        (says(USER, DONE, split="dev"), "unknown split 'dev'"),
        (says(USER, {**DONE, "content": " "}, USER, DONE), "message 2: the assistant says nothing"),
        (
            says(USER, {**DONE, "content": None, "function_call": {"name": "add"}}, USER, DONE),
            "message 2 has a function_call, OpenAI's older form",
        ),
        (says(USER, DONE, functions=[TOOL["function"]]), "'functions' are OpenAI's older form of tools"),
        (says(USER, DONE, {**DONE, "weight": 0}), "message 3 has the weight 0, but"),
        (says({**USER, "content": [{"type": "text", "text": "What is this?"}, IMAGE]}, DONE), PICTURE),
        (says({**USER, "content": ["Hi"]}, DONE), "message 1 has a part that is no text ('Hi')"),
        (
            says(USER, assistant(arguments='{"a": "\\ud800"}'), tools=[TOOL]),
            "message 2: the arguments of add",
        ),
        (b'{"messages": "\xff"}', "not UTF-8"),
        (b'{"messages": "\\ud800"}', "not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD + b"\n\n" + line + b"\n" + GOOD)
    with pytest.raises(UsageError) as caught:
        load_chats(path)
    assert caught.value.cause.startswith(f"{path}, line 3")
    assert words in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is empty"):
        load_chats(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(NotFoundError, match="no such file"):
            load_chats(path)


def test_both_forms_of_arguments_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    lines = [says(assistant(arguments=form), tools=[TOOL]) for form in ('{"a": 1}', {"a": 1})]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    first, second = load_chats(path)
    assert first.messages[0].tool_calls == (ToolCall("call_0", "add", {"a": 1}),)
    assert first.messages == second.messages
    assert [tool.name for tool in first.tools] == ["add"]


def test_weights_that_change_nothing_and_parts_that_are_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.jsonl"
    parts = [{"type": "text", "text": "Hi "}, {"text": "there"}]
    path.write_bytes(says({"role": "user", "content": parts, "weight": 0}, {**DONE, "weight": 1}))
    (example,) = load_chats(path)
    assert [message.content for message in example.messages] == ["Hi there", "Done."]


def test_results_without_ids_answer_the_calls_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    two = calls(*({"function": {"name": "add", "arguments": {"a": a}}} for a in (1, 2)))
    path.write_bytes(says(USER, two, result(None), result(None, "add"), DONE, tools=[STRICT]))
    (example,) = load_chats(path)
    assert [call.arguments["a"] for call in example.messages[1].tool_calls] == [1, 2]


def test_labels_are_what_the_assistant_says_and_its_end(
    tmp_path: Path, tokenizer: Any, encoder: ChatEncoder
) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is 1 + 1? <|im_end|>"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"result": 2}', "tool_call_id": "1", "name": "add"},
        {"role": "assistant", "content": "It is 2. <|im_start|>user"},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Welcome"},
    ]
    path = tmp_path / "chat.jsonl"
    path.write_bytes(says(*turns, tools=[TOOL]))
    examples = load_chats(path)
    (row,), report = encode(examples, encoder, 2048)
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    learned = tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert learned == f"{call}<|im_end|>It is 2. <|im_start|>user<|im_end|>Welcome<|im_end|>"
    served = encoder.encode(examples[0].messages, examples[0].tools, generation_prompt=False)
    assert row.ids == served.ids
    assert [label if label != IGNORED else None for label in row.labels] == [
        token if own else None for token, own in zip(served.ids, served.assistant, strict=True)
    ]
    prompt = encoder.encode(examples[0].messages[:-1], examples[0].tools).ids
    assert row.ids[: len(prompt)] == prompt  # what the model is served before it answers
    assert report.assistant_tokens == sum(served.assistant)
    assert report.tokens == len(served.ids)


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path, encoder: ChatEncoder) -> None:
    long_answer = says(USER, {"role": "assistant", "content": "word " * 300})
    long_question = says({"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "Ok"})
    long_tail = says(USER, {"role": "assistant", "content": "Ok"}, {"role": "user", "content": "word " * 300})
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"\n".join([GOOD, long_answer, long_question, long_tail, GOOD]))
    rows, report = encode(load_chats(path), encoder, 100)
    assert (report.count, report.cut, report.duplicates) == (2, 2, 1)
    assert max(len(row.ids) for row in rows) == 100  # the tail that nobody learns from is cut
    path.write_bytes(long_answer)
    with pytest.raises(TrainingError, match="none of the 1 examples fits into 100 tokens"):
        encode(load_chats(path), encoder, 100)


def test_a_system_prompt_for_chats_that_have_none(tmp_path: Path, encoder: ChatEncoder) -> None:
    own = {"role": "system", "content": "Own."}
    path = tmp_path / "system.jsonl"
    path.write_bytes(GOOD + b"\n" + says(own, USER, {"role": "assistant", "content": "Hello!"}))
    rows, _ = encode(load_chats(path), encoder, 2048, system="Own.")
    assert len(rows) == 1
    with_system = load_chats(path)[1]
    assert rows[0].ids == encoder.encode(with_system.messages, generation_prompt=False).ids
