"""Documents, chunks and vectors in SQLite (the truth), with a FAISS view of the vectors beside it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval import storage
from agentkit.retrieval.database import connect, file_state, generation, guarded, transaction
from agentkit.retrieval.filters import checked, chunks_where
from agentkit.retrieval.health import check
from agentkit.retrieval.lexical import Lexicon
from agentkit.retrieval.liveview import LiveView
from agentkit.retrieval.protocol import Where
from agentkit.retrieval.records import IndexedDocument, NewDocument, StoredChunk, Vectors
from agentkit.retrieval.vectors import ROWS, VectorView, row_ids, selector_of

_PER_CHUNK = 4
"""Vectors looked for per chunk wanted: several nearest ones are often of one chunk."""
_FEW_CHUNKS = 1_000
"""Chunks that a filter leaves up to which all their vectors are read and compared."""


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """What a filter leaves."""

    key: object
    """The filter and the generation it was looked up in."""
    chunks: NDArray[np.int64]
    vectors: int
    selector: Any
    """For FAISS; ``None`` where the chunks are few."""


class SqliteIndex:
    """`Index` in one file. Safe for several threads; several processes may read while one writes.

    Where the file or its folder cannot be written it is opened for reading.

    Args:
        path: The SQLite file; the FAISS view is ``path`` with ``.faiss`` appended.
        dimension: Length of a vector.
        notice: Told of every repair.

    Raises:
        KnowledgeError: From every method, where the database is damaged or cannot be written.
    """

    def __init__(self, path: Path, dimension: int, notice: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self._dimension = dimension
        self._notice = notice
        self._lock = threading.RLock()
        self._connect()

    def _connect(self) -> None:
        before = file_state(self.path)  # what is put there meanwhile is found at the next look
        connection = connect(self.path)
        try:
            live = LiveView(connection, self.path, self._dimension, self._notice)
        except BaseException:
            connection.close()
            raise
        self._connection, self._live, self._lexicon = connection, live, Lexicon(connection)
        self._narrowed: _Narrowed | None = None
        self._state = before or file_state(self.path)

    def close(self) -> None:
        """Release the files."""
        with self._lock:
            self._lexicon.close()
            self._connection.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, guarded(self.path):
            self._follow()
            yield self._connection

    def _follow(self) -> None:
        """Go over to the file that another process has put in the place of this one, or begun to write to."""
        now = file_state(self.path)
        if now is not None and not now.is_as(self._state):
            connection, lexicon = self._connection, self._lexicon
            self._connect()
            lexicon.close()
            connection.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._read() as connection, transaction(connection):
            yield connection

    def put(self, documents: Sequence[NewDocument]) -> None:
        """`Index.put`."""
        for document in documents:
            for own in (*document.vectors, document.phrases):
                if own.ndim != 2 or own.shape[1] != self._dimension or not 1 <= len(own) < ROWS:
                    raise ValueError(f"vectors of shape {own.shape} do not fit dimension {self._dimension}")
        if documents:
            with self._write() as connection:
                for document in documents:
                    storage.insert(connection, document)

    def remove(self, names: Sequence[str]) -> None:
        """`Index.remove`."""
        with self._write() as connection:
            connection.executemany("DELETE FROM documents WHERE name = ?", [(name,) for name in names])

    def documents(self) -> list[IndexedDocument]:
        """`Index.documents`."""
        with self._read() as connection:
            return storage.documents(connection)

    def embedder(self) -> str:
        """`Index.embedder`."""
        with self._read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()
            return str(row[0]) if row else ""

    def reset(self, embedder: str) -> None:
        """`Index.reset`."""
        with self._write() as connection:
            connection.execute("DELETE FROM documents")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (embedder,))

    def counts(self) -> tuple[int, int]:
        """`Index.counts`."""
        query = "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM chunks)"
        with self._read() as connection:
            documents, chunks = connection.execute(query).fetchone()
            return int(documents), int(chunks)

    def nearest(self, vector: Vectors, limit: int, where: Where | None = None) -> list[int]:
        """`Index.nearest`."""
        with self._read():
            view = self._live.current()
            if not where:
                return _chunks_of(view, vector, limit)
            narrowed = self._select(where)
            if len(narrowed.chunks) <= _FEW_CHUNKS:
                ids, cosines = self._live.exact(narrowed.chunks, vector)
                order = np.argsort(-cosines, kind="stable")
                return list(dict.fromkeys((ids[order] // ROWS).tolist()))[:limit]
            return _chunks_of(view, vector, limit, narrowed.selector, narrowed.vectors / view.size)

    def matching(self, words: Sequence[str], limit: int, where: Where | None = None) -> dict[int, float]:
        """`Index.matching`: BM25."""
        with self._read():
            chunks = self._select(where).chunks if where else None
            return self._lexicon.matching(words, limit, chunks)

    def frequency(self, word: str) -> int:
        """`Index.frequency`."""
        with self._read():
            return self._lexicon.frequency(word)

    def vocabulary(self) -> Mapping[str, int]:
        """`Index.vocabulary`."""
        with self._read():
            return self._lexicon.vocabulary()

    def fetch(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """`Index.fetch`."""
        with self._read() as connection:
            return storage.fetch(connection, ids, self._dimension)

    def text(self, document: str, start: int, end: int) -> str:
        """`Index.text`."""
        query = "SELECT substr(text, ? + 1, ? - ?) FROM documents WHERE name = ?"
        with self._read() as connection:
            row = connection.execute(query, (start, end, start, document)).fetchone()
            return str(row[0]) if row else ""

    def flush(self) -> None:
        """`Index.flush`: the FAISS file is written anew if much has changed since it was written."""
        with self._read():
            if self._live.checkpoint():
                self._lexicon.compact()

    def verify(self) -> None:
        """`Index.verify`: database, lexical index and view, each against the one before it."""
        with self._read() as connection:
            check(connection, self.path, self._dimension, self._notice)
            self._live.check()

    def _select(self, where: Where) -> _Narrowed:
        """The chunks that fit; those of the last filter are kept."""
        wanted = checked(where)
        key = (sorted(wanted.items()), generation(self._connection))
        if self._narrowed is None or self._narrowed.key != key:
            query, values = chunks_where(self._connection, wanted)
            table = np.array(self._connection.execute(query, values).fetchall(), np.int64).reshape(-1, 2)
            chunks, rows = table[:, 0], table[:, 1]
            selector = selector_of(row_ids(chunks, rows)) if len(chunks) > _FEW_CHUNKS else None
            self._narrowed = _Narrowed(key, chunks, int(rows.sum()), selector)
        return self._narrowed


def _chunks_of(
    view: VectorView, vector: Vectors, limit: int, selector: Any = None, share: float = 1.0
) -> list[int]:
    """The chunks of the nearest vectors; looks further where those are of too few chunks."""
    wanted = _PER_CHUNK * limit
    while True:
        hits = view.search(vector, wanted, selector, share)
        chunks = list(dict.fromkeys(hit // ROWS for hit, _ in hits))
        if len(chunks) >= limit or len(hits) < wanted:
            return chunks[:limit]
        wanted *= 4
