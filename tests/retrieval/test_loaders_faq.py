"""Tables of questions and answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentkit.errors import KnowledgeError
from agentkit.retrieval.chunks import chunk_document
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders import load_document


def load(tmp_path: Path, name: str, text: str) -> Document:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return load_document(tmp_path / name, name)


ROWS = [
    ("How do I return an item?", "Within 30 days.\nBy post.", "Orders", "send back, refund", "en"),
    ("Where is my parcel?", "See the page.", "Orders", "", ""),
    ("Wer sind Sie?", "Ein Laden.", "", "", "de-DE"),
    ("Do you sell lamps?", "Yes, many.", "Shop", "", ""),
]


@pytest.mark.parametrize(("name", "delimiter"), [("faq.csv", ","), ("faq.csv", ";"), ("faq.tsv", "\t")])
def test_every_row_is_a_chunk_under_its_question(tmp_path: Path, name: str, delimiter: str) -> None:
    table = [("Question", "ANSWER", "Topic", "tags", "Lang"), *ROWS]
    quoted = (delimiter.join(f'"{cell}"' for cell in row) for row in table)
    check(load(tmp_path, name, "\n" + "\r\n".join(quoted) + "\r\n"))


def test_jsonl(tmp_path: Path) -> None:
    keys = ("Q", "Answer", "category", "keywords", "language")
    lines = [dict(zip(keys, row, strict=True)) for row in ROWS]
    lines[0]["keywords"] = ["send back", "refund"]  # type: ignore[assignment]
    check(load(tmp_path, "faq.jsonl", "\n\n".join(map(json.dumps, lines))))


def check(document: Document) -> None:
    chunks = chunk_document(document)
    assert [(chunk.heading, chunk.text) for chunk in chunks] == [
        ("faq > Orders > How do I return an item?", "Within 30 days.\nBy post."),
        ("faq > Orders > Where is my parcel?", "See the page."),
        ("faq > Wer sind Sie?", "Ein Laden."),
        ("faq > Shop > Do you sell lamps?", "Yes, many."),
    ]
    assert (chunks[0].language, chunks[2].language) == ("en", "de")
    assert chunks[0].keywords == ("send back", "refund")
    assert [chunk.keywords for chunk in chunks[1:]] == [(), (), ()]
    assert document.keywords == ()  # they are the row's alone
    assert chunks[0].embedded_text().endswith("\nsend back, refund")
    assert all(document.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


@pytest.mark.parametrize("name", ["faq.csv", "faq.jsonl"])
def test_further_columns_are_looked_up_by_their_words(tmp_path: Path, name: str) -> None:
    rows = [
        {
            "product": "Oslo  desk",
            "question": "A?",
            "id": "17",
            "answer": "a",
            "team": "care",
            "note": "x" * 600,
        },
        {
            "product": "Oslo  desk",
            "question": "B?",
            "id": "18",
            "answer": "b",
            "team": "Oslo desk",
            "note": "",
        },
    ]
    if name.endswith("csv"):
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    else:
        rows[0] |= {"more": ["one", "two"], "count": 7, "nested": {"x": "y"}}  # type: ignore[dict-item]
        lines = [json.dumps(row) for row in rows]
    one, two = chunk_document(load(tmp_path, name, "\n".join(lines)))
    more = () if name.endswith("csv") else ("one, two",)
    assert one.terms == ("Oslo desk", "care", "x" * 500, *more)
    assert two.terms == ("Oslo desk",)
    assert one.embedded_text() == "faq > A?\na\n" + ", ".join(("Oslo desk", "care", *more))
    assert one.looked_up() == "\n".join(one.terms)


def test_bad_rows_are_named_and_the_others_kept(tmp_path: Path) -> None:
    text = 'question,answer\nA?,a\n"B\n?",\nC?,c,d\n,d\nE?,"e\ne"\nF?,' + "f" * 110_000 + "\n"
    document = load(tmp_path, "faq.csv", text)
    assert [block.text for block in document.blocks] == ["a", "e\ne"]
    assert document.notices == (
        "4 of 6 rows left out: line 3 has no answer; line 5 has 3 cells for 2 columns; line 6 has no question;"
        " line 9 has a cell of more than 100,000 characters",
    )


def test_bad_lines_of_json(tmp_path: Path) -> None:
    good = '{"question": "A?", "answer": "a"}'
    bad = ["{", "[1]", '{"question": "B?", "answer": true}', '{"answer": "c"}', "[" * 90_000, "null"]
    document = load(tmp_path, "faq.jsonl", "\n".join([*bad, good]))
    assert [block.text for block in document.blocks] == ["a"]
    assert document.notices == (
        "6 of 7 rows left out: line 1 is not JSON; line 2 is not an object; line 3 has no answer;"
        " line 4 has no question; line 5 is not JSON; and 1 more",
    )


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("a.csv", "name,price\nx,1\n", "has no columns question and answer: its first line is 'name,price'"),
        ("a.csv", "question,answer\n", "holds no question with an answer"),
        ("a.csv", "question,answer\nA?,\n", "holds no question with an answer: line 2 has no answer"),
        (
            "a.csv",
            'question,answer\nA?,a\nB?,"b\nC?,c\n',
            "cannot be read from line 3 on: unexpected end of data",
        ),
        (
            "a.csv",
            f'question,answer\nA?,"{"a" * 10_000_000}"\n',
            "cannot be read from line 2 on: field larger",
        ),
        ("a.jsonl", "{}\n", "holds no question with an answer: line 1 has no question"),
        ("a.jsonl", "\n\n", "holds no question with an answer"),
        ("a.csv", "\n \n", "holds no text"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, cause: str) -> None:
    with pytest.raises(KnowledgeError) as caught:
        load(tmp_path, name, text)
    assert caught.value.cause.startswith(f"{tmp_path / name} {cause}")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "answers"),
    [
        ("faq.tsv", "\tquestion\tanswer\n0\tHow?\tSo.\n1\tWhy?\tDue.\n", ["So.", "Due."]),
        ("faq.csv", "question,answer\nHow?,So.,,\n", ["So."]),
        ("faq.jsonl", '{"question": "How many?", "answer": 30}', ["30"]),
    ],
)
def test_tables_as_other_programs_write_them(
    tmp_path: Path, name: str, text: str, answers: list[str]
) -> None:
    document = load(tmp_path, name, text)
    assert [block.text for block in document.blocks] == answers
    assert document.notices == ()
