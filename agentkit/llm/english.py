"""The small words of English, which only join others; they tell that a text is English."""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W\d_][\w'’-]*")
"""With its apostrophes and hyphens."""


def words(text: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(text.split())


SMALL = words(
    "a an the of in on at to for from by with and or but is are was were be been am do does did have has "
    "had will would can could should may might must i you he she it we they me my your his her its our "
    "their this that these those what which who whom when where why how much many please give tell show "
    "find get need want like look let make some any all each every if so as than then there here out up "
    "over under into about per it's what's i'm i'd i've us not no yes just also whether between using use "
    "given whose during after before since because while once she'd he'd we'd they'd you'd i'll she'll he'll we'll "
    "they'll you'll it'll don't can't won't doesn't isn't that's there's here's he's she's they're we're you're "
    "let's another same calculate compute determine identify retrieve search provide help know"
)
_FOREIGN = words(
    "der die das den dem und ist ein eine einen einem ich wir mir mich bitte wie nicht von zu zum zur mit für auf im "
    "le les des un une et est je pour avec dans ce que qui quel quelle du au sur el los las y es en por con qué como "
    "cuál para il lo gli che di è sono della o os um uma não em de het een ik van voor op och att det som på jag"
)


def is_small(word: str) -> bool:
    """Whether a word is one of those that only join others."""
    return word.lower() in SMALL


def is_english(text: str) -> bool:
    """Whether the text has English function words, and more of them than of other languages."""
    found = [match[0].lower() for match in WORD.finditer(text)]
    return sum(word in SMALL for word in found) > sum(word in _FOREIGN for word in found)
