"""The embedded model behind `ChatModel`: calls, choices, cache, cancelling."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from agentkit.engine.ledger import LedgerPool
from agentkit.engine.weights import LoadedModel
from agentkit.errors import ModelError, SchemaError, UsageError
from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.llm.adapters import AdapterChoice
from agentkit.llm.calls import read_message
from agentkit.llm.continuation import Continuation, _is_told
from agentkit.llm.encoding import ChatEncoder
from agentkit.llm.formats.hermes import FORMAT as HERMES
from agentkit.llm.local import LocalModel
from agentkit.llm.protocol import ModelEvent, Route
from agentkit.messages import Completion, Message, ToolExample, ToolSpec

WEATHER = ToolSpec(
    "get_weather",
    "Get the weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "unit"],
    },
)
NOTHING = ToolSpec("do_nothing", "Do nothing.", {"type": "object", "properties": {}})
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


def fresh(smollm: LocalModel) -> LocalModel:
    """The same weights with an empty cache."""
    return LocalModel(smollm._loaded)


def valid(completion: Completion) -> dict[str, Any]:
    (call,) = completion.tool_calls
    spec = {"get_weather": WEATHER, "do_nothing": NOTHING}[call.name]
    jsonschema.validate(call.arguments, spec.schema)
    assert completion.finish_reason == "tool_calls"
    return call.arguments


def test_required_makes_a_valid_call(smollm: LocalModel) -> None:
    arguments = valid(smollm.chat(ASK, tools=[WEATHER], tool_choice="required"))
    assert arguments["unit"] in ("celsius", "fahrenheit")


@pytest.mark.parametrize("seed", range(3))
def test_a_hot_model_makes_a_valid_call_too(smollm: LocalModel, seed: int) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "seed": seed, "max_new_tokens": 120}
    valid(smollm.chat(ASK, tools=[WEATHER, NOTHING], tool_choice="required", **options))


def test_a_named_tool_is_called(smollm: LocalModel) -> None:
    for choice in ({"name": "do_nothing"}, {"type": "function", "function": {"name": "do_nothing"}}):
        assert valid(smollm.chat(ASK, tools=[WEATHER, NOTHING], tool_choice=choice)) == {}


@pytest.mark.parametrize(
    "choice", [{"name": "nope"}, {}, {"function": "do_nothing"}, "sometimes", {"function": {"name": 3}}]
)
def test_an_unknown_choice_is_a_usage_error(smollm: LocalModel, choice: Any) -> None:
    with pytest.raises(UsageError, match="tool_choice"):
        smollm.chat(ASK, tools=[WEATHER], tool_choice=choice)
    with pytest.raises(UsageError, match="no tools"):
        smollm.chat(ASK, tool_choice="required")


def test_none_never_calls(smollm: LocalModel) -> None:
    completion = smollm.chat(ASK, tools=[WEATHER], tool_choice="none", max_new_tokens=12)
    assert completion.tool_calls == ()
    assert completion.text


def test_none_never_shows_a_call_either(smollm: LocalModel, begin: Callable[..., list[int]]) -> None:
    """A model that has read of tools may begin a call though it may not make one."""
    model = fresh(smollm)
    left = begin(model.encoder.plain('I look.\n<tool_call>\n{"name": "do_nothing"'))
    events = list(model.stream(ASK, tools=[WEATHER, NOTHING], tool_choice="none"))
    done = events[-1]
    assert isinstance(done, Completion)
    assert (done.text, done.tool_calls, done.finish_reason) == ("I look.", (), "stop")
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "I look."
    assert [e.code for e in events if isinstance(e, Notice)] == ["call_left_out"]
    assert left
    left.clear()
    more = [*ASK, {"role": "assistant", "content": "I look."}, {"role": "user", "content": "And?"}]
    again = model.chat(more, tools=[WEATHER, NOTHING], tool_choice="none", max_new_tokens=4)
    assert again.usage.cached_tokens > len(
        model.render(ASK, [WEATHER, NOTHING])
    )  # what was said was not read again


def test_the_first_token_of_a_forced_call_comes_after_the_prompt_was_read(smollm: LocalModel) -> None:
    long = [{"role": "user", "content": f"{'It rains. ' * 300} What is the weather in Paris?"}]
    usage = fresh(smollm).chat(long, tools=[WEATHER], tool_choice="required").usage
    assert usage.ttft_s > 0.1 * usage.seconds


def test_beside_tools_an_answer_that_is_no_call_is_in_its_form(
    smollm: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded model without an adapter begins with words; one that begins with a call makes it."""
    form = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    events = list(fresh(smollm).stream(ASK, tools=[WEATHER], response_format=form, max_new_tokens=40))
    end = events[-1]
    assert isinstance(end, Completion)
    assert set(json.loads(end.text)) == {"city"}
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == end.text
    monkeypatch.setattr(Continuation, "_begins_a_call", lambda self, specs: True)
    called = fresh(smollm).chat(ASK, tools=[WEATHER], response_format=form, max_new_tokens=60)
    assert [call.name for call in called.tool_calls] == ["get_weather"]


def test_whether_the_first_words_are_a_call_is_the_models(smollm: LocalModel) -> None:
    """Whatever was decoded to find out is taken back: the answer is the same as without tools that it could call."""
    form = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    prompt = [{"role": "user", "content": "How many days has a week?"}]
    beside = fresh(smollm).chat(prompt, tools=[NOTHING], response_format=form, max_new_tokens=40)
    alone = fresh(smollm).chat(
        prompt, tools=[NOTHING], tool_choice="none", response_format=form, max_new_tokens=40
    )
    assert (beside.text, beside.usage.completion_tokens) == (alone.text, alone.usage.completion_tokens)


def test_a_call_goes_on_with_what_the_system_prompt_or_the_assistant_has_said() -> None:
    told = [
        Message("system", "The customer is Ann, id C-4711."),
        Message("assistant", "It is 2024-05-01 then."),
    ]
    assert _is_told("c-4711", told)
    assert _is_told("2024-05-01", told)
    assert not _is_told("C-47", told)
    assert not _is_told("", told)
    assert not _is_told(["C-4711"], told)


@pytest.mark.parametrize("factor", [0.01, 0.1, 0.05])
def test_multiples_are_those_that_are_written(factor: float) -> None:
    tool = ToolSpec("refund", "Refund.", {"type": "object", "properties": {"n": {"multipleOf": factor}}})
    for n in range(300):
        value = round(n * factor, 2)
        text = f'<tool_call>\n{{"name": "refund", "arguments": {{"n": {value}}}}}\n</tool_call>'
        assert read_message(text, [tool], HERMES).calls[0].arguments == {"n": value}
    with pytest.raises(ModelError, match="is not a multiple"):
        read_message(text.replace(str(value), "0.003"), [tool], HERMES)
    assert read_message(text.replace(str(value), "1e300"), [tool], HERMES).calls


def test_null_in_a_tools_schema_is_nothing(smollm: LocalModel) -> None:
    """Go writes an empty map so."""
    parameters = {"type": "object", "properties": None, "required": None}
    body = {
        "type": "function",
        "function": {"name": "stop", "description": "Stop.", "parameters": parameters},
    }
    (call,) = smollm.chat(ASK, tools=[body], tool_choice={"name": "stop"}).tool_calls
    assert (call.name, call.arguments) == ("stop", {})


@pytest.mark.parametrize("budget", [1, 5, 15])
def test_a_call_that_does_not_fit_is_dropped_with_a_notice(smollm: LocalModel, budget: int) -> None:
    events = list(smollm.stream(ASK, tools=[WEATHER], tool_choice="required", max_new_tokens=budget))
    assert [e.code for e in events if isinstance(e, Notice)] == ["call_cut", "truncated"]
    assert not any(isinstance(e, ToolCallProposed) for e in events)
    assert isinstance(events[-1], Completion)
    assert events[-1].tool_calls == ()
    assert events[-1].finish_reason == "length"


def test_the_model_opens_a_call_by_itself(smollm: LocalModel) -> None:
    """The tag is what the model writes; from there on the grammar rules."""
    history = [
        {"role": "system", "content": "Repeat the word of the user."},
        {"role": "user", "content": "Say: banana"},
        {"role": "assistant", "content": "I look. <tool_call>"},
        {"role": "user", "content": "Say: banana"},
    ]
    events = list(fresh(smollm).stream(history, tools=[WEATHER], describe_tools=False, tool_choice="auto"))
    completion = events[-1]
    assert isinstance(completion, Completion)
    valid(completion)
    said = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert said == completion.text
    assert "look" in said
    assert "<tool" not in said
    kinds = [type(e).__name__ for e in events]
    assert kinds.index("ToolCallProposed") == len(kinds) - 2


def test_a_model_that_has_learned_to_decide_does_so_of_tools_without_examples(
    smollm: LocalModel, begin: Callable[..., list[int]]
) -> None:
    asked = []

    class Counting:
        def route(self, text: str, tools: Any, answerable: float | None) -> Route:
            asked.append(text)
            return Route("chat", None, {})

    model = LocalModel(smollm._loaded, router=Counting())
    begin(model.encoder.plain("<tool_call>"))
    learned = AdapterChoice(None, decides=True)
    assert valid(model.chat(ASK, tools=[NOTHING], adapter=learned)) == {}
    assert asked == []
    shown = replace(NOTHING, examples=(ToolExample("Do nothing.", {}),))
    assert model.chat(ASK, tools=[NOTHING, shown][1:], adapter=learned, max_new_tokens=3).tool_calls == ()
    assert model.chat(ASK, tools=[NOTHING], adapter=AdapterChoice(None), max_new_tokens=3).tool_calls == ()
    assert len(asked) == 2


def test_a_router_decides_under_auto(smollm: LocalModel) -> None:
    class Always:
        def __init__(self, tool: str | None) -> None:
            self.tool = tool

        def route(self, text: str, tools: Any, answerable: float | None) -> Route:
            assert text == ASK[0]["content"]
            return Route("tool" if self.tool else "chat", self.tool, {})

    routed = LocalModel(smollm._loaded, router=Always("do_nothing"))
    assert valid(routed.chat(ASK, tools=[WEATHER, NOTHING])) == {}
    routed = LocalModel(smollm._loaded, router=Always(None))
    assert routed.chat(ASK, tools=[WEATHER, NOTHING], max_new_tokens=5).tool_calls == ()


@pytest.mark.parametrize(
    "form",
    [
        lambda schema: schema,
        lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        lambda schema: {"json_schema": schema},
    ],
)
def test_response_format_is_satisfied(smollm: LocalModel, form: Any) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
              "required": ["city", "n"], "additionalProperties": False}  # fmt: skip
    completion = smollm.chat(ASK, response_format=form(schema), max_new_tokens=80)
    jsonschema.validate(json.loads(completion.text), schema)
    assert completion.finish_reason == "stop"


def test_response_formats_of_openai(smollm: LocalModel) -> None:
    assert isinstance(json.loads(smollm.chat(ASK, response_format={"type": "json_object"}).text), dict)
    assert smollm.chat(ASK, response_format={"type": "text"}, max_new_tokens=5).text
    with pytest.raises(SchemaError, match="response_format"):
        smollm.chat(ASK, response_format={"type": "shoe"})


CONTACT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "email": {"type": "string", "format": "email", "maxLength": 30},
        "age": {"type": ["integer", "null"], "minimum": 0, "maximum": 150},
    },
    "required": ["name", "email"],
    "additionalProperties": False,
}
ANSWERS: dict[str, dict[str, Any]] = {
    "contact": CONTACT,
    "list": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 2, "maxItems": 4},
    "nested": {
        "type": "object",
        "properties": {"people": {"type": "array", "items": {"$ref": "#/$defs/person"}, "maxItems": 2}},
        "required": ["people"],
        "$defs": {"person": CONTACT},
    },
    "sentiment": {"enum": ["positive", "negative", "neutral"]},
    "number": {"type": "integer", "minimum": 1, "maximum": 5},
    "either": {"anyOf": [{"type": "boolean"}, CONTACT]},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_real_schemas_and_the_history_goes_on(smollm: LocalModel, name: str) -> None:
    schema, model = ANSWERS[name], fresh(smollm)
    wrapper = {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
    messages = [Message("user", "Tell me about Ann, 31, ann@example.org, who is happy.")]
    for n, form in enumerate((schema, wrapper)):
        completion = model.chat(messages, response_format=form, max_new_tokens=200)
        jsonschema.validate(json.loads(completion.text), schema)
        assert (completion.finish_reason, completion.tool_calls) == ("stop", ())
        written = list(model._pool._ledgers[-1].ids)
        written = written[:-1] if written[-1] in model._loaded.eos_ids else written
        messages += [Message("assistant", completion.text), Message("user", f"And again, number {n}.")]
        assert model.render(messages)[: len(written)] == written
    assert model.chat(messages, max_new_tokens=3).usage.cached_tokens > 30


@pytest.mark.parametrize(
    "form",
    ["json", 3, ["type"], {}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}},
     {"type": "json_object", "schema": "x"},
     {"json_schema": "x"}, {"type": "json_schema", "json_schema": {"schema": "x"}},
     {"type": "object", "properties": {"q": {"type": "shoe"}}}],
)  # fmt: skip
def test_a_wrong_response_format_is_a_usage_error(smollm: LocalModel, form: Any) -> None:
    with pytest.raises(UsageError, match="response_format") as caught:
        smollm.chat(ASK, response_format=form)
    assert "\n" not in str(caught.value)


def test_choices(smollm: LocalModel) -> None:
    assert smollm.chat(ASK, choices=["It is sunny.", "It rains."]).text in ("It is sunny.", "It rains.")
    long = "A sentence with <|im_end|> in it, and\n\na blank line. " * 20
    completion = smollm.chat(ASK, choices=[long], max_new_tokens=10)
    assert (completion.text, completion.finish_reason) == (long, "stop")


def test_wrong_input_is_refused_before_decoding(smollm: LocalModel) -> None:
    for options in (
        {"temprature": 1},
        {"temperature": -1},
        {"max_new_tokens": 0},
        {"top_p": 2},
        {"seed": 2**64},
    ):
        with pytest.raises(UsageError, match="sampling option"):
            smollm.chat(ASK, **options)
    assert not any(ledger.busy for ledger in smollm._pool._ledgers)
    for messages in ([], [{"role": "robot", "content": "x"}], ["text"], [{"role": "user", "content": 3}]):
        with pytest.raises(UsageError):
            smollm.chat(messages)  # type: ignore[arg-type]
    bad = {"name": "f", "parameters": {"type": "object", "properties": {"q": {"type": "dict"}}}}
    with pytest.raises(SchemaError, match=r"#/properties/q.*dict"):
        smollm.chat(ASK, tools=[bad], tool_choice="required")
    with pytest.raises(SchemaError, match=r"#/properties/q.*dict"):
        next(fresh(smollm).stream(ASK, tools=[WEATHER, bad]))  # the model may call it at any time
    with pytest.raises(UsageError, match="two tools"):
        smollm.chat(ASK, tools=[WEATHER, WEATHER])


def test_a_conversation_beyond_the_context_is_a_model_error(smollm: LocalModel) -> None:
    long = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(ModelError, match=r"the model's context is 8192"):
        smollm.chat(long)
    assert smollm.room([Message("user", "word " * 9000)]) < 0
    assert smollm.chat(ASK, max_new_tokens=2).text


def test_cancel_keeps_what_was_said(smollm: LocalModel) -> None:
    cancel, deltas = threading.Event(), []
    for event in smollm.stream([{"role": "user", "content": "Tell me a long story."}], cancel=cancel):
        if isinstance(event, TextDelta):
            deltas.append(event.text)
            if len(deltas) == 3:
                cancel.set()
    assert isinstance(event, Completion)
    assert event.finish_reason == "cancelled"
    assert event.text == "".join(deltas)
    assert event.usage.completion_tokens <= 6
    cancelled = smollm.chat(ASK, tools=[WEATHER], tool_choice="required", cancel=cancel)
    assert (cancelled.tool_calls, cancelled.finish_reason) == ((), "cancelled")


def test_stop_strings_end_the_answer(smollm: LocalModel) -> None:
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    assert smollm.chat(ask, tool_choice="none").text == "The capital of France is Paris."
    cut = smollm.chat(ask, stop=[" is"])
    assert (cut.text, cut.finish_reason) == ("The capital of France", "stop")


def test_the_seed_reproduces_a_sampled_answer(smollm: LocalModel) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "max_new_tokens": 12}
    first, second, other = (smollm.chat(ASK, seed=seed, **options).text for seed in (7, 7, 8))
    assert first == second != other


def conversation(model: LocalModel) -> list[tuple[str, int]]:
    """Three turns with a call in between: texts, and the tokens each had to read anew."""
    messages: list[Any] = [
        Message("system", "You are kind."),
        Message("user", "What is the capital of France?"),
    ]
    told = []
    for n, more in enumerate(("And of Spain?", "Thank you!", "")):
        completion = model.chat(messages, max_new_tokens=8)
        told.append((completion.text, completion.usage.prompt_tokens - completion.usage.cached_tokens))
        messages += [Message("assistant", completion.text), Message("user", more)]
        if n == 0:
            called = model.chat(messages, tools=[NOTHING], tool_choice="required", describe_tools=False)
            messages += [
                Message("assistant", "", called.tool_calls),
                Message("tool", "{}", (), "1", "do_nothing"),
            ]
    return told


def test_a_turn_costs_its_new_tokens_and_says_the_same(smollm: LocalModel) -> None:
    kept, forgetful = fresh(smollm), fresh(smollm)
    forgetful._pool = LedgerPool(smollm._loaded, 0)
    with_cache, without = conversation(kept), conversation(forgetful)
    assert [text for text, _ in with_cache] == [text for text, _ in without]
    assert with_cache[1][1] < 70  # the answer's end, a question, a call and its result
    assert with_cache[2][1] < 20
    assert without[2][1] > 100


def test_interleaved_streams(smollm: LocalModel) -> None:
    model = fresh(smollm)
    questions = ["What is the capital of France?", "What is the capital of Italy?"]
    alone = [model.chat([{"role": "user", "content": q}], max_new_tokens=12).text for q in questions]
    streams = [model.stream([{"role": "user", "content": q}], max_new_tokens=12) for q in questions]
    finished: list[ModelEvent] = [None, None]  # type: ignore[list-item]
    running = {0, 1}
    while running:
        for n in sorted(running):
            event = next(streams[n], None)
            if event is None:
                running.discard(n)
            else:
                finished[n] = event
    assert [event.text for event in finished] == alone  # type: ignore[union-attr]


def test_an_abandoned_stream_leaves_the_model_usable(smollm: LocalModel) -> None:
    model = fresh(smollm)
    stream = model.stream(ASK)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not any(ledger.busy for ledger in model._pool._ledgers)
    assert model.chat(ASK, max_new_tokens=8).text == fresh(smollm).chat(ASK, max_new_tokens=8).text


def test_render_is_what_a_turn_starts_from(smollm: LocalModel) -> None:
    ids = smollm.render(ASK, tools=[WEATHER])
    assert (
        ids
        == ChatEncoder(smollm.tokenizer, frozenset({2}))
        .encode([Message("user", ASK[0]["content"])], [WEATHER])
        .ids
    )
    assert smollm.chat(ASK, tools=[WEATHER], tool_choice="none", max_new_tokens=1).usage.prompt_tokens == len(
        ids
    )
    assert "<tool_call>\n" in smollm.tokenizer.decode(ids)


@pytest.mark.parametrize(
    "error", [ValueError("broken"), RuntimeError("a kernel failed\nat length"), KeyError()]
)
def test_a_crash_of_the_model_ends_only_its_turn(
    smollm: LocalModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    messages = [{"role": "user", "content": "Name three colours."}]
    before = smollm.chat(messages, max_new_tokens=8).text
    forward = LoadedModel.forward
    passes = 0

    def failing(self: LoadedModel, *args: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == 3:
            raise error
        return forward(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "forward", failing)
        with pytest.raises(ModelError, match="failed while decoding") as caught:
            smollm.chat(messages, max_new_tokens=8)
    assert "\n" not in str(caught.value)
    assert smollm.chat(messages, max_new_tokens=8).text == before


@pytest.mark.parametrize("message", ["DefaultCPUAllocator: can't allocate memory", None])
def test_out_of_memory_frees_other_caches_and_tries_once_more(
    smollm: LocalModel, monkeypatch: pytest.MonkeyPatch, message: str | None
) -> None:
    messages = [{"role": "user", "content": "Name three colours."}]
    before = smollm.chat(messages, max_new_tokens=8)
    smollm.chat([{"role": "user", "content": "Another conversation"}], max_new_tokens=2)
    forward = LoadedModel.forward
    passes, failures = 0, {3}

    def failing(self: LoadedModel, ids: Any, cache: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        result = forward(self, ids, cache, **options)  # the cache has grown when memory runs out
        if passes in failures:
            raise RuntimeError(message) if message else MemoryError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "forward", failing)
        events = list(smollm.stream(messages, max_new_tokens=8))
        assert events[-1].text == before.text  # type: ignore[union-attr]
        assert [event.code for event in events if isinstance(event, Notice)] == ["memory", "truncated"]
        assert len(smollm._pool._ledgers) == 1
        failures |= set(range(passes + 1, passes + 100))
        with pytest.raises(ModelError, match="failed while decoding"):
            smollm.chat(messages, max_new_tokens=8)
    assert smollm.chat(messages, max_new_tokens=8).text == before.text


def test_every_forward_pass_runs_in_the_models_own_thread(
    smollm: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def watch(name: str) -> None:
        forward = getattr(LoadedModel, name)

        def watched(self: LoadedModel, *args: Any, **options: Any) -> Any:
            threads.add(threading.current_thread().name)
            return forward(self, *args, **options)

        monkeypatch.setattr(LoadedModel, name, watched)

    watch("forward")
    watch("forward_batch")
    callers = [
        threading.Thread(
            target=smollm.chat, args=([{"role": "user", "content": text}],), kwargs={"max_new_tokens": 3}
        )
        for text in ("one", "two", "three")
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(threads) == 1
    assert threads.pop().startswith("agentkit-")
