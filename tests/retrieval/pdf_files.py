"""PDF files written by hand, so that a test knows what stands where; pypdf encrypts."""

from __future__ import annotations

import io
from collections.abc import Sequence

Text = tuple[float, float, float, str]
"""(x, y from the bottom, font size, characters of Latin-1)"""
A4 = (595, 842)
_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def make_pdf(
    pages: Sequence[Sequence[Text]],
    bookmarks: Sequence[tuple[str, int]] = (),
    info: str = "",
    language: str = "",
    picture: bool = False,
    emoji: bool = False,
) -> bytes:
    """A PDF of A4 pages.

    Args:
        bookmarks: (title, page from 1), all of one level.
        info: Entries of the document's information, as PDF source.
        picture: Whether every page shows a picture of one pixel.
        emoji: Whether ``~`` stands for one; not together with a picture.
    """
    objects: list[bytes] = [b"", b"", _FONT, b"", b""]
    image = b""
    if picture:
        image = b"/XObject << /I 5 0 R >>"
        head = b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8"
        objects[4] = head + b" /Length 1 >>\nstream\n\x80\nendstream"
    if emoji:
        codes = b" ".join(b"<%02x> <%04x>" % (code, code) for code in range(32, 126))
        codes = b"<7e> <d83dde00> " + codes
        head = b"/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <00> <ff> endcodespacerange"
        cmap = b"%s 95 beginbfchar %s endbfchar endcmap end" % (head, codes)
        objects[2] = _FONT[:-2] + b"/ToUnicode 5 0 R >>"
        objects[4] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(cmap), cmap)
    kids = []
    for texts in pages:
        stream = b"".join(
            b"BT /F1 %g Tf %g %g Td (%s) Tj ET\n" % (size, x, y, _escaped(text)) for x, y, size, text in texts
        )
        stream += b"q 500 0 0 700 40 40 cm /I Do Q\n" if picture else b""
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> %s >> >>" % (*A4, len(objects), image)
        )
        kids.append(len(objects))
    outline = _add_bookmarks(objects, bookmarks, kids)
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R %s /Lang (%s) >>" % (outline, language.encode())
    references = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (references, len(kids))
    objects[3] = b"<< %s >>" % info.encode("latin-1")
    return _written(objects)


def encrypted(data: bytes, user_password: str) -> bytes:
    from pypdf import PdfWriter

    writer = PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(user_password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def column(lines: Sequence[str], top: float = 700, size: float = 11, left: float = 72) -> list[Text]:
    """Lines one under the other, 1.2 times their size apart."""
    return [(left, top - 1.2 * size * number, size, line) for number, line in enumerate(lines)]


def _add_bookmarks(objects: list[bytes], marks: Sequence[tuple[str, int]], kids: list[int]) -> bytes:
    if not marks:
        return b""
    first = len(objects) + 2
    last = first + len(marks) - 1
    objects.append(b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>" % (first, last, len(marks)))
    for number, (title, page) in enumerate(marks, first):
        beside = b"/Prev %d 0 R " % (number - 1) if number > first else b""
        beside += b"/Next %d 0 R " % (number + 1) if number < last else b""
        objects.append(
            b"<< /Title (%s) /Parent %d 0 R %s/Dest [%d 0 R /Fit] >>"
            % (_escaped(title), first - 1, beside, kids[page - 1])
        )
    return b"/Outlines %d 0 R" % (first - 1)


def _escaped(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _written(objects: list[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body or b"null")
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\n" % (len(objects) + 1)
    out += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(out)
