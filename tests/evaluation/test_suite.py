"""The suites, called from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentkit.errors import ModelError, UsageError
from agentkit.evaluation import suite
from agentkit.evaluation.questions import Question
from agentkit.evaluation.rag import Evaluation
from agentkit.evaluation.routing import Turn
from agentkit.evaluation.rows import Row
from agentkit.evaluation.tables import Table, markdown
from agentkit.evaluation.toolset import read_tool_cases
from agentkit.events import Event
from agentkit.llm.local import LocalModel
from agentkit.llm.protocol import Route
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import ToolCall

TOOLS = Path(__file__).parents[1] / "data" / "tools.jsonl"


def test_bfcl(leaderboard: None) -> None:
    steps = [ToolCall("c", "ring", {"times": 3}), "Ding!", "Shakespeare.", "Lima."]
    told = suite.bfcl(ScriptedModel(steps), categories=["simple_python", "irrelevance", "simple_python"])
    assert told.scores == {"simple_python": 0.5, "irrelevance": 1.0}
    assert told.verdicts == {
        "simple_python_0": True, "simple_python_1": False, "irrelevance_0": True, "irrelevance_1": True}  # fmt: skip
    assert (told.suite, told.cases, told.summary["cases"]) == ("bfcl", 4, 4)


def test_recall_counts_where_the_model_decides(leaderboard: None) -> None:
    steps = [ToolCall("c", "ring", {"times": 3}), "No."]
    told = suite.bfcl(
        ScriptedModel(steps), 1, offset=1, categories=["simple_python", "irrelevance"], tool_choice="auto"
    )
    assert told.scores == {"simple_python": 0.0, "irrelevance": 1.0, "recall": 1.0}


def test_the_embedded_model_on_the_default_categories(leaderboard: None, smollm: LocalModel) -> None:
    told = suite.bfcl(smollm, 1)
    assert set(told.scores) == {*suite.CATEGORIES, "average"}
    assert told.scores["simple_python"] == 1
    assert all(told.summary["categories"][name]["valid"]["value"] == 1 for name in suite.CATEGORIES)
    with pytest.raises(UsageError, match="only a model in this process"):
        suite.bfcl(ScriptedModel([]), 1, unconstrained=True)


def test_a_model_that_is_gone_ends_it() -> None:
    cases = read_tool_cases(TOOLS, limit=6)
    with pytest.raises(ModelError, match="in a row failed"):
        suite.tools(ScriptedModel([]), cases)


def test_tools(smollm: LocalModel) -> None:
    cases = read_tool_cases(TOOLS, limit=3)
    told = suite.tools(smollm, cases)
    assert set(told.scores) == {"valid", "right", "asked", "asked_exactly", "not_asked_without_cause"}
    assert told.scores["valid"] == told.scores["not_asked_without_cause"] == 1
    assert list(told.verdicts) == [case.id for case in cases]


def test_routing() -> None:
    class Agent:
        def route(self, text: str) -> Route:
            return Route("chat", None, {})

        def stream(self, text: str) -> Iterator[Event]:
            raise AssertionError("the router has decided")

    turns = [Turn(1, "a", "Hi", "chat", ""), Turn(2, "b", "Bye", "decline", "")]
    told = suite.route(lambda: nullcontext(Agent()), turns)
    assert told.scores == {"accuracy": 0.5, "chat": 1.0, "decline": 0.0}
    assert told.verdicts == {"a": True, "b": False}


def test_markdown_holds_foreign_text_in_its_cells() -> None:
    page = markdown("T", {"model": "a\nb|c"}, [Table(["x"], [["1 | 2\x1b[0m\\"]])])
    assert page == "# T\n\n- model: a b\\|c\n\n| x |\n| --- |\n| 1 \\| 2 [0m\\\\ |\n"


def test_a_question_whose_turn_fails_is_a_wrong_one(row: Callable[..., Row]) -> None:
    """Else a single failure would take the whole suite out of a comparison."""

    class Failing(Evaluation):
        bad: ClassVar[str]

        def ask(self, question: Question) -> Row:
            if question.id in self.bad:
                raise ModelError("the context is full")
            return row(id=question.id)

    nothing: Any = None
    evaluation = Failing(*[nothing] * 7)
    questions = [Question(n, str(n), "?", "plain", ("a.md",), (("b",),), (), "report") for n in range(6)]
    Failing.bad = "01234"
    with pytest.raises(ModelError, match="the context is full"):  # five in a row: it is not the questions
        suite.rag(evaluation, questions)
    Failing.bad = "0123"
    told = suite.rag(evaluation, questions)
    assert told.verdicts == {**dict.fromkeys("0123", False), "4": True, "5": True}
    assert (told.cases, told.scores["right"], told.scores["hit@3"]) == (6, pytest.approx(1 / 3), 1.0)
