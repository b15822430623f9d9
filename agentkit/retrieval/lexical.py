"""Search by words: BM25 of SQLite's FTS5, within a budget of chunks to score."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from agentkit.retrieval.database import TOKENIZER, generation

BUDGET = 6_000
"""Chunks that a search scores: FTS5 takes about 0.4 µs for each, and as much to count it."""
_QUERY = "SELECT rowid, -bm25(words, 2.0, 1.0, 1.0) AS score FROM words WHERE words MATCH ?"
_STEMMER = f"""
CREATE VIRTUAL TABLE texts USING fts5 (text, content = '', tokenize = '{TOKENIZER}');
CREATE VIRTUAL TABLE terms USING fts5vocab (texts, instance);
"""


class Lexicon:
    """The lexical index of a database.

    Args:
        connection: To the database; the caller takes care that one thread uses it at a time.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._stemmer = sqlite3.connect(":memory:", check_same_thread=False)
        self._stemmer.executescript(_STEMMER)
        self._frequencies: dict[str, int] = {}
        self._generation = -1

    def close(self) -> None:
        """Release its memory."""
        self._stemmer.close()

    def matching(
        self, words: Sequence[str], limit: int, chunks: tuple[str, Sequence[str]] | None = None
    ) -> dict[int, float]:
        """BM25 by chunk id, best first.

        In a large index the words that most chunks have are left out where rarer ones are there: they decide little,
        and every chunk that has one would be scored.

        Args:
            chunks: A query, with its values, for the ids of the chunks to search in.
        """
        if not words:
            return {}
        kept = self._affordable(words)
        found = self._score(" OR ".join(map(quoted, kept)), limit, chunks)
        if len(found) < limit and len(kept) < len(words):
            found = self._score(" OR ".join(map(quoted, words)), limit, chunks)
        return found

    def frequency(self, word: str) -> int:
        """In how many chunks a word occurs, in any inflection Porter's stemmer joins."""
        self._forget()
        if word not in self._frequencies:
            terms = self._terms(word)
            if len(terms) == 1:
                # The vocabulary counts in C, without a step of a query for every chunk.
                query, value = "SELECT coalesce(sum(doc), 0) FROM vocabulary WHERE term = ?", terms[0]
            else:
                query, value = "SELECT count(*) FROM words WHERE words MATCH ?", quoted(word)
            self._frequencies[word] = int(self._connection.execute(query, (value,)).fetchone()[0])
        return self._frequencies[word]

    def _forget(self) -> None:
        if (now := generation(self._connection)) != self._generation:
            self._frequencies.clear()
            self._generation = now

    def _terms(self, word: str) -> list[str]:
        """What the tokenizer makes of a word."""
        self._stemmer.execute("INSERT INTO texts (rowid, text) VALUES (1, ?)", (word,))
        terms = [row[0] for row in self._stemmer.execute("SELECT term FROM terms")]
        self._stemmer.execute("INSERT INTO texts (texts) VALUES ('delete-all')")
        return terms

    def _affordable(self, words: Sequence[str]) -> list[str]:
        """The rarest words that together occur in no more chunks than the budget allows; at least one."""
        counts = {word: self.frequency(word) for word in words}
        if sum(counts.values()) <= BUDGET:
            return [*words]
        kept, total = set[str](), 0
        for word in sorted(counts, key=counts.__getitem__):
            total += counts[word]
            if total > BUDGET and any(counts[other] for other in kept):
                break
            kept.add(word)
        return [word for word in words if word in kept]

    def _score(
        self, expression: str, limit: int, chunks: tuple[str, Sequence[str]] | None
    ) -> dict[int, float]:
        query, values = _QUERY, [expression]
        if chunks:
            # The plus sign keeps SQLite from running the search once for every id.
            query += f" AND +words.rowid IN ({chunks[0]})"
            values += chunks[1]
        rows = self._connection.execute(f"{query} ORDER BY score DESC LIMIT ?", (*values, limit))
        return {int(chunk): float(score) for chunk, score in rows}


def quoted(word: str) -> str:
    """A word as an FTS5 string: nothing in it is an operator."""
    return '"' + word.replace('"', '""') + '"'
