"""What every backend of `Index` promises: the same tests on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import math
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest
from contract import AXES, DIMENSION, document

from agentkit.errors import KnowledgeError, UsageError
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.protocol import Index
from agentkit.retrieval.records import NewDocument

BACKENDS = ("sqlite", "postgres")


class Place:
    """Where the index of a test is; every index opened here is closed when the test ends."""

    def __init__(self, at: str | Path, schema: str) -> None:
        self.at, self.schema = at, schema
        self.opened: list[Index] = []

    def open(self, dimension: int = DIMENSION) -> Index:
        self.opened.append(contract.open_at(self.at, self.schema, dimension))
        return self.opened[-1]


@pytest.fixture
def place(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    if backend == "sqlite":
        place = Place(tmp_path / "index.db", "")
    else:
        server, new_schema = request.getfixturevalue("postgres"), request.getfixturevalue("new_schema")
        place = Place(server.get_uri(), new_schema())
    yield place
    for index in place.opened:
        index.close()


@pytest.fixture
def index(place: Place) -> Index:
    return place.open()


on_all = pytest.mark.parametrize("backend", BACKENDS)


def texts(index: Index, ids: Sequence[int]) -> list[str]:
    chunks = index.fetch(ids)
    return [chunks[id_].text for id_ in ids]


def names(index: Index) -> list[str]:
    return [document.name for document in index.documents()]


@on_all
def test_an_empty_index(index: Index) -> None:
    assert index.embedder() == ""
    assert index.counts() == (0, 0)
    assert index.documents() == []
    assert index.nearest(AXES[0], 5) == []
    assert index.matching(["word"], 5) == {}
    assert index.frequency("word") == 0
    assert index.fetch([]) == {}
    assert index.fetch([1, 2]) == {}
    assert index.text("a.md", 0, 5) == ""
    index.put([])
    index.remove([])
    index.remove(["a.md"])
    index.flush()
    index.verify()


@on_all
def test_documents_come_back(place: Place) -> None:
    index = place.open()
    index.reset("an embedder")
    index.put(
        [
            document(
                "ü/日本語 🙂.md",
                ["eins", "zwei"],
                sha256="1" * 64,
                language="de",
                metadata={"für": "alle 'x'"},
            ),
            document("b.md", origin="added"),
            document("Z.md"),
        ]
    )
    index.flush()
    index.close()
    again = place.open()
    assert again.embedder() == "an embedder"
    assert again.counts() == (3, 4)
    assert names(again) == ["Z.md", "b.md", "ü/日本語 🙂.md"]
    assert [d.origin for d in again.documents()] == ["folder", "added", "folder"]
    last = again.documents()[-1]
    assert (last.title, last.sha256, last.chunks, last.language) == (
        "Title of ü/日本語 🙂.md",
        "1" * 64,
        2,
        "de",
    )
    assert dict(last.metadata) == {"für": "alle 'x'"}
    again.verify()


@on_all
def test_chunks_come_back(index: Index) -> None:
    # Numbers that half precision holds, too: a backend may store those.
    halves = [np.random.default_rng(n).normal(size=(3 + n, DIMENSION)).astype(np.float16) for n in range(2)]
    vectors = [half.astype(np.float32) for half in halves]
    index.put(
        [
            document(
                "a.md", ["one", "two"], vectors=vectors, keywords=["first", "second"], languages=["en", ""]
            )
        ]
    )
    ids = [*index.matching(["one"], 5), *index.matching(["two"], 5)]
    one, two = (index.fetch(ids)[id_] for id_ in ids)
    assert (one.document, one.heading, one.text, one.page, one.start, one.end) == (
        "a.md",
        "Title",
        "one",
        None,
        3,
        5,
    )
    assert (two.text, two.page, two.position, two.language, two.keywords) == (
        "two",
        2,
        1,
        "",
        "first\nsecond",
    )
    assert (one.position, one.language) == (0, "en")
    for chunk, own in zip((one, two), vectors, strict=True):
        assert chunk.vectors.dtype == np.float32
        assert np.array_equal(chunk.vectors, own)
        assert np.array_equal(chunk.phrase_vectors, AXES[[0, 0, 0]])
    assert [*index.fetch([ids[1], 10**12, ids[1]])] == [ids[1]]


@on_all
def test_put_replaces(index: Index) -> None:
    index.put([document("a.md", ["old words", "old too"]), document("b.md", ["other"], axis=4)])
    before = index.nearest(AXES[0], 8)
    index.put([document("a.md", ["new words"], axis=2)])
    after = index.nearest(AXES[2], 8)
    assert index.counts() == (2, 2)
    assert index.matching(["old"], 5) == {}
    assert texts(index, after) == ["new words", "other"]
    assert len(index.fetch(before)) == 1  # no id is ever used twice
    index.verify()


@on_all
def test_the_last_of_one_name_stays(index: Index) -> None:
    index.put([document("a.md", ["first"]), document("a.md", ["last"])])
    assert index.counts() == (1, 1)
    assert texts(index, [*index.matching(["last", "first"], 5)]) == ["last"]
    index.verify()


@on_all
def test_remove(index: Index) -> None:
    index.put([document(f"{name}.md", [f"word{name}"], axis=n) for n, name in enumerate("abc")])
    index.remove(["a.md", "nothing.md", "c.md"])
    assert names(index) == ["b.md"]
    assert texts(index, index.nearest(AXES[0], 5)) == ["wordb"]
    assert index.frequency("worda") == 0
    index.verify()


@on_all
def test_reset(index: Index) -> None:
    index.put([document("a.md", ["word"])])
    index.reset("another embedder")
    assert (index.counts(), index.embedder()) == ((0, 0), "another embedder")
    assert index.nearest(AXES[0], 5) == []
    assert index.matching(["word"], 5) == {}
    index.verify()


@on_all
def test_reset_to_another_dimension(place: Place) -> None:
    index = place.open()
    index.put([document("a.md")])
    index.flush()
    index.close()
    other = place.open(3)
    other.reset("smaller")
    vectors = [np.eye(3, dtype=np.float32)[[n]] for n in range(2)]
    chunks = [Chunk("T", f"number {n}", 0, 1) for n in range(2)]
    other.put([NewDocument("b.md", "T", "", "", "folder", [], chunks, vectors, vectors[0])])
    assert texts(other, other.nearest(np.array([0.1, 0.9, 0], np.float32), 2)) == ["number 1", "number 0"]
    other.verify()


@on_all
def test_nearest_is_in_order_of_the_best_vector(index: Index) -> None:
    def along(*cosines: float) -> np.ndarray:
        return np.array([[c, math.sqrt(1 - c * c), *[0] * (DIMENSION - 2)] for c in cosines], np.float32)

    rows = {
        "third": along(0.1, 0.5),
        "first": along(0.2, 0.9, 0.3),
        "fourth": along(-0.5),
        "second": along(0.7, 0.6),
    }
    index.put([document("a.md", [*rows], vectors=[*rows.values()])])
    assert texts(index, index.nearest(AXES[0], 10)) == ["first", "second", "third", "fourth"]
    assert texts(index, index.nearest(AXES[0], 2)) == ["first", "second"]


@on_all
def test_a_chunk_of_many_lines_leaves_room_for_others(index: Index) -> None:
    """Each line has a vector of its own, and the nearest are all of one chunk."""
    tilted = np.array([0.6, 0.8, *[0] * (DIMENSION - 2)], np.float32)
    vectors = [np.stack([AXES[0]] * 200), *([tilted[None]] * 3)]
    index.put([document("a.md", ["long", "one", "two", "three"], vectors=vectors)])
    assert set(texts(index, index.nearest(AXES[0], 4))) == {"long", "one", "two", "three"}


def bm25(counts: Sequence[Sequence[float]], lengths: Sequence[int]) -> list[float]:
    """Of every chunk, over words: ``counts[word][chunk]``, headings doubled; as SQLite's FTS5 defines it."""
    mean, scores = sum(lengths) / len(lengths), [0.0] * len(lengths)
    for row in counts:
        hits = sum(count > 0 for count in row)
        rarity = max(math.log((len(lengths) - hits + 0.5) / (hits + 0.5)), 1e-6)
        for n, (count, length) in enumerate(zip(row, lengths, strict=True)):
            scores[n] += rarity * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))
    return scores


@on_all
def test_matching_is_bm25(index: Index) -> None:
    bodies = [
        "the parcel and the post",
        "parcels, parcels: returning a parcel",
        "no such thing here",
        "a lamp",
        "x y z",
    ]
    index.put(
        [document("a.md", bodies, headings=["Post", "Title", "Title", "Parcel", "Title"], keywords=["lamps"])]
    )
    lengths = [5 + 2, 5 + 2, 4 + 2, 2 + 2, 3 + 2]
    expected = bm25([[1, 3, 0, 2, 0], [3, 0, 0, 0, 0], [0, 1, 0, 0, 0]], lengths)
    found = index.matching(["parcel", "posts", "returned", "unheard"], 10)
    order = sorted((n for n, score in enumerate(expected) if score), key=lambda n: -expected[n])
    assert texts(index, [*found]) == [bodies[n] for n in order]
    assert list(found.values()) == pytest.approx([expected[n] for n in order], rel=1e-6)
    assert [*index.matching(["parcel", "posts", "returned"], 1)] == [*found][:1]


@on_all
def test_a_chunks_own_keywords_are_its_own(index: Index) -> None:
    own = [("send back", "Oslo desk"), ()]
    index.put([document("a.md", ["one", "two"], keywords=["café"], own_keywords=own)])
    assert texts(index, [*index.matching(["oslo"], 5)]) == ["one"]
    assert texts(index, [*index.matching(["sending"], 5)]) == ["one"]
    assert [index.frequency(word) for word in ("desk", "back", "café")] == [1, 1, 2]
    found = index.fetch([*index.matching(["café"], 5)]).values()
    assert {chunk.text: chunk.keywords for chunk in found} == {
        "one": "send back\nOslo desk\ncafé",
        "two": "café",
    }
    assert "oslo" not in index.vocabulary()
    index.verify()
    index.put([document("a.md", ["one", "two"])])
    assert index.matching(["oslo", "café"], 5) == {}


@on_all
def test_words_are_only_words(index: Index) -> None:
    index.put([document("a.md", ["alpha and beta", "gamma near delta"])])
    for word in (
        '"',
        "'",
        "alpha AND gamma",
        "al*",
        "NEAR(",
        "-alpha",
        "%s",
        "'; DROP TABLE x; --",
        "!",
        "\\",
        "{s}",
    ):
        index.matching([word], 5)
        index.frequency(word)
    assert texts(index, [*index.matching(["beta", "!", "*", "nothing"], 5)]) == ["alpha and beta"]
    assert index.matching([], 5) == {}
    assert index.frequency("and") == 1
    assert index.frequency("al*") == 0


@on_all
def test_frequency(index: Index) -> None:
    index.put([document("a.md", ["Returns are free", "I returned it", "don't", "t don"], keywords=["Café"])])
    assert [index.frequency(word) for word in ("return", "FREE", "cafe", "CAFÉ", "don't", "it", "never")] == [
        2, 1, 4, 4, 1, 1, 0,
    ]  # fmt: skip


@on_all
def test_text(index: Index) -> None:
    index.put([document("a.md", whole="aé🙂日z")])
    assert [index.text("a.md", *span) for span in ((0, 2), (2, 4), (4, 99), (5, 9), (3, 3))] == [
        "aé", "🙂日", "z", "", "",
    ]  # fmt: skip
    assert index.text("b.md", 0, 5) == ""


@on_all
def test_odd_words_are_kept_and_found(index: Index) -> None:
    long = "x" * 10_000
    odd = [
        "日本語 テスト",
        "пример текста",
        f"before {long} after",
        "🙂 emoji",
        "naïve façade",
        "1e5 4.95 2026-01-02",
    ]
    index.put([document("a.md", odd)])
    for number, word in enumerate(("日本語", "ПРИМЕР", long, "emoji", "facade", "95")):
        assert texts(index, [*index.matching([word], 5)]) == [odd[number]], word[:20]
        assert index.frequency(word) == 1
    index.verify()


@on_all
def test_a_long_name_is_a_name(index: Index) -> None:
    name = "/".join(f"{n}" * 90 for n in range(100, 115)) + ".md"
    index.put([document(name, metadata={"key": "value " * 2_000}), document(name[:-3])])
    index.put([document(name)])
    assert names(index) == [name[:-3], name]
    index.remove([name])
    assert names(index) == [name[:-3]]


BAD_VECTORS = [
    np.ones((2, DIMENSION + 1), np.float32),
    np.ones((0, DIMENSION), np.float32),
    np.ones(DIMENSION),
]


@on_all
@pytest.mark.parametrize("bad", BAD_VECTORS, ids=["longer", "none", "flat"])
def test_other_vectors_are_refused(index: Index, bad: np.ndarray) -> None:
    index.put([document("a.md", ["old"])])
    with pytest.raises(ValueError, match="dimension"):
        index.put([document("b.md"), document("a.md", ["new"], vectors=[bad])])
    assert names(index) == ["a.md"]
    assert index.frequency("old") == 1


@on_all
def test_a_failed_put_leaves_the_old_state(index: Index) -> None:
    index.put([document("a.md", ["old words"]), document("b.md", ["others"], axis=1)])
    with pytest.raises(KnowledgeError):  # what the schema refuses, after the first document has been written
        index.put([document("a.md", ["new words"]), document("c.md", origin="nowhere")])
    with pytest.raises(ValueError, match="zip"):
        index.put([document("a.md", ["new words"]), document("c.md", ["1", "2"], vectors=[AXES[[0]]])])
    assert index.counts() == (2, 2)
    assert names(index) == ["a.md", "b.md"]
    assert texts(index, index.nearest(AXES[0], 1)) == ["old words"]
    assert index.frequency("new") == 0
    index.verify()
    index.put([document("a.md", ["new words"])])
    assert index.frequency("new") == 1


@on_all
def test_five_thousand_chunks(index: Index) -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(5_000, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for first in range(0, 5_000, 500):
        index.put(
            [
                document(f"{n}.md", [f"chunk {m} word{m % 50}" for m in range(n, n + 50)],
                         vectors=[rows[[m]] for m in range(n, n + 50)])
                for n in range(first, first + 500, 50)
            ]
        )  # fmt: skip
    index.flush()
    assert index.counts() == (100, 5_000)
    assert index.frequency("word7") == 100
    assert len(index.matching(["word7", "chunk"], 24)) == 24
    found = total = 0
    for query in rng.normal(size=(30, DIMENSION)).astype(np.float32):
        best = {f"chunk {m} word{m % 50}" for m in np.argsort(-(rows @ query))[:10]}
        found += len(best & set(texts(index, index.nearest(query, 10))))
        total += 10
    assert found / total >= 0.95
    index.verify()


# Several at once


@on_all
def test_readers_see_the_state_before_or_after(place: Place) -> None:
    writer = place.open()
    done, looked = threading.Event(), threading.Event()
    mixed: list[object] = []

    def put(version: int) -> None:
        sha256 = f"{version:064}"
        writer.put([document(f"{name}.md", [f"version{version}"] * 3, sha256=sha256) for name in "abc"])

    def read() -> None:
        try:
            index = place.open()
            while not done.is_set():
                states = {d.sha256 for d in index.documents()}
                if len(states) != 1 or index.counts() != (3, 9):
                    mixed.append(states)
                ids = index.nearest(AXES[1], 3)
                index.fetch(ids)  # they may be gone by now
                looked.set()
        except Exception as error:
            mixed.append(error)

    put(0)
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 15):
        if version in (1, 8):
            looked.clear()
            assert looked.wait(60), mixed
        put(version)
    done.set()
    for thread in threads:
        thread.join()
    assert mixed == []
    writer.verify()


@on_all
def test_threads_share_one_index(index: Index) -> None:
    failed: list[Exception] = []

    def work(own: int) -> None:
        try:
            for n in range(5):
                index.put([document(f"{own}-{n}.md", [f"own{own} number{n}"], axis=own)])
                assert index.frequency(f"own{own}") == n + 1
                assert f"own{own} number{n}" in texts(index, [*index.matching([f"own{own}"], 9)])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert index.counts() == (20, 20)
    index.verify()


@on_all
def test_two_processes_write(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    place.open()
    workers = [
        context.Process(target=contract.write_documents, args=(place.at, place.schema, prefix, 12))
        for prefix in ("p", "q")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    index = place.open()
    assert index.counts() == (24, 48)
    index.verify()


# Narrowed searches


@pytest.fixture
def shelf(index: Index) -> Index:
    index.put(
        [
            document(
                "faq/returns.md",
                ["word one"],
                axis=0,
                language="en",
                metadata={"team": "post", "year": "2026"},
            ),
            document("faq/deep/lamps.TXT", ["word two"], axis=1, language="en", languages=["de"]),
            document("faq_old/lamps.html", ["word three"], axis=2, metadata={"team": "light"}),
            document(
                "notes", ["word four"], axis=3, language="fr", origin="added", metadata={"team": "o'hara%"}
            ),
            document("archive.tar/notes", ["other five"], axis=4, metadata={"origin": "Spain"}),
        ]
    )
    return index


@on_all
@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ({"document": "notes"}, "four"),
        ({"document": ["notes", "faq/returns.md", "nothing"]}, "one four"),
        ({"folder": "faq"}, "one two"),
        ({"folder": "faq/"}, "one two"),
        ({"folder": "faq/deep"}, "two"),
        ({"folder": ["faq/deep", "faq_old"]}, "two three"),
        ({"folder": "f"}, ""),
        ({"folder": ""}, "one two three four five"),
        ({"folder": "."}, "one two three four five"),
        ({"folder": "./faq/"}, "one two"),
        ({"format": "md"}, "one"),
        ({"format": ["txt", "HTML"]}, "two three"),
        ({"format": "tar/notes"}, ""),
        ({"language": "en"}, "one"),
        ({"language": ["de", "fr"]}, "two four"),
        ({"origin": "added"}, "four"),
        ({"team": "post"}, "one"),
        ({"team": ["light", "o'hara%"]}, "three four"),
        ({"team": "%"}, ""),
        ({"team": "' OR 1=1 --"}, ""),
        ({"team": "post", "year": "2026"}, "one"),
        ({"team": "post", "year": "2025"}, ""),
        ({"team": "post", "folder": "faq_old"}, ""),
        ({"document": []}, ""),
        ({}, "one two three four five"),
    ],
)
def test_where(shelf: Index, where: dict[str, str | list[str]], numbers: str) -> None:
    found = texts(shelf, shelf.nearest(AXES.sum(0) / math.sqrt(DIMENSION), 10, where))
    assert sorted(text.split()[1] for text in found) == sorted(numbers.split())
    matched = texts(shelf, [*shelf.matching(["word", "other"], 10, where)])
    assert sorted(matched) == sorted(found)


@on_all
def test_where_changes_no_score(shelf: Index) -> None:
    everywhere = shelf.matching(["word", "two"], 10)
    narrowed = shelf.matching(["word", "two"], 10, {"folder": "faq"})
    assert narrowed == {id_: everywhere[id_] for id_ in narrowed}
    assert len(narrowed) == 2


@on_all
@pytest.mark.parametrize("key", ["tean", "name", "team = team OR 1", "", "%(words)s", "{s}"])
def test_an_unknown_key_is_refused(shelf: Index, key: str) -> None:
    for search in (
        lambda: shelf.nearest(AXES[0], 5, {key: "x"}),
        lambda: shelf.matching(["word"], 5, {key: "x"}),
    ):
        with pytest.raises(UsageError) as caught:
            search()
        known = ("document", "folder", "format", "language", "origin", "team", "year")
        assert [name for name in known if name not in caught.value.remedy] == []


@on_all
def test_a_narrow_search_among_many_finds_all(index: Index) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(6_000, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chunks = [[f"chunk {n}" for n in range(first, first + 100)] for first in range(0, 6_000, 100)]
    index.put(
        [
            document(
                f"{n}.md",
                own,
                vectors=[rows[[n * 100 + m]] for m in range(100)],
                metadata={"half": str(n % 2)},
            )
            for n, own in enumerate(chunks)
        ]
    )
    index.flush()
    query = rows[1_234]
    assert len(index.nearest(query, 200, {"document": "29.md"})) == 100
    own = [n for n in range(6_000) if (n // 100) % 2 == 1]
    best = sorted(own, key=lambda n: -float(rows[n] @ query))[:20]
    found = texts(index, index.nearest(query, 20, {"half": "1"}))
    assert len({f"chunk {n}" for n in best} & set(found)) >= 19


@on_all
def test_vocabulary(index: Index) -> None:
    assert index.vocabulary() == {}
    index.put([document("a.md", ["Größe and sizes", "sizes"]), document("b.md", ["sizes of Lamps"])])
    found = index.vocabulary()
    assert found["sizes"] == 3
    assert found["größe"] == found["lamps"] == 1
    index.remove(["b.md"])
    assert "lamps" not in index.vocabulary()
    assert index.vocabulary()["sizes"] == 2


@on_all
def test_any_number_of_ids_and_values(index: Index) -> None:
    index.put([document("a/b.md", ["word"], metadata={"year": "2020"}), document("c.md", ["word"], axis=1)])
    ids = index.nearest(AXES[0], 1)
    assert [*index.fetch([*ids, *range(10**9, 10**9 + 40_000)])] == ids
    many = [f"x{n}" for n in range(40_000)]
    for key, value in (("document", "a/b.md"), ("year", "2020")):
        assert index.nearest(AXES[0], 5, {key: [*many, value]}) == ids
    assert index.nearest(AXES[0], 5, {"folder": [*many[:2_000], "a"]}) == ids
    assert index.nearest(AXES[0], 5, {"folder": many[:2_000]}) == []


@on_all
@pytest.mark.parametrize(
    "where", [{"year": 2020}, {"year": ["2020", 2021]}, {"year": None}, {3: "x"}, {"year": "\ud83d"}, "year"]
)
def test_a_filter_that_is_no_text_is_refused(index: Index, where: Any) -> None:
    index.put([document("a.md", ["word"], metadata={"year": "2020"})])
    assert index.nearest(AXES[0], 5, {"year": {"2020"}})  # type: ignore[dict-item]
    for search in (lambda: index.nearest(AXES[0], 5, where), lambda: index.matching(["word"], 5, where)):
        with pytest.raises(UsageError):
            search()
