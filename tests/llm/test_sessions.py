"""Whole conversations on two families: what is read again changes no token, and usage says what was computed.

In the precision in which the models are served: a token has the same bits however it is read.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentkit.engine.decode import Sampler, decode
from agentkit.engine.ledger import Ledger, LedgerPool
from agentkit.engine.packed_lora import PackedLora
from agentkit.engine.weights import LoadedModel
from agentkit.events import TextDelta
from agentkit.llm.local import LocalModel
from agentkit.messages import Completion, Message, ToolSpec, Usage
from agentkit.settings import SamplingSettings

SYSTEM = Message(
    "system", "You are the friendly assistant of a small shop in Vienna. Answer in one sentence."
)
TOOL = ToolSpec(
    "find_order",
    "Find an order by its number.",
    {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
)
QUESTIONS = (
    "Hello there, who are you?",
    "What is the capital of France?",
    "Can I return a pair of shoes after two weeks?",
    "Wo ist meine Bestellung 1042? 🎉",
    "How much is 12 + 30?",
    "Tell me about the weather in spring.",
    "Which colours does the rainbow have?",
    "Thank you very much!",
)
ANSWER = 4
"""Tokens of an answer."""


@dataclass
class Watched:
    """A model whose every answer is compared with a run without any reuse, and its usage with what was computed."""

    model: LocalModel
    passes: list[int]
    """Tokens of each forward pass."""
    prompt: list[int] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    known: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    """Answers of runs without reuse, by prompt."""

    def keep(self, budget: int = 1 << 30) -> None:
        """Forget every conversation and keep at most so many bytes from now on."""
        pool = LedgerPool(self.model._loaded, budget)
        acquire = pool.acquire

        def noting(prompt: Sequence[int], adapter: PackedLora | None = None) -> tuple[Ledger, int]:
            self.prompt = list(prompt)
            self.ledger, cached = acquire(prompt, adapter)
            return self.ledger, cached

        pool.acquire = noting  # type: ignore[method-assign]
        self.model._pool = pool

    def say(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Message:
        """The model's answer, after all comparisons."""
        self.passes.clear()
        completion = self.model.chat(messages, tools=tools, tool_choice="none", max_new_tokens=ANSWER)
        self.usage, passes = completion.usage, list(self.passes)
        wrote = self.ledger.ids[len(self.prompt) :]
        assert self.usage.prompt_tokens == len(self.prompt)
        assert passes == [len(self.prompt) - self.usage.cached_tokens] + [1] * (len(wrote) - 1)
        assert self.usage.forward_passes == len(passes)
        assert wrote == self.alone()
        return Message("assistant", completion.text)

    def alone(self) -> list[int]:
        """What the model writes after the last prompt without any reuse."""
        key = tuple(self.prompt)
        if key not in self.known:
            ledger, sampler = Ledger(self.model._loaded), Sampler(SamplingSettings(), "cpu")
            ledger.align(self.prompt)
            stops = self.model._loaded.eos_ids
            assert list(decode(ledger, sampler, stop_ids=stops, max_new_tokens=ANSWER))
            self.known[key] = ledger.ids[len(key) :]
        return self.known[key]


@pytest.fixture(params=["smollm", "gemma"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Watched:
    passes: list[int] = []
    forward = LoadedModel.forward

    def counted(self: LoadedModel, ids: Sequence[int], *args: Any, **options: Any) -> Any:
        passes.append(len(ids))
        return forward(self, ids, *args, **options)

    monkeypatch.setattr(LoadedModel, "forward", counted)
    model = request.getfixturevalue(request.param)
    monkeypatch.setattr(
        model, "_served", dataclasses.replace(model._served, drafts=False)
    )  # a pass is a token here
    monkeypatch.setattr(model, "_pool", None)  # whatever a test puts there, it is taken away again
    watched = Watched(model, passes)
    watched.keep()
    return watched


def test_a_conversation_of_seven_turns_reads_each_token_once(watched: Watched) -> None:
    messages, read = [SYSTEM], 0
    for turn, question in enumerate(QUESTIONS[:7]):
        messages.append(Message("user", question))
        messages.append(watched.say(messages, [TOOL]))
        assert watched.usage.cached_tokens >= read - 1
        assert turn == 0 or watched.usage.prompt_tokens - watched.usage.cached_tokens < 50
        read = watched.usage.prompt_tokens
    assert read > 280


def test_edits_retries_and_forks(watched: Watched) -> None:
    messages = [SYSTEM]
    for question in QUESTIONS[:4]:
        messages += [Message("user", question)]
        messages += [watched.say(messages)]
    asked = watched.usage.prompt_tokens
    watched.say(messages[:-1])  # the last turn again: only its last token is read
    assert watched.usage.cached_tokens == asked - 1
    branch = [*messages[:5], Message("user", "No, of Italy."), Message("assistant", "Rome."), messages[7]]
    watched.say(branch)
    assert 50 < watched.usage.cached_tokens < asked - 20
    edited = [SYSTEM, Message("user", "An earlier question, put otherwise."), *messages[2:8]]
    watched.say(edited)
    assert 10 < watched.usage.cached_tokens < 50
    watched.say(
        [*messages, Message("user", QUESTIONS[5])]
    )  # the first one goes on as if nothing had happened


def test_a_second_session_does_not_read_the_system_prompt_and_the_tools(watched: Watched) -> None:
    first, second = ([SYSTEM, Message("user", question)] for question in QUESTIONS[:2])
    one, two = (watched.model.render(messages, [TOOL]) for messages in (first, second))
    prefix = next(n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    assert prefix > 140
    watched.say(first, [TOOL])
    watched.say(second, [TOOL])
    assert watched.usage.cached_tokens == prefix
    for messages in (first, second):  # and neither disturbed the other by more than a message
        watched.say(messages, [TOOL])
        assert watched.usage.cached_tokens >= prefix


def test_an_evicted_conversation_is_restored_by_one_prefill(watched: Watched) -> None:
    messages = [SYSTEM, Message("user", QUESTIONS[0])]
    watched.keep(0)
    for question in QUESTIONS[1:4]:
        messages += [watched.say(messages), Message("user", question)]
        assert (watched.usage.cached_tokens, watched.model._pool._ledgers) == (0, [])
        assert watched.passes[0] == len(watched.prompt)
    watched.keep()
    watched.say(messages)
    one = watched.ledger.bytes()
    watched.keep(one)  # room for one conversation
    watched.say(messages)
    watched.say([Message("system", "Something else."), Message("user", QUESTIONS[4])])
    assert watched.usage.cached_tokens < 10
    watched.say(messages)
    assert watched.usage.cached_tokens < 10
    messages += [watched.say(messages), Message("user", QUESTIONS[5])]
    watched.say(messages)
    assert watched.usage.cached_tokens > 50
    assert sum(ledger.bytes() for ledger in watched.model._pool._ledgers) <= one


@pytest.mark.parametrize("watched", ["gemma"], indirect=True)
def test_a_conversation_beyond_the_window_rolls_back_past_it(watched: Watched) -> None:
    """Gemma's sliding layers see 512 tokens; the cache keeps what has left the window."""
    story = " ".join(f"On day {n} the shop sold {n * 7} apples and {n * 3} pears." for n in range(30))
    messages = [SYSTEM, Message("user", story), Message("assistant", "I see."), Message("user", QUESTIONS[1])]
    answer = watched.say(messages)
    assert watched.usage.prompt_tokens > 540
    watched.say([*messages, answer, Message("user", QUESTIONS[4])])
    assert watched.usage.cached_tokens > 540
    watched.keep(watched.ledger.bytes())
    watched.say(messages)
    cut = [SYSTEM, Message("user", story[:400]), *messages[2:]]
    watched.model._pool._ledgers[0].truncate(200)  # as an edit does that is not worth a copy
    watched.say(cut)
    assert 100 < watched.usage.cached_tokens <= 200
    watched.say(messages)


def test_a_random_walk(watched: Watched) -> None:
    """Extend, retry, edit, fork, start anew, switch and squeeze, in any order."""
    draw = random.Random(2)
    sessions = [[SYSTEM]]
    for _ in range(12):
        session = draw.choice(sessions)
        match draw.choice(["extend", "extend", "retry", "edit", "fork", "new", "squeeze"]):
            case "retry":
                del session[-1:]
            case "edit" if len(session) > 2:
                at = draw.randrange(1, len(session))
                session[at] = Message(session[at].role, draw.choice(QUESTIONS))
            case "fork":
                sessions.append(session := session[: draw.randrange(1, len(session) + 1, 2)])
            case "new":
                sessions.append(session := [draw.choice([SYSTEM, Message("system", "Be brief.")])])
            case "squeeze":
                watched.model._pool._budget = draw.choice([0, 30_000_000, 60_000_000])
        if session[-1].role != "user":
            session.append(Message("user", draw.choice(QUESTIONS)))
        session.append(watched.say(session))


def test_a_cancelled_answer_is_part_of_the_conversation(watched: Watched) -> None:
    messages = [SYSTEM, Message("user", QUESTIONS[2])]
    cancel, heard, last = threading.Event(), [], None
    for event in watched.model.stream(messages, cancel=cancel, max_new_tokens=40):
        if isinstance(event, TextDelta):
            heard.append(event.text)
            if len(heard) == 2:
                cancel.set()
                said = len(watched.ledger.ids)
        last = event
    assert isinstance(last, Completion)
    assert (last.finish_reason, last.text) == ("cancelled", "".join(heard))
    assert len(watched.ledger.ids) <= said + 2
    read = last.usage.prompt_tokens
    watched.say([*messages, Message("assistant", last.text), Message("user", "Go on.")])
    assert watched.usage.cached_tokens >= read


@pytest.mark.parametrize("watched", ["smollm"], indirect=True)
def test_a_cancelled_call_keeps_the_conversation(watched: Watched) -> None:
    messages = [SYSTEM, Message("user", "Where is order 7?")]
    watched.say(messages, [TOOL])
    cancel = threading.Event()
    cancel.set()
    stopped = watched.model.chat(messages, tools=[TOOL], tool_choice="required", cancel=cancel)
    assert (stopped.finish_reason, stopped.tool_calls) == ("cancelled", ())
    watched.say(messages, [TOOL])
    assert watched.usage.cached_tokens == watched.usage.prompt_tokens - 1
