"""A stand-in for the package bfcl-eval, laid out like it, with cases of this project's own and a plain checker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BIKE = {
    "name": "shop.rent_bike",
    "description": "Rent a bicycle.",
    "parameters": {
        "type": "dict",
        "properties": {
            "hours": {"type": "float", "description": "For how many hours."},
            "kind": {"type": "string", "enum": ["city", "cargo"], "default": "city", "optional": True},
        },
        "required": ["hours"],
    },
}
BELL = {
    "name": "ring",
    "description": "Ring the bell.",
    "parameters": {
        "type": "dict",
        "properties": {"times": {"type": "integer", "description": "How many times to ring."}},
        "required": ["times"],
    },
}
CASES: dict[str, list[tuple[str, list[Any], list[Any]]]] = {
    "simple_python": [
        ("Ring the bell 3 times.", [BELL], [{"ring": {"times": [3]}}]),
        ("Please ring 12 times.", [BELL], [{"ring": {"times": [12]}}]),
    ],
    "multiple": [("Rent a cargo bike for 2.5 hours.", [BIKE, BELL], [{"shop.rent_bike": {"hours": [2.5]}}])],
    "parallel": [
        ("Ring 2 times, then 5 times.", [BELL], [{"ring": {"times": [2]}}, {"ring": {"times": [5]}}])
    ],
    "parallel_multiple": [
        (
            "Rent a bike for 3 hours and ring 4 times.",
            [BIKE, BELL],
            [{"shop.rent_bike": {"hours": [3]}}, {"ring": {"times": [4]}}],
        )
    ],
    "irrelevance": [("Who wrote Hamlet?", [BELL], []), ("What is the capital of Peru?", [BIKE], [])],
    "live_relevance": [("The bell, once.", [BELL], [])],
}
"""Question, functions, and the calls that are right, by category."""
CHECKER = """
from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING


def ast_checker(functions, calls, truth, language, category, model):
    assert not MODEL_CONFIG_MAPPING[model].underscore_to_dot
    if len(calls) != len(truth):
        return {"valid": False, "error": [], "error_type": "count"}
    for call in calls:
        (name, values), = call.items()
        right = [answer[name] for answer in truth if name in answer]
        if not any(values.get(key) in accepted for answer in right for key, accepted in answer.items()):
            return {"valid": False, "error": [], "error_type": "value"}
    return {"valid": True, "error": []}
"""


def install(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make it the package that is imported, until the test ends; then `forget` it."""
    root = folder / "bfcl_eval"
    for path, text in {
        "__init__.py": "",
        "constants/__init__.py": "",
        "constants/enums.py": "from enum import Enum\n\n\nclass Language(Enum):\n    PYTHON = 'python'\n",
        "constants/model_config.py": "raise ImportError('the client of some vendor')\n",
        "eval_checker/__init__.py": "",
        "eval_checker/ast_eval/__init__.py": "",
        "eval_checker/ast_eval/ast_checker.py": CHECKER,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "data" / "possible_answer").mkdir(parents=True)
    for category, cases in CASES.items():
        asked, answers = [], []
        for n, (question, functions, truth) in enumerate(cases):
            id = f"{category}_{n}"
            messages = [[{"role": "user", "content": question}]]
            asked.append({"id": id, "question": messages, "function": functions})
            answers.append({"id": id, "ground_truth": truth})
        name = f"BFCL_v4_{category}.json"
        (root / "data" / name).write_text("\n".join(map(json.dumps, asked)) + "\n")
        if any(truth for _, _, truth in cases):
            (root / "data" / "possible_answer" / name).write_text("\n".join(map(json.dumps, answers)))
    patch.syspath_prepend(folder)
    for name in imported():
        patch.delitem(sys.modules, name)


def forget() -> None:
    """What was imported of it."""
    for name in imported():
        del sys.modules[name]


def imported() -> list[str]:
    """Modules of the package, whichever it is."""
    return [name for name in sys.modules if name.partition(".")[0] == "bfcl_eval"]
