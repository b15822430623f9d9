"""Synthetic documents whose facts are known: templates of ``training/data/*.yaml``, filled with random values.

A template names its slots, its facts and questions that none of its facts answers::

    - domain: museum
      org: Museum
      heading: "{org} > Tickets"
      slots: adult=price 8 24; days=int 2 9
      facts: |
        Adults pay {adult}. | A ticket for an adult is {adult}.     variants of the sentence
        @ Adult | {adult}                                           the fact as a row, if it makes one
        ? What does an adult pay? | ...                             questions that it answers
        ! Do students pay less?                                     near misses: about the same thing, not answered
        = An adult ticket costs {adult}.                            the answer in words
      near: |
        Is there a family ticket?                                   what no fact of the template answers

A document holds some of the facts only. What asks about a fact that was left out is unanswerable there, although the
very same words are answered by the document that holds it: such pairs differ in nothing but what the text states.
"""

from __future__ import annotations

import calendar
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentkit.retrieval.words import stems

DATA = Path(__file__).parent / "data"
MOST_WORDS = 120
"""Of a document: a chunk of the knowledge base has no more."""
KEPT = (0.4, 0.85)
"""Share of a template's facts that a document holds."""
FORMS = {"prose": 6, "list": 2, "rows": 2, "questions": 1}
"""How a document is written, by weight."""

PLACES = tuple((DATA / "places.txt").read_text(encoding="utf-8").split())
LOST_WORDS = 1
"""Content words of a sentence that its row may lack: a verb mostly, and nothing that is asked for."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a document may state."""

    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    beside: tuple[str, ...] = ()
    """Questions about the same thing that it does not answer."""
    row: tuple[str, str] | None = None
    """Label and value."""


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of document."""

    name: str
    domain: str
    org: str
    heading: str
    slots: dict[str, str]
    facts: tuple[Fact, ...]
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A text with everything that can be asked of it."""

    name: str
    """As of a file in a knowledge base."""
    domain: str
    heading: str
    text: str
    answered: tuple[tuple[tuple[str, ...], str], ...]
    """For each fact that the text states: questions, and the answer."""
    left_out: tuple[tuple[str, ...], ...]
    """For each fact that it does not state: questions."""
    beside: tuple[str, ...]
    """Questions about something that the text mentions, without telling what is asked."""
    near: tuple[str, ...]
    """Other questions about the subject that the text does not answer."""


def templates(folder: Path = DATA) -> list[Template]:
    """All templates, by file and place in it.

    Raises:
        ValueError: A template is wrong; names file and heading.
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        for body in yaml.safe_load(path.read_text(encoding="utf-8")):
            try:
                found.append(_template(path, len(found), body))
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{path}, {body.get('heading')}: {error!r}") from error
    return found


def _template(path: Path, number: int, body: dict[str, Any]) -> Template:
    specs = [spec.partition("=") for spec in body.get("slots", "").split(";") if spec.strip()]
    slots = {name.strip(): value.strip() for name, _, value in specs}
    template = Template(
        f"{path.stem}-{number}",
        body["domain"],
        body.get("org", ""),
        body["heading"],
        slots,
        tuple(_facts(body["facts"])),
        tuple(line.strip() for line in body["near"].splitlines() if line.strip()),
    )
    known = {*slots, "org", "place"}
    if (
        unknown := set(re.findall(r"\{(\w+)\}", repr((template.heading, template.facts, template.near))))
        - known
    ):
        raise ValueError(f"unknown slots {sorted(unknown)}")
    return template


def _facts(text: str) -> Iterator[Fact]:
    """Facts from their lines; one begins with the line that has no mark."""
    blocks: list[dict[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        mark = line[0] if line[:2] in ("? ", "= ", "@ ", "! ") else ""
        if not mark:
            blocks.append({})
        key, value = mark, line[2:] if mark else line
        blocks[-1][key] = f"{blocks[-1][key]} | {value}" if key in blocks[-1] else value
    for block in blocks:
        row = _split(block["@"]) if "@" in block else None
        if row and len(row) != 2:
            raise ValueError(f"a row has a label and a value: {block['@']}")
        sentences = _split(block[""])
        yield Fact(
            sentences,
            _split(block["?"]),
            block.get("=", sentences[0]).strip(),
            _split(block.get("!", "")),
            (row[0], row[1]) if row else None,
        )


def _split(line: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in line.split(" | ") if part.strip())


def document(template: Template, rng: random.Random) -> Document:
    """One document, of some facts of the template and values of its own."""
    values = _values(template, rng)
    order = list(range(len(template.facts)))
    rng.shuffle(order)
    held = order[: max(2, round(len(order) * rng.uniform(*KEPT)))]
    while len(held) > 2 and sum(len(template.facts[n].sentences[0].split()) for n in held) > MOST_WORDS:
        held.pop()
    if rng.random() < 0.7:
        held.sort()  # most texts go on as their template does
    facts = [template.facts[n] for n in held]
    left = [fact for n, fact in enumerate(template.facts) if n not in held]
    heading = _fill(template.heading, values)
    return Document(
        f"{_slug(template.domain)}/{_slug(heading.split(' > ')[-1])}.md",
        template.domain,
        heading,
        _fill(_written(facts, rng), values),
        tuple((_filled(fact.questions, values), _fill(fact.answer, values)) for fact in facts),
        tuple(_filled(fact.questions, values) for fact in left),
        tuple(_fill(question, values) for fact in facts for question in fact.beside),
        _filled(template.near, values),
    )


def _written(facts: Sequence[Fact], rng: random.Random) -> str:
    """The facts as prose, as a list, as rows of a table or as questions and answers."""
    sentences = [rng.choice(fact.sentences) for fact in facts]
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    if form == "list":
        return "\n".join(f"- {sentence}" for sentence in sentences)
    if form == "questions":
        return "\n\n".join(
            f"{rng.choice(fact.questions)}\n{sentence}"
            for fact, sentence in zip(facts, sentences, strict=True)
        )
    labelled = [(fact, text) for fact, text in zip(facts, sentences, strict=True) if fact.row]
    if form == "rows" and len(labelled) >= 2:
        between = rng.choice([": ", " | ", " – "])
        table = "\n".join(between.join(_row(fact, text)) for fact, text in labelled)
        rest = " ".join(text for fact, text in zip(facts, sentences, strict=True) if not fact.row)
        return "\n\n".join(part for part in rng.sample([table, rest], 2) if part)
    cut = rng.randrange(1, len(sentences)) if len(sentences) > 4 and rng.random() < 0.4 else 0
    return "\n\n".join(" ".join(part) for part in (sentences[:cut], sentences[cut:]) if part)


def _row(fact: Fact, sentence: str) -> tuple[str, str]:
    """Label and value; the sentence as the value where the short one would say less."""
    label, value = fact.row or ("", "")
    lost = min(len(stems(text) - stems(f"{label} {value}")) for text in fact.sentences)
    return label, value if lost <= LOST_WORDS else sentence


def _values(template: Template, rng: random.Random) -> dict[str, str]:
    """A value for every slot; numbers of one kind differ, or one fact would answer for another."""
    place = rng.choice(PLACES)
    values = {"place": place, "org": f"{place} {template.org}".strip()}
    currency = rng.choice("€€£$")
    for name, spec in template.slots.items():
        for _ in range(20):
            values[name] = _value(spec, currency, rng)
            if values[name] not in [value for other, value in values.items() if other != name]:
                break
    return values


def _value(spec: str, currency: str, rng: random.Random) -> str:
    kind, _, rest = spec.partition(" ")
    if kind == "pick":
        return rng.choice(rest.split("|")).strip()
    if kind == "date":
        month = rng.randint(1, 12)
        day = rng.randint(1, 28)
        return rng.choice([f"{day} {calendar.month_name[month]}", f"{calendar.month_name[month]} {day}"])
    if kind == "month":
        return calendar.month_name[rng.randint(1, 12)]
    if kind == "day":
        return calendar.day_name[rng.randint(0, 6)]
    if kind == "phone":
        return f"0{rng.randint(100, 999)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}"
    low, high = map(int, rest.split())
    number = rng.randint(low, high)
    if kind == "int":
        return f"{number:,}" if number >= 10_000 else str(number)
    if kind == "tens":
        return f"{number * 10:,}"
    if kind == "pct":
        return f"{number}%"
    if kind == "hour":
        minutes = rng.choice(["", "", ":30", ":15"])
        return f"{(number - 1) % 12 + 1}{minutes} {'am' if number < 12 else 'pm'}"
    if kind == "price":
        cents = rng.choice(["", "", ".50", ".90", ".95"]) if number < 100 else ""
        return f"{currency}{number:,}{cents}"
    raise ValueError(f"unknown kind of slot: {spec}")


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def _filled(texts: Sequence[str], values: dict[str, str]) -> tuple[str, ...]:
    return tuple(_fill(text, values) for text in texts)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
