"""What the benchmarks time and count, on scripted models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arguments
import pytest
import tool_loop

from agentkit.evaluation.toolset import ToolCase, read_tool_cases
from agentkit.events import Notice
from agentkit.llm.protocol import ModelEvent
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import Message, ToolCall

PAUSE = 0.05


class Slow(ScriptedModel):
    """Works before it streams, as one that encodes and makes a grammar, and says something of itself at once."""

    def stream(self, *args: Any, **options: Any) -> Iterator[ModelEvent]:
        yield Notice("template", "slow")
        time.sleep(PAUSE)
        yield from super().stream(*args, **options)


def test_a_tool_loop_is_timed_from_outside() -> None:
    call = ToolCall("c", "order_status", {"order_id": "1042"})
    said, step = tool_loop.ours(Slow(["The", call]), [Message("user", "Where is it?")])
    assert said.tool_calls == (call,)
    assert step["first_token"] >= PAUSE
    assert step["seconds"] >= 2 * PAUSE
    assert step["first_token"] < step["seconds"]


@pytest.mark.parametrize(("half", "split"), arguments.HALVES.items())
def test_questions_are_counted_by_half(half: str, split: str) -> None:
    file = Path(__file__).parents[1] / "data" / "tools.jsonl"
    own = [case for case in read_tool_cases(file, split) if isinstance(case, ToolCase)]
    every = [case for case in read_tool_cases(file) if isinstance(case, ToolCase)]
    cases, lacking = ([case for case in every if bool(case.missing) is lacks] for lacks in (False, True))
    found = arguments.questions(cases, lacking)
    assert found[half]["lacking"] == sum(bool(case.missing) for case in own)
    assert found[half]["complete"] == sum(not case.missing for case in own)
    assert found[half]["asked"] >= found[half]["asked_for_exactly_those"] > 0
