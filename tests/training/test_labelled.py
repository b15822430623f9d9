"""Labelled texts, tagged tokens and pairs: read with line numbers, told apart, split by content."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import NotFoundError, UsageError
from agentkit.training.data import Split
from agentkit.training.labelled import Labelled, load_labelled, task_of, to_lines
from agentkit.training.partition import partition
from agentkit.training.settings import Task

SHARES: dict[Split, float] = {"validation": 0.2, "test": 0.2}
Put = Callable[[str, str | bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def lines(*bodies: Any) -> str:
    return "".join(json.dumps(body) + "\n" for body in bodies)


def tagged(tokens: list[str], tags: list[str]) -> str:
    return lines({"tokens": ["Ann"], "tags": ["B-PER"]}, {"tokens": tokens, "tags": tags})


@pytest.mark.parametrize(
    ("name", "content", "task"),
    [
        ("a.csv", "text,label\nhi,greeting\n", "classification"),
        ("a.csv", "\ufeffID,Label,Text\n1,greeting,hi\n", "classification"),
        ("a.tsv", "source\ttarget\nhi\thola\n", "seq2seq"),
        ("a.jsonl", lines({"text": "hi", "label": 3}), "classification"),
        ("a.jsonl", lines({"tokens": ["hi"], "tags": ["O"]}), "tagging"),
        ("a.jsonl", lines({"source": "hi", "target": "hola"}), "seq2seq"),
        ("a.jsonl", lines({"messages": []}), "chat"),
        ("a.jsonl", '{"text": \n' + lines({"text": "hi", "label": "x"}), "classification"),
        ("a.jsonl", lines({"text": "the label is missing"}), "classification"),
        ("a.jsonl", "no json\n", "chat"),
    ],
)
def test_the_columns_tell_the_task(put: Put, name: str, content: str, task: Task) -> None:
    assert task_of(put(name, content)) == task


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "", "a.csv is empty; give the columns text and label, or"),
        ("a.csv", "one,two\n1,2\n", "nothing can be learned from the columns one, two"),
        ("a.csv", "text;label\nhi;x\n", "nothing can be learned from the columns text;label"),
        ("a.csv", "tokens,tags\nAnn,B-PER\n", "tokens and tags are lists; write them as JSONL"),
        (
            "a.jsonl",
            lines({"text": "a", "label": "b", "source": "c", "target": "d"}),
            "of classification and of seq2seq",
        ),
        ("a.jsonl", lines({"text": "a", "label": "b", "messages": []}), "of classification and of chat"),
    ],
)
def test_a_file_that_teaches_nothing_is_refused(put: Put, name: str, content: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        task_of(put(name, content))
    assert told in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match=r"no such file: nowhere\.csv"):
        task_of(Path("nowhere.csv"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "text,label\nhi,\n", "line 2: 'label' is missing or empty; fill it in"),
        (
            "a.csv",
            "text,label\n\nhi,x,y\n",
            "line 3: 3 columns instead of 2; put texts that hold the separator",
        ),
        (
            "a.csv",
            'text,label\n"two\nlines",x\nhi,y\n"open,x\n',
            "line 5: unexpected end of data; close every quote",
        ),
        (
            "a.tsv",
            'text\tlabel\n"Great, she said\tpos\nIt leaks\tneg\nThat was solid"\tpos\n',
            "line 2: a quote that is opened there takes up several rows",
        ),
        ("a.csv", "text,name\nhi,x\n", "line 1: there is no column 'label'"),
        ("a.csv", "text,text,label\nhi,ho,x\n", "line 1: there are several columns 'text'"),
        ("a.csv", "text,label\n", "a.csv holds no examples"),
        ("a.csv", b"text,label\nhi,x\ncaf\xe9,y\n", "line 3 is not UTF-8; save the file as UTF-8"),
        (
            "a.csv",
            "text,label,split\nhi,x,dev\n",
            "line 2: unknown split 'dev'; use one of train, validation, test",
        ),
        ("a.jsonl", lines({"text": "hi", "label": "x"}) + "{\n", "line 2 is not JSON"),
        (
            "a.jsonl",
            lines({"text": "hi", "label": "x"}, {"messages": []}),
            "line 2: 'text' is missing or empty",
        ),
        ("a.jsonl", lines({"text": 5, "label": "x"}), "line 1: 'text' is no text: 5"),
        ("a.jsonl", lines({"text": "hi", "label": True}), "line 1: 'label' is no text: True"),
        ("a.jsonl", lines({"text": "hi", "label": "a\nb"}), "line 1: 'label' goes over several lines"),
        ("a.jsonl", tagged(["Ann", "Lee"], ["O"]), "line 2: 2 tokens have 1 tags; give each token one tag"),
        ("a.jsonl", tagged(["Ann"], ["PER"]), "line 2: tag 1, of 'Ann', is 'PER'; use O, B-TYPE and I-TYPE"),
        (
            "a.jsonl",
            tagged(["a", "Lee"], ["O", "I-PER"]),
            "tag 2, of 'Lee', is 'I-PER' behind 'O'; begin each entity",
        ),
        ("a.jsonl", tagged(["Lee"], ["I-PER"]), "tag 1, of 'Lee', is 'I-PER' behind 'nothing'"),
        ("a.jsonl", tagged(["A", "B"], ["B-ORG", "I-PER"]), "is 'I-PER' behind 'B-ORG'"),
        ("a.jsonl", tagged(["A"], ["B-"]), "is 'B-'; use O"),
        ("a.jsonl", tagged([], []), "line 2: 'tokens' is no list of texts: []"),
        ("a.jsonl", tagged(["A", ""], ["O", "O"]), "line 2: number 2 of 'tokens' is empty"),
        ("a.jsonl", lines({"tokens": "A b", "tags": "O O"}), "line 1: 'tokens' is no list of texts: 'A b'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(put: Put, name: str, content: str | bytes, told: str) -> None:
    path = put(name, content)
    with pytest.raises(UsageError) as caught:
        load_labelled(path, task_of(path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_read_is_written_and_read_again(put: Put) -> None:
    path = put("a.csv", 'label,text,split\nx,"one, two\nlines",train\ny, spaces ,\n')
    found = load_labelled(path, "classification")
    assert [(one.given, one.wanted, one.split) for one in found] == [
        ("one, two\nlines", "x", "train"),
        ("spaces", "y", None),
    ]
    assert [one.origin.rpartition(", ")[2] for one in found] == ["line 2", "line 4"]
    again = load_labelled(put("b.jsonl", to_lines(found, "classification")), "classification")
    assert [(one.given, one.wanted, one.split) for one in again] == [
        (o.given, o.wanted, o.split) for o in found
    ]
    tags = [Labelled(("Ann", "Lee"), ("B-PER", "I-PER"), split="test")]
    (same,) = load_labelled(put("c.jsonl", to_lines(tags, "tagging")), "tagging")
    assert (same.given, same.wanted, same.split) == (tags[0].given, tags[0].wanted, "test")
    assert same.kinds == {"PER"}


def texts(*pairs: tuple[str, str], split: Split | None = None) -> list[Labelled]:
    return [Labelled(text, label, f"a.csv, line {n}", split) for n, (text, label) in enumerate(pairs, 2)]


def test_copies_are_left_out_and_splits_go_by_content() -> None:
    many = [(f"text {n}", f"label {n % 3}") for n in range(60)]
    ready, report = partition(texts(*many, ("Text  5", "label 2")), "classification", shares=SHARES)
    assert (report.found, report.duplicates, report.unit, len(report.labels)) == (61, 1, "texts", 3)
    assert report.sentence().startswith("61 texts: ")
    assert "; 3 labels; left out: 1 duplicates" in report.sentence()
    assert all(report.splits[name] >= 5 for name in ("validation", "test"))
    more, _ = partition(
        texts(*many, *((f"more {n}", "label 1") for n in range(40))), "classification", shares=SHARES
    )
    sides = {one.given: one.split for one in more}
    assert all(sides[one.given] == one.split for one in ready)


def test_a_rare_label_stays_to_be_learned() -> None:
    for n in range(8):  # wherever its hash would put it
        many = texts(*((f"text {k}", "common") for k in range(20)), (f"rare {n}", "rare"))
        ready, _ = partition(many, "classification", shares={"validation": 0.45, "test": 0.45})
        assert [one.split for one in ready if one.wanted == "rare"] == ["train"]


def test_one_text_has_its_targets_in_one_split() -> None:
    pairs = texts(*((f"text {n % 20}", f"target {n}") for n in range(60)))
    ready, report = partition(pairs, "seq2seq", shares=SHARES)
    assert len(ready) == 60
    assert report.labels == {}
    assert len({(one.given, one.split) for one in ready}) == 20
    assert Counter(one.split for one in ready)["test"] > 0


def test_personal_data_becomes_placeholders_in_pairs_alone() -> None:
    pairs = texts(("mail ada@mail.example", "escribe a ada@mail.example"), ("a", "b"))
    ready, report = partition(pairs, "seq2seq", shares=SHARES)
    assert (ready[0].given, ready[0].wanted) == ("mail [EMAIL_1]", "escribe a [EMAIL_1]")
    assert report.personal == {"EMAIL": 2}
    ready, _ = partition(pairs, "seq2seq", shares=SHARES, keep_personal_data=True)
    assert "ada@mail.example" in ready[0].given
    ready, report = partition(pairs, "classification", shares=SHARES)
    assert "ada@mail.example" in ready[0].given
    assert report.personal == {}


@pytest.mark.parametrize(
    ("examples", "task", "told"),
    [
        (texts(("hi", "x")), "classification", "a.csv holds 1 usable example in 1; at least 2 different texts"),
        (texts(("hi", "x"), ("HI", "x")), "classification", "holds 1 usable example in 2"),
        (texts(("hi", "x"), ("ho", "x")), "classification", "a.csv: all 2 texts have the label 'x'; a classifier"),
        (texts(("hi", "x"), ("hi", "y"), ("hi", "z")), "classification",
         "line 3: the text of line 2 with another label (1 more such lines); decide"),
        (texts(("hi", "Billing"), ("ho", "billing")), "classification",
         "line 3: the label 'billing' is written 'Billing' in line 2"),
        (texts(("a", "x"), ("b", "y")) + texts(("c", "z"), split="test"), "classification",
         "line 2: the label 'z' is only in the test split; mark an example of it as train"),
        (texts(("a", "x"), ("b", "y"), split="test"), "classification", "is only in the test split"),
        (texts(("a", "x"), ("b", "y"), split="test"), "seq2seq", "no pairs are left to learn from"),
        (texts(("a", "x")) + texts(("a", "x"), split="test"), "seq2seq",
         "line 2: the text of line 2 with another split"),
        ([Labelled(("a", "b"), ("O", "O"), "t, line 1"), Labelled(("c",), ("O",), "t, line 2")], "tagging",
         "t: no token of 2 sentences belongs to an entity"),
    ],
)  # fmt: skip
def test_examples_that_teach_nothing_are_refused(examples: list[Labelled], task: Task, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        partition(examples, task, shares=SHARES)
    assert told in str(caught.value)
