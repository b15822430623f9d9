"""The dialogues of the shipped adapter's recipe: every line is one that `agentkit finetune` accepts."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from types import ModuleType

import calls
import domains
import make_adapter
import passages
import pytest
import values
from jsonschema import Draft202012Validator
from schemas import DATES, Manner, arguments_of, tool_of

from agentkit.training.data import load_chats

FUNCTIONS = domains.load()
TOGETHER = domains.load_together(FUNCTIONS)
PLAIN = Manner("snake", "schema", "both", descriptions=True, strict=True)


def test_there_are_many_functions_of_many_domains() -> None:
    assert len(FUNCTIONS) > 800
    assert len({function.domain for function in FUNCTIONS}) > 90
    assert len(TOGETHER) > 800


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


@pytest.mark.parametrize("domain", sorted({message.domain for message in TOGETHER}))
def test_messages_for_several_functions_ask_for_whole_calls(domain: str) -> None:
    for message in TOGETHER:
        if message.domain != domain:
            continue
        assert len(message.names) > 1, message.say
        for seed in range(3):
            said, made = message.fill(Random(seed))
            assert "{" not in said.replace("{}", ""), said
            assert len(made) == len(message.calls)
            for function, arguments in made:
                schema = tool_of(function, PLAIN)["function"]["parameters"]
                Draft202012Validator(schema).validate(arguments)


def test_two_lists_are_every_value_with_every_other() -> None:
    (function,) = (f for f in FUNCTIONS if f.name == "search_flights")
    ask = domains.Ask(
        "From {origin} and {origin~2} to {destination} and {destination~2} on {date}",
        {},
        ("origin", "destination"),
    )
    _, made = function.fill(ask, Random(1))
    assert len(made) == ask.calls() == 4
    assert len({(call["origin"], call["destination"]) for call in made}) == 4
    assert [call["origin"] for call in made[:2]] == [made[0]["origin"]] * 2
    assert len({call["date"] for call in made}) == 1


@pytest.mark.parametrize("dates", list(DATES))
def test_a_day_is_written_as_the_schema_says(dates: str) -> None:
    (function,) = (f for f in FUNCTIONS if f.name == "search_flights")
    style = replace(PLAIN, dates=dates)
    described = tool_of(function, style)["function"]["parameters"]["properties"]["date"]["description"]
    assert dates in described
    written = arguments_of({"origin": "2024-05-31", "date": "2024-05-31"}, function.params, style)
    pieces = {"YYYY": "2024", "MM": "05", "DD": "31"}
    assert written == {"origin": "2024-05-31", "date": re.sub("YYYY|MM|DD", lambda m: pieces[m[0]], dates)}


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


@pytest.fixture
def finetuning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of fine-tuning, which learns from the recipe's dialogues."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("finetuning")


def test_the_benchmark_learns_from_the_same_dialogues(finetuning: ModuleType) -> None:
    made = [example.to_json() for example in calls.examples(finetuning.SEED, 6)]
    assert list(islice(finetuning.traces("shared"), len(made))) == made


def test_the_benchmark_keeps_other_traces_of_the_same_machine_only(
    finetuning: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "finetuning.json"
    shared = {"machine": {"threads": 2}, "rows": 9, "traces": {"shared": 1}}
    own = {**shared, "traces": {"own": 2}}
    assert finetuning.beside_others(own, path) == own
    path.write_text(json.dumps(shared), encoding="utf-8")
    assert finetuning.beside_others(own, path)["traces"] == {"shared": 1, "own": 2}
    for changes in ({"machine": {"threads": 4}}, {"rows": 8}):
        assert finetuning.beside_others({**own, **changes}, path) == {**own, **changes}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Of a small recipe, whose chats no model has to answer."""

    def replies(seed: int, count: int) -> Iterator[domains.Json]:
        for n in range(count):
            said = {"role": "user", "content": f"Number {n % 40}?"}, {"role": "assistant", "content": str(n)}
            yield {"messages": list(said), "keep": True}

    monkeypatch.setattr(make_adapter, "replies", replies)
    return argparse.Namespace(scenes=150, judgements=1200, conversations=300, chats=80, build=tmp_path)


def shown(example: domains.Json, known: dict[str, str]) -> Iterator[str]:
    """What a dialogue is over: its tools, or else its prompt, the passage judged, and all passages that are known."""
    said = [message["content"] for message in example["messages"] if message["role"] == "user"]
    if example.get("tools"):
        yield json.dumps(example["tools"])
    else:
        yield said[0].rpartition("\n\nQuestion: ")[0] or said[0]
    yield from (name for text, name in known.items() if any(text in words for words in said))


def test_what_is_held_out_shares_no_tools_and_no_passage_with_what_is_trained(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_adapter, "HELD_OUT_EVERY", 10)
    path = options.build / "data.jsonl"
    count = make_adapter.write(path, options)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count > 1_000
    known = {row["text"]: row.get("pair", row["text"]) for row in passages.written_rows()}
    sides: dict[str, set[str]] = {"train": set(), "validation": set()}
    for row in rows:
        sides[row["split"]].update(shown(row, known))
    assert min(map(len, sides.values())) > 30
    assert not sides["train"] & sides["validation"]


def test_later_stages_hold_out_the_same(options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_adapter, "HELD_OUT_EVERY", 10)
    stages: list[dict[str, set[str]]] = []
    for stage in make_adapter.STAGES:
        path = options.build / f"{stage.number}.jsonl"
        make_adapter.write(path, options, stage)
        sides: dict[str, set[str]] = {"train": set(), "validation": set()}
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            sides[row.pop("split")].add(json.dumps(row))
        stages.append(sides)
    first, *later = stages
    for stage, sides in zip(make_adapter.STAGES[1:], later, strict=True):
        assert sides["validation"] >= first["validation"]
        assert (sides["validation"] > first["validation"]) == bool(stage.written)
        assert not sides["train"] & sides["validation"]
        assert not sides["train"] & first["validation"]
    fresh = later[-1]["train"] - first["train"]
    judged = [row for row in fresh if json.loads(row)["messages"][-1]["content"] in ("Yes", "No")]
    assert options.judgements / 3 < len(judged) < len(fresh)


def test_chats_are_asked_for_anew_where_the_prompts_have_changed(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = options.build / "prompts.yaml"
    monkeypatch.setattr(make_adapter, "SOURCES", (source,))
    source.write_text("whole: []", encoding="utf-8")
    before = make_adapter.chats(options)
    assert make_adapter.chats(options) == before
    source.write_text("whole: [Hello?]", encoding="utf-8")
    assert make_adapter.chats(options) != before


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


def test_a_resumed_run_is_told_as_one(tmp_path: Path) -> None:
    stage = make_adapter.STAGES[0]
    folder = stage.folder(tmp_path)
    (folder / "adapter").mkdir(parents=True)
    card = {"examples": 9, "steps": 30, "seconds": 7.5, "loss_before": 1.0, "loss_after": 0.5, "cut": 0}
    (folder / "adapter" / make_adapter.CARD).write_text(json.dumps(card), encoding="utf-8")
    steps = [*range(1, 26), *range(21, 31)]  # killed after the 25th, resumed from the 20th
    lines = [
        {"step": step, "steps": 30, "loss": float(n >= 25) if step > 20 else 2.0}
        for n, step in enumerate(steps)
    ]
    lines = [{"step": 31, "steps": 40, "loss": 9.0}, *lines]  # of a run by other settings
    (folder / "progress.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    told = make_adapter.told(stage, tmp_path)
    assert told.pop("loss") == [2.0, 1.0]
    assert told.items() >= {key: value for key, value in card.items() if key != "cut"}.items()
    assert (told["number"], told["learning_rate"]) == (1, stage.learning_rate)
    assert [line["step"] for line in make_adapter.progress(stage, tmp_path)] == [*range(1, 31)]
