"""What becomes of labelled examples before a run: copies left out, contradictions found, each given its split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agentkit.errors import UsageError
from agentkit.training.data import SPLITS, Split
from agentkit.training.labelled import UNITS, Labelled
from agentkit.training.personal import Redactor, normal
from agentkit.training.prepare import place, split
from agentkit.training.report import DataReport
from agentkit.training.settings import Task

MIN_EXAMPLES = 2


def partition(
    examples: Sequence[Labelled],
    task: Task,
    *,
    shares: Mapping[Split, float],
    keep_personal_data: bool = False,
) -> tuple[list[Labelled], DataReport]:
    """Leave out copies, split by what the model reads.

    Splits go by content as those of chats do. Two things hold besides: texts that differ in their target alone stay
    together, and a label that would be held out everywhere stays to be learned.

    Personal data becomes placeholders in pairs of texts, which a model may repeat; a classifier or tagger gives out
    labels alone, and has to know texts as they are.

    Args:
        examples: As `load_labelled` gives them; a split that one already has stays.
        task: None but ``chat``.
        shares: Of ``validation`` and ``test``; the rest is learned.
        keep_personal_data: Leave e-mail addresses and the like as they are.

    Raises:
        UsageError: Fewer than two examples are left, or none to learn from; all have one label, or a label is only
            among what is held out; the same text has two labels.
    """
    counts: Counter[str] = Counter()
    if task == "seq2seq" and not keep_personal_data:
        examples = [_redacted(example, counts) for example in examples]
    unique = _without_copies(examples, task)
    where = Path(examples[0].origin.rpartition(", line ")[0])
    if len(unique) < MIN_EXAMPLES:
        cause = f"{where} holds 1 usable example in {len(examples)}"
        raise UsageError(
            cause, f"at least {MIN_EXAMPLES} different {UNITS[task]} are needed; some dozen teach something"
        )
    if task != "seq2seq":
        _check_labels(unique, task, where)
    given = {_key(example.given): example.split for example in unique if example.split}
    places = {_key(example.given): place(_key(example.given)) for example in unique}
    splits = split(places, shares, given)
    ready = [replace(example, split=splits[_key(example.given)]) for example in unique]
    if task != "seq2seq":
        ready = _with_every_label(ready, fixed=bool(given))
    by_split = Counter(example.split for example in ready)
    if not by_split["train"]:
        raise UsageError(f"no {UNITS[task]} are left to learn from", "mark fewer as validation and test")
    return ready, DataReport(
        len(examples),
        len(examples) - len(ready),
        dict(counts),
        splits={name: by_split[name] for name in SPLITS},
        unit=UNITS[task],
        labels={} if task == "seq2seq" else _counts(ready),
    )


def _redacted(example: Labelled, counts: Counter[str]) -> Labelled:
    redactor = Redactor()
    clean = replace(
        example, given=redactor.text(str(example.given)), wanted=redactor.text(str(example.wanted))
    )
    counts += redactor.counts
    return clean


def _without_copies(examples: Sequence[Labelled], task: Task) -> list[Labelled]:
    """The first of each; of pairs, one text may have several targets."""
    unique: dict[tuple[str, str], Labelled] = {}
    first: dict[str, Labelled] = {}
    clashes: list[tuple[Labelled, Labelled]] = []
    for example in examples:
        key = _key(example.given)
        other = first.setdefault(key, example)
        if other.split != example.split or (other.wanted != example.wanted and task != "seq2seq"):
            clashes.append((example, other))
        unique.setdefault((key, str(example.wanted)), example)
    if clashes:
        example, other = clashes[0]
        what = "split" if other.wanted == example.wanted or task == "seq2seq" else "label"
        more = f" ({len(clashes) - 1} more such lines)" if len(clashes) > 1 else ""
        cause = f"{example.origin}: the text of {other.origin.rpartition(', ')[2]} with another {what}{more}"
        raise UsageError(cause, "decide for one of them")
    return list(unique.values())


def _check_labels(examples: Sequence[Labelled], task: Task, where: Path) -> None:
    named: dict[str, tuple[str, str]] = {}
    for example in examples:
        for kind in sorted(example.kinds):
            other, origin = named.setdefault(kind.casefold(), (kind, example.origin))
            if other != kind:
                cause = f"{example.origin}: the label {kind!r} is written {other!r} in {origin.rpartition(', ')[2]}"
                raise UsageError(cause, "write each label in one way")
    if task == "tagging" and not named:
        cause = f"{where}: no token of {len(examples)} {UNITS[task]} belongs to an entity"
        raise UsageError(cause, "tag some with B-TYPE and I-TYPE")
    if task == "classification" and len(named) < 2:
        (label, _), *_ = named.values()
        cause = f"{where}: all {len(examples)} {UNITS[task]} have the label {label!r}"
        raise UsageError(cause, "a classifier needs examples of two labels at least")


def _with_every_label(examples: list[Labelled], *, fixed: bool) -> list[Labelled]:
    """Bring labels that nothing is left to learn of back to what is learned, where the file does not say otherwise."""
    learned = {kind for example in examples if example.split == "train" for kind in example.kinds}
    found = []
    for example in examples:
        if missing := example.kinds - learned:
            if fixed:
                cause = f"{example.origin}: the label {min(missing)!r} is only in the {example.split} split"
                raise UsageError(cause, "mark an example of it as train, or leave `split` out")
            learned |= example.kinds
            example = replace(example, split="train")
        found.append(example)
    return found


def _counts(examples: Sequence[Labelled]) -> dict[str, int]:
    """Texts by label, or entities by type."""
    counts: Counter[str] = Counter()
    for example in examples:
        if isinstance(example.wanted, str):
            counts[example.wanted] += 1
        else:
            counts.update(tag[2:] for tag in example.wanted if tag.startswith("B-"))
    return dict(sorted(counts.items()))


def _key(given: str | tuple[str, ...]) -> str:
    """Equal for what reads the same, but for spaces and capitals; tokens keep capitals, which tell names."""
    return normal(given) if isinstance(given, str) else " ".join(given)
