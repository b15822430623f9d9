"""`agentkit knowledge verify` on PostgreSQL: whether the tables agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

from agentkit.errors import IndexDamaged
from agentkit.retrieval.postgres.changes import remake_derived
from agentkit.retrieval.postgres.errors import REBUILD
from agentkit.retrieval.postgres.schema import column_dimension, create_nearest, lacks_nearest
from agentkit.retrieval.postgres.server import Server

# One statement, so that every number is of the same state.
_TRUTH: LiteralString = """
    SELECT
        (SELECT count(*) FROM {s}.chunks c
            WHERE NOT EXISTS (SELECT FROM {s}.vectors WHERE chunk = c.id AND n = 0)),
        (SELECT count(*) FROM (SELECT FROM {s}.vectors GROUP BY chunk HAVING count(*) <> max(n) + 1) AS gap),
        (SELECT count(*) FROM {s}.documents d
            WHERE NOT EXISTS (SELECT FROM {s}.phrases WHERE document = d.id AND n = 0)),
        (SELECT count(*) FROM (SELECT FROM {s}.chunks GROUP BY document HAVING count(*) <> max(position) + 1) AS gap)"""
_FAULTS = (
    "chunks without vectors",
    "chunks that lack vectors",
    "documents without vectors",
    "documents that lack chunks",
)

_DERIVED: LiteralString = """
    SELECT
        ARRAY(SELECT (documents, chunks, words)::text FROM {s}.totals) =
            ARRAY(SELECT ((SELECT count(*) FROM {s}.documents), count(*), coalesce(sum(length), 0))::text
                FROM {s}.chunks)
        AND (SELECT count(*) FROM {s}.postings) = (SELECT coalesce(sum(length(words)), 0) FROM {s}.chunks)
        AND NOT EXISTS (
            SELECT FROM {s}.chunks c CROSS JOIN unnest(c.words) AS w
            LEFT JOIN {s}.postings p ON p.lexeme = w.lexeme AND p.chunk = c.id
            WHERE p.frequency IS DISTINCT FROM cardinality(w.weights) + cardinality(array_positions(w.weights, 'A')))"""


def verify(server: Server, dimension: int, notice: Callable[[str], None]) -> None:
    """Check what cannot be derived, then what can; the latter is repaired and told.

    Raises:
        KnowledgeError: Vectors or chunks are missing, or vectors are of another dimension than the embedder's.
    """
    found = column_dimension(server)
    if found != dimension:
        raise IndexDamaged(f"{server.where} has vectors of dimension {found}, not {dimension}", REBUILD)
    for fault, count in zip(_FAULTS, server.read(server.sql(_TRUTH))[0], strict=True):
        if count:
            raise IndexDamaged(f"{server.where} is damaged: {count} {fault}", REBUILD)
    words_agree = server.read(server.sql(_DERIVED))[0][0]
    if not words_agree:
        with server.write() as connection:
            remake_derived(server, connection)
        notice(f"{server.where} had words and counts that did not agree with its chunks; made anew")
    if lacks_nearest(server):
        with server.write() as connection:
            create_nearest(server, connection, dimension)
        notice(f"{server.where} had no vector index; made anew")
