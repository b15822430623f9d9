"""Text as the words that lexical search sees: the tokens of SQLite's ``unicode61 remove_diacritics 2``.

PostgreSQL's own parser keeps addresses, numbers with signs and hyphenated words together. Given nothing but words, it
splits as SQLite does. Both stem by Porter's algorithm of 1980; SQLite with its later rule for ``-bli``, so that a few
words in a thousand have another stem there (measured: 6 of 1,905, such as ``assembly``). Porter's second stemmer,
PostgreSQL's usual one for English, differs for 22.
"""

from __future__ import annotations

import re
import unicodedata

TOKEN_CHARACTERS = 200
"""Of a word that count; PostgreSQL indexes none over 2 kB."""

_TOKEN = re.compile(r"[^\W_]+")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def tokens(text: str) -> list[str]:
    """Words in order, lower case, without diacritics."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join(character for character in decomposed if not unicodedata.combining(character))
    return [token[:TOKEN_CHARACTERS] for token in _TOKEN.findall(text.lower())]


def storable(text: str) -> str:
    """The text, with U+FFFD for what PostgreSQL cannot keep (NUL, lone surrogates); of the same length."""
    return _UNSTORABLE.sub("\ufffd", text)
