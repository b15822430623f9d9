"""Connections to one schema on a PostgreSQL server: reads that survive a restart, writes that queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.sql import Composable, Composed

from agentkit.errors import KnowledgeError, SettingsError
from agentkit.retrieval.postgres.errors import ConnectionLost, explained, unreachable

CONNECT_SECONDS = 10
READ_MS = 30_000
WRITE_MS = 600_000
QUEUE_MS = 30_000
"""How long a writer waits for another."""
EF_SEARCH = 100
"""Vectors HNSW keeps in view at once; where more are wanted, or a filter drops some, it goes on from there."""
PGVECTOR = (0, 8)
"""The first version with scans that go on."""

_LOCK = 0x61676B74
"""First key of the advisory locks; the second is made of the schema's name."""

# Plans must see the values: a plan for any LIMIT and any filter reads whole tables. Tables are always named with
# their schema, so that the path need not hold it and nothing of the same name can stand in for them.
_SESSION = """
    SELECT set_config('search_path', coalesce(quote_ident(n.nspname), 'pg_catalog'), false),
        set_config('statement_timeout', %(read)s, false), set_config('jit', 'off', false),
        set_config('plan_cache_mode', 'force_custom_plan', false),
        set_config('hnsw.iterative_scan', 'relaxed_order', false),
        set_config('hnsw.ef_search', %(ef)s, false), e.extversion
    FROM (SELECT) AS one
    LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'
    LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
"""

Connection = psycopg.Connection[tuple[Any, ...]]
Row = tuple[Any, ...]


class Server:
    """One schema on one server. Safe for several threads: each statement has a connection to itself.

    Args:
        dsn: ``postgresql://USER@HOST:PORT/DATABASE``, or any other address that libpq reads.
        schema: The schema; made when first used.

    Raises:
        SettingsError: The address cannot be read.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        parts = _parts(dsn)
        defaults = {"connect_timeout": str(CONNECT_SECONDS), "application_name": "agentkit"}
        if not 0 < len(schema.encode()) < 64 or schema.startswith("pg_") or "\0" in schema:
            raise SettingsError(
                f"a schema cannot be named {schema!r}",
                "set [knowledge] index_schema to 1 to 63 letters, not pg_…",
            )
        self._conninfo = make_conninfo(
            "", **{**defaults, **{key: str(value) for key, value in parts.items()}}
        )
        self.schema = schema
        self.where = f"the index {schema!r} on {_shown(parts)}"
        """Names the index in messages."""
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Server: {self.where}>"

    def sql(self, text: LiteralString, **parts: Composable) -> Composed:
        """A statement with ``{s}`` for the schema and ``{words}`` for the text search configuration, quoted."""
        return _composed(text, self.schema) if not parts else _fill(text, self.schema, parts)

    def read(
        self, statement: Composed, values: Mapping[str, Any] | None = None, local: LiteralString = ""
    ) -> list[Row]:
        """The rows of one statement, which sees one state of the index.

        Args:
            statement: From `sql`.
            values: Bound to ``%(name)s``.
            local: A statement before it that sets what holds for this one only.

        Where the connection has been lost, the statement is sent once more over a new one.

        Raises:
            KnowledgeError: The server cannot be reached or refuses; says why and what to do.
        """
        with self._explained():
            try:
                return self._read(statement, values, local)
            except ConnectionLost:
                return self._read(statement, values, local)

    def _read(self, statement: Composed, values: Mapping[str, Any] | None, local: LiteralString) -> list[Row]:
        with self._connection() as connection:
            if local:
                with connection.transaction():
                    connection.execute(local)
                    return connection.execute(statement, values, binary=True).fetchall()
            return connection.execute(statement, values, binary=True).fetchall()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, alone: other writers of this schema wait, readers see the state before or after.

        Raises:
            KnowledgeError: As `read`; then nothing has changed.
        """
        self.read(
            self.sql("SELECT 1")
        )  # a connection that was lost meanwhile is replaced before anything is written
        with self._explained(), self._connection() as connection, connection.transaction():
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)",
                (str(WRITE_MS), str(QUEUE_MS)),
            )
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, self.schema))
            yield connection

    def close(self) -> None:
        """Close every connection; the next call opens a new one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise explained(error, self.where) from error

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """An idle connection or a new one; what was lost or left in the middle of something is not used again."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if connection.closed or (error.sqlstate or "").startswith("57P"):
                connection.close()
                self.close()  # if one is lost, so are those that wait
                raise ConnectionLost(str(error)) from error
            raise
        finally:
            if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
                connection.close()
            if not connection.closed:
                with self._lock:
                    self._idle.append(connection)

    def _connect(self) -> Connection:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            raise unreachable(error, self.where) from error
        try:
            self.configure(connection)
        except BaseException:
            with suppress(psycopg.Error):
                connection.close()
            raise
        return connection

    def configure(self, connection: Connection) -> None:
        """Set up the session; once more after the extension has been made.

        Raises:
            KnowledgeError: The extension is too old.
        """
        row = connection.execute(_SESSION, {"read": str(READ_MS), "ef": str(EF_SEARCH)}).fetchone()
        version = row[-1] if row else None
        if version and tuple(int(part) for part in version.split(".")[:2]) < PGVECTOR:
            wanted = ".".join(map(str, PGVECTOR))
            raise KnowledgeError(
                f"{self.where} has pgvector {version}, and {wanted} is the first that can search it",
                "update pgvector on the server, then ALTER EXTENSION vector UPDATE",
            )


@cache
def _composed(text: LiteralString, schema: str) -> Composed:
    return _fill(text, schema, {})


def _fill(text: LiteralString, schema: str, parts: Mapping[str, Composable]) -> Composed:
    words = sql.SQL("{}::regconfig").format(sql.Identifier(schema, "words").as_string())
    return sql.SQL(text).format(s=sql.Identifier(schema), words=words, **parts)


def _parts(dsn: str) -> dict[str, Any]:
    """The address taken apart.

    Neither the address nor what libpq says of it is shown: with a special character in it, the rest of a password
    is taken for host, port or database.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        parts = {"port": "not a number"}
    port = str(parts.get("port") or "0").replace(",", "")
    if not port.isdecimal() or "@" in f"{parts.get('host')}{parts.get('dbname')}":
        raise SettingsError(
            "the address of the knowledge index is no PostgreSQL address",
            "write postgresql://USER@HOST:PORT/DATABASE, with % codes for special characters",
        )
    return parts


def _shown(parts: Mapping[str, Any]) -> str:
    """The address without password and options."""
    user = f"{parts['user']}@" if parts.get("user") else ""
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"postgresql://{user}{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or ''}"
