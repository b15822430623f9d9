"""The index under damage: FAISS file and SQLite file."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from agentkit.errors import IndexDamaged, IndexOutdated, KnowledgeError, UsageError
from agentkit.retrieval import liveview
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.database import SCHEMA_VERSION, guarded
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.places import SqlitePlace
from agentkit.retrieval.protocol import Where
from agentkit.retrieval.records import NewDocument, Vectors
from agentkit.retrieval.viewfile import write_view

ROOT = Path(__file__).parents[2]

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


def test_a_gap_in_the_journal_is_told_and_heals(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    for axis, name in ((4, "e.md"), (5, "d.md"), (6, "f.md")):
        put(index, name, axis)
    index.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM changes WHERE id = (SELECT max(id) - 1 FROM changes)")
        connection.commit()
    notices: list[str] = []
    for _ in range(2):
        index = SqliteIndex(path, DIMENSION, notices.append)
        assert [nearest(index, axis) for axis in (0, 4, 5, 6)] == ["a.md", "e.md", "d.md", "f.md"]
        index.verify()
        index.close()
    told = "index.db.faiss cannot follow its journal, which has a gap; rebuilt from the database"
    assert notices == [told]


def test_two_processes_that_write_the_view_at_once_leave_no_gap(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveview, "FEW", 0)
    notices: list[str] = []
    one, two = (SqliteIndex(path, DIMENSION, notices.append) for _ in range(2))
    put(one, "d.md", 3)

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(liveview, "write_view", write_view)
        for axis, name in ((4, "e.md"), (5, "f.md"), (6, "g.md")):
            put(two, name, axis)
            two.flush()
        write_view(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(liveview, "write_view", overtaken)
    one.flush()
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT value, (SELECT min(id) FROM changes) FROM meta WHERE key = 'trimmed'"
        trimmed, first = connection.execute(query).fetchone()
    assert int(trimmed) == first - 1
    for index in (one, two, SqliteIndex(path, DIMENSION, notices.append)):
        assert [nearest(index, axis) for axis in (3, 4, 5, 6)] == ["d.md", "e.md", "f.md", "g.md"]
    assert all("is out of date; rebuilt" in notice for notice in notices)


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
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(KnowledgeError, match=r"damaged.*agentkit knowledge rebuild"):
        SqliteIndex(path, DIMENSION).verify()


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(KnowledgeError, match="something else"):
        SqliteIndex(tmp_path / "x.db", DIMENSION)


def test_dimension_is_checked(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    with pytest.raises(ValueError, match="dimension"):
        index.put(
            [a_document("e.md", [], [np.ones((3, 4), np.float32)], np.ones((1, DIMENSION), np.float32))]
        )


def run_alone(code: str, *values: object) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, for limits and rights that cannot be given back."""
    program = (
        f"DIMENSION = {DIMENSION}\nimport os, sys, pathlib, resource, numpy as np, numpy.random, faiss, psutil\n"
        "from agentkit.errors import AgentkitError\nfrom agentkit.retrieval.index import SqliteIndex\n"
        "from agentkit.retrieval import health, lexical\nfrom test_index import put, nearest\n"
    ) + textwrap.dedent(code)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, values)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )


def test_a_full_disk_loses_nothing(path: Path) -> None:
    run = run_alone(
        """
        index = SqliteIndex(pathlib.Path(sys.argv[1]), DIMENSION)
        size = os.path.getsize(sys.argv[1] + "-wal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, size + 100_000))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            for n in range(1000):
                put(index, f"n{n}.md", 6)
        except AgentkitError as error:
            print(n, error)
            print(nearest(index, 0), index.counts()[0])
        """,
        path,
    )
    assert run.returncode == 0, run.stderr
    line, after = run.stdout.splitlines()
    count = int(line.split()[0])
    assert f"cannot read or write {path}" in line
    assert "check its permissions and the disk" in line
    assert count > 0
    assert after == f"a.md {3 + count}"
    index = SqliteIndex(path, DIMENSION)
    index.verify()
    assert index.counts()[0] == 3 + count


def test_a_view_that_cannot_be_written_stays_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = path.with_name("index.db.faiss")
    old = view.read_bytes()
    monkeypatch.setattr(liveview, "FEW", 0)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    put(index, "d.md", 5)
    index.flush()
    assert nearest(index, 5) == "d.md"
    assert view.read_bytes() == old
    assert notices == ["index.db.faiss cannot be written (No space left on device); it stays in memory only"]
    assert list(path.parent.glob("*.tmp")) == []


READ_ONLY = """
    if os.getuid() == 0:
        os.setuid(65534)
    notices = []
    index = SqliteIndex(pathlib.Path(sys.argv[1]), DIMENSION, notices.append)
    print(nearest(index, 1), *index.matching(["text"], 9), index.counts(), notices)
    index.flush()
    index.verify()
    try:
        put(index, "d.md", 3)
    except AgentkitError as error:
        print(error)
    """


@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_a_folder_that_cannot_be_written_can_be_searched(open_elsewhere: bool) -> None:
    with (
        tempfile.TemporaryDirectory() as name
    ):  # not under the folder of pytest, which only its owner may enter
        folder = Path(name, "kb")
        index = SqliteIndex(folder / "index.db", DIMENSION)
        for axis, document in enumerate(("a.md", "b.md", "c.md")):
            put(index, document, axis)
        index.flush()
        if not open_elsewhere:
            index.close()
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        Path(name).chmod(0o755)
        run = run_alone(READ_ONLY, folder / "index.db")
        folder.chmod(0o755)
        index.close()
    assert run.returncode == 0, run.stderr
    found, refused = run.stdout.splitlines()
    assert found == "b.md 1 2 3 (3, 3) []"
    assert "cannot read or write" in refused


def damage_words(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE words_data SET block = x'00' WHERE id > 10")


def lose_words(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM words WHERE rowid = 2")


def alter_words(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE words SET text = 'other' WHERE rowid = 2")


@pytest.mark.parametrize("damage", [damage_words, lose_words, alter_words])
def test_a_faulty_lexical_index_heals(path: Path, damage: Callable[[sqlite3.Connection], None]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        damage(connection)
        connection.commit()
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    index.verify()
    assert ["lexical index of index.db" in notice for notice in notices] == [True]
    assert list(index.matching(["text"], 10)) == [1, 2, 3]
    index.verify()
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM documents WHERE name = 'a.md'", "without a document"),
        ("UPDATE chunks SET vectors = x'0000' WHERE id = 1", "another length"),
        ("UPDATE chunks SET rows = 3 WHERE id = 1", "another length"),
        ("UPDATE documents SET vectors = x'000000'", "another length"),
    ],
)
def test_damage_that_cannot_be_repaired_is_named(path: Path, statement: str, reason: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(KnowledgeError, match=f"{reason}.*agentkit knowledge rebuild"):
        SqliteIndex(path, DIMENSION).verify()


def test_a_view_that_differs_from_the_database_heals(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    view = index._live.current()
    view.remove(np.array([1024], np.int64))
    view.add(np.array([1024], np.int64), np.eye(DIMENSION, dtype=np.float32)[[7]])
    write_view(path.with_name("index.db.faiss"), view.index, index._live._origin)
    index.close()
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    index.verify()
    assert notices == ["index.db.faiss differs from the database; rebuilt"]
    index.close()
    index = SqliteIndex(path, DIMENSION, notices.append)
    index.verify()
    assert nearest(index, 0) == "a.md"
    assert len(notices) == 1


def test_processes_see_each_others_changes(path: Path) -> None:
    one, two = SqliteIndex(path, DIMENSION), SqliteIndex(path, DIMENSION)
    assert nearest(two, 0) == "a.md"
    put(one, "d.md", 5)
    one.remove(["a.md"])
    assert nearest(two, 5) == "d.md"
    assert nearest(two, 0) != "a.md"
    assert list(two.matching(["text"], 10)) == [2, 3, 4]
    one.reset("other")
    assert two.counts() == (0, 0)
    assert two.nearest(np.ones(DIMENSION, np.float32), 3) == []
    assert two.matching(["text"], 10) == {}


VISIT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM meta").fetchone()
connection.close()
"""


def test_a_process_that_closes_the_file_does_not_take_the_log_along(path: Path) -> None:
    one, two = SqliteIndex(path, DIMENSION), SqliteIndex(path, DIMENSION)
    put(one, "d.md", 5)
    subprocess.run([sys.executable, "-c", VISIT, str(path)], check=True)
    assert path.with_name("index.db-wal").exists()
    put(one, "e.md", 6)
    put(two, "f.md", 7)
    one.close()
    two.close()
    index = SqliteIndex(path, DIMENSION)
    assert [document.name for document in index.documents()] == [f"{letter}.md" for letter in "abcdef"]
    index.close()


def test_files_are_the_owners(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    put(index, "d.md", 5)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == dict.fromkeys(
        ("index.db", "index.db-wal", "index.db-shm", "index.db.faiss"), "0o600"
    )


def filtered(tmp_path: Path) -> SqliteIndex:
    """Six documents: three folders, two formats, languages, origins and authors."""
    index = SqliteIndex(tmp_path / "filtered.db", DIMENSION)
    names = ["a.md", "shop/b.md", "shop/in/c.TXT", "shop2/d.md", "shop/e.txt", "f.md"]
    for n, name in enumerate(names):
        vector = np.eye(DIMENSION, dtype=np.float32)[[n]]
        language = "de" if n % 2 else "en"
        index.put(
            [
                NewDocument(
                    name, "Title", "text", "0" * 64, "added" if n > 3 else "folder", ["kw"],
                    [Chunk("Title", "text", 0, 4, None, language)], [vector], vector, language,
                    {"author": f"author {n % 3}"} if n < 5 else {},
                )
            ]
        )  # fmt: skip
    return index


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"document": "a.md"}, [1]),
        ({"document": ["f.md", "a.md", "no.md"]}, [1, 6]),
        ({"folder": "shop"}, [2, 3, 5]),
        ({"folder": "shop/"}, [2, 3, 5]),
        ({"folder": ["shop/in", "shop2"]}, [3, 4]),
        ({"folder": "sho"}, []),
        ({"folder": ""}, [1, 2, 3, 4, 5, 6]),
        ({"format": "txt"}, [3, 5]),
        ({"format": ".MD"}, [1, 2, 4, 6]),
        ({"language": "de"}, [2, 4, 6]),
        ({"origin": "added"}, [5, 6]),
        ({"author": "author 1"}, [2, 5]),
        ({"author": ["author 1", "author 0"]}, [1, 2, 4, 5]),
        ({"author": "author 1", "language": "en"}, [5]),
        ({"author": []}, []),
        ({"document": "' OR 1=1 --"}, []),
        ({"folder": []}, []),
        ({}, [1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("few", [1_000, 0])
def test_where(
    tmp_path: Path, where: Where, expected: list[int], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.retrieval.index._FEW_CHUNKS", few)
    index = filtered(tmp_path)
    query = np.linspace(1, 0.1, DIMENSION, dtype=np.float32)
    assert index.nearest(query, 10, where) == expected
    assert sorted(index.matching(["text"], 10, where)) == expected
    index.remove(["a.md"])
    assert index.nearest(query, 10, where) == [id_ for id_ in expected if id_ != 1]


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    index = filtered(tmp_path)
    with pytest.raises(UsageError, match=r"'colour'.*document, language, origin, folder, format, author"):
        index.nearest(np.ones(DIMENSION, np.float32), 3, {"colour": "red"})
    with pytest.raises(UsageError, match="colour"):
        index.matching(["text"], 3, {"colour": []})


def test_what_is_asked_wrongly_is_no_damage(path: Path) -> None:
    for ask in (
        lambda connection: connection.execute(f"SELECT {', '.join('?' * 40_000)}", [1] * 40_000),
        lambda connection: connection.execute("SELECT ?", ()),
    ):
        with closing(sqlite3.connect(path)) as connection:
            with pytest.raises(KnowledgeError) as caught, guarded(path):
                ask(connection)
            assert not isinstance(caught.value, IndexDamaged)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(IndexDamaged), guarded(path):
        connection.execute("SELECT * FROM missing")


def test_a_reader_without_rights_follows_a_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite took a file without a log for one that nobody changes."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        reader = SqliteIndex(path, DIMENSION)
    assert reader.counts() == (3, 3)
    writer = SqliteIndex(path, DIMENSION)
    monkeypatch.setattr(os, "access", lambda *_: False)  # it opens the file again
    for n in range(200):
        put(writer, f"new{n}.md", n % DIMENSION)
    assert reader.counts() == (203, 203)
    writer.close()
    assert nearest(reader, 1)
    assert reader.counts() == (203, 203)
    reader.close()


def test_a_file_that_another_process_has_put_in_the_place_is_used(path: Path) -> None:
    first, notices = SqliteIndex(path, DIMENSION), list[str]()
    assert first.counts() == (3, 3)
    SqlitePlace(path).discard(DIMENSION)
    assert first.counts() == (3, 3)  # there is no other
    second = SqliteIndex(path, DIMENSION, notices.append)
    put(second, "new.md", 1)
    assert [document.name for document in first.documents()] == ["new.md"]
    assert nearest(first, 1) == "new.md"
    put(first, "more.md", 2)
    assert second.counts() == (2, 2)
    second.close()
    damaged = sqlite3.connect(path)
    damaged.execute("PRAGMA user_version = 7")
    damaged.close()
    shutil.copy(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)
    with pytest.raises(IndexOutdated):
        first.counts()
    damaged = sqlite3.connect(path)
    damaged.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    damaged.close()
    assert first.counts() == (2, 2)  # an attempt that failed has cost nothing
    first.close()


def test_the_text_of_what_is_removed_is_overwritten(path: Path) -> None:
    index = SqliteIndex(path, DIMENSION)
    vector = np.eye(DIMENSION, dtype=np.float32)[[0]]
    secret = [Chunk("Title", "zebraword secret", 0, 5)]
    index.put([a_document("s.md", secret, [np.repeat(vector, 2, axis=0)], vector)])
    index.remove(["s.md"])
    index.close()
    assert b"zebraword secret" not in path.read_bytes()
