"""The examples that teach reading: labels that hold, the form that serves, nothing of the evaluation's texts."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import documents
import passages
import pytest
from recipe_texts import ROOT, grams, reading_texts

from agentkit.llm.reading import NO, READING_TASK, YES
from agentkit.retrieval.citations import is_refusal
from agentkit.retrieval.loaders import load_document

TEMPLATES = documents.templates()


def figures(text: str) -> set[str]:
    """Numbers as they are written, with their currency and percent signs."""
    return set(re.findall(r"[€£$]?\d(?:[\d.,]*\d)?%?", text))


def content(example: dict[str, Any], role: str) -> list[str]:
    return [message["content"] for message in example["messages"] if message["role"] == role]


def test_there_is_variety() -> None:
    assert len(TEMPLATES) >= 60
    assert len({template.domain for template in TEMPLATES}) >= 20
    for template in TEMPLATES:
        answered = {question for fact in template.facts for question in fact.questions}
        missed = {*template.near, *(question for fact in template.facts for question in fact.beside)}
        assert len(answered) >= 6, template.heading
        assert len(missed) >= 6, template.heading
        assert not answered & missed, template.heading


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_document_states_its_answers_and_nothing_of_what_it_leaves_out(
    template: documents.Template,
) -> None:
    for seed in range(5):
        text = documents.document(template, random.Random(seed))
        assert "{" not in text.heading + text.text
        assert len(text.text.split()) <= 2 * documents.MOST_WORDS
        assert text.answered
        for _, answer in text.answered:
            assert figures(answer) <= figures(text.text), (text.text, answer)
        asked = [question for questions, _ in text.answered for question in questions]
        missed = [*text.near, *text.beside, *(q for questions in text.left_out for q in questions)]
        assert not set(asked) & set(missed)
        assert len(text.answered) + len(text.left_out) == len(template.facts)


def test_a_wrong_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        '- {domain: d, heading: "A {x}", facts: "It is {y}.\\n? Is it?", near: "Why?"}\n', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"a\.yaml, A \{x\}: .*unknown slots \['x', 'y'\]"):
        documents.templates(tmp_path)


def test_judgements_are_balanced_and_share_their_passage() -> None:
    found = list(passages.judgements(1, 1200))
    assert len(found) == 1200
    shares = Counter(answer for example in found for answer in content(example, "assistant"))
    assert set(shares) == {YES, NO}
    assert 0.45 < shares[YES] / 1200 < 0.55
    labels = defaultdict(set)
    for example in found:
        assert content(example, "system") == [READING_TASK]
        labels[content(example, "user")[0]].add(content(example, "assistant")[0])
    assert all(len(answers) == 1 for answers in labels.values())
    for first in range(0, 1200, passages.BRANCHES):
        row = [content(example, "user")[0] for example in found[first : first + passages.BRANCHES]]
        assert len({text.rpartition("\n\nQuestion: ")[0] for text in row}) == 1
        assert len(set(row)) == passages.BRANCHES


def test_the_versions_of_a_pair_differ_in_what_they_answer() -> None:
    assert len(passages.pairs()) > 180
    for first, second in passages.pairs():
        told = [{item["question"] for item in row["answerable"]} for row in (first, second)]
        assert told[0] | set(first["unanswerable"]) == told[1] | set(second["unanswerable"]), first["pair"]
        assert len(told[0] ^ told[1]) >= 4, first["pair"]
        for row, own in zip((first, second), told, strict=True):
            assert not own & set(row["unanswerable"]), row["pair"]
            assert all(item["quote"] in row["text"] for item in row["answerable"]), row["pair"]
            assert len(row["text"].split()) <= documents.MOST_WORDS, row["pair"]


def test_conversations_are_answered_or_declined() -> None:
    found = list(passages.conversations(1, 300))
    assert len(found) == 300
    template = (ROOT / "prompts" / "passages.md").read_text(encoding="utf-8")
    opening = template.partition("{{")[0]
    declined = 0
    for example in found:
        asked, said = content(example, "user"), content(example, "assistant")
        assert len(asked) == len(said)
        assert all(text.startswith(opening) for text in asked)
        for text, answer in zip(asked, said, strict=True):
            declined += answer == passages.decline()
            if answer != passages.decline():
                assert figures(answer) <= figures(text), (text, answer)
    turns = sum(len(content(example, "assistant")) for example in found)
    assert turns > 330
    assert 0.4 < declined / turns < 0.6


def test_the_product_takes_the_decline_as_one() -> None:
    assert is_refusal(passages.decline())
    assert (ROOT / "prompts" / "decline.md").read_text(encoding="utf-8").startswith(passages.decline()[:-1])


def test_the_seed_decides() -> None:
    def start(seed: int) -> list[dict[str, Any]]:
        return [*passages.judgements(seed, 12), *passages.conversations(seed, 3)]

    assert start(3) == start(3)
    assert start(3) != start(4)


def test_held_out_passages_train_nothing() -> None:
    held = passages.held_out()
    assert 0.1 < len(held) / len(passages.written_rows()) < 0.2
    texts = {text.text for text in held}
    trained = [*passages.judgements(2, 3000), *passages.conversations(2, 500)]
    used = "\n".join(message for example in trained for message in content(example, "user"))
    assert not [text for text in texts if text in used]


def evaluation_texts() -> Iterator[str]:
    """Every text of the starter's knowledge base and every question that is asked of it for a figure."""
    for path in (ROOT / "knowledge").rglob("*.*"):
        yield load_document(path, path.name).text
    data = ROOT / "tests" / "data"
    for path in data.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            body = json.loads(line)
            asked = [*body.get("calls", ()), *body.get("lacking", ())] if "tool" in body else [body]
            yield from (turn.get("question") or turn["text"] for turn in asked)


def test_nothing_is_taken_from_the_evaluation() -> None:
    trained = set().union(*map(grams, reading_texts()))
    tested = set().union(*map(grams, evaluation_texts()))
    assert len(trained) > 10_000
    assert len(tested) > 5_000
    assert not {" ".join(gram) for gram in trained & tested}


def test_a_conversation_reads_as_the_agent_renders_it() -> None:
    (example,) = islice(passages.conversations(5, 1), 1)
    text = content(example, "user")[0]
    assert re.search(r"^```\n\[1\] .+ \(.+\.md\)\n", text, re.MULTILINE)
    assert re.search(r"\nQuestion: .+\Z", text)
