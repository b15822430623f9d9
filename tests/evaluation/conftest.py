"""The real MiniLM, a small knowledge base, and rows as a run leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit.assets import asset_path
from agentkit.evaluation.grounded import Claim
from agentkit.evaluation.rows import Row
from agentkit.messages import Citation
from agentkit.retrieval.embedder import MiniLMEmbedder, load_embedder
from agentkit.retrieval.knowledge import KnowledgeBase
from tests.leaderboard import forget, install


@pytest.fixture(scope="session")
def minilm() -> MiniLMEmbedder:
    return load_embedder(asset_path("minilm"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "orders").mkdir(parents=True)
    (root / "orders" / "returns.md").write_text(
        "# Returns\n\n## Period\n\nYou can return an item within 30 days of delivery.\n\n"
        "## Fees\n\n| Country | Fee |\n|---|---|\n| Ireland | €3.95 |\n| Spain | €7 |\n"
    )
    (root / "care.txt").write_text("CARE\n\nWash linen at 40 degrees.\n\nDo not bleach wool.\n")
    return root


@pytest.fixture
def base(folder: Path, tmp_path: Path, minilm: MiniLMEmbedder) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase(folder, tmp_path / "index.db", minilm)
    base.sync()
    yield base
    base.close()


ROW = Row(
    id="a1",
    question="How long can I return things?",
    kind="plain",
    near_miss=False,
    split="report",
    documents=("orders/returns.md",),
    facts=(("30 days", "thirty days"),),
    query="How long can I return things?",
    ranking=("orders/returns.md", "care.txt"),
    dense=("care.txt", "orders/returns.md"),
    answerable=0.9,
    text="You have 30 days. [1]",
    claims=(Claim("You have 30 days.", True, ("verbatim",)),),
    citations=(Citation(1, "orders/returns.md", "Returns", None, "You have 30 days.", 0.9),),
    tools=(),
    notices=(),
    abstained=False,
    right=True,
    search_s=0.01,
    turn_s=0.2,
    model_text="A week. Maybe two.",
    model_claims=(Claim("A week.", False), Claim("Maybe two.", False)),
    model_right=False,
)


@pytest.fixture
def row() -> Callable[..., Row]:
    """A row that is right, with what is given changed; unanswerable ones lose their labels."""

    def make(**changes: Any) -> Row:
        if changes.get("kind") == "unanswerable":
            changes = {"documents": (), "facts": (), **changes}
        return replace(ROW, **changes)

    return make


@pytest.fixture
def leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for bfcl-eval."""
    install(tmp_path / "site", monkeypatch)
    yield
    forget()
