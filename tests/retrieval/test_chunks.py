from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agentkit.retrieval.chunks import MAX_WORDS, chunk_document, count_words
from agentkit.retrieval.documents import DocumentBuilder
from agentkit.retrieval.loaders import load_document
from agentkit.retrieval.sentences import sentences

KNOWLEDGE = Path(__file__).parents[2] / "knowledge"
TUNED = (".md", ".txt", ".html")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 4.95 euros, approx. 5. Fine.", ["It costs 4.95 euros, approx. 5.", "Fine."]),
        ("Ask Dr. Lee, e.g. by mail. Or J. Smith.", ["Ask Dr. Lee, e.g. by mail.", "Or J. Smith."]),
        ("Choose Forgot password? on the page. Done!", ["Choose Forgot password? on the page.", "Done!"]),
        ('He said "Go." Then left.', ['He said "Go."', "Then left."]),
        ("1. Open it.\n2. Close it.", ["1. Open it.", "2. Close it."]),
        ("Visit www.example.org now. Bye.", ["Visit www.example.org now.", "Bye."]),
        ("Open until 5 p.m. Monday only.", ["Open until 5 p.m.", "Monday only."]),
        ("是的。不是。", ["是的。", "不是。"]),
        ("Gilt bis zum 31. Dezember. Danach nicht.", ["Gilt bis zum 31. Dezember.", "Danach nicht."]),
        ("Nach der 2. Mahnung inkl. Gebühr. Ende.", ["Nach der 2. Mahnung inkl. Gebühr.", "Ende."]),
        ("It is open from 9 to 17. Closed on Sunday.", ["It is open from 9 to 17.", "Closed on Sunday."]),
        (
            "A ¦ B ¦ C\nExpress | Tomorrow. Before noon | €9",
            ["A ¦ B ¦ C", "Express | Tomorrow. Before noon | €9"],
        ),
        (
            "You may change your mind. Refunds take 5 days.",
            ["You may change your mind.", "Refunds take 5 days."],
        ),
        (
            "It takes 24 hr. Returns are free. Es sind mind. 5 Tage.",
            ["It takes 24 hr.", "Returns are free.", "Es sind mind. 5 Tage."],
        ),
        (
            "Order up to 10. Separate orders are possible.",
            ["Order up to 10.", "Separate orders are possible."],
        ),
        ("Open from 9 to 17. Mail is answered.", ["Open from 9 to 17.", "Mail is answered."]),
        ("Open from 9 a.m. to 5 p.m. Monday to Friday.", ["Open from 9 a.m. to 5 p.m. Monday to Friday."]),
        ("Until 5 p.m. CET only. Bye.", ["Until 5 p.m. CET only.", "Bye."]),
        ("Viele Waren, z. B. Lampen. Ende.", ["Viele Waren, z. B. Lampen.", "Ende."]),
        ("Mo.-Fr. 9-17 Uhr, Sa. 10-14 Uhr.", ["Mo.-Fr. 9-17 Uhr, Sa. 10-14 Uhr."]),
        ("In euros, incl. VAT. Fine.", ["In euros, incl. VAT.", "Fine."]),
        ("It takes 5 min. Then stop.", ["It takes 5 min.", "Then stop."]),
        ("I am 17. Can I sign up?", ["I am 17.", "Can I sign up?"]),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_chunks_follow_the_structure() -> None:
    builder = DocumentBuilder()
    builder.heading(1, "Guide")
    builder.paragraph("Intro.")
    builder.heading(2, "Long")
    builder.paragraph(" ".join(f"Sentence number {n} has exactly seven words." for n in range(40)))
    builder.heading(2, "Short")
    builder.paragraph("First.")
    builder.paragraph("Second.")
    document = builder.build("guide.md")
    chunks = chunk_document(document)
    assert [chunk.heading for chunk in chunks] == ["Guide", *["Guide > Long"] * 3, "Guide > Short"]
    assert chunks[-1].text == "First.\n\nSecond."
    for chunk in chunks:
        assert document.text[chunk.start : chunk.end] == chunk.text
        assert count_words(chunk.text) <= MAX_WORDS
        assert chunk.text.endswith(".")


def test_a_sentence_without_end_is_cut() -> None:
    builder = DocumentBuilder()
    builder.paragraph("word " * 500)
    builder.paragraph("x" * 10_000)
    chunks = chunk_document(builder.build("a.txt"))
    assert all(count_words(chunk.text) <= MAX_WORDS for chunk in chunks)
    assert sum(chunk.text.count("word") for chunk in chunks) == 500
    assert sum(chunk.text.count("x") for chunk in chunks) == 10_000


def test_chunks_that_retrieval_was_tuned_on_stay_as_they_are() -> None:
    """Ranking weights and the abstention model were fitted to these very chunks: whoever changes them tunes anew."""
    digest, count = hashlib.sha256(), 0
    for path in sorted(KNOWLEDGE.rglob("*")):
        if path.suffix in TUNED:
            name = path.relative_to(KNOWLEDGE).as_posix()
            document = load_document(path, name)
            for chunk in chunk_document(document):
                assert document.text[chunk.start : chunk.end] == chunk.text
                assert (chunk.language, chunk.page) == ("en", None)
                digest.update(f"{name}\0{chunk.start}\0{chunk.embedded_text()}\0".encode())
                count += 1
    assert count == 133
    assert digest.hexdigest() == "f43421152dd3d2b0279f9c8e178a2f1e7552141cab25d8ccc248bb8aad31403a"


ENGLISH = "You can return any item within thirty days of delivery, as long as it is unused. "
GERMAN = "Sie können jeden Artikel innerhalb von dreißig Tagen nach der Lieferung zurückgeben, wenn er unbenutzt ist. "


def test_language_of_chunks() -> None:
    builder = DocumentBuilder()
    builder.heading(2, "English")
    builder.paragraph(ENGLISH * 2)
    builder.heading(2, "Deutsch")
    builder.paragraph(GERMAN * 2)
    builder.heading(2, "Short")
    builder.paragraph("Ja, gern.")
    builder.heading(2, "Declared")
    builder.paragraph(ENGLISH * 2, language="ga-IE")
    document = builder.build("a.md", language="en")
    assert [chunk.language for chunk in chunk_document(document)] == ["en", "de", "en", "ga"]


def test_pages_of_chunks() -> None:
    builder = DocumentBuilder()
    builder.paragraph("One.", page=1)
    builder.heading(2, "Next", page=2)
    builder.paragraph("Two goes on. And ends.", page=2, breaks=[(13, 3)])
    builder.paragraph("Three.", page=5)
    document = builder.build("a.pdf")
    assert [document.page_at(document.text.index(word)) for word in ("One", "Two", "And", "Three")] == [
        1,
        2,
        3,
        5,
    ]
    assert [(chunk.text, chunk.page) for chunk in chunk_document(document, max_words=3)] == [
        ("One.", 1),
        ("Two goes on.", 2),
        ("And ends.", 3),
        ("Three.", 5),
    ]
    assert [(chunk.text, chunk.page) for chunk in chunk_document(document)] == [
        ("One.", 1),
        ("Two goes on.", 2),
        ("And ends.", 3),
        ("Three.", 5),
    ]


def test_chunks_of_a_language_without_spaces_fit_the_encoder() -> None:
    builder = DocumentBuilder()
    builder.paragraph("退货期限为三十天。" * 100)
    chunks = chunk_document(builder.build("a.txt"))
    assert max(len(chunk.text) for chunk in chunks) <= 2 * MAX_WORDS
