"""Prompts with written answers, and how likely a model finds each answer: whether it still talks as it did.

Perplexity is e to the mean negative log-probability of a token (Jelinek et al., JASA 62(S1), 1977), here over the
answers alone, the ends of their turns included. It says nothing about whether an answer is good; it is there to compare
a model with itself, with an adapter and without, on the same answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from agentkit.errors import AgentkitError, ModelError, UsageError
from agentkit.evaluation.lines import check_keys, check_texts, of_split, read_lines, round_robin
from agentkit.evaluation.metrics import share
from agentkit.evaluation.tables import Table
from agentkit.messages import Message


@runtime_checkable
class Scorer(Protocol):
    """A model that tells how likely it finds a text."""

    def log_probs(self, messages: Sequence[Message], answer: str) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Reference:
    """One prompt and the answer that was written for it."""

    id: str
    text: str
    answer: str
    kind: str
    """What sort of prompt it is; empty where the file does not say."""


@dataclass(frozen=True, slots=True)
class PerplexityRow:
    """One answer, scored."""

    id: str
    kind: str
    tokens: int
    """Of the answer and the end of its turn; 0 where the model failed."""
    nats: float
    """Negative log-probability of all of them together."""
    seconds: float
    failed: str

    @property
    def perplexity(self) -> float:
        """Of a token of this answer."""
        return math.exp(self.nats / self.tokens)


def scorer_of(model: Any) -> Scorer:
    """The model, if it can score a text.

    Raises:
        UsageError: It cannot: it runs on a server.
    """
    if not isinstance(model, Scorer):
        cause = "only a model in this process tells how likely it finds a text"
        raise UsageError(cause, "name a local model with --model")
    return model


def read_references(path: Path) -> list[Reference]:
    """Read a file of prompts with answers.

    Args:
        path: JSON lines with ``id``, ``text`` and ``answer``, and if you like ``kind``.

    Returns:
        The prompts, going round the kinds, so that the first few are of as many kinds.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line is wrong, an id stands twice, or there is none; names line and cause.
    """
    found = of_split(path, read_lines(path, _reference), lambda _: "", None)
    kinds = dict.fromkeys(reference.kind for reference in found)
    return round_robin([reference for reference in found if reference.kind == each] for each in kinds)


def _reference(_: int, body: dict[str, Any]) -> Reference:
    check_keys(body, {"id", "text", "answer"}, frozenset({"kind"}))
    body = {"kind": "", **body}
    check_texts(body, "id", "text", "answer")
    if not isinstance(body["kind"], str):
        raise ValueError("kind must be text")
    return Reference(body["id"], body["text"], body["answer"], body["kind"])


def row_from_json(body: dict[str, Any]) -> PerplexityRow:
    """The inverse of `asdict`.

    Raises:
        TypeError: It is no row.
    """
    return PerplexityRow(**body)


def ask(model: Scorer, reference: Reference) -> PerplexityRow:
    """Have one answer scored."""
    scored: list[float] = []
    failed = ""
    start = time.perf_counter()
    try:
        scored = model.log_probs([Message("user", reference.text)], reference.answer)
    except AgentkitError as error:
        failed = str(error)
    seconds = time.perf_counter() - start
    return PerplexityRow(reference.id, reference.kind, len(scored), -math.fsum(scored), seconds, failed)


def summarize(rows: Sequence[PerplexityRow]) -> dict[str, Any]:
    """Every figure as plain JSON values; perplexities of all tokens together, with intervals over the prompts.

    Raises:
        ModelError: No answer was scored.
    """
    scored = [row for row in rows if not row.failed]
    if not scored:
        raise ModelError(f"no answer could be scored: {rows[0].failed}", "see to the model and run again")
    kinds = sorted({row.kind for row in scored} - {""})
    return {
        "prompts": len(rows),
        "failed": len(rows) - len(scored),
        "tokens": sum(row.tokens for row in scored),
        "perplexity": _perplexity(scored),
        "kinds": {kind: _perplexity([row for row in scored if row.kind == kind]) for kind in kinds},
        "rows": {row.id: {"tokens": row.tokens, "perplexity": row.perplexity} for row in scored},
        "seconds_per_prompt": sum(row.seconds for row in rows) / len(rows),
    }


def _perplexity(rows: Sequence[PerplexityRow]) -> dict[str, Any]:
    """As a `Share`: e to the nats over the tokens, and to the ends of that mean's interval."""
    mean = asdict(share([row.nats for row in rows], [float(row.tokens) for row in rows]))
    return {**mean, **{key: math.exp(mean[key]) for key in ("value", "low", "high")}}


def tables(summary: dict[str, Any]) -> list[Table]:
    """Perplexity of all, of each kind and of each prompt, the most surprising first."""
    whole = [
        ["prompts", str(summary["prompts"])],
        ["tokens", str(summary["tokens"])],
        ["perplexity", _cell(summary["perplexity"])],
        ["seconds a prompt", f"{summary['seconds_per_prompt']:.3f}"],
        ["prompts that failed", str(summary["failed"])],
    ]
    kinds = [[kind, str(body["count"]), _cell(body)] for kind, body in summary["kinds"].items()]
    prompts = [
        [id, str(body["tokens"]), f"{body['perplexity']:.2f}"]
        for id, body in sorted(summary["rows"].items(), key=lambda item: -item[1]["perplexity"])
    ]
    found = [Table(["perplexity", ""], whole)]
    if kinds:
        found.append(Table(["kind", "prompts", "perplexity"], kinds))
    return [*found, Table(["prompt", "tokens", "perplexity"], prompts)]


def _cell(body: Mapping[str, Any]) -> str:
    return f"{body['value']:.2f} ({body['low']:.2f}–{body['high']:.2f})"
