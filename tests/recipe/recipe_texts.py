"""Every text that a person wrote for the training data, and the runs of words by which texts are compared."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import calls
import documents
import domains
import passages
import written
import yaml

ROOT = Path(__file__).resolve().parents[2]
GRAM = 8
"""Words in a row that no training text shares with an evaluation's. Training sets are searched for their test sets by
runs of 8 (PaLM, arXiv:2204.02311, section 8) to 13 words (GPT-3, arXiv:2005.14165, appendix C), where a share of a
question has to be found; here a single run counts. Shorter ones are everybody's English: of six words, recipe and
leaderboard share "between two cities on a given" and sixty more, of eight words none."""
_SLOT = re.compile(r"\{[^{}]*\}")
_NUMBERS = re.compile(r"\b\d+\b(\W+((and|with)\W+)?\d+\b)*(\W*[ap]\.?m\b)?", re.IGNORECASE)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def grams(text: str) -> set[tuple[str, ...]]:
    """Runs of `GRAM` words; a shorter text as a whole."""
    found = words(text)
    return {tuple(found[n : n + GRAM]) for n in range(max(1, len(found) - GRAM + 1))}


def runs(texts: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Runs of `GRAM` words, each with a text it stands in.

    Numbers in a row, and times of day, are one word, whatever they are: a question with other figures is the same
    question, and a list of figures is none. A slot ends a run; texts of fewer words have none.
    """
    found: dict[tuple[str, ...], str] = {}
    for text in set(texts):
        for piece in _SLOT.split(text):
            for gram in grams(_NUMBERS.sub("0", piece)):
                if len(gram) == GRAM:
                    found[gram] = text
    return found


def strings(body: Any) -> Iterator[str]:
    """Every text in a JSON value but the keys of its objects."""
    if isinstance(body, str):
        yield body
    elif isinstance(body, Mapping):
        for value in body.values():
            yield from strings(value)
    elif isinstance(body, list | tuple):
        for value in body:
            yield from strings(value)


def reading_texts() -> Iterator[str]:
    """Of the documents that are asked about."""
    for template in documents.templates():
        yield from template.near
        for fact in template.facts:
            yield from (*fact.sentences, *fact.questions, *fact.beside, fact.answer)
    for row in passages.ANSWERABLE.read_text(encoding="utf-8").splitlines():
        body = json.loads(row)
        if body["domain"] == passages.EVALUATED:
            continue
        yield from strings(
            [body["text"], body["unanswerable"], [item["question"] for item in body["answerable"]]]
        )
    for row in itertools.chain(*passages.pairs()):
        yield from strings(
            [row["text"], row["unanswerable"], [item["question"] for item in row["answerable"]]]
        )


def calling_texts() -> Iterator[str]:
    """Of the functions, the ways of asking for them, and the words around."""
    for function in domains.load():
        yield function.description
        yield from strings(function.params)
        for asks in (function.ask, function.many, function.partial, function.near):
            yield from (ask.say for ask in asks)
        yield from strings(function.missing)
        yield from (reply["say"] for reply in function.replies)
    yield from (message.say for message in domains.load_together(domains.load()))
    yield from strings(calls.PHRASES)
    yield from strings(_yaml("pools.yaml"))


def written_texts() -> Iterator[str]:
    """Of the dialogues that were written one by one."""
    for each in written.written_sets():
        yield from strings([each["tools"], each["messages"], each["beside"]])


def chat_texts() -> Iterator[str]:
    """Every prompt of plain conversation."""
    parts = _yaml("prompts.yaml")
    yield from parts["whole"]
    other = parts["things"][0]
    for form in parts["forms"]:
        for name in ("topic", "thing"):
            if f"{{{name}}}" in form:
                yield from (form.format(**{name: word}, thing2=other) for word in parts[f"{name}s"])


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / "training" / name).read_text(encoding="utf-8"))
