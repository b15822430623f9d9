"""Messages that need several calls: what is read, which calls are right, and the figures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import ModelError, UsageError
from agentkit.evaluation import suite
from agentkit.evaluation.calls import Call
from agentkit.evaluation.journal import Journal
from agentkit.evaluation.several import SeveralCase
from agentkit.evaluation.several_run import ask
from agentkit.evaluation.toolset import ToolCase, read_tool_cases
from agentkit.evaluation.toolset_run import row_from_json
from agentkit.llm.local import LocalModel
from agentkit.llm.scripted import ScriptedModel, Step
from agentkit.messages import ToolCall

DATA = Path(__file__).parents[1] / "data"


def tool(name: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"name": name, "description": "Do it.", "parameters": schema}


MOVE = tool("move", {"box": {"type": "string"}, "bay": {"type": "integer"}}, "box")
HONK = tool("honk", {"times": {"type": "integer", "default": 1}})
SPOT = tool("spot", {"at": {"type": "object", "properties": {"x": {"type": "integer"}}}}, "at")


def wanted(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


BODY: dict[str, Any] = {
    "id": "boxes",
    "split": "tune",
    "tools": [MOVE, HONK],
    "text": "Move A to bay 4 and B anywhere, then honk.",
    "calls": [
        wanted("move", box=["A"], bay=[4]),
        wanted("move", box=["B", "box B"], bay=[None]),
        wanted("honk", times=[None, 1]),
    ],
}


def write(folder: Path, *bodies: Any) -> Path:
    file = folder / "several.jsonl"
    file.write_text("\n".join(json.dumps(body) for body in bodies))
    return file


def read(folder: Path, *bodies: Any) -> list[SeveralCase]:
    return [case for case in read_tool_cases(write(folder, *bodies)) if isinstance(case, SeveralCase)]


@pytest.fixture
def case(tmp_path: Path) -> SeveralCase:
    return read(tmp_path, BODY)[0]


def first_of(case: SeveralCase) -> list[Call]:
    """The wanted calls, each with the first value of every argument."""
    return [
        (call.name, {key: values[0] for key, values in call.accepted.items() if values[0] is not None})
        for call in case.wanted
    ]


def test_the_project_s_own_messages() -> None:
    cases = read_tool_cases(DATA / "several.jsonl")
    assert all(isinstance(case, SeveralCase) for case in cases)
    messages = [case for case in cases if isinstance(case, SeveralCase)]
    assert Counter((case.split, case.kind) for case in messages) == {
        ("tune", "one function"): 20,
        ("tune", "several functions"): 14,
        ("tune", "one call"): 6,
        ("report", "one function"): 20,
        ("report", "several functions"): 13,
        ("report", "one call"): 7,
    }
    assert {len(case.wanted) for case in messages} == {1, 2, 3, 4}
    assert all(len(case.tools) > 1 for case in messages if case.kind != "one function")
    names = Counter(tool.name for case in messages for tool in case.tools)
    assert max(names.values()) == 1, "tools of the report are not to be seen while tuning"
    known = {case.tool.name for case in read_tool_cases(DATA / "tools.jsonl") if isinstance(case, ToolCase)}
    assert not known & set(names)


def test_messages_to_tune_by() -> None:
    cases = [case for case in read_tool_cases(DATA / "messages.jsonl") if isinstance(case, SeveralCase)]
    assert Counter((case.split, case.kind) for case in cases) == {
        ("tune", "one function"): 50,
        ("tune", "several functions"): 60,
        ("tune", "one call"): 90,
    }
    report = [
        *read_tool_cases(DATA / "several.jsonl", "report"),
        *read_tool_cases(DATA / "tools.jsonl", "report"),
    ]
    reported = {
        tool.name
        for case in report
        for tool in (case.tools if isinstance(case, SeveralCase) else (case.tool,))
    }
    assert not reported & {tool.name for case in cases for tool in case.tools}


@pytest.mark.parametrize("name", ["several.jsonl", "messages.jsonl"])
def test_right_are_all_the_calls_and_no_others(name: str) -> None:
    for case in read_tool_cases(DATA / name):
        assert isinstance(case, SeveralCase)
        calls = first_of(case)
        assert case.is_right(calls), case.id
        assert case.is_right(calls[::-1]), case.id
        assert not case.is_right(calls[1:]), case.id
        assert not case.is_right([*calls, calls[0]]), case.id
        assert not case.is_right([(name, {**arguments, "more": 1}) for name, arguments in calls]), case.id


def test_the_first_few_are_of_every_kind() -> None:
    for split in ("tune", "report"):
        first = read_tool_cases(DATA / "several.jsonl", split, limit=8)
        assert {case.kind for case in first if isinstance(case, SeveralCase)} == {
            "one function", "several functions", "one call"}  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "met", "right"),
    [
        ([("honk", {}), ("move", {"box": "box b"}), ("move", {"box": "a", "bay": 4.0})], 3, True),
        ([("move", {"box": "A", "bay": 4}), ("move", {"box": "B"}), ("honk", {"times": 1})], 3, True),
        ([("move", {"box": "A", "bay": 4}), ("move", {"box": "B", "bay": 4}), ("honk", {})], 2, False),
        ([("move", {"box": "A"}), ("move", {"box": "B", "bay": 4}), ("honk", {})], 1, False),
        ([("move", {"box": "A", "bay": 4}), ("move", {"box": "A", "bay": 4}), ("honk", {})], 2, False),
        ([("move", {"box": "A", "bay": 4}), ("move", {"box": "B"})], 2, False),
        ([("honk", {}), ("honk", {}), ("move", {"box": "A", "bay": 4}), ("move", {"box": "B"})], 3, False),
        ([("honk", {"box": "A", "bay": 4})], 0, False),
        ([("fly", {})], 0, False),
        ([], 0, False),
    ],
)
def test_which_calls_are_right(case: SeveralCase, calls: list[Call], met: int, right: bool) -> None:
    assert (case.met(calls), case.is_right(calls)) == (met, right)


def test_a_call_that_fits_two_leaves_the_other_one_for_what_only_fits_that(tmp_path: Path) -> None:
    loose, strict = wanted("move", box=["A", "B"], bay=[None]), wanted("move", box=["A"], bay=[None, 4])
    for calls in ([loose, strict], [strict, loose]):
        case = read(tmp_path, {**BODY, "calls": calls})[0]
        assert case.is_right([("move", {"box": "A"}), ("move", {"box": "B"})])
        assert case.is_right([("move", {"box": "B"}), ("move", {"box": "A"})])
        assert case.is_right([("move", {"box": "A", "bay": 4}), ("move", {"box": "A"})])
        assert not case.is_right([("move", {"box": "B"}), ("move", {"box": "B"})])


def test_objects_are_compared_part_by_part(tmp_path: Path) -> None:
    case = read(tmp_path, {**BODY, "tools": [SPOT], "calls": [wanted("spot", at=[{"x": 1}])]})[0]
    assert case.kind == "one call"
    assert case.is_right([("spot", {"at": {"x": 1.0}})])
    assert not case.is_right([("spot", {"at": {"x": True}})])
    assert not case.is_right([("spot", {"at": {"x": 1, "y": 2}})])
    assert not case.is_right([("spot", {"at": 1})])


def changed(**changes: Any) -> dict[str, Any]:
    return {**BODY, "id": "other", **changes}


def one(call: Any) -> dict[str, Any]:
    return changed(calls=[BODY["calls"][0], call])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({key: BODY[key] for key in BODY if key != "text"}, "text missing"),
        (changed(lacking=[]), "unknown lacking; the keys are calls, id, split, text, tools"),
        (changed(id=" "), "id must be text"),
        (changed(id="move/1"), "an id cannot hold a slash"),
        (changed(split=3), "split must be text"),
        (changed(text=""), "text must be text"),
        (changed(tools=[]), "tools must be a list of tools"),
        (changed(tools=MOVE), "tools must be a list of tools"),
        (changed(tools=["move"]), "tool must be an object"),
        (changed(tools=[MOVE, MOVE]), "two tools have the same name"),
        (changed(tools=[{"type": "function", "function": MOVE}]), "description, name, parameters missing"),
        (
            changed(tools=[MOVE, tool("x", {"y": {"type": "text"}})]),
            "are no JSON schema: 'text' is not valid",
        ),
        (changed(tools=[MOVE, tool("x", {"y": {"$ref": "#/z"}})]), "#/z stands nowhere in the schema"),
        (
            changed(tools=[MOVE, tool("x", {"y": {"pattern": "("}})]),
            r"are no JSON schema: '\(' is not a 'regex'",
        ),
        (changed(calls={}), "calls must be a list of calls"),
        (changed(calls=[]), "calls must be a list of calls"),
        (one("honk"), "call 2: it must be an object"),
        (one({"name": "honk"}), "call 2: arguments missing"),
        (one(wanted("fly")), "call 2: no tool is called 'fly'; there are move, honk"),
        (one({"name": ["honk"], "arguments": {}}), "call 2: name must be text"),
        (one(wanted("honk", times=2)), "call 2: arguments must hold a list of accepted values"),
        (one(wanted("honk", times=[])), "call 2: arguments must hold a list of accepted values"),
        (one(wanted("honk", volume=[2])), "call 2: honk has no parameter 'volume'"),
        (one(wanted("honk", times=["2"])), "call 2: '2' is no times that the schema of honk allows"),
        (one(wanted("honk", times=[2, True])), "call 2: True is no times that the schema of honk allows"),
        (one(wanted("move", bay=[2])), "call 2: arguments has nothing for box, which the tool requires"),
        (one(wanted("move", box=["C", None])), "call 2: box cannot be left out, move requires it"),
        (one(BODY["calls"][0]), "call 2 is the same as call 1"),
        (BODY, "the id 'boxes' stands in line 1 already"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, body: Any, told: str) -> None:
    with pytest.raises(UsageError, match=rf"several\.jsonl, line 2: .*{told}"):
        read_tool_cases(write(tmp_path, BODY, body))


def script(*calls: Call) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(f"c{n}", name, arguments) for n, (name, arguments) in enumerate(calls))


def test_a_row(case: SeveralCase) -> None:
    calls = first_of(case)
    row = ask(ScriptedModel([script(*calls[::-1])]), case, tool_choice="required")
    assert (row.wanted, row.met, row.functions, row.valid, row.right) == (3, 3, True, True, True)
    assert row.kind == "several functions"
    assert row_from_json(json.loads(json.dumps(asdict(row)))) == row
    row = ask(ScriptedModel([script(calls[0], ("move", {"box": 7}), calls[2])]), case, tool_choice="required")
    assert (row.met, row.functions, row.valid, row.right) == (2, True, False, False)
    row = ask(ScriptedModel(["All done."]), case, tool_choice="auto")
    assert (row.reply, row.met, row.valid, row.right) == ("All done.", 0, False, False)
    row = ask(ScriptedModel([ModelError("it died")]), case, tool_choice="auto")
    assert (row.failed, row.valid, row.right) == ("it died", False, False)


def test_figures(tmp_path: Path) -> None:
    single = {**BODY, "id": "honk", "split": "report", "calls": BODY["calls"][2:]}
    cases = read(tmp_path, BODY, single)
    steps: list[Step] = [script(*first_of(cases[0])[:2]), script(("honk", {}), ("honk", {}))]
    told = suite.tools(ScriptedModel(steps), cases)
    assert told.verdicts == {"boxes": False, "honk": False}
    assert told.scores["several_right"] == told.scores["several_count"] == 0
    assert told.scores["several_recall"] == told.scores["several_precision"] == pytest.approx(3 / 4)
    several = told.summary["several"]
    assert (several["too_few"], several["too_many"]) == (1, 1)
    assert list(several["kinds"]) == ["several functions", "one call"]
    assert list(several["splits"]) == ["report", "tune"]
    assert [table.heading[0] for table in told.tables] == ["several calls"]


def test_a_file_of_both_kinds(tmp_path: Path) -> None:
    turns = [{"text": "Honk twice.", "arguments": {"times": [2]}}]
    line = {"tool": HONK, "split": "tune", "calls": turns, "lacking": []}
    cases = read_tool_cases(write(tmp_path, BODY, line))
    assert [case.id for case in cases] == ["honk/1", "boxes"]
    assert isinstance(cases[1], SeveralCase)
    steps: list[Step] = [script(("honk", {"times": 2})), script(*first_of(cases[1]))]
    journal = Journal(tmp_path / "out", {}, row_from_json)
    told = suite.tools(ScriptedModel(steps), cases, journal=journal)
    assert told.verdicts == {"honk/1": True, "boxes": True}
    assert (told.scores["right"], told.scores["several_right"]) == (1, 1)
    assert [table.heading[0] for table in told.tables] == [
        "calls", "arguments", "missing arguments", "several calls"]  # fmt: skip
    again = suite.tools(ScriptedModel([]), cases, journal=Journal(tmp_path / "out", {}, row_from_json))
    assert again == told


def test_the_embedded_model(smollm: LocalModel) -> None:
    told = suite.tools(smollm, read_tool_cases(DATA / "several.jsonl", "tune", limit=2))
    assert told.scores["several_valid"] == 1
    assert told.summary["several"]["passes_per_message"] > 0
