"""The starter tools as users run them: loaded from ``tools/``, in the worker process, on the real assets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.messages import ToolCall, ToolResult
from agentkit.settings import ToolSettings
from agentkit.tooling.registry import ToolRegistry, load_tools

STARTER = Path(__file__).parents[2] / "tools"
Run = Callable[..., ToolResult]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "lee", "likes", "the", "lamp", "hola", ".", "?"]


def _runner(registry: ToolRegistry) -> Run:
    def run(name: str, /, **arguments: Any) -> ToolResult:
        return registry.run(ToolCall("call_1", name, arguments))

    return run


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """``run("ner", text=…)`` with the default options."""
    # a loaded machine is no reason to fail: the limit is not what is tested here
    with ToolRegistry(load_tools(STARTER), ToolSettings(timeout_s=300)) as registry:
        yield _runner(registry)


@pytest.fixture
def run_with() -> Iterator[Callable[..., Run]]:
    """``run_with("ner", model=folder)``: a runner with options for one tool."""
    registries: list[ToolRegistry] = []

    def make(tool_name: str, **options: Any) -> Run:
        settings = ToolSettings(timeout_s=300, options={tool_name: options})
        registries.append(ToolRegistry(load_tools(STARTER), settings))
        return _runner(registries[-1])

    yield make
    for registry in registries:
        registry.close()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A word-piece tokenizer of `WORDS`."""
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
