"""Printed lines to headings and paragraphs: what belongs together is told from position and size."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from agentkit.retrieval.documents import DocumentBuilder, clean
from agentkit.retrieval.loaders.pdf_lines import Line

_BULLET = re.compile(r"(?:[•‣◦▪●○■□–—*·-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’»)\]]*$")
_HYPHEN = re.compile(r"(?<=\w)[-\u2010]$")
_WORD_END = re.compile(r"[^\W\d_]+$")
_WORD_START = re.compile(r"[^\W\d_]+")
SAME_SIZE = 0.1
PITCH = 1.35
"""A line further below the last than this many usual steps begins a paragraph."""
SHORT = 0.75
"""A line that ends before this share of its column's width was ended on purpose."""
NEIGHBOURS = 5
WORD = 40
"""Longest part of a word before a hyphen, in characters."""


@dataclass(slots=True)
class _Open:
    """The paragraph being read."""

    page: int
    parts: list[str]
    """One for each line; joined, they are the text."""
    length: int
    breaks: list[tuple[int, int]] = field(default_factory=list)

    def last(self, text: str) -> None:
        """Change the last line."""
        self.length += len(text) - len(self.parts[-1])
        self.parts[-1] = text

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)


def write_blocks(
    lines: Sequence[Line], level_of: Callable[[int], tuple[int, int]], builder: DocumentBuilder
) -> None:
    """Write headings and paragraphs in order.

    Args:
        lines: Of the whole document.
        level_of: For the index of a line: (heading level or 0, how many lines the heading takes).
    """
    words = {word.lower() for line in lines for word in re.findall(r"[\w-]+", line.text)}
    step = _usual_step(lines)
    open_: _Open | None = None

    def close() -> None:
        nonlocal open_
        if open_ is not None:
            builder.paragraph("".join(open_.parts), open_.page, open_.breaks)
        open_ = None

    index = 0
    while index < len(lines):
        line = lines[index]
        level, count = level_of(index)
        if level:
            close()
            title = " ".join(clean(part.text) for part in lines[index : index + count])
            builder.heading(level, title, line.page)
            index += count
            continue
        if open_ is not None and _begins(lines, index, step):
            close()
        text = _marks(line.text)
        if open_ is None:
            open_ = _Open(line.page, [text], len(text))
        else:
            _join(open_, text, words, _keeps_break(lines, index))
            if line.page != lines[index - 1].page:
                open_.breaks.append((open_.length, line.page))
            open_.add(text)
        index += 1
    close()


def _begins(lines: Sequence[Line], index: int, step: float) -> bool:
    """Whether a line begins a paragraph."""
    last, line = lines[index - 1], lines[index]
    size = max(last.size, line.size, 1.0)
    if abs(last.size - line.size) > SAME_SIZE * size:
        return True
    fall = last.bottom - line.bottom
    if line.page != last.page or fall < -size:  # a new page or column
        ended = bool(_SENTENCE_END.search(last.text)) or bool(_BULLET.match(line.text))
        return ended or not (line.text[:1].islower() or not _is_short(lines, index - 1))
    if fall > PITCH * step * size:
        return True
    if bool(_BULLET.match(line.text)):
        return False  # a line of its own within the list
    if _SENTENCE_END.search(last.text) and _is_short(lines, index - 1):
        return True
    indented = line.left - last.left > 0.8 * size and not _BULLET.match(last.text)
    return indented and bool(_SENTENCE_END.search(last.text)) and line.right > last.left + 4 * size


def _usual_step(lines: Sequence[Line]) -> float:
    """From a line to the next below it, in line heights of their font."""
    falls = [
        (last.bottom - line.bottom) / line.size
        for last, line in pairwise(lines)
        if last.page == line.page
        and line.size > 0
        and abs(last.size - line.size) <= SAME_SIZE * line.size
        and 0.5 * line.size < last.bottom - line.bottom < 3 * line.size
    ]
    # Lists of single lines may be set wide; running text is never set narrower than its lines are high.
    return max(median(falls), 0.9) if falls else 1.2


def _is_short(lines: Sequence[Line], index: int) -> bool:
    """Whether a line ends well before its neighbours of the same column do."""
    line = lines[index]
    near = lines[max(0, index - NEIGHBOURS) : index + NEIGHBOURS + 1]
    rights = [
        other.right
        for other in near
        if other.page == line.page and abs(other.left - line.left) < 4 * max(line.size, 1.0)
    ]
    return line.right - line.left < SHORT * (max(rights) - line.left)


def _keeps_break(lines: Sequence[Line], index: int) -> bool:
    """Whether a line stands for itself, as in lists and addresses, and does not go on with the one before."""
    last, line = lines[index - 1], lines[index]
    if _BULLET.match(line.text):
        return True
    hanging = bool(_BULLET.match(last.text)) or line.page != last.page
    return _is_short(lines, index - 1) and not (hanging and line.text[:1].islower())


def _marks(text: str) -> str:
    """`clean`, without soft hyphens but with a hyphen for one that ends the line."""
    ends = text.endswith("\u00ad")
    return clean(text.replace("\u00ad", "")) + "-" * ends


def _join(open_: _Open, text: str, words: set[str], keep_break: bool) -> None:
    """Prepare the end of the paragraph for its next line: a space, a line break, or a word put together."""
    last = open_.parts[-1]
    start = _WORD_START.match(text)
    bare = _HYPHEN.sub("", last)
    end = _WORD_END.search(bare[-WORD:])
    if bare != last and start and end and text[0].islower():
        whole, parted = end.group() + start.group(), f"{end.group()}-{start.group()}"
        # A compound such as self-service keeps its hyphen where the document writes it so elsewhere.
        keep = parted.lower() in words and whole.lower() not in words
        open_.last(bare + "-" * keep)
    else:
        open_.last(last + ("\n" if keep_break else " "))


def heading_sizes(lines: Sequence[Line]) -> dict[int, int]:
    """Levels of lines that are set clearly larger than the text, by index; empty where sizes tell nothing."""
    sizes = Counter[float]()
    for line in lines:
        sizes[_rounded(line.size)] += len(line.text)
    if not sizes:
        return {}
    body = sizes.most_common(1)[0][0]
    large = {index: _rounded(line.size) for index, line in enumerate(lines) if _is_large(line, body)}
    share = sum(len(lines[index].text) for index in large) / max(sum(sizes.values()), 1)
    if share > LARGE_SHARE:
        return {}
    ranks = sorted(set(large.values()), reverse=True)
    runs = Counter(size for index, size in large.items() if large.get(index - 1) != size)
    first = 1 if ranks and runs[ranks[0]] == 1 else 2
    return {index: min(first + ranks.index(size), 6) for index, size in large.items()}


LARGE = 1.15
LARGE_SHARE = 0.2
"""Of a document's characters: where more are large, size marks no headings."""
HEADING_CHARACTERS = 120


def _is_large(line: Line, body: float) -> bool:
    letters = any(map(str.isalpha, line.text))
    fits = len(line.text) <= HEADING_CHARACTERS and line.text[-1] not in ".,;"
    return letters and fits and line.size >= LARGE * body


def _rounded(size: float) -> float:
    return round(size * 2) / 2
