"""What the adapter that comes with agentkit brings: tool calls with it and without, on the same cases.

python benchmarks/shipped.py [--limit N]       # prints the result, writes docs/benchmarks/shipped.json

Needs bfcl-eval. The Berkeley cases are the first N of each category, failures among which were read while the evidence
for arguments was made (docs/decisions/arguments.md), and N others of those that need calls, which nobody has looked at;
of our own sets the halves that nothing was tuned by. Calls are required where a case needs one, and where none is
needed the model decides. Under ``auto`` it is the model as `load_model` gives it: without the adapter its router.
"""

from __future__ import annotations

import argparse
from typing import Any

from machine import ROOT, positive, write

from agentkit import load_model
from agentkit.evaluation import suite
from agentkit.evaluation.bfcl import FOUR, UNNEEDED
from agentkit.evaluation.toolset import read_tool_cases

DATA = ROOT / "tests" / "data"
UNNEEDED_ONE = UNNEEDED[0]
READ = {"simple_python": 200}
"""Of how many cases failures have been read, where it is more than of the first N."""


def measured(adapter: str, limit: int) -> dict[str, Any]:
    """Every figure with one adapter: share, interval and cases."""
    alone = load_model("smollm2-135m", adapter=adapter, router=None)
    told = suite.bfcl(alone, limit, categories=[*FOUR, UNNEEDED_ONE]).summary
    unseen = {
        name: suite.bfcl(alone, limit, categories=[name], offset=max(limit, READ.get(name, 0))).summary
        for name in FOUR
    }
    found = {name: body["right"] for name, body in told["categories"].items()}
    found |= {f"{name}, {limit} others": body["categories"][name]["right"] for name, body in unseen.items()}
    auto = suite.bfcl(
        load_model("smollm2-135m", adapter=adapter),
        limit,
        categories=[*FOUR, UNNEEDED_ONE],
        tool_choice="auto",
    ).summary
    found |= {f"{name}, under auto": body["right"] for name, body in auto["categories"].items()}
    found["a call where one is needed, under auto"] = auto["recall"]
    own = suite.tools(alone, read_tool_cases(DATA / "tools.jsonl", "report")).summary
    several = suite.tools(alone, read_tool_cases(DATA / "several.jsonl", "report")).summary["several"]
    found |= {"own calls": own["right"], "own messages with several calls": several["right"]}
    average = sum(body["categories"][name]["right"]["value"] for name, body in unseen.items()) / len(FOUR)
    return {"average": told["average"], "average_unseen": average, "cases": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=positive, default=100, help="cases of each Berkeley category")
    limit = parser.parse_args().limit
    body: dict[str, Any] = {}
    for adapter in ("none", "shipped"):
        body[adapter] = measured(adapter, limit)
        for name, found in body[adapter]["cases"].items():
            print(f"{adapter:<8} {name:<34} {found['value']:.1%} of {found['count']}", flush=True)
    write("shipped.json", {"limit": limit, "adapters": body})


if __name__ == "__main__":
    main()
