"""What each part of the evidence brings to the arguments of calls, on the 220 calls of `tests/data/tools.jsonl`.

    python benchmarks/arguments.py              # prints a table, writes docs/benchmarks/arguments.json
    python benchmarks/arguments.py --wrong      # also the wrong arguments of the tuning half

The first line is the grammar alone; the last has everything. In between, everything but one part. The calls over
one half of the tools were looked at while the parts were made (tuning), those over the others were not (reporting).
Beside it, how often turns that lack a required argument are asked about, by half too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from machine import ROOT, write

from agentkit import load_model
from agentkit.evaluation.toolset import ToolCase, read_tool_cases
from agentkit.evaluation.toolset_run import BUDGET
from agentkit.llm import evidence as module
from agentkit.llm import fits, guide
from agentkit.llm.missing import missing_arguments
from agentkit.llm.spans import Span

DATA = ROOT / "tests" / "data" / "tools.jsonl"


HALVES = {"tuning": "tune", "reporting": "report"}


@contextmanager
def changed(names: dict[str, Any]) -> Iterator[None]:
    """Names of the modules, replaced for a while; ``STRUCTURE`` only where it weighs what is written."""
    owners = [
        (owner, name)
        for name in names
        for owner in ((guide,) if name == "STRUCTURE" else (fits, module))
        if name in vars(owner)
    ]
    if {name for _, name in owners} != set(names):
        raise KeyError(f"no module of the evidence has all of {sorted(names)}")
    before = [(owner, name, getattr(owner, name)) for owner, name in owners]
    for owner, name in owners:
        setattr(owner, name, names[name])
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def without(*kinds: str) -> Callable[[str], list[Span]]:
    """The spans of a text but for some kinds."""
    spans = module.spans
    return lambda text: [span for span in spans(text) if span.kind not in kinds]


def plain_number(slot: Any, span: Span) -> int | float:
    """A number as it stands, whatever its unit."""
    value: int | float = span.value
    return value


PARTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "without numbers": {"spans": without("number")},
    "without dates and times": {"spans": without("date", "time")},
    "without names, quotes and phrases": {"spans": without("name", "quoted", "phrase", "formula")},
    "without codes, paths and addresses": {"spans": without("code", "path", "email")},
    "without units and percentages": {"converted": plain_number},
    "without the words around a span": {"_cues": lambda *_: 0.0},
    "without one span for one parameter": {"_assign": lambda *_: None},
    "without leaving out and putting in": {"STRUCTURE": 0.0},
}


def run(model: Any, cases: list[ToolCase], *, evidence: bool, wrong: bool = False) -> dict[str, float]:
    """Share of right calls by half, and forward passes per call."""
    right = {"tune": 0, "report": 0}
    passes = 0
    for case in cases:
        completion = model.chat(
            [{"role": "user", "content": case.text}],
            tools=[case.tool],
            tool_choice="required",
            max_new_tokens=BUDGET,
            turn=None if evidence else "",
        )
        passes += completion.usage.forward_passes
        arguments = completion.tool_calls[0].arguments if completion.tool_calls else {}
        faults = case.wrong(arguments)
        right[case.split] += not faults
        if wrong and case.split == "tune" and faults:
            print(f"  {case.tool.name}: {case.text} {faults}")
    total = {half: sum(case.split == half for case in cases) for half in right}
    return {
        "tuning": round(right["tune"] / total["tune"], 4),
        "reporting": round(right["report"] / total["report"], 4),
        "all": round(sum(right.values()) / len(cases), 4),
        "forward_passes": round(passes / len(cases), 1),
    }


def questions(cases: list[ToolCase], lacking: list[ToolCase]) -> dict[str, dict[str, int]]:
    """By half: how often a missing argument is noticed, and how often one is missed that is there."""
    found = {}
    for half, split in HALVES.items():
        missing = [(missing_arguments(case.tool, case.text), case) for case in lacking if case.split == split]
        complete = [missing_arguments(case.tool, case.text) for case in cases if case.split == split]
        found[half] = {
            "lacking": len(missing),
            "asked": sum(bool(names) for names, _ in missing),
            "asked_for_exactly_those": sum(names == list(case.missing) for names, case in missing),
            "complete": len(complete),
            "asked_without_cause": sum(map(bool, complete)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wrong", action="store_true", help="print the wrong arguments of the tuning half")
    options = parser.parse_args()
    everything, model = read_tool_cases(DATA), load_model(adapter="none")
    cases, lacking = ([case for case in everything if bool(case.missing) is lack] for lack in (False, True))
    rows = {"grammar alone": run(model, cases, evidence=False)}
    for name, names in PARTS.items():
        with changed(names):
            rows[name] = run(model, cases, evidence=True, wrong=options.wrong and not names)
    for name, row in rows.items():
        print(f"{name:<36} {row}")
    write("arguments.json", {"calls": len(cases), "parts": rows, "questions": questions(cases, lacking)})


if __name__ == "__main__":
    main()
