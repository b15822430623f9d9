"""Answers from the starter's knowledge base: `agentkit eval rag` over the report split of tests/data/rag.jsonl.

    python benchmarks/rag.py                     # prints the tables, writes docs/benchmarks/rag.json

Once with the default embedder, once with the larger one. The rows are kept in ``build/rag`` and ``build/rag-mpnet``,
with a page of plots each; a run that was stopped goes on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from machine import ROOT, write
from tune_abstention import fitted_on

LARGER = "mpnet"


def evaluated(embedder: str, folder: str) -> dict[str, Any]:
    """The summary with an embedder."""
    out = ROOT / "build" / folder
    data = ROOT / "tests" / "data" / "rag.jsonl"
    command = ["-m", "agentkit", "eval", "rag", "--data", str(data), "--split", "report", "--out", str(out)]
    environment = {**os.environ, "AGENTKIT_KNOWLEDGE__EMBEDDER": embedder}
    subprocess.run([sys.executable, *command], check=True, env=environment)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {"abstention_fitted_on": fitted_on(embedder), **summary}


def main() -> None:
    told = {"dense_asked": "as the agent understands it"}
    larger = evaluated(LARGER, f"rag-{LARGER}")
    write("rag.json", {**told, **evaluated("minilm", "rag"), LARGER: larger})


if __name__ == "__main__":
    main()
