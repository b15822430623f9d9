"""Words as lexical search and support checks compare them: content words, light stems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
"""Characters of Chinese and Japanese, which are written without spaces."""
_RUN = re.compile(rf"({CJK.pattern}+)|([^\W_{CJK.pattern[1:-1]}]+)")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

_STOPWORDS_TEXT = (
    "a about above after again all also am an and any anything are aren't as at be because been before "
    "being below between both but by can can't could couldn't did didn't do does doesn't doing don't "
    "down during each else ever every few for from further get gets getting got had has hasn't have "
    "haven't having he her here hers him his how i i'd i'll i'm i've if in into is isn't it it's its "
    "itself just kind let let's like make many may me might mine more most much must my myself need no "
    "nor not now of off on once one only or other our ours out over own per please possible really same "
    "say she should so some something still such tell than thank thanks that that's the their theirs "
    "them then there there's these they thing things this those through to too under until up us use "
    "very want was wasn't way we we'll we're were weren't what what's when where where's which while "
    "who whom whose why will with within without won't would wouldn't yes you you'd you'll you're "
    "you've your yours yourself hello hi hey dear okay ok know"
)
STOPWORDS = frozenset(_STOPWORDS_TEXT.split())

_NEGATIONS_TEXT = (
    "not no never cannot without neither nor none nothing unable except "
    "nicht kein keine keinen keinem keiner keines nie niemals ohne weder "
    "pas jamais sans aucun aucune nunca jamás sin ningún ninguna"
)
_NEGATIONS = frozenset(_NEGATIONS_TEXT.split())
"""Of English, German, French and Spanish."""

_ENDINGS = ("ingly", "edly", "ings", "ing", "ies", "ied", "ers", "ed", "er", "es", "ly", "s", "e", "y")


def words(text: str) -> list[str]:
    """Every word, lower case, in order; the possessive ending is dropped."""
    found = (match.group().lower().replace("’", "'") for match in _WORD.finditer(text))
    return [word.removesuffix("'s") for word in found]


def negations(text: str) -> list[str]:
    """Words that turn a statement into its opposite, in order."""
    return [word for word in words(text) if word in _NEGATIONS or word.endswith("n't")]


def content_words(text: str) -> list[str]:
    """Words that carry meaning, in order, each once."""
    return list(dict.fromkeys(word for word in words(text) if word not in STOPWORDS and len(word) > 1))


def stem(word: str) -> str:
    """A crude stem: good enough to join ``return``, ``returned`` and ``returns``, and symmetric."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    # "shipped" and "shipping" leave "shipp", "ship" leaves "ship".
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word


def stems(text: str) -> set[str]:
    """The stems of a text's content words; without spaces, pairs of neighbouring characters stand for them."""
    return {
        part for word in content_words(text) for part in (_pairs(word) if CJK.search(word) else (stem(word),))
    }


def _pairs(word: str) -> Iterator[str]:
    for run, other in _RUN.findall(word):
        yield from map("".join, pairwise(run)) if len(run) > 1 else (run or other,)
