"""Answers from the starter's knowledge base: `agentkit eval rag` over the report split of tests/data/rag.jsonl.

    python benchmarks/rag.py                     # prints the tables, writes docs/benchmarks/rag.json

The rows are kept in ``build/rag``, with a page of plots; a run that was stopped goes on from there.
"""

from __future__ import annotations

import json
import subprocess
import sys

from machine import ROOT, write
from tune_abstention import fitted_on


def main() -> None:
    out = ROOT / "build" / "rag"
    data = ROOT / "tests" / "data" / "rag.jsonl"
    command = ["-m", "agentkit", "eval", "rag", "--data", str(data), "--split", "report", "--out", str(out)]
    subprocess.run([sys.executable, *command], check=True)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    told = {"dense_asked": "as the agent understands it", "abstention_fitted_on": fitted_on()}
    write("rag.json", {**told, **summary})


if __name__ == "__main__":
    main()
