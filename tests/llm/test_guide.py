"""Evidence on top of a grammar: what it would have come next, and what the embedded model makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from families import as_family
from test_grammar import message_of

from agentkit.evaluation.toolset import read_tool_cases
from agentkit.llm.evidence import Candidate, Parameter, evidence
from agentkit.llm.formats.base import Markup
from agentkit.llm.grammar import CallOptions, GrammarCompiler
from agentkit.llm.guide import FULL, CallText, Guided, Strength
from agentkit.llm.local import LocalModel
from agentkit.messages import Completion, ToolExample, ToolSpec

HEAD = "call f {"
DATA = Path(__file__).parents[1] / "data" / "tools.jsonl"
CASES = [case for case in read_tool_cases(DATA) if not case.missing]
NAME = Parameter("name", (Candidate('"a, \\"b\\""', 8.0), Candidate('"c"', 2.0)), 6.0)
COUNT = Parameter("n", (Candidate("5", 8.0), Candidate("50", 2.0)), 6.0)
LEFT_OUT = Parameter("x", (), -6.0)
BOTH = [NAME, LEFT_OUT, COUNT]


class AnyByte:
    """A grammar that allows every byte; a token is a byte."""

    complete = False

    def __init__(self, allowed: Sequence[int] = range(256)) -> None:
        self.allowed = set(allowed)

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        for token in set(range(len(logits))) - self.allowed:
            logits[token] = float("-inf")
        return logits

    def permits(self, token: int, remaining: int) -> bool:
        return token in self.allowed

    def accept(self, token: int) -> None: ...

    def forced(self) -> list[int]:
        return []

    def allows(self, draft: Sequence[int]) -> int:
        return len(draft)


def guided(
    known: dict[str, list[list[Parameter]]] | None = None,
    grammar: Any = None,
    strength: Strength = FULL,
    order: Sequence[tuple[str, float]] = (),
) -> Guided:
    around = CallText([")\n"], "then ", "", frozenset({0}))
    return Guided(
        grammar or AnyByte(),
        {HEAD: [BOTH]} if known is None else known,
        around,
        lambda text: list(text.encode()),
        lambda ids: bytes(ids).decode("utf-8", "replace"),
        strength,
        order,
    )


def likeliest(
    written: str,
    known: dict[str, list[list[Parameter]]] | None = None,
    order: Sequence[tuple[str, float]] = (),
) -> str | None:
    found = guided(known, order=order).continuations(written)
    return max(found, key=lambda pair: pair[1])[0] if found else None


@pytest.mark.parametrize(
    ("written", "follows"),
    [
        ("some words", None),
        (HEAD, '"name":'),
        (HEAD + '"na', 'me":'),
        (HEAD + '"name": ', '"a, \\"b\\"", "n":'),
        (HEAD + '"name":', ' "a, \\"b\\"", "n":'),
        (HEAD + '"name": "a, ', '\\"b\\"", "n":'),
        (HEAD + '"name": "a, \\"', 'b\\"", "n":'),
        (HEAD + '"name": "other"', ', "n":'),
        (HEAD + '"name": "} , \\\\"', ', "n":'),
        (HEAD + '"name": "c", "n": ', "5})\n"),
        (HEAD + '"name": "c", "n": 5', "})\n"),
        (HEAD + '"name": "c", "x": {"n": 1, "y": [2, "}"]}, ', '"n":'),
        (HEAD + '"q": 1', None),
    ],
)
def test_continuations(written: str, follows: str | None) -> None:
    assert likeliest(written) == follows


def test_behind_the_arguments_comes_another_call_or_the_end() -> None:
    written, twice = HEAD + '"n": 5})\n', [(HEAD, 1.0), (HEAD, 1.0)]
    assert likeliest(written, order=twice) == "then " + HEAD
    assert likeliest(written + "then ", order=twice) == HEAD
    assert likeliest(written, order=twice[:1]) == ""
    assert likeliest(written) is None  # the turn does not tell
    assert likeliest(HEAD + '"n": 5}', order=twice) is None  # the grammar leaves no choice


def test_what_stands_around_calls_may_hold_control_tokens_and_ids() -> None:
    around = CallText([")1", ")2"], "<c> and ", "]", frozenset({0}), {"<c>": 7})

    def after(text: str, times: int) -> list[tuple[str, float]]:
        known, order = {HEAD: [BOTH]}, [(HEAD, 1.0)] * times
        guide = Guided(AnyByte(), known, around, lambda text: list(text.encode()), str, order=order)
        return guide.continuations(HEAD + '"n": 5}' + text)

    assert after(")1", 2) == [(Markup("<c>"), 6.0)]
    assert after(")2<c>", 2) == [(" and " + HEAD, 6.0)]
    assert after(")1", 1) == [("]", 3.0)]
    assert after(")1]", 1) == after(")", 2) == after(")3", 2) == []
    first = Guided(AnyByte(), {HEAD: [BOTH]}, around, lambda text: list(text.encode()), str)
    assert first.continuations(HEAD + '"n": 5')[0] == ("})1", 8.0)


def test_calls_come_in_the_order_of_the_turn() -> None:
    other = "call g {"
    known = {HEAD: [BOTH], other: [BOTH]}
    order = [(other, 1.0), (HEAD, 0.5)]
    assert guided(known, order=order).continuations("call") == [(" g {", 4.0)]
    assert guided(known, order=order).continuations("") == []  # something else may come before the calls
    written = other + '"n": 5})\n'
    assert guided(known, order=order).continuations(written) == [("then " + HEAD, 3.0)]
    assert likeliest(written + "then call g {", known, order) == '"name":'  # the model knows better
    both = HEAD + '"n": 5})\nthen ' + written
    assert likeliest(both, known, order) == ""


def test_how_far_evidence_counts() -> None:
    whole, twice = HEAD + '"name": "c", "n": 5})\n', [(HEAD, 1.0), (HEAD, 1.0)]
    half = guided({HEAD: [BOTH, BOTH]}, strength=Strength(values=0.5, calls=0.0), order=twice)
    full = guided({HEAD: [BOTH, BOTH]}, order=twice)
    assert full.continuations(whole) == [("then " + HEAD, 6.0)]
    assert half.continuations(whole) == []
    assert half.continuations("call") == []
    assert full.continuations(HEAD) == [('"name":', 6.0)]
    assert half.continuations(HEAD) == [('"name":', 3.0)]


def test_a_call_beyond_those_found_has_no_preferred_value() -> None:
    second = HEAD + '"name": "c", "n": 5})\nthen ' + HEAD + '"name": '
    weights = [weight for text, weight in guided({HEAD: [BOTH]}).continuations(second) if '"n"' in text]
    assert weights == [2.0, 2.0]
    weights = [weight for text, weight in guided({HEAD: [BOTH, BOTH]}).continuations(second) if '"n"' in text]
    assert weights == [8.0, 2.0]


def test_a_number_does_not_end_before_all_that_the_turn_says_of_it() -> None:
    other = Parameter("n", (Candidate("50", 8.0), Candidate("51", 8.0)), 6.0)
    assert sorted(guided({HEAD: [[other]]}).continuations(HEAD + '"n": 5'), key=lambda pair: pair[1]) == [
        ("})\n", -12.0), ("0})\n", 8.0), ("1})\n", 8.0)]  # fmt: skip
    tiny = {HEAD: [[Parameter("n", (Candidate("8.85e-12", 8.0),), 6.0)]]}
    for cut in ("8", "8.85", "8.85e-1"):
        assert guided(tiny).continuations(HEAD + f'"n": {cut}')[-1] == ("})\n", -12.0)
    assert likeliest(HEAD + '"n": 8.85e-12', tiny) == "})\n"


def test_a_number_grows_into_no_other_than_the_turn_speaks_of() -> None:
    years = Parameter("n", (Candidate("1", 8.0), Candidate("5", 2.0), Candidate("10", 2.0)), 6.0)
    other = Parameter(
        "m", (Candidate("12", 8.0),), -6.0
    )  # said of something else, but the model may know better
    found = dict(guided({HEAD: [[years, other]]}).continuations(HEAD + '"n": 1'))
    assert {text for text, weight in found.items() if weight == -6.0} == set("13456789")
    assert max(found, key=lambda text: found[text]) == "})\n"


def test_what_may_end_a_number_is_looked_up_at_every_digit() -> None:
    guide = guided({HEAD: [[Parameter("n", (Candidate("12", 8.0),), 6.0)]]})
    for byte in (HEAD + '"n": ').encode():
        guide.accept(byte)
    ends = []
    for byte in b"12":
        ends.append(guide.weights()[ord("}")])
        guide.accept(byte)
    assert [*ends, guide.weights()[ord("}")]] == [-3.0, -12.0, 8.0]


def test_a_second_call_takes_the_second_values() -> None:
    second = [Parameter("n", (Candidate("7", 8.0),), 6.0)]
    known = {HEAD: [[COUNT], second]}
    assert likeliest(HEAD + '"n": 5})\nthen ' + HEAD + '"n": ', known) == "7})\n"


def test_a_tool_whose_head_ends_like_anothers() -> None:
    known = {"f[A]{": [[COUNT]], "get_f[A]{": [[NAME]]}
    assert likeliest("get_f[A]{", known) == '"name":'
    assert likeliest("f[A]{", known) == '"n":'


@pytest.mark.parametrize("name", ['si"ze', "größe", "a\\b", ""])
def test_names_are_written_as_json(name: str) -> None:
    known = {HEAD: [[Parameter(name, (Candidate("5", 8.0),), 6.0)]]}
    key = json.dumps(name, ensure_ascii=False) + ":"
    assert likeliest(HEAD, known) == key
    assert likeliest(f"{HEAD}{key} ", known) == "5})\n"
    assert likeliest(HEAD + json.dumps(name) + ": ", known) == "5})\n"


@pytest.mark.parametrize(
    "written", [HEAD + '"name": "a, \\"b\\"", "n": 5})\n', HEAD + '"name": "else", "n": 51})\n']
)
def test_following_a_path_weighs_as_reading_anew(written: str) -> None:
    """What is remembered from step to step is what a fresh look at the same text would find most likely."""
    followed = guided()
    for n, byte in enumerate(written.encode()):
        anew = guided()
        anew._ids = list(written.encode()[:n])
        likeliest_anew = _best(anew.weights())
        if likeliest_anew is not None:  # where the grammar leaves no choice nothing is looked up
            assert _best(followed.weights()) == likeliest_anew, written.encode()[:n]
        followed.accept(byte)


def _best(weights: dict[int, float]) -> int | None:
    likely = {token: weight for token, weight in weights.items() if weight > 0}
    return max(likely, key=lambda token: likely[token], default=None)


def test_a_text_that_looks_like_a_call_is_no_error() -> None:
    assert guided().continuations(HEAD + '"\\u12": 1, "\\q": "') == []


def test_what_is_permitted_is_the_best_of_the_mask() -> None:
    torch.manual_seed(0)
    for written in (HEAD, HEAD + '"name": ', HEAD + '"name": "a', HEAD + '"n": 5', "words"):
        guide = guided(grammar=AnyByte(range(32, 120)))
        for byte in written.encode():
            guide.accept(byte)
        for _ in range(50):
            logits = torch.randn(256) * 6
            token = int(logits.argmax())
            if guide.permits(token, 100):
                assert int(guide.mask(logits.clone(), 100).argmax()) == token


def call(model: LocalModel, case: Any, **options: Any) -> dict[str, Any]:
    done = model.chat(
        [{"role": "user", "content": case.text}], tools=[case.tool], tool_choice={"name": case.tool.name},
        max_new_tokens=160, **options,
    )  # fmt: skip
    assert isinstance(done, Completion)
    (made,) = done.tool_calls
    jsonschema.validate(made.arguments, case.tool.schema)
    return made.arguments


def plain(model: LocalModel) -> LocalModel:
    """The same model whose calls are not weighed."""

    class Plain(GrammarCompiler):
        def _guided(self, grammar: Any, tools: Sequence[ToolSpec], options: CallOptions) -> Any:
            return grammar

    other, loaded = LocalModel(model._loaded), model._loaded
    other._compiler = Plain(other.encoder, loaded.vocab_size, loaded.eos_ids)
    return other


def test_every_tenth_call_is_valid(smollm: LocalModel) -> None:
    for case in CASES[::10]:
        call(smollm, case)


def test_evidence_makes_more_calls_right(smollm: LocalModel) -> None:
    sample = [case for case in CASES if case.split == "tune"][::5][:24]
    with_it = sum(not case.wrong(call(smollm, case)) for case in sample) / len(sample)
    bare = plain(smollm)
    without = sum(not case.wrong(call(bare, case)) for case in sample) / len(sample)
    print(f"with {with_it:.2f}, without {without:.2f}")
    assert without < 0.6 < 0.8 < with_it


def test_hot_sampling_stays_valid(smollm: LocalModel) -> None:
    for seed, case in enumerate(CASES[3::40]):
        call(smollm, case, temperature=1.5, seed=seed)


CITY = ToolSpec("get_weather", "Weather of a city.", {"type": "object", "required": ["city"],
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})  # fmt: skip
OTHER = ToolSpec("weather", "Weather on a day.", {"type": "object", "required": ["day"],
                 "properties": {"day": {"type": "string", "maxLength": 20}}})  # fmt: skip


def test_parallel_calls(smollm: LocalModel) -> None:
    turn = "What is the weather in Oslo and in Rome and in Paris?"
    done = smollm.chat(
        [{"role": "user", "content": turn}], tools=[CITY], tool_choice="required", parallel_tool_calls=True
    )
    assert [made.arguments for made in done.tool_calls] == [{"city": c} for c in ("Oslo", "Rome", "Paris")]


@pytest.mark.parametrize("name", ["hermes", "llama3", "mistral", "mistral-args"])
def test_evidence_alone_writes_every_call_in_every_format(smollm: LocalModel, name: str) -> None:
    model = as_family(smollm, name)
    turn = "What is the weather in Oslo and in Rome and in Paris?"
    guide = model._grammars().tool_call([CITY], CallOptions(turn, parallel=True))
    assert isinstance(guide, Guided)
    written = list(guide.forced())
    for _ in range(120):
        if guide.complete:
            break
        logits = torch.zeros(model._loaded.vocab_size)
        written.append(int(guide.mask(logits, 200).argmax()))
        if written[-1] in model._loaded.eos_ids:
            break
        guide.accept(written[-1])
        written += guide.forced()
    text = model.encoder.decode([id for id in written if id not in model._loaded.eos_ids])
    calls = message_of(text, [CITY], model.encoder.format).calls
    assert [call.arguments for call in calls] == [{"city": city} for city in ("Oslo", "Rome", "Paris")]


@pytest.mark.parametrize("name", ["hermes", "llama3", "mistral", "mistral-args"])
def test_other_formats(smollm: LocalModel, name: str) -> None:
    model = as_family(smollm, name)
    message = {"role": "user", "content": "What is the weather in Oslo for the next 3 days?"}
    for tools in ([CITY], [CITY, OTHER]):
        done = model.chat([message], tools=tools, tool_choice={"name": CITY.name}, max_new_tokens=80)
        assert [made.arguments for made in done.tool_calls] == [{"city": "Oslo", "days": 3}]
    done = model.chat([message], tools=[OTHER, CITY], tool_choice="required", max_new_tokens=80)
    spec = {tool.name: tool for tool in (CITY, OTHER)}[done.tool_calls[0].name]
    jsonschema.validate(done.tool_calls[0].arguments, spec.schema)


def test_where_there_is_nothing_to_weigh_the_grammar_is_bare(compiler: GrammarCompiler) -> None:
    assert isinstance(compiler.tool_call([CITY], CallOptions("Oslo")), Guided)
    assert not isinstance(compiler.tool_call([CITY], CallOptions("")), Guided)
    assert not isinstance(compiler.tool_call([CITY], CallOptions("Oslo", strength=Strength(0, 0))), Guided)
    assert evidence(CITY.schema, "")[0][0].candidates == ()


def test_what_examples_do_not_settle_is_weighed(smollm: LocalModel) -> None:
    """No cue of the examples stands before the number: without evidence the model would make one up."""
    examples = (
        ToolExample("Where is order 2001?", {"order_id": "2001"}),
        ToolExample("Has my parcel 3317 left yet?", {"order_id": "3317"}),
    )
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
    tool = ToolSpec("order_status", "Look up where an order is.", schema, examples)
    for turn in ("Where is my order?\n1042", "It is 1042."):
        (call,) = smollm.chat(
            [{"role": "user", "content": turn}], tools=[tool], tool_choice="required"
        ).tool_calls
        assert call.arguments == {"order_id": "1042"}
