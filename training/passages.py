"""Examples that teach reading: answering from passages, and declining where they do not hold the answer.

`conversations` are rendered by the code that serves (`answers.passages_prompt`, `followup.understood`, the project's
prompts); `judgements` by `agentkit.llm.reading`. Sources: the templates of ``training/data`` (see `documents`), and
the passages of ``benchmarks/data/answerable.jsonl``, and contrast pairs (``training/data/contrast``): two versions of a
passage, and questions of which most are answered by one version alone (arXiv:2004.02709). `held_out` keeps some of the
written passages for evaluation.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from documents import Document, Template, document, templates
from jsonl import read_jsonl

from agentkit.answers import passages_prompt
from agentkit.llm.reading import NO, YES, reading
from agentkit.messages import Message, Passage
from agentkit.prompts import PromptTemplate, load_prompt
from agentkit.retrieval.followup import understood
from agentkit.retrieval.words import stems

ROOT = Path(__file__).resolve().parents[1]
ANSWERABLE = ROOT / "benchmarks" / "data" / "answerable.jsonl"
CONTRAST = Path(__file__).parent / "data" / "contrast"
"""JSONL in the form of ``answerable.jsonl``; lines 1 and 2, 3 and 4 … are the versions of a pair."""
CONTRAST_SHARE = 0.5
"""Of the judgements."""
EVALUATED = "home goods shop"
"""The domain of the knowledge base on which the product is evaluated: passages of ``answerable.jsonl`` about it train
nothing. Contrast pairs are about shops as well, some of home goods and with terms like those."""
HELD_OUT_SHARE = 0.15
WRITTEN_SHARE = 0.3
"""Of the documents that are passages of ``answerable.jsonl``; the others come from templates."""
BRANCHES = 6
"""Questions in a row about one passage: training computes the passage once for them."""
ANSWERED = 0.5
"""Share of questions that the passage answers."""
MISSES = {"left_out": 0.36, "beside": 0.28, "near": 0.26, "elsewhere": 0.1}
"""The others, by share: about a fact that was left out, something that the text mentions without telling what is
asked, something that no text of the kind tells, a fact of another text."""
NEW_WORDS = 2
"""Words of a question from elsewhere that the passage must lack, so that it cannot answer it by chance."""
FOLLOW_UP_SHARE = 0.2
PASSAGES = {1: 0.5, 2: 0.35, 3: 0.15}
"""Passages of a conversation's turn, by share."""
Grouped = tuple[frozenset[str], dict[str, Any]]
"""An example, and the groups (`group`) of the passages that stand in it."""
_COMPANIES = ("Oak & Anchor", "Brightwater", "Northwind Services", "Fernhill", "Blue Harbour", "Cobalt Works")
_ASSISTANTS = ("Ada", "Max", "Nia", "Otto", "Robin", "Sky")
_BEFORE = (
    "hi, ", "hello, ", "quick question: ", "hey there, ", "Good morning! ", "just wondering, ", "sorry to bother you, ",
    "Please tell me: ", "I looked everywhere. ", "one more thing, ",
)  # fmt: skip
_AFTER = (" thanks", " Thank you!", " please", " cheers", " I need to know today.", " Can you help?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a document."""

    question: str
    answer: str | None
    """None where the document does not tell."""
    kind: str
    """``answered``, or a key of `MISSES`."""


def judgements(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Questions to be answered with Yes or No in one token, `BRANCHES` in a row about one passage."""
    return (example for _, example in grouped_judgements(seed, count))


def conversations(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Questions with passages, answered in words or declined; some go on with a second question."""
    return (example for _, example in grouped_conversations(seed, count))


def grouped_judgements(seed: int, count: int) -> Iterator[Grouped]:
    """`judgements` with their groups."""
    rng = random.Random(f"judgements {seed}")
    while count > 0:
        if rng.random() < CONTRAST_SHARE / 2:  # a pair is two passages
            batch = _contrasted(rng)
        else:
            text = _document(rng)
            batch = [(text, asked) for asked in _questions(text, rng, BRANCHES)]
        for text, asked in batch[:count]:
            messages = reading(text.heading, text.text, asked.question)
            example = _example([*messages, Message("assistant", NO if asked.answer is None else YES)])
            yield frozenset((group(text.text),)), example
        count -= len(batch)


def grouped_conversations(seed: int, count: int) -> Iterator[Grouped]:
    """`conversations` with their groups."""
    rng = random.Random(f"conversations {seed}")
    for _ in range(count):
        text = _document(rng)
        rounds = 2 if rng.random() < FOLLOW_UP_SHARE else 1
        said: list[Message] = []
        messages, groups = [_system(rng)], set[str]()
        for asked in _questions(text, rng, rounds):
            answer = decline() if asked.answer is None else asked.answer
            found = understood(asked.question, said)
            passages = _among_others(text, rng)
            groups |= {group(passage.text) for passage in passages}
            prompt = passages_prompt(_prompt("passages"), passages, found, asked.question)
            messages += [Message("user", prompt), Message("assistant", answer)]
            said += [Message("user", asked.question), Message("assistant", answer)]
        yield frozenset(groups), _example(messages)


def group(text: str) -> str:
    """What a passage is to be held out together with: both versions of a contrast pair are one group."""
    return _pair_names().get(text, text)


def held_out() -> list[Document]:
    """The passages that train nothing, with all their questions."""
    return [_written(row) for row in written_rows() if _is_held_out(row)]


@cache
def decline() -> str:
    """The product's words for not knowing: of its text, what holds for every project."""
    text = _prompt("decline").render(name="", company="", today="")
    return text.partition(":")[0] + "."


def _questions(text: Document, rng: random.Random, count: int) -> Iterator[Asked]:
    """Different questions about a document, half of them answered by it."""
    seen: set[str] = set()
    while len(seen) < count:
        asked = _answered(text, rng) if rng.random() < ANSWERED else _miss(text, rng)
        if asked.question not in seen:
            seen.add(asked.question)
            yield replace(asked, question=_spoken(asked.question, rng))


def _contrasted(rng: random.Random) -> list[tuple[Document, Asked]]:
    """The same questions about both versions of a passage."""
    versions = [_written(row) for row in rng.choice(_training_pairs())]
    told = [{questions[0]: answer for questions, answer in text.answered} for text in versions]
    questions = rng.sample(sorted({*told[0], *versions[0].near}), BRANCHES)
    spoken = {question: _spoken(question, rng) for question in questions}
    return [
        (text, Asked(spoken[question], own.get(question), "answered" if question in own else "near"))
        for text, own in zip(versions, told, strict=True)
        for question in questions
    ]


def _answered(text: Document, rng: random.Random) -> Asked:
    questions, answer = rng.choice(text.answered)
    return Asked(rng.choice(questions), answer, "answered")


def _miss(text: Document, rng: random.Random) -> Asked:
    """A question that the text does not answer; of a kind that there is for this text."""
    while True:
        kind = rng.choices(list(MISSES), list(MISSES.values()))[0]
        if kind == "elsewhere":
            questions = _elsewhere(text, rng)
        elif kind == "left_out":
            questions = rng.choice(text.left_out) if text.left_out else ()
        else:
            questions = text.beside if kind == "beside" else text.near
        if questions:
            return Asked(rng.choice(questions), None, kind)


def _elsewhere(text: Document, rng: random.Random) -> tuple[str, ...]:
    """A question that another text answers and this one cannot, or none."""
    other = _document(rng)
    question = rng.choice(rng.choice(other.answered)[0])
    new = stems(question) - stems(f"{text.heading} {text.text}")
    return (question,) if other.domain != text.domain and len(new) >= NEW_WORDS else ()


def _document(rng: random.Random) -> Document:
    if rng.random() < WRITTEN_SHARE:
        return _written(rng.choice(_training_rows()))
    return document(rng.choice(_templates()), rng)


def _among_others(text: Document, rng: random.Random) -> list[Passage]:
    """The document among passages of other domains, in any order."""
    texts = [text]
    wanted = rng.choices(list(PASSAGES), list(PASSAGES.values()))[0]
    while len(texts) < wanted:
        other = _document(rng)
        if other.domain != text.domain:
            texts.append(other)
    rng.shuffle(texts)
    return [Passage(n, item.name, item.heading, item.text, 0.5) for n, item in enumerate(texts)]


def _spoken(question: str, rng: random.Random) -> str:
    """The question as customers type it: often as it is, at times without care."""
    if rng.random() < 0.12:
        before = rng.choice(_BEFORE)
        goes_on = before.endswith((", ", ": ")) and question[1:2].islower()
        question = before + (question[0].lower() + question[1:] if goes_on else question)
    if rng.random() < 0.08:
        question += rng.choice(_AFTER)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.1:
        question = question.rstrip("?.")
    if rng.random() < 0.08:
        question = _misspelt(question, rng)
    return question


def _misspelt(question: str, rng: random.Random) -> str:
    """One word with two letters swapped or one left out."""
    words = question.split(" ")
    long = [n for n, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not long:
        return question
    at = rng.choice(long)
    word, n = words[at], rng.randrange(1, len(words[at]) - 2)
    swapped = word[:n] + word[n + 1] + word[n] + word[n + 2 :]
    words[at] = swapped if rng.random() < 0.5 else word[:n] + word[n + 1 :]
    return " ".join(words)


def _system(rng: random.Random) -> Message:
    today = f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    name, company = rng.choice(_ASSISTANTS), rng.choice(_COMPANIES)
    return Message("system", _prompt("system").render(name=name, company=company, today=today))


def _example(messages: list[Message]) -> dict[str, Any]:
    return {"messages": [{"role": m.role, "content": m.content} for m in messages], "tools": []}


def _written(row: dict[str, Any]) -> Document:
    """A passage of ``answerable.jsonl``; its quotes are the answers."""
    name = row["heading"].split(" > ")[-1].lower().replace(" ", "-")
    answered = tuple(((item["question"],), item["quote"]) for item in row["answerable"])
    return Document(
        f"{name}.md", row["domain"], row["heading"], row["text"], answered, (), (), tuple(row["unanswerable"])
    )


def _is_held_out(row: dict[str, Any]) -> bool:
    digest = hashlib.sha256(row.get("pair", row["text"]).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


@cache
def written_rows() -> list[dict[str, Any]]:
    rows = read_jsonl(ANSWERABLE)
    return [*(row for row in rows if row["domain"] != EVALUATED), *itertools.chain(*pairs())]


@cache
def pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Both versions of every contrast pair; ``pair`` names it."""
    found = []
    for path in sorted(CONTRAST.glob("*.jsonl")):
        rows = read_jsonl(path)
        for number, both in enumerate(zip(rows[::2], rows[1::2], strict=True), 1):
            first, second = ({**row, "pair": f"{path.stem} {number}"} for row in both)
            found.append((first, second))
    return found


@cache
def _pair_names() -> dict[str, str]:
    return {row["text"]: row["pair"] for both in pairs() for row in both}


@cache
def _training_pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [both for both in pairs() if not _is_held_out(both[0])]


@cache
def _training_rows() -> list[dict[str, Any]]:
    return [row for row in written_rows() if not _is_held_out(row)]


@cache
def _templates() -> list[Template]:
    return templates()


@cache
def _prompt(name: str) -> PromptTemplate:
    return load_prompt(ROOT / "prompts", name)
