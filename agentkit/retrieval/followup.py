"""A question that leans on the conversation, as one that stands alone.

"And how long does that take?" finds nothing by itself. What it goes on from is put before it: the last question that
stood alone, and the follow-ups in between. Both texts are searched for, and their scores mixed; where the question
stands alone the joined text counts little, where it leans it counts most. No model is asked: a small one rewrites
questions wrongly more often than not. The forms of speech are English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentkit.messages import Message
from agentkit.retrieval.words import content_words, words

EARLIER = 2
"""Questions before this one that are joined to it at most."""
CHARACTERS = 400
"""Of an earlier question: a long message would drown the new one."""
LEANING, STANDING = 0.8, 0.2
"""Weight of the joined text where a question leans and where it stands alone; chosen on the tuning questions."""
FEW = 3
"""Content words that a question with a pronoun has at most if the pronoun is its subject matter."""

_OPENS = re.compile(r"\s*(and|but|or|so|then|also|(what|how) about|what if)\b", re.IGNORECASE)
_POINTS = re.compile(
    r"\b(it|its|they|them|their|theirs|those|these|ones|there|this|that)\b(?! (i|we|you)\b)", re.IGNORECASE
)
_EMPTY = re.compile(
    # "it" that stands for what follows, "there" that stands for nothing
    r"\b(is|was|would|will|isn't) (it|there)\b(?=.{0,80}\b(to|if|that|for|a|an|any|no)\b)|\b(are|aren't) there\b"
    r"|\bdoes it (take|cost) (to|for)\b|\b(there|it)('s| is| are)\b|\bthat (is|are|was|were|has|have)\b",
    re.IGNORECASE,
)


_POLITE = frozenset(
    {"lot", "great", "perfect", "super", "fine", "good", "nice", "cool", "bye", "goodbye", "right"}
)
"""Content words of thanks and the like; most of their words are stop words."""


def points_back(question: str) -> bool:
    """Whether a question names what it is about only by a pronoun, or opens like a continuation."""
    question = question[:CHARACTERS]
    if _OPENS.match(question):
        return True
    return bool(len(content_words(question)) <= FEW and _POINTS.search(_EMPTY.sub(" ", question)))


def leans(question: str) -> bool:
    """Whether a question says too little by itself: it points back, or is a scrap of a few words."""
    question = question[:CHARACTERS]
    meant, all_words = content_words(question), words(question)
    scrap = not meant or (len(meant) == 1 and 2 <= len(all_words) <= 4)
    return scrap or points_back(question)


@dataclass(frozen=True, slots=True)
class Question:
    """A question within a conversation."""

    text: str
    """As it was asked."""
    joined: str
    """With what it goes on from before it; the same as ``text`` where nothing came before."""
    weight: float = 0.0
    """Share of ``joined`` in every score, 0 to 1."""
    documents: frozenset[str] = frozenset()
    """Cited in the answer before."""
    said: frozenset[str] = frozenset()
    """Quotes of the answer before."""

    @property
    def standalone(self) -> str:
        """The question as somebody would ask it who has said nothing before."""
        return self.joined if self.weight >= LEANING else self.text


def alone(text: str) -> Question:
    """A question that nothing came before."""
    return Question(text, text)


def understood(
    text: str, history: Sequence[Message], corrected: Callable[[str], str] = lambda text: text
) -> Question:
    """A question after a conversation.

    Args:
        text: What the user asks now.
        history: What was said before, oldest first; ``meta["citations"]`` of an answer says what it rests on.
        corrected: Puts the spelling of a text right.
    """
    text = corrected(text)
    earlier = [
        m.content.strip()[:CHARACTERS] for m in history if m.role == "user" and not _is_polite(m.content)
    ]
    if not earlier or not text.strip():
        return alone(text)
    before: list[str] = []
    for asked in reversed(earlier):
        before.insert(0, asked)
        if len(before) == EARLIER or not leans(asked):
            break
    answers = (m.meta.get("citations") for m in reversed(history) if m.role == "assistant")
    cited = next(filter(None, answers), ())
    return Question(
        text,
        " ".join([*map(corrected, before), text]),
        LEANING if leans(text) else STANDING,
        frozenset(citation["document"] for citation in cited),
        frozenset(citation["quote"] for citation in cited),
    )


def _is_polite(text: str) -> bool:
    """Thanks and the like, which nothing goes on from."""
    return not points_back(text) and set(content_words(text[:CHARACTERS])) <= _POLITE
