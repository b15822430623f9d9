"""The index under damage: FAISS file and SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agentkit.errors import KnowledgeError
from agentkit.retrieval import liveview
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.records import NewDocument, Vectors

DIMENSION = 8


def a_document(name: str, chunks: list[Chunk], vectors: list[Vectors], phrases: Vectors) -> NewDocument:
    return NewDocument(name, "Title", "text", "0" * 64, "folder", ["kw"], chunks, vectors, phrases)


def put(index: SqliteIndex, name: str, axis: int) -> None:
    vector = np.eye(DIMENSION, dtype=np.float32)[[axis]]
    chunk = Chunk("Title", f"text of {name}", 0, 5)
    index.put([a_document(name, [chunk], [np.repeat(vector, 2, axis=0)], vector)])


def nearest(index: SqliteIndex, axis: int) -> str:
    ids = index.nearest(np.eye(DIMENSION, dtype=np.float32)[axis], 4)
    return index.fetch(ids)[ids[0]].document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    index = SqliteIndex(tmp_path / "index.db", DIMENSION)
    for axis, name in enumerate(("a.md", "b.md", "c.md")):
        put(index, name, axis)
    index.flush()
    index.close()
    return tmp_path / "index.db"


def test_persists(path: Path) -> None:
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    assert [nearest(index, axis) for axis in range(3)] == ["a.md", "b.md", "c.md"]
    assert index.counts() == (3, 3)
    assert [document.chunks for document in index.documents()] == [1, 1, 1]
    assert list(index.matching(["text"], 10)) == [1, 2, 3]
    assert notices == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "damaged"),
        (flip, "damaged"),
        (Path.unlink, "missing"),
        (lambda p: p.write_bytes(b""), "damaged"),
    ],
)
def test_a_bad_view_heals(path: Path, damage: Callable[[Path], object], reason: str) -> None:
    notices: list[str] = []
    damage(path.with_name("index.db.faiss"))
    index = SqliteIndex(path, DIMENSION, notices.append)
    assert [nearest(index, axis) for axis in range(3)] == ["a.md", "b.md", "c.md"]
    assert len(notices) == 1
    assert reason in notices[0]
    index.close()
    again: list[str] = []
    assert nearest(SqliteIndex(path, DIMENSION, again.append), 1) == "b.md"
    assert again == []


def test_an_old_view_follows_the_journal(path: Path) -> None:
    view = path.with_name("index.db.faiss")
    old = view.read_bytes()
    index = SqliteIndex(path, DIMENSION)
    index.remove(["a.md"])
    put(index, "d.md", 5)
    index.close()
    assert view.read_bytes() == old
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    assert nearest(index, 5) == "d.md"
    assert nearest(index, 0) != "a.md"
    assert notices == []


def test_a_view_from_before_the_journal_heals(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveview, "FEW", 0)
    view = path.with_name("index.db.faiss")
    old = view.read_bytes()
    index = SqliteIndex(path, DIMENSION)
    for axis, name in ((4, "e.md"), (5, "d.md")):
        put(index, name, axis)
        index.flush()  # each trims the journal up to the file that it replaces
    index.remove(["a.md"])
    index.close()
    view.write_bytes(old)
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    assert nearest(index, 5) == "d.md"
    assert nearest(index, 0) != "a.md"
    assert ["out of date" in notice for notice in notices] == [True]


def test_a_view_of_another_database_is_not_used(path: Path, tmp_path: Path) -> None:
    other = SqliteIndex(tmp_path / "other.db", DIMENSION)
    for axis, name in enumerate(("x.md", "y.md", "z.md")):
        put(other, name, axis + 3)
    other.close()
    path.with_name("index.db.faiss").rename(tmp_path / "other.db.faiss")
    assert nearest(SqliteIndex(tmp_path / "other.db", DIMENSION), 3) == "x.md"


def test_replace_is_one_transaction(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    with pytest.raises(ValueError, match="zip"):
        index.put(
            [
                a_document(
                    "a.md", [], [np.ones((3, DIMENSION), np.float32)], np.ones((1, DIMENSION), np.float32)
                )
            ]
        )
    assert nearest(index, 0) == "a.md"
    index.verify()


def test_damaged_pages_are_found(path: Path) -> None:
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(KnowledgeError, match=r"damaged.*agentkit knowledge rebuild"):
        SqliteIndex(path, DIMENSION).verify()


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(KnowledgeError, match="another version"):
        SqliteIndex(tmp_path / "x.db", DIMENSION)


def test_dimension_is_checked(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    with pytest.raises(ValueError, match="dimension"):
        index.put(
            [a_document("e.md", [], [np.ones((3, 4), np.float32)], np.ones((1, DIMENSION), np.float32))]
        )
