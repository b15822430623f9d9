"""Documents, chunks and vectors in SQLite (the truth), with a FAISS view of the vectors beside it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from agentkit.errors import KnowledgeError
from agentkit.retrieval.database import connect, guarded, transaction
from agentkit.retrieval.protocol import Where
from agentkit.retrieval.records import IndexedDocument, NewDocument, StoredChunk, Vectors
from agentkit.retrieval.vectors import StaleView, VectorView

_ROWS = 1024
"""Upper bound of vectors per chunk; a FAISS id is ``chunk * _ROWS + row``."""


class SqliteIndex:
    """`Index` in one file. Safe for several threads; several processes may read while one writes.

    Args:
        path: The SQLite file; the FAISS view is ``path`` with ``.faiss`` appended.
        dimension: Length of a vector.
        notice: Told of every repair.

    Raises:
        KnowledgeError: From every method, where the database is damaged or cannot be written.
    """

    def __init__(self, path: Path, dimension: int, notice: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.view_path = path.with_name(path.name + ".faiss")
        self._dimension = dimension
        self._notice = notice
        self._lock = threading.RLock()
        self._view: VectorView | None = None
        self._connection = connect(path)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, guarded(self.path):
            yield self._connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that also moves the generation on, which makes every older view stale."""
        with self._read() as connection, transaction(connection):
            yield connection
            connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")

    def put(self, documents: Sequence[NewDocument]) -> None:
        """`Index.put`."""
        for document in documents:
            for own in (*document.vectors, document.phrases):
                if own.ndim != 2 or own.shape[1] != self._dimension or not 1 <= len(own) < _ROWS:
                    raise ValueError(f"vectors of shape {own.shape} do not fit dimension {self._dimension}")
        if documents:
            with self._write() as connection:
                for document in documents:
                    _insert(connection, document)

    def remove(self, names: Sequence[str]) -> None:
        """`Index.remove`."""
        with self._write() as connection:
            connection.executemany("DELETE FROM documents WHERE name = ?", [(name,) for name in names])

    def documents(self) -> list[IndexedDocument]:
        """`Index.documents`."""
        query = """
            SELECT id, name, title, sha256, origin,
                (SELECT count(*) FROM chunks WHERE document = documents.id), language
            FROM documents ORDER BY name"""
        with self._read() as connection:
            metadata: dict[int, dict[str, str]] = {}
            for document, key, value in connection.execute("SELECT document, key, value FROM metadata"):
                metadata.setdefault(document, {})[key] = value
            rows = connection.execute(query).fetchall()
        return [
            IndexedDocument(name, title, sha256, origin, chunks, language, metadata.get(id_, {}))
            for id_, name, title, sha256, origin, chunks, language in rows
        ]

    def embedder(self) -> str:
        """Name of the embedder of all vectors; empty in a new index."""
        return self._meta("embedder")

    def reset(self, embedder: str) -> None:
        """Drop all documents and note whose vectors will come."""
        with self._write() as connection:
            connection.execute("DELETE FROM documents")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (embedder,))

    def counts(self) -> tuple[int, int]:
        """(documents, chunks)."""
        with self._read() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM chunks)"
            ).fetchone()
            return int(row[0]), int(row[1])

    def nearest(self, vector: Vectors, limit: int, where: Where | None = None) -> list[int]:
        """`Index.nearest`."""
        with self._lock:
            hits = self._current_view().search(vector, limit * 4)
        return list(dict.fromkeys(hit // _ROWS for hit, _ in hits))[:limit]

    def matching(self, words: Sequence[str], limit: int, where: Where | None = None) -> dict[int, float]:
        """`Index.matching`: BM25."""
        if not words:
            return {}
        query = (
            "SELECT rowid, -bm25(words, 2.0, 1.0, 1.0) AS s FROM words"
            " WHERE words MATCH ? ORDER BY s DESC LIMIT ?"
        )
        with self._read() as connection:
            rows = connection.execute(query, (" OR ".join(map(_quoted, words)), limit)).fetchall()
        return {int(chunk): float(score) for chunk, score in rows}

    def frequency(self, word: str) -> int:
        """In how many chunks a word occurs, in any inflection Porter's stemmer joins."""
        with self._read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM words WHERE words MATCH ?", (_quoted(word),)
            ).fetchone()
            return int(row[0])

    def fetch(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by id; ids that are gone by now are left out."""
        query = f"""
            SELECT chunks.id, name, heading, chunks.text, page, start, stop, chunks.vectors,
                documents.vectors, keywords, chunks.language, position
            FROM chunks JOIN documents ON documents.id = chunks.document
            WHERE chunks.id IN ({",".join("?" * len(ids))})"""
        with self._read() as connection:
            rows = connection.execute(query, tuple(ids)).fetchall()
        chunks = {}
        for id_, name, heading, text, page, start, stop, vectors, phrases, *rest in rows:
            own, whole = self._matrix(vectors), self._matrix(phrases)
            chunks[id_] = StoredChunk(id_, name, heading, text, page, start, stop, own, whole, *rest)
        return chunks

    def text(self, document: str, start: int, end: int) -> str:
        """`Index.text`."""
        query = "SELECT substr(text, ? + 1, ? - ?) FROM documents WHERE name = ?"
        with self._read() as connection:
            row = connection.execute(query, (start, end, start, document)).fetchone()
            return str(row[0]) if row else ""

    def flush(self) -> None:
        """`Index.flush`: bring the FAISS file up to date."""
        with self._lock:
            stamp = self._stamp()
            if self._view is None or self._view.stamp != stamp or not self.view_path.exists():
                self._rebuild_view()

    def verify(self) -> None:
        """Check everything that can be checked; a faulty view is repaired and reported.

        Raises:
            KnowledgeError: The database is damaged, or a vector has the wrong length.
        """
        with self._read() as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            sizes = [row[0] for row in connection.execute("SELECT DISTINCT length(vectors) FROM chunks")]
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        if faults != ["ok"]:
            raise KnowledgeError(f"{self.path} is damaged: {faults[0]}", "run `agentkit knowledge rebuild`")
        if any(size % (4 * self._dimension) for size in sizes):
            raise KnowledgeError(
                f"{self.path} has vectors of another length", "run `agentkit knowledge rebuild`"
            )
        with self._lock:
            self._view = None
            self._current_view()

    def _matrix(self, blob: bytes) -> Vectors:
        if len(blob) % (4 * self._dimension):
            raise KnowledgeError(
                f"{self.path} has vectors of another length", "run `agentkit knowledge rebuild`"
            )
        return np.frombuffer(blob, np.float32).reshape(-1, self._dimension)

    def _meta(self, key: str) -> str:
        with self._read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return str(row[0]) if row else ""

    def _stamp(self) -> str:
        return f"{self._meta('id')}.{self._meta('generation')}"

    def _current_view(self) -> VectorView:
        """The view of the database as it is now: in memory, from the file, or rebuilt."""
        stamp = self._stamp()
        if self._view is None or self._view.stamp != stamp:
            try:
                self._view = VectorView.load(self.view_path, stamp)
            except StaleView as reason:
                if self.counts()[1] or "damaged" in str(reason):
                    self._notice(f"{self.view_path.name} {reason}; rebuilt from {self.path.name}")
                self._rebuild_view()
        assert self._view is not None
        return self._view

    def _rebuild_view(self) -> None:
        with self._read() as connection, transaction(connection):
            # Vectors and stamp must be of one state: the write lock keeps other processes out meanwhile.
            stamp = self._stamp()
            rows = connection.execute("SELECT id, vectors FROM chunks ORDER BY id").fetchall()
        matrices = [self._matrix(blob) for _, blob in rows]
        ids = [
            chunk * _ROWS + n for (chunk, _), own in zip(rows, matrices, strict=True) for n in range(len(own))
        ]
        vectors = np.concatenate([np.zeros((0, self._dimension), np.float32), *matrices])
        self._view = VectorView.build(np.array(ids, np.int64), vectors, stamp)
        try:
            self._view.save(self.view_path)
        except OSError as error:
            self._notice(
                f"{self.view_path.name} cannot be written ({error.strerror}); it stays in memory only"
            )


def _insert(connection: sqlite3.Connection, document: NewDocument) -> None:
    connection.execute("DELETE FROM documents WHERE name = ?", (document.name,))
    cursor = connection.execute(
        "INSERT INTO documents (name, sha256, origin, title, text, language, keywords, vectors)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            document.name,
            document.sha256,
            document.origin,
            document.title,
            document.text,
            document.language,
            "\n".join(document.keywords),
            _blob(document.phrases),
        ),
    )
    connection.executemany(
        "INSERT INTO metadata VALUES (?, ?, ?)",
        [(cursor.lastrowid, key, value) for key, value in document.metadata.items()],
    )
    connection.executemany(
        "INSERT INTO chunks (document, position, heading, text, language, page, start, stop, vectors)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                cursor.lastrowid,
                n,
                chunk.heading,
                chunk.text,
                chunk.language,
                chunk.page,
                chunk.start,
                chunk.end,
                _blob(own),
            )
            for n, (chunk, own) in enumerate(zip(document.chunks, document.vectors, strict=True))
        ],
    )


def _blob(vector: Vectors) -> bytes:
    return np.ascontiguousarray(vector, np.float32).tobytes()


def _quoted(word: str) -> str:
    """A word as an FTS5 string: nothing in it is an operator."""
    return '"' + word.replace('"', '""') + '"'
