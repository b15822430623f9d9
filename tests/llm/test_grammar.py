"""Under a grammar every call parses and validates, whatever the model prefers."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import jsonschema
import pytest
import torch

from agentkit.errors import ModelError, SchemaError
from agentkit.llm.calls import Written, read_message
from agentkit.llm.formats import GENERIC
from agentkit.llm.formats.base import Format
from agentkit.llm.formats.gemma import FORMAT as GEMMA
from agentkit.llm.grammar import CallOptions, Grammar, GrammarCompiler
from agentkit.llm.guide import NO_EVIDENCE, Guided, Strength
from agentkit.llm.local import LocalModel
from agentkit.messages import ToolCall, ToolExample, ToolSpec

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def an_object(required: Any = None, **properties: Any) -> dict[str, Any]:
    wanted = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": wanted}


TREE = {
    "type": "object",
    "properties": {"value": INTEGER, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "required": ["value", "children"],
    "additionalProperties": False,
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "strings": an_object(a=STRING, b=STRING),
    "optional": an_object([], a=STRING, b=INTEGER, c={"type": "boolean"}),
    "nested": an_object(order=an_object(id=INTEGER, address=an_object(city=STRING, zip=STRING))),
    "arrays": an_object(tags={"type": "array", "items": STRING, "minItems": 1, "maxItems": 3}),
    "matrix": an_object(m={"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
    "tuple": an_object(t={"type": "array", "prefixItems": [STRING, INTEGER], "items": False, "minItems": 2}),
    "enum": an_object(size={"enum": ["s", "m", 'l"x\\y', 4, None, True, "<|im_end|>", "é🎉"]}),
    "const": an_object(kind={"const": {"a": [1, None]}}, b={"const": "x"}),
    "any_of": an_object(v={"anyOf": [STRING, INTEGER, an_object(a=INTEGER)]}),
    "disjoint_one_of": an_object(v={"oneOf": [STRING, INTEGER]}),
    "all_of": an_object(v={"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}),
    "nullable": an_object(v={"type": ["string", "null"]}, w={"anyOf": [INTEGER, {"type": "null"}]}),
    "bounds": an_object(n={"type": "integer", "minimum": -3, "maximum": 117}),
    "exclusive": an_object(n={"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}),
    "multiple": an_object(n={"type": "integer", "multipleOf": 7, "minimum": 1}),
    "number": an_object(x={"type": "number", "minimum": 0, "maximum": 1}),
    "pattern": an_object(code={"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"}),
    "lengths": an_object(s={"type": "string", "minLength": 2, "maxLength": 5}),
    "slashes": an_object(
        u={"type": "string", "pattern": "^https:\\/\\/[a-z]+$"}, p={"type": "string", "pattern": "^[^\\/]+$"}
    ),
    "one_at_most": an_object(tags={"type": "array", "items": STRING, "maxItems": 1}),
    "just_one": an_object(tags={"type": "array", "items": STRING, "minItems": 1, "maxItems": 1}),
    "date": an_object(d={"type": "string", "format": "date"}, t={"type": "string", "format": "date-time"}),
    "formats": an_object(u={"type": "string", "format": "uuid"}, i={"type": "string", "format": "ipv4"}),
    "unicode": an_object(**{"größe 🎉": STRING, 'a"b\\c': INTEGER, "": {"type": "boolean"}}),
    "empty": {"type": "object", "properties": {}},
    "no_properties": {"type": "object"},
    "free_values": an_object(data={"type": "object"}, anything={}),
    "map": an_object(m={"type": "object", "additionalProperties": INTEGER}),
    "closed": {**an_object(a=STRING), "additionalProperties": False},
    "recursive": {**an_object(root={"$ref": "#/$defs/node"}), "$defs": {"node": TREE}},
    "old_definitions": {**an_object(v={"$ref": "#/definitions/v"}), "definitions": {"v": INTEGER}},
    "annotations": an_object(
        a={**STRING, "title": "A", "default": "x", "examples": ["y"], "deprecated": True}
    ),
    "x_keys": an_object(**{"x-axis": INTEGER, "lang": {"enum": ["fr"], "x-synonyms": {"fr": ["french"]}}}),
    "many": an_object(**{f"parameter_number_{n}": STRING for n in range(25)}),
}


def walk(grammar: Grammar | Guided, seed: int, budget: int) -> list[int] | None:
    """Ids of a random output, chosen without any preference; None if the budget ended first."""
    inner = grammar._grammar if isinstance(grammar, Guided) else grammar
    assert isinstance(inner, Grammar)
    rng, ids, flat = random.Random(seed), [], torch.zeros(inner._vocab_size)
    forced = grammar.forced()
    while not grammar.complete:
        ids += forced
        budget -= len(forced)
        if budget <= 0:
            return None
        allowed = torch.isfinite(grammar.mask(flat, budget)).nonzero().flatten()
        token = int(allowed[rng.randrange(len(allowed))])
        grammar.accept(token)
        forced = [token, *grammar.forced()]
    return ids + forced


def message_of(text: str, specs: list[ToolSpec], format: Format) -> Written:
    """The calls of a random message; its numbers are as random, and those that nothing can hold are made ones."""
    while True:
        try:
            return read_message(text, specs, format)
        except ModelError as error:
            found = re.search(r"with the number ([^ …]+)…?, which is too large", str(error))
            if found is None:
                raise
            text = text.replace(found.group(1), "1")


def read(smollm: LocalModel, ids: list[int], spec: ToolSpec) -> dict[str, Any]:
    """The arguments; raises if the call does not parse or validate."""
    text = smollm.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    (call,) = message_of(text, [spec], GENERIC).calls
    arguments = call.arguments
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(spec.schema, format_checker=checker).validate(arguments)
    return arguments


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_calls_are_valid_and_end_in_time(
    smollm: LocalModel, compiler: GrammarCompiler, name: str
) -> None:
    spec = ToolSpec("find", "Find.", SCHEMAS[name])
    for seed in range(6):
        ids = walk(compiler.tool_call([spec]), seed, 400)
        assert ids is not None, f"seed {seed} ran out of its budget"
        arguments = read(smollm, ids, spec)
        declared = set(spec.schema.get("properties", {}))
        assert not declared or set(arguments) <= declared


def test_many_required_parameters_leave_room_for_their_keys(
    smollm: LocalModel, compiler: GrammarCompiler
) -> None:
    """The first string may ramble; what it leaves must be enough for 25 more keys."""
    spec = ToolSpec("find", "Find.", SCHEMAS["many"])
    for seed in range(3):
        ids = walk(compiler.tool_call([spec]), seed, 512)
        assert ids is not None
        assert len(read(smollm, ids, spec)) == 25


def test_a_call_names_one_of_the_tools(smollm: LocalModel, compiler: GrammarCompiler) -> None:
    specs = [ToolSpec(name, "", SCHEMAS["bounds"]) for name in ("alpha", "beta", "a.b/c:d")]
    names = set()
    for seed in range(30):
        ids = walk(compiler.tool_call(specs), seed, 200)
        assert ids is not None
        names.add(read_message(smollm.tokenizer.decode(ids), specs, GENERIC).calls[0].name)
    assert names == {"alpha", "beta", "a.b/c:d"}


@pytest.mark.parametrize(
    "text", ["yes", "", 'é🎉 "q" \\ \n\n', "\x00\x7f\x1b", "a<|im_end|>b", "half \ud800 pair", "{" * 50]
)
def test_a_single_choice_is_said_word_for_word(
    smollm: LocalModel, compiler: GrammarCompiler, text: str
) -> None:
    ids = walk(compiler.choice([text]), 0, 200)
    assert ids is not None
    said = smollm.tokenizer.decode([id for id in ids if id != smollm.tokenizer.eos_token_id])
    assert said == text.replace("\ud800", "?")
    assert text == "" or not set(ids) & set(smollm.tokenizer.all_special_ids)


def test_one_of_several_choices(smollm: LocalModel, compiler: GrammarCompiler) -> None:
    texts = ["yes", "yes please", "no"]
    said = {
        smollm.tokenizer.decode(walk(compiler.choice(texts), n, 50), skip_special_tokens=True)
        for n in range(30)
    }
    assert said == set(texts)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not": ({"not": STRING}, "#/properties/q"),
    "if": ({"if": STRING, "then": {"minLength": 3}}, "#/properties/q"),
    "uniqueItems": ({"type": "array", "items": STRING, "uniqueItems": True}, "#/properties/q"),
    "dict": ({"type": "dict"}, "#/properties/q"),
    "oneOf": ({"oneOf": [INTEGER, {"type": "number"}]}, "#/properties/q"),
    "format": ({"type": "string", "format": "shoe-size"}, "#/properties/q"),
    "dependentRequired": ({"type": "object", "dependentRequired": {"a": ["b"]}}, "#/properties/q"),
    "pattern": ({"type": "string", "pattern": "("}, "#/properties/q"),
    "look-ahead": ({"type": "string", "pattern": "^(?=a)b"}, "#/properties/q"),
    "deep": ({"type": "array", "items": an_object(z={"not": {}})}, "#/properties/q/items/properties/z"),
    "branch": ({"anyOf": [STRING, {"type": "tuple"}]}, "#/properties/q/anyOf/1"),
    "reference": ({"$ref": "#/$defs/none"}, "#/properties/q"),
    "unsatisfiable": ({"type": "integer", "minimum": 5, "maximum": 3}, "#/properties/q"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_grammar_expresses_is_refused(compiler: GrammarCompiler, name: str) -> None:
    schema, path = REFUSED[name]
    with pytest.raises(SchemaError, match="cannot be made a grammar") as caught:
        compiler.tool_call([ToolSpec("f", "", an_object(q=schema))])
    assert f"tool 'f': the schema at {path}" in str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def big(kind: str) -> dict[str, Any]:
    """Schemas of some megabyte, or otherwise without measure."""
    texts = [f"value number {n}" for n in range(10_000)]
    numbered = {f"parameter_{n}": {"type": "string", "description": "x" * 40} for n in range(10_000)}
    ref_a = {"$ref": "#/$defs/a"}
    nested: dict[str, Any] = STRING
    for _ in range(500):
        nested = an_object(a=nested)
    everything: list[Any] = [
        {"type": kind} for kind in ("string", "number", "boolean", "null", "array", "object")
    ]
    return {
        "properties": an_object([], **numbered),
        "description": an_object(a={"type": "string", "description": "x" * 1_000_000}),
        "enum": an_object(q={"enum": texts}),
        "numbers": an_object(q={"enum": list(range(10_000))}),
        "anything": an_object(a={"anyOf": everything}, b={"anyOf": [{"anyOf": everything}, {}]}),
        "empty objects": an_object(a={"type": "object", "properties": {}}, b={}),
        "a bad property": an_object([], **numbered, bad={"type": "dict"}),
        "enum of 100,000": an_object(q={"enum": [f"{text} {n}" for text in texts for n in range(10)]}),
        "one long value": an_object(q={"enum": ["y" * 1_000_000]}),
        "nested": nested,
        "itself": {**an_object(), "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        "circle": an_object(a=ref_a) | {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": ref_a}},
        "endless list": an_object(a=ref_a) | {"$defs": {"a": {"type": "array", "minItems": 1, "items": ref_a}}},
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["description", "enum", "numbers", "anything", "empty objects"])
def test_large_schemas(smollm: LocalModel, compiler: GrammarCompiler, kind: str) -> None:
    spec = ToolSpec("f", "", big(kind))
    started = time.thread_time()
    compiler.check_tool(spec)
    ids = walk(compiler.tool_call([spec], CallOptions("Where is 7?", strength=Strength(0, 0))), 0, 60_000)
    assert ids is not None
    read(smollm, ids, spec)
    assert time.thread_time() - started < 30


TOO_MUCH = {
    "properties": r"# is too complex: .*max is 2000",
    "a bad property": r"#/properties/bad cannot be made a grammar: Invalid type: dict",
    "enum of 100,000": r"#/properties/q cannot be made a grammar: .*too big",
    "one long value": r"# is too complex",
    "nested": r"# is nested too deeply",
    "itself": r"#/properties/a cannot be made a grammar: it refers to itself without an end",
    "circle": r"#/properties/a cannot be made a grammar: it refers to itself without an end",
    "endless list": r"#/properties/a cannot be made a grammar: it refers to itself without an end",
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_what_is_too_much_is_refused_in_time(
    smollm: LocalModel, compiler: GrammarCompiler, kind: str
) -> None:
    spec = ToolSpec("f", "", big(kind))
    started = time.thread_time()
    with pytest.raises(SchemaError, match=f"tool 'f': the schema at {TOO_MUCH[kind]}") as caught:
        compiler.check_tool(spec)
    assert "\n" not in str(caught.value)
    assert time.thread_time() - started < 20
    if kind == "nested":
        with pytest.raises(SchemaError, match="nested too deeply"):
            smollm.chat([{"role": "user", "content": "x"}], tools=[spec])


MALFORMED: dict[str, tuple[Any, str]] = {
    "type": ({"type": 5}, "type must be a string"),
    "properties": ({"type": "object", "properties": ["a"]}, "properties must be an object"),
    "required": ({"type": "object", "properties": {}, "required": "a"}, "Expected array"),
    "enum": ({"enum": "abc"}, "enum must be an array"),
    "no values": ({"enum": []}, "empty"),
    "a text": ("string", "must be an object"),
    "false": (False, "false"),
    "remote": ({"$ref": "https://example.org/schema.json"}, "not present"),
    "file": ({"$ref": "other.json#/x"}, "not present"),
    "not a number": ({"type": "number", "minimum": float("nan")}, "float"),
    "length": ({"type": "string", "minLength": "3"}, "minLength"),
    "no lengths": ({"type": "string", "minLength": 5, "maxLength": 3}, "Unsatisfiable"),
    "no type": ({"type": "string", "enum": [1, 2]}, "Unsatisfiable"),
    "pattern": ({"type": "string", "pattern": "[unclosed"}, "unclosed character class"),
    "a set": ({"enum": {1, 2}}, "not JSON serializable"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_schemas_are_refused_in_one_line(compiler: GrammarCompiler, name: str) -> None:
    schema, reason = MALFORMED[name]
    with pytest.raises(SchemaError, match=rf"tool 'f': the schema at #/properties/q\b.*{reason}") as caught:
        compiler.check_tool(ToolSpec("f", "", an_object(q=schema)))
    assert "\n" not in str(caught.value)


REF_A = {"$ref": "#/$defs/a"}
UNCHECKABLE: dict[str, tuple[dict[str, Any], str]] = {
    "another way out": ({**an_object(q=REF_A), "$defs": {"a": {"anyOf": [REF_A, STRING]}}}, r"#/\$defs/a .* itself"),
    "a regular expression of another language": (an_object(q={"type": "string", "pattern": "\\p{L}"}),
                                                 "#/properties/q/pattern cannot .* bad escape"),
    "a text": (STRING, "# cannot be made a grammar: arguments are an object, but its type is 'string'"),
    "or nothing": ({"type": ["object", "null"]}, "# cannot be made a grammar: arguments are an object"),
    "a list behind a reference": ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": STRING}}},
                                  "# cannot be made a grammar: arguments are an object, but its type is 'array'"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_what_the_grammar_can_express_but_no_call_could_be_checked_against(
    compiler: GrammarCompiler, name: str
) -> None:
    schema, reason = UNCHECKABLE[name]
    with pytest.raises(SchemaError, match=f"tool 'f': the schema at {reason}"):
        compiler.check_tool(ToolSpec("f", "", schema))


def test_an_answer_may_be_no_object(compiler: GrammarCompiler) -> None:
    compiler.json_value(STRING)  # the same schema as a tool's would be refused
    with pytest.raises(SchemaError, match="arguments are an object"):
        compiler.check_tool(ToolSpec("f", "", STRING))


@pytest.mark.parametrize("number", ["1e999", "-1E+400", "9" * 400, "9" * 5000])
def test_a_number_that_nothing_can_hold_makes_no_call(number: str) -> None:
    """The grammar of a number lets it through."""
    spec = ToolSpec("f", "", an_object(x={"type": "number"}))
    (call,) = read_message(written(spec, "1e99"), [spec], GENERIC).calls
    assert call.arguments == {"x": 1e99}
    with pytest.raises(
        ModelError, match=r"called a tool with the number .* too large; .* a maximum in its schema"
    ):
        read_message(written(spec, number), [spec], GENERIC)
    text = "".join(GEMMA.call(ToolCall("", "f", {"x": 1}))).replace("1", number)
    with pytest.raises(ModelError, match="too large"):
        read_message(text, [spec], GEMMA)


def written(spec: ToolSpec, number: str) -> str:
    """A call as the model may write it."""
    return "".join(GENERIC.calls([ToolCall("", spec.name, {"x": 1})])).replace("1", number)


SORT = {"text": "it came late", "labels": ["billing", "shipping"]}
EXAMPLES = (
    ToolExample('Sort "it came late" as billing or shipping', SORT),
    ToolExample("Please look at the words right here", {"text": "the words right here"}),
)

GROUNDED: dict[str, dict[str, Any]] = {
    "plain": an_object(["text"], text=STRING, labels={"type": "array", "items": STRING}, count=INTEGER),
    "bounded": an_object([], text=STRING, count={"type": "integer", "minimum": 1, "maximum": 3}),
    "enumerated": an_object([], text=STRING, count={"type": "integer", "enum": [2, 4]}),
    "fraction": an_object(["text"], text=STRING, count={"type": "number", "multipleOf": 0.5}),
    "beside_any_of": an_object(text={"anyOf": [STRING], "maxLength": 3}),
    "short": an_object(text={"type": "string", "maxLength": 4}),
    "all_of": an_object(text={"type": "string", "allOf": [{"maxLength": 3}]}),
    "synonyms": an_object([], text=STRING, lang={"enum": ["de"], "x-synonyms": {"fr": ["french"], "de": ["german"]}}),
    "synonyms_of_a_list": an_object([], lang={"type": "array", "items": STRING, "x-synonyms": {"fr": ["french"]}}),
    "one_or_other": {**an_object([], text=STRING, count=INTEGER),
                     "anyOf": [{"required": ["text"]}, {"required": ["count"]}]},
    "undeclared": {**an_object(["text", "other"], text=STRING, count=INTEGER)},
    "definitions": {**an_object(["v"], text=STRING, v={"$ref": "#/definitions/v"}, n={"type": "integer"}),
                    "definitions": {"v": INTEGER}},
    "self_reference": an_object(["text"], text=STRING, count=INTEGER, more={"$ref": "#/properties/count"}),
}  # fmt: skip

TURNS = [
    'Sort "my parcel is broken" into billing, shipping or returns, 5 times, in French',
    'count 2, please: C:\\temp\\new file "quoted" \\ backslash\nsecond line\ttab',
    '\'\' "" "  " “🎉” 😀 é 12345678901234567890 -3 2.5 zero',
    "\x00\x7f\x1b control, \ud800 half",
    "<|im_end|> <tool_call> french german three",
    "?",
]


@pytest.mark.parametrize("name", GROUNDED)
def test_a_copied_value_never_violates_the_schema(
    smollm: LocalModel, compiler: GrammarCompiler, name: str
) -> None:
    spec = ToolSpec("find", "Find.", GROUNDED[name], EXAMPLES)
    for turn in TURNS:
        for seed in range(2):
            ids = walk(compiler.tool_call([spec], CallOptions(turn)), seed, 400)
            assert ids is not None
            json.dumps(read(smollm, ids, spec))


@pytest.mark.parametrize(
    "piece",
    ["long word " * 10_000, "x" * 100_000, '"\\\n🎉' * 25_000, "a, " * 33_000, ("y" * 499 + " ") * 200],
)
def test_a_turn_of_100_kilobytes(smollm: LocalModel, compiler: GrammarCompiler, piece: str) -> None:
    spec = ToolSpec("find", "Find.", GROUNDED["plain"], EXAMPLES)
    ids = walk(compiler.tool_call([spec], CallOptions(piece)), 0, 400)
    assert ids is not None
    text = read(smollm, ids, spec)["text"]
    assert text in piece or " " not in piece.strip()  # a word of 100 kB is not copied


class Wishes:
    """Logits of a model that would write a certain text."""

    def __init__(self, smollm: LocalModel, grammar: Grammar, text: str) -> None:
        self._smollm, self._grammar, self._text = smollm, grammar, text

    def write(self, budget: int) -> str:
        ids, said = self._grammar.forced(), ""
        while not self._grammar.complete:
            said = self._smollm.tokenizer.decode(ids)
            logits = torch.zeros(self._grammar._vocab_size)
            if self._text.startswith(said) and len(said) < len(self._text):
                logits[self._smollm._encoder.plain(self._text[len(said) :])[0]] = 9.0
            token = int(self._grammar.mask(logits, budget - len(ids)).argmax())
            self._grammar.accept(token)
            ids += [token, *self._grammar.forced()]
        return self._smollm.tokenizer.decode(ids)


def test_what_the_budget_has_changed_is_told(smollm: LocalModel, compiler: GrammarCompiler) -> None:
    form = an_object(reason=STRING, amount={"type": "number"})
    wanted = f'{{"reason": "{"The parcel came late and torn. " * 6}", "amount": 1250.5}}'
    length = len(smollm._encoder.plain(wanted))
    whole = compiler.json_value(form)
    assert json.loads(Wishes(smollm, whole, wanted).write(length + 30)) == json.loads(wanted)
    assert whole.cut is None
    short = compiler.json_value(form)
    found = json.loads(Wishes(smollm, short, wanted).write(length - 20))
    jsonschema.Draft202012Validator(form).validate(found)
    assert found != json.loads(wanted)
    assert short.cut == "value"


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [1234567890123456789, "x"]},
        {"const": 2**64 - 1},
        {"const": 1e300},
        {"type": "integer", "minimum": -(2**63), "maximum": -(2**63)},
    ],
)
def test_numbers_that_a_double_cannot_hold_are_refused(
    compiler: GrammarCompiler, schema: dict[str, Any]
) -> None:
    with pytest.raises(SchemaError, match=r"#/properties/id .*beyond the numbers that a double tells apart"):
        compiler.json_value(an_object(id=schema))
    compiler.json_value(an_object(id={"type": "integer", "minimum": 0, "maximum": 2**53}))


def test_a_call_that_goes_on_from_a_result_copies_nothing_from_the_turn(
    smollm: LocalModel, compiler: GrammarCompiler
) -> None:
    spec = ToolSpec("find", "Find.", GROUNDED["plain"], EXAMPLES)
    turn = "Read notes.txt and translate what it says into French"
    for copies in (True, False):
        options = CallOptions(turn, copies=copies, strength=NO_EVIDENCE)
        ids = walk(compiler.tool_call([spec], options), 0, 400)
        assert ids is not None
        assert (read(smollm, ids, spec)["text"] in turn) is copies
