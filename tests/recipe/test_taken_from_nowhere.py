"""Nothing that an evaluation asks stands in the training data: runs of words are looked for in both."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import calls
import domains
import pytest
from recipe_texts import ROOT, calling_texts, chat_texts, reading_texts, runs, strings, written_texts

LEADERBOARD = importlib.util.find_spec("bfcl_eval")
SEED, SCENES = 6, 60
PLAIN_CHAT = ROOT / "tests" / "data" / "plain_chat.jsonl"


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


@pytest.mark.skipif(LEADERBOARD is None, reason="pip install --no-deps bfcl-eval")
def test_nothing_is_taken_from_the_leaderboard() -> None:
    trained = runs([*reading_texts(), *calling_texts(), *chat_texts(), *made_texts(), *written_texts()])
    tested = runs(leaderboard_texts())
    assert len(trained) > 40_000
    assert len(tested) > 100_000
    assert not {" ".join(gram): (trained[gram], tested[gram]) for gram in trained.keys() & tested.keys()}


def test_nothing_of_plain_chat_is_trained() -> None:
    rows = [json.loads(line) for line in PLAIN_CHAT.read_text(encoding="utf-8").splitlines()]
    tested = runs(text for row in rows for text in (row["text"], row["answer"]))
    trained = runs([*reading_texts(), *calling_texts(), *chat_texts(), *written_texts()])
    assert len(tested) > 500
    assert not {" ".join(gram): (trained[gram], tested[gram]) for gram in trained.keys() & tested.keys()}
    prompts = {text.lower() for text in chat_texts()}
    assert len(prompts) > 500
    assert not prompts & {row["text"].lower() for row in rows}  # most are shorter than a run


def test_nothing_of_our_own_calls_is_trained() -> None:
    files = [ROOT / "tests" / "data" / f"{name}.jsonl" for name in ("tools", "several")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    tested = runs(strings([json.loads(line) for line in lines]))
    trained = runs([*calling_texts(), *filled_texts(), *made_texts(), *written_texts()])
    assert len(tested) > 1_500
    assert len(trained) > 15_000
    assert not {" ".join(gram): (trained[gram], tested[gram]) for gram in trained.keys() & tested.keys()}
