"""Base and adapter through the same cases: what is asked, and with the real model that it is compared rightly."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from adapter_files import write_adapter
from numpy.typing import NDArray

from agentkit import __about__, build, gate
from agentkit.build import open_project
from agentkit.build import workspace as wiring
from agentkit.errors import ModelError, UsageError
from agentkit.evaluation.regression import read_cases
from agentkit.evaluation.suite import Scores
from agentkit.gate import ANSWERS, CALLS, HELD, ROUTING, Side, judge
from agentkit.llm.local import LocalModel
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import ToolCall
from agentkit.project import suites_dir
from agentkit.training import adapters
from agentkit.training.adapters import HELD_OUT
from agentkit.training.gate import read_gate

BASE = "smollm2-135m"
STARTER = ("classifier", "ner", "translator", "captioner", "finetune")
CARD = {"base": BASE, "data": "chats.jsonl", "data_sha256": "ab", "examples": 24, "duplicates": 0, "cut": 0,
        "epochs": 1, "steps": 6, "train_loss": 1.0, "loss_before": 2.0, "loss_after": 1.0, "seconds": 1.0,
        "created": "2025-01-01T00:00:00+00:00", "version": "0.1.0"}  # fmt: skip
CHATS = [
    [
        {"role": "user", "content": "Hello, who are you?"},
        {"role": "assistant", "content": f"A helper, {name}."},
    ]
    for name in ("Ada", "Bo", "Cleo", "Dan", "Eve")
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where adapters lie; none comes with agentkit here."""
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "adapters"


def put(folder: Path, name: str, model: LocalModel, size: float) -> Path:
    path = write_adapter(folder / name, model.hf_model, base=BASE, size=size)
    lines = (json.dumps({"messages": chat, "split": "test"}) for chat in CHATS)
    (path / HELD_OUT).write_text("\n".join(lines), encoding="utf-8")
    return path


def put_bare(folder: Path, name: str) -> Path:
    """An adapter without weights, for models that only say they have one."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (path / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (path / "agentkit.json").write_text(json.dumps(CARD), encoding="utf-8")
    lines = (json.dumps({"messages": chat}) for chat in CHATS)
    (path / HELD_OUT).write_text("\n".join(lines), encoding="utf-8")
    return path


def test_few_cases_are_of_all_kinds_and_always_the_same() -> None:
    few, every = read_cases(STARTER, 8, lacking=False), read_cases(STARTER, 10_000, lacking=False)
    assert few == read_cases(STARTER, 8, lacking=False)
    assert len({turn.route for turn in few.turns}) == 8
    assert len({(question.kind, question.near_miss) for question in few.questions}) == 6
    assert len({case.tool.name for case in few.calls}) == 8
    assert {case.split for case in (*every.turns, *every.questions, *every.calls)} == {"report"}
    assert not any(case.missing for case in every.calls)
    assert min(map(len, (every.turns, every.questions, every.calls))) >= 100


def test_where_the_model_decides_it_is_asked_about_missing_arguments_too() -> None:
    calls = read_cases(STARTER, 4, lacking=True).calls
    assert [bool(case.missing) for case in calls] == [False, True, False, True]


def scores(name: str, *right: bool) -> Scores:
    verdicts = {str(n): value for n, value in enumerate(right)}
    return Scores(name, len(right), {"a": sum(right) / len(right), "b": 1.0}, verdicts, {}, [])


def test_judging_what_came_of_both() -> None:
    base = Side(
        {ROUTING: scores(ROUTING, True, False), CALLS: scores(CALLS, True)}, [(5.0, 2)], {ANSWERS: "no index"}
    )
    own = Side({ROUTING: scores(ROUTING, True, True)}, [(4.0, 2)], {CALLS: "no memory"})
    parts = {part.name: part for part in judge(base, own, "")}
    assert {name: part.verdict for name, part in parts.items()} == {
        HELD: "better", ROUTING: "match", ANSWERS: "not run", CALLS: "worse"}  # fmt: skip
    assert parts[ANSWERS].remark == "no index"
    assert parts[CALLS].remark == "with the adapter it fails: no memory"
    assert parts[ROUTING].figures == {"a": [0.5, 1.0], "b": [1.0, 1.0]}
    none = judge(base, own, "none: too few chats")[0]
    assert (none.verdict, none.remark) == ("not run", "none: too few chats")


def test_a_report_counts_only_where_it_was_made_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_bare(folder, "shop")
    side = Side({name: scores(name, True) for name in (ROUTING, ANSWERS, CALLS)}, [(5.0, 2)])
    monkeypatch.setattr(gate, "_measure", lambda *given: (side, side, {}))
    with open_project() as workspace:
        gate.evaluate(workspace, "shop")
        before = workspace.settings
        penalty = before.sampling.model_copy(update={"repetition_penalty": 1.3})
        for change in ({}, {"quantize": "int8"}, {"tool_format": "llama3"}, {"sampling": penalty}):
            workspace.settings = before.model_copy(update={"model": BASE, **change})
            report, why = gate.standing(workspace, "shop")
            assert (report is None, "under another quantize, tool_format" in why) == (bool(change),) * 2
        workspace.settings = before
        monkeypatch.setattr(__about__, "__version__", "0.0.0")
        assert gate.standing(workspace, "shop")[0] is None


def test_the_suites_are_where_a_wheel_has_them() -> None:
    assert {path.name for path in suites_dir().glob("*.jsonl")} >= {
        "rag.jsonl",
        "routing.jsonl",
        "tools.jsonl",
    }
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("rag", "routing", "tools"):
        assert f'"tests/data/{name}.jsonl" = "agentkit/_starter/suites/{name}.jsonl"' in text


def test_how_likely_a_text_is(smollm: LocalModel, folder: Path) -> None:
    ids = smollm.encoder.plain("The shop opens at nine and closes at six. " * 30)[:300]
    found = smollm.log_probabilities(ids)  # in more than one part
    logits = smollm._loaded.forward_all(ids).log_softmax(-1)
    assert found == pytest.approx([float(logits[n, id]) for n, id in enumerate(ids[1:])], abs=1e-4)
    shop = put(folder, "shop", smollm, 0.1)
    assert smollm.log_probabilities(ids, adapter=str(shop)) != pytest.approx(found, abs=0.5)
    assert smollm.log_probabilities(ids) == found
    with pytest.raises(ModelError, match="the text has 9000 tokens"):
        smollm.log_probabilities([1] * 9000)


class Words:
    """Bags of words as unit vectors."""

    name, dimension = "words", 64

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[int(hashlib.md5(word.encode()).hexdigest(), 16) % 64] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Talker(ScriptedModel):
    """Says one sentence to everything; with an adapter it is sure of nothing and calls no more."""

    context_length = 100

    def __init__(self) -> None:
        super().__init__([])
        self.adapter = "none"
        self.encoder = SimpleNamespace(without_memory=lambda: SimpleNamespace(encode=self._encode))

    def use_adapter(self, spec: str) -> None:
        self.adapter = spec

    def info(self) -> dict[str, Any]:
        return {"quantization": "int4", "device": "cpu", "parameters": 10}

    def _encode(self, messages: Sequence[Any], tools: Sequence[Any], generation_prompt: bool) -> Any:
        ids = [sum(message.content.encode()) for message in messages]
        return SimpleNamespace(ids=[0, *ids], assistant=[False] * len(ids) + [True])

    def log_probabilities(self, ids: Sequence[int]) -> list[float]:
        return [-1.0 if self.adapter == "none" else -2.0] * (len(ids) - 1)

    def stream(self, messages: Any, *, tools: Any = (), tool_choice: Any = "auto", **options: Any) -> Any:
        if tool_choice == "required" and self.adapter != "none":
            raise ModelError("it has forgotten how to call")
        self._steps = (
            [options["choices"][0]] if options.get("choices") else ["You can write to us at any time."]
        )
        if tool_choice == "required":
            self._steps = [ToolCall("c", tools[0].name, {})]
        return super().stream(messages, **options)


def test_both_go_through_every_suite_and_leave_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the wiring, over a model that answers at once."""
    model, told = Talker(), list[str]()
    monkeypatch.setattr(wiring, "load_model", lambda name, **options: model)
    for module in (build, wiring):
        monkeypatch.setattr(module, "load_embedder", lambda *name: Words())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = put_bare(folder, "shop")
    with open_project() as workspace:
        report = gate.evaluate(workspace, "shop", limit=6, progress=told.append)
    held, routing, answers, calls = report.parts
    assert (held.verdict, held.base, held.adapter, held.cases) == ("worse", 1.0, 2.0, 5)
    assert (routing.verdict, routing.cases, answers.verdict, answers.cases) == ("match", 6, "match", 6)
    assert set(answers.figures) >= {"hit@3", "right"}
    assert (calls.verdict, "forgotten how to call" in calls.remark) == ("worse", True)
    assert report.run == {
        "tool calls": "required",
        "decided by": "auto",
        "quantization": "int4",
        "device": "cpu",
    }
    assert "smollm2-135m without it: answers 6 of 6" in " ".join(told)
    assert read_gate(path) == report
    assert not list(tmp_path.glob("agentkit-gate-*"))
    assert not (folder.parent / "projects").exists()
    model.adapter = "none"

    def refuse(spec: str) -> None:
        raise UsageError("it has to be merged")

    loaded: list[str] = []
    monkeypatch.setattr(model, "use_adapter", refuse)
    monkeypatch.setattr(
        wiring, "load_model", lambda name, **options: loaded.append(options["adapter"]) or model
    )
    with open_project() as workspace:
        report = gate.evaluate(workspace, "shop", limit=1)
    assert loaded == ["none", "shop"]  # one model after the other
    assert report.parts[0].verdict == "match"


@pytest.mark.slow
def test_a_comparison_with_the_embedded_model(smollm: LocalModel, folder: Path) -> None:
    put(folder, "quiet", smollm, 0.0)
    put(folder, "noisy", smollm, 0.3)
    told: list[str] = []
    with open_project() as workspace:
        same = gate.evaluate(workspace, "quiet", limit=3, progress=told.append)
        other = gate.evaluate(workspace, "noisy", limit=3)
    assert {part.name: (part.verdict, part.better, part.worse) for part in same.parts} == dict.fromkeys(
        (HELD, ROUTING, ANSWERS, CALLS), ("match", 0, 0)
    )
    assert [part.cases for part in same.parts] == [5, 3, 3, 3]
    assert same.passed
    assert other.parts[0].verdict == "worse"
    assert "held-out chats loss" in other.failures()
    assert not other.passed
    assert any(text.startswith("quiet: tool calls ") for text in told)
    assert not (folder.parent / "projects").exists()  # no store and no index of the user's has been opened
