"""Misspelt words of a question, put right by the words of the documents.

Only a word that stands in no document and in no dictionary is taken for misspelt, and only the documents' own words
are put in its place: nothing is found by a word that nobody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

_WORD = re.compile(r"(?<![\w./'’-])[^\W\d_]+(?![\w'’/-]|\.\w)")
SHORTEST = 5
"""Letters; shorter words have too many neighbours."""
LONG = 8
"""Letters from which two may be wrong."""
WORDS = 32
"""Of a question that are looked at."""


@cache
def _english() -> frozenset[str]:
    from spellchecker import SpellChecker

    return frozenset(SpellChecker(language="en", distance=1).word_frequency.dictionary)


def is_english(word: str) -> bool:
    """Whether a lower-case word is in the dictionary of pyspellchecker, which has inflections too."""
    return word in _english()


def corrected(text: str, vocabulary: Callable[[], Mapping[str, int]], knows: Callable[[str], bool]) -> str:
    """The text with misspelt words replaced by the nearest word of ``vocabulary``.

    Distance counts letters put in, left out, changed or swapped with their neighbour (Damerau 1964): one may be wrong,
    two from `LONG` letters on if the word begins right. Of words equally near the more frequent is taken.

    Args:
        vocabulary: Gives the lower-case words of the documents, with how often they occur.
        knows: Whether a lower-case word is in a dictionary, so that it is meant as it stands.
    """
    seen = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal seen
        word = match.group()
        plain = word.lower()
        if len(plain) < SHORTEST or knows(plain) or plain in vocabulary():
            return word
        seen += 1
        return _nearest(plain, vocabulary()) or word if seen <= WORDS else word

    return _WORD.sub(replace, text)


def _nearest(word: str, vocabulary: Mapping[str, int]) -> str | None:
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import extract

    limit = 2 if len(word) >= LONG else 1
    near = extract(word, vocabulary.keys(), scorer=OSA.distance, score_cutoff=limit, limit=None)
    fitting = [(int(far), known) for known, far, _ in near if far < 2 or known[0] == word[0]]
    return min(fitting, key=lambda pair: (pair[0], -vocabulary[pair[1]], pair[1]))[1] if fitting else None
