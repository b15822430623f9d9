"""Required arguments that nothing supports."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit.evaluation.toolset import read_tool_cases
from agentkit.events import Notice, TextDelta
from agentkit.llm.formats.base import Markup
from agentkit.llm.local import LocalModel
from agentkit.llm.missing import (
    ask_for,
    going_on,
    is_withdrawn,
    missing_arguments,
    question,
    words_for,
    words_in,
)
from agentkit.messages import Completion, Message, ToolSpec

EVERYTHING = read_tool_cases(Path(__file__).parents[1] / "data" / "tools.jsonl")
CASES = [case for case in EVERYTHING if not case.missing]
KNOWN_WRONG = {
    "Change dollars for me please.",  # "dollars" stands for both currencies
    "I want to fly to Tokyo in business class.",  # and "Tokyo" for both cities
    "Please reserve a table for tomorrow evening.",  # "evening" is a time, "tomorrow" a date
    'Send an email saying "I am late".',
    'Write an email to Maria with the subject "Lunch".',
    "Wake me up early every Monday.",
    "My dishwasher is broken, send someone.",
    "What's the distance between two points?",
    "Translate it into French.",
}


def turns() -> list[tuple[ToolSpec, str, list[str]]]:
    return [(case.tool, case.text, list(case.missing)) for case in EVERYTHING if case.missing]


def tool(name: str = "weather", required: tuple[str, ...] = ("city",), **properties: Any) -> ToolSpec:
    properties = properties or {"city": {"type": "string", "description": "Name of the city."}}
    return ToolSpec(name, "Get the weather.", {"properties": properties, "required": [*required]})


def test_what_a_turn_leaves_out() -> None:
    wrong = {text for tool, text, names in turns() if missing_arguments(tool, text) != names}
    assert len(turns()) == 44
    assert wrong <= KNOWN_WRONG


def test_nothing_is_asked_where_all_is_said() -> None:
    assert len(CASES) == 220
    assert [case.text for case in CASES if missing_arguments(case.tool, case.text)] == []


@pytest.mark.parametrize(
    "text", ["Wie ist das Wetter?", "Quel temps fait-il ?", "¿Qué tiempo hace?", "天気は", ""]
)
def test_where_there_is_no_english_nothing_is_asked(text: str) -> None:
    assert missing_arguments(tool(), text) == []
    assert missing_arguments(tool(), "What's the weather like?") == ["city"]


@pytest.mark.parametrize("day", ["today", "tomorrow", "next Friday", "on Monday", "on 3 May 2027"])
def test_relative_days_are_dates(day: str) -> None:
    dated = tool(required=("date",), date={"type": "string", "description": "Date, YYYY-MM-DD."})
    assert missing_arguments(dated, f"Is it going to rain {day}?") == []
    assert missing_arguments(dated, "Is it going to rain?") == ["date"]


@pytest.mark.parametrize(
    "free",
    [{"type": "integer", "default": 3}, {"const": 3}, {"enum": [1, 2]},
     {"anyOf": [{"type": "integer"}, {"type": "null"}]},
     {"type": ["integer", "null"]}, {"type": "boolean"}, {"type": "array"}, {}, True],
)  # fmt: skip
def test_what_the_model_may_choose_is_not_asked_for(free: Any) -> None:
    assert missing_arguments(tool(required=("n",), n=free), "What's the weather like?") == []


def test_synonyms_are_asked_for() -> None:
    language = {"type": "string", "x-synonyms": {"fr": ["french"]}}
    assert missing_arguments(tool(required=("to",), to=language), "Translate it for me") == ["to"]
    assert missing_arguments(tool(required=("to",), to=language), "Put it into French") == []


def test_words_come_from_the_conversation_where_the_turn_lacks_them() -> None:
    earlier = [
        Message("system", "You are in Rome."),
        Message("user", "I live in Oslo."),
        Message("assistant", "Fine."),
    ]
    turn = "What's the weather like?"
    assert words_for(tool(), turn, earlier) == (f"{turn}\nI live in Oslo.", [])
    assert words_for(tool(), turn, earlier[:1]) == (turn, ["city"])
    assert words_for(tool(), "The weather in Paris?", earlier) == ("The weather in Paris?", [])


def test_a_long_conversation_is_read_from_its_end() -> None:
    earlier = [Message("user", "so it is " * 50_000), Message("user", "I live in Oslo.")]
    started = time.thread_time()
    words, missing = words_for(tool(), "What's the weather like?", earlier)
    assert time.thread_time() - started < 2
    assert (missing, len(words)) == ([], 4000)


def test_the_question() -> None:
    spec = tool(required=("city", "n", "id"), city={"description": "Name of the city. Not a country."},
                n={"type": "integer"}, id={"description": "ISO code"})  # fmt: skip
    assert question(spec, ["city", "n", "id"]) == "To do that I need to know: name of the city; n; ISO code."
    events = list(ask_for(spec, ["city"], "Sure."))
    assert [type(event) for event in events] == [Notice, TextDelta, Completion]
    assert events[-1].text == "Sure." + events[1].text == f"Sure.\n\n{question(spec, ['city'])}"  # type: ignore[union-attr]


def test_requests_that_are_taken_back() -> None:
    for text in ("Never mind.", "no, forget it", "Cancel that", "OK, stop", "No thanks!", "nothing", "No."):
        assert is_withdrawn(text), text
    for text in ("Oslo", "no idea, Oslo maybe", "Notting Hill", "Norway", "5", "Stopford Road", "Cancel order 1042",
                 "Stop at Main Street", "Nothing special, Oslo", "Leave it at the door, 12 Main St"):  # fmt: skip
        assert not is_withdrawn(text), text


@pytest.mark.parametrize(
    ("reply", "missing"),
    [("alice", []), ("The user's id is alice", []), ("I don't know", ["user_id"]), ("not sure, sorry", ["user_id"]),
     ("Which one do you mean?", ["user_id"]), ("U-77", [])],
)  # fmt: skip
def test_what_answers_the_question_is_not_asked_for_again(reply: str, missing: list[str]) -> None:
    user = tool("get_user", ("user_id",), user_id={"type": "string", "description": "Id of the user."})
    said = [Message("user", "Show me the user"), Message("assistant", question(user, ["user_id"]))]
    assert words_in(user, said[:1])[1] == ["user_id"]
    assert words_in(user, [*said, Message("user", reply)])[1] == missing


def test_what_a_reply_leaves_open_is_asked_for() -> None:
    room = tool("book", ("city", "people"), city={"type": "string", "description": "Name of the city."},
                people={"type": "integer", "description": "How many."})  # fmt: skip
    said = [Message("user", "Please book it"), Message("assistant", question(room, ["city", "people"]))]
    assert words_in(room, [*said, Message("user", "Oslo")])[1] == ["people"]
    assert words_in(room, [*said, Message("user", "a few of us")])[1] == ["people"]  # a number needs one


def test_the_end_of_a_long_turn_is_looked_at_too() -> None:
    book = tool("book", ("day",), day={"type": "string", "format": "date", "description": "Day, YYYY-MM-DD."})
    assert missing_arguments(book, "Here comes some text. " * 300) == ["day"]
    assert missing_arguments(book, "Here comes some text. " * 300 + "Please book it for 3 May 2027") == []


def test_the_local_model_asks_by_itself(smollm: LocalModel) -> None:
    class Weather:
        def route(self, text: str, tools: Any, answerable: float | None) -> Any:
            from agentkit.llm.protocol import Route

            return Route("tool", "weather", {})

    model = LocalModel(smollm._loaded, router=Weather())
    asked = [{"role": "user", "content": "What's the weather like?"}]
    done = model.chat(asked, tools=[tool()])
    assert (done.tool_calls, done.text) == ((), "To do that I need to know: name of the city.")
    answered = [*asked, {"role": "assistant", "content": done.text}, {"role": "user", "content": "In Oslo"}]
    (made,) = model.chat(answered, tools=[tool()]).tool_calls
    assert made.arguments == {"city": "Oslo"}
    forced = model.chat(asked, tools=[tool()], tool_choice={"name": "weather"}, max_new_tokens=60)
    assert forced.tool_calls or forced.finish_reason == "length"  # who forces a call gets one


def test_a_reply_goes_on_from_the_question() -> None:
    tool = ToolSpec(
        "weather", "Get the weather.", {"type": "object", "properties": {"city": {"type": "string"}}}
    )
    asked = Message("assistant", question(tool, ["city"]))
    said = [Message("system", "Be kind."), Message("user", "What's the weather?"), asked]
    assert going_on([*said, Message("user", "Porto")]) == "What's the weather?\nPorto"
    assert going_on([*said, Message("user", "Hm"), asked, Message("user", "Porto")]).endswith("?\nHm\nPorto")
    assert going_on([*said, Message("user", "never mind")]) == "never mind"
    assert going_on([*said[:2], Message("assistant", "Fine."), Message("user", "Porto")]) == "Porto"
    assert going_on(said[:1]) == ""


def test_of_several_values_the_latest_is_meant() -> None:
    tool = ToolSpec(
        "order_status",
        "Look up where an order is.",
        {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    )
    asked = Message("assistant", question(tool, ["order_id"]))
    earlier = [Message("user", "Where is order 1042?"), asked, Message("user", "And where is order 2077?")]
    words, missing = words_for(tool, "Has my parcel left yet?", earlier)
    assert not missing
    assert words.index("2077") < words.index("1042")
    assert "need to know" not in words


def test_a_call_that_the_model_begins_is_asked_about_too(
    smollm: LocalModel, begin: Callable[..., list[int]]
) -> None:
    """Under ``auto`` without a router it is the model that writes the opening tag: here the script does."""
    asked = "What's the weather like?"
    model = LocalModel(smollm._loaded)
    begins = model.encoder.format.triggers[0]

    def called(*messages: Message) -> list[Any]:
        begin(
            [
                token
                for segment in model.encoder.segments((Markup(begins),))
                for token in ([segment] if isinstance(segment, int) else model.encoder.plain(segment))
            ]
        )
        return list(model.stream(messages, tools=[tool()], max_new_tokens=60))

    events = called(Message("user", asked))
    assert [event.code for event in events if isinstance(event, Notice)] == ["missing_argument"]
    assert events[-1].tool_calls == ()
    assert events[-1].text == question(tool(), ["city"])
    (made,) = called(Message("user", "What's the weather in Oslo?"))[-1].tool_calls
    assert made.name == "weather"
    replied = called(
        Message("user", asked), Message("assistant", events[-1].text), Message("user", "In Oslo")
    )
    assert replied[-1].tool_calls


@pytest.mark.parametrize(
    "said",
    ["on May 5", "on the 15th", "on 5 May", "in two weeks", "last week", "at the weekend", "on March 3rd"],
)
def test_days_without_a_year_are_days(said: str) -> None:
    book = tool("book", ("day",), day={"type": "string", "format": "date", "description": "The day."})
    assert missing_arguments(book, f"Please book the room for me {said}") == []


@pytest.mark.parametrize("said", ["at 7 o'clock", "at half past seven", "at quarter to eight"])
def test_times_in_words_are_times(said: str) -> None:
    book = tool("book", ("time",), time={"type": "string", "description": "The time of day."})
    assert missing_arguments(book, f"Please book the room for me {said}") == []
    assert missing_arguments(book, "Please book the room for me") == ["time"]


def test_what_a_name_ends_in_says_what_it_is() -> None:
    """A file's format is no path, and an account may be named by what the description offers."""
    export = tool(
        "export", ("file_format",), file_format={"type": "string", "description": "Form of the file."}
    )
    assert missing_arguments(export, "Save my report as PDF, please") == []
    account = {"type": "string", "description": "Which account: 'savings' or 'checking'."}
    balance = ToolSpec(
        "get_balance", "Get the balance.", {"properties": {"account": account}, "required": ["account"]}
    )
    assert missing_arguments(balance, "What's the balance of my savings account?") == []
    assert missing_arguments(balance, "What's the balance of my account?") == ["account"]


def test_results_of_the_turn_under_way_support_the_next_call() -> None:
    invoices = tool(
        "get_invoices",
        ("customer_id",),
        customer_id={"type": "integer", "description": "Id of the customer."},
    )
    asked = [Message("user", "Show me the invoices of Ann Lee")]
    assert words_in(invoices, asked)[1] == ["customer_id"]
    found = [
        *asked,
        Message("assistant", ""),
        Message("tool", '{"result": {"id": 77}}', (), "1", "find_customer"),
    ]
    assert words_in(invoices, found)[1] == []
