"""The index of the knowledge base: 100,000 chunks of real text, a million vectors, and 500 kills.

    python benchmarks/index.py            # about ten minutes; writes docs/benchmarks/index.json

Text is the docstrings of the installed packages (corpus.py), questions are first sentences of docstrings; the first
vectors are MiniLM's of that text, the others are constructed from them (constructed.py). Each measurement runs in a
process of its own that opens what is on disk; embedding is not part of any time. The million is also searched flat, by
FAISS's IndexFlatIP, on the same queries in the same run, which tells what the nearest are.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import psutil
from constructed import Constructor
from machine import ROOT, write

from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.records import NewDocument
from agentkit.retrieval.search import CANDIDATES
from agentkit.retrieval.words import content_words

CHUNKS, ROWS = 100_000, 6
"""A chunk has a vector of its own and of five sentences."""
VECTORS = 1_000_000
REAL = 11_000
QUERIES = 1_000
CHANGES = 200
KILLS = 500
FOLDER = corpus.BUILD / "index-benchmark"
DIMENSION = 384


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    p50, p95, p99 = np.percentile(1000 * np.array(seconds), (50, 95, 99))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)}


def timed(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def questions() -> tuple[list[str], Any]:
    """Questions and their vectors."""
    texts = _sentences()[:QUERIES]
    return texts, corpus.embedded(texts)


def real_vectors() -> Any:
    """Of other sentences of the same kind: five of six vectors of a chunk are of sentences."""
    return corpus.embedded(_sentences()[QUERIES : QUERIES + REAL])


def _sentences() -> list[str]:
    return [item.question for item in corpus.items() if item.question]


def constructed(count: int) -> tuple[Constructor, Iterator[Any], dict[str, float]]:
    made = Constructor(real_vectors())
    reached = made.calibrate(count)
    return (
        made,
        made.batches(count),
        {
            "real": len(made.real),
            "spread": round(made.spread, 3),
            "goal": round(made.crowding.at(count // 8), 4),
            "reached": round(reached, 4),
        },
    )


def document(name: str, texts: list[tuple[str, str]], vectors: Any) -> NewDocument:
    """Vectors: (chunks, rows, dimension)."""
    chunks = [Chunk(title, text, 0, len(text)) for title, text in texts]
    whole = "\n".join(text for _, text in texts)
    return NewDocument(name, name, whole, "0" * 64, "added", [], chunks, [*vectors], vectors[0, :1], "en")


def build(path: Path, texts: list[tuple[str, str]], vectors: Any, group: int) -> dict[str, float]:
    """An index of documents of ``group`` chunks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index = SqliteIndex(path, DIMENSION)
    storing = 0.0
    for start in range(0, len(texts), 50 * group):
        documents = [
            document(f"part{at // group % 10}/{at}.md", texts[at : at + group], vectors[at : at + group])
            for at in range(start, min(start + 50 * group, len(texts)), group)
        ]
        storing += timed(lambda documents=documents: index.put(documents))
    flushing = timed(index.flush)
    view = index._live.current().index
    index.close()
    files = {file: path.with_name(path.name + file).stat().st_size for file in ("", ".faiss")}
    return {
        "put_seconds": round(storing, 1),
        "flush_seconds": round(flushing, 1),
        "database_bytes": files[""],
        "view_bytes": files[".faiss"],
        "lists": view.nlist,
        "probes": view.nprobe,
    }


def build_chunks(path: Path) -> dict[str, Any]:
    _, batches, construction = constructed(CHUNKS * ROWS)
    flat = np.concatenate(list(batches))
    vectors = np.concatenate(
        [flat[:CHUNKS, None], flat[CHUNKS:].reshape(CHUNKS, ROWS - 1, DIMENSION)], axis=1
    )
    texts = [(piece.title, piece.text) for piece in corpus.pieces(CHUNKS)]
    return {**build(path, texts, vectors, group=5), "construction": construction}


def build_million(path: Path) -> dict[str, Any]:
    _, batches, construction = constructed(VECTORS)
    vectors = np.concatenate(list(batches))
    np.save(path.with_suffix(".npy"), vectors)
    texts = [("", f"text {n}") for n in range(VECTORS)]
    return {**build(path, texts, vectors[:, None], group=100), "construction": construction}


def opened(path: Path) -> tuple[SqliteIndex, dict[str, float]]:
    """A running process's index, with what opening and a first search took."""
    import faiss

    assert faiss  # its own size is not counted; nothing else is loaded yet, so freed memory is not used again
    vector = np.full(DIMENSION, DIMENSION**-0.5, np.float32)
    process = psutil.Process()
    before = process.memory_info().rss
    started = time.perf_counter()
    index = SqliteIndex(path, DIMENSION)
    index.nearest(vector, 10)
    seconds = time.perf_counter() - started
    resident = process.memory_info().rss - before
    return index, {"open_seconds": round(seconds, 2), "resident_bytes": resident}


def resident() -> int:
    """Bytes in memory, without those that are freed and not given back yet."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def search_chunks(path: Path) -> dict[str, Any]:
    """What `KnowledgeBase.search` asks of the index, every question once."""
    index, body = opened(path)
    texts, vectors = questions()
    before = resident()
    parts: dict[str, list[float]] = {"words": [], "vectors": [], "fetch": [], "all": []}
    for text, vector in zip(texts, vectors, strict=True):
        started = time.perf_counter()
        lexical = index.matching(content_words(text), CANDIDATES)
        words = time.perf_counter()
        near = index.nearest(vector, CANDIDATES)
        nearest = time.perf_counter()
        index.fetch([*{*lexical, *near}])
        ended = time.perf_counter()
        parts["words"].append(words - started)
        parts["vectors"].append(nearest - words)
        parts["fetch"].append(ended - nearest)
        parts["all"].append(ended - started)
    after = body["resident_bytes"] + resident() - before
    half = len(texts) // 2
    filtered = [
        timed(lambda vector=vector: index.nearest(vector, CANDIDATES, {"folder": "part3"}))
        for vector in vectors
    ]
    return {
        **body,
        "resident_after_bytes": after,
        **{name: percentiles(seconds) for name, seconds in parts.items()},
        "first_half": percentiles(parts["all"][:half]),
        "second_half": percentiles(parts["all"][half:]),
        "within_a_tenth": percentiles(filtered),
    }


def change_chunks(path: Path) -> dict[str, Any]:
    """One document of five chunks at a time, until it is found."""
    index, _ = opened(path)
    numbers = np.random.default_rng(7)
    texts = [(piece.title, piece.text) for piece in corpus.pieces(5 * CHANGES)]
    times: dict[str, list[float]] = {"add": [], "change": [], "remove": []}

    def put(name: str, vectors: Any, at: int) -> None:
        index.put([document(name, texts[at : at + 5], vectors)])
        found = index.nearest(vectors[0, 0], 1)
        assert index.fetch(found)[found[0]].document == name

    for n in range(CHANGES):
        made = numbers.standard_normal((2, 5, ROWS, DIMENSION)).astype(np.float32)
        made /= np.linalg.norm(made, axis=-1, keepdims=True)
        name = f"new/{n}.md"
        times["add"].append(timed(lambda: put(name, made[0], 5 * n)))  # noqa: B023
        times["change"].append(timed(lambda: put(name, made[1], 5 * n)))  # noqa: B023
    for n in range(CHANGES):
        times["remove"].append(timed(lambda: index.remove([f"new/{n}.md"])))  # noqa: B023
    flushing = timed(index.flush)
    index.close()
    return {
        **{name: percentiles(seconds) for name, seconds in times.items()},
        "flush_seconds": round(flushing, 2),
    }


def search_million(path: Path) -> dict[str, Any]:
    index, body = opened(path)
    _, vectors = questions()
    truth = np.load(path.with_suffix(".truth.npy"))
    before = resident()
    seconds, hits = list[float](), 0
    for vector, nearest in zip(vectors, truth, strict=True):
        started = time.perf_counter()
        found = index.nearest(vector, 10)
        seconds.append(time.perf_counter() - started)
        hits += len({*found} & {*(nearest + 1).tolist()})
    recall = round(hits / truth.size, 4)
    body["resident_after_bytes"] = body["resident_bytes"] + resident() - before
    return {**body, **percentiles(seconds), "queries": len(seconds), "recall": recall}


def search_flat(path: Path) -> dict[str, Any]:
    """The peer, and what the nearest are."""
    import faiss

    _, queries = questions()
    before = psutil.Process().memory_info().rss
    index = faiss.IndexFlatIP(DIMENSION)
    for part in np.array_split(np.load(path.with_suffix(".npy"), mmap_mode="r"), 50):
        index.add(np.ascontiguousarray(part, np.float32))
    resident = 4 * DIMENSION * index.ntotal
    seconds = [timed(lambda query=query: index.search(query[None], 10)) for query in queries]
    np.save(path.with_suffix(".truth.npy"), index.search(queries, 10)[1])
    assert psutil.Process().memory_info().rss - before > resident
    return {**percentiles(seconds), "queries": len(seconds), "resident_bytes": resident}


def kills(path: Path) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "tests" / "retrieval"))
    from kills import survive

    started = time.perf_counter()
    counted = survive(path, KILLS)
    return {"kills": KILLS, **counted, "seconds": round(time.perf_counter() - started, 1)}


def alone(part: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """In a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        body: dict[str, Any] = pool.apply(part, (path,))
    print(part.__name__, body, flush=True)
    return body


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="use the indexes that an earlier run left")
    options = parser.parse_args()
    hundred, million = FOLDER / "chunks.db", FOLDER / "million.db"
    if not options.keep:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = {"chunks": CHUNKS, "rows": ROWS, "vectors": VECTORS, "queries": QUERIES}
    if not hundred.exists():
        body["build_chunks"] = alone(build_chunks, hundred)
    body["search_chunks"] = alone(search_chunks, hundred)
    body["change_chunks"] = alone(change_chunks, hundred)
    if not million.exists():
        body["build_million"] = alone(build_million, million)
    body["flat"] = alone(search_flat, million)
    body["search_million"] = alone(search_million, million)
    shutil.rmtree(FOLDER / "kills", ignore_errors=True)
    body["kills"] = kills(FOLDER / "kills" / "index.db")
    if not options.keep:
        write("index.json", body)
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
