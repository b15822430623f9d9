"""Perplexity of written answers: the file, the figures, the model as it serves."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import ModelError, NotFoundError, UsageError
from agentkit.evaluation import suite
from agentkit.evaluation.journal import Journal
from agentkit.evaluation.perplexity import PerplexityRow, read_references, row_from_json, summarize, tables
from agentkit.llm.local import LocalModel
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import Message

DATA = Path(__file__).parents[1] / "data" / "plain_chat.jsonl"
GOOD = {"id": "a", "text": "Hi!", "answer": "Hello!", "kind": "small_talk"}


class Scorer(ScriptedModel):
    """Finds every character of an answer half as likely as not."""

    def __init__(self, *failing: str) -> None:
        super().__init__([])
        self.failing, self.asked = failing, []  # type: ignore[var-annotated]

    def log_probs(self, messages: Sequence[Message], answer: str) -> list[float]:
        self.asked.append(messages[-1].content)
        if messages[-1].content in self.failing:
            raise ModelError("it died")
        return [math.log(0.5)] * len(answer)


def test_the_project_s_own_prompts() -> None:
    found = read_references(DATA)
    assert len(found) == 50
    kinds = Counter(reference.kind for reference in found)
    assert len(kinds) == 8
    assert len({reference.kind for reference in found[:8]}) == 8  # the first few go round the kinds
    assert min(kinds.values()) >= 2
    assert len({reference.text for reference in found}) == 50
    assert all(1 <= len(reference.answer.split()) <= 60 for reference in found)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (GOOD, "the id 'a' stands in line 1 already"),
        ({**GOOD, "id": "b", "answer": " "}, "answer must be text"),
        ({**GOOD, "id": "b", "kind": 3}, "kind must be text"),
        ({**GOOD, "id": "b", "messages": []}, "unknown messages; the keys are answer, id, kind, text"),
        ({"id": "b", "text": "Hi!"}, "answer missing"),
        (["b"], "it must be a JSON object"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, body: Any, told: str) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{json.dumps(body)}\n")
    with pytest.raises(UsageError, match=rf"chat\.jsonl, line 2: {told}"):
        read_references(file)


def test_no_file_and_no_lines(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_references(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UsageError, match=r"empty\.jsonl has no examples"):
        read_references(tmp_path / "empty.jsonl")


def row(id: str, kind: str, tokens: int, perplexity: float) -> PerplexityRow:
    return PerplexityRow(id, kind, tokens, tokens * math.log(perplexity), 0.5, "")


def test_figures() -> None:
    rows = [row("a", "talk", 30, 2), row("b", "talk", 10, 8), PerplexityRow("c", "", 0, 0.0, 0.5, "it died")]
    told = summarize(rows)
    assert (told["prompts"], told["failed"], told["tokens"]) == (3, 1, 40)
    whole = told["perplexity"]
    assert whole["value"] == pytest.approx(2 ** ((30 * 1 + 10 * 3) / 40))  # by token, not by prompt
    assert (whole["low"], whole["high"], whole["count"]) == (pytest.approx(2), pytest.approx(8), 2)
    assert told["kinds"] == {"talk": whole}
    assert told["rows"]["b"] == {"tokens": 10, "perplexity": pytest.approx(8)}
    first, kinds, prompts = tables(told)
    assert ["perplexity", "2.83 (2.00–8.00)"] in first.rows
    assert kinds.rows == [["talk", "2", "2.83 (2.00–8.00)"]]
    assert [cells[0] for cells in prompts.rows] == ["b", "a"]  # the most surprising first
    assert summarize(rows) == told
    with pytest.raises(ModelError, match="no answer could be scored: it died"):
        summarize(rows[2:])


def test_the_suite_goes_on_where_it_stopped(tmp_path: Path) -> None:
    references = read_references(DATA)[:6]
    model = Scorer(references[1].text)
    for _ in range(2):
        journal = Journal(tmp_path / "out", {"model": "x"}, row_from_json)
        told = suite.perplexities(model, references, journal=journal)
        model.failing = ()
    assert model.asked == [reference.text for reference in references] + [references[1].text]
    assert told.scores == {"token_probability": pytest.approx(0.5)}
    assert (told.suite, told.cases, told.verdicts) == ("perplexity", 6, {})
    assert told.summary["failed"] == 0
    json.dumps(told.summary)


def test_only_a_model_that_can_score() -> None:
    with pytest.raises(UsageError, match="only a model in this process"):
        suite.perplexities(ScriptedModel([]), read_references(DATA))


def test_the_embedded_model_finds_its_answers_likelier_than_others(smollm: LocalModel) -> None:
    references = read_references(DATA)[:8]
    told = suite.perplexities(smollm, references)
    assert 2 < told.summary["perplexity"]["value"] < 60
    first = references[0]
    own = sum(smollm.log_probs([Message("user", first.text)], first.answer))
    body = told.summary["rows"][first.id]
    assert body["perplexity"] == pytest.approx(math.exp(-own / body["tokens"]))
    other = next(reference for reference in references if reference.kind != first.kind)
    assert sum(smollm.log_probs([Message("user", other.text)], first.answer)) < own
