"""The dialogues of the shipped adapter's recipe: every line is one that `agentkit finetune` accepts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import calls
import domains
import pytest
import values

from agentkit.training.data import load_chats

FUNCTIONS = domains.load()


def test_there_are_many_functions_of_many_domains() -> None:
    assert len(FUNCTIONS) > 400
    assert len({function.domain for function in FUNCTIONS}) == 48


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: f"{function.domain}.{function.name}")
def test_what_is_asked_for_is_there(function: domains.Function) -> None:
    required = [name for name, param in function.params.items() if not param.get("optional")]
    for ask in [*function.ask, *function.many]:
        said, made = function.fill(ask, Random(0))
        assert "{" not in said.replace("{}", ""), said
        assert all(name in arguments for arguments in made for name in required), said
        assert len(made) == ask.calls()
    assert all(len(function.fill(ask, Random(0))[1]) > 1 for ask in function.many)
    assert set(function.missing) <= set(function.leaves)


def test_all_kinds_of_dialogue_are_lines_that_training_accepts(tmp_path: Path) -> None:
    made = list(calls.examples(0, 150))
    path = tmp_path / "data.jsonl"
    lines = (json.dumps(example.to_json(), ensure_ascii=False) + "\n" for example in made)
    path.write_text("".join(lines), encoding="utf-8")
    assert len(load_chats(path)) == len(made)
    kinds = Counter(example.kind for example in made)
    assert set(kinds) == set(calls.KINDS)
    several = [e for e in made if e.kind == "both" and len(e.messages[-1].get("tool_calls", ())) > 1]
    assert several
    assert all(not e.messages[-1].get("tool_calls") for e in made if e.kind in ("none", "ask_back", "reply"))


def test_a_seed_gives_the_same_dialogues() -> None:
    assert list(calls.examples(3, 4)) == list(calls.examples(3, 4))
    assert list(calls.examples(3, 4)) != list(calls.examples(4, 4))


@pytest.mark.parametrize(
    ("kind", "type_"),
    [("int:1-9", int), ("float:-2-3:1", (int, float)), ("date", str), ("list:food:2-3", list), ("rate:1-9", float),
     ("id:A-##", str), ("list:id:A-##:2-2", list), ("list:int:1-9:3-3", list)],
)  # fmt: skip
def test_values_are_of_their_kind(kind: str, type_: type) -> None:
    for seed in range(20):
        assert isinstance(values.draw(kind, Random(seed)).called, type_)


def test_unknown_kinds_are_refused() -> None:
    for kind in ("citty", "int:1", "list:citty:1-2"):
        with pytest.raises(ValueError, match="no such kind of value"):
            values.draw(kind, Random(0))
