"""What a turn offers the parameters of a tool."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentkit.errors import SchemaError
from agentkit.llm.arguments import argument_rules
from agentkit.llm.grounding import PATH, Source, copied_parameters, mentions, paths, sources
from agentkit.llm.routing import _mention_evidence, _payload_evidence
from agentkit.messages import ToolExample, ToolSpec

LANGUAGES = {"fr": ["french", "français"], "de": ["german"]}
PROPERTIES: dict[str, Any] = {
    "text": {"type": "string"},
    "labels": {"type": "array", "items": {"type": "string"}},
    "image": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "name": {"type": "string"},
    "epochs": {"type": "integer", "minimum": 1, "maximum": 20},
    "target": {"type": "string", "x-synonyms": LANGUAGES},
}
EXAMPLES = (
    ToolExample(
        'Sort "my parcel came late" as billing or shipping',
        {"text": "my parcel came late", "labels": ["billing", "shipping"]},
    ),
    ToolExample("Look at photos/cat.jpg and call it kitty", {"image": "photos/cat.jpg", "name": "kitty"}),
)
TOOL = ToolSpec("t", "", {"type": "object", "properties": PROPERTIES, "required": ["text"]}, EXAMPLES)


def test_what_is_copied_is_learnt_from_the_examples() -> None:
    assert copied_parameters(TOOL) == {"text": "text", "labels": "list", "image": "path", "name": "word"}
    bare = ToolSpec("t", "", TOOL.parameters)
    assert copied_parameters(bare) == {}


@pytest.mark.parametrize(
    ("turn", "values"),
    [
        ('Sort "it broke" please', ("it broke",)),
        ("Sort “it broke” please", ("it broke",)),
        ("Sort «it broke» and 'so what'", ("it broke", "so what")),
        ("Sort this: it broke, didn't it?", ("it broke, didn't it?",)),
        ("Sort this\nit broke\non Monday", ("it broke\non Monday",)),
        ('Say "it broke" and "it broke"', ("it broke",)),
    ],
)
def test_a_text_that_is_set_off_is_taken_whole(turn: str, values: tuple[str, ...]) -> None:
    assert sources(TOOL, turn)["text"] == Source(values)


@pytest.mark.parametrize("turn", ["Sort it broke", 'Sort "   "', "word " * 6_000 + '"quoted"'])
def test_any_words_will_do_where_nothing_is_set_off(turn: str) -> None:
    source = sources(TOOL, turn)["text"]
    assert source.values == ()
    assert source.pieces
    assert all(piece in turn and '"' not in piece for piece in source.pieces)


@pytest.mark.parametrize(
    ("turn", "labels"),
    [
        ("Is that billing, shipping or returns", ["billing", "shipping", "returns"]),
        ("Sort it (good, bad, so so)", ["good", "bad", "so so"]),
        ('Sort "too dear". Topics: price, quality', ["price", "quality"]),
    ],
)
def test_enumerations_become_lists(turn: str, labels: list[str]) -> None:
    source = sources(TOOL, turn)["labels"]
    assert (source.values, source.wanted) == ((labels,), True)


def test_an_optional_list_is_left_out_where_nothing_is_listed() -> None:
    assert sources(TOOL, "Sort it broke")["labels"] == Source()


@pytest.mark.parametrize(
    ("turn", "image"),
    [
        ("What is on photos/dog.png?", ("photos/dog.png",)),
        ("Compare ./a.jpeg and ~/b.gif", ("./a.jpeg", "~/b.gif")),
        ("What is on it?", ()),
        ("C:\\pictures\\me.jpg", ("\\pictures\\me.jpg",)),
    ],
)
def test_paths(turn: str, image: tuple[str, ...]) -> None:
    assert sources(TOOL, turn)["image"].values == image


def test_a_word_after_its_cue() -> None:
    assert sources(TOOL, "Train a model and call it rex-2.0, ok?")["name"] == Source(
        ("rex-2.0",), wanted=True
    )
    assert "name" not in sources(TOOL, "Train it") or sources(TOOL, "Train it")["name"] == Source()


@pytest.mark.parametrize(
    ("turn", "epochs", "wanted"),
    [
        ("Train 5 epochs", (5,), True),
        ("Train epochs 7", (7,), True),
        ("Train three epochs", (3,), True),
        ("Train it 4 times or 6", (4, 6), False),
        ("Train 500 epochs", (), False),
        ("Train 2.5 epochs", (), False),
        ("Train 1,000 epochs", (), False),
        ("Train 3,5 epochs", (), False),
        ("Train it on v2.txt", (), False),
        ("9" * 5000, (), False),
        (f"Train epochs {'9' * 400}.5", (), False),
    ],
)
def test_numbers_are_offered_where_the_schema_allows_them(
    turn: str, epochs: tuple[int, ...], wanted: bool
) -> None:
    source = sources(TOOL, turn)["epochs"]
    assert (source.values, source.wanted) == (epochs, wanted)


def test_a_number_is_read_with_its_thousands() -> None:
    steps = {"type": "object", "properties": {"steps": {"type": "integer"}}}
    tool = ToolSpec("train", "Train.", steps, (ToolExample("Train 5 steps", {"steps": 5}),))
    assert sources(tool, "train for 1,000 steps")["steps"] == Source((1000,), wanted=True)
    assert sources(tool, "show 2,500 rows and 1.5")["steps"].values == (2500,)


def test_synonyms() -> None:
    assert mentions(LANGUAGES, "In German or en Français?") == ("fr", "de")
    assert mentions(LANGUAGES, "Germany") == ()
    for wrong in (["a"], {"FR": None}, {"FR": "French"}, {"FR": [1]}):
        with pytest.raises(SchemaError, match="x-synonyms gives each value a list of its names"):
            mentions(wrong, "what is vitamin c please")  # type: ignore[arg-type]


def test_objects_within_are_closed_whatever_is_copied() -> None:
    to = {"type": "object", "properties": {"zip": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "to": to},
        "required": ["text", "to"],
    }
    for found in ({}, {"text": Source(("x",))}):
        assert (
            '"additionalProperties": false' in "\n".join(argument_rules("a", schema, found)).split('"zip"')[0]
        )
    assert sources(TOOL, "into French")["target"].values == ("fr",)
    assert "target" not in sources(TOOL, "into Klingon")


def test_a_conditioned_string_is_not_copied() -> None:
    for condition in ({"maxLength": 3}, {"pattern": "^a"}, {"enum": ["a"]}, {"allOf": [{"minLength": 2}]}):
        schema = {"type": "object", "properties": {**PROPERTIES, "text": {"type": "string", **condition}}}
        assert "text" not in copied_parameters(ToolSpec("t", "", schema, EXAMPLES))


@pytest.mark.parametrize(
    "part", ["x", "a, ", "'a ", ": ", "[", "a.", "1", "-", "call it ", "“", "/", "it or "]
)
def test_long_turns_take_no_quadratic_time(part: str) -> None:
    started = time.thread_time()
    sources(TOOL, part * (100_000 // len(part)))
    assert time.thread_time() - started < 5


def test_paths_are_found_within_text() -> None:
    text = "see (docs/a.md), 'b c.txt' or https://x.org/d.html; v1.2.3 and end."
    assert PATH.findall(text) == ["docs/a.md", "c.txt", "//x.org/d.html"]


ANYTHING: dict[str, Any] = {
    "x": True,
    "no": False,
    "either": {"anyOf": [True, {"type": "null"}]},
    "list": {"type": "array", "items": True},
    "text": {"type": "string"},
}


def test_schemas_that_say_nothing() -> None:
    """`true` and `false` are schemas too, and what is required need not be a property."""
    text, turn = "a big black cat", "Draw 'a small white dog'"
    example = ToolExample(f"Draw '{text}'", {"x": text, "either": text, "list": [text], "text": text})
    spec = ToolSpec("t", "", {"properties": ANYTHING, "required": ["x", "nowhere"]}, (example,))
    found = sources(spec, turn)
    assert copied_parameters(spec) == {"text": "text"}
    assert found == {"text": Source(("a small white dog",))}
    assert (_mention_evidence(turn, spec), _payload_evidence(turn, spec)) == (0, 1)
    rules = argument_rules("a", {"properties": ANYTHING, "required": ["x"]}, found)
    assert rules[0] == 'a: "{" a_first0 "}"'
    assert any(rule.startswith("a_value0: %json {") for rule in rules)
    assert not any('"no"' in rule for rule in rules)


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        (
            "What is this?\nImage: /home/ann/My Pictures/photo (1).jpg",
            ("/home/ann/My Pictures/photo (1).jpg",),
        ),
        ("Describe 'My Photos/cat 1.jpg' please", ("My Photos/cat 1.jpg",)),
        ('Describe "C:\\My Photos\\cat.jpg"', ("C:\\My Photos\\cat.jpg",)),
        ("Describe a/b.png and 'c d.png'", ("c d.png", "a/b.png")),
        ("Say 'hello there' about cat.jpg", ("cat.jpg",)),
    ],
)
def test_a_file_that_is_set_apart_is_taken_whole(turn: str, found: tuple[str, ...]) -> None:
    assert paths(turn) == found
    assert sources(TOOL, f"{turn}")["image"].values == found


@pytest.mark.parametrize(
    ("turn", "texts"),
    [
        ('Sort this: He said "it broke" and left', ('He said "it broke" and left', "it broke")),
        ('Sort this:\nThe "blue" lamp broke', ('The "blue" lamp broke', "blue")),
        ("Labels: a, b. Text: 'it broke'", ("it broke",)),
        ('Sort "it broke" as: a or b', ("it broke",)),
    ],
)
def test_a_text_that_quotes_is_no_less_a_text(turn: str, texts: tuple[str, ...]) -> None:
    assert sources(TOOL, turn)["text"].values == texts


ORDER = ToolSpec(
    "order_status",
    "",
    {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    (
        ToolExample("Where is order 1042?", {"order_id": "1042"}),
        ToolExample("Has my parcel 2077 left?", {"order_id": "2077"}),
    ),
)


def test_what_follows_a_cue_looks_like_the_examples_values() -> None:
    assert sources(ORDER, "Where is order 77 now?")["order_id"].values == ("77",)
    assert "order_id" not in sources(ORDER, "My order hasn't arrived. It is 1042.")
    assert "order_id" not in sources(ORDER, "I want to know where my order is\n1042")
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    examples = (
        ToolExample("Weather in Oslo?", {"city": "Oslo"}),
        ToolExample("Is it dry in Bergen?", {"city": "Bergen"}),
    )
    weather = ToolSpec("weather", "", city, examples)
    assert sources(weather, "What is the weather in New York like?")["city"].values == ("New York",)
    assert sources(weather, "Will it rain in oslo?")["city"].values == ("oslo",)
    assert "city" not in sources(weather, "Will it rain in the morning?")
