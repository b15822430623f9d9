"""One compiler for all grammar tests; hypothesis may use session fixtures as they never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentkit.engine.decode import Sampler
from agentkit.llm.grammar import GrammarCompiler
from agentkit.llm.local import LocalModel


@pytest.fixture(scope="session")
def compiler(smollm: LocalModel) -> GrammarCompiler:
    return smollm._grammars()


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[int]], list[int]]:
    """Makes the model write these tokens before its own; gives the list of those that are left."""
    sample = Sampler.sample

    def given(tokens: Sequence[int]) -> list[int]:
        left = list(tokens)

        def scripted(self: Sampler, logits: Any, *rest: Any) -> int:
            return left.pop(0) if left else sample(self, logits, *rest)

        monkeypatch.setattr(Sampler, "sample", scripted)
        return left

    return given
