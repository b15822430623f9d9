"""Views of vectors: exact and in lists, changed in place, and their file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agentkit.retrieval import liveview, vectors
from agentkit.retrieval.blobs import from_blob, to_blob
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.records import NewDocument, Vectors
from agentkit.retrieval.vectors import VectorView, row_ids, selector_of
from agentkit.retrieval.viewfile import Origin, StaleView, read_origin, read_view, write_view

DIMENSION = 32


def crowd(count: int, seed: int, topics: int = 60) -> Vectors:
    """Unit vectors around some topics, as those of text are."""
    centers = np.random.default_rng(99).standard_normal((topics, DIMENSION))
    numbers = np.random.default_rng(seed)
    made = centers[numbers.integers(0, topics, count)] + 0.7 * numbers.standard_normal((count, DIMENSION))
    unit: Vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def recall(view: VectorView, ids: np.ndarray, held: Vectors, queries: Vectors) -> float:
    """Share of the ten nearest that are found."""
    hits = 0
    for query in queries:
        nearest = set(ids[np.argsort(-(held @ query))[:10]].tolist())
        hits += len(nearest & {id_ for id_, _ in view.search(query, 10)})
    return hits / (10 * len(queries))


def listed(held: Vectors, ids: np.ndarray) -> VectorView:
    view = VectorView.approximate(held[::2], len(held))
    view.fill([(part, held[part]) for part in np.array_split(ids, 3)], held[:: len(held) // 100])
    return view


def test_one_list_is_exact() -> None:
    held, ids = crowd(3000, 1), np.arange(3000)
    view = VectorView.exact(DIMENSION)
    view.fill([(ids, held)], held[:0])
    assert view.size == 3000
    assert recall(view, ids, held.astype(np.float16).astype(np.float32), crowd(50, 2)) == 1.0
    [(first, cosine)] = view.search(held[7], 1)
    assert first == 7
    assert cosine == pytest.approx(1.0, abs=1e-3)
    assert VectorView.exact(DIMENSION).search(held[0], 5) == []


def test_many_lists_find_nearly_all_and_look_into_few() -> None:
    held, ids = crowd(20_000, 1), np.arange(20_000)
    view = listed(held, ids)
    assert recall(view, ids, held, crowd(100, 2)) >= 0.93  # 8 bits swap some of these
    assert view.index.nprobe < view.index.nlist / 3


@pytest.mark.parametrize("lists", [False, True])
def test_changes_in_place(lists: bool) -> None:
    held, ids = crowd(8000, 1), np.arange(8000)
    view = listed(held, ids) if lists else VectorView.exact(DIMENSION)
    if not lists:
        view.add(ids, held)
    gone = ids[::3].copy()
    view.remove(np.concatenate([gone, [999_999]]))
    added = crowd(2000, 3)
    view.add(np.arange(8000, 10_000), added)
    kept = np.setdiff1d(ids, gone)
    assert view.size == len(kept) + 2000
    now, vectors_now = np.concatenate([kept, np.arange(8000, 10_000)]), np.concatenate([held[kept], added])
    assert recall(view, now, vectors_now, crowd(50, 2)) >= 0.94
    assert view.get(0) is None
    np.testing.assert_allclose(view.get(8001), added[1], atol=0.01)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_a_selector_narrows(share: float) -> None:
    held, ids = crowd(20_000, 1), np.arange(20_000)
    view = listed(held, ids)
    inside = np.sort(np.random.default_rng(5).permutation(ids)[: int(share * len(ids))])
    hits = total = 0
    for query in crowd(50, 2):
        found = [id_ for id_, _ in view.search(query, 10, selector_of(inside), share)]
        assert np.isin(found, inside).all()
        hits += len({*found} & {*inside[np.argsort(-(held[inside] @ query))[:10]].tolist()})
        total += 10
    assert hits / total >= 0.95


def test_rows_of_chunks() -> None:
    ids = row_ids(np.array([3, 7]), np.array([2, 3]))
    assert ids.tolist() == [3 * 1024, 3 * 1024 + 1, 7 * 1024, 7 * 1024 + 1, 7 * 1024 + 2]
    assert row_ids(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_float16_moves_no_neighbour_that_float32_tells_apart() -> None:
    held = crowd(2000, 1)
    stored = from_blob(to_blob(held), DIMENSION)
    cosines, moved = held @ held[:50].T, stored @ held[:50].T
    assert np.abs(cosines - moved).max() < 3e-4
    nearest, second = np.sort(cosines, axis=0)[-2], np.sort(cosines, axis=0)[-3]
    clear = nearest - second > 6e-4
    assert (np.argsort(cosines, axis=0)[-2] == np.argsort(moved, axis=0)[-2])[clear].all()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.faiss"
    write_view(path, listed(crowd(2000, 1), np.arange(2000)).index, Origin("d" * 32, 7, 2000, 2000))
    return path


def test_a_file_comes_back_whole(file: Path) -> None:
    index, origin = read_view(file)
    assert origin == read_origin(file) == Origin("d" * 32, 7, 2000, 2000)
    view = VectorView(index, origin.trained)
    assert view.search(crowd(1, 2)[0], 20) == listed(crowd(2000, 1), np.arange(2000)).search(
        crowd(1, 2)[0], 20
    )
    view.remove(np.array([5]))
    assert view.size == 1999


def test_faiss_reads_no_byte_of_a_damaged_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS was given a damaged file"))
    good = file.read_bytes()
    numbers = np.random.default_rng(0)
    for at in [0, 20, 60, 150, 192, len(good) - 1, *numbers.integers(0, len(good), 40)]:
        bad = bytearray(good)
        bad[at] ^= 1 << int(numbers.integers(0, 8))
        file.write_bytes(bad)
        if bad[192:] == good[192:] and bad[:192].split() == good[:192].split():
            continue  # a space that became another white space
        with pytest.raises(StaleView):
            read_view(file)
    for size in (0, 10, 192, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:size])
        with pytest.raises(StaleView, match="is damaged"):
            read_view(file)


def test_what_a_killed_writer_left_is_removed(file: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, running = file.with_name(f"x.faiss.{ended.pid}.tmp"), file.with_name(f"x.faiss.{os.getppid()}.tmp")
    left.touch()
    running.touch()
    write_view(file, VectorView.exact(DIMENSION).index, Origin("d" * 32, 8, 0, 0))
    assert {*file.parent.iterdir()} == {file, running}


def fill(index: SqliteIndex, first: int, count: int) -> None:
    """Documents of four chunks of five vectors."""
    made = crowd(20 * count, first).reshape(count, 4, 5, DIMENSION)
    chunk = Chunk("Title", "text", 0, 4)
    index.put(
        [
            NewDocument(
                f"{first + n}.md", "T", "text", "0" * 64, "added", [], [chunk] * 4, [*own], own[0, :1]
            )
            for n, own in enumerate(made)
        ]
    )


def test_an_index_grows_into_lists_and_out_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "LISTS_FROM", 1_000)
    monkeypatch.setattr(liveview, "LISTS_FROM", 1_000)
    path, notices = tmp_path / "index.db", list[str]()
    index, reader = (SqliteIndex(path, DIMENSION, notices.append) for _ in range(2))
    sizes = []
    for first, count in ((0, 40), (40, 40), (80, 4), (84, 100)):
        fill(index, first, count)
        index.flush()
        origin = read_origin(path.with_name("index.db.faiss"))
        sizes.append((origin.size, origin.trained))
        probe = crowd(20 * count, first)[-1]
        assert reader.nearest(probe, 1) == index.nearest(probe, 1) == [index.counts()[1]]
    # 80 vectors are 5 % of 1,600: the file stays. 3,680 are more than twice 1,600: trained anew.
    assert sizes == [(800, 0), (1600, 1600), (1600, 1600), (3680, 3680)]
    index.remove([f"{n}.md" for n in range(20, 184)])
    index.flush()
    assert read_origin(path.with_name("index.db.faiss")) == Origin(
        read_origin(path.with_name("index.db.faiss")).database, 736 + 656, 0, 400
    )
    index.verify()
    reader.verify()
    assert notices == []


@pytest.mark.parametrize(("lists", "trained"), [(None, 2_000), (1_500, 0)])
def test_few_chunks_of_many_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: int | None, trained: int
) -> None:
    for module in (vectors, liveview):
        monkeypatch.setattr(module, "LISTS_FROM", 1_000)
    if lists:  # more than there are vectors left to train them on
        monkeypatch.setattr(liveview, "lists_for", lambda size: lists)
    index = SqliteIndex(tmp_path / "index.db", DIMENSION)
    made = crowd(2_000, 1).reshape(4, 500, DIMENSION)
    chunk = Chunk("Title", "text", 0, 4)
    index.put([NewDocument("a.md", "T", "text", "0" * 64, "added", [], [chunk] * 4, [*made], made[0, :1])])
    index.flush()
    assert [index.nearest(own[7], 1) for own in made] == [[1], [2], [3], [4]]
    assert read_origin(tmp_path / "index.db.faiss").trained == trained
    index.verify()


def test_adding_does_not_write_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = SqliteIndex(path, DIMENSION)
    fill(index, 0, 300)
    index.flush()
    view = path.with_name("index.db.faiss")
    written = view.stat().st_mtime_ns
    fill(index, 300, 2)
    index.flush()
    assert view.stat().st_mtime_ns == written
    index.close()
    again = SqliteIndex(path, DIMENSION)
    assert again.nearest(crowd(40, 300)[-1], 1) == [1208]
    fill(again, 302, 20)
    again.flush()
    assert view.stat().st_mtime_ns > written
