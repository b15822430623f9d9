"""Sessions that chat at the same time get, word for word, what they get alone."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from agentkit.errors import ModelError
from agentkit.events import TextDelta
from agentkit.llm.grammar import Grammar
from agentkit.llm.local import LocalModel
from agentkit.messages import Completion, ToolSpec

SYSTEM = {
    "role": "system",
    "content": "You are the friendly assistant of a small shop. Answer in one sentence.",
}
QUESTIONS = ("Hello there!", "What is the capital of Italy?", "Name three colours.", "Can I return my shoes?")
TOOL = ToolSpec(
    "find_order",
    "Find an order by its number.",
    {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"response_format": SCHEMA},
    {"tools": [TOOL], "tool_choice": "required"},
    {"temperature": 0.9, "seed": 4},
]


def session(model: LocalModel, number: int) -> list[str]:
    """Three turns of a conversation of its own kind: the answers."""
    messages, said = [SYSTEM], []
    for turn in range(3):
        question = QUESTIONS[(number + turn) % len(QUESTIONS)]
        messages.append({"role": "user", "content": f"{question} ({number})"})
        reply = model.chat(messages, max_new_tokens=16, **OPTIONS[number % len(OPTIONS)])
        said.append(reply.text + json.dumps([call.arguments for call in reply.tool_calls]))
        messages.append({"role": "assistant", "content": reply.text or "(a call)"})
    return said


def cancelled_midway(model: LocalModel) -> str:
    cancel, heard = threading.Event(), 0
    for event in model.stream([SYSTEM, {"role": "user", "content": "Tell me a story."}], cancel=cancel):
        if isinstance(event, TextDelta) and (heard := heard + 1) == 4:
            cancel.set()
    assert isinstance(event, Completion)
    assert event.finish_reason == "cancelled"
    return event.text


def left_midway(model: LocalModel) -> None:
    stream = model.stream([SYSTEM, {"role": "user", "content": "Tell me a story."}])
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def broken(model: LocalModel) -> None:
    with pytest.raises(ModelError, match="failed while decoding: the grammar broke"):
        model.chat([SYSTEM, {"role": "user", "content": "One of them."}], choices=["broken", "whole"])


def test_eight_sessions_at_once(smollm: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Grammar.accept

    def fails(self: Grammar, token: int) -> None:
        if getattr(self, "_fails", False):
            raise ValueError("the grammar broke")
        accept(self, token)

    choice = LocalModel._grammars(smollm).choice
    monkeypatch.setattr(Grammar, "accept", fails)

    def marked(texts: Any) -> Grammar:
        grammar = choice(texts)
        grammar._fails = True  # type: ignore[attr-defined]
        return grammar

    expected = [session(LocalModel(smollm._loaded), number) for number in range(8)]
    model = LocalModel(smollm._loaded)
    monkeypatch.setattr(model._grammars(), "choice", marked)
    results: dict[Any, Any] = {}

    def run(key: Any, function: Any, *args: Any) -> None:
        try:
            results[key] = function(model, *args)
        except BaseException as error:
            results[key] = error

    tasks: list[tuple[Any, ...]] = [(number, session, number) for number in range(8)]
    tasks += [("cancelled", cancelled_midway), ("left", left_midway), ("broken", broken)]
    threads = [threading.Thread(target=run, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [results[number] for number in range(8)] == expected
    assert results["left"] is results["broken"] is None
    alone = LocalModel(smollm._loaded).chat([SYSTEM, {"role": "user", "content": "Tell me a story."}])
    assert results["cancelled"]
    assert alone.text.startswith(results["cancelled"])
    assert not any(ledger.busy for ledger in model._pool._ledgers)
    counters = model._scheduler.counters
    assert counters.steps > 1.5 * counters.passes
