"""Kills a process while it changes an index, and looks at what the next one finds; also used by the benchmark."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from agentkit.retrieval import liveview
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.records import NewDocument, Vectors

DIMENSION = 8
DOCUMENTS = 6
State = dict[str, int]
"""Version by name of every document there is."""


def vectors_of(name: str, version: int, chunk: int) -> Vectors:
    """Unit rows that no other chunk has."""
    numbers = np.random.default_rng([int(name[1:-3]), version, chunk])
    rows = numbers.standard_normal((1 + (version + chunk) % 3, DIMENSION)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def text_of(name: str, version: int, chunk: int) -> str:
    return f"{word_of(name, version)} chunk {chunk} of {name}"


def word_of(name: str, version: int) -> str:
    """A word that only this version of this document has."""
    return f"{name[:-3]}v{version}"


def document(name: str, version: int) -> NewDocument:
    chunks = range(1 + version % 4)
    texts = [text_of(name, version, n) for n in chunks]
    return NewDocument(
        name, "Title", "\n".join(texts), f"{version:064}", "added", ["keyword"],
        [Chunk("Title", text, 0, len(text)) for text in texts],
        [vectors_of(name, version, n) for n in chunks], vectors_of(name, version, 0)[:1],
    )  # fmt: skip


def change(path: Path, seed: int, version: int, says: Connection) -> None:
    """Change the index until killed; every change is announced before and after."""
    liveview.FEW, liveview.SHARE = 2, 0.1
    numbers = random.Random(seed)
    index = SqliteIndex(path, DIMENSION)
    while True:
        version += 1
        names = numbers.sample([f"d{n}.md" for n in range(DOCUMENTS)], numbers.randint(1, 3))
        removed = numbers.random() < 0.25
        says.send({name: None if removed else version for name in names})
        if removed:
            index.remove(names)
        else:
            index.put([document(name, version) for name in names])
        says.send("done")
        if numbers.random() < 0.5:
            index.flush()
        if numbers.random() < 0.3:
            index.nearest(vectors_of("d0.md", 1, 0)[0], 3)


def observed(path: Path) -> State:
    """What a new process finds; every part of the index must tell the same, and nothing need be repaired."""
    notices: list[str] = []
    index = SqliteIndex(path, DIMENSION, notices.append)
    index.verify()
    state = {document.name: int(document.sha256) for document in index.documents()}
    chunks = 0
    for listed in index.documents():
        version = state[listed.name]
        ids = sorted(index.matching([word_of(listed.name, version)], 100))
        assert listed.chunks == len(ids) == 1 + version % 4
        found = index.fetch(ids)
        for n, id_ in enumerate(ids):
            assert found[id_].text == text_of(listed.name, version, n)
            expected = vectors_of(listed.name, version, n)
            np.testing.assert_allclose(found[id_].vectors, expected, atol=0.001)
            assert index.nearest(expected[-1], 1) == [id_]
        chunks += len(ids)
    assert index.counts() == (len(state), chunks)
    assert len(index.nearest(np.ones(DIMENSION, np.float32), 1000)) == chunks
    assert notices == []
    index.close()
    return state


def survive(path: Path, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill a writer so often, each at a random moment; counts where the kills struck.

    Raises:
        AssertionError: An index was found in a state that is neither the one before nor the one after a change.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["faiss", "psutil", "agentkit.retrieval.index", "agentkit.retrieval.lexical"]
    )
    numbers = random.Random(seed)
    counted = {"between changes": 0, "during, old state": 0, "during, new state": 0, "changes": 0}
    state: State = {}
    version = 0
    for kill in range(kills):
        hears, says = context.Pipe(duplex=False)
        process = context.Process(target=change, args=(path, seed + kill, version, says), daemon=True)
        process.start()
        says.close()
        heard: list[object] = []
        for _ in range(numbers.randint(0, 4)):  # however slow the machine is, it has got that far
            assert hears.poll(60)
            heard.append(hears.recv())
        time.sleep(numbers.random() * 0.01)
        process.kill()
        process.join()
        before, pending = dict(state), None
        for message in heard + _rest(hears):
            if message == "done":
                before, pending = _after(before, pending), None
                counted["changes"] += 1
            else:
                pending = message
                version += 1
        state = observed(path)
        assert state in (before, _after(before, pending))
        if pending is None:
            counted["between changes"] += 1
        else:
            counted["during, old state" if state == before else "during, new state"] += 1
    return counted


def _rest(hears: Connection) -> list[object]:
    messages = []
    try:
        while True:
            messages.append(hears.recv())
    except (EOFError, OSError):  # the last message may be half
        return messages


def _after(state: State, change: object) -> State:
    assert change is None or isinstance(change, dict)
    merged = {**state, **(change or {})}
    return {name: version for name, version in merged.items() if version is not None}
