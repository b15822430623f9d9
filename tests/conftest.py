"""For every test: no hub, user data in a throw-away folder. The cache of embedded models is the real one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentkit.llm.local import LocalModel

# At import, before any test module imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _name in [key for key in os.environ if key.startswith("AGENTKIT_") and key != "AGENTKIT_CACHE_DIR"]:
    del os.environ[_name]  # a developer's own settings are no part of a test


@pytest.fixture(scope="session", autouse=True)
def _data_dir() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="agentkit-test-") as folder:
        os.environ["AGENTKIT_DATA_DIR"] = folder
        yield
        del os.environ["AGENTKIT_DATA_DIR"]


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
