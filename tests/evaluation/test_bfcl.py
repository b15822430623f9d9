"""The leaderboard's cases and checker, over a stand-in with cases of this project's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from agentkit.errors import MissingBackendError, UsageError
from agentkit.evaluation import bfcl_run
from agentkit.evaluation.bfcl import CALLING, CATEGORIES, REQUIREMENT, UNNEEDED, Case, load, load_checker
from agentkit.evaluation.bfcl_run import BfclRow, summarize, tables
from agentkit.llm.scripted import ScriptedModel, Step
from agentkit.messages import ToolCall
from tests.leaderboard import BELL, BIKE

REPOSITORY = Path(__file__).parents[2]


def ring(times: object = 3) -> ToolCall:
    return ToolCall("c", "ring", {"times": times})


def ask(step: Step, category: str, n: int = 0, tool_choice: str = "required") -> BfclRow:
    case = load(category)[n]
    model = ScriptedModel([step])
    return bfcl_run.ask(model, case, load_checker(), tool_choice=tool_choice, unconstrained=False)  # type: ignore[arg-type]


def test_cases_are_read(leaderboard: None) -> None:
    first, second = load("simple_python")
    assert (first.id, first.category, first.truth) == (
        "simple_python_0",
        "simple_python",
        ({"ring": {"times": [3]}},),
    )
    assert first.messages == ({"role": "user", "content": "Ring the bell 3 times."},)
    assert load("simple_python", 1, 1) == [second]
    assert load("irrelevance")[0].truth == ()
    with pytest.raises(UsageError, match="irrelevance has 2 cases, none behind 2"):
        load("irrelevance", None, 2)
    with pytest.raises(UsageError, match="no category 'simple'; the categories are simple_python, multiple"):
        load("simple")


def test_functions_become_tools(leaderboard: None) -> None:
    bike, bell = load("multiple")[0].tools
    assert (bike.name, bike.description) == (BIKE["name"], BIKE["description"])
    assert bike.parameters == {
        "type": "object",
        "properties": {
            "hours": {"type": "number", "format": "float", "description": "For how many hours."},
            "kind": {"type": "string", "enum": ["city", "cargo"]},
        },
        "required": ["hours"],
    }
    assert bell.parameters["properties"]["times"]["type"] == "integer"


def test_several_calls_where_the_category_asks_for_them() -> None:
    cases = {name: Case("", name, (), (), ()) for name in CATEGORIES}
    assert [name for name, case in cases.items() if case.parallel] == [
        "parallel", "parallel_multiple", "live_parallel", "live_parallel_multiple"]  # fmt: skip
    assert cases["live_parallel"].budget > cases["live_simple"].budget


def test_the_model_decides_where_it_may_be_right_to_call_nothing() -> None:
    for name in CATEGORIES:
        case = Case("", name, (), (), ())
        assert bfcl_run.choice_of(case, "required") == ("required" if name in CALLING else "auto")
        assert bfcl_run.choice_of(case, "auto") == "auto"
    assert set(UNNEEDED).isdisjoint(CALLING)


@pytest.mark.parametrize(
    ("category", "step", "valid", "right", "error_type"),
    [
        ("simple_python", ring(), True, True, ""),
        ("simple_python", ring(4), True, False, "value"),
        ("simple_python", ring("3"), False, False, "value"),
        ("simple_python", "Ding!", False, False, "no_call"),
        ("parallel", (ring(2), ring(5)), True, True, ""),
        ("parallel", (ring(2),), True, False, "count"),
        ("irrelevance", "I cannot know.", True, True, ""),
        ("irrelevance", ring(), True, False, "called"),
        ("irrelevance", ring("x"), False, False, "called"),
        ("live_relevance", ring(), True, True, ""),
        ("live_relevance", "Ding!", True, False, "no_call"),
    ],
)
def test_verdicts(
    leaderboard: None, category: str, step: Step, valid: bool, right: bool, error_type: str
) -> None:
    row = ask(step, category)
    assert (row.valid, row.right, row.error_type) == (valid, right, error_type)


def test_a_checker_that_stumbles_over_the_arguments_finds_them_wrong(leaderboard: None) -> None:
    case, odd = load("simple_python")[0], [("ring", [3])]
    assert load_checker()(case, odd) == "checker:AttributeError"  # type: ignore[arg-type]


def test_no_vendor_s_client_is_needed_and_nothing_stays_replaced(leaderboard: None) -> None:
    check = load_checker()
    assert check(load("simple_python")[0], [("ring", {"times": 3})]) == ""
    assert "bfcl_eval.constants.model_config" not in sys.modules


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (lambda: load("multiple"), load_checker):
        with pytest.raises(MissingBackendError, match=f"pip install --no-deps {REQUIREMENT}"):
            use()
    assert f"--no-deps {REQUIREMENT} " in (REPOSITORY / "Makefile").read_text()


def test_an_incomplete_package(leaderboard: None, tmp_path: Path) -> None:
    (tmp_path / "site" / "bfcl_eval" / "eval_checker" / "ast_eval" / "ast_checker.py").unlink()
    with pytest.raises(MissingBackendError, match=r"cannot be imported.*--force-reinstall"):
        load_checker()


def test_the_leaderboard_s_own_checker() -> None:
    pytest.importorskip("bfcl_eval", reason="pip install --no-deps bfcl-eval")
    check = load_checker()
    truth = ({"ring": {"times": [3]}},)
    case = Case("x", "simple_python", (), (BELL,), truth)
    assert check(case, [("ring", {"times": 3})]) == ""
    assert check(case, [("ring", {"times": 4})]).startswith("value_error")
    assert check(case, [("ring", {"times": "3"})]).startswith("type_error")
    assert check(case, [("ring", {"times": 3})] * 2).endswith("wrong_count")
    several = Case("y", "parallel_multiple", (), (BELL, BIKE), (*truth, {"shop.rent_bike": {"hours": [2.0]}}))
    assert check(several, [("shop.rent_bike", {"hours": 2.0}), ("ring", {"times": 3})]) == ""
    assert check(several, [("ring", {"times": 3})]).endswith("wrong_count")


def row(id: str, category: str, right: bool, calls: int = 1, passes: int = 6) -> BfclRow:
    made = tuple(("ring", {"times": n}) for n in range(calls))
    return BfclRow(id, category, made, "", True, right, "" if right else "value", passes, 0.5, False, "")


def test_figures() -> None:
    rows = [
        row("a", "simple_python", True),
        row("b", "simple_python", False, calls=0, passes=100),
        row("c", "multiple", True),
        row("d", "parallel", True, calls=3),
        row("e", "parallel_multiple", False, calls=2, passes=10),
        row("f", "irrelevance", True, calls=0),
    ]
    told = summarize(rows, is_free=True)
    assert told["average"] == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    assert told["recall"]["value"] == pytest.approx(4 / 5)
    assert told["irrelevance"]["value"] == 1
    assert told["categories"]["parallel"]["passes_per_call"] == 2
    assert told["categories"]["simple_python"]["passes_per_call"] == 6  # of cases with a call
    assert told["categories"]["irrelevance"]["passes_per_call"] is None
    assert told["categories"]["simple_python"]["errors"] == {"value": 1}
    cells = [each for table in tables(told) for each in table.rows]
    assert ["average of the four", "62.5%"] in cells
    assert ["parallel_multiple", "value", "1"] in cells
    assert summarize(rows[:4], is_free=True)["average"] is None
    assert summarize(rows[:1], is_free=True)["irrelevance"]["value"] is None


def test_recall_is_no_figure_where_there_is_always_a_call() -> None:
    rows = [row("a", "simple_python", True), row("f", "irrelevance", True, calls=0)]
    told = summarize(rows, is_free=False)
    assert told["recall"] is None
    cells = [each for table in tables(told) for each in table.rows]
    assert ["calls where needed", "–"] in cells
    assert next(cell for cell in cells if cell[0] == "no call where not needed")[1].startswith("100.0%")


def test_one_call_too_many_in_free_text_is_wrong(leaderboard: None) -> None:
    case = load("simple_python")[0]
    call = '{"name": "ring", "arguments": {"times": 3}}'
    rows = [
        bfcl_run.ask(ScriptedModel([said]), case, load_checker(), tool_choice="required", unconstrained=True)
        for said in (call, f"{call} {call}")
    ]
    assert [(row.right, row.error_type) for row in rows] == [(True, ""), (False, "count")]
