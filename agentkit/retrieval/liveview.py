"""The vector view of a database, kept in step: a file now and then (checkpoint), and the journal since."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval.blobs import from_blob
from agentkit.retrieval.database import generation, snapshot, transaction
from agentkit.retrieval.records import Vectors
from agentkit.retrieval.vectors import (
    LISTS_FROM,
    QUERIES,
    SAMPLE,
    Batch,
    VectorView,
    lists_for,
    row_ids,
)
from agentkit.retrieval.viewfile import Origin, StaleView, read_origin, read_view, write_view

SHARE = 0.05
"""Of all vectors: when more have changed since the file was written, `checkpoint` writes it anew."""
FEW = 256
"""Changed vectors for which the file is never written anew: applying them takes less than a millisecond."""
_BATCH = 4_096
"""Chunks, or changes, read at a time."""
_CHECKED = 256
"""Chunks whose vectors `check` compares."""


@dataclass(frozen=True, slots=True)
class _State:
    """Where the database is."""

    database: str
    generation: int
    trimmed: int
    """The journal holds every change after this one."""
    checkpoint: int
    """Generation of the last file; 0 where none was written."""


class LiveView:
    """Gives the view of the database as it is now.

    Args:
        connection: To the database; the caller takes care that one thread uses it at a time.
        database: The file; the view is ``database`` with ``.faiss`` appended.
        notice: Told of every repair.
    """

    def __init__(
        self, connection: sqlite3.Connection, database: Path, dimension: int, notice: Callable[[str], None]
    ) -> None:
        self.path = database.with_name(database.name + ".faiss")
        self._connection = connection
        self._dimension = dimension
        self._notice = notice
        self._view: VectorView | None = None
        self._origin = Origin("", 0, 0, 0)

    def current(self) -> VectorView:
        """The view in memory with the changes since; else the file with the changes since; else made anew."""
        with snapshot(self._connection):
            state = self._state()
            origin = self._origin
            if self._view and (origin.database, origin.generation) == (state.database, state.generation):
                return self._view
            if self._view is None or not self._reaches(origin, state) or self._file_is_ahead(state):
                view = self._open(state)
            else:
                view = self._view
            try:
                self._follow(view, state)
            except StaleView as reason:
                view = self._build(state)
                self._notice(f"{self.path.name} {reason}; rebuilt from the database")
                self._save(view)
        return view

    def checkpoint(self) -> bool:
        """Write the file if it is missing, or if much has changed since it was written; whether it did."""
        state = self._state()
        try:
            origin = read_origin(self.path)
        except StaleView:
            origin = Origin("", 0, 0, 0)
        if self._reaches(origin, state):
            changed = self._changed_since(origin.generation)
            if changed <= max(FEW, SHARE * origin.size):
                return False
        view = self.current()
        if view.worn:
            with snapshot(self._connection):
                view = self._build(self._state())
        return self._write(view)

    def check(self) -> None:
        """Load the file again and compare it with the database; a view that differs is made anew, and reported."""
        self._view = None
        view = self.current()
        with snapshot(self._connection):
            fault = self._fault(view)
            if fault:
                self._notice(f"{self.path.name} {fault}; rebuilt")
                view = self._build(self._state())
        if fault:
            self._write(view)

    def _state(self) -> _State:
        meta = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
        now = generation(self._connection)
        return _State(meta["id"], now, int(meta["trimmed"]), int(meta["checkpoint"]))

    @staticmethod
    def _reaches(origin: Origin, state: _State) -> bool:
        """Whether the journal leads from a view to the database as it is."""
        return origin.database == state.database and state.trimmed <= origin.generation <= state.generation

    def _file_is_ahead(self, state: _State) -> bool:
        """Whether loading the file is less work than following the journal from the view in memory."""
        if state.generation - self._origin.generation <= SHARE * self._origin.size:
            return False
        try:
            file = read_origin(self.path)
        except StaleView:
            return False
        return self._reaches(file, state) and file.generation > self._origin.generation

    def _changed_since(self, before: int) -> int:
        query = "SELECT coalesce(sum(abs(rows)), 0) FROM changes WHERE id > ?"
        return int(self._connection.execute(query, (before,)).fetchone()[0])

    def _open(self, state: _State) -> VectorView:
        """From the file; where that cannot be, from the vectors in the database."""
        try:
            index, origin = read_view(self.path)
            if not self._reaches(origin, state) or index.d != self._dimension:
                raise StaleView("is out of date")
            self._view, self._origin = VectorView(index, origin.trained), origin
        except StaleView as reason:
            view = self._build(state)
            if state.checkpoint or "missing" not in str(reason):  # else none was ever written
                self._notice(f"{self.path.name} {reason}; rebuilt from the database")
                self._save(view)
            return view
        return self._view

    def _follow(self, view: VectorView, state: _State) -> None:
        """Apply the journal. A chunk never changes and its id is never used again: the order does not matter.

        Raises:
            StaleView: The journal has a gap; part of it has been applied.
        """
        query = """
            SELECT changes.id, changes.chunk, changes.rows, chunks.vectors
            FROM changes LEFT JOIN chunks ON chunks.id = changes.chunk AND changes.rows > 0
            WHERE changes.id > ? ORDER BY changes.id LIMIT ?"""
        at = self._origin.generation
        while at < state.generation:
            rows = self._connection.execute(query, (at, _BATCH)).fetchall()
            # Its ids are without gaps (AUTOINCREMENT): what is missing would be missing in every search.
            if not rows or [row[0] for row in rows] != [*range(at + 1, at + 1 + len(rows))]:
                raise StaleView("cannot follow its journal, which has a gap")
            gone = [(chunk, -count) for _, chunk, count, _ in rows if count < 0]
            view.remove(row_ids(*_columns(gone)))
            ids, vectors = self._decode([(chunk, blob) for _, chunk, _, blob in rows if blob is not None])
            view.remove(ids)  # of a batch that was applied before something went wrong
            view.add(ids, vectors)
            at = rows[-1][0]
            self._origin = Origin(state.database, at, view.trained, view.size)

    def _build(self, state: _State) -> VectorView:
        """A view of all vectors of the database; to be called in a snapshot."""
        self._view = None  # two of them need not be in memory at once
        chunks, rows = _columns(self._connection.execute("SELECT id, rows FROM chunks").fetchall())
        chunks = np.sort(chunks)
        size = int(rows.sum())
        queries = np.zeros((0, self._dimension), np.float32)
        if size < LISTS_FROM:
            view = VectorView.exact(self._dimension)
        else:
            mixed = np.random.default_rng(0).permutation(chunks)
            asked = min(QUERIES, len(chunks) // 2)  # few chunks of many sentences must leave some to train on
            queries = self._read(mixed[:asked])[1][:: max(1, size // len(chunks))][:QUERIES]
            wanted = SAMPLE * lists_for(size)
            share = int(np.ceil(1.1 * wanted * len(chunks) / size))
            sample = self._read(mixed[asked:][:share])[1][:wanted]
            if len(sample) < lists_for(size):  # FAISS refuses to train on fewer
                view = VectorView.exact(self._dimension)
            else:
                view = VectorView.approximate(sample, size)
        view.fill(self._batches(), queries)
        self._view, self._origin = view, Origin(state.database, state.generation, view.trained, view.size)
        return view

    def _batches(self) -> Iterator[Batch]:
        cursor = self._connection.execute("SELECT id, vectors FROM chunks ORDER BY id")
        while rows := cursor.fetchmany(_BATCH):
            yield self._decode(rows)

    def _read(self, chunks: NDArray[np.int64]) -> Batch:
        """All vectors of some chunks, in the order of their ids."""
        marks = ",".join(map(str, sorted(chunks.tolist())))
        query = "SELECT id, vectors FROM chunks WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
        return self._decode(self._connection.execute(query, (f"[{marks}]",)).fetchall())

    def _decode(self, rows: Sequence[tuple[int, bytes]]) -> Batch:
        vectors = [from_blob(blob, self._dimension) for _, blob in rows]
        ids = row_ids(*_columns([(row[0], len(own)) for row, own in zip(rows, vectors, strict=True)]))
        return ids, np.concatenate([np.zeros((0, self._dimension), np.float32), *vectors])

    def exact(self, chunks: NDArray[np.int64], vector: Vectors) -> Batch:
        """FAISS ids of all vectors of some chunks, and their cosines with a vector."""
        ids, vectors = self._read(chunks)
        return ids, vectors @ vector

    def _write(self, view: VectorView) -> bool:
        """Save, then drop what of the journal no view can need."""
        if saved := self._save(view):
            with transaction(self._connection):
                state = (
                    self._state()
                )  # here: another process may have trimmed the journal while this one wrote
                # A process that still has the file before this one in memory can follow from there.
                written = self._origin.generation
                # No further than this file, though another process may have written a later one meanwhile.
                trimmed = max(state.trimmed, min(state.checkpoint, written))
                self._connection.execute("DELETE FROM changes WHERE id <= ?", (trimmed,))
                for key, value in (("trimmed", trimmed), ("checkpoint", written)):
                    self._connection.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), key))
        return saved

    def _save(self, view: VectorView) -> bool:
        try:
            write_view(self.path, view.index, self._origin)
        except OSError as error:
            cause = error.strerror or str(error)
            self._notice(f"{self.path.name} cannot be written ({cause}); it stays in memory only")
            return False
        return True

    def _fault(self, view: VectorView) -> str:
        """How the view differs from the database: in its size, or in one of a sample of vectors."""
        chunks, rows = _columns(self._connection.execute("SELECT id, rows FROM chunks").fetchall())
        if view.size != int(rows.sum()):
            return f"has {view.size} vectors where the database has {int(rows.sum())}"
        sample = np.random.default_rng().permutation(chunks)[:_CHECKED]
        for id_, vector in zip(*self._read(sample), strict=True):
            held = view.get(int(id_))
            if held is None or float(np.abs(held - vector).max()) > 0.02:
                return "differs from the database"
        return ""


def _columns(rows: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Chunks and their numbers of vectors."""
    table: NDArray[np.int64] = np.array(rows, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
