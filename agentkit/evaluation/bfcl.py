"""The Berkeley function-calling leaderboard: its cases, and its own checker of calls.

Data and checker are those of the package ``bfcl-eval`` (Patil et al., The Berkeley Function Calling Leaderboard,
ICML 2025). They are for evaluation only: nothing may be trained on them.

Whether several calls are wanted is told from the category, as no request says it: a grammar lets a model make several
in the categories named ``parallel`` and one elsewhere. That is a hint, which a model without such a grammar does not
have. Calls in free text are all kept, so that the checker's own rule about their number applies.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.errors import MissingBackendError, UsageError
from agentkit.evaluation.calls import Call
from agentkit.messages import ToolSpec

REQUIREMENT = "bfcl-eval==2026.3.23"
"""Installed without what it names: clients of every vendor, which neither data nor checker need."""
FOUR = ("simple_python", "multiple", "parallel", "parallel_multiple")
"""Those whose average is reported."""
CALLING = (*FOUR, "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
"""Calls are needed."""
UNNEEDED = ("irrelevance", "live_irrelevance")
"""No function helps: right is to call none."""
CATEGORIES = (*CALLING, *UNNEEDED, "live_relevance")
"""All that are known. In the last, right is to call anything."""
_MODEL = "agentkit"
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
_BUDGET, _PARALLEL_BUDGET = 160, 400


@dataclass(frozen=True, slots=True)
class Case:
    """One question with the functions on offer."""

    id: str
    category: str
    messages: tuple[dict[str, Any], ...]
    functions: tuple[dict[str, Any], ...]
    """As the leaderboard describes them."""
    truth: tuple[dict[str, Any], ...]
    """The calls that are right; none where nothing is checked but whether there is a call."""

    @property
    def tools(self) -> list[ToolSpec]:
        """The functions as tools."""
        return [
            ToolSpec(body["name"], body["description"], schema_of(body["parameters"]))
            for body in self.functions
        ]

    @property
    def parallel(self) -> bool:
        """Several calls are wanted, as the category tells."""
        return "parallel" in self.category

    @property
    def budget(self) -> int:
        """Tokens that an answer may have."""
        return _PARALLEL_BUDGET if self.parallel else _BUDGET


Checker = Callable[[Case, Sequence[Call]], str]
"""The kind of error in the calls of a case; empty if they are right."""


def load(category: str, limit: int | None = None, offset: int = 0) -> list[Case]:
    """Cases of a category, in the leaderboard's order.

    Raises:
        MissingBackendError: The package is not installed.
        UsageError: There is no such category, or it has no cases behind ``offset``.
    """
    if category not in CATEGORIES:
        raise UsageError(f"there is no category {category!r}", f"the categories are {', '.join(CATEGORIES)}")
    truth = {}
    if category in CALLING:
        answers = _read(data_file(category, "possible_answer"))
        truth = {answer["id"]: tuple(answer["ground_truth"]) for answer in answers}
    bodies = _read(data_file(category))
    chosen = bodies[offset:][:limit]
    if not chosen:
        raise UsageError(f"{category} has {len(bodies)} cases, none behind {offset}", "lower --offset")
    return [
        Case(
            body["id"],
            category,
            tuple(body["question"][0]),
            tuple(body["function"]),
            truth[body["id"]] if truth else (),
        )
        for body in chosen
    ]


def data_file(category: str, folder: str = "") -> Path:
    """Where a category's cases lie, or under ``possible_answer`` what is right.

    Raises:
        MissingBackendError: The package is not installed.
    """
    found = importlib.util.find_spec("bfcl_eval")
    if found is None or found.origin is None:
        cause = "the Berkeley function-calling data is not installed"
        raise MissingBackendError(cause, f"pip install --no-deps {REQUIREMENT}")
    return Path(found.origin).parent / "data" / folder / f"BFCL_v4_{category}.json"


def load_checker() -> Checker:
    """The leaderboard's AST checker, for Python; where nothing can be checked, whether there is a call.

    Raises:
        MissingBackendError: The package is not installed, or not all of it.
    """
    data_file(FOUR[0])
    try:
        with _without_clients():
            from bfcl_eval.constants.enums import Language
            from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    except ImportError as error:
        cause = f"the checker of bfcl-eval cannot be imported ({error})"
        raise MissingBackendError(cause, f"pip install --no-deps --force-reinstall {REQUIREMENT}") from error

    def check(case: Case, calls: Sequence[Call]) -> str:
        if case.category not in CALLING:
            wanted = case.category not in UNNEEDED
            return "" if bool(calls) == wanted else "no_call" if wanted else "called"
        if not calls:
            return "no_call"
        written, truth = [{name: arguments} for name, arguments in calls], list(case.truth)
        try:
            verdict = ast_checker(
                list(case.functions), written, truth, Language.PYTHON, case.category, _MODEL
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # It does not expect every shape of arguments that free text may hold; none of those is right.
            return f"checker:{type(error).__name__}"
        return "" if verdict["valid"] else str(verdict["error_type"])

    return check


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
            if made["type"] == "float":  # as the leaderboard's own handlers put it
                made["format"] = "float"
            made["type"] = _TYPES.get(made["type"], made["type"])
    return made


@contextmanager
def _without_clients() -> Iterator[None]:
    """The checker's table of models, which pulls in every vendor's client, replaced by one without special cases."""
    name = "bfcl_eval.constants.model_config"
    before = sys.modules.get(name)
    stub = types.ModuleType(name)
    plain = types.SimpleNamespace(underscore_to_dot=False)
    setattr(stub, "MODEL_CONFIG_MAPPING", {_MODEL: plain})  # noqa: B010  # unknown to the type of modules
    sys.modules[name] = stub
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
