"""Nothing that an evaluation asks stands in the training data: runs of words are looked for in both."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import calls
import domains
import passages
import pytest
from recipe_texts import (
    GRAM,
    ROOT,
    calling_texts,
    chat_texts,
    reading_texts,
    runs,
    strings,
    words,
    written_texts,
)

LEADERBOARD = importlib.util.find_spec("bfcl_eval")
SEED, SCENES = 6, 60
ALL = {"scenes": 1300, "judgements": 6000, "conversations": 600}
"""Of each as many as the recipe makes."""
EVERYBODYS = {
    *(
        "coefficient of x 2",
        "day of the week",
        "height of the cone",
        "radius of the circle",
        "width of the rectangle",
    ),
    *(f"name of the {thing}" for thing in ("artist", "company", "country", "game", "show")),
    *("tell me a joke", "what can you do", "you are a helpful assistant"),
}
"""Short texts that recipe and leaderboard share: descriptions of parameters, and what everybody asks an assistant."""
DATA = ROOT / "tests" / "data"


def leaderboard_texts() -> Iterator[str]:
    """Every question, description, value and right answer of every category of bfcl-eval, unused ones included.

    Names of functions are left out as runs of words are compared: ``get_weather`` is nobody's.
    """
    assert LEADERBOARD is not None
    assert LEADERBOARD.origin is not None
    for path in sorted((Path(LEADERBOARD.origin).parent / "data").rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        try:
            yield from strings(json.loads(text))
        except ValueError:  # most are JSON lines, a few unused ones one object over many lines
            for line in text.split("\n"):
                if line.strip():
                    yield from strings(json.loads(line))


def made_texts() -> Iterator[str]:
    """Dialogues as the recipe makes them, with their values filled in and their tools described."""
    for example in calls.examples(SEED, SCENES):
        yield from strings(example.to_json())


def filled_texts() -> Iterator[str]:
    """Every way of asking, with values in its slots: one that is a number goes on a run where the slot ends it."""
    functions = domains.load()
    for function in functions:
        for ask in (*function.ask, *function.many, *function.partial, *function.near):
            yield function.fill(ask, Random(SEED))[0]
    for message in domains.load_together(functions):
        yield message.fill(Random(SEED))[0]


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, ...], str]:
    """Runs of words of all that the recipe learns from."""
    called = [*calling_texts(), *filled_texts(), *made_texts(), *written_texts()]
    found = runs([*reading_texts(), *chat_texts(), *called])
    assert len(found) > 200_000
    return found


@pytest.mark.skipif(LEADERBOARD is None, reason="pip install --no-deps bfcl-eval")
def test_nothing_is_taken_from_the_leaderboard(trained: dict[tuple[str, ...], str]) -> None:
    tested = runs(leaderboard_texts())
    assert len(tested) > 100_000
    assert not {" ".join(gram): (trained[gram], tested[gram]) for gram in trained.keys() & tested.keys()}


@pytest.mark.slow
@pytest.mark.skipif(LEADERBOARD is None, reason="pip install --no-deps bfcl-eval")
def test_no_dialogue_of_the_whole_recipe_shares_anything_with_the_leaderboard() -> None:
    """But for what anybody would write in four to seven words."""
    dialogues = (example.to_json() for example in calls.examples(SEED, ALL["scenes"]))
    read = (
        *(example for _, example in passages.grouped_judgements(SEED, ALL["judgements"])),
        *(example for _, example in passages.grouped_conversations(SEED, ALL["conversations"])),
    )
    made = set(strings([*dialogues, *read]))
    asked = set(leaderboard_texts())
    assert len(made) > 40_000
    assert not runs(made).keys() & runs(asked).keys()
    short = {text for text in (tuple(words(text)) for text in asked) if 4 <= len(text) < GRAM}
    assert {" ".join(text) for text in short & {tuple(words(text)) for text in made}} == EVERYBODYS


def test_nothing_of_our_own_evaluations_is_trained(trained: dict[tuple[str, ...], str]) -> None:
    """Of any file but messages.jsonl, all of which is there to tune by."""
    files = {file for file in DATA.glob("*.jsonl") if file.stem != "messages"}
    assert len(files) == 6
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    tested = runs(strings([json.loads(line) for line in lines]))
    assert len(tested) > 6_000
    assert not {" ".join(gram): (trained[gram], tested[gram]) for gram in trained.keys() & tested.keys()}


def test_no_prompt_of_plain_conversation_is_evaluated() -> None:
    """Most are shorter than a run."""
    rows = [json.loads(line) for line in (DATA / "plain_chat.jsonl").read_text(encoding="utf-8").splitlines()]
    prompts = {text.lower() for text in chat_texts()}
    assert len(prompts) > 500
    assert not prompts & {row["text"].lower() for row in rows}
