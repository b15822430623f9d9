"""What happens within one transaction of a writer: documents out, documents in, derived tables made anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import sql

from agentkit.retrieval.postgres.server import Connection, Server
from agentkit.retrieval.postgres.wire import copy_rows
from agentkit.retrieval.postgres.words import storable, tokens
from agentkit.retrieval.records import NewDocument, Vectors

_POSTINGS: LiteralString = """
    INSERT INTO {s}.postings (lexeme, chunk, frequency, length)
    SELECT w.lexeme, c.id, cardinality(w.weights) + cardinality(array_positions(w.weights, 'A')), c.length
    FROM {s}.chunks c, unnest(c.words) AS w"""
_TOTALS: LiteralString = """
    UPDATE {s}.totals SET documents = documents + %s, chunks = chunks + %s, words = words + %s"""
_CHUNK = (
    "id",
    "document",
    "position",
    "heading",
    "text",
    "keywords",
    "language",
    "page",
    "start",
    "stop",
    "length",
)
_TYPES = (
    "bigint",
    "bigint",
    "integer",
    "text",
    "text",
    "text",
    "text",
    "integer",
    "integer",
    "integer",
    "integer",
)


@dataclass(slots=True)
class _Rows:
    """Columns of what is inserted, gathered over all documents."""

    documents: list[tuple[Any, ...]] = field(default_factory=list)
    metadata: list[tuple[int, str, str]] = field(default_factory=list)
    chunks: list[tuple[Any, ...]] = field(default_factory=list)
    words: list[tuple[str, str]] = field(default_factory=list)
    """Of each chunk: words of its heading; words of text and keywords."""


def delete(server: Server, connection: Connection, names: Sequence[str]) -> None:
    """Documents with all that belongs to them; unknown names are ignored."""
    run = connection.execute
    names = [storable(name) for name in names]
    found = run(
        server.sql(
            "SELECT id FROM {s}.documents WHERE md5(name) = ANY(SELECT md5(n) FROM unnest(%s::text[]) n)"
            " AND name = ANY(%s)"
        ),
        (names, names),
    ).fetchall()
    ids = [row[0] for row in found]
    if not ids:
        return
    gone = run(
        server.sql("SELECT count(*), coalesce(sum(length), 0) FROM {s}.chunks WHERE document = ANY(%s)"),
        (ids,),
    ).fetchone() or (0, 0)
    run(
        server.sql("""
            DELETE FROM {s}.postings p USING {s}.chunks c, unnest(tsvector_to_array(c.words)) AS own
            WHERE c.document = ANY(%s) AND p.lexeme = own AND p.chunk = c.id"""),
        (ids,),
    )
    run(server.sql("DELETE FROM {s}.documents WHERE id = ANY(%s)"), (ids,))
    run(server.sql(_TOTALS), (-len(ids), -gone[0], -gone[1]))


def insert(server: Server, connection: Connection, documents: Sequence[NewDocument]) -> None:
    """Documents of names that the index does not have."""
    wanted = len(documents) + sum(len(document.chunks) for document in documents)
    sequence = sql.Literal(sql.Identifier(server.schema, "ids").as_string())
    statement = server.sql("SELECT nextval({ids}::regclass) FROM generate_series(1, %s)", ids=sequence)
    ids = iter([row[0] for row in connection.execute(statement, (wanted,)).fetchall()])
    rows = _Rows()
    phrases, vectors = dict[int, Vectors](), dict[int, Vectors]()
    for document in documents:
        own = _add_document(rows, next(ids), document)
        phrases[own] = document.phrases
        for position, matrix in enumerate(document.vectors):
            chunk = next(ids)
            _add_chunk(rows, chunk, own, position, document)
            vectors[chunk] = matrix
    _insert_rows(server, connection, rows)
    for table, owner, matrices in (("vectors", "chunk", vectors), ("phrases", "document", phrases)):
        if matrices:
            copied = sql.SQL("COPY {} ({}, n, embedding) FROM STDIN (FORMAT BINARY)").format(
                sql.Identifier(server.schema, table), sql.Identifier(owner)
            )
            with connection.cursor().copy(copied) as copy:
                copy.write(copy_rows([*matrices], [*matrices.values()]))
    connection.execute(
        server.sql(_TOTALS), (len(documents), len(rows.chunks), sum(row[-1] for row in rows.chunks))
    )


def remake_derived(server: Server, connection: Connection) -> None:
    """Postings and totals, from the chunks."""
    for statement in _REMADE:
        connection.execute(server.sql(statement))


_REMADE: tuple[LiteralString, ...] = (
    "DELETE FROM {s}.postings",
    _POSTINGS,
    "DELETE FROM {s}.totals",
    """INSERT INTO {s}.totals SELECT (SELECT count(*) FROM {s}.documents), count(*), coalesce(sum(length), 0)
        FROM {s}.chunks""",
)


def _add_document(rows: _Rows, own: int, document: NewDocument) -> int:
    texts = (
        document.name,
        document.sha256,
        document.origin,
        document.title,
        document.text,
        document.language,
    )
    rows.documents.append((own, *map(storable, texts), storable("\n".join(document.keywords))))
    rows.metadata += [(own, storable(key), storable(value)) for key, value in document.metadata.items()]
    return own


def _add_chunk(rows: _Rows, own: int, document: int, position: int, source: NewDocument) -> None:
    chunk = source.chunks[position]
    heading, text = tokens(chunk.heading), tokens(chunk.text)
    keywords = tokens("\n".join([chunk.looked_up(), *source.keywords]))
    length = len(heading) + len(text) + len(keywords)
    rows.words.append((" ".join(heading), " ".join(text + keywords)))
    rows.chunks.append(
        (
            own, document, position, storable(chunk.heading), storable(chunk.text), storable(chunk.looked_up()),
            storable(chunk.language), chunk.page, chunk.start, chunk.end, length,
        )
    )  # fmt: skip


def _insert_rows(server: Server, connection: Connection, rows: _Rows) -> None:
    def columns(values: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
        return [[row[n] for row in values] for n in range(count)]

    connection.execute(
        server.sql("""
            INSERT INTO {s}.documents (id, name, sha256, origin, title, text, language, keywords)
            SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::text[])"""),
        columns(rows.documents, 8),
    )
    connection.execute(
        server.sql("INSERT INTO {s}.metadata SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[])"),
        columns(rows.metadata, 3),
    )
    arrays = sql.SQL(", ").join(
        sql.SQL("{}::{}[]").format(sql.Placeholder(), sql.SQL(name)) for name in _TYPES
    )
    connection.execute(
        server.sql(
            """
            INSERT INTO {s}.chunks ({columns}, words)
            SELECT {columns}, setweight(to_tsvector({words}, heads), 'A') || to_tsvector({words}, others)
            FROM unnest({arrays}, %s::text[], %s::text[]) AS new ({columns}, heads, others)""",
            columns=sql.SQL(", ").join(map(sql.Identifier, _CHUNK)),
            arrays=arrays,
        ),
        [*columns(rows.chunks, len(_CHUNK)), *columns(rows.words, 2)],
    )
    connection.execute(server.sql(_POSTINGS + " WHERE c.id = ANY(%s)"), ([row[0] for row in rows.chunks],))
