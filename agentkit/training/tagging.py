"""Token tagging: each token to a BIO tag, and runs of them to entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentkit.errors import UsageError
from agentkit.training.data import IGNORED
from agentkit.training.labelled import Labelled
from agentkit.training.rows import HeadRow

Span = tuple[int, int, str]
"""First token, the one behind the last, type."""


def labels_of(examples: Sequence[Labelled]) -> list[str]:
    """The model's outputs: ``O``, then ``B-`` and ``I-`` of each type, whether or not both occur."""
    types = sorted({kind for example in examples for kind in example.kinds})
    return ["O", *(f"{place}-{kind}" for kind in types for place in "BI")]


def encode(example: Labelled, tokenizer: Any, labels: Sequence[str], length: int) -> HeadRow | None:
    """Word pieces with a tag each; ``None`` where they are more than fit.

    All pieces of a token are learned, those behind its first as the entity's inside: the tagger is used on text that
    nobody has cut into tokens, where what was one token here may be several.

    Raises:
        UsageError: The tokenizer does not tell which token a piece is of.
    """
    if not tokenizer.is_fast:
        raise UsageError("the tokenizer of this model is not a fast one", "name another base with --model")
    encoded = tokenizer(list(example.given), is_split_into_words=True)
    if len(encoded["input_ids"]) > length:
        return None
    places = {label: number for number, label in enumerate(labels)}
    tags: list[int] = []
    words = encoded.word_ids()
    before: int | None = None
    for word in words:
        if word is None:
            tags.append(IGNORED)
        else:
            tag = example.wanted[word]
            tags.append(places[f"I-{tag[2:]}" if word == before and tag != "O" else tag])
        before = word
    starts = [n for n, word in enumerate(words) if word is not None and word not in words[:n]]
    return HeadRow(encoded["input_ids"], tags, example.split or "train", starts=starts)


def scores(
    rows: Sequence[HeadRow], outputs: Sequence[Any], labels: Sequence[str], tokenizer: Any
) -> dict[str, float]:
    """Precision, recall and F1 of entities, as CoNLL-2003 counts them (Tjong Kim Sang and De Meulder, W03-0419).

    An entity is found where its first token, its last and its type are all right.

    Args:
        rows: What was read.
        outputs: Logits of each row, shape (tokens, labels).
        labels: The model's outputs.
        tokenizer: Not needed here.
    """
    right = said = meant = 0
    for row, logits in zip(rows, outputs, strict=True):
        best = logits.argmax(-1).tolist()
        found, true = (spans([labels[tags[n]] for n in row.starts]) for tags in (best, row.labels))
        right, said, meant = right + len(found & true), said + len(found), meant + len(true)
    precision, recall = right / said if said else 0.0, right / meant if meant else 0.0
    both = said + meant
    return {"entity_f1": 2 * right / both if both else 1.0, "precision": precision, "recall": recall}


def spans(tags: Sequence[str]) -> set[Span]:
    """The entities in a row of tags; an ``I-`` that continues nothing of its type begins one, as in conlleval."""
    found: set[Span] = set()
    begin, kind = 0, ""
    for number, tag in enumerate([*tags, "O"]):
        if kind and (tag == "O" or tag[0] == "B" or tag[2:] != kind):
            found.add((begin, number, kind))
            kind = ""
        if tag != "O" and not kind:
            begin, kind = number, tag[2:]
    return found
