"""A model on a server: events, calls, retries, and every wrong thing that a server can send."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import remote_helpers as it
from remote_helpers import ASK, EVENTS, Answer, Fake, chunk, codes, completion, event, proposed, reply, said

from agentkit.errors import AgentkitError, ModelError, SchemaError, UsageError
from agentkit.events import Notice, TextDelta
from agentkit.llm.missing import question
from agentkit.llm.openai.address import Address, api_key
from agentkit.llm.openai.sse import EventReader
from agentkit.llm.protocol import Route
from agentkit.llm.remote import RemoteModel
from agentkit.messages import Message, ToolCall, ToolSpec, Usage

WEATHER = ToolSpec(
    "get_weather",
    "Get the weather of a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOTHING = ToolSpec("do_nothing", "Do nothing.", {"type": "object", "properties": {}})
TOOLS = [WEATHER, NOTHING]
PARIS = ("get_weather", {"city": "Paris"})
RIGHT = it.called(("get_weather", '{"city": "Paris"}'))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    for name in ("AGENTKIT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with it.fake_server() as server:
        yield server


def fails(fake: Fake, *answers: Answer, **options: Any) -> ModelError:
    """The error of answers that cannot be used; the same model goes on as if nothing had been."""
    model = fake.model(**{"retries": 0, **options})
    fake.answers = list(answers)
    with pytest.raises(ModelError) as caught:
        model.chat(ASK, tools=TOOLS)
    text = str(caught.value)
    assert caught.value.remedy
    assert text.isprintable()
    fake.answers = [said("Fine.")]
    assert model.chat(ASK).text == "Fine."
    return caught.value


# Words


def test_words_come_as_they_are_written(fake: Fake) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    last = {"choices": [], "usage": usage}
    fake.answers = [
        it.stream(chunk(role="assistant", content=""), *map(text, ("Hel", "lo.")), chunk("stop"), last)
    ]
    model = fake.model()
    events = list(model.stream([{"role": "system", "content": "Be kind."}, *ASK]))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo."]
    done = completion(events)
    assert (done.text, done.finish_reason) == ("Hello.", "stop")
    assert (done.usage.prompt_tokens, done.usage.cached_tokens, done.usage.completion_tokens) == (7, 4, 2)
    assert 0 < done.usage.ttft_s <= done.usage.seconds
    assert model.name == "tiny"
    (asked,) = fake.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 256,
        "temperature": 0.0,
    }


def text(content: str) -> dict[str, Any]:
    return chunk(content=content)


def test_a_server_that_counts_nothing(fake: Fake) -> None:
    fake.answers = [said("Hello.")]
    usage = fake.model().chat(ASK).usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.forward_passes) == (
        0,
    ) * 4


def test_sampling_goes_out_by_openai_names(fake: Fake) -> None:
    fake.answers = [said("a")]
    options: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 3}
    fake.model().chat(ASK, stop=["\n\n"], max_new_tokens=9, repetition_penalty=1.1, **options)
    assert {**options, "stop": ["\n\n"], "max_tokens": 9, "repetition_penalty": 1.1}.items() <= fake.bodies[
        0
    ].items()
    with pytest.raises(UsageError, match="sampling option temprature"):
        fake.model().chat(ASK, temprature=1)


def test_messages_go_out_in_openai_form_and_take_turns(fake: Fake) -> None:
    fake.answers = [said("a")]
    call = ToolCall("c1", "get_weather", {"city": "Köln"})
    conversation = [
        Message("system", "One."), Message("system", "Two."), Message("user", "q"), Message("user", "context"),
        Message("assistant", "I look."), Message("assistant", "", (call,)),
        Message("tool", "{}", (), "c1", "get_weather"), Message("user", "half \ud800"),
    ]  # fmt: skip
    fake.model().chat(conversation)
    sent = fake.bodies[0]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "user"]
    assert [sent[n]["content"] for n in (0, 1, 2, 4)] == ["One.\n\nTwo.", "q\n\ncontext", "I look.", "half ?"]
    assert json.loads(sent[2]["tool_calls"][0]["function"]["arguments"]) == {"city": "Köln"}
    assert sent[3]["tool_call_id"] == "c1"


def test_control_characters_are_text(fake: Fake) -> None:
    fake.answers = [said("\x1b[31mred\x00\u202e <|im_end|>")]
    assert fake.model().chat(ASK).text == "\x1b[31mred\x00\u202e <|im_end|>"


def test_a_character_in_two_halves(fake: Fake) -> None:
    fake.answers = [
        it.stream(*(event(chunk(content=c))[6:-2] for c in ("a\ud83d", "\ude00b", "c\ud83d")), chunk("stop"))
    ]
    assert fake.model().chat(ASK).text == "a😀bc�"


def test_stop_strings_hold_even_where_the_server_writes_them(fake: Fake) -> None:
    fake.answers = [it.stream(text("One <e"), text("nd> two"), *[text("x")] * 500, chunk("stop"))]
    events = list(fake.model().stream(ASK, stop=["<end>"]))
    assert completion(events).text == "One "
    fake.answers = [said("One <e", "n")]
    assert fake.model().chat(ASK, stop=["<end>"]).text == "One <en"


def test_an_answer_that_was_cut(fake: Fake) -> None:
    fake.answers = [said("One", finish="length")]
    events = list(fake.model().stream(ASK))
    assert codes(events) == ["truncated"]
    assert completion(events).finish_reason == "length"


# The stream


SENT = (
    "\ufeff: a comment\r\nevent: x\r\ndata:" + json.dumps(text("Grüße, "), ensure_ascii=False) + "\r\n\r\n"
    'id: 1\r\ndata: {"choices":\r\ndata: [{"delta": {"content": "日本 😀"}}]}\n\n:\n\n'
    "data: " + json.dumps(chunk("stop")) + "\r\rdata:[DONE]\n\n"
).encode()


def test_events_may_be_cut_anywhere() -> None:
    whole = EventReader()
    expected = whole.feed(SENT) + whole.finish()
    assert [data[:9] for data in expected] == ['{"object"', '{"choices', '{"object"', "[DONE]"]
    for cut in range(len(SENT)):
        reader = EventReader()
        assert reader.feed(SENT[:cut]) + reader.feed(SENT[cut:]) + reader.finish() == expected, cut
    reader = EventReader()
    assert [data for n in range(len(SENT)) for data in reader.feed(SENT[n : n + 1])] == expected


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@pytest.mark.parametrize("kind", [EVENTS, "application/json", "text/html"])
def test_a_stream_in_pieces_of_any_type(fake: Fake, pieces: int, kind: str) -> None:
    fake.answers = [reply([SENT[n : n + pieces] for n in range(0, len(SENT), pieces)], kind=kind)]
    assert fake.model().chat(ASK).text == "Grüße, 日本 😀"


def test_a_last_event_without_a_blank_line(fake: Fake) -> None:
    fake.answers = [reply(event(text("Hello.")) + event(chunk("stop")).rstrip())]
    assert fake.model().chat(ASK).text == "Hello."


def test_gzip(fake: Fake) -> None:
    fake.answers = [reply(gzip.compress(SENT), kind=EVENTS, headers={"Content-Encoding": "gzip"})]
    assert fake.model().chat(ASK).text == "Grüße, 日本 😀"
    broken = reply(b"no gzip", kind=EVENTS, headers={"Content-Encoding": "gzip"})
    assert "decompressed" in fails(fake, broken).cause
    twice = reply(gzip.compress(gzip.compress(SENT)), kind=EVENTS, headers={"Content-Encoding": "gzip, gzip"})
    assert "it is encoded as 'gzip, gzip'" in fails(fake, twice).cause


def test_a_small_answer_that_inflates_to_a_huge_one_is_not_kept(fake: Fake) -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    fake.answers = [reply(bomb, kind=EVENTS, headers={"Content-Encoding": "gzip"})]
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            fake.model().chat(ASK)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_was_broken_off_is_none(fake: Fake, reason: str) -> None:
    broken = it.stream(chunk(content="The refund is"), chunk(reason))
    assert f"broke its answer off ({reason})" in fails(fake, broken).cause


def test_half_a_call_does_not_run(fake: Fake) -> None:
    begun = chunk(tool_calls=[it.part('{"ci', "get_weather", index=0, id="c0")])
    broken = reply(event(begun) + event(b"[DONE]"), kind=EVENTS)
    assert "ended in the middle of its answer" in fails(fake, broken).cause
    error = reply(event(begun) + event({"object": "error", "message": "no memory"}), kind=EVENTS)
    assert "failed while answering: no memory" in fails(fake, error).cause


def test_other_names_of_a_cut_answer(fake: Fake) -> None:
    fake.answers = [it.stream(chunk(content="Hello"), chunk("model_length"))]
    assert fake.model().chat(ASK).finish_reason == "length"


def test_pieces_of_one_call_may_have_ids_of_their_own(fake: Fake) -> None:
    pieces = ['{"city"', ': "Par', 'is"}']
    chunks = [
        chunk(tool_calls=[it.part(text, None if n else "get_weather", index=0, id=f"c{n}")])
        for n, text in enumerate(pieces)
    ]
    fake.answers = [it.stream(*chunks, chunk("tool_calls"))]
    assert proposed(list(fake.model().stream(ASK, tools=TOOLS))) == [PARIS]


def test_a_server_that_does_not_stream(fake: Fake) -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [it.part('{"city": "Paris"}', "get_weather", id="7")],
    }
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 3}}
    fake.answers = [reply(b"\n" + json.dumps(body).encode())]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert proposed(events) == [PARIS]
    assert completion(events).usage.prompt_tokens == 3


def test_a_stream_that_says_nothing_is_asked_for_the_whole_answer(fake: Fake) -> None:
    whole = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
    fake.answers = [reply(b"", kind=EVENTS), reply(json.dumps(whole).encode())]
    events = list(fake.model().stream(ASK))
    assert (completion(events).text, codes(events)) == ("Hello.", ["unsupported"])
    assert (fake.bodies[1]["stream"], "stream_options" in fake.bodies[1]) == (False, False)
    model, asked = fake.model(), len(fake.asked)
    for _ in range(2):  # it is learnt for calls that the model is free to make, and for these only
        fake.answers = (
            [reply(json.dumps(whole).encode())]
            if fake.asked[asked:]
            else [reply(b""), reply(json.dumps(whole).encode())]
        )
        assert model.chat(ASK, tools=TOOLS).text == "Hello."
    fake.answers = [said("Hello.")]
    assert model.chat(ASK).text == "Hello."
    assert [body["stream"] for body in fake.bodies[asked:]] == [True, False, False, True]
    assert "empty answer" in fails(fake, reply(b""), reply(b": ping\n\n")).cause


def test_what_nobody_knows_is_passed_over(fake: Fake) -> None:
    odd = {
        "id": 3,
        "choices": [{"delta": {"content": "Hello.", "reasoning_content": "hm", "x": [1]}, "logprobs": 0}],
    }
    fake.answers = [
        it.stream({"ping": 1}, {"choices": []}, {"choices": None}, chunk(content=None), odd, chunk("eos"))
    ]
    done = fake.model().chat(ASK)
    assert (done.text, done.finish_reason) == ("Hello.", "stop")
    fake.answers = [
        it.stream({"choices": [{"delta": {"content": [{"type": "text", "text": "Parts."}]}}]}, chunk("stop"))
    ]
    assert fake.model().chat(ASK).text == "Parts."


def test_a_connection_lost_after_the_last_word_loses_nothing(fake: Fake) -> None:
    fake.answers = [reply(event(text("Hello.")) + event(chunk("stop")), length=10_000)]
    assert fake.model().chat(ASK).text == "Hello."


def test_the_content_filter_is_told(fake: Fake) -> None:
    fake.answers = [said("One", finish="content_filter")]
    assert codes(list(fake.model().stream(ASK))) == ["filtered"]


def test_a_content_filter_is_not_argued_with(fake: Fake) -> None:
    for options in ({"tools": TOOLS, "tool_choice": "required"}, {"response_format": CITY}):
        for answer in (
            said("Par", finish="content_filter"),
            it.called(("get_weather", '{"ci'), finish="content_filter"),
        ):
            fake.answers, asked = [answer], len(fake.asked)
            events = list(fake.model().stream(ASK, **options))
            assert (codes(events), proposed(events), len(fake.asked) - asked) == (["filtered"], [], 1)
            assert completion(events).text == ""  # half an answer in no form is none
    fake.answers = [it.called(("get_weather", '{"city": "Paris"}'), finish="content_filter")]
    assert proposed(list(fake.model().stream(ASK, tools=TOOLS))) == [PARIS]


def test_a_refusal_is_text_and_told(fake: Fake) -> None:
    no = it.stream(chunk(refusal="I can", content=None), chunk(refusal="not do that."), chunk("stop"))
    for options in ({}, {"tools": TOOLS, "tool_choice": "required"}, {"response_format": CITY}):
        fake.answers, asked = [no], len(fake.asked)
        events = list(fake.model().stream(ASK, **options))
        assert (codes(events), completion(events).text) == (["refused"], "I cannot do that.")
        assert len(fake.asked) - asked == 1
    message = {"content": None, "refusal": "No."}
    fake.answers = [reply(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())]
    assert codes(events := list(fake.model().stream(ASK))) == ["refused"]
    assert completion(events).text == "No."


@pytest.mark.parametrize(
    "answer", [said(), said(""), said("<end>"), it.stream(chunk(reasoning_content="hm"), chunk("stop"))]
)
def test_an_answer_without_words_is_told(fake: Fake, answer: Answer) -> None:
    fake.answers = [answer]
    events = list(fake.model().stream(ASK, stop=["<end>"]))
    assert (codes(events), completion(events).text, completion(events).finish_reason) == (
        ["empty"],
        "",
        "stop",
    )


# Calls


@pytest.mark.parametrize("chunks", [
    [chunk(function_call={"name": "get_weather", "arguments": '{"city": "Paris"}'})],
    [chunk(function_call={"name": "get_weather", "arguments": ""}), chunk(function_call={"arguments": '{"city":'}),
     chunk(function_call={"arguments": ' "Paris"}'})],
])  # fmt: skip
def test_the_old_form_of_a_call(fake: Fake, chunks: list[dict[str, Any]]) -> None:
    fake.answers = [it.stream(*chunks, chunk("function_call"))]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert (proposed(events), codes(events), completion(events).text) == ([PARIS], [], "")
    assert "a call's function is no object" in fails(fake, it.stream(chunk(function_call="f"))).cause


def test_a_call_in_both_forms_is_one(fake: Fake) -> None:
    """As llama-cpp-python streams it."""
    functions = [{"name": "get_weather", "arguments": more} for more in ("", '{"city":', ' "Paris"}')]
    both = [
        chunk(function_call=function, tool_calls=[{"index": 0, "id": "c0", "function": function}])
        for function in functions
    ]
    fake.answers = [it.stream(*both, chunk("tool_calls"))]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert (proposed(events), codes(events)) == ([PARIS], [])


@pytest.mark.parametrize(
    "pieces",
    [
        [
            it.part("", "get_weather", index=0, id="a"),
            it.part('{"city":', index=0),
            it.part(' "Paris"}', index=0),
        ],
        [it.part('{"city": "Paris"}', "get_weather", index=0, id="a")],
        [it.part(more, "get_weather", index=0, id="a") for more in ('{"city"', ': "Par', 'is"}')],
        [it.part(more, "get_weather", id="a") for more in ('{"city"', ': "Paris"}')],
        [it.part('{"city"', "get_weather"), it.part(': "Paris"}')],
        [it.part({"city": "Paris"}, "get_weather")],
        [it.part('{"city": "Paris"}', "get_weather", index=None, id=None, type=None)],
        [it.part('{"city": "Paris"}', "get_weather", index=3, id=77)],
        [it.part('{"city": "Paris"}', "get_weather", index=0), it.part("", index=0)],
    ],
)
def test_calls_are_put_together(fake: Fake, pieces: list[dict[str, Any]]) -> None:
    chunks = [chunk(content=None, tool_calls=[piece]) for piece in pieces]
    fake.answers = [it.stream(*chunks, chunk("tool_calls"))]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert (proposed(events), codes(events)) == ([PARIS], [])
    done = completion(events)
    assert done.finish_reason == "tool_calls"
    assert done.tool_calls[0].id


@pytest.mark.parametrize("keys", [({"index": 0}, {"index": 1}), ({"index": 0, "id": "a"}, {"index": 0, "id": "b"}),
                                  ({}, {}), ({"index": 0}, {"index": 0}), ({"id": "a"}, {"id": "b"})])  # fmt: skip
def test_two_calls_stay_two(fake: Fake, keys: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (
        it.part('{"city": "Paris"}', "get_weather", **keys[0]),
        it.part("{}", "do_nothing", **keys[1]),
    )
    answer = it.stream(chunk(tool_calls=[first]), chunk(tool_calls=[second]), chunk("tool_calls"))
    fake.answers = [answer, answer]
    model = fake.model()
    events = list(model.stream(ASK, tools=TOOLS, parallel_tool_calls=True))
    assert proposed(events) == [PARIS, ("do_nothing", {})]
    assert len({call.id for call in completion(events).tool_calls}) == 2
    events = list(model.stream(ASK, tools=TOOLS))
    assert (proposed(events), codes(events)) == ([PARIS], ["extra_calls"])
    assert [body["parallel_tool_calls"] for body in fake.bodies] == [True, False]


def test_a_call_without_arguments(fake: Fake) -> None:
    fake.answers = [it.called(("do_nothing", ""))]
    assert proposed(list(fake.model().stream(ASK, tools=TOOLS))) == [("do_nothing", {})]


def test_words_before_a_call(fake: Fake) -> None:
    call = it.part('{"city": "Paris"}', "get_weather", index=0)
    fake.answers = [it.stream(text("I look."), chunk(tool_calls=[call]), chunk("tool_calls"))]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert (completion(events).text, proposed(events)) == ("I look.", [PARIS])


WRONG = [
    (("no_such_tool", "{}"), "there is no tool no_such_tool; the tools are: get_weather, do_nothing"),
    (("", "{}"), "there is no tool (no name)"),
    (("get_weather\x1b[2J\n", "{}"), "there is no tool get_weather"),
    (("get_weather", '{"city": "Par'), "the arguments of get_weather came to an end in the middle"),
    (("get_weather", '{"city": "Paris"} and more'), "the arguments of get_weather: no JSON"),
    (("get_weather", ""), "'city' is a required property"),
    (("get_weather", "[1]"), "are no JSON object"),
    (("get_weather", {"city": 3}), "city: 3 is not of type 'string'"),
    (("get_weather", {"city": "a", "days": 8}), "days: 8 is greater than the maximum"),
    (("get_weather", {"city": "a", "x": 1}), "'x' was unexpected"),
    (("get_weather", '{"city": "a", "days": NaN}'), "NaN is no JSON value"),
    (
        ("get_weather", '{"city": "a", "days": 1e999}'),
        "the arguments of get_weather: the number 1e999 is too large",
    ),
    (("get_weather", '{"city": "a", "days": -1e999}'), "the number -1e999 is too large"),
    (
        ("do_nothing", '{"any": [1, {"x": 2E+400}]}'),
        "the arguments of do_nothing: the number 2E+400 is too large",
    ),
    (("do_nothing", '{"any": ' + "9" * 400 + "}"), "999… is too large"),
    (("do_nothing", '{"any": ' + "9" * 9000 + "}"), "999… is too large"),
    (("do_nothing", {"any": float("inf")}), "Infinity is no JSON value"),
    (("get_weather", '{"city": "\\ud800"}'), "half a character"),
    (("get_\ud800weather", "{}"), "there is no tool get_ weather"),
    (("get_weather", {"city": "a", "x\x1b[2J\u202e": 1}), "was unexpected"),
    (("get_weather", {"city": {"\x1b[2J": 1}}), "is not of type 'string'"),
    (("get_weather", '{"city": ' + "[" * 5000 + "]" * 5000 + "}"), "get_weather"),
    (("get_weather", {"city": ["x" * 9000]}), "is not of type 'string'"),
]


@pytest.mark.parametrize(("call", "complaint"), WRONG)
def test_a_wrong_call_is_answered_back(fake: Fake, call: tuple[str, Any], complaint: str) -> None:
    fake.answers = [it.called(call), RIGHT]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert (proposed(events), codes(events)) == ([PARIS], ["bad_call"])
    completion(events)
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert complaint in notice.text
    assert "asked again (1 of 2)" in notice.text
    assert notice.text.isprintable()
    assert len(notice.text) < 700
    user, assistant, tool = fake.bodies[1]["messages"]
    assert (user["content"], assistant["role"], tool["role"]) == ("Hi", "assistant", "tool")
    assert tool["tool_call_id"] == assistant["tool_calls"][0]["id"]
    assert complaint in json.loads(tool["content"])["error"]
    assert isinstance(json.loads(assistant["tool_calls"][0]["function"]["arguments"]), dict)
    assert len(json.dumps(fake.bodies[1])) < 4000


def test_wrong_calls_for_ever(fake: Fake) -> None:
    error = fails(fake, *[it.called(("no_such_tool", "{}"))] * 3)
    assert "nothing that fits in 3 tries: there is no tool no_such_tool" in error.cause
    assert len(fake.asked) == 3 + 1
    fake.asked.clear()
    fails(fake, it.called(("no_such_tool", "{}")), corrections=0)
    assert len(fake.asked) == 2


def test_one_wrong_call_of_two_holds_back_the_other(fake: Fake) -> None:
    fake.answers = [it.called(("get_weather", '{"city": "Rome"}'), ("nope", "{}")), RIGHT]
    events = list(fake.model().stream(ASK, tools=TOOLS, parallel_tool_calls=True))
    assert proposed(events) == [PARIS]
    first, second = fake.bodies[1]["messages"][-2:]
    assert "another call was wrong" in first["content"]
    assert "there is no tool nope" in second["content"]


def test_words_before_a_wrong_call_are_kept(fake: Fake) -> None:
    wrong = it.stream(
        text("I look."), chunk(tool_calls=[it.part("{}", "nope", index=0)]), chunk("tool_calls")
    )
    fake.answers = [wrong, said("It ", "rains.")]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert completion(events).text == "I look.\n\nIt rains."


@pytest.mark.parametrize("arguments", ["", '{"city": "Par', '{"city": "Paris"'])
def test_a_call_that_does_not_fit_is_dropped_with_a_notice(fake: Fake, arguments: str) -> None:
    fake.answers = [it.called(("get_weather", arguments), finish="length")]
    events = list(fake.model().stream(ASK, tools=TOOLS, tool_choice="required"))
    assert (codes(events), proposed(events)) == (["call_cut", "truncated"], [])
    assert completion(events).finish_reason == "length"


def test_a_call_of_a_megabyte_is_not_read_to_its_end(fake: Fake) -> None:
    pieces = [chunk(tool_calls=[it.part("x" * 1000, index=0)])] * 1000
    fake.answers = [
        it.stream(chunk(tool_calls=[it.part('{"city": "', "get_weather", index=0)]), *pieces, chunk("stop"))
    ]
    events = list(fake.model().stream(ASK, tools=TOOLS))
    assert (codes(events), proposed(events)) == (["call_cut", "truncated"], [])
    whole = it.called(("get_weather", '{"city": "' + "x" * 1_000_000))
    fake.answers = [whole]
    assert codes(list(fake.model().stream(ASK, tools=TOOLS))) == ["call_cut", "truncated"]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"name": "do_nothing"}, {"type": "function", "function": {"name": "do_nothing"}}),
        ({"type": "function", "function": {"name": "do_nothing"}},
         {"type": "function", "function": {"name": "do_nothing"}}),
    ],
)  # fmt: skip
def test_tool_choice(fake: Fake, choice: Any, sent: Any) -> None:
    fake.answers = [said("Hello.") if choice == "none" else it.called(("do_nothing", "{}"))]
    options: dict[str, Any] = {"tool_choice": choice, "describe_tools": False, "turn": "Hi"}
    events = list(fake.model().stream(ASK, tools=TOOLS, **options))
    if choice == "none":
        assert (completion(events).text, proposed(events), codes(events)) == ("Hello.", [], [])
    else:
        assert (completion(events).text, proposed(events), codes(events)) == ("", [("do_nothing", {})], [])
    assert len(fake.asked) == 1
    assert fake.bodies[0]["tool_choice"] == sent
    assert fake.bodies[0]["tools"] == [WEATHER.to_openai(), NOTHING.to_openai()]


@pytest.mark.parametrize("choice", [{"name": "nope"}, {}, {"function": "do_nothing"}, "sometimes"])
def test_an_unknown_choice_is_a_usage_error(fake: Fake, choice: Any) -> None:
    with pytest.raises(UsageError, match="tool_choice"):
        fake.model().chat(ASK, tools=TOOLS, tool_choice=choice)
    with pytest.raises(UsageError, match="no tools"):
        fake.model().chat(ASK, tool_choice="required")
    assert fake.asked == []


def test_a_server_that_passes_over_tool_choice(fake: Fake) -> None:
    fake.answers = [RIGHT, said("Hello.")]
    events = list(fake.model().stream(ASK, tools=TOOLS, tool_choice="none"))
    assert (proposed(events), codes(events), completion(events).text) == ([], ["bad_call"], "Hello.")
    fake.answers = [said("I would rather talk."), RIGHT]
    events = list(fake.model().stream(ASK, tools=TOOLS, tool_choice="required"))
    assert (proposed(events), codes(events), completion(events).text) == ([PARIS], ["bad_call"], "")
    fake.answers = [RIGHT, it.called(("do_nothing", "{}"))]
    events = list(fake.model().stream(ASK, tools=TOOLS, tool_choice={"name": "do_nothing"}))
    assert proposed(events) == [("do_nothing", {})]


def test_a_router_decides_under_auto(fake: Fake) -> None:
    class Fixed:
        def __init__(self, tool: str | None) -> None:
            self.tool, self.heard = tool, ""

        def route(self, text: str, tools: Any, answerable: float | None) -> Route:
            self.heard = text
            return Route("tool" if self.tool else "chat", self.tool, {})

    fake.answers = [it.called(("do_nothing", "{}")), said("Hello.")]
    fake.model(router=Fixed("do_nothing")).chat(ASK, tools=TOOLS)
    fake.model(router=Fixed(None)).chat(ASK, tools=TOOLS)
    assert [body["tool_choice"] for body in fake.bodies] == [
        {"type": "function", "function": {"name": "do_nothing"}},
        "none",
    ]
    asked = question(WEATHER, ["city"])
    turns = [Message("user", "The weather?"), Message("assistant", asked), Message("user", "In Paris.")]
    fake.answers = [RIGHT]
    router = Fixed("get_weather")
    assert proposed(list(fake.model(router=router).stream(turns, tools=TOOLS))) == [PARIS]
    assert router.heard == "The weather?\nIn Paris."  # what answers a question belongs to the turn before it
    fake.answers = [said("Hello.")]
    fake.model(router=Fixed("no_such_tool")).chat(ASK, tools=TOOLS)
    assert fake.bodies[-1]["tool_choice"] == "none"


def test_a_schema_that_cannot_be_checked_is_refused(fake: Fake) -> None:
    bad = {"name": "f", "parameters": {"type": "object", "properties": {"q": {"type": "dict"}}}}
    with pytest.raises(SchemaError, match=r"tool 'f': #/properties/q"):
        fake.model().chat(ASK, tools=[bad])
    with pytest.raises(SchemaError, match="response_format"):
        fake.model().chat(ASK, response_format={"type": "shoe"})
    assert fake.asked == []


REF_A = {"$ref": "#/$defs/a"}
UNCHECKABLE: dict[str, tuple[dict[str, Any], str]] = {
    "remote": (it.an_object(q={"$ref": "http://127.0.0.1:9/x.json"}), "#/properties/q/$ref: http://127.0.0.1:9/x.j"),
    "file": (it.an_object(q={"items": {"$ref": "x.json#/a"}}), "#/properties/q/items/$ref: x.json#/a stands nowhere"),
    "nowhere": (it.an_object(q={"$ref": "#/$defs/a"}), "#/properties/q/$ref: #/$defs/a stands nowhere"),
    "no anchor": (it.an_object(q={"$ref": "#a"}), "#/properties/q/$ref: #a stands nowhere"),
    "behind a reference": ({**it.an_object(q={"$ref": "#/x/a"}), "x": {"a": {"$ref": "#/y"}}},
                           "#/properties/q/$ref/$ref: #/y stands nowhere"),
    "itself": ({"$ref": "#"}, "#: it refers to itself without an end"),
    "required": ({**it.an_object(q={"$ref": "#"}), "required": ["q"]}, "#/properties/q: it refers to itself"),
    "another way out": ({**it.an_object(q=REF_A), "$defs": {"a": {"anyOf": [REF_A, {"type": "string"}]}}},
                        "#/$defs/a: it refers to itself"),
    "not itself": ({"type": "object", "not": {"$ref": "#"}}, "#: it refers to itself"),
    "no values": (it.an_object(q={"anyOf": [{"type": "null"}, {"enum": []}]}), "#/properties/q/anyOf/1/enum: it is"),
    "a pattern": (it.an_object(q={"pattern": "\\p{L}"}), "#/properties/q/pattern: '\\\\p{L}' is not a 'regex'"),
    "patterns": ({"type": "object", "patternProperties": {"(?<a>b)": {}}}, "#/patternProperties: '(?<a>b)' is not a"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_a_schema_that_nothing_can_be_checked_against_is_refused(fake: Fake, name: str) -> None:
    schema, reason = UNCHECKABLE[name]
    model = fake.model()
    with pytest.raises(SchemaError) as caught:
        model.check_tool(ToolSpec("f", "F.", schema))
    assert f"tool 'f': {reason}" in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(SchemaError, match="response_format: #"):
        model.chat(ASK, response_format=schema)
    assert fake.asked == []


def test_arguments_nested_without_measure_are_a_bad_call(fake: Fake) -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    tool = ToolSpec("f", "F.", it.an_object(x={"type": "object"}))
    fake.answers = [it.called(("f", {"x": deep})), it.called(("f", {"x": {"a": {}}}))]
    events = list(fake.model().stream(ASK, tools=[tool]))
    assert (proposed(events), codes(events)) == ([("f", {"x": {"a": {}}})], ["bad_call"])


def test_numbers_of_a_server_that_count_nothing_are_none(fake: Fake) -> None:
    choice = {"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10**400, "completion_tokens": -1}
    fake.answers = [reply(json.dumps({"choices": [choice], "usage": usage}).encode())]
    assert fake.model().chat(ASK).usage.prompt_tokens == 0


def test_a_schema_without_measure_is_refused(fake: Fake) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(700):
        deep = {**it.an_object(a=deep), "required": ["a"]}
    with pytest.raises(SchemaError, match="tool 'f': the schema at # is nested too deeply; simplify it"):
        fake.model().chat(ASK, tools=[{"name": "f", "parameters": deep}])
    wide = it.an_object(**{f"parameter_{n}": {"type": "string"} for n in range(10_000)})
    fake.answers = [it.called(("f", {"parameter_9999": 1})), it.called(("f", {"parameter_9999": "a"}))]
    events = list(fake.model().stream(ASK, tools=[ToolSpec("f", "F.", wide)]))
    assert (proposed(events), codes(events)) == ([("f", {"parameter_9999": "a"})], ["bad_call"])


@pytest.mark.parametrize(
    "root",
    [{"type": "string"}, {"type": ["object", "null"]}, {"enum": ["a"]}, {"const": 1},
     {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}],
)  # fmt: skip
def test_the_arguments_of_a_tool_are_an_object(fake: Fake, root: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="tool 'f': #: arguments are an object, but"):
        fake.model().check_tool(ToolSpec("f", "F.", root))
    fake.answers = [said("null")] * 3
    with (
        pytest.raises(ModelError, match="does not fit its schema")
        if "object" not in str(root)
        else nullcontext()
    ):
        fake.model().chat(ASK, response_format=root)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {"a": 1}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}),
        (it.an_object(q={"$ref": "#"}), {"q": {"q": {}}}),
        (it.an_object(q={"$ref": "#/properties/p"}, p={"type": "integer"}), {"q": 1}),
        ({"$ref": "#/$defs/a b", "$defs": {"a b": it.an_object(q={"type": "integer"})}}, {"q": 1}),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": it.an_object(q={"type": "integer"})}}, {"q": 1}),
        ({**it.an_object(q={"$ref": "#x"}), "$defs": {"a": {"$anchor": "x", "type": "integer"}}}, {"q": 1}),
        ({**it.an_object(q={"$ref": "u/x"}), "$defs": {"a": {"$id": "u/x", "type": "integer"}}}, {"q": 1}),
        (it.an_object(enum={"type": "string"}, **{"$ref": {"type": "integer"}}), {"enum": "a", "$ref": 1}),
        (it.an_object(q={"const": {"$ref": "#/none", "enum": []}}), {"q": {"$ref": "#/none", "enum": []}}),
    ],
)
def test_schemas_that_can_be_checked_are_taken(fake: Fake, schema: dict[str, Any], value: Any) -> None:
    fake.answers = [it.called(("f", value))]
    (call,) = fake.model(corrections=0).chat(ASK, tools=[ToolSpec("f", "F.", schema)]).tool_calls
    assert call.arguments == value


# Answers in a form


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize("form", [CITY, {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}},
                                  {"json_schema": CITY}])  # fmt: skip
def test_response_format_is_checked_on_arrival(fake: Fake, form: dict[str, Any]) -> None:
    fake.answers = [said("Paris."), said('{"city": 3}'), said('{"city":', ' "Paris"}')]
    events = list(fake.model().stream(ASK, response_format=form))
    assert codes(events) == ["bad_answer", "bad_answer"]
    assert completion(events).text == '{"city": "Paris"}'
    sent = fake.bodies[0]["response_format"]
    assert (sent["type"], sent["json_schema"]["schema"]) == ("json_schema", CITY)
    assert fake.bodies[2]["messages"][-2]["content"] == '{"city": 3}'
    assert "city: 3 is not of type 'string'" in fake.bodies[2]["messages"][-1]["content"]
    assert "the answer does not fit" in fails_form(fake, said('{"city": 3}'))
    assert "cut after 256 tokens" in fails_form(fake, said('{"city": "', finish="length"))
    assert "the answer: the number 1e999 is too large" in fails_form(fake, said('{"city": "a", "n": 1e999}'))
    assert "the answer: no JSON (NaN is no JSON value)" in fails_form(fake, said('{"city": "a", "n": NaN}'))


def fails_form(fake: Fake, answer: Answer) -> str:
    fake.answers = [answer] * 3
    with pytest.raises(ModelError) as caught:
        fake.model().chat(ASK, response_format=CITY)
    return str(caught.value)


def test_response_formats_of_openai(fake: Fake) -> None:
    fake.answers = [said("{}"), said("free")]
    assert fake.model().chat(ASK, response_format={"type": "json_object"}).text == "{}"
    assert fake.model().chat(ASK, response_format={"type": "text"}).text == "free"
    assert "response_format" not in fake.bodies[1]


def test_a_server_that_takes_tool_choice_as_a_word(fake: Fake) -> None:
    told = {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"}
    fake.answers = [reply(json.dumps(told).encode(), 400), it.called(("get_weather", '{"city": "Paris"}'))]
    model = fake.model()
    events = list(model.stream(ASK, tools=TOOLS, tool_choice={"name": "get_weather"}))
    assert proposed(events) == [PARIS]
    assert codes(events) == ["unsupported"]
    first, second = fake.bodies
    assert first["tool_choice"]["function"]["name"] == "get_weather"
    assert (second["tool_choice"], [tool["function"]["name"] for tool in second["tools"]]) == (
        "required",
        ["get_weather"],
    )
    fake.answers = [it.called(("get_weather", '{"city": "Paris"}'))]  # it is remembered
    assert codes(list(model.stream(ASK, tools=TOOLS, tool_choice={"name": "get_weather"}))) == []
    assert fake.bodies[-1]["tool_choice"] == "required"


def test_a_server_that_takes_no_user_behind_a_tool(fake: Fake) -> None:
    told = {
        "object": "error",
        "message": "Unexpected role 'user' after role 'tool'",
        "type": "invalid_request_error",
    }
    fake.answers = [reply(json.dumps(told).encode(), 400), said("Sunny.")]
    messages = [
        Message("user", "Weather?"),
        Message("assistant", "", (ToolCall("c0", "get_weather", {"city": "Paris"}),)),
        Message("tool", "sunny", tool_call_id="c0", name="get_weather"),
        Message("user", "And now say it."),
    ]
    assert fake.model().chat(messages).text == "Sunny."
    assert [message["role"] for message in fake.bodies[-1]["messages"]] == [
        "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip


def test_servers_that_know_other_response_formats_or_none(fake: Fake) -> None:
    refused = reply(b'{"detail": "body.response_format.type: unknown"}', 422)
    fake.answers = [refused, refused, said('{"city": "Paris"}'), said('{"city": "Rome"}')]
    model = fake.model()
    events = list(model.stream(ASK, response_format=CITY))
    assert (codes(events), completion(events).text) == (["unsupported"] * 2, '{"city": "Paris"}')
    assert fake.bodies[1]["response_format"] == {"type": "json_object", "schema": CITY}
    assert "response_format" not in fake.bodies[2]
    assert json.dumps(CITY) in fake.bodies[2]["messages"][-1]["content"]
    assert codes(list(model.stream(ASK, response_format=CITY))) == []  # it has learnt


def test_choices(fake: Fake) -> None:
    model = fake.model()
    assert model.chat(ASK, choices=["Only this."]).text == "Only this."
    assert model.chat(ASK, choices=["Only this."]).usage == Usage()
    assert (fake.asked, fake.models_asked) == ([], 0)
    fake.answers = [said("Sunny."), said('{"answer": "It rains."}')]
    events = list(model.stream(ASK, choices=["It is sunny.", "It rains."]))
    assert (completion(events).text, codes(events)) == ("It rains.", ["bad_answer"])
    schema = fake.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"] == {"enum": ["It is sunny.", "It rains."]}


# Servers that fail


def test_what_passes_is_tried_again(fake: Fake) -> None:
    busy = reply(b'{"error": {"message": "busy"}}', 503)
    fake.answers = [busy, it.drop, reply(b"", 429), said("Hello.")]
    events = list(fake.model().stream(ASK))
    assert (codes(events), completion(events).text) == (["retry"] * 3, "Hello.")
    (first, *_) = [event.text for event in events if isinstance(event, Notice)]
    assert "answered 503: busy: trying again in 0.0 s (1 of 3)" in first


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_does_not_pass_ends(fake: Fake, status: int) -> None:
    error = fails(fake, *[reply(b"", status)] * 3, retries=2)
    assert f"answered {status} (after 3 tries)" in error.cause
    assert len(fake.asked) == 4


def test_retry_after_is_honoured_in_both_forms_and_capped(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("agentkit.llm.openai.server._sleep", lambda seconds, cancel: waits.append(seconds))
    now = time.time()
    dates = [time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + ahead)) for ahead in (12, -50)]
    told = ["7", dates[0], dates[1], "86400", "soon", "1.5"]
    fake.answers = [*(reply(b"", 429, headers={"Retry-After": value}) for value in told), said("a")]
    fake.model(retries=9, backoff_s=0.001).chat(ASK)
    assert [round(wait) for wait in waits[:1]] == [7]
    assert 9 < waits[1] <= 12
    assert [round(wait) for wait in waits[2:]] == [0, 30, 0, 2]


def test_a_server_that_is_down(unused_port: int) -> None:
    model = RemoteModel(f"openai+http://127.0.0.1:{unused_port}/v1", retries=1, backoff_s=0.01)
    events, error = it.until_error(model.stream(ASK))
    assert codes(events) == ["retry"]
    assert "cannot reach http://127.0.0.1" in error.cause
    assert error.cause.endswith(": Connection refused (after 2 tries)")
    assert error.remedy == "start the server, or check the address"
    assert model.room([Message("user", "Hi")]) is None


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("headers", [False, True])
def test_a_server_that_is_slow(fake: Fake, headers: bool) -> None:
    error = fails(fake, it.hang(2, headers=headers), timeout_s=0.2, retries=3)
    assert "sent nothing for 0.2 s" in error.cause
    assert "timeout_s" in error.remedy
    assert len(fake.asked) == 2  # it is busy enough: not asked again


@pytest.mark.parametrize("ping", [b": ping\n\n", b"event: ping\ndata:\n\n", b" ", b"\n"])
@pytest.mark.parametrize("first", [b"", event(text("One"))])
def test_keep_alives_are_no_answer(fake: Fake, first: bytes, ping: bytes) -> None:
    started = time.monotonic()
    error = fails(fake, it.pinging(0.05, first, ping), timeout_s=0.3)
    assert "sent nothing but keep-alives for 0.3 s" in error.cause
    assert "timeout_s" in error.remedy
    assert time.monotonic() - started < 2
    assert fake.left.wait(2)


def test_keep_alives_between_words_are_passed_over(fake: Fake) -> None:
    words = [piece for n in range(6) for piece in (event(text(f"{n} ")), b": ping\n\n")]

    def slowly(handler: Any) -> None:
        reply(b"", kind=EVENTS)(handler)
        for piece in [*words, event(chunk("stop"))]:
            handler.wfile.write(piece)
            time.sleep(0.1)

    fake.answers = [slowly]
    assert fake.model(timeout_s=0.6).chat(ASK).text == "0 1 2 3 4 5 "


def test_a_caller_may_take_its_time(fake: Fake) -> None:
    """How long the caller needs for what it has heard is not the server's time."""
    fake.answers = [it.pinging(0.05, event(text("One "))), said("Two.")]
    model, cancel = fake.model(timeout_s=0.4), threading.Event()
    events = model.stream(ASK, cancel=cancel)
    assert next(events) == TextDelta("One ")
    time.sleep(0.8)
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    assert completion([TextDelta("One "), *events]).finish_reason == "cancelled"
    timer.join()


def test_a_stream_that_stops_flowing(fake: Fake) -> None:
    assert "sent nothing" in fails(fake, it.hang(2, event(text("One"))), timeout_s=0.2).cause


@pytest.mark.parametrize(
    ("answer", "cause", "remedy"),
    [
        (reply(b'{"error": {"message": "no key"}}', 401), "answered 401: no key", "put the server's key into AGENTKIT"),
        (reply(b"", 403), "answered 403", "AGENTKIT_API_KEY"),
        (reply(b"<html>no</html>", 404, "text/html"), "answered 404: a web page", "/v1"),
        (reply(b'{"message": "one\\u001b[31m\\u0007\\r\\ntwo"}', 400), "answered 400: one [31m;", "leave out"),
        (reply(b'{"error": "maximum context length is 9"}', 400), "context length is 9", "new session"),
        (reply(b'{"detail": [{"loc": ["body", "x"], "msg": "odd"}]}', 422), "422: body.x: odd", "leave out"),
        (reply(b"\xff\xfe broken", 500), "answered 500", "log"),
        (reply(b'{"error": ' + b"[" * 60_000, 500), "answered 500", "log"),
        (reply(b"x" * 100_000, 500), "answered 500: xxx", "log"),
        (reply(b"<!DOCTYPE html><h1>Hello</h1>", 200, "text/html"), "answered with a web page", "/v1"),
        (reply(b"Hello"), "something that is no JSON", "/v1"),
        *((reply(words), "something that is no JSON", "/v1") for words in (
            b"d", b"data", b"dear user", b"event", b"error: no model is loaded", b"id", b"internal error", b"r",
            b"retry later\n", b"database is locked\n\nretry", b":", b":-) hello", b"\xef\xbb\xbfretry later")),
        (reply([b"da", b"tabase is locked"]), "something that is no JSON", "/v1"),
        (reply(b"{"), "something that is no JSON", "/v1"),
        (reply(b"[]"), "it is no object", "log"),
        (reply(b"{}"), "it holds no choices", "log"),
        (it.stream({"choices": []}), "it holds no choices", "log"),
        (it.stream(b"{"), "a chunk is no JSON", "log"),
        (it.stream(b"3"), "a chunk is no object", "log"),
        (it.stream({"choices": [3]}), "a choice is no object", "log"),
        (it.stream(chunk(content=3)), "the content is no text", "log"),
        (it.stream({"choices": [{"delta": "x"}]}), "a delta is no object", "log"),
        (it.stream(chunk(tool_calls={"a": 1})), "tool_calls is no list", "log"),
        (it.stream(chunk(tool_calls=[{"function": "f"}])), "function is no object", "log"),
        (it.stream(text("a"), {"error": {"message": "out of\nmemory", "code": 1}}), "answering: out of", "ask again"),
        (it.stream(text("a"), done=False), "ended in the middle of its answer", "ask again"),
        (reply(event(text("a")), length=10_000), "closed the connection in the middle", "ask again"),
        (reply(b'data: {"choices": [{"del'), "a chunk is no JSON", "log"),
        (it.drop, "closed the connection", "log"),
        (lambda handler: handler.wfile.write(b"\x16\x03\x01 no http\r\n\r\n"), "closed the connection", "log"),
    ],
)  # fmt: skip
def test_what_a_server_may_send_instead(fake: Fake, answer: Answer, cause: str, remedy: str) -> None:
    error = fails(fake, answer)
    assert cause in str(error)
    assert remedy in error.remedy
    assert len(str(error)) < 600


def test_plain_text_is_not_asked_for_twice(fake: Fake) -> None:
    fails(fake, reply(b"error: no model is loaded"))
    assert len(fake.asked) == 2  # of which one is the next turn's


def test_a_proxy_that_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    model = RemoteModel("openai+http://models.example.org/v1#m", retries=0)
    with pytest.raises(
        ModelError, match=r"cannot ask http://models.example.org/v1: .*socksio.*; pip install 'httpx"
    ):
        model.chat(ASK)
    assert model.room([Message("user", "Hi")]) is None


def test_nothing_is_asked_again_once_words_have_come(fake: Fake) -> None:
    fake.answers = [reply(event(text("One")), length=10_000), said("Two")]
    heard, error = it.until_error(fake.model().stream(ASK))
    assert "in the middle" in error.cause
    assert [each.text for each in heard if isinstance(each, TextDelta)] == ["One"]
    assert len(fake.asked) == 1


def test_a_model_that_is_not_there_is_told_with_those_that_are(fake: Fake) -> None:
    fake.models = {"data": [{"id": "a"}, {"id": "b\x1b[2J"}]}
    fake.answers = [reply(b'{"error": "model not found"}', 404)]
    model = RemoteModel(f"openai+{fake.url}#c")
    with pytest.raises(ModelError, match=r"has no model 'c'; name one .*: a, b"):
        model.chat(ASK)


def test_redirects_are_not_followed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_API_KEY", "sk-secret")
    with it.fake_server() as other:
        target = {"Location": other.url.replace("//", "//user:word@") + "/chat/completions?key=1"}
        error = fails(fake, reply(b"", 307, headers=target))
        assert f"redirects to {other.url}/chat/completions" in error.cause
        assert "word" not in str(error)
        assert other.asked == []


def test_a_stream_without_end_is_left(fake: Fake) -> None:
    fake.answers = [it.endless(event(text("word ")))]
    events = list(fake.model().stream(ASK, max_new_tokens=5))
    assert codes(events) == ["truncated"]
    assert completion(events).finish_reason == "length"
    assert 4000 < len(completion(events).text) < 10_000
    assert fake.left.wait(5)


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 4000, b": ping\n\n" * 500, event(chunk(reasoning_content="hm")) * 50, b" " * 4000],
)
def test_a_stream_that_never_comes_to_the_point_is_left(fake: Fake, piece: bytes) -> None:
    assert "has no end" in fails(fake, it.endless(piece)).cause
    assert fake.left.wait(5)


def test_fields_that_a_server_refuses_are_left_out(fake: Fake) -> None:
    fake.answers = [
        reply(b'{"error": {"message": "Unknown field: stream_options"}}', 400),
        reply(b'{"detail": "Unexpected fields: {\'parallel_tool_calls\'}"}', 422),
        said("Hello."),
        said("Again."),
    ]
    model = fake.model()
    events = list(model.stream(ASK, tools=TOOLS))
    assert (codes(events), completion(events).text) == (["unsupported"] * 2, "Hello.")
    assert codes(list(model.stream(ASK, tools=TOOLS))) == []
    assert {"stream_options", "parallel_tool_calls"}.isdisjoint(fake.bodies[3])
    fake.answers = [reply(b'{"error": "top_k is unknown"}', 400)]
    with pytest.raises(ModelError, match="top_k is unknown"):  # it was asked for, so it is not left out
        model.chat(ASK, top_k=3)


def test_what_a_refusal_only_mentions_or_repeats_stays(fake: Fake) -> None:
    """A field that was not the reason is sent again in the next call."""
    model = fake.model()
    fields = {"seed", "stream_options", "parallel_tool_calls"}
    options: dict[str, Any] = {"tools": TOOLS, "temperature": 0.5}
    repeated = json.dumps({name: 1 for name in fields})
    for body in (
        b'{"detail": [{"loc": ["body", "messages"], "msg": "odd", "input": %b}]}' % repeated.encode(),
        b'{"error": {"message": "odd, input: %b", "code": 1}}' % repeated.replace('"', "'").encode(),
        b'{"error": {"message": "odd"}, "request": %b}' % repeated.encode(),
        b'{"error": "the stream_options_x and my-seed and seeds are odd"}',
    ):
        fake.answers, asked = [reply(body, 400)], len(fake.asked)
        with pytest.raises(ModelError, match="odd"):
            model.chat(ASK, **options)
        assert len(fake.asked) == asked + 1
    mentioned = reply(b'{"error": "no room for the seed tokens"}', 400)
    fake.answers, asked = [mentioned, mentioned], len(fake.asked)
    heard, error = it.until_error(model.stream(ASK, **options))
    assert (heard, error.cause.endswith("seed tokens")) == ([], True)
    assert ("seed" in fake.bodies[-2], "seed" in fake.bodies[-1], len(fake.asked)) == (True, False, asked + 2)
    fake.answers = [said("Hello.")]
    assert model.chat(ASK, **options).text == "Hello."
    assert fields <= set(fake.bodies[-1])


@pytest.mark.parametrize("status", [500, 501])
def test_a_server_that_fails_at_a_field_is_asked_without_it_this_once(fake: Fake, status: int) -> None:
    model = fake.model()
    fake.answers = [reply(b"stream_options: out of order", status), said("Hello."), said("Again.")]
    events = list(model.stream(ASK))
    assert (codes(events), completion(events).text) == (["unsupported"], "Hello.")
    assert model.chat(ASK).text == "Again."
    assert ["stream_options" in body for body in fake.bodies] == [True, False, True]


@pytest.mark.parametrize("body", [
    b'{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 0}]}',
    b'{"error": {"message": "Unsupported parameter", "param": "seed"}}',
    b'{"message": "[{\'loc\': (\'body\', \'seed\'), \'msg\': \'Extra\', \'input\': {\'stream_options\': 1}}]"}',
    b"unknown field `seed`",
])  # fmt: skip
def test_the_forms_in_which_servers_refuse_a_field(fake: Fake, body: bytes) -> None:
    model = fake.model()
    fake.answers = [reply(body, 422), said("Hello."), said("Again.")]
    events = list(model.stream(ASK, temperature=0.5))
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.text == "tiny does not take seed: it is left out"
    assert codes(list(model.stream(ASK, temperature=0.5))) == []
    assert [("seed" in each, "stream_options" in each) for each in fake.bodies] == [
        (True, True),
        *[(False, True)] * 2,
    ]


def test_a_refusal_of_one_schema_holds_for_that_call_only(fake: Fake) -> None:
    model = fake.model()
    refused = reply(
        b'{"error": "Invalid schema for response_format \'answer\': minimum is not permitted"}', 400
    )
    fake.answers = [refused, refused, said("Rome"), said('{"city": "Rome"}'), said('{"city": "Paris"}')]
    events = list(model.stream(ASK, response_format=CITY))
    assert (codes(events), completion(events).text) == (
        ["unsupported"] * 2 + ["bad_answer"],
        '{"city": "Rome"}',
    )
    assert model.chat(ASK, response_format=CITY).text == '{"city": "Paris"}'
    kinds = [body.get("response_format", {}).get("type") for body in fake.bodies]
    assert kinds == ["json_schema", "json_object", None, None, "json_schema"]


def test_a_form_that_is_never_accepted_is_not_learnt(fake: Fake) -> None:
    model, refused = fake.model(), reply(b'{"error": "response_format is odd"}', 400)
    fake.answers = [
        refused,
        refused,
        reply(b'{"error": "the prompt is odd"}', 400),
        said('{"city": "Paris"}'),
    ]
    heard, error = it.until_error(model.stream(ASK, response_format=CITY))
    assert (heard, "the prompt is odd" in error.cause) == ([], True)
    assert model.chat(ASK, response_format=CITY).text == '{"city": "Paris"}'
    assert fake.bodies[-1]["response_format"]["type"] == "json_schema"


def test_models_that_want_max_completion_tokens(fake: Fake) -> None:
    cause = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    body = json.dumps({"error": {"message": cause, "param": "max_tokens"}}).encode()
    fake.answers = [reply(body, 400), said("Hello."), said("Again.")]
    model = fake.model()
    events = list(model.stream(ASK, max_new_tokens=9))
    assert (codes(events), completion(events).text) == (["unsupported"], "Hello.")
    assert codes(list(model.stream(ASK, max_new_tokens=9))) == []
    limits = [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in fake.bodies]
    assert limits == [(9, None), (None, 9), (None, 9)]


def test_models_that_take_no_temperature(fake: Fake) -> None:
    """OpenAI's that reason refuse it, and top_p, even at 1."""
    cause = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."
    body = json.dumps({"error": {"message": cause, "param": "temperature"}}).encode()
    fake.answers = [reply(body, 400), said("Hello."), said("Again.")]
    model = fake.model()
    events = list(model.stream(ASK))
    assert (codes(events), completion(events).text) == (["unsupported"], "Hello.")
    assert codes(list(model.stream(ASK))) == []
    assert ["temperature" in body for body in fake.bodies] == [True, False, False]
    assert not any("top_p" in body for body in fake.bodies)


def test_a_cut_answer_says_so_whatever_calls_stand(fake: Fake) -> None:
    fake.answers = [
        it.stream(
            chunk(tool_calls=[it.part('{"city": "Paris"}', "get_weather", index=0, id="a")]),
            chunk(tool_calls=[it.part('{"ci', "get_weather", index=1, id="b")]),
            chunk("length"),
        )
    ]
    events = list(fake.model().stream(ASK, tools=TOOLS, parallel_tool_calls=True))
    assert codes(events) == ["call_cut"]
    assert len(proposed(events)) == 1
    assert completion(events).finish_reason == "length"


# Cancelling


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (it.hang(60, headers=False), ""),
        (it.hang(60), ""),
        (it.hang(60, event(chunk(content="One "))), "One "),
    ],
)
def test_cancel_ends_at_once_and_keeps_what_was_said(fake: Fake, answer: Answer, kept: str) -> None:
    cancel, cancelled, events = threading.Event(), [], []

    def stop() -> None:
        cancelled.append(time.monotonic())
        cancel.set()

    def asked(handler: Any) -> None:
        if not kept:
            timer.start()
        answer(handler)

    timer = threading.Timer(0.2, stop)
    fake.answers = [asked]
    for each in fake.model().stream(ASK, cancel=cancel):
        events.append(each)
        if isinstance(each, TextDelta):
            timer.start()
    assert time.monotonic() - cancelled[0] < 30
    assert completion(events).finish_reason == "cancelled"
    assert completion(events).text == kept
    assert fake.left.wait(30)
    timer.join()


def test_cancel_between_words_while_waiting_and_before(fake: Fake) -> None:
    cancel, heard = threading.Event(), []
    fake.answers = [it.stream(*[text("word ")] * 50, chunk("stop"))]
    for each in fake.model().stream(ASK, cancel=cancel):
        heard.append(each)
        cancel.set()
    assert completion(heard).text == "word "
    named, asked = RemoteModel(f"openai+{fake.url}#tiny"), len(fake.asked)
    assert {named.chat(ASK, cancel=cancel).finish_reason for _ in range(20)} == {"cancelled"}
    time.sleep(0.1)
    assert len(fake.asked) == asked
    cancel.clear()
    fake.answers = [reply(b"", 503)]
    events: list[Any] = []
    for each in fake.model(backoff_s=20).stream(ASK, cancel=cancel):
        events.append(each)
        if isinstance(each, Notice):  # it waits for the next try
            threading.Timer(0.1, cancel.set).start()
    assert (codes(events), completion(events).finish_reason) == (["retry"], "cancelled")


def test_an_abandoned_stream_leaves_the_server(fake: Fake) -> None:
    fake.answers = [it.hang(first=event(text("One "))), said("Fine.")]
    model = fake.model()
    events = model.stream(ASK)
    assert next(events) == TextDelta("One ")
    events.close()  # type: ignore[attr-defined]
    assert fake.left.wait(2)
    assert model.chat(ASK).text == "Fine."


def test_conversations_at_once(fake: Fake) -> None:
    model, texts = fake.model(), {}
    fake.answers = [said(*"abc")] * 12
    streams = [model.stream(ASK) for _ in range(4)]
    heard: list[list[Any]] = [[next(stream) for stream in streams]]
    while row := [each for stream in streams if (each := next(stream, None)) is not None]:
        heard.append(row)
    assert [event.text for event in heard[-1]] == ["abc"] * 4
    threads = [threading.Thread(target=lambda n=n: texts.update({n: model.chat(ASK).text})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == dict.fromkeys(range(8), "abc")


# Addresses, keys, models


@pytest.mark.parametrize(
    "address",
    ["openai+http://", "openai+ftp://h/v1", "openai+http://h:x/v1", "openai+https://h/v1?key=1", "openai+http://h h/v1",
     "openai+http://user:hidden@h/v1", "openai+http://user:hidden/@h/v1", "openai+http://user:hidden#x@h/v1",
     "http://h/v1"],
)  # fmt: skip
def test_addresses_that_cannot_be_used(address: str) -> None:
    with pytest.raises(UsageError, match=r"openai\+http://|AGENTKIT_API_KEY") as caught:
        RemoteModel(address)
    assert "hidden" not in str(caught.value)
    assert caught.value.remedy


def test_the_key_is_sent_and_never_shown(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("AGENTKIT_API_KEY", "sk-secret\n")
    refused = reply(b'{"error": {"message": "bad key sk-secret, really"}}', 401)
    error = fails(fake, refused)
    assert "bad key …, really" in error.cause
    assert error.remedy == "check the key in AGENTKIT_API_KEY"
    assert {asked.headers["authorization"] for asked in fake.asked} == {"Bearer sk-secret"}
    model = fake.model()
    assert "secret" not in f"{model!r} {model._server!r} {model.info()}"
    fake.answers = [reply(b"sk-secret is busy", 503)]
    assert all(
        "secret" not in str(each) for each in model.stream(ASK) if fake.answers.append(said("a")) is None
    )
    monkeypatch.delenv("AGENTKIT_API_KEY")
    fake.answers = [said("a")]
    fake.model().chat(ASK)
    assert fake.asked[-1].headers["authorization"] == "Bearer sk-other"
    fake.answers = [said("a")]
    fake.model(key="own").chat(ASK)
    assert fake.asked[-1].headers["authorization"] == "Bearer own"
    for key in ("sk-hidden\nX-Evil: 1", "sk-hiddén"):
        with pytest.raises(UsageError) as caught:
            fake.model(key=key)
        assert "hidd" not in str(caught.value)


def test_no_key_no_header(fake: Fake) -> None:
    fake.answers = [said("a")]
    fake.model().chat(ASK)
    assert "authorization" not in fake.asked[0].headers


def test_the_first_of_several_models_is_told_once(fake: Fake) -> None:
    fake.models = {"object": "list", "data": [{"id": "one"}, {"id": "two"}]}
    fake.answers = [said("a"), said("b"), said("c")]
    model = fake.model()
    assert model.room([Message("user", "Hi")]) is None
    assert codes(list(model.stream(ASK))) == ["model_chosen"]
    assert codes(list(model.stream(ASK))) == []
    assert fake.models_asked == 1
    named = RemoteModel(f"openai+{fake.url}/#org/two:8b%20x")
    assert codes(list(named.stream(ASK))) == []
    assert [body["model"] for body in fake.bodies] == ["one", "one", "org/two:8b x"]
    assert fake.models_asked == 1


@pytest.mark.parametrize(
    ("models", "cause"),
    [({"data": []}, "lists no model"), ([], "lists no model"), (3, "lists no model"),
     (reply(b"<html>"), "a web page"), (reply(b"", 401), "answered 401")],
)  # fmt: skip
def test_servers_without_a_list_of_models(fake: Fake, models: Any, cause: str) -> None:
    fake.models = models
    with pytest.raises(ModelError, match=cause):
        fake.model().chat(ASK)
    fake.answers = [said("a")]
    assert RemoteModel(f"openai+{fake.url}#m").chat(ASK).text == "a"


@pytest.mark.parametrize(
    "entry", [{"max_model_len": 1000}, {"meta": {"n_ctx_train": 1000}}, {"context_length": 1000}]
)
def test_room_where_the_server_tells_its_length(fake: Fake, entry: dict[str, Any]) -> None:
    fake.models = {"data": [{"id": "tiny", **entry}]}
    model = fake.model()
    short, long = model.room([Message("user", "Hi")]), model.room([Message("user", "word " * 1000)])
    assert short is not None
    assert 950 < short < 1000
    assert long is not None
    assert long < 0
    assert model.info() == {"name": "tiny", "base_url": fake.url, "api_key": "none", "context_length": 1000,
                            "models": ["tiny"]}  # fmt: skip
    assert (model.room([Message("user", "Hi")], TOOLS) or 0) < short


def test_room_waits_for_nobody(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("agentkit.llm.openai.catalogue.time", SimpleNamespace(monotonic=lambda: clock[0]))
    fake.models = it.hang(60)
    model, hi = RemoteModel(f"openai+{fake.url}#tiny"), [Message("user", "Hi")]
    started = time.monotonic()
    assert model.room(hi) is None
    assert time.monotonic() - started < 30
    monkeypatch.setattr("agentkit.llm.openai.catalogue._QUICK_S", 30.0)
    fake.models = reply(b"", 503)
    assert (model.room(hi), fake.models_asked) == (None, 1)
    clock[0] += 31
    assert (model.room(hi), fake.models_asked) == (None, 2)
    clock[0] += 31
    assert (model.room(hi), fake.models_asked) == (None, 2)  # the pause has doubled
    fake.models = {"data": [{"id": "tiny", "max_model_len": 1000}]}
    clock[0] += 30
    assert (model.room(hi) or 0) > 900


def test_an_error_is_one_of_ours(fake: Fake) -> None:
    with pytest.raises(AgentkitError):
        fake.model(retries=0).chat(ASK)
    for messages in ([], [{"role": "robot", "content": "x"}]):
        with pytest.raises(UsageError):
            fake.model().chat(messages)


def test_openais_key_does_not_go_to_any_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def key_for(server: str) -> str | None:
        return api_key(Address.parse(f"openai+{server}/v1#m"))

    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert key_for("https://api.openai.com") == key_for("http://127.0.0.1:8000") == "sk-other"
    assert key_for("https://models.example.org") is None
    assert key_for("http://api.openai.com") is None  # anybody on the way could read it
    monkeypatch.setenv("AGENTKIT_API_KEY", "sk-own")
    assert key_for("https://models.example.org") == key_for("https://api.openai.com") == "sk-own"
