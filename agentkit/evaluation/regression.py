"""The regression suites: labelled cases about the starter project, which come with agentkit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from agentkit.evaluation.lines import round_robin
from agentkit.evaluation.questions import Question, read_questions
from agentkit.evaluation.routing import Turn, read_turns
from agentkit.evaluation.toolset import ToolCase, read_tool_cases
from agentkit.project import starter_root, suites_dir

SPLIT = "report"
"""The half of each suite on which no weights are fitted."""


@dataclass(frozen=True, slots=True)
class Cases:
    """What base and adapter are asked."""

    turns: Sequence[Turn]
    questions: Sequence[Question]
    calls: Sequence[ToolCase]


def read_cases(tools: Sequence[str], limit: int, *, lacking: bool) -> Cases:
    """The first cases of each suite; going round routes, kinds of questions and tools, so that few are of all kinds.

    Args:
        tools: Names of the starter project's tools.
        limit: Cases of each suite at most.
        lacking: Also turns that leave out an argument. Unless the model decides whether to call, agentkit itself asks
            for it, and they say nothing about the model.

    Raises:
        ProjectError: The installation lacks the suites.
    """
    folder = suites_dir()
    questions = sorted(read_questions(folder / "rag.jsonl", SPLIT), key=_kind)
    spread = round_robin([sorted(group, key=_place) for _, group in groupby(questions, key=_kind)])
    read = [case for case in read_tool_cases(folder / "tools.jsonl", SPLIT) if isinstance(case, ToolCase)]
    calls = [case for case in read if not case.missing]
    if lacking:
        calls = round_robin([calls, [case for case in read if case.missing]])
    turns = read_turns(folder / "routing.jsonl", tools, SPLIT)
    return Cases(turns[:limit], spread[:limit], calls[:limit])


def suites_digest() -> str:
    """SHA-256 over the cases and over the project that they are about."""
    root, suites = starter_root(), suites_dir()
    files = [suites / f"{name}.jsonl" for name in ("rag", "routing", "tools")]
    for part in ("knowledge", "prompts", "tools"):
        files += [p for p in sorted((root / part).rglob("*")) if p.is_file() and p.suffix != ".pyc"]
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _kind(question: Question) -> str:
    return f"{question.kind} {question.near_miss}"


def _place(question: Question) -> str:
    """An order in which neighbours of the file, which are about the same document, stand apart."""
    return hashlib.sha256(question.id.encode()).hexdigest()
