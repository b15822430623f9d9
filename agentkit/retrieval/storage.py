"""Documents and chunks as rows of SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import PurePosixPath

from agentkit.retrieval.blobs import from_blob, to_blob
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.records import IndexedDocument, NewDocument, StoredChunk


def insert(connection: sqlite3.Connection, document: NewDocument) -> None:
    """Add a document, or replace the one of this name; to be called in a transaction."""
    connection.execute("DELETE FROM documents WHERE name = ?", (document.name,))
    cursor = connection.execute(
        "INSERT INTO documents (name, format, sha256, origin, title, text, language, keywords, vectors)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            document.name,
            PurePosixPath(document.name).suffix.lower().lstrip("."),
            document.sha256,
            document.origin,
            document.title,
            document.text,
            document.language,
            "\n".join(document.keywords),
            to_blob(document.phrases),
        ),
    )
    id_ = cursor.lastrowid
    connection.executemany(
        "INSERT INTO metadata VALUES (?, ?, ?)",
        [(id_, key, value) for key, value in document.metadata.items()],
    )
    connection.executemany(
        "INSERT INTO chunks"
        " (document, position, heading, text, keywords, language, page, start, stop, rows, vectors)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (id_, n, *_told(chunk), len(own), to_blob(own))
            for n, (chunk, own) in enumerate(zip(document.chunks, document.vectors, strict=True))
        ],
    )


def _told(c: Chunk) -> tuple[object, ...]:
    """The columns from ``heading`` to ``stop``."""
    return c.heading, c.text, c.looked_up(), c.language, c.page, c.start, c.end


def documents(connection: sqlite3.Connection) -> list[IndexedDocument]:
    """Every document, by name."""
    query = """
        SELECT id, name, title, sha256, origin,
            (SELECT count(*) FROM chunks WHERE document = documents.id), language
        FROM documents ORDER BY name"""
    metadata: dict[int, dict[str, str]] = {}
    for document, key, value in connection.execute("SELECT document, key, value FROM metadata"):
        metadata.setdefault(document, {})[key] = value
    return [
        IndexedDocument(name, title, sha256, origin, chunks, language, metadata.get(id_, {}))
        for id_, name, title, sha256, origin, chunks, language in connection.execute(query)
    ]


def fetch(connection: sqlite3.Connection, ids: Sequence[int], dimension: int) -> dict[int, StoredChunk]:
    """Chunks by id; ids that are gone by now are left out.

    Raises:
        KnowledgeError: A vector has another length.
    """
    query = """
        SELECT chunks.id, name, heading, chunks.text, page, start, stop, chunks.vectors,
            documents.vectors, trim(chunks.keywords || char(10) || documents.keywords, char(10)),
            chunks.language, position
        FROM chunks JOIN documents ON documents.id = chunks.document
        WHERE chunks.id IN (SELECT value FROM json_each(?))"""
    chunks = {}
    wanted = (json.dumps([int(id_) for id_ in ids]),)
    for id_, name, heading, text, page, start, stop, vectors, phrases, *rest in connection.execute(
        query, wanted
    ):
        own, whole = from_blob(vectors, dimension), from_blob(phrases, dimension)
        chunks[id_] = StoredChunk(id_, name, heading, text, page, start, stop, own, whole, *rest)
    return chunks
