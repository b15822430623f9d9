"""A registry over tools written to a file, so that they run in the worker process."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.settings import ToolSettings
from agentkit.tooling.registry import ToolRegistry, load_tools

HEAD = "from __future__ import annotations\nfrom agentkit.tooling.tool import tool\n"
MakeRegistry = Callable[..., ToolRegistry]


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[MakeRegistry]:
    """``make_registry(code, timeout_s=…)``: the tools of this code, in the worker process."""
    registries: list[ToolRegistry] = []

    def make(code: str, **settings: Any) -> ToolRegistry:
        folder = tmp_path / f"tools{len(registries)}"
        folder.mkdir()
        (folder / "mine.py").write_text(HEAD + textwrap.dedent(code), encoding="utf-8")
        registries.append(ToolRegistry(load_tools(folder), ToolSettings(**settings)))
        return registries[-1]

    yield make
    for registry in registries:
        registry.close()
