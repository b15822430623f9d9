"""A question that leans on the conversation, as one that stands alone.

"And how long does that take?" finds nothing by itself. What it goes on from is put before it: the last question that
stood alone, and the follow-ups in between. No model is asked: a small one rewrites questions wrongly more often than
not, and both searches take the joined words as they are. The forms of speech are English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentkit.retrieval.words import content_words, words

EARLIER = 2
"""Questions before this one that are joined to it at most."""
CHARACTERS = 400
"""Of an earlier question: a long message would drown the new one."""
FEW = 3
"""Content words that a question with a pronoun has at most if the pronoun is its subject matter."""

_OPENS = re.compile(r"\s*(and|but|or|so|then|also|(what|how) about|what if)\b", re.IGNORECASE)
_POINTS = re.compile(
    r"\b(it|its|they|them|their|theirs|those|these|ones|there|this|that)\b(?! (i|we|you)\b)", re.IGNORECASE
)
_EMPTY = re.compile(
    # "it" that stands for what follows, "there" that stands for nothing
    r"\b(is|was|would|will|isn't) (it|there)\b(?=.*\b(to|if|that|for|a|an|any|no)\b)|\b(are|aren't) there\b"
    r"|\bdoes it (take|cost) (to|for)\b|\b(there|it)('s| is| are)\b|\bthat (is|are|was|were|has|have)\b",
    re.IGNORECASE,
)


def points_back(question: str) -> bool:
    """Whether a question names what it is about only by a pronoun, or opens like a continuation."""
    if _OPENS.match(question):
        return True
    return bool(len(content_words(question)) <= FEW and _POINTS.search(_EMPTY.sub(" ", question)))


def leans(question: str) -> bool:
    """Whether a question says too little by itself: it points back, or is a scrap of a few words."""
    meant, all_words = content_words(question), words(question)
    scrap = not meant or (len(meant) == 1 and 2 <= len(all_words) <= 4)
    return scrap or points_back(question)


def standalone(question: str, earlier: Sequence[str]) -> str:
    """The question, with what it goes on from before it.

    Args:
        question: What the user asks now.
        earlier: What the user asked before, oldest first.
    """
    if not leans(question):
        return question
    before: list[str] = []
    for text in reversed(earlier):
        before.insert(0, text.strip()[:CHARACTERS])
        if len(before) == EARLIER or not leans(text):
            break
    return " ".join([*before, question])
