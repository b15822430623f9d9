"""The judgement whether a passage states an answer: one forward pass over the model that serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_files import write_adapter

from agentkit.errors import ModelError, UsageError
from agentkit.llm.adapters import AdapterChoice
from agentkit.llm.local import LocalModel
from agentkit.llm.reading import (
    NO,
    READING_TASK,
    YES,
    ModelReader,
    ModelReranker,
    reader_of,
    reading,
    supported,
)
from agentkit.messages import Message, Passage

PASSAGE = Passage(1, "a.md", "Baths > Prices", "A single swim costs €4. The sauna costs €12.", 0.5)


class Scores:
    """Notes what it is asked, and answers with what it is given."""

    reads = True

    def __init__(self, *logits: float) -> None:
        self.logits, self.asked = list(logits), []  # type: ignore[var-annotated]

    def first_logits(
        self, messages: Sequence[Message], answers: Sequence[str], *, adapter: Any = None
    ) -> list[float]:
        self.asked.append((list(messages), list(answers)))
        return self.logits


def test_the_passage_stands_before_the_question() -> None:
    system, user = reading("Prices", "A swim\ncosts €4.", " how\nmuch? ")
    assert (system.role, system.content) == ("system", READING_TASK)
    assert (user.role, user.content) == ("user", "Prices\nA swim\ncosts €4.\n\nQuestion: how much?")


def test_braces_of_a_passage_are_text() -> None:
    assert reading("{heading}", "{question} {0}", "{text}?")[1].content == (
        "{heading}\n{question} {0}\n\nQuestion: {text}?"
    )


def test_the_score_is_yes_against_no() -> None:
    model = Scores(3.0, 1.0)
    assert supported(model, "How much is a swim?", PASSAGE) == 2.0
    assert model.asked == [
        (reading(PASSAGE.heading, PASSAGE.text, "How much is a swim?"), [YES, NO]),
    ]


def test_a_reranker_asks_of_each_text_by_itself() -> None:
    model = Scores(3.0, 1.0)
    found = ModelReranker(model).scores("How much?", ["Prices\nA swim costs €4.\nCash only.", "Prices"])
    assert (found.dtype, found.tolist()) == (np.float32, [2.0, 2.0])
    asked = sorted((messages for messages, _ in model.asked), key=lambda messages: -len(messages[1].content))
    assert asked == [
        reading("Prices", "A swim costs €4.\nCash only.", "How much?"), reading("Prices", "", "How much?"),
    ]  # fmt: skip
    assert ModelReranker(model).scores("How much?", []).shape == (0,)
    asks = len(model.asked)
    again = ModelReranker(model)
    assert again.scores("x", ["a", "b"]).tolist() == again.scores("x", ["b", "a"]).tolist() == [2.0, 2.0]
    assert len(model.asked) == asks + 2
    assert ModelReranker(model).reader is None
    judge = ModelReranker(model, name="judge")
    assert judge.reader is judge
    judge.scores("How much?", [f"{PASSAGE.heading}\n{PASSAGE.text}"])
    asks = len(model.asked)
    assert judge.supported("How much?", PASSAGE) == 2.0
    assert len(model.asked) == asks
    ModelReranker(model).scores("word " * 10_000, ["text " * 100_000])
    assert len(model.asked[-1][0][1].content) < 10_000


def test_only_a_model_that_says_so_is_a_reader(smollm: LocalModel) -> None:
    assert reader_of(smollm) is None
    assert reader_of(object()) is None
    assert not smollm.reads
    assert isinstance(reader_of(Scores()), ModelReader)
    assert reader_of(Scores(), AdapterChoice(None)) is None
    assert isinstance(reader_of(smollm, AdapterChoice(None, reads=True)), ModelReader)
    assert ModelReader(Scores(0.0, 1.5)).supported("?", PASSAGE) == -1.5


def test_logits_are_those_of_the_whole_prompt(smollm: LocalModel) -> None:
    model = LocalModel(smollm._loaded)
    for question in ("How much is a swim?", "How much is the sauna?", "How much is the sauna?"):
        messages = reading(PASSAGE.heading, PASSAGE.text, question)
        found = model.first_logits(messages, [YES, NO, "Perhaps"])
        whole = smollm._loaded.forward_all(model.render(messages))[-1]
        tokens = [model.encoder.plain(answer)[0] for answer in (YES, NO, "Perhaps")]
        assert found == pytest.approx([float(whole[token]) for token in tokens], abs=0.15)


def test_a_second_question_reads_the_passage_no_more(smollm: LocalModel) -> None:
    model = LocalModel(smollm._loaded)
    model.first_logits(reading(PASSAGE.heading, PASSAGE.text * 5, "How much is a swim?"), [YES, NO])
    prompt = model.render(reading(PASSAGE.heading, PASSAGE.text * 5, "Is there a café?"))
    _, cached = model._pool.acquire(prompt)
    assert len(prompt) - cached < 20
    assert cached > 80


def test_what_cannot_be_told_apart_is_refused(smollm: LocalModel) -> None:
    for answers in (["Yes", "Yes, it does"], ["Yes", ""]):
        with pytest.raises(UsageError, match="different tokens"):
            smollm.first_logits([Message("user", "Well?")], answers)


def test_a_passage_beyond_the_context_is_told(smollm: LocalModel) -> None:
    with pytest.raises(ModelError, match="longer than the model's"):
        smollm.first_logits(reading("a", "word " * 9_000, "What?"), [YES, NO])
    assert smollm.first_logits(reading("a", "word", "What?"), [YES, NO])


def test_it_reads_with_the_adapter_that_it_is_given(smollm: LocalModel, tmp_path: Path) -> None:
    folder = str(write_adapter(tmp_path / "own", smollm.hf_model, size=0.1))
    model, asked = LocalModel(smollm._loaded), reading("a", "word", "What?")
    bare = model.first_logits(asked, [YES, NO])
    own = model.first_logits(asked, [YES, NO], adapter=folder)
    assert own != pytest.approx(bare, abs=0.5)
    chosen, _ = model.choose_adapter(folder)
    assert model.first_logits(asked, [YES, NO], adapter=chosen) == own
    assert model.first_logits(asked, [YES, NO]) == bare
