"""PDF files, written by hand in `pdf_files`."""

from __future__ import annotations

from pathlib import Path

import pytest
from pdf_files import Text, column, encrypted, make_pdf

from agentkit.errors import KnowledgeError
from agentkit.retrieval.chunks import chunk_document
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders import Limits, load_document

BODY = [
    "Every order is sent within two working days, as long as all of its items are in our ware-",
    "house and the payment has reached us. The self-service page shows where it is. On our self-",
    "service page you can also change the address.",
]


def load(tmp_path: Path, data: bytes, limits: Limits | None = None) -> Document:
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    document = load_document(path, "docs/a.pdf", limits or Limits())
    assert all(document.text[block.start : block.end] == block.text for block in document.blocks)
    return document


def blocks(document: Document) -> list[tuple[int | None, tuple[str, ...], str]]:
    return [(block.page, block.headings, block.text) for block in document.blocks]


def book() -> list[list[Text]]:
    """Four pages with running header, footer and page number; two chapters."""
    pages: list[list[Text]] = []
    for page in range(1, 5):
        running = [(72.0, 805.0, 9.0, "Lantern & Loom"), (300.0, 30.0, 9.0, f"Page {page} of 4")]
        pages.append(running)
    pages[0] += [*column(["Delivery"], 740, 11), *column(BODY, 700)]
    pages[0] += column(
        ["A second paragraph begins on the first page, is long, and is not at its end when"], 600
    )
    pages[1] += column(["the page ends. Here is its end."], 740)
    pages[1] += column(["• one", "• two goes", "  on"], 680)
    pages[2] += [*column(["Returns"], 740, 11), *column(["Thirty days."], 700)]
    pages[3] += column(["The last page."], 740)
    return pages


def test_pages_paragraphs_and_bookmarks(tmp_path: Path) -> None:
    info = (
        "/Title (Help book) /Author (The shop) /CreationDate (D:20240102030405Z) /Keywords (parcel, refund)"
    )
    data = make_pdf(book(), [("Delivery", 1), ("Returns", 3)], info, "en-IE")
    document = load(tmp_path, data)
    first = (
        "Every order is sent within two working days, as long as all of its items are in our warehouse and the"
        " payment has reached us. The self-service page shows where it is. On our self-service page you can also"
        " change the address."
    )
    second = (
        "A second paragraph begins on the first page, is long, and is not at its end when the page ends."
        " Here is its end."
    )
    assert blocks(document) == [
        (1, ("Help book", "Delivery"), first),
        (1, ("Help book", "Delivery"), second),
        (2, ("Help book", "Delivery"), "• one\n• two goes on"),
        (3, ("Help book", "Returns"), "Thirty days."),
        (4, ("Help book", "Returns"), "The last page."),
    ]
    assert document.language == "en"
    assert document.keywords == ("parcel", "refund")
    assert document.metadata == {"title": "Help book", "author": "The shop", "date": "2024-01-02"}
    assert document.page_at(document.text.index("when")) == 1
    assert document.page_at(document.text.index("the page ends")) == 2


def test_headings_by_size_where_there_are_no_bookmarks(tmp_path: Path) -> None:
    pages = [
        [*column(["Help book"], 760, 24), *column(["Delivery"], 720, 16), *column(BODY, 690)],
        [*column(["Returns and", "refunds"], 720, 16), *column(BODY, 660)],
    ]
    headings = [block.headings for block in load(tmp_path, make_pdf(pages)).blocks]
    assert headings == [("Help book", "Delivery"), ("Help book", "Returns and refunds")]


def test_sizes_of_a_slide_show_are_no_headings(tmp_path: Path) -> None:
    slides = [[*column(["Large text", "on every slide"], 700, 30), *column(["small"], 500, 12)]] * 2
    document = load(tmp_path, make_pdf(slides))
    assert "Large text" in "".join(block.text for block in document.blocks)


def test_lines_that_repeat_within_the_text_stay(tmp_path: Path) -> None:
    pages = [column([f"Item {page}", "Price 5", *BODY], 500) for page in range(6)]
    text = load(tmp_path, make_pdf(pages)).text
    assert text.count("Price 5") == 6


def test_a_chunk_has_the_page_on_which_it_begins(tmp_path: Path) -> None:
    sentences = [
        f"This is sentence number {n} of a paragraph that runs over several pages." for n in range(90)
    ]
    pages = [column(sentences[n : n + 45], 780) for n in (0, 45)]
    document = load(tmp_path, make_pdf(pages))
    chunks = chunk_document(document)
    for chunk in chunks:
        assert document.text[chunk.start : chunk.end] == chunk.text
        number = int(chunk.text.split("number ")[1].split()[0])
        assert chunk.page == (1 if number < 45 else 2)
    assert {chunk.page for chunk in chunks} == {1, 2}


def test_partly_scanned(tmp_path: Path) -> None:
    document = load(tmp_path, make_pdf([column(BODY), [], []], picture=True))
    assert document.notices == (
        "2 of 3 pages are pictures without text, the first is page 2; run OCR to have them read",
    )


@pytest.mark.parametrize(
    ("data", "cause", "remedy"),
    [
        (encrypted(make_pdf([column(BODY)]), "secret"), "is encrypted", "without a password"),
        (make_pdf([column(BODY)] * 20)[:3000], "is cut off", "whole copy"),
        (make_pdf([[]] * 3, picture=True), "is scanned: its 3 pages", "OCR"),
        (make_pdf([[]] * 3), "holds no text on its 3 pages", "OCR"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 40 + b"%%EOF", "is damaged", "export it anew"),
        (make_pdf([]), "is damaged", "export it anew"),
        (b"no pdf at all", "is not a PDF", "convert"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, cause: str, remedy: str) -> None:
    with pytest.raises(KnowledgeError) as caught:
        load(tmp_path, data)
    assert caught.value.cause.startswith(f"{tmp_path / 'a.pdf'} {cause}")
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_ten_thousand_pages(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="has 10,000 pages, more than the limit of 2,000"):
        load(tmp_path, make_pdf([[]] * 10_000))
    with pytest.raises(KnowledgeError, match="has 3 pages, more than the limit of 2"):
        load(tmp_path, make_pdf([[]] * 3), Limits(pages=2))


def test_too_much_text(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="holds more than 100 characters"):
        load(tmp_path, make_pdf([column(BODY)]), Limits(characters=100))


def test_every_damage_is_one_clear_line(tmp_path: Path) -> None:
    good = make_pdf(book(), [("Delivery", 1), ("Returns", 3)])
    errors, places = [], range(0, len(good), len(good) // 60)
    for place in places:
        data = bytearray(good)
        data[place : place + 9] = b"\xff(<[/ 9 R"
        try:
            load(tmp_path, bytes(data))
        except KnowledgeError as error:
            errors.append(error)
    assert all(error.cause.startswith(str(tmp_path)) and error.remedy for error in errors)
    assert 0 < len(errors) < len(places)  # most damage is repaired or touches what is not read


def test_an_emoji_moves_no_line_that_follows(tmp_path: Path) -> None:
    """PDFium counts characters in UTF-16."""
    happy = column(["Glad to help ~~~~~~~~~~~~", *BODY], 700)
    pages = [[*column(["Help book"], 760, 24), *happy, *column(["Returns"], 500, 16), *column(BODY, 470)]]
    document = load(tmp_path, make_pdf(pages, emoji=True))
    assert "Glad to help " + 12 * "\U0001f600" in document.text
    assert {block.headings for block in document.blocks} == {("Help book",), ("Help book", "Returns")}
