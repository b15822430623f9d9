"""Classification: a text to one of some labels.

Plain cross entropy, without weights for rare labels: where a label is lost, the macro F1 beside the accuracy shows it,
and more examples help more than weights do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentkit.training.labelled import Labelled
from agentkit.training.rows import HeadRow


def labels_of(examples: Sequence[Labelled]) -> list[str]:
    """The model's outputs."""
    return sorted({str(example.wanted) for example in examples})


def encode(example: Labelled, tokenizer: Any, labels: Sequence[str], length: int) -> HeadRow | None:
    """The beginning of a text that fits, as the classifier tool reads it."""
    ids = tokenizer(example.given)["input_ids"]
    cut = tokenizer(example.given, truncation=True, max_length=length)["input_ids"]
    return HeadRow(
        cut, [labels.index(str(example.wanted))], example.split or "train", shortened=len(ids) > len(cut)
    )


def scores(
    rows: Sequence[HeadRow], outputs: Sequence[Any], labels: Sequence[str], tokenizer: Any
) -> dict[str, float]:
    """Accuracy, and the mean over labels of F1.

    Args:
        rows: What was read.
        outputs: Logits of each row, shape (labels,).
        labels: The model's outputs.
        tokenizer: Not needed here.
    """
    said = [int(logits.argmax()) for logits in outputs]
    meant = [row.labels[0] for row in rows]
    right = sum(a == b for a, b in zip(said, meant, strict=True))
    return {"accuracy": right / len(rows), "macro_f1": macro_f1(meant, said)}


def macro_f1(meant: Sequence[int], said: Sequence[int]) -> float:
    """Unweighted mean over the labels that were meant or said, of 2·TP / (2·TP + FP + FN), as scikit-learn has it."""
    pairs = list(zip(meant, said, strict=True))
    found = []
    for label in {*meant, *said}:
        both = sum(a == b == label for a, b in pairs)
        one = sum((a == label) != (b == label) for a, b in pairs)
        found.append(2 * both / (2 * both + one))
    return sum(found) / len(found)
