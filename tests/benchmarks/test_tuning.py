"""What weights are fitted on, and what is written of a fit."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import tune_abstention
import tune_routing

from agentkit.llm.adapters import AdapterFolder
from agentkit.retrieval.abstention import Abstention

DATA = Path(__file__).parents[1] / "data"


def test_what_asks_the_same_as_a_report_question_trains_nothing() -> None:
    twins = set()
    for name in ("knowledge_questions", "rag"):
        rows = map(json.loads, (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
        twins |= {row["question"] for row in rows if "same_as" in row}
    assert len(twins) > 100
    asked = tune_abstention.labelled()
    training = [question for question in asked if tune_abstention.trains(question)]
    assert not twins & {question["question"] for question in training}
    assert {question["file"] for question in training} == {"single", "rag"}
    assert {question["split"] for question in training} == {"tune", "stress"}
    routed = [turn for turn in tune_routing.questions() if tune_routing.trains(turn)]
    assert not twins & {turn["text"] for turn in routed}


KEYS = {"knowledge_questions": "question", "rag": "question", "routing": "text"}
"""What is asked, by file."""
ALIKE = 0.6
"""Words in common (Jaccard) from which on two texts are taken to ask the same."""


def texts(*, of_report: bool) -> list[tuple[str, bool]]:
    """What the reporting halves ask, or all others, and whether it is marked as asking the same."""
    rows = [
        (json.loads(line), key)
        for name, key in KEYS.items()
        for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [(row[key], "same_as" in row) for row, key in rows if (row["split"] == "report") == of_report]


def likeness(one: str, other: str) -> float:
    a, b = (set(re.findall(r"[a-z0-9]+", text.lower())) for text in (one, other))
    return len(a & b) / len(a | b)


def test_nothing_that_is_fitted_on_repeats_a_report_turn() -> None:
    report = [text for text, _ in texts(of_report=True)]
    assert len(report) > 300
    twins = [
        (own, text)
        for own, marked in texts(of_report=False)
        if not marked
        for text in report
        if likeness(own, text) > ALIKE
    ]
    assert twins == []


@pytest.mark.parametrize("name", ["out_of_scope", "small_talk"])
def test_no_phrase_repeats_a_report_turn(name: str) -> None:
    lines = (DATA.parents[1] / "prompts" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    phrases = [line.partition("=>")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
    assert len(phrases) > 300
    report = [text for text, _ in texts(of_report=True)]
    assert [(own, text) for own in phrases for text in report if likeness(own, text) > ALIKE] == []


def adapter(folder: Path) -> AdapterFolder:
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return AdapterFolder("mine", folder)


def test_a_fit_names_the_weights_that_it_was_made_with(tmp_path: Path) -> None:
    model, digest = Abstention({"nearest": 1.23456}, -0.5, 0.5), hashlib.sha256(b"weights").hexdigest()
    alone = tune_abstention.with_fit({}, "small", "bert-1", model, 0.9, 12, None)
    small = alone["fits"]["small"]
    assert (small["vectors"], small["weights"], small["bias"]) == ("bert-1", {"nearest": 1.2346}, -0.5)
    both = tune_abstention.with_fit(alone, "small", "bert-1", model, 0.95, 12, adapter(tmp_path))
    judged = tune_abstention.with_fit(both, "small", "bert-1", model, 0.9, 12, adapter(tmp_path), "judge")
    assert list(judged["fits"]["small"]["readings"]) == ["chat", "judge"]
    assert judged["fits"]["small"]["readings"]["chat"] == both["fits"]["small"]["readings"]["chat"]
    reading = both["fits"]["small"].pop("readings")["chat"]
    assert both == alone
    assert (reading["adapter"], reading["adapter_sha256"]) == ("mine", digest)
    assert (reading["cross_validated_accuracy"], reading["questions"]) == (0.95, 12)
    two = tune_abstention.with_fit(alone, "large", "bert-2", model, 0.9, 12, None)
    assert two["fits"]["small"] == small
    assert list(two["fits"]) == ["small", "large"]  # the first serves what nothing was fitted over


def test_a_router_s_fit_names_them_too(tmp_path: Path) -> None:
    features = {"ner": {"best": 1.0}, "chat": {"best": 0.0}}
    asked = {"question": "How much?", "document": "a.md", "features": features, "route": "ner"}
    turns = [asked, {"features": {"ner": {"best": 0.0}, "chat": {"best": 1.0}}, "route": "chat"}]
    body = tune_routing.fitted(turns, adapter(tmp_path))
    assert (body["adapter"], body["turns"]) == ("mine", 2)
    assert body["adapter_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert set(body["weights"]) == {"tool", "chat"}
    assert "adapter_sha256" not in tune_routing.fitted(turns, None)
