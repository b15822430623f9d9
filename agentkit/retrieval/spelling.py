"""Misspelt words of a question, put right by the words of the documents.

Only a word that stands in no document and in no dictionary is taken for misspelt, and only the documents' own words
are put in its place: nothing is found by a word that nobody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from agentkit.retrieval.words import CJK

_WORD = re.compile(r"(?<![\w./'’-])[^\W\d_]+(?![\w'’/-]|\.\w)")
_UNSPELT = re.compile(f"{CJK.pattern}|[\uac00-\ud7af\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer: what stands between spaces there is often a sentence, and
one character makes another word of it."""
SHORTEST = 5
"""Letters; shorter words have too many neighbours."""
LONG = 8
"""Letters from which two may be wrong."""
WORDS = 32
"""Of a question that are looked at."""
ENGLISH = 0.5
"""Share of a question's words that the dictionary has; another language is left alone."""
FEW = 4
"""Words that tell the language; in fewer only one letter may be wrong."""
_LOOKED_AT = 2_000


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
    known = [knows(word.lower()) for word in re.findall(r"[^\W\d_]{2,}", text[:_LOOKED_AT])]
    enough = len(known) >= FEW
    if enough and sum(known) < ENGLISH * len(known):
        return text
    seen = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal seen
        word = match.group()
        plain = word.lower()
        if len(plain) < SHORTEST or _UNSPELT.search(plain) or knows(plain) or plain in vocabulary():
            return word
        if word[0].isupper() and not word.isupper() and _goes_on(text, match.start()):
            return word  # a name
        seen += 1
        return _nearest(plain, vocabulary(), enough) or word if seen <= WORDS else word

    return _WORD.sub(replace, text)


def _goes_on(text: str, start: int) -> bool:
    """Whether a sentence is under way at this place."""
    before = text[max(0, start - 40) : start].rstrip(" \"'(“‘")
    return bool(before) and before[-1] not in ".!?:\n"


def _nearest(word: str, vocabulary: Mapping[str, int], two: bool) -> str | None:
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import extract

    limit = 2 if two and len(word) >= LONG else 1
    near = extract(word, vocabulary.keys(), scorer=OSA.distance, score_cutoff=limit, limit=None)
    fitting = [(int(far), known) for known, far, _ in near if far < 2 or known[0] == word[0]]
    return min(fitting, key=lambda pair: (pair[0], -vocabulary[pair[1]], pair[1]))[1] if fitting else None
