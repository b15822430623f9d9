"""`Index` in one schema of a PostgreSQL database: pgvector for nearness, BM25 over postings for words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString

from psycopg import sql

from agentkit.errors import IndexDamaged
from agentkit.retrieval.postgres.changes import delete, insert
from agentkit.retrieval.postgres.checks import verify
from agentkit.retrieval.postgres.errors import REBUILD
from agentkit.retrieval.postgres.filters import condition
from agentkit.retrieval.postgres.schema import (
    TABLES,
    column_dimension,
    create_nearest,
    create_vectors,
    drop_nearest,
    lacks_nearest,
    open_schema,
)
from agentkit.retrieval.postgres.server import Server
from agentkit.retrieval.postgres.wire import read_vectors, vector_text
from agentkit.retrieval.postgres.words import storable, tokens
from agentkit.retrieval.protocol import Where
from agentkit.retrieval.records import IndexedDocument, NewDocument, StoredChunk, Vectors

_HITS_PER_CHUNK = 4
"""Vectors looked at for each chunk that is wanted: those of one chunk lie close together."""
_MAX_ROWS = 32_767
FEW = 2_000
"""Chunks that pass a filter, up to which all of them are compared."""

_FILTERED: LiteralString = """
    JOIN {s}.chunks c ON c.id = {id} JOIN {s}.documents d ON d.id = c.document WHERE {condition}"""

# The inner query is what HNSW answers, in half precision and roughly in order; the outer one puts it in order.
_NEAREST: LiteralString = """
    SELECT chunk, sum(count(*)) OVER () FROM (
        SELECT v.chunk, v.embedding <#> %(vector)s::vector AS distance FROM {s}.vectors v {filtered}
        ORDER BY v.embedding::halfvec({dimension}) <#> %(vector)s::halfvec({dimension}) LIMIT %(hits)s
    ) AS hit
    GROUP BY chunk ORDER BY min(distance), chunk LIMIT %(limit)s"""
_NEAREST_OF_FEW: LiteralString = """
    WITH own AS MATERIALIZED (SELECT v.chunk, v.embedding FROM {s}.vectors v {filtered})
    SELECT chunk FROM own GROUP BY chunk ORDER BY min(embedding <#> %(vector)s::vector), chunk LIMIT %(limit)s"""

_PASSING: LiteralString = """
    SELECT count(*) FROM (
        SELECT FROM {s}.chunks c JOIN {s}.documents d ON d.id = c.document WHERE {condition} LIMIT %(few)s
    ) AS passing"""
# What passes a filter cannot be guessed from statistics: the planner would rather sort all of it.
_IN_ORDER: LiteralString = "SET LOCAL enable_sort = off"

# Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), with the constants and the
# floor under the inverse document frequency of SQLite's FTS5: k1 = 1.2, b = 0.75.
_MATCHING: LiteralString = """
    WITH found AS (
        SELECT chunk, frequency, length, count(*) OVER (PARTITION BY lexeme) AS chunks
        FROM {s}.postings
        WHERE lexeme = ANY(ARRAY(SELECT unnest(tsvector_to_array(to_tsvector({words}, %(words)s)))))
    ), scored AS (
        SELECT found.chunk, greatest(ln((t.chunks - found.chunks + 0.5) / (found.chunks + 0.5)::float8), 1e-6)
            * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length * t.chunks / t.words)) AS score
        FROM found, {s}.totals t
    )
    SELECT chunk, sum(score) AS relevance FROM scored {filtered}
    GROUP BY chunk ORDER BY relevance DESC, chunk LIMIT %(limit)s"""

_FETCH: LiteralString = """
    SELECT c.id, d.name, c.heading, c.text, c.page, c.start, c.stop,
        (SELECT string_agg(vector_send(embedding), ''::bytea ORDER BY n) FROM {s}.vectors WHERE chunk = c.id),
        (SELECT string_agg(vector_send(embedding), ''::bytea ORDER BY n) FROM {s}.phrases WHERE document = d.id),
        trim(E'\\n' FROM c.keywords || E'\\n' || d.keywords), c.language, c.position
    FROM {s}.chunks c JOIN {s}.documents d ON d.id = c.document
    WHERE c.id = ANY(%(ids)s)"""

_DOCUMENTS: LiteralString = """
    SELECT name, title, sha256, origin, (SELECT count(*) FROM {s}.chunks WHERE document = d.id), language,
        coalesce((SELECT json_object_agg(key, value) FROM {s}.metadata WHERE document = d.id), '{{}}')
    FROM {s}.documents d ORDER BY name COLLATE "C" """

_PHRASE: LiteralString = """
    SELECT count(*) FROM {s}.chunks
    WHERE words @@ phraseto_tsquery({words}, %(word)s) AND id = ANY(ARRAY(
        SELECT chunk FROM {s}.postings WHERE lexeme = ANY(tsvector_to_array(to_tsvector({words}, %(word)s)))))"""
_WORD: LiteralString = """
    SELECT count(*) FROM {s}.postings
    WHERE lexeme = ANY(ARRAY(SELECT unnest(tsvector_to_array(to_tsvector({words}, %(word)s)))))"""


class PostgresIndex:
    """`Index` in one schema. Safe for several threads, processes and machines: writers queue, readers never wait.

    Args:
        dsn: ``postgresql://USER@HOST:PORT/DATABASE``; the password may stand in it, in ``PGPASSWORD`` or in
            ``~/.pgpass``. The tables are made when they are missing, and the extension where the role may.
        dimension: Length of a vector.
        notice: Told of every repair.
        schema: One index lives in it, and nothing else.

    Raises:
        SettingsError: The address cannot be read.
        KnowledgeError: From every method, where the server cannot be reached, refuses, or the index is damaged.
    """

    def __init__(
        self,
        dsn: str,
        dimension: int,
        notice: Callable[[str], None] = lambda text: None,
        schema: str = "agentkit",
    ) -> None:
        self._server = Server(dsn, schema)
        self._dimension = dimension
        self._notice = notice
        self._vocabulary: dict[str, int] = {}
        self._spelt: Any = None
        """What the vocabulary is of."""
        try:
            open_schema(self._server, dimension)
        except BaseException:
            self._server.close()
            raise

    def __repr__(self) -> str:
        return f"<PostgresIndex: {self._server.where}>"

    def put(self, documents: Sequence[NewDocument]) -> None:
        """`Index.put`."""
        for document in documents:
            if len(document.chunks) != len(document.vectors):
                raise ValueError(f"zip of {len(document.chunks)} chunks and {len(document.vectors)} matrices")
            for own in (*document.vectors, document.phrases):
                if own.ndim != 2 or own.shape[1] != self._dimension or not 1 <= len(own) <= _MAX_ROWS:
                    raise ValueError(f"vectors of shape {own.shape} do not fit dimension {self._dimension}")
        last = {storable(document.name): document for document in documents}
        if last:
            with self._server.write() as connection:
                delete(self._server, connection, [*last])
                insert(self._server, connection, [*last.values()])

    def remove(self, names: Sequence[str]) -> None:
        """`Index.remove`."""
        if names:
            with self._server.write() as connection:
                delete(self._server, connection, names)

    def reset(self, embedder: str) -> None:
        """`Index.reset`; also where vectors of another dimension will come."""
        same = column_dimension(self._server) == self._dimension
        tables = sql.SQL(", ").join(sql.Identifier(self._server.schema, table) for table in TABLES)
        with self._server.write() as connection:
            connection.execute(sql.SQL("TRUNCATE {}").format(tables))
            connection.execute(self._server.sql("UPDATE {s}.totals SET documents = 0, chunks = 0, words = 0"))
            connection.execute(
                self._server.sql("UPDATE {s}.meta SET value = %s WHERE key = 'embedder'"), (embedder,)
            )
            drop_nearest(self._server, connection)
            if not same:
                connection.execute(self._server.sql("DROP TABLE {s}.vectors, {s}.phrases"))
                create_vectors(self._server, connection, self._dimension)

    def embedder(self) -> str:
        """`Index.embedder`."""
        rows = self._server.read(self._server.sql("SELECT value FROM {s}.meta WHERE key = 'embedder'"))
        return str(rows[0][0]) if rows else ""

    def documents(self) -> list[IndexedDocument]:
        """`Index.documents`."""
        return [IndexedDocument(*row) for row in self._server.read(self._server.sql(_DOCUMENTS))]

    def counts(self) -> tuple[int, int]:
        """`Index.counts`."""
        rows = self._server.read(self._server.sql("SELECT documents, chunks FROM {s}.totals"))
        if len(rows) != 1:
            raise IndexDamaged(f"{self._server.where} is damaged: its totals are missing", REBUILD)
        return int(rows[0][0]), int(rows[0][1])

    def nearest(self, vector: Vectors, limit: int, where: Where | None = None) -> list[int]:
        """`Index.nearest`: roughly by HNSW, then by exact inner products.

        What passes a filter is compared whole where it is little, or where HNSW finds less of it than is wanted.
        """
        if vector.shape != (self._dimension,):
            raise ValueError(f"a vector of shape {vector.shape} does not fit dimension {self._dimension}")
        narrowed = condition(self._server, where)
        filtered, values = self._filter("v.chunk", narrowed)
        values |= {"vector": vector_text(vector), "hits": limit * _HITS_PER_CHUNK, "limit": limit}
        dimension = sql.Literal(self._dimension)
        rows, order = [], _IN_ORDER if narrowed else ""
        if not narrowed or self._passing(*narrowed) >= FEW:
            statement = self._server.sql(_NEAREST, filtered=filtered, dimension=dimension)
            while True:
                rows = self._server.read(statement, values, order)
                if len(rows) >= limit or not rows or rows[0][1] < values["hits"]:
                    break
                values["hits"] *= 4  # they were of too few chunks
        if narrowed and len(rows) < limit:
            rows = self._server.read(self._server.sql(_NEAREST_OF_FEW, filtered=filtered), values)
        return [int(row[0]) for row in rows]

    def matching(self, words: Sequence[str], limit: int, where: Where | None = None) -> dict[int, float]:
        """`Index.matching`: BM25, equal to that of SQLite."""
        filtered, values = self._filter("chunk", condition(self._server, where))
        values |= {"words": " ".join(tokens(" ".join(words))), "limit": limit}
        rows = self._server.read(self._server.sql(_MATCHING, filtered=filtered), values)
        return {int(chunk): float(score) for chunk, score in rows}

    def frequency(self, word: str) -> int:
        """`Index.frequency`."""
        parts = tokens(word)
        statement = _PHRASE if len(parts) > 1 else _WORD
        return int(self._server.read(self._server.sql(statement), {"word": " ".join(parts)})[0][0])

    def vocabulary(self) -> Mapping[str, int]:
        """`Index.vocabulary`; read anew when the number of chunks, or of the highest, has changed."""
        state = self._server.read(self._server.sql("SELECT count(*), coalesce(max(id), 0) FROM {s}.chunks"))[
            0
        ]
        if state != self._spelt:
            texts = self._server.sql("SELECT to_tsvector('simple', heading || ' ' || text) FROM {s}.chunks")
            rows = self._server.read(
                self._server.sql(
                    "SELECT word, ndoc FROM ts_stat({texts})", texts=sql.Literal(texts.as_string())
                )
            )
            self._vocabulary, self._spelt = {str(word): int(chunks) for word, chunks in rows}, state
        return self._vocabulary

    def fetch(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """`Index.fetch`."""
        chunks = {}
        for row in self._server.read(self._server.sql(_FETCH), {"ids": list(map(int, ids))}):
            id_, name, heading, text, page, start, stop, vectors, phrases, keywords, language, position = row
            try:
                own, whole = read_vectors(vectors, self._dimension), read_vectors(phrases, self._dimension)
            except ValueError as error:
                raise IndexDamaged(f"{self._server.where} has vectors of another length", REBUILD) from error
            chunks[id_] = StoredChunk(
                id_, name, heading, text, page, start, stop, own, whole, keywords, language, position
            )
        return chunks

    def text(self, document: str, start: int, end: int) -> str:
        """`Index.text`."""
        statement = self._server.sql("""
            SELECT substr(text, %(start)s::int + 1, %(count)s::int) FROM {s}.documents
            WHERE md5(name) = md5(%(name)s) AND name = %(name)s""")
        values = {"start": max(start, 0), "count": max(end - max(start, 0), 0), "name": storable(document)}
        rows = self._server.read(statement, values)
        return str(rows[0][0]) if rows else ""

    def flush(self) -> None:
        """`Index.flush`: after the first documents, or many new ones, build the HNSW index and count afresh."""
        if lacks_nearest(self._server):
            with self._server.write() as connection:
                create_nearest(self._server, connection, self._dimension)
        rows = self._server.read(
            self._server.sql(
                "SELECT t.chunks, c.reltuples FROM {s}.totals t, pg_class c WHERE c.oid = to_regclass({chunks})",
                chunks=sql.Literal(sql.Identifier(self._server.schema, "chunks").as_string()),
            )
        )
        if rows and rows[0][0] and not 0.8 * rows[0][0] <= rows[0][1] <= 1.25 * rows[0][0]:
            with self._server.write() as connection:
                for table in TABLES:
                    connection.execute(
                        sql.SQL("ANALYZE {}").format(sql.Identifier(self._server.schema, table))
                    )

    def verify(self) -> None:
        """`Index.verify`: postings, totals and the HNSW index are derived, and repaired."""
        verify(self._server, self._dimension, self._notice)

    def close(self) -> None:
        """`Index.close`."""
        self._server.close()

    def _passing(self, narrowed: sql.Composable, values: Mapping[str, Any]) -> int:
        """Chunks that pass a filter, `FEW` at most."""
        statement = self._server.sql(_PASSING, condition=narrowed)
        return int(self._server.read(statement, {**values, "few": FEW})[0][0])

    def _filter(
        self, chunk: LiteralString, narrowed: tuple[sql.Composable, dict[str, Any]] | None
    ) -> tuple[sql.Composable, dict[str, Any]]:
        """The part of a statement that narrows a search, and its values."""
        if narrowed is None:
            return sql.SQL(""), {}
        return self._server.sql(_FILTERED, id=sql.SQL(chunk), condition=narrowed[0]), {**narrowed[1]}
