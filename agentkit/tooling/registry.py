"""The tools of one agent: found by name, described to models, run without ever raising."""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Map
from typing import Any

from agentkit.closing import Closing
from agentkit.errors import NotFoundError
from agentkit.messages import ToolCall, ToolResult, ToolSpec
from agentkit.settings import ToolSettings
from agentkit.tooling.context import Options
from agentkit.tooling.loading import load_entry_points, load_tools, unique
from agentkit.tooling.results import Outcome, error_text
from agentkit.tooling.sandbox import Sandbox
from agentkit.tooling.tool import Tool, tool

__all__ = ["ToolRegistry", "load_entry_points", "load_tools"]


class ToolRegistry(Closing):
    """Tools by name, and the sandbox they run in. Close it, or use it as a context manager.

    Args:
        tools: Tools, or plain functions that become tools.
        settings: Default limits, and the options of each tool.
        environment: Variables for the worker process, e.g. ``AGENTKIT_PROJECT``.

    Raises:
        ProjectError: Two tools have the same name.
        SchemaError: A plain function cannot become a tool.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        settings: ToolSettings | None = None,
        environment: Map[str, str] | None = None,
    ) -> None:
        found = unique(item if isinstance(item, Tool) else tool(item) for item in tools)
        self._tools = {item.name: item for item in found}
        self._settings = settings if settings is not None else ToolSettings()
        options: Options = self._settings.options
        self._sandbox = Sandbox(options, environment or {})

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def specs(self) -> list[ToolSpec]:
        """What models need to know, in order of registration."""
        return [item.spec for item in self]

    def get(self, name: str) -> Tool:
        """The tool of this name.

        Raises:
            NotFoundError: There is none; names the nearest.
        """
        if name not in self._tools:
            near = difflib.get_close_matches(name, self._tools, n=3, cutoff=0.5) or list(self._tools)[:8]
            remedy = f"did you mean {' or '.join(near)}?" if near else "this project has no tools"
            raise NotFoundError(f"no tool is called {name!r}", remedy)
        return self._tools[name]

    def run(self, call: ToolCall, cancel: threading.Event | None = None) -> ToolResult:
        """Run a call within its limits. Whatever goes wrong is a result with ``ok=False``.

        Args:
            call: The call; its arguments are validated and coerced here.
            cancel: When set, the tool is stopped.
        """
        started = time.perf_counter()
        try:
            found = self.get(call.name)
            outcome = self._sandbox.run(
                found,
                call.arguments,
                found.timeout_s if found.timeout_s is not None else self._settings.timeout_s,
                found.output_limit if found.output_limit is not None else self._settings.output_limit,
                cancel,
            )
        except Exception as error:  # the promise of this method
            outcome = Outcome(False, error=error_text(error))
        seconds = round(time.perf_counter() - started, 4)
        return ToolResult(
            call.id, call.name, outcome.ok, outcome.value, outcome.error, seconds, outcome.truncated
        )

    def close(self) -> None:
        """End the worker process, if one runs."""
        self._sandbox.close()
