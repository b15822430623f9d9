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
