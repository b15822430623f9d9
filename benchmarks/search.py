"""Search in 100,000 chunks without the embedding: agentkit's hybrid search and txtai's, the same texts and vectors.

    python benchmarks/search.py                  # prints a table, writes docs/benchmarks/search.json

The texts are docstrings, the questions their first sentences, which are not among the texts (`corpus.py`); relevant is
every passage of the docstring a question belongs to. Both engines get the vectors of chunks and questions from a
table, so that neither's time has the encoder in it: MiniLM's for the first chunks, among which all that is asked for
is, constructed ones (`constructed.py`) for the others, whose texts are real. Each engine runs in a process of its own,
one question after the other.

Two things are not the same. agentkit's index also holds a vector for each docstring's title (beyond MiniLM's, its first
chunk's once more). And ten results are not ten docstrings in both: agentkit joins chunks that lie side by side in one
passage, txtai's rows are chunks, of which several may be of one docstring, so that it has fewer to be right with.

The first run embeds the texts, which takes minutes; they are kept in ``build/``.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from constructed import Constructor
from corpus import Piece, embedded, items, pieces
from machine import positive, write

REAL = 14_000
"""Chunks with vectors of MiniLM."""
QUESTIONS = 500
TOP = 10
Found = list[int]
"""Positions of pieces, best first."""
Search = Callable[[str], Found]


class Table:
    """An `Embedder` that has every vector already."""

    name, dimension = "table", 384

    def __init__(self, vectors: dict[str, Any]) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> Any:
        return np.stack([self._vectors[text] for text in texts])

    def knows(self, word: str) -> bool:
        return True


def ours(parts: list[Piece], vectors: Any, titles: Any, questions: dict[str, Any], folder: Path) -> Search:
    from agentkit.retrieval.chunks import Chunk
    from agentkit.retrieval.followup import alone
    from agentkit.retrieval.index import SqliteIndex
    from agentkit.retrieval.records import NewDocument
    from agentkit.retrieval.search import find

    index = SqliteIndex(folder / "index.db", 384)
    by_item: dict[int, list[int]] = {}
    for n, piece in enumerate(parts):
        by_item.setdefault(piece.item, []).append(n)
    documents = []
    for item, own in by_item.items():
        title, text, chunks = parts[own[0]].title, "", []
        for n in own:
            chunks.append(Chunk(title, parts[n].text, len(text), len(text) + len(parts[n].text)))
            text += parts[n].text + "\n"
        documents.append(
            NewDocument(
                f"{item}.txt", title, text, str(item), "added", (), chunks,
                [vectors[n : n + 1] for n in own],
                titles[item : item + 1] if item < len(titles) else vectors[own[0] : own[0] + 1],
            )
        )  # fmt: skip
    for start in range(0, len(documents), 500):
        index.put(documents[start : start + 500])
    index.flush()
    table = Table(questions)

    def search(question: str) -> Found:
        found = find(alone(question), TOP, index, table)
        return [n for passage in found for n in by_item[int(passage.document.removesuffix(".txt"))]]

    return search


def txtai(parts: list[Piece], vectors: Any, titles: Any, questions: dict[str, Any], folder: Path) -> Search:
    from txtai import Embeddings

    texts = [f"{piece.title}\n{piece.text}" for piece in parts]
    table = {**dict(zip(texts, vectors, strict=True)), **questions}

    def transform(batch: Sequence[str]) -> Any:
        return np.stack([table[text] for text in batch])

    index = Embeddings(method="external", transform=transform, hybrid=True, content=True)
    index.index((n, text, None) for n, text in enumerate(texts))

    def search(question: str) -> Found:
        return [int(row["id"]) for row in index.search(question, TOP)]

    return search


ENGINES = {"agentkit": ours, "txtai, hybrid": txtai}


def play(name: str, count: int, out: Connection) -> None:
    """Builds one engine and asks it everything."""
    parts = pieces(count)
    real = embedded([f"{piece.title}\n{piece.text}" for piece in parts[:REAL]])
    constructor = Constructor(real)
    constructor.calibrate(count)
    vectors = np.concatenate(list(constructor.batches(count)))
    known = items()[: parts[:REAL][-1].item]  # the last of them may be cut
    titles = embedded([item.title for item in known])
    every = [(n, item.question) for n, item in enumerate(known) if item.question]
    asked = every[:: max(1, len(every) // QUESTIONS)][:QUESTIONS]
    # agentkit keeps what a word adds to the scores: what is timed must not have been asked before.
    warm = [question for n, question in every if (n, question) not in asked][:20]
    texts = [*warm, *(question for _, question in asked)]
    table = dict(zip(texts, embedded(texts), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        search = ENGINES[name](parts, vectors, titles, table, Path(folder))
        built = time.perf_counter() - started
        for question in warm:
            search(question)
        seconds, gains = [], []
        for item, question in asked:
            started = time.perf_counter()
            found = search(question)
            seconds.append(time.perf_counter() - started)
            gains.append(ndcg([parts[n].item for n in found], item))
    centiles = statistics.quantiles(seconds, n=100)
    out.send(
        {
            "built_s": round(built, 1),
            "p50_ms": round(1000 * statistics.median(seconds), 2),
            "p95_ms": round(1000 * centiles[94], 2),
            "p99_ms": round(1000 * centiles[98], 2),
            "ndcg": round(statistics.mean(gains), 4),
            "questions": len(asked),
        }
    )


def ndcg(found: Sequence[int], relevant: int) -> float:
    """nDCG@10 over documents, each counted where it comes first: one is relevant, so the ideal is 1."""
    order = list(dict.fromkeys(found))[:TOP]
    return 1 / math.log2(order.index(relevant) + 2) if relevant in order else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=positive, default=100_000)
    options = parser.parse_args()
    if (held := len(pieces(options.chunks))) < options.chunks:
        parser.error(f"the installed packages have docstrings for {held} chunks: install more, or name fewer")
    results = {}
    for name in ENGINES:
        receive, send = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=play, args=(name, options.chunks, send))
        process.start()
        send.close()
        results[name] = receive.recv()
        process.join()
        print(f"{name:15}", results[name], flush=True)
    (asked,) = {row.pop("questions") for row in results.values()}
    real = min(REAL, options.chunks)
    write("search.json", {"chunks": options.chunks, "real": real, "questions": asked, "engines": results})


if __name__ == "__main__":
    main()
