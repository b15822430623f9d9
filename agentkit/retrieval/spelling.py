"""Misspelt words of a question, put right by the words of the documents.

Only a word that stands in no document and that the encoder does not know whole is taken for misspelt, and only the
documents' own words are put in its place: nothing is found by a word that nobody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_WORD = re.compile(r"(?<![\w./'’-])[^\W\d_]+(?![\w'’/-]|\.\w)")
SHORTEST = 5
"""Letters; shorter words have too many neighbours."""
LONG = 8
"""Letters from which two may be wrong."""
WORDS = 32
"""Of a question that are looked at."""


def corrected(text: str, vocabulary: Mapping[str, int], knows: Callable[[str], bool]) -> str:
    """The text with misspelt words replaced by the nearest word of ``vocabulary``.

    Distance counts letters put in, left out, changed or swapped with their neighbour (Damerau 1964): one may be wrong,
    two from `LONG` letters on if the word begins right. Of words equally near the more frequent is taken.

    Args:
        vocabulary: Lower-case words of the documents, with how often they occur.
        knows: Whether a lower-case word is a common one, so that it is meant as it stands.
    """
    seen = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal seen
        word = match.group()
        plain = word.lower().replace("’", "'")
        if len(plain) < SHORTEST or plain.removesuffix("'s") in vocabulary or knows(plain):
            return word
        seen += 1
        return _nearest(plain, vocabulary) or word if seen <= WORDS else word

    return _WORD.sub(replace, text)


def _nearest(word: str, vocabulary: Mapping[str, int]) -> str | None:
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import extract

    limit = 2 if len(word) >= LONG else 1
    near = extract(word, vocabulary.keys(), scorer=OSA.distance, score_cutoff=limit, limit=None)
    fitting = [(int(far), known) for known, far, _ in near if far < 2 or known[0] == word[0]]
    return min(fitting, key=lambda pair: (pair[0], -vocabulary[pair[1]], pair[1]))[1] if fitting else None
