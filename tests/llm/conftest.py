"""One compiler for all grammar tests; hypothesis may use session fixtures as they never change."""

from __future__ import annotations

import pytest

from agentkit.llm.grammar import GrammarCompiler
from agentkit.llm.local import LocalModel


@pytest.fixture(scope="session")
def compiler(smollm: LocalModel) -> GrammarCompiler:
    return smollm._grammars()
