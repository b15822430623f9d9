"""Berkeley function-calling data, simple_python: the same prompt with and without the grammar. Evaluation only.

    pip install --no-deps bfcl-eval==2026.3.23
    python benchmarks/bfcl.py --mode grammar --limit 400 --out rows.jsonl
    python benchmarks/bfcl.py --mode unconstrained --limit 400 --out rows.jsonl
    python benchmarks/bfcl.py --report rows.jsonl

The rows file is appended to case by case, so a run that was stopped goes on where it was. Correctness is decided by
the leaderboard's own AST checker.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CATEGORY = "simple_python"
MODES = ("grammar", "unconstrained")
LIMIT = 160
"""Tokens a call may have."""
BATCH = 16
Call = tuple[str, dict[str, Any]]
TYPES = {"dict": "object", "float": "number", "tuple": "array"}


def checker() -> Any:
    """The leaderboard's AST checker; its model table is not needed and pulls in every vendor's client."""
    stub = types.ModuleType("bfcl_eval.constants.model_config")
    names = type(
        "Names", (dict,), {"__missing__": lambda self, key: types.SimpleNamespace(underscore_to_dot=False)}
    )
    stub.MODEL_CONFIG_MAPPING = names()  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = stub
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    return lambda functions, calls, truth: ast_checker(
        functions, calls, truth, Language.PYTHON, CATEGORY, "agentkit"
    )["valid"]


def load(limit: int) -> list[dict[str, Any]]:
    import bfcl_eval

    data = Path(bfcl_eval.__file__).parent / "data"
    name = f"BFCL_v4_{CATEGORY}.json"
    cases = [json.loads(line) for line in (data / name).read_text(encoding="utf-8").splitlines()]
    answers = [
        json.loads(line)
        for line in (data / "possible_answer" / name).read_text(encoding="utf-8").splitlines()
    ]
    truth = {answer["id"]: answer["ground_truth"] for answer in answers}
    return [{**case, "truth": truth[case["id"]]} for case in cases[:limit]]


def schema_of(node: Any) -> Any:
    """The leaderboard's type names as JSON schema."""
    if isinstance(node, list):
        return [schema_of(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: schema_of(value) for key, value in node.items() if key not in ("default", "optional")}
    if isinstance(made.get("type"), str):
        if made["type"] == "any":
            del made["type"]
        else:
            made["type"] = TYPES.get(made["type"], made["type"])
    return made


def parse(text: str) -> Call | None:
    """The first JSON object with a name and arguments in free text."""
    for match in re.finditer(r"\{", text):
        try:
            body, _ = json.JSONDecoder().raw_decode(text[match.start() :])
        except ValueError:
            continue
        arguments = body.get("arguments", body.get("parameters"))
        if isinstance(body.get("name"), str) and isinstance(arguments, dict):
            return body["name"], arguments
    return None


def tools_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": f["name"], "description": f["description"], "parameters": schema_of(f["parameters"])}
        for f in case["function"]
    ]


def under_grammar(
    model: Any, cases: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Call | None, int]]:
    """(case, call, forward passes), one by one on agentkit's engine."""
    for case in cases:
        reply = model.chat(
            case["question"][0], tools=tools_of(case), tool_choice="required", max_new_tokens=LIMIT
        )
        call = (reply.tool_calls[0].name, reply.tool_calls[0].arguments) if reply.tool_calls else None
        yield case, call, reply.usage.forward_passes


def unconstrained(
    model: Any, cases: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Call | None, int]]:
    """The same prompts through plain greedy `generate` of transformers, in batches."""
    import torch

    rendered = [model.render(case["question"][0], tools_of(case)) for case in cases]
    order = sorted(range(len(cases)), key=lambda n: len(rendered[n]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        width = max(len(rendered[n]) for n in chosen)
        pad = model.tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (width - len(rendered[n])) + rendered[n] for n in chosen])
        mask = torch.tensor([[0] * (width - len(rendered[n])) + [1] * len(rendered[n]) for n in chosen])
        out = model.hf_model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=LIMIT, do_sample=False, pad_token_id=pad
        )
        for n, row in zip(chosen, out[:, width:].tolist(), strict=True):
            length = row.index(pad) + 1 if pad in row else len(row)
            yield cases[n], parse(model.tokenizer.decode(row[:length], skip_special_tokens=True)), length


def run(mode: str, limit: int, out: Path, quantize: str) -> None:
    from agentkit import load_model

    model = load_model(adapter="none", quantize=quantize if mode == "grammar" else "none")
    check = checker()
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {row["id"] for row in rows if row["mode"] == mode}
    cases = [case for case in load(limit) if case["id"] not in done]
    with out.open("a", encoding="utf-8") as file:
        for case, call, passes in (under_grammar if mode == "grammar" else unconstrained)(model, cases):
            correct = bool(call) and bool(check(case["function"], [{call[0]: call[1]}], case["truth"]))
            row = {"id": case["id"], "mode": mode, "parsed": bool(call), "correct": correct, "call": call}
            file.write(json.dumps({**row, "forward_passes": passes}) + "\n")
            file.flush()


def report(out: Path, summary: Path | None, quantize: str) -> None:
    """Print the share of parsable and of correct calls by mode; write them to ``summary`` as JSON too."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    body: dict[str, dict[str, float]] = {}
    for mode in MODES:
        own = [row for row in rows if row["mode"] == mode]
        if own:
            parsed, correct = sum(row["parsed"] for row in own), sum(row["correct"] for row in own)
            passes = sum(row["forward_passes"] for row in own) / len(own)
            body[mode] = {
                "cases": len(own),
                "parsable": parsed,
                "correct": correct,
                "forward_passes": round(passes, 1),
            }
            print(
                f"{mode:<14} {len(own)} cases, parsable {parsed} ({parsed / len(own):.1%}), "
                f"correct {correct} ({correct / len(own):.1%}), {passes:.1f} forward passes per case"
            )
    if summary is not None:
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(
            json.dumps({"category": CATEGORY, "modes": body}, indent=1) + "\n", encoding="utf-8"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--quantize", default="auto")
    parser.add_argument("--out", type=Path, default=Path("bfcl.jsonl"))
    parser.add_argument("--report", type=Path, help="only report the rows of this file")
    parser.add_argument("--summary", type=Path, help="write the report as JSON too")
    options = parser.parse_args()
    if options.mode:
        run(options.mode, options.limit, options.out, options.quantize)
    report(options.report or options.out, options.summary, options.quantize)


if __name__ == "__main__":
    main()
