"""One case put to a model, and calls read out of free text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from agentkit.errors import ModelError, UsageError
from agentkit.evaluation.calls import Call, Choice, answer, are_valid, check_unconstrained, decides, parse
from agentkit.llm.formats.gemma import FORMAT as GEMMA
from agentkit.llm.formats.generic import FORMAT as GENERIC
from agentkit.llm.formats.mistral import FORMAT as MISTRAL
from agentkit.llm.local import LocalModel
from agentkit.llm.protocol import ModelEvent
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import Message, ToolCall, ToolSpec

RING = ToolSpec(
    "ring",
    "Ring the bell.",
    {"type": "object", "properties": {"times": {"type": "integer"}}, "required": ["times"]},
)
TURN = [Message("user", "Ring the bell 3 times.")]
OPTIONS: dict[str, Any] = {"tool_choice": "required", "max_new_tokens": 64}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "ring", "arguments": {"times": 3}}', (("ring", {"times": 3}),)),
        ('Sure: {"name": "ring", "parameters": {}} and so on', (("ring", {}),)),
        ('{"name": "a", "arguments": {}}\n{"name": "b", "arguments": {}}', (("a", {}), ("b", {}))),
        (
            '{"name": "a", "arguments": {"name": "b", "arguments": {}}}',
            (("a", {"name": "b", "arguments": {}}),),
        ),
        ('[{"name": "a", "arguments": {}}]', (("a", {}),)),
        ('{"name": "ring", "arguments": {"times": 3}', ()),
        ('{"name": "ring", "arguments": [3]}', ()),
        ('{"name": 3, "arguments": {}} { } {"x": 1}', ()),
        ("ring(times=3)", ()),
        ('{"a":' * 100_000, ()),
    ],
)
def test_calls_in_free_text(text: str, calls: tuple[Call, ...]) -> None:
    assert parse(text) == calls


def test_all_calls_of_free_text_count_wherever_one_is_wanted() -> None:
    """The leaderboard's rule about their number is the checker's, not ours."""
    text = '{"name": "ring", "arguments": {"times": 1}} {"name": "ring", "arguments": {"times": 2}}'
    made = [
        answer(ScriptedModel([text]), TURN, [RING], **OPTIONS, unconstrained=True, parallel=parallel)
        for parallel in (False, True)
    ]
    assert [len(each.calls) for each in made] == [2, 2]
    assert made[0].text == text


class Slow(ScriptedModel):
    """Works before it streams, as one that encodes and makes a grammar."""

    def stream(self, *args: Any, **options: Any) -> Iterator[ModelEvent]:
        time.sleep(0.05)
        yield from super().stream(*args, **options)


def test_the_time_is_that_of_the_whole_call() -> None:
    made = answer(Slow([ToolCall("c", "ring", {"times": 3})]), TURN, [RING], **OPTIONS)
    assert made.seconds >= 0.05


@pytest.mark.parametrize(
    ("tool_choice", "unconstrained", "free"),
    [("required", False, False), ("required", True, True), ("auto", False, True)],
)
def test_who_decides_whether_to_call(tool_choice: Choice, unconstrained: bool, free: bool) -> None:
    assert decides(tool_choice, unconstrained) is free


def test_an_error_of_the_model_is_part_of_the_answer() -> None:
    model = ScriptedModel([ModelError("it died", "try again"), ToolCall("c", "ring", {"times": 3})])
    assert answer(model, TURN, [RING], **OPTIONS).failed == "it died; try again"
    made = answer(model, TURN, [RING], **OPTIONS)
    assert (made.calls, made.failed, made.passes) == ((("ring", {"times": 3}),), "", 1)


@pytest.mark.parametrize(
    ("calls", "valid"),
    [
        ([], True),
        ([("ring", {"times": 3})], True),
        ([("ring", {"times": 3}), ("ring", {})], False),
        ([("ring", {"times": "3"})], False),
        ([("sing", {"times": 3})], False),
    ],
)
def test_valid_calls(calls: list[Call], valid: bool) -> None:
    assert are_valid(calls, [RING]) is valid


def test_only_json_calls_can_be_read_from_free_text() -> None:
    for form in (GENERIC, MISTRAL):
        check_unconstrained(SimpleNamespace(encoder=SimpleNamespace(format=form)))
    with pytest.raises(UsageError, match=f"calls in the format {GEMMA.name} are no JSON objects"):
        check_unconstrained(SimpleNamespace(encoder=SimpleNamespace(format=GEMMA)))
    with pytest.raises(UsageError, match="only a model in this process"):
        check_unconstrained(ScriptedModel([]))


def test_the_embedded_model_with_and_without_grammar(smollm: LocalModel) -> None:
    made = answer(smollm, TURN, [RING], **OPTIONS)
    assert made.calls == (("ring", {"times": 3}),)
    assert made.passes > 0
    free = answer(smollm, TURN, [RING], **{**OPTIONS, "max_new_tokens": 12}, unconstrained=True)
    assert free.cut
    assert free.text
    assert free.failed == ""
