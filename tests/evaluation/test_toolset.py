"""The labelled tool calls: what is read, what is right, and the figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentkit.errors import ModelError, UsageError
from agentkit.evaluation.calls import Choice
from agentkit.evaluation.toolset import ToolCase, read_tool_cases
from agentkit.evaluation.toolset_run import ToolRow, ask, row_from_json, summarize, tables, type_of
from agentkit.llm.local import LocalModel
from agentkit.llm.scripted import ScriptedModel, Step
from agentkit.messages import ToolCall

DATA = Path(__file__).parents[1] / "data" / "tools.jsonl"
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Name of the city."},
        "days": {"type": "integer", "description": "Number of days."},
    },
    "required": ["city"],
}
WEATHER: dict[str, Any] = {
    "tool": {"name": "weather", "description": "Get the forecast.", "parameters": PARAMETERS},
    "split": "tune",
    "calls": [{"text": "Forecast for Oslo, 3 days.", "arguments": {"city": ["Oslo"], "days": [3, None]}}],
    "lacking": [{"text": "What's the weather like?", "missing": ["city"]}],
}


def write(folder: Path, *bodies: Any) -> Path:
    file = folder / "tools.jsonl"
    file.write_text("\n".join(json.dumps(body) for body in bodies))
    return file


@pytest.fixture
def cases(tmp_path: Path) -> list[ToolCase]:
    return read_tool_cases(write(tmp_path, WEATHER))


def test_the_project_s_own_set() -> None:
    cases = read_tool_cases(DATA)
    calls, lacking = ([c for c in cases if bool(c.missing) is lacks] for lacks in (False, True))
    assert (len(calls), len(lacking), len({case.tool.name for case in cases})) == (220, 44, 55)
    assert {case.split for case in cases} == {"tune", "report"}
    for case in calls:
        right = {name: values[0] for name, values in case.accepted.items() if values[0] is not None}
        jsonschema.validate(right, case.tool.schema)
        assert case.wrong(right) == {}, case.id
    assert all(set(case.missing) <= set(case.tool.parameters["required"]) for case in lacking)


def test_the_first_few_are_of_as_many_tools() -> None:
    first = read_tool_cases(DATA, limit=20)
    assert len(first) == 40
    assert len({case.tool.name for case in first[:20]}) == 20
    assert [bool(case.missing) for case in first] == [False] * 20 + [True] * 20
    report = read_tool_cases(DATA, "report")
    assert 0 < len(report) < 264
    assert {case.split for case in report} == {"report"}


def changed(**changes: Any) -> dict[str, Any]:
    return {**WEATHER, **changes}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({key: WEATHER[key] for key in ("tool", "split", "calls")}, "lacking missing"),
        (changed(note=""), "unknown note; the keys are calls, lacking, split, tool"),
        (changed(tool="weather"), "tool must be an object"),
        (changed(tool={**WEATHER["tool"], "name": ""}), "name must be text"),
        (changed(tool={**WEATHER["tool"], "parameters": {}}), "must be a schema with properties"),
        (changed(calls=["Oslo"]), "calls must be a list of objects"),
        (changed(calls=[{"text": "Oslo", "arguments": {"city": "Oslo"}}]), "a list of accepted values"),
        (changed(calls=[{"text": "Oslo", "arguments": {"city": []}}]), "a list of accepted values"),
        (
            changed(calls=[{"text": "Oslo", "arguments": {"town": ["Oslo"]}}]),
            "weather has no parameter 'town'",
        ),
        (changed(calls=[{"text": "3 days", "arguments": {"days": [3]}}]), "nothing for city, which the tool"),
        (changed(lacking=[{"text": "Hm?", "missing": []}]), "missing must be a list of parameters"),
        (changed(lacking=[{"text": "Hm?", "missing": ["town"]}]), "weather has no parameter 'town'"),
        (WEATHER, "the id 'weather' stands in line 1 already"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, body: Any, told: str) -> None:
    with pytest.raises(UsageError, match=rf"tools\.jsonl, line 2: .*{told}"):
        read_tool_cases(write(tmp_path, WEATHER, body))


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"city": "Oslo", "days": 3}, {}),
        ({"city": "oslo", "days": 3.0}, {}),
        ({"city": "Oslo"}, {}),
        ({"days": 3}, {"city": None}),
        ({"city": "Oslo", "days": True}, {"days": True}),
        ({"city": "Oslo", "unit": "C"}, {"unit": "C"}),
    ],
)
def test_accepted_arguments(cases: list[ToolCase], arguments: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert cases[0].wrong(arguments) == wrong


def asked(case: ToolCase, step: Step, choice: Choice = "required") -> ToolRow:
    return ask(ScriptedModel([step]), case, tool_choice=choice)


def forecast(**arguments: Any) -> ToolCall:
    return ToolCall("c", "weather", arguments)


def test_a_call_is_scored_argument_by_argument(cases: list[ToolCase]) -> None:
    row = asked(cases[0], forecast(city="Rome", days=3))
    assert (row.valid, row.right, row.asked) == (True, False, False)
    assert [(a.name, a.type, a.valid, a.right) for a in row.arguments] == [
        ("city", "text", True, False),
        ("days", "integer", True, True),
    ]
    row = asked(cases[0], forecast(city=5))
    assert not row.valid
    assert [(a.name, a.valid, a.right) for a in row.arguments] == [
        ("city", False, False),
        ("days", True, True),
    ]
    row = asked(cases[0], "It will rain.")
    assert not any(a.valid or a.right for a in row.arguments)
    assert row_from_json(json.loads(json.dumps(asdict(row)))) == row


def test_what_is_missing_is_asked_for_before_the_model_is(cases: list[ToolCase]) -> None:
    row = ask(ScriptedModel([]), cases[1], tool_choice="required")
    assert (row.asked, row.exactly, row.right, row.calls, row.passes) == (True, True, True, (), 0)


@pytest.mark.parametrize(
    ("step", "was_asked"),
    [("In which city?", True), ("It is sunny.", False), (forecast(city="Rome"), False)],
)
def test_under_auto_the_model_has_to_ask(cases: list[ToolCase], step: Step, was_asked: bool) -> None:
    lacking = asked(cases[1], step, "auto")
    assert (lacking.asked, lacking.right) == (was_asked, was_asked)
    assert not lacking.exactly  # what its own words ask for is not known
    complete = asked(cases[0], step, "auto")
    assert complete.asked is was_asked
    assert not complete.right


def test_a_failure_counts_as_wrong(cases: list[ToolCase]) -> None:
    row = asked(cases[0], ModelError("it died"))
    assert (row.failed, row.right, row.valid) == ("it died", False, False)


@pytest.mark.parametrize(
    ("name", "schema", "type"),
    [
        ("amount", {"type": "number"}, "number"),
        ("tags", {"type": "array", "items": {"type": "string"}}, "list"),
        ("unit", {"type": "string", "enum": ["C", "F"]}, "choice"),
        ("due_date", {"type": "string"}, "date"),
        ("order_id", {"type": "string"}, "code"),
        ("title", {"type": "string"}, "text"),
        ("x", {}, "any"),
        ("x", True, "any"),
        ("x", {"$ref": "#/$defs/x"}, "any"),
    ],
)
def test_types_of_arguments(name: str, schema: dict[str, Any] | bool, type: str) -> None:
    assert type_of(name, schema) == type


def test_parameters_that_refer_to_a_definition_or_allow_anything(tmp_path: Path) -> None:
    parameters = {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/place"}, "note": True},
        "required": ["to"],
        "$defs": {"place": {"type": "string", "minLength": 3}},
    }
    body = changed(
        tool={"name": "travel", "description": "Plan a trip.", "parameters": parameters},
        calls=[{"text": "To Oslo, by train.", "arguments": {"to": ["Oslo"], "note": ["by train", None]}}],
        lacking=[],
    )
    (case,) = read_tool_cases(write(tmp_path, body))
    rows = [
        asked(case, ToolCall("c", "travel", {"to": place, "note": "by train"})) for place in ("Oslo", "NY")
    ]
    assert [(row.valid, row.right) for row in rows] == [(True, True), (False, False)]
    assert [[(a.name, a.type, a.valid, a.right) for a in row.arguments] for row in rows] == [
        [("note", "any", True, True), ("to", "any", True, True)],
        [("note", "any", True, True), ("to", "any", False, False)],
    ]
    assert summarize(rows, is_free=False)["arguments"]["any"]["arguments"] == 4


def test_figures(cases: list[ToolCase]) -> None:
    complete, lacking = cases
    rows = [
        asked(complete, forecast(city="Oslo", days=3), "auto"),
        asked(complete, forecast(city="Rome", days=3), "auto"),
        asked(complete, "Where?", "auto"),
        asked(lacking, "Where?", "auto"),
        asked(lacking, forecast(city="Oslo"), "auto"),
    ]
    told = summarize(rows, is_free=True)
    assert told["called"]["value"] == pytest.approx(2 / 3)
    assert told["right"]["value"] == pytest.approx(1 / 3)
    assert told["arguments"]["text"]["right"]["value"] == pytest.approx(1 / 3)
    assert told["arguments"]["integer"]["right"]["value"] == pytest.approx(2 / 3)
    missing = told["missing"]
    assert missing["asked"]["value"] == missing["called_all_the_same"]["value"] == 0.5
    assert missing["asked_without_cause"]["value"] == pytest.approx(1 / 3)
    cells = [row[0] for table in tables(told) for row in table.rows]
    assert {"right, tune", "integer", "asked without cause"} <= set(cells)


def test_calling_is_no_figure_where_it_is_a_matter_of_course(cases: list[ToolCase]) -> None:
    complete, lacking = cases
    rows = [asked(complete, forecast(city="Oslo", days=3)), asked(lacking, "")]
    told = summarize(rows, is_free=False)
    assert told["called"] is told["missing"]["called_all_the_same"] is None
    assert told["missing"]["asked"]["value"] == 1
    cells = [list(row) for table in tables(told) for row in table.rows]
    assert ["called", "–"] in cells
    assert ["called all the same", "–"] in cells


def test_a_call_too_many_is_wrong(cases: list[ToolCase]) -> None:
    call = forecast(city="Oslo", days=3)
    assert asked(cases[0], call, "auto").right
    assert not asked(cases[0], (call, call), "auto").right


def test_the_embedded_model(smollm: LocalModel) -> None:
    rows = [ask(smollm, case, tool_choice="required") for case in read_tool_cases(DATA, limit=4)]
    assert all(row.valid and row.passes for row in rows[:4])
    assert sum(row.right for row in rows[:4]) >= 3
    assert summarize(rows, is_free=False)["passes_per_call"] > 0
