"""The gate: whether an adapter beats or matches its base, judged case by case, and the report that stays with it.

Both answer the same cases, so only the cases on which they differ say anything (McNemar, Psychometrika 12, 1947). A
suite counts as a fall where

- the share of right cases falls by more than `TOLERANCE`, and the exact one-sided sign test over the cases that differ
  gives `ALPHA` or less: equally many turns to the better and to the worse would hardly look like this; or
- it falls by more than `LARGE` over at least `ENOUGH` cases, proven or not: so much is no match, and who trained the
  adapter has to show with more cases that it was chance.

Everything else is a match, and the report says so where cases are too few to prove a fall: with under five that differ
no test can. Decoding is greedy, so a base against itself differs nowhere. `TOLERANCE` is there because a model that
has learned something always answers a few cases differently, and one in fifty is less than the sets' own errors.

The held-out chats are compared by loss: a rise of more than `LOSS_TOLERANCE` of the base's is a fall where the paired
bootstrap over chats (`evaluation.metrics.share`) excludes zero, and under `FEW_CHATS` chats, too few to resample, by
itself; one of more than `LARGE` is, proven or not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import comb, isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from agentkit.errors import TrainingError
from agentkit.training.adapters import CARD, Adapter

FILE = "gate.json"
VERSION = 1
"""Of the report's form and of the rules above."""
TOLERANCE, ALPHA = 0.02, 0.05
LARGE, ENOUGH = 0.10, 20
LOSS_TOLERANCE, FEW_CHATS = 0.01, 5

Verdict = Literal["better", "match", "worse", "not run"]
Unit = Literal["share", "nats"]
"""Of the figures that are compared: of shares more is better, of losses less."""
Loss = tuple[float, int]
"""Of one chat: summed over its assistant tokens, in nats, and how many they are."""


@dataclass(frozen=True, slots=True)
class Part:
    """One suite, or the held-out chats: base and adapter side by side."""

    name: str
    verdict: Verdict
    unit: Unit = "share"
    cases: int = 0
    base: float | None = None
    adapter: float | None = None
    better: int = 0
    """Cases on which the adapter did better than the base; so is the next."""
    worse: int = 0
    p: float | None = None
    """Of the sign test; ``None`` where nothing was tested."""
    remark: str = ""
    """What should be known besides: why it was not run, or what so few cases cannot show."""
    figures: dict[str, list[float | None]] = field(default_factory=dict)
    """Further figures, of base and adapter; they decide nothing."""

    @property
    def change(self) -> str:
        """From what to what, and by how much."""
        if self.base is None or self.adapter is None:
            return ""
        if self.unit == "nats":
            return f"loss {self.base:.3f} → {self.adapter:.3f} ({self.adapter - self.base:+.3f})"
        points = 100 * (self.adapter - self.base)
        return f"{self.base:.1%} → {self.adapter:.1%} ({points:+.1f} points)"

    @property
    def evidence(self) -> str:
        """What the verdict rests on."""
        if self.verdict == "not run" or self.base is None:
            return self.remark
        kind = "chats" if self.unit == "nats" else "cases"
        told = f"{self.better} better, {self.worse} worse of {self.cases} {kind}"
        told += "" if self.p is None else f", p = {self.p:.2g}"
        return f"{told}; {self.remark}" if self.remark else told


@dataclass(frozen=True, slots=True)
class Basis:
    """What a comparison rests on: where any of it has changed, its result no longer counts."""

    adapter: str
    """SHA-256 over the adapter's files."""
    base: str
    """The base model's name."""
    base_adapter: str
    """SHA-256 over the files of the adapter that comes with agentkit; empty for the bare model."""
    held_out: str
    """SHA-256 of the held-out chats; empty without."""
    suites: str
    """SHA-256 over the cases and the project that they are about."""
    settings: str
    """agentkit's version, and the settings that decide what the suites measure."""


BASIS = {
    "adapter": "the adapter has changed",
    "base": "it was another base model",
    "base_adapter": "the adapter that comes with agentkit has changed",
    "held_out": "the held-out chats have changed",
    "suites": "the suites have changed",
    "settings": "it was made by another agentkit, or under another quantize, tool_format, routing, answers or sampling",
}


@dataclass(frozen=True, slots=True)
class GateReport:
    """An adapter against what runs without it."""

    name: str
    basis: Basis
    limit: int
    """Cases of a suite at most."""
    parts: tuple[Part, ...]
    run: dict[str, str]
    """How it was run: quantization, device …; for the reader."""
    created: str
    """ISO 8601, UTC."""
    seconds: float
    version: str
    """Of agentkit."""

    @property
    def passed(self) -> bool:
        """Nothing fell, and something was compared at all."""
        verdicts = {part.verdict for part in self.parts}
        return "worse" not in verdicts and bool(verdicts & {"better", "match"})

    def failures(self) -> str:
        """What fell, by how much; where nothing could be compared, that."""
        told = [
            f"{part.name} {part.change or 'failed'}, {part.evidence}".rstrip(", ")
            for part in self.parts
            if part.verdict == "worse"
        ]
        if not told and not self.passed:
            told = [f"nothing could be compared: {part.name}: {part.remark}" for part in self.parts[:1]]
        return "; ".join(told)

    def outdated(self, now: Basis, least: int) -> str:
        """Why it no longer counts; empty if it does.

        Args:
            now: What a comparison would rest on today.
            least: Cases of a suite that it must have allowed for.
        """
        before, after = asdict(self.basis), asdict(now)
        changed = [why for key, why in BASIS.items() if before[key] != after[key]]
        if self.limit < least:
            changed.append(f"it looked at {self.limit} cases of a suite, and {least} are needed")
        return "; ".join(changed)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values, and whether the adapter passed."""
        body = asdict(self)
        return {"passed": self.passed, **body, "version": VERSION, "agentkit": body["version"]}

    def write(self, folder: Path) -> None:
        """Keep the report in an adapter's folder, readable by its owner only; the one before stays whole until then.

        Raises:
            TrainingError: It cannot be written.
        """
        draft = folder / f".{FILE}.{os.getpid()}"
        try:
            draft.touch(0o600)
            draft.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
            os.replace(draft, folder / FILE)
        except OSError as error:
            cause = f"cannot write {folder / FILE}: {error.strerror or error}"
            raise TrainingError(cause, "make room there and evaluate again") from error
        finally:
            draft.unlink(missing_ok=True)


def read_gate(folder: Path) -> GateReport | None:
    """The report in an adapter's folder; ``None`` where it has not been evaluated.

    Raises:
        TrainingError: The report is damaged, or of another agentkit's form.
    """
    path = folder / FILE
    remedy = f"run `agentkit finetune evaluate {folder.name}` again"
    try:
        body = json.loads(path.read_bytes())
        if body["version"] != VERSION:
            raise TrainingError(f"{path} was written by another agentkit", remedy)
        parts = tuple(_part(part) for part in body["parts"])
        basis = Basis(**{key: _text(value) for key, value in body["basis"].items()})
        run = {_text(key): _text(value) for key, value in body["run"].items()}
        limit, seconds = body["limit"], body["seconds"]
        if not isinstance(limit, int) or not isinstance(seconds, int | float):
            raise TypeError("numbers expected")
        name, created, version = (_text(body[key]) for key in ("name", "created", "agentkit"))
        return GateReport(name, basis, limit, parts, run, created, float(seconds), version)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} cannot be read ({error!r})", remedy) from error


def compare(
    name: str,
    base: Mapping[str, bool],
    adapter: Mapping[str, bool],
    figures: Mapping[str, Sequence[float | None]] | None = None,
) -> Part:
    """Judge a suite.

    Args:
        name: Of the suite.
        base: Case id to whether the base was right.
        adapter: The same of the adapter, over the same cases.
        figures: To be shown beside.

    Raises:
        ValueError: They have not answered the same cases.
    """
    if base.keys() != adapter.keys():
        raise ValueError(f"{name}: base and adapter have answered different cases")
    more = {key: list(values) for key, values in (figures or {}).items()}
    count = len(base)
    if not count:
        return Part(name, "not run", remark="there are no cases")
    better = sum(adapter[id] and not base[id] for id in base)
    worse = sum(base[id] and not adapter[id] for id in base)
    fall, p = (worse - better) / count, sign_test(better, worse)
    verdict, remark = _judge(fall, p, count)
    if verdict == "match" and fall < 0 and sign_test(worse, better) <= ALPHA:
        verdict = "better"
    shares = sum(base.values()) / count, sum(adapter.values()) / count
    return Part(name, verdict, "share", count, *shares, better, worse, p, remark, more)


def sign_test(better: int, worse: int) -> float:
    """The exact one-sided sign test: P(X ≥ worse) for X ~ Binomial(better + worse, ½); 1 where nothing differs."""
    n = better + worse
    return float(sum(comb(n, k) for k in range(worse, n + 1)) / 2**n)


def compare_losses(name: str, base: Sequence[Loss], adapter: Sequence[Loss]) -> Part:
    """Judge the held-out chats, by mean loss per assistant token.

    Args:
        name: Of the part.
        base: Of each chat.
        adapter: The same chats in the same order.

    Raises:
        ValueError: They are not the same chats.
    """
    if [tokens for _, tokens in base] != [tokens for _, tokens in adapter]:
        raise ValueError(f"{name}: base and adapter have read different chats")
    tokens = sum(count for _, count in base)
    if not tokens:
        return Part(name, "not run", "nats", remark="there are no chats")
    before, after = (sum(loss for loss, _ in side) / tokens for side in (base, adapter))
    if not isfinite(before):
        return Part(name, "not run", "nats", remark="the base's loss is no number")
    if not isfinite(after):
        return Part(name, "worse", "nats", len(base), remark="the adapter's loss is no number")
    worse = sum(new > old for (old, _), (new, _) in zip(base, adapter, strict=True))
    better = sum(new < old for (old, _), (new, _) in zip(base, adapter, strict=True))
    few = len(base) < FEW_CHATS
    verdict: Verdict = "match"
    remark = f"under {FEW_CHATS} chats the figure itself decides" if few else ""
    if after < before and (few or _rises(adapter, base)):
        verdict = "better"
    if after - before > LOSS_TOLERANCE * before:
        if few or _rises(base, adapter):
            verdict = "worse"
        elif after - before > LARGE * before:
            verdict, remark = "worse", f"not proven, but over {LARGE:.0%} is no match"
        else:
            remark = "so few chats cannot prove the rise"
    return Part(name, verdict, "nats", len(base), before, after, better, worse, None, remark)


def file_digest(adapter: Adapter | Path) -> str:
    """SHA-256 over what decides how an adapter answers: description, configuration and weights.

    Raises:
        TrainingError: A file cannot be read.
    """
    path = adapter if isinstance(adapter, Path) else adapter.path
    total = hashlib.sha256()
    try:
        for name in (CARD, "adapter_config.json", "adapter_model.safetensors"):
            with (path / name).open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        cause = f"adapter {path.name!r} cannot be read ({error.strerror or error})"
        raise TrainingError(cause, "delete the folder and train again") from error
    return total.hexdigest()


def _judge(fall: float, p: float, count: int) -> tuple[Verdict, str]:
    if fall <= TOLERANCE:
        return "match", ""
    if p <= ALPHA:
        return "worse", ""
    if fall > LARGE and count >= ENOUGH:
        return "worse", f"not proven, but over {LARGE:.0%} is no match"
    return "match", "so few cases cannot prove the fall"


def _rises(base: Sequence[Loss], adapter: Sequence[Loss]) -> bool:
    """Whether the 95 % bootstrap interval of the difference lies above zero."""
    from agentkit.evaluation.metrics import share

    differences = [new - old for (old, _), (new, _) in zip(base, adapter, strict=True)]
    low = share(differences, [float(tokens) for _, tokens in base]).low
    return low is not None and low > 0


def _part(body: dict[str, Any]) -> Part:
    part = Part(**body)
    numbers = (part.base, part.adapter, part.p)
    if part.verdict not in get_args(Verdict) or part.unit not in get_args(Unit):
        raise ValueError(f"unknown verdict {part.verdict!r} or unit {part.unit!r}")
    if not all(value is None or isinstance(value, int | float) for value in numbers):
        raise TypeError("numbers expected")
    _text(part.name), _text(part.remark)
    return part


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {value!r}")
    return value
