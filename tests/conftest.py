"""For every test: no hub, user data in a throw-away folder. The cache of embedded models is the real one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from agentkit.llm.local import LocalModel

# At import, before any test module imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Threads that spin while they wait take ten times as long as soon as another process wants one of their cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for _name in [key for key in os.environ if key.startswith("AGENTKIT_") and key != "AGENTKIT_CACHE_DIR"]:
    del os.environ[_name]  # a developer's own settings are no part of a test


# The same examples each time, however slow the machine is: a failure is one of the code.
settings.register_profile("agentkit", deadline=None, derandomize=True, database=None)
settings.load_profile("agentkit")


@pytest.fixture(scope="session", autouse=True)
def _data_dir() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="agentkit-test-") as folder:
        os.environ["AGENTKIT_DATA_DIR"] = folder
        yield
        del os.environ["AGENTKIT_DATA_DIR"]


@pytest.fixture(autouse=True)
def _close_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests may leave stores open, as a kill does; Python 3.13 warns about those."""
    opened, connect = [], sqlite3.connect

    def remember(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    yield
    for connection in opened:
        with contextlib.suppress(
            sqlite3.ProgrammingError
        ):  # a thread's own, which only that thread may close
            connection.close()


@pytest.fixture(scope="session")
def smollm() -> LocalModel:
    """The embedded model, loaded once; without a router it opens calls by itself."""
    from agentkit.build import load_model
    from agentkit.llm.local import LocalModel

    model = load_model("smollm2-135m", adapter="none")
    return LocalModel(model._loaded)


@pytest.fixture(scope="session")
def gemma() -> LocalModel:
    """A second family: layers with a sliding window, embeddings that are scaled, another tokenizer."""
    from agentkit.build import load_model
    from agentkit.llm.local import LocalModel

    return LocalModel(load_model("gemma3-270m", adapter="none")._loaded)
