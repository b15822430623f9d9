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

    The tagger is used on text that nobody has cut into tokens, so it learns from text: the tokens with a blank between
    them. Byte-level tokenizers glue words that they are given one by one. All pieces of a token are learned, those
    behind its first as the entity's inside: what was one token here may be several there.

    Raises:
        UsageError: The tokenizer does not tell which token a piece is of.
    """
    if not tokenizer.is_fast:
        raise UsageError("the tokenizer of this model is not a fast one", "name another base with --model")
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    encoded = tokenizer(" ".join(example.given), **asked)
    if len(encoded["input_ids"]) > length:
        return None
    places = {label: number for number, label in enumerate(labels)}
    # The token of each character; that of a blank, which may be a piece of its own, is the one behind it.
    owners = [number for number, word in enumerate(example.given) for _ in f" {word}"][1:]
    tags: list[int] = []
    starts: list[int] = []
    before = -1
    pieces = zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
    for number, ((begin, end), special) in enumerate(pieces):
        if special or begin == end:
            tags.append(IGNORED)
            continue
        word = owners[end - 1]
        tag = example.wanted[word]
        tags.append(places[f"I-{tag[2:]}" if word == before and tag != "O" else tag])
        if word != before:
            starts.append(number)
        before = word
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
