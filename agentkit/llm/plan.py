"""Which tools a turn asks for, and in which of its words.

A turn that needs several calls says so piece by piece: "book a flight to Boston and a hotel there for 4 nights". The
pieces lie between commas, conjunctions and the ends of sentences. A piece speaks of a tool as far as it has words by
which that tool differs from the others on offer. The best sequence of tools is found by dynamic programming
(A. Viterbi, IEEE Transactions on Information Theory 13, 1967), where going over to another tool costs something: pieces
that speak of none belong to the tool before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentkit.llm.denied import not_to_do
from agentkit.llm.named import named_as_code
from agentkit.llm.slots import stems
from agentkit.llm.spans import LIMIT, spans, unquoted
from agentkit.messages import ToolSpec

SWITCH = 0.5
"""What going over to another tool costs, in words of a description."""
SURE, MOST = 2.0, 2.0
"""How much a section must speak of its tool to count once, in the same measure, and how often it counts at most."""
NAME, ABOUT, PARAMETER, DETAIL = 2.0, 1.0, 0.7, 0.3
"""What a word counts that stands in a tool's name, in its description, in a parameter's name, in its description."""
CALLED = 6.0
"""What it counts that a piece has the tool's name as it is written in code."""
RELATED = 0.6
"""What a word counts that only begins like one of these, as a share."""
_ALIKE = 5
"""Letters that such words have in common."""

_BREAK = re.compile(
    r"[.?!;]+(?=\s|$)|\n+|,(?=\s)(?:\s+(?:and|then|also|plus|but))*|\s(?:and|then|also|plus|while|additionally)(?=\s)"
)


@dataclass(frozen=True, slots=True)
class Section:
    """Words that ask for one tool."""

    tool: int
    start: int
    end: int
    sure: float
    """How much more of this tool they speak than of the next best."""


def plan(turn: str, tools: Sequence[ToolSpec], several: bool) -> list[Section]:
    """What is to be called, `Section.sure` being `MOST` at most; of one tool, or where only one call may be made, a
    single section.
    """
    if len(tools) == 1:
        return [Section(0, 0, len(turn), 1.0)]
    found = [replace(each, sure=min(MOST, each.sure / SURE)) for each in sections(turn, tools)]
    if several or not found:
        return found
    best = max(found, key=lambda section: section.sure)
    return [best] if best.sure > 0 else []


def sections(turn: str, tools: Sequence[ToolSpec]) -> list[Section]:
    """The turn's sections in its order; none where no word tells the tools apart."""
    turn = unquoted(turn)[:LIMIT]
    asking = _without_orders_not_to(_without_quotes(turn))
    pieces = _pieces(turn, asking)
    bags = _told_apart([_bag(tool) for tool in tools])
    called = [named_as_code(tool.name, turn) for tool in tools]
    scores = []
    for start, end in pieces:
        words = set(stems(asking[start:end]))
        scores.append(
            [
                sum(_counts(bag, word) for word in words) + CALLED * any(start <= at < end for at, _ in there)
                for bag, there in zip(bags, called, strict=True)
            ]
        )
    if not any(map(any, scores)):
        return []
    path = _best(scores)
    made: list[Section] = []
    for (start, end), tool, score in zip(pieces, path, scores, strict=True):
        sure = score[tool] - max((s for n, s in enumerate(score) if n != tool), default=0.0)
        if made and made[-1].tool == tool:
            made[-1] = Section(tool, made[-1].start, end, made[-1].sure + sure)
        else:
            made.append(Section(tool, start, end, sure))
    return made


def _without_quotes(turn: str) -> str:
    """The turn with spaces for what it quotes: that asks for nothing."""
    for span in spans(turn):
        if span.kind == "quoted":
            turn = turn[: span.start] + " " * (span.end - span.start) + turn[span.end :]
    return turn


def _without_orders_not_to(asking: str) -> str:
    """The text with spaces for what it says not to do."""
    for start, end in not_to_do(asking):
        asking = asking[:start] + " " * (end - start) + asking[end:]
    return asking


def _pieces(turn: str, asking: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    start = 0
    for match in _BREAK.finditer(asking):
        if turn[start : match.start()].strip():
            found.append((start, match.start()))
        start = match.start() if match[0].strip()[:1].isalpha() else match.end()
    if turn[start:].strip():
        found.append((start, len(turn)))
    return found


def _bag(tool: ToolSpec) -> dict[str, float]:
    """What each word counts that speaks of a tool."""
    bag: dict[str, float] = {}

    def add(text: str, weight: float) -> None:
        for word in stems(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)):
            bag[word] = max(weight, bag.get(word, 0.0))

    add(tool.name.replace("_", " "), NAME)
    add(tool.description, ABOUT)
    for name, child in tool.schema.get("properties", {}).items():
        add(name.replace("_", " "), PARAMETER)
        if isinstance(child, Mapping):
            add(str(child.get("description", "")), DETAIL)
            for value in child.get("enum", ()):
                add(str(value).replace("_", " "), PARAMETER)
    return bag


def _told_apart(bags: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Words count by how few of the tools they speak of."""
    known: dict[str, float] = {}
    for word in set().union(*bags):
        known[word] = (len(bags) - sum(word in bag for bag in bags)) / max(len(bags) - 1, 1)
    return [{word: weight * known[word] for word, weight in bag.items() if known[word]} for bag in bags]


def _counts(bag: Mapping[str, float], word: str) -> float:
    """What a word of the turn counts for a tool; one that only begins alike ("projected", "projection") less."""
    if word in bag or len(word) < _ALIKE:
        return bag.get(word, 0.0)
    alike = (weight for other, weight in bag.items() if other[:_ALIKE] == word[:_ALIKE])
    return RELATED * max(alike, default=0.0)


def _best(scores: Sequence[Sequence[float]]) -> list[int]:
    """The tool of each piece."""
    count = len(scores[0])
    totals = list(scores[0])
    back: list[list[int]] = []
    for score in scores[1:]:
        best = max(range(count), key=totals.__getitem__)
        came = [n if totals[n] > totals[best] - SWITCH or n == best else best for n in range(count)]
        totals = [max(totals[n], totals[best] - SWITCH) + score[n] for n in range(count)]
        back.append(came)
    path = [max(range(count), key=totals.__getitem__)]
    for came in reversed(back):
        path.append(came[path[-1]])
    return path[::-1]
