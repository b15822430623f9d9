"""What a turn says no to: "no pets", "I can't have pets", "turn the lights off", "don't cancel it"."""

from __future__ import annotations

import re

_END = re.compile(r"[.;:!?,](?=\s|$)|\n|\b(?:but|just|instead|only|rather|because|so)\b", re.I)
"""What a denial does not reach beyond."""
_BEFORE = re.compile(
    r"\b(?:no(?! (?:problem|matter|doubt|issue))|not(?! (?:only|just|forget|hesitate|mind))|never(?! forget)|without"
    r"|neither|nor|cannot|\w+n['’]t(?! (?:forget|hesitate|mind|you|we)\b)|avoid"
    r"|skip|except(?: for)?|exclud(?:e|ing)|disable|deactivate|remove|omit|instead of|rather than|free of"
    r"|(?:turn|switch)(?:ed|ing)? off)\b",
    re.I,
)
_HARDLY = re.compile(r"(?<!\ba )\b(?:few|little|hardly any)(?: \w+){0,2} ?$", re.I)
_NEAR = 120
"""Characters before a word in which a denial of it stands."""
_REACH = 6
"""Words behind a denial that it can be about."""
_AFTER = re.compile(
    r"\W{0,2}\s*(?:(?:is|are|was|be)(?:n['’]t| not)|not(?: (?:needed|required|necessary|wanted|included"
    r"|allowed)\b|(?=\s*(?:[.,;!?]|$)))|off(?=\s*(?:[.,;!?]|$))|-free\b|(?:are|is) (?:off|out)\b)",
    re.I,
)
_SAID = re.compile(
    r"[\"'’]?\s*(?:(?:(?:is|are|to|as)\b|[=:])\s*[\"'’]?(?P<value>true|false|yes|no|on|off)\b(?!\s\w)"
    r"|(?P<bare>true|false)\b)",
    re.I,
)
_ORDERS = re.compile(
    r"(?:\b(?:(?:do not|don['’]t|never)(?! (?:forget|hesitate|mind|you|we)\b)|no longer|no need to"
    r"|did(?: not|n['’]t) ask(?: you)?(?: to| for)?|without|instead of|rather than|avoid"
    r"|(?:should|must|would|need)(?: not|n['’]t)(?! (?:it|you|we|i|forget|hesitate|mind|have)\b)|can you not)\b"
    r"|(?<!\w)not(?= (?:a|an|the|to)\b))(?P<reach>(?: [\w'’-]+){1,5})",
    re.I,
)
"""What a turn tells not to do. "I can't find my order" tells a problem, and asks for the order all the same."""


def is_denied(turn: str, start: int, end: int) -> bool:
    """Whether the words from ``start`` to ``end`` are what the turn does not want."""
    before = _END.split(turn[max(0, start - _NEAR) : start])[-1]
    found = list(_BEFORE.finditer(before))
    if found and len(before[found[-1].end() :].split()) < _REACH:
        return True
    return bool(_HARDLY.search(before) or _AFTER.match(turn, end))


def said_of(turn: str, end: int) -> bool | None:
    """The truth value that stands behind a word, as in "verbose=false"; none where there is none."""
    match = _SAID.match(turn, end)
    if match is None:
        return None
    return (match["value"] or match["bare"]).lower() in ("true", "yes", "on")


def not_to_do(text: str) -> list[tuple[int, int]]:
    """Where the text tells what is not to be done."""
    found = []
    for match in _ORDERS.finditer(text):
        reach = _END.split(match["reach"])[0]
        found.append((match.start("reach"), match.start("reach") + len(reach)))
    return found
