"""Which language a text is in, told only where it is clear."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

DOCUMENT_LETTERS = 25
CHUNK_LETTERS = 80
"""Fewer letters than these tell no language."""
DOCUMENT_CERTAINTY = 0.8
CHUNK_CERTAINTY = 0.98
"""Lowest probability at which a detected language is believed: a chunk has the document's otherwise."""
SAMPLE = 4_000
"""Characters looked at."""


def document_language(text: str) -> str:
    """ISO 639-1, or empty where the text is too short or unclear."""
    return _detect(text, DOCUMENT_LETTERS, DOCUMENT_CERTAINTY)


def chunk_language(text: str, default: str) -> str:
    """The language of a chunk: ``default``, the document's, unless it is clearly another."""
    return _detect(text, CHUNK_LETTERS, CHUNK_CERTAINTY) or default


def certain_language(text: str) -> tuple[str, float]:
    """(ISO 639-1, probability from 0 to 1), whatever they are worth; the language is empty without letters."""
    if not any(map(str.isalpha, text)):
        return "", 0.0
    language, probability = _identifier().classify(text[:SAMPLE])
    return language, float(probability)


def _detect(text: str, letters: int, certainty: float) -> str:
    text = text[:SAMPLE]
    if sum(map(str.isalpha, text)) < letters:
        return ""
    language, probability = certain_language(text)
    return language if probability >= certainty and len(language) == 2 else ""


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
