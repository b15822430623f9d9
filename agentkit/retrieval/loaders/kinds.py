"""What a file is, told from its first bytes: a name can be wrong."""

from __future__ import annotations

import io
import zipfile

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"WAVE", "a WAV recording"),
    (4, b"ftyp", "an MP4 film or recording"),
    (0, b"ID3", "an MP3 recording"),
    (0, b"OggS", "an Ogg recording"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ\x90\x00", "a program"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"%!PS", "a PostScript file"),
)
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
    if b"%PDF-" in head:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _zipped(data)
    if head.startswith(_OLE):
        return ENCRYPTED if "EncryptedPackage".encode("utf-16-le") in data else OLD_OFFICE
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    return next((name for at, mark, name in _SIGNATURES if head[at : at + len(mark)] == mark), "")


def _zipped(data: bytes) -> str:
    """Told from the directory at the end of the archive, else, where it is cut off, from its first names."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return next((kind for mark, kind in _ZIPPED if mark.encode() in data), ZIP)
    return next((kind for mark, kind in _ZIPPED if any(name.startswith(mark) for name in names)), ZIP)
