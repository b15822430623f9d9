"""Bytes to text: UTF-8, UTF-16 with its mark, and older encodings where they are clear."""

from __future__ import annotations

import re
import unicodedata

from agentkit.errors import KnowledgeError
from agentkit.retrieval.languages import certain_language

SAMPLE = 4_000
"""Characters from which an encoding is told: lines with bytes beyond ASCII, as the rest tells nothing."""
CERTAINTY = 0.9
HEAD = 1024
"""Bytes in which an HTML page names its encoding."""
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset=["']?([\w-]{1,40})""", re.IGNORECASE)
WESTERN = "cp1252"
ENCODINGS = {
    WESTERN: "en de fr es pt it nl sv da no nb nn fi is ca gl ga eu lb af",
    "cp1250": "pl cs sk hu sl hr bs ro sq",
    "cp1251": "ru uk bg be sr mk",
    "cp1253": "el",
    "cp1254": "tr az",
    "cp1257": "lt lv et",
    "shift_jis": "ja",
    "euc_jp": "ja",
    "gb18030": "zh",
    "big5": "zh",
    "euc_kr": "ko",
    "koi8_r": "ru",
    "cp850": "de fr es pt it nl sv da no fi",
    "mac_roman": "de fr es pt it nl sv da no fi",
}
"""Encodings that are tried, with the languages for which each was in use."""


def decode(data: bytes) -> tuple[str, str]:
    """(text with line ends as ``\\n``, encoding); the encoding is empty for Unicode.

    Raises:
        KnowledgeError: It is not text, or in an encoding that cannot be told.
    """
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\x00" in data and not wide:
        raise KnowledgeError("is not text: it has NUL bytes", "save it as UTF-8 text or remove it")
    encoding, found = "utf-16" if wide else "utf-8-sig", ""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        found = "" if wide else _older(data)
        if not found:
            cause = f"is not text: byte {error.start} is not {encoding.removesuffix('-sig').upper()}"
            raise KnowledgeError(cause, "save it as UTF-8 or remove it") from error
        text = data.decode(found)
    if "\x00" in text:
        raise KnowledgeError("is not text: it has NUL bytes", "save it as UTF-8 text or remove it")
    return text.replace("\r\n", "\n").replace("\r", "\n"), found


def _older(data: bytes) -> str:
    """The encoding under which the bytes read as a language it was used for; empty where none clearly does."""
    replaced = data.decode("utf-8", errors="replace")
    broken = replaced.count("\ufffd")
    if sum(1 for char in replaced if char > "\x7f") - broken > broken:
        return ""  # UTF-8 with a few broken bytes: another encoding would turn the rest to nonsense
    if declared := _declared(data):
        return declared
    found = ("", CERTAINTY)
    for encoding, languages in ENCODINGS.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _has_controls(text):
            continue
        sample = "\n".join(line for line in text.splitlines() if not line.isascii())[:SAMPLE]
        language, certainty = certain_language(sample if len(sample) > SAMPLE // 20 else text[:SAMPLE])
        # Where two read alike, as cp1252 and cp850 do by a few letters, the earlier one is meant.
        clearly = found[1] + (1 - found[1]) / 2 if found[0] else CERTAINTY
        if language in languages.split() and certainty > clearly and not _is_odd(text, encoding):
            found = (encoding, certainty)
    return found[0]


def _declared(data: bytes) -> str:
    """The encoding that an HTML page names, where its bytes are text under it."""
    match = _CHARSET.search(data[:HEAD])
    name = match.group(1).decode().lower() if match else ""
    # Browsers take these for cp1252, and so do the pages that name them.
    name = WESTERN if name in ("iso-8859-1", "latin1", "us-ascii", "ascii", "windows-1252") else name
    try:
        return name if name and not _has_controls(data.decode(name)) else ""
    except (LookupError, UnicodeDecodeError):
        return ""


def _has_controls(text: str) -> bool:
    """Whether there are characters that no text has: controls, and those that an encoding leaves unassigned."""
    return any(unicodedata.category(char) in ("Cc", "Co") and char not in "\t\n\r\f\v" for char in set(text))


_LETTERS = set("äöüÄÖÜßéèêëÉÈáàâãåæçÇíìîïñÑóòôõøœŒúùûÁÀÂÅÆÍÓÔØÚýÿ")
_SIGNS = set("€£§°«»„“”‚‘’–—…·•©®™\u00a0")
_ENDS = set("²³¹½¼¾¿¡ªº")
"""Signs, except between letters."""


def _is_odd(text: str, encoding: str) -> bool:
    """Whether western text has characters where no language has them: single stray bytes in English, say."""
    if encoding != WESTERN:
        return False
    foreign = [index for index, char in enumerate(text) if char > "\x7f"]
    good = sum(_is_western(text[index], text[max(0, index - 1) : index + 2]) for index in foreign)
    return good < 0.97 * len(foreign)


def _is_western(char: str, around: str) -> bool:
    others = around.replace(char, "", 1)
    ascii_letters = sum("a" <= other.lower() <= "z" for other in others)
    if char in _LETTERS:
        return ascii_letters > 0 or not any(map(str.isalpha, others))
    return char in _SIGNS or (char in _ENDS and ascii_letters < 2)
