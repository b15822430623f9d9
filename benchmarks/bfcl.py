"""Berkeley function-calling data: agentkit's grammar with and without evidence, xgrammar, and unconstrained.

    python benchmarks/bfcl.py                    # everything: prints a table, writes docs/benchmarks/bfcl.json
    python benchmarks/bfcl.py --category parallel --mode grammar --limit 20
    python benchmarks/bfcl.py --report           # only report the rows there are

The first 200 cases of each category, and the second 200 of simple_python. Nothing is trained on them. The rows file
is appended to case by case, so a run that was stopped goes on where it was, if code and weights are the same; a run of
everything removes the file in the end. Correctness is decided by the leaderboard's own AST checker, validity by
jsonschema. Whether several calls are wanted is told from the category, as no request says it: both grammars allow
several in ``parallel`` and one elsewhere, of free text all calls count. xgrammar's masks are timed on the first cases,
which run one by one as agentkit's do.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bfcl_engines import MODEL, Prompt, engine
from machine import ROOT, positive, version, write

from agentkit.evaluation.bfcl import Case, load, load_checker
from agentkit.evaluation.calls import are_valid
from agentkit.evaluation.journal import digest

REST = " 201-400"
"""Marks the cases after the first 200. Failures among the first 200 of simple_python were read while the evidence was
made (docs/decisions/arguments.md), nobody has looked at these."""
CATEGORIES = ("simple_python", f"simple_python{REST}", "multiple", "parallel")
MODES = ("unconstrained", "xgrammar", "bare", "grammar")
BATCH = 16
TIMED = 25
"""Cases that xgrammar runs one by one, for the time of its masks."""
Row = dict[str, Any]


def load_cases(category: str, limit: int) -> list[Case]:
    """Cases of a category, the first or those after the first 200."""
    return load(category.removesuffix(REST), limit, 200 if category.endswith(REST) else 0)


def code() -> str:
    """A digest of agentkit and of the engines beside it: uncommitted changes count too."""
    files = [path for suffix in ("*.py", "*.json") for path in (ROOT / "agentkit").rglob(suffix)]
    return digest([*files, *Path(__file__).parent.glob("bfcl*.py")])


def read(file: Path) -> list[Row]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def run(category: str, mode: str, limit: int, out: Path, quantize: str) -> None:
    """Append a row for each case that has none yet.

    Raises:
        SystemExit: The file holds rows of other code or weights.
    """
    rows = read(out) if out.exists() else []
    versions = " ".join(f"{peer} {version(peer)}" for peer in ("transformers", "xgrammar", "bfcl-eval"))
    made_by = {"code": code(), "quantize": quantize, "versions": versions}
    if any(row.get(key) != value for row in rows for key, value in made_by.items()):
        raise SystemExit(
            f"{out} holds rows of other code, weights or versions: delete it, or name another file with --out"
        )
    done = {row["id"] for row in rows if row["category"] == category and row["mode"] == mode}
    cases = {case.id: case for case in load_cases(category, limit)}
    prompts = [
        Prompt(name, case.messages, case.tools, case.parallel, case.budget) for name, case in cases.items()
    ]
    timed = {prompt.id for prompt in prompts[: TIMED if mode == "xgrammar" else 0]}
    missing = [prompt for prompt in prompts if prompt.id not in done]
    if not missing:
        return
    from agentkit import load_model

    model = load_model(MODEL, adapter="none", quantize=quantize)
    weights = model.info()["quantization"] if mode in ("grammar", "bare") else "bfloat16"
    answers, check = engine(mode, model), load_checker()
    if mode != "unconstrained":
        list(answers(prompts[:1], 1))  # machine code is loaded before anything is timed
    with out.open("a", encoding="utf-8") as file:
        for batch, chosen in (
            (1, [prompt for prompt in missing if prompt.id in timed]),
            (BATCH, [prompt for prompt in missing if prompt.id not in timed]),
        ):
            for outcome in answers(chosen, batch):
                case = cases[outcome.id]
                row = {
                    **{"category": category, "mode": mode, "weights": weights, **made_by},
                    **{"parsed": bool(outcome.calls), "correct": not check(case, outcome.calls)},
                    **{"valid": bool(outcome.calls) and are_valid(outcome.calls, case.tools)},
                    **asdict(outcome),
                }
                file.write(json.dumps(row) + "\n")
                file.flush()


def summary(rows: list[Row]) -> Row:
    """The figures of one engine in one category."""
    answered = [row for row in rows if row["calls"]]
    calls = sum(len(row["calls"]) for row in answered)
    body: Row = {
        "weights": rows[0]["weights"],
        "cases": len(rows),
        **{key: sum(row[key] for row in rows) for key in ("parsed", "valid", "correct", "cut")},
        "calls": calls,
        "passes_per_case": round(sum(row["passes"] for row in rows) / len(rows), 1),
        "passes_per_call": round(sum(row["passes"] for row in answered) / calls, 1) if calls else None,
        "seconds_per_case": round(sum(row["seconds"] for row in rows) / len(rows), 3),
    }
    timed = [row for row in rows if row["span"]]
    if timed:
        span, within = sum(row["span"] for row in timed), sum(sum(row["masks"][:-1]) for row in timed)
        body["mask"] = {
            "cases": len(timed),
            # The first pass, the prompt's, is over before the first mask.
            "step_us": round(1e6 * span / sum(row["passes"] - 1 for row in timed)),
            "share": round(within / span, 4),
        }
    return body


def report(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Print and return the figures by category and engine."""
    found: dict[str, dict[str, Row]] = {}
    print(
        "| category | decoding | cases | valid | correct | passes a case / a call | masks of a pass, share of a step |"
    )
    print("|---|---|---|---|---|---|---|")
    for category in CATEGORIES:
        for mode in MODES:
            own = [row for row in rows if row["category"] == category and row["mode"] == mode]
            if not own:
                continue
            body = found.setdefault(category, {})[mode] = summary(own)
            mask = body.get("mask")
            share = f"{mask['share'] * mask['step_us']:.0f} µs, {mask['share']:.1%}" if mask else "–"
            print(
                f"| {category} | {mode} | {body['cases']} | {body['valid']} | {body['correct']} | "
                f"{body['passes_per_case']} / {body['passes_per_call'] or '–'} | {share} |"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--category", choices=CATEGORIES, help="only this one")
    parser.add_argument("--mode", choices=MODES, help="only this engine")
    parser.add_argument("--limit", type=positive, default=200, help="cases of each category")
    parser.add_argument("--quantize", default="auto", help="agentkit's weights; the others have bfloat16")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bfcl.jsonl", help="the rows file")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument(
        "--write", action="store_true", help="write docs/benchmarks/bfcl.json from a part too"
    )
    options = parser.parse_args()
    everything = not (options.category or options.mode or options.report)
    if not options.report:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        for category in [options.category] if options.category else CATEGORIES:
            for mode in [options.mode] if options.mode else MODES:
                run(category, mode, options.limit, options.out, options.quantize)
    if not options.out.exists():
        parser.error(f"there are no rows in {options.out}: run without --report first")
    found = report(read(options.out))
    if everything or options.write:
        write("bfcl.json", {"categories": found})
    if everything:
        options.out.unlink()


if __name__ == "__main__":
    main()
