"""Indexing a folder beside the bare embedder: what reading, cutting, storing and the view cost on top.

    python benchmarks/ingest.py                  # prints a table, writes docs/benchmarks/ingest.json

A folder of Markdown files (docstrings, see `corpus.py`) is indexed from nothing by `KnowledgeBase.sync`. The bare
embedder gets the same texts as one list, in the same process, without the memory of texts that it has met: once all
that is embedded (chunks, their sentences, titles), once the chunks alone. Rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from corpus import items
from machine import positive, write

from agentkit.assets import asset_path
from agentkit.retrieval.chunks import chunk_document
from agentkit.retrieval.embedder import MiniLMEmbedder, load_embedder
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.loaders import load_document
from agentkit.retrieval.sentences import sentences


def fresh() -> MiniLMEmbedder:
    """An embedder that is loaded and has met nothing."""
    embedder = load_embedder(asset_path("minilm"))
    embedder.embed(["warm"])
    return embedder


def indexed(folder: Path) -> tuple[float, int]:
    """Seconds to index the folder, and its chunks."""
    embedder = fresh()
    with tempfile.TemporaryDirectory() as place:
        base = KnowledgeBase(folder, Path(place) / "index.db", embedder)
        started = time.perf_counter()
        base.sync()
        seconds = time.perf_counter() - started
        chunks = sum(document.chunks for document in base.list())
        base.close()
    return seconds, chunks


def embedded(texts: list[str]) -> float:
    """Seconds of the embedder alone."""
    embedder = fresh()
    started = time.perf_counter()
    embedder.embed(texts)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=positive, default=400)
    parser.add_argument("--rounds", type=positive, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n, item in enumerate(items()[: options.documents]):
            (folder / f"{n}.md").write_text(f"# {item.title}\n\n{item.text}\n", encoding="utf-8")
        whole, alone = list[str](), list[str]()
        for path in sorted(folder.iterdir()):
            document = load_document(path, path.name)
            for chunk in chunk_document(document):
                alone.append(chunk.embedded_text())
                whole += [chunk.embedded_text(), *sentences(chunk.text)]
            whole += [document.title, *document.keywords]
        rounds = [(indexed(folder), embedded(whole), embedded(alone)) for _ in range(options.rounds)]
    chunks = rounds[0][0][1]
    ours, same, bare = (
        statistics.median(row)
        for row in zip(*((mine[0], all_of, few) for mine, all_of, few in rounds), strict=True)
    )
    result = {
        "documents": options.documents,
        "chunks": chunks,
        "texts": len(set(whole)),
        "indexed": round(chunks / ours, 1),
        "embedder_same_texts": round(chunks / same, 1),
        "embedder_chunks_alone": round(chunks / bare, 1),
        "ratio_same_texts": round(same / ours, 3),
        "ratio_chunks_alone": round(bare / ours, 3),
    }
    print(result)
    write("ingest.json", result)


if __name__ == "__main__":
    main()
