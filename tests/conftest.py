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
def exact_smollm() -> LocalModel:
    """The embedded model in float32: bf16 rounds a token read alone otherwise than one read among others.

    What the cache must not change can be told from what rounding changes only here.
    """
    return _exact("smollm2-135m")


@pytest.fixture(scope="session")
def exact_gemma() -> LocalModel:
    """A second family in float32: layers with a sliding window, embeddings that are scaled, another tokenizer."""
    return _exact("gemma3-270m")


def _exact(name: str) -> LocalModel:
    import torch

    from agentkit.assets import asset_path
    from agentkit.engine import weights
    from agentkit.llm.local import LocalModel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "native_dtype", lambda device="cpu": torch.float32)
        loaded = weights.load_weights(asset_path(name), device="cpu", quantize="none")
    return LocalModel(loaded)
