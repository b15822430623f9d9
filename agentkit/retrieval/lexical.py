"""Search by words: BM25 of SQLite's FTS5, which is a sum over words, so that the terms of the sum can be kept.

FTS5 takes about a microsecond to score a chunk, and a common word stands in tens of thousands: a question of seven
words costs tens of milliseconds at 100,000 chunks. What a word adds to each chunk does not depend on the other words.
It is found once (in a large index by `Postings`) and kept; a search adds up arrays.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval.database import generation
from agentkit.retrieval.postings import HEADING, TEXT, Postings, Scores, Stemmer

KEPT = 8_000_000
"""Scores that are kept in all, 12 bytes each with their ids; the words used longest ago are dropped."""
EXACT_TO = 10_000
"""Chunks up to which every change drops what is kept: asking again is cheap there."""
SHARE = 0.01
"""Of a larger number of chunks: when more have changed, what is kept is dropped.

Until then the kept scores take the number and mean length of chunks as they were, which moves them by about as much.
"""
COMMON = 0.5
"""Of a larger number of chunks: BM25 gives nothing for a word that more than half of them have."""

_MATCHING = f"SELECT rowid, -bm25(words, {HEADING}, {TEXT}, {TEXT}) FROM words WHERE words MATCH ?"
_ALL, _SINCE = f"{_MATCHING} AND rowid <= ?", f"{_MATCHING} AND rowid > ?"


class Lexicon:
    """The lexical index of a database.

    Args:
        connection: To the database; the caller takes care that one thread uses it at a time.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._scores: OrderedDict[str, Scores] = OrderedDict()
        self._vocabulary: dict[str, int] = {}
        self._spelt = -1
        """Generation of the vocabulary."""
        self._kept = 0
        self._base = self._now = -1
        """Generations: that since which scores are kept, and that of the last search."""
        self._chunks = self._last = 0
        """At the first of these: the number of chunks, and the highest id."""
        self._gone = np.zeros(0, np.int64)
        """Chunks removed since."""
        self._postings: Postings | None = None
        """Of a larger number of chunks, once a word was asked for."""
        self._stemmer = Stemmer()

    def frequency(self, word: str) -> int:
        """In how many chunks a word occurs, in any inflection Porter's stemmer joins."""
        query = "SELECT count(*) FROM words WHERE words MATCH ?"
        return int(self._connection.execute(query, (quoted(word),)).fetchone()[0])

    def vocabulary(self) -> dict[str, int]:
        """Words as they are written, lower case, with the number of chunks that have them."""
        if (now := generation(self._connection)) != self._spelt:
            self._vocabulary = dict(self._connection.execute("SELECT term, doc FROM vocabulary").fetchall())
            self._spelt = now
        return self._vocabulary

    def matching(
        self, words: Sequence[str], limit: int, chunks: NDArray[np.int64] | None = None
    ) -> dict[int, float]:
        """BM25 by chunk id, best first.

        Args:
            chunks: Ids of the chunks to search in.
        """
        if not words:
            return {}
        self._follow()
        parts = [self._of(word, COMMON) for word in words]
        if not any(len(ids) for ids, _ in parts):
            parts = [self._of(word, 1.0) for word in words]
        totals = np.zeros(self._last + 1, np.float32)
        for ids, scores in parts:
            totals[ids] += scores  # an id occurs once in each
        totals[self._gone] = 0.0
        recent = self._since(words)
        if chunks is not None:
            inside = np.zeros(
                max(self._last, int(chunks.max(initial=0)), int(recent[0].max(initial=0))) + 1, bool
            )
            inside[chunks] = True
            totals[~inside[: len(totals)]] = 0.0
            recent = recent[0][inside[recent[0]]], recent[1][inside[recent[0]]]
        best = _top(totals, limit, max(parts, key=lambda part: part[1].max(initial=0.0)))
        ids, scores = np.concatenate([best, recent[0]]), np.concatenate([totals[best], recent[1]])
        order = np.lexsort((ids, -scores))[:limit]
        return dict(zip(ids[order].tolist(), scores[order].tolist(), strict=True))

    def close(self) -> None:
        """Release what it has opened itself."""
        self._stemmer.close()

    def compact(self) -> None:
        """Merge the segments that changes left, and drop the words of what was removed; some µs a chunk."""
        for table in ("words", "spellings"):
            self._connection.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")

    def _follow(self) -> None:
        """Note what was removed since; drop everything where too much has changed."""
        now = generation(self._connection)
        if now == self._now:
            return
        allowed = SHARE * self._chunks if self._chunks > EXACT_TO else 0
        trimmed = self._connection.execute("SELECT value FROM meta WHERE key = 'trimmed'").fetchone()[0]
        if self._base < 0 or now - self._base > allowed or int(trimmed) > self._base or now < self._base:
            self._scores.clear()
            self._kept, self._base, self._postings = 0, now, None
            row = self._connection.execute("SELECT count(*), coalesce(max(id), 0) FROM chunks").fetchone()
            self._chunks, self._last = row
        query = "SELECT chunk FROM changes WHERE id > ? AND rows < 0 AND chunk <= ?"
        rows = self._connection.execute(query, (self._base, self._last)).fetchall()
        self._gone = np.array(rows, np.int64).reshape(-1)
        self._now = now

    def _of(self, word: str, share: float) -> Scores:
        """What a word adds to each chunk; nothing where more than this share of many chunks have it."""
        known = self._scores.get(word)
        if known is not None and (share < 1.0 or len(known[0])):
            self._scores.move_to_end(word)
            return known
        found = _arrays([])
        if share == 1.0 or self._chunks <= EXACT_TO or self.frequency(word) <= share * self._chunks:
            found = self._asked(word)
        self._scores[word] = found
        self._kept += len(found[0])
        while self._kept > KEPT and len(self._scores) > 1:
            self._kept -= len(self._scores.popitem(last=False)[1][0])
        return found

    def _asked(self, word: str) -> Scores:
        """What a word adds to each chunk, from the database."""
        stems = self._stemmer.tokens(word) if self._chunks > EXACT_TO else []
        if len(stems) != 1:  # of several it is a phrase
            return _arrays(self._connection.execute(_ALL, (quoted(word), self._last)).fetchall())
        if self._postings is None:
            self._postings = Postings(self._connection, self._last)
        return self._postings.scores(stems[0])

    def _since(self, words: Sequence[str]) -> Scores:
        """What the words together add to chunks that are newer than what is kept."""
        if self._now == self._base:
            return _arrays([])
        expression = " OR ".join(map(quoted, words))
        return _arrays(self._connection.execute(_SINCE, (expression, self._last)).fetchall())


def quoted(word: str) -> str:
    """A word as an FTS5 string: nothing in it is an operator."""
    return '"' + word.replace('"', '""') + '"'


def _arrays(rows: Sequence[tuple[int, float]]) -> Scores:
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    return ids, np.fromiter((row[1] for row in rows), np.float32, len(rows))


def _top(totals: NDArray[np.float32], limit: int, strongest: Scores) -> NDArray[np.int64]:
    """Positions of at least the ``limit`` highest totals above 0, those of equal total included.

    The chunks of one word alone tell what a total must reach: one comparison of all is left, and few to sort.
    """
    least = np.float32(0.0)
    held = totals[strongest[0]]
    if len(held) > limit:
        least = np.partition(held, len(held) - limit)[len(held) - limit]
    return np.flatnonzero((totals >= least) & (totals > 0))
