"""`Index` on a PostgreSQL server with pgvector, for those who outgrow one machine.

Needs the package psycopg; nothing else of agentkit imports this before it is used.
"""

from __future__ import annotations

from agentkit.errors import MissingBackendError

try:
    import psycopg as _psycopg  # noqa: F401
except ImportError as _error:
    raise MissingBackendError(
        f"a knowledge index on PostgreSQL needs the package psycopg ({_error})",
        "pip install 'psycopg[binary]>=3.2'",
    ) from _error

from agentkit.retrieval.postgres.index import PostgresIndex
from agentkit.retrieval.postgres.place import PostgresPlace

__all__ = ["PostgresIndex", "PostgresPlace"]
