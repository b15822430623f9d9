"""DOCX files, made by python-docx or written member by member."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders import Limits, load_document

BODY = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'


def load(tmp_path: Path, data: bytes, limits: Limits | None = None) -> Document:
    path = tmp_path / "a.docx"
    path.write_bytes(data)
    document = load_document(path, "docs/a.docx", limits or Limits())
    assert all(document.text[block.start : block.end] == block.text for block in document.blocks)
    return document


def blocks(document: Document) -> list[tuple[tuple[str, ...], str]]:
    return [(block.headings, block.text) for block in document.blocks]


def saved(word: docx.document.Document) -> bytes:
    out = io.BytesIO()
    word.save(out)
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_structure(tmp_path: Path) -> None:
    word = docx.Document()
    word.add_heading("Guide", 0)
    word.add_paragraph("Intro.")
    word.add_heading("Steps", 1)
    for style, text in (("List Number", "first"), ("List Number", "second"), ("List Bullet", "point")):
        word.add_paragraph(text, style=style)
    table = word.add_table(2, 2)
    for row, texts in enumerate((("Option", "Price"), ("Standard", "€4.90"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    own = word.styles.add_style("Our heading", WD_STYLE_TYPE.PARAGRAPH)
    own.base_style = word.styles["Heading 2"]
    word.add_paragraph("Deep", style="Our heading")
    word.add_paragraph("Last line\nand the next.")
    word.core_properties.author, word.core_properties.keywords = "The shop", "parcel, refund"
    word.core_properties.language = "en-IE"
    document = load(tmp_path, saved(word))
    assert blocks(document) == [
        (("Guide",), "Intro."),
        (("Guide", "Steps"), "1. first\n2. second\n- point"),
        (("Guide", "Steps"), "Option | Price\nStandard | €4.90"),
        (("Guide", "Steps", "Deep"), "Last line\nand the next."),
    ]
    assert document.keywords == ("parcel", "refund")
    assert document.language == "en"
    assert document.metadata["author"] == "The shop"


def test_empty_cells_keep_the_columns_in_place(tmp_path: Path) -> None:
    word = docx.Document()
    rows = (("Bed", "Pillow", "Duvet"), ("King", "", "230"), ("", "Twin", " "), ("", "", ""))
    table = word.add_table(4, 3)
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    assert blocks(load(tmp_path, saved(word)))[0][1] == "Bed ¦ Pillow ¦ Duvet\nKing | – | 230\n– | Twin | –"


def test_changes_and_content_controls(tmp_path: Path) -> None:
    """What a reader sees: insertions, content controls and links; no deletions, no field codes."""
    word = docx.Document()
    paragraph = word.add_paragraph("Returns ")
    pieces = (
        "<w:ins {ns}><w:r><w:t>within 30 days </w:t></w:r></w:ins>",
        "<w:del {ns}><w:r><w:delText>within 14 days </w:delText></w:r></w:del>",
        '<w:hyperlink {ns} w:anchor="x"><w:r><w:t>are free.</w:t></w:r></w:hyperlink>',
        "<w:r {ns}><w:instrText>PAGE</w:instrText></w:r>",
    )
    for piece in pieces:
        paragraph._p.append(parse_xml(piece.format(ns=nsdecls("w"))))
    control = (
        "<w:sdt {ns}><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    word.element.body.insert(1, parse_xml(control.format(ns=nsdecls("w"))))
    assert [text for _, text in blocks(load(tmp_path, saved(word)))] == [
        "Returns within 30 days are free.",
        "In a control.",
    ]


def with_notes(word: docx.document.Document, kind: str, notes: str) -> None:
    """Give a document its footnotes or endnotes part, which python-docx does not write."""
    name = PackURI(f"/word/{kind}.xml")
    content = f"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}+xml"
    body = f"<w:{kind} {nsdecls('w')}>{notes}</w:{kind}>".encode()
    relation = f"http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}"
    word.part.relate_to(Part(name, content, body, word.part.package), relation)


def refer(paragraph: Any, number: int, kind: str = "footnote", inside: str = "w:r") -> None:
    mark = f'<w:{kind}Reference w:id="{number}"/>'
    run = mark if inside == "w:r" else f"<w:r>{mark}</w:r>"
    paragraph._p.append(parse_xml(f"<{inside} {nsdecls('w')}>{run}</{inside}>"))


def note(number: int, text: str, kind: str = "footnote", more: str = "") -> str:
    return (
        f'<w:{kind} w:id="{number}" {more}><w:p><w:r><w:footnoteRef/><w:t>{text}</w:t></w:r></w:p></w:{kind}>'
    )


def test_notes_stand_below_what_refers_to_them(tmp_path: Path) -> None:
    word = docx.Document()
    refer(word.add_heading("Returns", 1), 1)
    price = word.add_paragraph("Postage costs €4")
    refer(price, 2)
    refer(price, 1)  # again
    refer(price, 7)  # there is none
    price.add_run(" a parcel.")
    refer(word.add_paragraph("one", style="List Bullet"), 3)
    word.add_paragraph("two", style="List Bullet")
    table = word.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    refer(table.cell(0, 1).paragraphs[0], 1, "endnote")
    refer(word.add_paragraph("Last."), 4, inside="w:del")
    footnotes = note(-1, "no note", more='w:type="separator"') + note(1, "Unused items only.")
    footnotes += note(2, "Free from €50.</w:t></w:r></w:p><w:p><w:r><w:t>Islands too.")
    with_notes(word, "footnotes", footnotes + note(3, "Third.") + note(4, "Deleted."))
    with_notes(word, "endnotes", note(1, "At the end.", "endnote"))
    assert blocks(load(tmp_path, saved(word))) == [
        (("Returns",), "Unused items only."),
        (("Returns",), "Postage costs €4 a parcel."),
        (("Returns",), "Free from €50. Islands too."),
        (("Returns",), "- one\n- two"),
        (("Returns",), "Third."),
        (("Returns",), "a | b"),
        (("Returns",), "At the end."),
        (("Returns",), "Last."),
    ]


def test_broken_notes_are_damage(tmp_path: Path) -> None:
    word = docx.Document()
    refer(word.add_paragraph("Text."), 1)
    with_notes(word, "footnotes", "<w:footnote")
    with pytest.raises(KnowledgeError, match=r"a\.docx is damaged: "):
        load(tmp_path, saved(word))


def test_truncated(tmp_path: Path) -> None:
    word = docx.Document()
    word.add_paragraph("Text.")
    with pytest.raises(KnowledgeError, match=r"a\.docx is damaged or cut off: .*; get a whole copy of it$"):
        load(tmp_path, saved(word)[:-400])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (zipped({"word/document.xml": b"<a>" * 9}), "is damaged"),
        (zipped({"xl/workbook.xml": b"x"}), "is an Excel workbook, not a DOCX document"),
        (zipped({"notes.txt": b"x"}), "is a ZIP archive, not a DOCX document"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99) + "EncryptedPackage".encode("utf-16-le"),
            "is encrypted",
        ),
        (saved(docx.Document()), "holds no text"),
        (b"no document", "is not a DOCX document"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, cause: str) -> None:
    with pytest.raises(KnowledgeError) as caught:
        load(tmp_path, data)
    assert caught.value.cause.startswith(f"{tmp_path / 'a.docx'} {cause}")
    assert caught.value.remedy


def test_zip_bomb_is_refused_by_its_directory(tmp_path: Path) -> None:
    bomb = zipped({"word/document.xml": BODY + b" " * (250 << 20)})
    assert len(bomb) < 1 << 20
    with pytest.raises(KnowledgeError, match="unpacks to 250 MB or more, over the limit of 200 MB"):
        load(tmp_path, bomb)
    with pytest.raises(
        KnowledgeError, match=r"unpacks to [\d,]+ times its size, over the limit of 100 times"
    ):
        load(tmp_path, zipped({"word/document.xml": BODY + b" " * (50 << 20)}))


def test_a_directory_that_lies_gives_no_more_than_it_says(tmp_path: Path) -> None:
    size = 3 << 20
    bomb = zipped({"word/document.xml": b" " * size})
    with pytest.raises(KnowledgeError, match="is damaged or cut off"):
        load(tmp_path, bomb.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))


def test_entities_do_not_expand(tmp_path: Path) -> None:
    word = docx.Document()
    word.add_paragraph("here")
    with zipfile.ZipFile(io.BytesIO(saved(word))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    laughs = b'<!DOCTYPE w [<!ENTITY a "%s">' % (b"ha" * 50)
    laughs += b"".join(b'<!ENTITY %c "%s">' % (n, b"&%c;" % (n - 1) * 50) for n in range(ord("b"), ord("i")))
    body = members["word/document.xml"]
    start = body.index(b"<w:document")
    members["word/document.xml"] = body[:start] + laughs + b"]>" + body[start:].replace(b"here", b"&h;")
    with pytest.raises(KnowledgeError):
        load(tmp_path, zipped(members))


@pytest.mark.parametrize(
    ("format", "start", "override", "marks"),
    [
        ("decimal", "5", "", ["5. one", "6. two"]),
        ("decimal", "1", "3", ["3. one", "4. two"]),
        ("lowerLetter", "1", "", ["a. one", "b. two"]),
        ("upperLetter", "26", "", ["Z. one", "AA. two"]),
        ("lowerRoman", "4", "", ["iv. one", "v. two"]),
        ("none", "1", "", ["one", "two"]),
        ("ordinalText", "1", "", ["1. one", "2. two"]),
    ],
)
def test_items_are_numbered_as_word_shows_them(
    tmp_path: Path, format: str, start: str, override: str, marks: list[str]
) -> None:
    word = docx.Document()
    numbering = word.part.numbering_part.element
    numbering.insert(
        0,
        parse_xml(
            f'<w:abstractNum {nsdecls("w")} w:abstractNumId="77"><w:lvl w:ilvl="0"><w:start w:val="{start}"/>'
            f'<w:numFmt w:val="{format}"/></w:lvl></w:abstractNum>'
        ),
    )
    again = f'<w:lvlOverride w:ilvl="0"><w:startOverride w:val="{override}"/></w:lvlOverride>' * bool(
        override
    )
    numbering.append(
        parse_xml(
            f'<w:num {nsdecls("w")} w:numId="77"><w:abstractNumId w:val="77"/>{again}</w:num>',
        )
    )
    for text in ("one", "two"):
        properties = word.add_paragraph(text)._p.get_or_add_pPr()
        properties.append(
            parse_xml(f'<w:numPr {nsdecls("w")}><w:ilvl w:val="0"/><w:numId w:val="77"/></w:numPr>')
        )
    text = load(tmp_path, saved(word)).text
    assert text.split() == " ".join(marks).split()
