"""`IndexPlace` on a PostgreSQL server: the index, and the files that people added on any machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from agentkit.errors import KnowledgeError
from agentkit.retrieval.loaders import read_bytes
from agentkit.retrieval.postgres.index import PostgresIndex
from agentkit.retrieval.postgres.schema import remake_schema
from agentkit.retrieval.postgres.server import Server
from agentkit.retrieval.postgres.words import storable
from agentkit.retrieval.protocol import Index


class PostgresPlace:
    """One schema on one server: one knowledge base, for all machines that have the same folder of documents.

    Args:
        dsn: As for `PostgresIndex`.
        schema: As for `PostgresIndex`.

    Raises:
        SettingsError: The address cannot be read.
        KnowledgeError: From every method, where the server cannot be reached or refuses.
    """

    def __init__(self, dsn: str, schema: str = "agentkit") -> None:
        self._dsn, self._schema = dsn, schema
        Server(dsn, schema)  # tells a wrong address before anything is done

    def open(self, dimension: int, notice: Callable[[str], None]) -> Index:
        """`IndexPlace.open`."""
        return PostgresIndex(self._dsn, dimension, notice, self._schema)

    def discard(self, dimension: int, outdated: bool = False) -> str:
        """`IndexPlace.discard`: the tables are dropped; every row but the added files can be made anew."""
        with self._server() as server:
            if not remake_schema(server, dimension, outdated):
                return "another process has made them anew"
            return "its tables were dropped and made anew"

    def pull(self, folder: Path) -> None:
        """`IndexPlace.pull`: only files that differ are sent."""
        with self._server() as server:
            kept: dict[str, str] = dict(server.read(server.sql("SELECT name, sha256 FROM {s}.files")))
            here = {path.relative_to(folder).as_posix(): path for path in _visible_files(folder)}
            for name in here.keys() - kept.keys():
                here[name].unlink(missing_ok=True)
            for name, sha256 in kept.items():
                if name not in here or _sha256(here[name].read_bytes()) != sha256:
                    rows = server.read(
                        server.sql(
                            "SELECT content FROM {s}.files WHERE md5(name) = md5(%(n)s) AND name = %(n)s"
                        ),
                        {"n": name},
                    )
                    if rows:
                        _write(folder, name, rows[0][0], server.where)

    def push(self, name: str, path: Path) -> None:
        """`IndexPlace.push`."""
        content = read_bytes(path)
        with self._server() as server, server.write() as connection:
            connection.execute(
                server.sql("""
                    INSERT INTO {s}.files VALUES (%s, %s, %b) ON CONFLICT (md5(name))
                    DO UPDATE SET name = excluded.name, sha256 = excluded.sha256, content = excluded.content"""),
                (storable(name), _sha256(content), content),
            )

    def forget(self, name: str) -> None:
        """`IndexPlace.forget`."""
        with self._server() as server, server.write() as connection:
            connection.execute(
                server.sql("DELETE FROM {s}.files WHERE md5(name) = md5(%(n)s) AND name = %(n)s"),
                {"n": storable(name)},
            )

    def __repr__(self) -> str:
        return f"<PostgresPlace: schema {self._schema!r}>"

    @contextmanager
    def _server(self) -> Iterator[Server]:
        server = Server(self._dsn, self._schema)
        try:
            yield server
        except OSError as error:
            raise KnowledgeError(
                f"cannot copy added documents: {error}", "check permissions and the disk"
            ) from error
        finally:
            server.close()


def _visible_files(folder: Path) -> Iterator[Path]:
    """Hidden ones are being written by another process."""
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _write(folder: Path, name: str, content: bytes, where: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise KnowledgeError(
            f"{where} keeps a file named {name!r}, which leads out of the folder of added documents",
            "somebody put it there by hand; delete it from the table files",
        )
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    os.replace(temporary, target)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
