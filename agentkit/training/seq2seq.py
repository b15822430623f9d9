"""Sequence to sequence: a text to another, by a model with an encoder and a decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agentkit.errors import UsageError
from agentkit.training.labelled import Labelled
from agentkit.training.rows import HeadRow

ORDER, BETA = 6, 2.0
"""Of chrF: longest run of characters, and how much more recall counts than precision."""


def labels_of(examples: Sequence[Labelled]) -> list[str]:
    """None: the model answers in tokens."""
    return []


def encode(example: Labelled, tokenizer: Any, labels: Sequence[str], length: int) -> HeadRow | None:
    """The ids of both texts; ``None`` where one of them is longer than fits.

    Raises:
        UsageError: The model's tokenizer wants to be told languages.
    """
    if hasattr(tokenizer, "src_lang"):
        cause = "this model is one for many languages, whose codes training does not set"
        raise UsageError(cause, "name a base for one pair, of T5's or Marian's kind")
    ids = tokenizer(example.given)["input_ids"]
    target = tokenizer(text_target=example.wanted)["input_ids"]
    if max(len(ids), len(target)) > length:
        return None
    return HeadRow(ids, target, example.split or "train", wanted=str(example.wanted))


def scores(
    rows: Sequence[HeadRow], outputs: Sequence[Any], labels: Sequence[str], tokenizer: Any
) -> dict[str, float]:
    """chrF, 0 to 100, and the share of texts that are right to the character.

    Args:
        rows: What was read.
        outputs: The ids that were generated for each row.
        labels: Not needed here.
        tokenizer: Turns ids into text.
    """
    said = [text.strip() for text in tokenizer.batch_decode(outputs, skip_special_tokens=True)]
    meant = [row.wanted for row in rows]
    exact = sum(a == b for a, b in zip(said, meant, strict=True)) / len(rows)
    return {"chrf": chrf(said, meant), "exact_match": exact}


def chrf(said: Sequence[str], meant: Sequence[str]) -> float:
    """chrF2 of a corpus, 0 to 100 (Popović, W15-3049): the mean over run lengths 1 to 6 of an F-score of characters.

    Spaces do not count, and run lengths that no text has are left out of the mean, as in sacreBLEU.
    """
    found = []
    for length in range(1, ORDER + 1):
        right = total_said = total_meant = 0
        for a, b in zip(said, meant, strict=True):
            runs_said, runs_meant = _runs(a, length), _runs(b, length)
            right += (runs_said & runs_meant).total()
            total_said += runs_said.total()
            total_meant += runs_meant.total()
        if total_said and total_meant:
            precision, recall = right / total_said, right / total_meant
            below = BETA**2 * precision + recall
            found.append((1 + BETA**2) * precision * recall / below if below else 0.0)
    return 100 * sum(found) / len(found) if found else 0.0


def _runs(text: str, length: int) -> Counter[str]:
    packed = "".join(text.split())
    return Counter(packed[n : n + length] for n in range(len(packed) - length + 1))
