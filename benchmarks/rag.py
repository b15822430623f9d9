"""Answers from the starter's knowledge base: `agentkit eval rag` over the report split of tests/data/rag.jsonl.

    python benchmarks/rag.py                     # prints the tables, writes docs/benchmarks/rag.json

As it comes, without the adapter of the model, with the larger embedder, and with that and the model that judges
passages as reranker. The rows are kept in ``build/rag`` and ``build/rag-NAME``, with a page of plots each; a run that
was stopped goes on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from machine import ROOT, write
from tune_abstention import fitted_on

from agentkit.llm.reading import CHAT

DEFAULT = "default"
RUNS = {
    DEFAULT: ("minilm", "", "auto"),
    "untuned": ("minilm", "", "none"),
    "mpnet": ("mpnet", "", "auto"),
    "judged": ("mpnet", "qwen2.5-coder-1.5b", "auto"),
}
"""Embedder, reranker and the model's adapter by the name of the run."""


def evaluated(name: str) -> dict[str, Any]:
    """The summary of a run."""
    out = ROOT / "build" / ("rag" if name == DEFAULT else f"rag-{name}")
    data = ROOT / "tests" / "data" / "rag.jsonl"
    command = ["-m", "agentkit", "eval", "rag", "--data", str(data), "--split", "report", "--out", str(out)]
    embedder, reranker, adapter = RUNS[name]
    chosen = {
        "AGENTKIT_KNOWLEDGE__EMBEDDER": embedder,
        "AGENTKIT_KNOWLEDGE__RERANKER": reranker,
        "AGENTKIT_ADAPTER": adapter,
    }
    subprocess.run([sys.executable, *command], check=True, env={**os.environ, **chosen})
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {"abstention_fitted_on": fitted_on(embedder, reranker or CHAT), **summary}


def main() -> None:
    found = {name: evaluated(name) for name in RUNS}
    body = {"dense_asked": "as the agent understands it", **found.pop(DEFAULT), **found}
    write("rag.json", body)


if __name__ == "__main__":
    main()
