from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentkit.errors import KnowledgeError
from agentkit.retrieval.chunks import chunk_document
from agentkit.retrieval.documents import MAX_METADATA, Document, clean_metadata, language_code
from agentkit.retrieval.loaders import Limits, load_document
from agentkit.retrieval.loaders.kinds import recognise
from agentkit.retrieval.loaders.markdown import load_markdown
from agentkit.retrieval.loaders.plain import load_text


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
        (("Guide", "Setext"), "- one item goes on\n- two\nName ¦ Price\nStd | €4.90"),
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
        (("Delivery", "Prices"), "Option ¦ Price\nStandard | €4.90"),
        (("Delivery", "Prices"), "- one\n  - inner\n- two"),
    ]


def test_no_text_of_markdown_is_lost(tmp_path: Path) -> None:
    text = """Write to <support@shop.example>, or `agentkit ask <text>`; `a*b*c` is `&lt;`.

[^1]: Gift cards are excluded.
[Note]: All prices include VAT.
[home]: https://shop.example "Our shop"

Country | Price
--- | ---
Norway | €9
Iceland | on request
Ask us.
Call a | b now.
"""
    assert pairs(load(tmp_path, "a.md", text)) == [
        (("a",), "Write to support@shop.example, or agentkit ask <text>; a*b*c is &lt;."),
        (("a",), "Gift cards are excluded. [Note]: All prices include VAT."),
        (("a",), "Country ¦ Price\nNorway | €9\nIceland | on request"),
        (("a",), "Ask us. Call a | b now."),
    ]


def test_no_text_of_html_is_lost(tmp_path: Path) -> None:
    text = """<body><header>Shop</header><article><h2><button>A?</button></h2><p>Rück&shy;sendung.</p></article>
    <article><header><h2>B?</h2></header><p>Answer b.</p><button>Buy</button></article></body>"""
    assert pairs(load(tmp_path, "a.html", text)) == [
        (("a", "A?"), "Rücksendung."),
        (("a", "B?"), "Answer b."),
    ]
    one = "<body><aside>News</aside><article><h1>T</h1><p>Text.</p></article></body>"
    assert pairs(load(tmp_path, "b.html", one)) == [(("T",), "Text.")]


def test_what_names_the_columns_of_a_table(tmp_path: Path) -> None:
    """What the format says; where it says nothing, a first row without number above others that have some."""
    wide = "<tr><td>Standard</td><td>€4.90</td><td>by post</td></tr>"
    plain = "<table><tr><td>Option</td><td>Price</td><td>How</td></tr>{}</table>"
    assert pairs(load(tmp_path, "a.html", plain.format(wide)))[0][1].startswith(
        "Option ¦ Price ¦ How\nStandard | €4.90"
    )
    assert "¦" not in pairs(load(tmp_path, "b.html", plain.format("")))[0][1]
    facts = "<table><tr><td>Material</td><td>Linen</td></tr><tr><td>Width</td><td>140 cm</td></tr></table>"
    assert pairs(load(tmp_path, "h.html", facts))[0][1] == "Material | Linen\nWidth | 140 cm"
    headed = f"<table><tr><th>Option</th><td>Pick-up</td><td>How</td></tr>{wide}</table>"
    assert pairs(load(tmp_path, "c.html", headed))[0][1].startswith("Option ¦ Pick-up ¦ How\n")
    long = "| A | B |\n|---|---|\n" + "".join(f"| on request {n:c} | by ship |\n" for n in range(97, 120))
    text = pairs(load(tmp_path, "d.md", f"{long}| x | 5 |\n"))[0][1]
    assert text.count("¦") == 1
    spanned = "<tr><th>To</th><th>Price</th></tr><tr><td colspan=2>Europe</td></tr>"
    spanned = (
        f"<table>{spanned}<tr><td>Iceland</td><td>free</td></tr><tr><td>Sweden</td><td>€5</td></tr></table>"
    )
    assert pairs(load(tmp_path, "e.html", spanned))[0][1].count("¦") == 1
    labels = "<table><tr><th>Standard</th><td>free</td></tr><tr><th>Express</th><td>€9</td></tr></table>"
    assert "¦" not in pairs(load(tmp_path, "f.html", labels))[0][1]
    two = "| Fee | Price |\n|---|---|\n| Lost | €5 |\n\n| Fee | When |\n|---|---|\n| Lost | 5 days |\n"
    assert [text for _, text in pairs(load(tmp_path, "g.md", two))] == [
        "Fee ¦ Price\nLost | €5",
        "Fee ¦ When\nLost | 5 days",
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


def test_only_the_marks_of_a_quotation_are_dropped() -> None:
    text = "> Ask > us,\n> > or not.\n\nFrom 5 > 3 <b>bold</b>."
    assert pairs(load_markdown(text, "a.md")) == [(("a",), "Ask > us, or not."), (("a",), "From 5 > 3 bold.")]


def test_headings_of_markdown_without_their_marks() -> None:
    text = "# One #\n\n## Two ##  \n\n### C#\n\nText.\n\n#\n\n#### ##\n\n#tag\n\n#\tFour # 4\n\nLast.\n"
    assert pairs(load_markdown(text, "a.md")) == [
        (("One", "Two", "C#"), "Text."),
        (("One", "Two", "C#"), "#tag"),
        (("One", "Four # 4"), "Last."),
    ]


@pytest.mark.parametrize(
    "text", ["Returns are free.", "# Returns\n\nReturns are free.", "See http://x.example"]
)
def test_text_between_two_rules_is_no_front_matter(text: str) -> None:
    body = load_markdown(f"---\n\n{text}\n\n---\n\nMore.", "a.md").text
    assert body.endswith(f"{text.removeprefix('# ')}\n\nMore.")


def test_front_matter_may_begin_with_a_comment() -> None:
    document = load_markdown("---\n# made by hand\n\n'og:title': x\nauthor: A\n---\nText.", "a.md")
    assert (document.text, document.metadata) == ("Text.", {"author": "A"})


MANY = 200_000


@pytest.mark.parametrize(
    ("load", "text", "expected"),
    [
        (load_text, "Keywords:" + " " * MANY + "\nx", "Keywords:\nx"),
        (load_text, "Keywords: a" + " \n" * MANY + "\nx", "Keywords: a\n\nx"),
        (load_text, "." * MANY + "x", "." * MANY + "x"),
        (load_text, ".'" * MANY + "x", ".'" * MANY + "x"),
        (load_markdown, "x\n" + "<!--" * MANY, "x " + "<!--" * MANY),
        (load_markdown, "#" + " " * MANY + "a" + " " * MANY + "b\n\nx", "a b\n\nx"),
        (load_markdown, "# a" + " #" * MANY + " b\n\nx", "a" + " #" * MANY + " b\n\nx"),
        (load_markdown, "---\nk: a" + " " * MANY + "b\n---\n# T\n\nx", "T\n\nx"),
        (load_markdown, "---\nk: a" + " " * MANY + "b\n# T\n\nx", "k: a b\n\nT\n\nx"),
    ],
)
def test_no_text_costs_quadratic_time(load: Callable[[str, str], Document], text: str, expected: str) -> None:
    document = load(text, "a")
    assert document.text.removeprefix("a\n\n") == expected
    assert chunk_document(document)[-1].text.endswith("x" if "<!--" not in text else "<!--")


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


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nul.txt", b"abc\x00def", "NUL"),
        ("short.md", "Größe".encode("latin-1"), "not UTF-8"),
        ("utf16.txt", "Grüße".encode("utf-16-le"), "is not text"),
        ("junk.txt", bytes(range(1, 256)) * 20, "is not text"),
        ("damaged.txt", "Größe und Maße der Stühle".encode() + b" \xfc", "byte 30 is not UTF-8"),
        ("photo.md", PNG, "is a PNG image, not Markdown"),
        ("photo.pdf", PNG, "is a PNG image, not a PDF"),
        ("letter.txt", b"%PDF-1.7\n", "is a PDF, not text"),
        ("page.md", b"\xef\xbb\xbf\n<!DOCTYPE html><p>x</p>", "is HTML, not Markdown"),
        ("old.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is an old Office file"),
        ("empty.md", b"", "is empty"),
        ("empty.pdf", b"", "is empty"),
        ("blank.html", b"<html><body> <script>x</script></body></html>", "no text"),
        ("data.xyz", b"PK", "'.xyz'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KnowledgeError) as caught:
        load_document(tmp_path / name, name)
    assert str(tmp_path / name) in caught.value.cause
    assert reason in caught.value.cause
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"ID3 tags are kept.", ""),
        (b"ID3\ntags are kept.", ""),
        (b"THE NEW WAVE of lamps.", ""),
        (b"Images: WEBP.", ""),
        (b"The ftyp box.", ""),
        (b"A file that begins with %PDF- is a PDF.", ""),
        (b"ID3\x04\x00\x00", "an MP3 recording"),
        (b"RIFF\n\x00\x00\x00WAVEfmt ", "a WAV recording"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "a WebP image"),
        (b"\x00\x00\x00\x18ftypmp42", "an MP4 film or recording"),
        (b"{\\rtf1", "an RTF document"),
        (b"II*\x00", "a TIFF image"),
        (b"MM\x00*", "a TIFF image"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"%PDF-1.7 cut off", "pdf"),
        (b"junk\n%PDF-1.7\n%%EOF", "pdf"),
    ],
)
def test_kinds(data: bytes, kind: str) -> None:
    assert recognise(data) == kind


def test_a_wrong_suffix_that_has_a_loader_is_named_in_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_bytes(b"%PDF-1.7\n")
    with pytest.raises(KnowledgeError, match=r"rename it to \.pdf$"):
        load_document(tmp_path / "letter.txt", "letter.txt")


@pytest.mark.parametrize(
    ("encoding", "language", "text"),
    [
        ("cp1252", "de", "Größe und Maße: 5 € für Stühle. Wir gewähren zwei Jahre Garantie auf alle Möbel."),
        (
            "cp1252",
            "fr",
            "La livraison est effectuée à domicile. Les frais s’élèvent à 5 euros, payés à l’avance.",
        ),
        ("cp1252", "en", "It’s free – you’ll pay £5 for “express” delivery; the café table isn’t included."),
        ("cp1250", "pl", "Zwrot towaru jest możliwy w ciągu trzydziestu dni od daty dostarczenia przesyłki."),
        ("cp1250", "cs", "Zboží můžete vrátit do třiceti dnů od doručení. Uschovejte prosím původní obal."),
        ("cp1251", "ru", "Вы можете вернуть товар в течение тридцати дней с момента доставки. Спасибо."),
        ("cp1253", "el", "Μπορείτε να επιστρέψετε το προϊόν εντός τριάντα ημερών από την παράδοση."),
        ("shift_jis", "ja", "商品は到着後三十日以内に返品できます。ご不明な点はお問い合わせください。"),
    ],
)
def test_older_encodings(tmp_path: Path, encoding: str, language: str, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    document = load_document(tmp_path / "a.txt", "a.txt")
    assert document.text == text
    assert document.language == language
    assert document.metadata == {"encoding": encoding}
    assert document.notices == (f"read as {encoding}: it is not UTF-8",)


def test_the_encoding_that_a_page_names(tmp_path: Path) -> None:
    page = '<html><meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-2"><p>Łódź'
    (tmp_path / "a.html").write_bytes(page.encode("iso-8859-2"))
    document = load_document(tmp_path / "a.html", "a.html")
    assert (document.text, document.metadata) == ("Łódź", {"encoding": "iso-8859-2"})


def test_stray_bytes_in_english_are_no_older_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(
        b"We have a shop in Cork. It is open every day of the week. \xff\xfe\x9f"
    )
    with pytest.raises(KnowledgeError, match="is not UTF-8"):
        load_document(tmp_path / "a.txt", "a.txt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.md",
            "---\ntitle: The title\nAuthor: 'A. Writer'\nversion: 2.5\nlang: de-AT\ntags: [x, y]\nnested:\n"
            "  key: value\n---\n\nEin Absatz.",
        ),
        (
            "a.html",
            '<html lang="de-AT"><head><title>The title</title><meta name="Author" content="A. Writer">'
            '<meta name="version" content="2.5"><meta name="viewport" content="w"><meta name="title"'
            ' content="The title"></head><p>Ein Absatz.',
        ),
    ],
)
def test_metadata_and_language(tmp_path: Path, name: str, text: str) -> None:
    document = load(tmp_path, name, text)
    assert document.title == "The title"
    assert document.metadata == {"title": "The title", "author": "A. Writer", "version": "2.5"}
    assert document.language == "de"


def test_the_title_of_front_matter_yields_to_a_heading(tmp_path: Path) -> None:
    assert load(tmp_path, "a.md", "---\ntitle: Other\n---\n# Own\n\nText.").title == "Own"


def test_metadata_is_bounded() -> None:
    pairs: list[tuple[str, object]] = [("Wrong key", "x"), ("k", True), ("k", 3), ("k", 4), ("l", " ")]
    assert clean_metadata(pairs) == {"k": "3"}
    assert len(clean_metadata((f"k{n}", n) for n in range(99))) == MAX_METADATA
    assert len(clean_metadata([("k", "x" * 9_999)])["k"]) == 500


@pytest.mark.parametrize(
    ("tag", "code"), [("de", "de"), ("de-AT", "de"), ("EN_us", "en"), ("german", ""), ("", "")]
)
def test_language_codes(tag: str, code: str) -> None:
    assert language_code(tag) == code


def test_detected_language(tmp_path: Path) -> None:
    english = "You can return any item within thirty days of delivery, as long as it is unused."
    assert load(tmp_path, "a.txt", english).language == "en"
    assert load(tmp_path, "b.txt", "Price: 4.90").language == ""


def test_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("eleven bytes and more")
    with pytest.raises(KnowledgeError, match=r"a\.txt .*more than the limit"):
        load_document(tmp_path / "a.txt", "a.txt", Limits(bytes=10))


@pytest.mark.parametrize("name", ["missing.md", "folder.md"])
def test_not_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(KnowledgeError, match=name):
        load_document(tmp_path / name, name)


ROWS = "Bed ¦ Pillow ¦ Duvet\nKing | – | 230\n– | Twin | –"


def test_empty_cells_keep_the_columns_in_place(tmp_path: Path) -> None:
    markdown = "| Bed | Pillow | Duvet |\n|---|---|---|\n| King | | 230 |\n||Twin||\n| | | |\n"
    spaced = """<table><tr><th>Bed</th> <th>Pillow</th> <th>Duvet</th></tr>
        <tr> <td>King</td> <td> &nbsp; </td> <td>230</td> </tr>
        <tr> <td><p>\u200b</p></td> <td>Twin</td> <td><br></td> </tr> <tr><td></td><td></td><td></td></tr></table>"""
    tight = (
        "<table><tr><th>Bed<th>Pillow<th>Duvet</tr><tr><td>King</td><td></td><td>230</td></tr>"
        "<tr><td></td><td>Twin</td><td></td></tr></table>"
    )
    for name, text in (
        ("a.md", markdown),
        ("b.html", spaced),
        ("c.html", tight.replace("<th>", "</th><th>")),
    ):
        (tmp_path / name).write_text(text)
        assert [block.text for block in load_document(tmp_path / name, name).blocks] == [ROWS], name


def test_a_list_in_a_cell_leaves_no_mark_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<table><tr><td><ul><li>One</li><li></li></ul></td><td>Two</td></tr></table>"
    )
    text = "\n".join(block.text for block in load_document(tmp_path / "a.html", "a.html").blocks)
    assert "–" not in text
    assert "- One" in text
    assert "Two" in text


def test_lists_within_lists_keep_their_depth(tmp_path: Path) -> None:
    text = """
- Outside the EU:
    - Standard: 9 euros
    - Express: 20 euros
- Inside the EU:

    Only to the mainland.

    1. Standard: 4 euros
- Pickup is free

Then a paragraph.

- New
"""
    assert [text for _, text in pairs(load(tmp_path, "a.md", text))] == [
        "- Outside the EU:\n  - Standard: 9 euros\n  - Express: 20 euros\n- Inside the EU: Only to the mainland.\n"
        "  1. Standard: 4 euros\n- Pickup is free",
        "Then a paragraph.",
        "- New",
    ]


def md(text: str) -> str:
    return load_markdown(text, "x.md").text


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (
            "| Plan | Days |\n|---|---|\n| Basic<br>Pro | 14<br/>30 |",
            "Plan ¦ Days\nBasic Pro | 14 30",
        ),
        ("Mon-Fri<br>9-17 h, <b>bo</b>ld", "Mon-Fri 9-17 h, bold"),
        ("<td>Basic</td><td>14</td>", "Basic 14"),
        (r"Replace \<order-id\> with 5\*3\*2, \*required\*", "Replace <order-id> with 5*3*2, *required*"),
        (
            r"\[not a link\](x), \`no code\`, C:\Users and `a\b`",
            r"[not a link](x), `no code`, C:\Users and a\b",
        ),
        ("| a | b | c |\n|---|---|---|\n| yes \\| no | c | d |", "a ¦ b ¦ c\nyes / no | c | d"),
        ("Use `<!--` and `-->`. <!-- gone\ngone --> Stays.<!-- x -->", "Use <!-- and -->. Stays."),
        ("```\n<!-- code -->\n```\n\n<!-- has no end", "<!-- code -->\n\n<!-- has no end"),
    ],
)
def test_marks_that_are_none_and_tags_between_words(text: str, read: str) -> None:
    assert md(text) == read


def test_code_in_a_quote_or_an_item_is_no_heading() -> None:
    quoted = load_markdown("> ```\n> # install\n> pip install x\n> ```\n\nafter", "x.md")
    assert [(block.headings[1:], block.text) for block in quoted.blocks] == [
        ((), "# install\npip install x"),
        ((), "after"),
    ]
    left = load_markdown("> ```\n> open\nplain\n# H\nz", "x.md")  # the quote ends, and its code with it
    assert left.blocks[-1].headings[-1] == "H"
    assert md("1. Run\n\n    ```bash\n    # update\n    - x\n    ```\n\n2. Next") == (
        "1. Run\n\n# update\n- x\n\n2. Next"
    )


def test_text_between_rules_is_no_front_matter() -> None:
    text = "---\nNote: closed on Sundays.\n\nWe open at nine on all other days.\n---\n# Hours\n\nSee above."
    assert "closed on Sundays" in md(text)
    assert md("---\ntags:\n  - b\n- c\n# remark\nlist: [a,\n b]\n---\ntext") == "text"


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (
            "<table><tr><th>Size<th>Price<tr><td>S<td>10<tr><td>M<td>12</table>",
            "Size ¦ Price\nS | 10\nM | 12",
        ),
        ("<ul><li>A<li>B<ul><li>in<li>ner</ul><li>C</ul>", "- A\n- B\n  - in\n  - ner\n- C"),
        ("<dl><dt>A<dd>a<dt>B<dd>b</dl>", "A\na\nB\nb"),
        ("<form id=f><h1>T</h1><p>All is here</p><select><option>q</select></form>", "T\n\nAll is here"),
        ("<p>x</p><form><label>Mail</label></form>", "x"),
    ],
)
def test_html_as_servers_and_people_write_it(tmp_path: Path, body: str, read: str) -> None:
    assert load(tmp_path, "x.html", f"<html><body>{body}</body></html>").text == read
