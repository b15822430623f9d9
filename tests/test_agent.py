"""One turn: the order of its events, and what is on disk before each of them."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_files import write_adapter
from numpy.typing import NDArray

from agentkit.agent import AgentLoop
from agentkit.build import adapter_folder
from agentkit.engine.weights import LoadedModel
from agentkit.errors import ModelError, NotFoundError, UsageError
from agentkit.events import (
    ApprovalRequired,
    Event,
    Notice,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnDone,
    TurnFailed,
)
from agentkit.llm.adapters import AdapterChoice, Adapters
from agentkit.llm.local import LocalModel
from agentkit.llm.missing import ask_for
from agentkit.llm.protocol import Route
from agentkit.llm.reading import ModelReader
from agentkit.llm.scripted import ScriptedModel, Step
from agentkit.messages import Completion, Message, Passage, ToolCall, ToolResult, ToolSpec, Usage
from agentkit.prompts import load_prompt
from agentkit.retrieval.protocol import Reader
from agentkit.settings import SamplingSettings
from agentkit.store import INTERRUPTED, Session, SessionStore
from agentkit.training import adapters
from agentkit.turn import Prompts, conversation, since_tools

PROMPTS_DIR = Path(__file__).parents[1] / "prompts"
DECLINE = "I do not know that."
EMPTY = {"type": "object", "properties": {}}


def prompts() -> Prompts:
    templates = [load_prompt(PROMPTS_DIR, name) for name in ("passages", "tool_call", "tool_result")]
    return Prompts("Be kind.", *templates, decline=DECLINE)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    store = SessionStore(tmp_path / "sessions.sqlite")
    yield store.create()
    store.close()


@dataclass
class FakeTool:
    spec: ToolSpec
    side_effect: bool = False
    reply: str | None = None


@dataclass
class FakeTools:
    """Tools whose every run is a function of the call."""

    run_call: Callable[[ToolCall], ToolResult] = lambda call: ToolResult(call.id, call.name, True, {"n": 1})
    side_effect: bool = False
    reply: str | None = None
    ran: list[ToolCall] = field(default_factory=list)

    def specs(self) -> list[ToolSpec]:
        return [ToolSpec("look", "Look it up.", EMPTY)]

    def get(self, name: str) -> FakeTool:
        from agentkit.errors import NotFoundError

        if name != "look":
            raise NotFoundError(f"no tool is called {name!r}", "look")
        return FakeTool(self.specs()[0], self.side_effect, self.reply)

    def run(self, call: ToolCall, cancel: threading.Event | None = None) -> ToolResult:
        self.ran.append(call)
        return self.run_call(call)


class NoTools(FakeTools):
    def specs(self) -> list[ToolSpec]:
        return []


class WordEmbedder:
    """Bags of words as unit vectors."""

    name, dimension = "words", 64

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().replace(".", " ").replace("?", " ").split():
                row[int(hashlib.md5(word.encode()).hexdigest(), 16) % 64] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class FakeKnowledge:
    """One passage, and a fixed opinion about whether it answers."""

    embedder, answer_threshold = WordEmbedder(), 0.5
    passage = Passage(
        1, "returns.md", "Returns", "You can return items within 30 days. Refunds take 5 days.", 0.8
    )

    def __init__(self, answerable: float = 1.0) -> None:
        self._answerable = answerable
        self.readers: list[Reader | None] = []

    def search(self, query: str, limit: int = 4, *, history: Sequence[Message] = ()) -> list[Passage]:
        return [self.passage]

    def corrected(self, query: str) -> str:
        return query

    def answerable(self, query: str, passages: Sequence[Passage], reader: Reader | None = None) -> float:
        self.readers.append(reader)
        return self._answerable


class FakeRouter:
    def __init__(self, route: Route) -> None:
        self.fixed = route

    def route(self, text: str, tools: Sequence[ToolSpec], answerable: float | None) -> Route:
        return self.fixed


class CountedModel(ScriptedModel):
    """A context of so many characters, for what depends on length."""

    characters = 3000

    def room(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        return self.characters - sum(len(message.content) for message in messages)


class Noting(ScriptedModel):
    """Notes the options of every call."""

    def __init__(self, *steps: Step) -> None:
        super().__init__(steps)
        self.options: list[dict[str, Any]] = []

    def stream(self, messages: Any, **options: Any) -> Any:
        self.options.append(options)
        return super().stream(messages, **options)


def look(n: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{n}", "look", arguments)


def loop(session: Session, *steps: Any, **options: Any) -> AgentLoop:
    model = options.pop("model", None) or ScriptedModel(steps)
    return AgentLoop(model, session, prompts(), **{"tools": FakeTools(), **options})


def types(events: list[Event]) -> list[str]:
    """Event types in order, runs of text as one."""
    names = [event.type for event in events]
    return [name for n, name in enumerate(names) if name != "text_delta" or names[n - 1] != "text_delta"]


def notices(events: Sequence[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Notice)]


def roles(session: Session) -> list[str]:
    return [message.role for message in session.messages()]


def reply_of(events: list[Event]) -> Any:
    assert isinstance(events[-1], TurnDone)
    return events[-1].reply


def test_a_plain_answer(session: Session) -> None:
    events = list(loop(session, "Hello there!").stream("Hi"))
    assert types(events) == ["text_delta", "turn_done"]
    reply = reply_of(events)
    assert (reply.text, reply.session, reply.tool_calls) == ("Hello there!", session.id, ())
    assert [(m.role, m.content) for m in session.messages()] == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello there!")]  # fmt: skip
    for event in events:
        json.dumps(event.to_json())


def test_the_user_message_is_stored_before_anything_else(session: Session) -> None:
    class Peeking(FakeKnowledge):
        def search(self, query: str, limit: int = 4, *, history: Sequence[Message] = ()) -> list[Passage]:
            assert roles(session) == ["system", "user"]
            return super().search(query, limit)

    events = loop(session, "Yes.", knowledge=Peeking()).stream("Hi")
    assert next(events).type == "retrieved"


def test_a_tool_step(session: Session) -> None:
    def run(call: ToolCall) -> ToolResult:
        assert roles(session) == ["system", "user", "assistant"]
        assert session.messages()[-1].tool_calls == (call,)
        assert session.dangling() == [call]
        return ToolResult(call.id, call.name, True, {"n": 1})

    class Checking(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            assert not session.dangling()  # the result is stored before the model goes on
            return super().stream(messages, **options)

    model = Checking([look(), "It is one."])
    events = []
    for event in loop(session, model=model, tools=FakeTools(run)).stream("How many?"):
        events.append(event)
        if isinstance(event, ToolFinished):
            assert session.messages()[-1].content == '{"result": {"n": 1}}'
    assert types(events) == ["tool_call_proposed", "tool_started", "tool_finished", "text_delta", "turn_done"]
    reply = reply_of(events)
    assert (reply.text, [c.name for c in reply.tool_calls], reply.tool_results[0].value) == (
        "It is one.", ["look"], {"n": 1})  # fmt: skip
    assert roles(session) == ["system", "user", "assistant", "tool", "assistant"]
    assert [m.role for m in model.seen[1]] == ["system", "user", "assistant", "tool"]


def approve(answer: bool) -> Callable[[ApprovalRequired], bool]:
    return lambda request: answer


@pytest.mark.parametrize(
    ("mode", "decide", "ran", "kinds"),
    [
        ("ask", approve(True), True, ["approval_required", "tool_started"]),
        ("ask", approve(False), False, ["approval_required", "notice"]),
        ("ask", None, False, ["approval_required", "notice"]),
        ("none", approve(True), False, ["notice"]),
        ("all", None, True, ["tool_started"]),
    ],
)
def test_approval(session: Session, mode: Any, decide: Any, ran: bool, kinds: list[str]) -> None:
    tools = FakeTools(side_effect=True)
    events = list(loop(session, look(), "Done.", tools=tools, mode=mode).stream("Do it", approve=decide))
    assert types(events) == ["tool_call_proposed", *kinds, "tool_finished", "text_delta", "turn_done"]
    assert bool(tools.ran) is ran
    assert notices(events) == ([] if ran else ["denied"])
    assert reply_of(events).tool_results[0].ok is ran
    assert not session.dangling()


def test_an_approval_that_raises_leaves_a_session_that_heals(session: Session) -> None:
    def fail(request: ApprovalRequired) -> bool:
        raise RuntimeError("the window was closed")

    agent = loop(session, look(), "Hello.", tools=FakeTools(side_effect=True))
    with pytest.raises(RuntimeError):
        list(agent.stream("Do it", approve=fail))
    assert len(session.dangling()) == 1
    assert agent.ask("Hi").text == "Hello."
    assert not session.dangling()


def test_the_third_identical_call_is_not_run(session: Session) -> None:
    tools = FakeTools()
    calls = [look(n, q="same") for n in range(3)]
    events = list(loop(session, *calls, "Enough.", tools=tools).stream("Look"))
    assert len(tools.ran) == 2
    assert notices(events) == ["denied", "max_steps"]
    assert [result.ok for result in reply_of(events).tool_results] == [True, True, False]


def test_max_steps_ends_in_an_answer(session: Session) -> None:
    class Obedient(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            self._steps = ["I stop here."] if options["tool_choice"] == "none" else [look(q=len(self.seen))]
            return super().stream(messages, **options)

    tools = FakeTools()
    events = list(loop(session, model=Obedient([]), tools=tools, max_steps=3).stream("Look"))
    assert len(tools.ran) == 2
    assert notices(events) == ["max_steps"]
    assert reply_of(events).text == "I stop here."


def test_a_failing_tool_is_a_value(session: Session) -> None:
    tools = FakeTools(lambda call: ToolResult(call.id, call.name, False, error="ValueError: no"))
    events = list(loop(session, look(), "It failed.", tools=tools).stream("Look"))
    assert reply_of(events).text == "It failed."
    assert session.messages()[3].content == '{"error": "ValueError: no"}'


def test_a_cut_result_is_told(session: Session) -> None:
    tools = FakeTools(lambda call: ToolResult(call.id, call.name, True, "x", truncated=True))
    assert notices(list(loop(session, look(), "Ok.", tools=tools).stream("Look"))) == ["truncated"]


class Telling(ScriptedModel):
    """Says what it is offered."""

    def stream(self, messages: Any, **options: Any) -> Any:
        if options.get("choices"):
            self._steps = [options["choices"][0]]
        return super().stream(messages, **options)


@pytest.mark.parametrize(
    ("truncated", "reply", "text", "codes"),
    [
        (False, "It is {{ result.n }}.", "It is 1.", []),
        (True, "It is {{ result.n }}.", '{"n": 1, "te', ["truncated"]),
        (False, "It is {{ result.m }}.", "n: 1", ["reply_template"]),
    ],
)
def test_what_a_tool_found_is_told_even_where_its_reply_cannot_be(
    session: Session, truncated: bool, reply: str, text: str, codes: list[str]
) -> None:
    value = '{"n": 1, "te' if truncated else {"n": 1}
    tools = FakeTools(
        lambda call: ToolResult(call.id, call.name, True, value, truncated=truncated), reply=reply
    )
    router = FakeRouter(Route("tool", "look", {}))
    agent = loop(session, model=Telling([look()]), tools=tools, router=router, quote=True)
    events = list(agent.stream("Look"))
    assert (reply_of(events).text, notices(events)) == (text, codes)


def test_a_call_that_did_not_fit_is_no_empty_answer(session: Session) -> None:
    class Cut(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            yield Notice("call_cut", "the call did not fit")
            yield Completion("", (), Usage(), "length")

    agent = loop(session, model=Cut([]), router=FakeRouter(Route("tool", "look", {})))
    with pytest.raises(ModelError, match=r"the call of look did not fit .*; shorten the message, or raise"):
        agent.ask("Look at this long text")


def test_a_call_of_an_unknown_tool_is_a_value_too(session: Session) -> None:
    """No grammar binds a remote model."""
    events = list(loop(session, ToolCall("1", "nope", {}), "Sorry.").stream("Look"))
    assert notices(events) == ["denied"]
    result = reply_of(events).tool_results[0]
    assert (result.ok, "nope" in result.error) == (False, True)
    assert not session.dangling()


def test_several_calls_of_one_answer(session: Session) -> None:
    class Twice(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            from agentkit.messages import Completion, Usage

            if not self.seen:
                self.seen.append([])
                yield Completion("Let me look. ", (look(1), look(2, q=2)), Usage(), "tool_calls")
            else:
                yield from super().stream(messages, **options)

    list(loop(session, model=Twice(["Both done."])).stream("Look twice"))
    said = [message.content for message in session.messages() if message.role == "assistant"]
    assert said == ["Let me look. ", "Both done."]  # the calls stand in one message, as the model made them
    roles = [message.role for message in session.messages()]
    assert roles == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert not session.dangling()


def test_a_failed_turn_keeps_the_session_usable(session: Session) -> None:
    agent = loop(session, ModelError("the GPU is gone", "wait"), "Hello again.")
    events = list(agent.stream("Hi"))
    assert events == [TurnFailed("the GPU is gone; wait")]
    assert roles(session) == ["system", "user"]
    assert agent.ask("Hi again").text == "Hello again."
    with pytest.raises(ModelError, match="no more steps"):
        agent.ask("And now?")


@pytest.mark.parametrize("error", [ValueError("a kernel broke"), RuntimeError("can't allocate memory")])
def test_a_crash_in_the_models_thread_fails_the_turn_only(
    smollm: LocalModel, session: Session, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Memory that ran out is asked for once more before that."""
    forward, passes = LoadedModel.forward, 0

    def failing(self: LoadedModel, *args: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes >= 3:
            raise error
        return forward(self, *args, **options)

    agent = loop(session, model=LocalModel(smollm._loaded), tools=NoTools())
    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "forward", failing)
        events = list(agent.stream("What is the capital of France?"))
    assert passes == (3 if isinstance(error, ValueError) else 4)
    assert types(events) == ["text_delta", "turn_failed"]
    assert isinstance(events[-1], TurnFailed)
    assert str(error) in events[-1].error
    assert "\n" not in events[-1].error
    assert roles(session) == ["system", "user"]
    assert agent.ask("What is the capital of France?").text
    assert roles(session) == ["system", "user", "user", "assistant"]


def test_an_adapter_put_into_use_reaches_a_running_agent_at_its_next_turn(
    smollm: LocalModel, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "smollm2-135m"
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    write_adapter(tmp_path / "adapters" / "shop", smollm.hf_model, base=base, size=0.1)
    own = Adapters(smollm._loaded, lambda spec: adapter_folder(spec, base), "auto")
    model = LocalModel(smollm._loaded, adapters=own, sampling=SamplingSettings(max_new_tokens=24))
    agent = loop(session, model=model, tools=NoTools())
    other = SessionStore(tmp_path / "other.sqlite")
    plain = loop(other.create(), model=model, tools=NoTools(), adapter="none")
    question = "Tell me a story."
    first = agent.ask(question)
    adapters.use(tmp_path / "adapters", "shop")
    events = list(agent.stream(question))
    assert Notice("adapter", f"{base} now runs with the shop adapter") in events
    assert plain.ask(question).text == first.text  # beside it, a conversation that asked for none
    assert reply_of(events).text != first.text
    adapters.unuse(tmp_path / "adapters", base)
    assert Notice("adapter", f"{base} now runs without an adapter") in list(agent.stream(question))
    other.close()
    with pytest.raises(NotFoundError, match="no adapter is called 'shops'; did you mean shop"):
        loop(session, model=model, tools=NoTools(), adapter="shops")
    with pytest.raises(UsageError, match="scripted takes no adapters"):
        loop(session, "Hello.", adapter="shop")


def test_a_turn_keeps_its_adapter(session: Session) -> None:
    """A swap comes between turns, not between a call and its answer."""

    class Swapping(ScriptedModel):
        looks = 0
        used: list[int] = []  # noqa: RUF012

        def choose_adapter(
            self, spec: str | None = None, *, quiet: bool = False
        ) -> tuple[int, tuple[Notice, ...]]:
            self.looks += 1
            return self.looks, ()

        def stream(self, messages: Any, **options: Any) -> Any:
            self.used.append(options.pop("adapter"))
            return super().stream(messages, **options)

    model = Swapping([ToolCall("1", "look", {}), "Found it.", "Bye."])
    agent = loop(session, model=model)
    agent.ask("Look it up.")
    agent.ask("Bye.")
    assert model.used == [1, 1, 2]


def test_a_store_that_fails_at_the_end_fails_the_turn(session: Session) -> None:
    agent = loop(session, "Hello.")
    events = []
    for event in agent.stream("Hi"):
        events.append(event)
        if isinstance(event, TextDelta):
            session._store.delete(session.id)
    assert isinstance(events[-1], TurnFailed)
    assert "deleted" in events[-1].error


def test_cancel_keeps_what_was_said(session: Session) -> None:
    cancel, events = threading.Event(), []
    for event in loop(session, "one two three four").stream("Count", cancel=cancel):
        events.append(event)
        if isinstance(event, TextDelta) and event.text == "two ":
            cancel.set()
    assert notices(events) == ["cancelled"]
    assert reply_of(events).text == "one two"
    assert session.messages()[-1].content == "one two"


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "x" * 1_000_000])
def test_a_question_that_cannot_be_asked_leaves_no_trace(session: Session, text: str) -> None:
    agent = loop(session, model=CountedModel(["never said"]))
    with pytest.raises(UsageError, match=r"empty|too long"):
        agent.ask(text)
    assert session.messages() == []


def test_a_picture_needs_no_words(session: Session) -> None:
    assert loop(session, "A cat.").ask("", image="cat.jpg").text == "A cat."
    assert session.messages()[1].content == "\nImage: cat.jpg"


def test_a_dangling_call_is_healed_on_resume(session: Session) -> None:
    for message in (
        Message("system", "Be kind."),
        Message("user", "Look"),
        Message("assistant", "", (look(),)),
    ):
        session.append(message)
    model = ScriptedModel(["Where were we?"])
    assert loop(session, model=model).ask("Hello?").text == "Where were we?"
    assert roles(session) == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert INTERRUPTED in session.messages()[3].content
    assert len(model.seen[0]) == 5


def test_a_long_conversation_is_compacted_and_says_so_once(session: Session) -> None:
    model = CountedModel([*["a" * 400] * 8, look(), "done"])
    agent = loop(session, model=model)
    told = [notices(list(agent.stream(f"{n} " + "q" * 300))) for n in range(9)]
    assert told[0] == []
    assert told[-1] == ["compacted"]
    last = model.seen[-1]
    assert last[0].role == "system"
    assert last[1].role == "user"
    assert any(message.content.startswith("8 ") for message in last)
    assert len(session.messages()) == 1 + 8 * 2 + 4  # nothing is lost in the store


def test_as_much_room_is_kept_as_an_answer_may_have_tokens(session: Session) -> None:
    """A quarter of the context at most."""
    session.append(Message("system", "Be kind."))
    for _ in range(8):
        session.append(Message("user", "q" * 400))
        session.append(Message("assistant", "a" * 400))
    for tokens, told in ((512, []), (1800, ["compacted"]), (100_000, ["compacted"])):
        model = CountedModel(["ok"])
        model.characters = 8000
        fork = session._store.fork(session.id)
        assert notices(list(loop(fork, model=model, answer_tokens=tokens).stream("And?"))) == told


def test_a_session_of_another_day_is_told_what_holds_today(session: Session) -> None:
    for message in (
        Message("system", "Today is 1 May."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
    ):
        session.append(message)
    model = ScriptedModel(["Fine."])
    loop(session, model=model).ask("How are you?")
    assert model.seen[0][0] == Message("system", "Be kind.")
    assert session.messages()[0].content == "Today is 1 May."  # it is what was read then


def test_a_question_for_an_argument_is_no_answer_without_support(session: Session) -> None:
    tool = ToolSpec("label", "A label.", {"type": "object", "properties": {"order": {"type": "string"}}})

    class Asking(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            yield from ask_for(tool, ["order"])

    events = list(loop(session, model=Asking([]), knowledge=FakeKnowledge()).stream("Make me a return label"))
    assert notices(events) == ["missing_argument"]
    assert reply_of(events).text == "To do that I need to know: order."
    assert reply_of(events).citations == ()


def test_a_conversation_that_just_fits_to_the_token_is_compacted_too(session: Session) -> None:
    session.append(Message("system", prompts().system))
    for n in range(3):
        session.append(Message("assistant" if n % 2 else "user", "x" * 100))
    model = CountedModel(["ok"])
    model.characters = len(prompts().system) + 304
    agent = loop(session, model=model)
    agent._accept = lambda text, image: text  # type: ignore[method-assign]
    assert "compacted" in notices(list(agent.stream("last")))


def test_a_model_reads_the_passages_only_if_it_has_learned_to(session: Session) -> None:
    class Reading(ScriptedModel):
        reads = False

    model, knowledge = Reading(["Within 30 days.", "Within 30 days."]), FakeKnowledge()
    list(loop(session, model=model, knowledge=knowledge).stream("How long to return?"))
    model.reads = True
    list(loop(session, model=model, knowledge=knowledge).stream("How long to return?"))
    before, after = knowledge.readers
    assert before is None
    assert isinstance(after, ModelReader)


def test_the_adapter_of_the_conversation_says_whether_its_model_reads(session: Session) -> None:
    """A look at the route finds it as the turn would; what has changed is told by the turn."""
    bare, reading = AdapterChoice(None), AdapterChoice(None, reads=True)

    class Adapted(ScriptedModel):
        reads, changed = True, False

        def choose_adapter(
            self, spec: str | None = None, *, quiet: bool = False
        ) -> tuple[AdapterChoice, tuple[Notice, ...]]:
            told = () if quiet or not self.changed else (Notice("adapter", "changed"),)
            return bare if spec == "none" else reading, told

        def first_logits(self, messages: Any, answers: Any, *, adapter: Any = None) -> list[float]:
            assert adapter is reading
            return [1.0, 0.0]

    model, knowledge = Adapted(["Within 30 days."] * 2), FakeKnowledge()
    router = FakeRouter(Route("knowledge", None, {}))
    question = "How long can I return items?"
    for adapter in ("none", None):
        agent = loop(session, model=model, knowledge=knowledge, router=router, adapter=adapter)
        model.changed = True
        assert agent.route(question) == router.fixed
        assert "adapter" in notices(list(agent.stream(question)))
        model.changed = False
    assert knowledge.readers[:2] == [None, None]
    for reader in knowledge.readers[2:]:
        assert isinstance(reader, ModelReader)
        assert reader.supported(question, knowledge.passage) == 1.0


def test_an_unanswerable_question_is_declined(session: Session) -> None:
    router = FakeRouter(Route("decline", None, {}))
    events = list(loop(session, knowledge=FakeKnowledge(0), router=router).stream("Who won?"))
    assert types(events) == ["retrieved", "text_delta", "notice", "turn_done"]
    assert notices(events) == ["declined"]
    assert reply_of(events).text == DECLINE
    assert reply_of(events).citations == ()


@pytest.mark.parametrize(("judged", "answerable", "kind"), [
    (True, 0.49, "decline"), (True, 0.51, "knowledge"), (False, 0.0, "knowledge"),
])  # fmt: skip
def test_a_judge_knows_better_than_the_router(
    session: Session, judged: bool, answerable: float, kind: str
) -> None:
    knowledge = FakeKnowledge(answerable)
    knowledge.judged = judged  # type: ignore[attr-defined]
    scores = {"knowledge": 1.0}
    agent = loop(session, knowledge=knowledge, router=FakeRouter(Route("knowledge", None, scores)))
    assert agent.route("How long to return?") == Route(kind, None, scores)  # type: ignore[arg-type]


def test_an_answer_is_cited_and_what_has_no_support_is_removed(session: Session) -> None:
    words = "You can return items within 30 days. Our founder climbs mountains in Nepal."
    router = FakeRouter(Route("knowledge", None, {}))
    model = ScriptedModel([words])
    events = list(
        loop(session, model=model, knowledge=FakeKnowledge(), router=router).stream("How long to return?")
    )
    assert notices(events) == ["unsupported_sentence"]
    reply = reply_of(events)
    assert reply.text == "You can return items within 30 days. [1]"
    assert [(c.number, c.document) for c in reply.citations] == [(1, "returns.md")]
    assert session.messages()[-1].meta["citations"][0]["document"] == "returns.md"
    assert "30 days" in model.seen[0][-1].content  # the passage stood in the prompt
    assert reply.notices


def test_a_quoted_answer_is_offered_as_the_only_choice(session: Session) -> None:
    class Choosing(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            self._steps, self.options = [options["choices"][0]], options
            return super().stream(messages, **options)

    router, model = FakeRouter(Route("knowledge", None, {})), Choosing([])
    agent = loop(session, model=model, knowledge=FakeKnowledge(), router=router, quote=True)
    reply = agent.ask("How long can I return items?")
    assert "You can return items within 30 days." in reply.text
    assert reply.citations
    assert model.options["stop"] == ()  # a blank line within the quote must not end it


def test_a_routed_tool_is_described_called_and_told(session: Session) -> None:
    router = FakeRouter(Route("tool", "look", {}))
    model = ScriptedModel([look(), "It is one."])
    agent = loop(session, model=model, knowledge=FakeKnowledge(), router=router)
    events = list(agent.stream("How many?"))
    kinds = ["retrieved", "tool_call_proposed", "tool_started", "tool_finished", "text_delta", "turn_done"]
    assert types(events) == kinds
    assert "Function look" in model.seen[0][-1].content
    assert reply_of(events).text == "It is one."


def test_the_answer_about_a_tool_is_not_checked_against_passages(session: Session) -> None:
    """Without a router passages and tools come together; the result is evidence too."""
    agent = loop(session, look(), "Parcel 7 is in Vienna.", knowledge=FakeKnowledge())
    assert agent.ask("Where is parcel 7?").text == "Parcel 7 is in Vienna."


def test_parallel_calls_are_asked_for_and_told_together(session: Session) -> None:
    model = Noting((look(1), look(2, q=2)), "Both done.")
    agent = loop(session, model=model, parallel_tool_calls=True)
    events = list(agent.stream("Look twice", tool_choice="required"))
    assert [options["parallel_tool_calls"] for options in model.options] == [True, True]
    kinds = [event.type for event in events if event.type.startswith("tool")]
    assert kinds == ["tool_call_proposed"] * 2 + ["tool_started", "tool_finished"] * 2
    context = model.seen[1][-1]
    assert context.role == "user"
    assert [result.content() in context.content for result in reply_of(events).tool_results] == [True, True]
    assert loop(session, "x")._parallel is False


def test_roles_alternate_through_a_whole_conversation(session: Session) -> None:
    router = FakeRouter(Route("tool", "look", {}))
    model = ScriptedModel([look(1), "One.", ModelError("gone"), look(2), "Two.", "Three."])
    agent = loop(session, model=model, router=router)
    for text in ("first", "fails", "second"):
        list(agent.stream(text))
    router.fixed = Route("chat", None, {})
    agent.ask("third")
    for seen in model.seen:
        read = ["user" if message.role == "tool" else message.role for message in seen]
        turns = [role for n, role in enumerate(read) if n == 0 or role != read[n - 1]]
        assert turns == ["system", *(["user", "assistant"] * 9)[: len(turns) - 1]]


def test_a_context_message_takes_the_place_of_its_question() -> None:
    context = {"kind": "context"}
    stored = [
        Message("user", "q1"),
        Message("user", "passages and q1", meta=context),
        Message("assistant", "a1"),
        Message("tool", "r", (), "1", "look"),
        Message("user", "result", meta=context),
    ]
    assert [m.content for m in conversation(stored)] == ["passages and q1", "a1", "r", "result"]


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from test_agent import FakeTools, loop, look
    from agentkit.llm.scripted import ScriptedModel
    from agentkit.store import SessionStore

    def run(call):
        os.kill(os.getpid(), signal.SIGKILL)

    session = SessionStore(Path({path!r})).create()
    print(session.id, flush=True)
    loop(session, model=ScriptedModel([look()]), tools=FakeTools(run)).ask("Do it")
"""


def test_a_killed_turn_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    script = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = SessionStore(path)
    session = store.open(done.stdout.strip())
    assert roles(session) == ["system", "user", "assistant"]
    assert [call.name for call in session.dangling()] == ["look"]
    events = list(loop(session, "It was interrupted.").stream("Well?"))
    assert reply_of(events).text == "It was interrupted."
    assert roles(session) == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert not any(isinstance(event, ToolStarted) for event in events)  # nothing runs twice by itself
    store.close()


WEATHER = ToolSpec("weather", "Get the weather.", {"type": "object", "required": ["city"], "properties": {
                   "city": {"type": "string", "description": "Name of the city."}}})  # fmt: skip
ASKED = "To do that I need to know: name of the city."


class WeatherTool(FakeTools):
    def specs(self) -> list[ToolSpec]:
        return [WEATHER]

    def get(self, name: str) -> FakeTool:
        assert name == "weather"
        return FakeTool(WEATHER)


class WeatherRouter:
    """Only what names the weather is routed to it."""

    def route(self, text: str, tools: Sequence[ToolSpec], answerable: float | None) -> Route:
        return Route("tool", "weather", {}) if "weather" in text else Route("chat", None, {})


def test_a_missing_argument_is_asked_for_and_the_answer_goes_on(tmp_path: Path, smollm: LocalModel) -> None:
    path, tools = tmp_path / "sessions.sqlite", WeatherTool()
    options: dict[str, Any] = {"model": smollm, "tools": tools, "router": WeatherRouter(), "quote": True}
    store = SessionStore(path)
    session = store.create()
    events = list(loop(session, **options).stream("What's the weather like?"))
    assert types(events) == ["notice", "text_delta", "turn_done"]
    assert notices(events) == ["missing_argument"]
    assert (reply_of(events).text, tools.ran) == (ASKED, [])
    assert roles(session) == ["system", "user", "assistant"]
    store.close()

    store = SessionStore(path)  # the next turn comes in another process
    session = store.open(session.id)
    reply = loop(session, **options).ask("Oslo")
    store.close()
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("weather", {"city": "Oslo"})]
    assert tools.ran == list(reply.tool_calls)


@pytest.mark.parametrize("text", ["Never mind.", "No, forget it", "thanks"])
def test_a_request_can_be_taken_back(session: Session, text: str) -> None:
    tools = WeatherTool()
    agent = loop(session, "All right.", tools=tools, router=WeatherRouter())
    assert agent.ask("What's the weather like?").text == ASKED
    assert agent.ask(text).text == "All right."
    assert tools.ran == []


def test_another_topic_ends_the_question(session: Session) -> None:
    class Topics(WeatherRouter):
        def route(self, text: str, tools: Sequence[ToolSpec], answerable: float | None) -> Route:
            return (
                Route("knowledge", None, {}) if "return" in text else super().route(text, tools, answerable)
            )

    tools = WeatherTool()
    said = "You can return items within 30 days."
    agent = loop(session, said, "Hello.", tools=tools, router=Topics(), knowledge=FakeKnowledge())
    assert agent.ask("What's the weather like?").text == ASKED
    assert said[:-1] in agent.ask("How long can I return items?").text
    assert agent.ask("Hi").text  # nothing is open any more
    assert tools.ran == []


def test_a_tool_that_is_gone_is_not_gone_on_with(session: Session) -> None:
    assert (
        loop(session, tools=WeatherTool(), router=WeatherRouter()).ask("What's the weather like?").text
        == ASKED
    )
    assert loop(session, "Hi.", tools=NoTools(), router=WeatherRouter()).ask("Oslo").text == "Hi."


def test_no_question_goes_on_from_a_tools_turn() -> None:
    call = ToolCall("c", "captioner", {"image": "a.jpg"})
    acted = [
        Message("user", "What is on a.jpg?"),
        Message("assistant", "", (call,)),
        Message("tool", "{}", (), "c", "captioner"),
        Message("assistant", "A daisy."),
    ]
    asked = [Message("user", "How much is delivery?"), Message("assistant", "5 euros.")]
    assert since_tools([Message("system", "Hi."), *acted]) == []
    assert since_tools([*acted, *asked]) == asked
    assert since_tools([*asked, *acted]) == []
    assert since_tools(asked) == asked


def test_a_route_is_told_without_anything_being_stored_or_decoded(session: Session) -> None:
    fixed = Route("tool", "look", {"look": 1.0})
    agent = loop(session, router=FakeRouter(fixed), knowledge=FakeKnowledge())
    assert agent.route("Look it up.") == fixed
    assert session.messages() == []
    assert loop(session, knowledge=FakeKnowledge()).route("Look it up.") is None


def test_a_route_goes_on_from_the_conversation(session: Session) -> None:
    class Noting(FakeKnowledge):
        histories: list[list[str]] = []  # noqa: RUF012

        def search(self, query: str, limit: int = 4, *, history: Sequence[Message] = ()) -> list[Passage]:
            self.histories.append([message.content for message in history])
            return super().search(query, limit)

    agent = loop(session, "You have 30 days.", router=FakeRouter(Route("chat", None, {})), knowledge=Noting())
    list(agent.stream("How long can I return it?"))
    agent.route("And how much is that?")
    list(loop(session, "Free.", router=FakeRouter(Route("chat", None, {})), knowledge=Noting()).stream(
        "And how much is that?"))  # fmt: skip
    before, told, streamed = Noting.histories
    assert before == []
    assert told == streamed
    assert told[0] == "How long can I return it?"


@pytest.mark.parametrize("answer", ["no", 1, None, object()])
def test_only_true_approves(session: Session, answer: Any) -> None:
    tools = FakeTools(side_effect=True)
    agent = loop(session, look(), "As you say.", tools=tools, mode="ask")
    events = list(agent.stream("Look.", approve=lambda request: answer))
    assert tools.ran == []
    said = next(event.text for event in events if isinstance(event, Notice) and event.code == "denied")
    assert "`approve` returned neither True nor False" in said


def test_an_approval_that_would_have_to_be_awaited_approves_nothing(session: Session) -> None:
    async def later(request: ApprovalRequired) -> bool:
        return True

    tools = FakeTools(side_effect=True)
    agent = loop(session, look(), "As you say.", tools=tools, mode="ask")
    assert "denied" in notices(list(agent.stream("Look.", approve=later)))  # type: ignore[arg-type]
    assert tools.ran == []


def test_what_runs_is_what_was_stored_whatever_becomes_of_the_events(session: Session) -> None:
    tools = FakeTools()
    agent = loop(session, look(amount=5), "Done.", tools=tools)
    for event in agent.stream("Pay five."):
        if isinstance(event, ToolStarted):
            event.call.arguments["amount"] = 500_000
    assert tools.ran[0].arguments == {"amount": 5} == session.messages()[2].tool_calls[0].arguments


def test_nobody_is_asked_about_a_call_after_the_turn_was_cancelled(session: Session) -> None:
    cancel, asked = threading.Event(), []

    def stop(call: ToolCall) -> ToolResult:
        cancel.set()
        return ToolResult(call.id, call.name, True, 1)

    def approve(request: ApprovalRequired) -> bool:
        asked.append(request.call.id)
        return True

    tools = FakeTools(stop, side_effect=True)
    agent = loop(session, (look(1), look(2, again=True)), "Done.", tools=tools, parallel_tool_calls=True)
    list(agent.stream("Look twice.", approve=approve, cancel=cancel))
    assert asked == ["call_1"] == [call.id for call in tools.ran]
    assert session.dangling() == []
    assert "cancelled" in session.messages()[4].content


@pytest.mark.parametrize("choice", ["requird", "look", {"name": "nope"}])
def test_a_wrong_tool_choice_is_told_before_anything_is_stored(session: Session, choice: Any) -> None:
    agent = loop(session, "Hi.", router=FakeRouter(Route("chat", None, {})))
    with pytest.raises(UsageError, match="tool_choice"):
        agent.ask("Hi", tool_choice=choice)
    assert session.messages() == []


def test_a_session_takes_one_turn_at_a_time(session: Session) -> None:
    """Among threads and programs: two would answer each other's questions."""
    again = SessionStore(session._store._db.path)
    other = again.open(session.id)
    first = loop(session, "One.", "Three.").stream("First?")
    next(first)
    with pytest.raises(UsageError, match="in the middle of a turn"):
        loop(other, "Two.").ask("Second?")
    assert [message.content for message in other.messages()] == ["Be kind.", "First?"]
    list(first)
    assert loop(other, "Two.").ask("Second?").text == "Two."
    given_up = loop(session, "Three.").stream("Third?")
    next(given_up)
    del given_up
    assert loop(other, "Four.").ask("Fourth?").text == "Four."
    again.close()


def test_a_killed_turn_holds_no_session(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    store = SessionStore(path)
    session = store.create()
    program = f"""
        import os, signal
        from pathlib import Path
        from agentkit.store import SessionStore
        with SessionStore(Path({str(path)!r})).open({session.id!r}).turn():
            os.kill(os.getpid(), signal.SIGKILL)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    with session.turn():
        pass
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".turn")] == []
    store.close()


def test_a_result_that_the_context_has_no_room_for_is_cut_before_it_is_stored(session: Session) -> None:
    """Else the turn would fail after its tool has run, and the next one too."""
    rows = [{"id": n, "price": 9.5} for n in range(200)]
    tools = FakeTools(lambda call: ToolResult(call.id, call.name, True, rows))
    model = CountedModel([look(), "There are many.", "Yes."])
    agent = loop(session, model=model, tools=tools, router=FakeRouter(Route("tool", "look", {})))
    events = list(agent.stream("List them."))
    assert "truncated" in notices(events)
    assert reply_of(events).text == "There are many."
    [result] = reply_of(events).tool_results
    assert result.truncated
    assert json.dumps(rows).startswith(result.value)
    assert 300 < len(result.value) < 1000
    agent._router = FakeRouter(Route("knowledge", None, {}))
    agent.knowledge = FakeKnowledge()
    assert reply_of(list(agent.stream("How long to return?")))


def test_the_settings_stop_strings_count_unless_the_agent_quotes(session: Session) -> None:
    model = Noting("a", "b")
    loop(session, model=model).ask("Hi")
    loop(session, model=model, quote=True).ask("Hi")
    assert [options.get("stop") for options in model.options] == [None, ("\n\n",)]


def test_no_quote_is_offered_where_a_call_is_wanted(session: Session) -> None:
    model = Noting(look(), "It is one.")
    loop(session, model=model, knowledge=FakeKnowledge(), quote=True).ask("How long?", tool_choice="required")
    assert model.options[0]["choices"] == ()


def test_whoever_hears_of_the_end_may_begin_the_next_turn(session: Session) -> None:
    agent = loop(session, "One.", "Two.", "Three.", "Four.")
    events = agent.stream("First?")
    for event in events:
        if isinstance(event, TurnDone):
            assert agent.ask("Second?").text == "Two."
            break
    assert agent.ask("Third?").text == "Three."
    list(events)
    assert agent.ask("Fourth?").text == "Four."


def test_an_unfinished_answer_says_so_in_the_store(session: Session) -> None:
    class Cut(ScriptedModel):
        def stream(self, messages: Any, **options: Any) -> Any:
            for event in super().stream(messages, **options):
                yield replace(event, finish_reason="length") if isinstance(event, Completion) else event

    loop(session, model=Cut(["First, you should open the"])).ask("How?")
    assert session.messages()[-1].meta["unfinished"] == "length"
    loop(session, "Fine.").ask("And?")
    assert "unfinished" not in session.messages()[-1].meta
