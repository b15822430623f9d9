from __future__ import annotations

from pathlib import Path

import pytest

from agentkit.errors import KnowledgeError
from agentkit.retrieval import loaders
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders import load_document


def load(tmp_path: Path, name: str, text: str) -> Document:
    (tmp_path / name).write_text(text, encoding="utf-8")
    document = load_document(tmp_path / name, name)
    assert all(document.text[block.start : block.end] == block.text for block in document.blocks)
    return document


def pairs(document: Document) -> list[tuple[tuple[str, ...], str]]:
    return [(block.headings, block.text) for block in document.blocks]


def test_markdown(tmp_path: Path) -> None:
    text = """---
title: dropped
---
# Guide

Some **bold** and _soft_ [link](https://x.example) in snake_case_name,
wrapped &amp; joined.

Setext
------
- one *item*
  goes on
- two

| Name | Price |
|------|-------|
| Std  | €4.90 |

### Deep
```
# kept   as is
```
"""
    assert pairs(load(tmp_path, "a.md", text)) == [
        (("Guide",), "Some bold and soft link in snake_case_name, wrapped & joined."),
        (("Guide", "Setext"), "- one item goes on\n- two\nName | Price\nStd | €4.90"),
        (("Guide", "Setext", "Deep"), "# kept   as is"),
    ]


def test_html(tmp_path: Path) -> None:
    text = """<html><head><title>T</title><style>x{}</style></head><body>
    <header>Shop</header><nav><a>Menu</a></nav>
    <h1>Delivery</h1><p>First<br>second <b>bold</b>.</p><!-- secret --><p hidden>hidden</p>
    <h2>Prices</h2><table><tr><th>Option</th><th>Price</th></tr>
    <tr><td><p>Standard</p></td><td>€4.90</td></tr></table>
    <ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul>
    <script>evil()</script><footer>imprint</footer></body></html>"""
    assert pairs(load(tmp_path, "a.html", text)) == [
        (("Delivery",), "First\nsecond bold."),
        (("Delivery", "Prices"), "Option | Price\nStandard | €4.90"),
        (("Delivery", "Prices"), "- one\n- inner\n- two"),
    ]


def test_html_title_survives_a_dropped_header(tmp_path: Path) -> None:
    document = load(tmp_path, "a.htm", "<header><h1>Warranty</h1></header><p>Two years.</p>")
    assert document.title == "Warranty"


def test_html_nested_ten_thousand_deep(tmp_path: Path) -> None:
    document = load(tmp_path, "a.html", "<div>" * 10_000 + "deep" + "</div>" * 10_000)
    assert pairs(document) == [(("a",), "deep")]


def test_text(tmp_path: Path) -> None:
    long = "This line is long enough to count as one that was wrapped by an editor,"
    text = f"GIFT CARDS\n\nValidity\n--------\n{long}\nso it goes on here.\n\nLantern & Loom\n1 Quay Street\n"
    assert pairs(load(tmp_path, "a.txt", text)) == [
        (("Gift cards", "Validity"), f"{long} so it goes on here."),
        (("Gift cards", "Validity"), "Lantern & Loom\n1 Quay Street"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "---\ntitle: x\nkeywords: send back, 30 days , send back,\n---\n# T\n\nBody."),
        ("a.html", '<head><meta name="Keywords" content="send back, 30 days"></head><h1>T</h1><p>Body.</p>'),
        ("a.txt", "T\n=\n\nBody.\n\nKeywords: send back, 30 days\n"),
    ],
)
def test_keywords_are_kept_apart_from_the_text(tmp_path: Path, name: str, text: str) -> None:
    document = load(tmp_path, name, text)
    assert document.keywords == ("send back", "30 days")
    assert document.text == "T\n\nBody."


def test_keywords_elsewhere_are_text(tmp_path: Path) -> None:
    assert load(tmp_path, "a.txt", "Keywords: are words.\n\nBody.").keywords == ()
    assert load(tmp_path, "a.md", "# T\n\nkeywords: a, b").text == "T\n\nkeywords: a, b"


def test_control_characters_are_dropped(tmp_path: Path) -> None:
    assert load(tmp_path, "a.txt", "red \x1b[31malert\x07").blocks[0].text == "red [31malert"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("Größe: 5 €".encode(encoding))
    assert load_document(tmp_path / "a.txt", "a.txt").blocks[0].text == "Größe: 5 €"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nul.txt", b"abc\x00def", "NUL"),
        ("latin.md", "Größe".encode("latin-1"), "not UTF-8"),
        ("utf16.txt", "Grüße".encode("utf-16-le"), "is not text"),
        ("photo.md", b"\x89PNG\r\n\x1a\n\x00\x00", "not text"),
        ("empty.md", b"", "no text"),
        ("blank.html", b"<html><body> <script>x</script></body></html>", "no text"),
        ("data.docx", b"PK", "'.docx'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KnowledgeError) as caught:
        load_document(tmp_path / name, name)
    assert str(tmp_path / name) in caught.value.cause
    assert reason in caught.value.cause
    assert caught.value.remedy


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "MAX_BYTES", 10)
    (tmp_path / "a.txt").write_text("eleven bytes and more")
    with pytest.raises(KnowledgeError, match=r"a\.txt .*more than the limit"):
        load_document(tmp_path / "a.txt", "a.txt")


@pytest.mark.parametrize("name", ["missing.md", "folder.md"])
def test_not_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(KnowledgeError, match=name):
        load_document(tmp_path / name, name)
