"""Write docs/benchmarks.md from the JSON files in docs/benchmarks/.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEAD = """# Benchmarks

Written by `python benchmarks/report.py` from the JSON files in `docs/benchmarks/`; every figure comes from a run.
Absolute times drift between machines: compare rows of one table only. No figure has been taken on a GPU.
"""


def load(name: str) -> Any:
    return json.loads((DOCS / "benchmarks" / name).read_text(encoding="utf-8"))


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def speed() -> str:
    body = load("speed.json")
    machine = body["machine"]
    rows = [(name, row["decode"], row["prefill"]) for name, row in body["tokens_per_second"].items()]
    return (
        "## Speed of SmolLM2-135M\n\n"
        f"{machine['cpu']} CPU, {machine['threads']} threads, torch {machine['torch']}; greedy, "
        f"{body['tokens']} tokens decoded after a prompt of 64, a prompt of {body['prefill_tokens']} prefilled; "
        "median of the runs. Reproduce: `python benchmarks/speed.py`.\n\n"
        + table(("engine", "decode tok/s", "prefill tok/s"), rows)
    )


def bfcl() -> str:
    body = load("bfcl.json")
    rows: list[tuple[object, ...]] = []
    for mode, row in body["modes"].items():
        parsed, right, n = row["parsable"], row["correct"], row["cases"]
        rows.append(
            (mode, n, f"{parsed} ({parsed / n:.1%})", f"{right} ({right / n:.1%})", row["forward_passes"])
        )
    return (
        f"## Berkeley function-calling data, {body['category']}\n\n"
        f"The embedded model without adapter, {body['quantization']} under the grammar, the same prompt; "
        "evaluation only. Correct by the leaderboard's AST "
        "checker. Reproduce: `python benchmarks/bfcl.py`.\n\n"
        + table(("decoding", "cases", "parsable", "correct", "forward passes per case"), rows)
    )


def routing() -> str:
    rows: list[tuple[object, ...]] = list(load("routing.json").items())
    return (
        "## Routing and abstention\n\n"
        "Reporting halves of `tests/data/routing.jsonl` and `tests/data/knowledge_questions.jsonl`; a question counts "
        "for abstention as right if it goes to the knowledge base exactly where the knowledge base answers it. The "
        "stress set is made mostly of near misses: questions in the shop's own words about facts that no document "
        "states. It was held out at first; since abstention was fitted anew it trains too, but for the questions that "
        "ask what a report question asks. Cross-validated rows are over the training halves: each turn, or question by "
        "kind, under weights fitted without its tenth. Reproduce: `python benchmarks/tune_routing.py`.\n\n"
        + table(("what", "right"), rows)
    )


def main() -> None:
    text = "\n\n".join((HEAD.strip(), speed(), bfcl(), routing())) + "\n"
    (DOCS / "benchmarks.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
