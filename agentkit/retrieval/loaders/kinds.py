"""What a file is, told from its first bytes: a name can be wrong."""

from __future__ import annotations

import io
import re
import zipfile

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "a PNG image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"GIF8", "a GIF image"),
    (rb"RIFF.{4}WEBP", "a WebP image"),
    (rb"RIFF.{4}WAVE", "a WAV recording"),
    (rb"\x00.{3}ftyp", "an MP4 film or recording"),
    (rb"ID3[\x02-\x04]", "an MP3 recording"),
    (rb"OggS", "an Ogg recording"),
    (rb"II\*\x00", "a TIFF image"),
    (rb"MM\x00\*", "a TIFF image"),
    (rb"\{\\rtf", "an RTF document"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"BZh", "a bzip2 archive"),
    (rb"\xfd7zXZ\x00", "an xz archive"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (rb"Rar!", "a RAR archive"),
    (rb"\x7fELF", "a program"),
    (rb"MZ\x90\x00", "a program"),
    (rb"SQLite format 3\x00", "an SQLite database"),
    (rb"%!PS", "a PostScript file"),
)
"""Regular expressions for the first bytes; words alone, such as ID3, may begin a text."""
_ZIPPED = (
    ("word/", "docx"),
    ("xl/", "an Excel workbook"),
    ("ppt/", "a PowerPoint presentation"),
    ("META-INF/container.xml", "an EPUB book"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HEAD = 1024
ENCRYPTED, OLD_OFFICE, ZIP = (
    "an encrypted Office file",
    "an old Office file (.doc, .xls, .ppt)",
    "a ZIP archive",
)
LABELS = {"pdf": "a PDF", "docx": "a DOCX document", "html": "HTML"}
"""Kinds that have a loader here."""


def recognise(data: bytes) -> str:
    """``pdf``, ``docx``, ``html``, a description such as ``a PNG image``, or empty for anything else."""
    head = data[:HEAD]
    if head.startswith(b"%PDF-") or (b"%PDF-" in head and b"%%EOF" in data):  # a text may name the mark
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _zipped(data)
    if head.startswith(_OLE):
        return ENCRYPTED if "EncryptedPackage".encode("utf-16-le") in data else OLD_OFFICE
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    return next((name for mark, name in _SIGNATURES if re.match(mark, head, re.DOTALL)), "")


def _zipped(data: bytes) -> str:
    """Told from the directory at the end of the archive, else, where it is cut off, from its first names."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return next((kind for mark, kind in _ZIPPED if mark.encode() in data), ZIP)
    return next((kind for mark, kind in _ZIPPED if any(name.startswith(mark) for name in names)), ZIP)
