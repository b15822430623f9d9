"""The tables of the index in PostgreSQL: made, checked for their version, made anew."""

from __future__ import annotations

from typing import LiteralString

from psycopg import errors, sql

from agentkit.errors import IndexOutdated, KnowledgeError
from agentkit.retrieval.postgres.errors import REBUILD, first_line
from agentkit.retrieval.postgres.server import Connection, Server

SCHEMA_VERSION = "4"
MAX_DIMENSION = 4_000
"""What HNSW over half-precision vectors can hold."""
FLAT = 5_000
"""Vectors up to which all are compared; from here on an HNSW index answers. It is built in one go after the first round
of changes that reaches this: every vector that goes into an index that is there already costs ten times as much."""
_BUILD_MEMORY = 262_144
"""Kilobytes for building it; the server's own setting where that is more."""

# Names, keys and values may be longer than an entry of a B-tree can be, so their hashes are indexed.
_TABLES: tuple[LiteralString, ...] = (
    "CREATE TABLE {s}.meta (key text PRIMARY KEY, value text NOT NULL)",
    """CREATE TABLE {s}.totals (documents bigint NOT NULL, chunks bigint NOT NULL, words bigint NOT NULL)""",
    "CREATE SEQUENCE {s}.ids",  # of documents and chunks; none is ever used twice
    """CREATE TABLE {s}.documents (
        id bigint PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        origin text NOT NULL CHECK (origin IN ('folder', 'added')),
        title text NOT NULL,
        text text NOT NULL,
        language text NOT NULL,
        keywords text NOT NULL -- one phrase a line
    )""",
    "CREATE UNIQUE INDEX documents_by_name ON {s}.documents (md5(name))",
    """CREATE TABLE {s}.metadata (
        document bigint NOT NULL REFERENCES {s}.documents ON DELETE CASCADE,
        key text NOT NULL,
        value text NOT NULL
    )""",
    "CREATE INDEX metadata_by_document ON {s}.metadata (document)",
    "CREATE INDEX metadata_by_key ON {s}.metadata (md5(key), md5(value))",
    """CREATE TABLE {s}.chunks (
        id bigint PRIMARY KEY,
        document bigint NOT NULL REFERENCES {s}.documents ON DELETE CASCADE,
        position integer NOT NULL,
        heading text NOT NULL,
        text text NOT NULL,
        keywords text NOT NULL, -- its own, and its terms, one phrase a line
        language text NOT NULL,
        page integer,
        start integer NOT NULL,
        stop integer NOT NULL,
        length integer NOT NULL, -- words of heading, text and keywords
        words tsvector NOT NULL -- of these: headings have weight A, the others D
    )""",
    "CREATE INDEX chunks_by_document ON {s}.chunks (document)",
    # BM25 needs counts that a GIN index does not have; derived from chunks.words.
    """CREATE TABLE {s}.postings (
        lexeme text COLLATE "C" NOT NULL,
        chunk bigint NOT NULL,
        frequency integer NOT NULL, -- in headings it counts double
        length integer NOT NULL, -- of the chunk
        PRIMARY KEY (lexeme, chunk) INCLUDE (frequency, length)
    )""",
    # Words as they stand in the text: no stop words, Porter's stemmer. See words.py.
    "CREATE TEXT SEARCH DICTIONARY {s}.stem (TEMPLATE = pg_catalog.snowball, LANGUAGE = porter)",
    "CREATE TEXT SEARCH CONFIGURATION {s}.words (PARSER = pg_catalog.default)",
    """ALTER TEXT SEARCH CONFIGURATION {s}.words
        ADD MAPPING FOR asciiword, word, numword, int, uint, float, sfloat, version WITH {s}.stem""",
    """CREATE TABLE IF NOT EXISTS {s}.files ( -- what people added, as it was: the one thing nothing else has
        name text NOT NULL,
        sha256 text NOT NULL,
        content bytea NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS files_by_name ON {s}.files (md5(name))",
)

# Rows of a document's or a chunk's matrix, one vector each; n counts from 0. Full precision is stored and decides the
# order of what the index finds; the index holds halves, a half of the memory.
_VECTORS: tuple[LiteralString, ...] = (
    """CREATE TABLE {s}.vectors (
        chunk bigint NOT NULL REFERENCES {s}.chunks ON DELETE CASCADE,
        n smallint NOT NULL,
        embedding vector({dimension}) NOT NULL,
        PRIMARY KEY (chunk, n)
    )""",
    """CREATE TABLE {s}.phrases (
        document bigint NOT NULL REFERENCES {s}.documents ON DELETE CASCADE,
        n smallint NOT NULL,
        embedding vector({dimension}) NOT NULL,
        PRIMARY KEY (document, n)
    )""",
    # Sampling whole vectors would be most of the work of ANALYZE, and nothing is planned by them.
    "ALTER TABLE {s}.vectors ALTER embedding SET STATISTICS 0",
    "ALTER TABLE {s}.phrases ALTER embedding SET STATISTICS 0",
)
_NEAREST: LiteralString = """CREATE INDEX vectors_by_nearness ON {s}.vectors
    USING hnsw ((embedding::halfvec({dimension})) halfvec_ip_ops)"""

_DROPPED: tuple[LiteralString, ...] = (
    "DROP TABLE {s}.meta",
    "DROP TABLE IF EXISTS {s}.totals, {s}.vectors, {s}.phrases, {s}.postings, {s}.chunks, {s}.metadata, {s}.documents",
    "DROP SEQUENCE IF EXISTS {s}.ids",
    "DROP TEXT SEARCH CONFIGURATION IF EXISTS {s}.words",
    "DROP TEXT SEARCH DICTIONARY IF EXISTS {s}.stem",
)
TABLES = ("documents", "metadata", "chunks", "vectors", "phrases", "postings")


def open_schema(server: Server, dimension: int) -> None:
    """Make the tables where there are none.

    Raises:
        KnowledgeError: They are of another version, or the schema is in use for something else.
    """
    if not server.read(server.sql("SELECT to_regclass({meta}) IS NOT NULL", meta=_meta(server)))[0][0]:
        with server.write() as connection:
            if _has_meta(server, connection):  # another process was faster
                server.configure(connection)  # made when there was no type for vectors yet
                return
            names = connection.execute(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s"
                " AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> 'files' LIMIT 1",
                (server.schema,),
            ).fetchall()
            if names:
                raise _foreign(server, f"holds the table {names[0][0]!r}")
            _create(server, connection, dimension)
    rows = server.read(server.sql("SELECT value FROM {s}.meta WHERE key = 'version'"))
    if [row[0] for row in rows] != [SCHEMA_VERSION]:
        raise IndexOutdated(f"{server.where} is of another version of agentkit", REBUILD)


def remake_schema(server: Server, dimension: int, outdated: bool = False) -> bool:
    """Drop the tables, but for the files that people added, and make them anew.

    Args:
        server: Where they are.
        dimension: Of the vectors to come.
        outdated: Only if they are still of another version.

    Returns:
        False where they are not any more.

    Raises:
        KnowledgeError: They are not agentkit's.
    """
    with server.write() as connection:
        if _has_meta(server, connection):
            try:
                with connection.transaction():
                    rows = connection.execute(
                        server.sql("SELECT value FROM {s}.meta WHERE key = 'version'")
                    ).fetchall()
            except errors.UndefinedColumn:
                rows = []
            if not rows:
                raise _foreign(server, "has a table 'meta' that is not agentkit's")
            if outdated and [row[0] for row in rows] == [SCHEMA_VERSION]:
                return False
            for statement in _DROPPED:
                connection.execute(server.sql(statement))
            _create(server, connection, dimension)
            return True
    open_schema(server, dimension)
    return True


def column_dimension(server: Server) -> int:
    """Dimension of the vectors that the tables hold."""
    rows = server.read(
        server.sql(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass({vectors}) AND attname = 'embedding'",
            vectors=sql.Literal(sql.Identifier(server.schema, "vectors").as_string()),
        )
    )
    return int(rows[0][0]) if rows else 0


def create_vectors(server: Server, connection: Connection, dimension: int) -> None:
    """The two tables of vectors.

    Raises:
        KnowledgeError: The dimension is more than pgvector can index.
    """
    if dimension > MAX_DIMENSION:
        raise KnowledgeError(
            f"vectors of {dimension:,} dimensions cannot be indexed by pgvector",
            f"use an embedder with at most {MAX_DIMENSION:,}",
        )
    for statement in _VECTORS:
        connection.execute(server.sql(statement, dimension=sql.Literal(dimension)))


def lacks_nearest(server: Server) -> bool:
    """Whether there are so many vectors that there should be an HNSW index, and there is none."""
    nearest = sql.Literal(sql.Identifier(server.schema, "vectors_by_nearness").as_string())
    statement = server.sql(
        """
        SELECT NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass({nearest}) AND indisvalid)
            AND (SELECT count(*) FROM (SELECT FROM {s}.vectors LIMIT %(flat)s) AS first_ones) >= %(flat)s""",
        nearest=nearest,
    )
    return bool(server.read(statement, {"flat": FLAT})[0][0])


def drop_nearest(server: Server, connection: Connection) -> None:
    """Without the HNSW index; many vectors are about to come."""
    connection.execute(server.sql("DROP INDEX IF EXISTS {s}.vectors_by_nearness"))


def create_nearest(server: Server, connection: Connection, dimension: int) -> None:
    """The HNSW index over all vectors."""
    drop_nearest(server, connection)
    # Parallel workers would share this memory, of which containers have little.
    connection.execute(
        """
        SELECT set_config('statement_timeout', '0', true), set_config('max_parallel_maintenance_workers', '0', true),
            set_config('maintenance_work_mem', greatest(setting::bigint, %s) || 'kB', true)
        FROM pg_settings WHERE name = 'maintenance_work_mem'""",
        (_BUILD_MEMORY,),
    )
    connection.execute(server.sql(_NEAREST, dimension=sql.Literal(dimension)))


def _create(server: Server, connection: Connection, dimension: int) -> None:
    encoding = connection.execute("SELECT current_setting('server_encoding')").fetchone()
    if encoding != ("UTF8",):
        raise KnowledgeError(
            f"{server.where} is in a database that is not in UTF-8", "make one with ENCODING 'UTF8'"
        )
    schema = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
    if not connection.execute(schema, (server.schema,)).fetchone():
        connection.execute(server.sql("CREATE SCHEMA {s}"))
    _create_extension(server, connection)
    for statement in _TABLES:
        connection.execute(server.sql(statement))
    create_vectors(server, connection, dimension)
    connection.execute(server.sql("INSERT INTO {s}.totals VALUES (0, 0, 0)"))
    connection.execute(
        server.sql("INSERT INTO {s}.meta VALUES ('version', %s), ('embedder', '')"), (SCHEMA_VERSION,)
    )


def _create_extension(server: Server, connection: Connection) -> None:
    if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
        try:
            public = connection.execute(
                "SELECT count(*) FROM pg_namespace"
                " WHERE nspname = 'public' AND has_schema_privilege(oid, 'CREATE')"
            ).fetchone()
            home = sql.Identifier("public" if public == (1,) else server.schema)
            connection.execute(sql.SQL("CREATE EXTENSION vector SCHEMA {}").format(home))
        except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
            raise KnowledgeError(
                f"{server.where} is on a server without pgvector",
                "install it there (Debian: postgresql-NN-pgvector)",
            ) from error
        except errors.InsufficientPrivilege as error:
            raise KnowledgeError(
                f"{server.where} has no extension vector, and this role may not make it ({first_line(error)})",
                "let an administrator run CREATE EXTENSION vector in that database",
            ) from error
    server.configure(connection)


def _meta(server: Server) -> sql.Literal:
    return sql.Literal(sql.Identifier(server.schema, "meta").as_string())


def _has_meta(server: Server, connection: Connection) -> bool:
    row = connection.execute(
        server.sql("SELECT to_regclass({meta}) IS NOT NULL", meta=_meta(server))
    ).fetchone()
    return row == (True,)


def _foreign(server: Server, what: str) -> KnowledgeError:
    return KnowledgeError(f"{server.where} {what}", "name a schema of its own with [knowledge] index_schema")
