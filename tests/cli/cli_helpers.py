"""Running command lines in this process, over a project of the test's own with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentkit.agent import AgentLoop
from agentkit.build import Workspace
from agentkit.llm.scripted import ScriptedModel, Step
from agentkit.messages import Passage
from agentkit.project import Project, find_project, starter_root
from agentkit.settings import Settings
from agentkit.store import SessionStore
from agentkit.tooling.registry import ToolRegistry
from agentkit.tooling.tool import tool


@tool
def shout(text: str, times: int = 1) -> str:
    """Say a text loudly.

    Args:
        text: What to say.
        times: How often.
    """
    return " ".join([text.upper() + "\x1b[31m"] * times)


@tool(side_effect=True)
def send(to: str) -> dict[str, str]:
    """Send a parcel.

    Args:
        to: Where to.
    """
    return {"sent": to}


@tool
def broken() -> str:
    """Always fails."""
    raise RuntimeError("out of order")


class ScriptedWorkspace:
    """`build.Workspace` with a scripted model and a knowledge base of fixed passages."""

    def __init__(
        self,
        project: Path | None,
        options: dict[str, Any],
        steps: Sequence[Step],
        notices: Sequence[str] = (),
    ) -> None:
        self.project = find_project(project)
        self.settings = self.project.settings(options)
        self.store = SessionStore(self.project.sessions_path)
        self.registry = ToolRegistry([shout, send, broken], self.settings.tools)
        self.model = ScriptedModel(steps)
        self.changes: list[list[str]] = []
        """Notices that come with each agent."""
        self.searched: Any = None
        """What the last search was narrowed to."""
        self.knowledge = SimpleNamespace(
            search=self._search, remove=self._remove, list=lambda: [], notices=notices
        )

    def _search(self, text: str, limit: int, where: Any = None) -> list[Passage]:
        self.searched = where
        return PASSAGES[:limit]

    def _remove(self, name: str) -> None:
        """There is nothing to remove."""

    def ready_knowledge(self, progress: Callable[[str], None] | None = None) -> Any:
        if progress:
            progress("orders/returns.md")
        return self.knowledge

    def jobs(self) -> list[Any]:
        return []

    def agent(self, session: str | None = None) -> AgentLoop:
        opened = self.store.open(session) if session else self.store.create()
        self.knowledge.notices += self.changes.pop(0) if self.changes else []
        prompts = Workspace(Project(starter_root(), is_starter=True), Settings(), {}).prompts
        mode = self.settings.agent.approve
        return AgentLoop(self.model, opened, prompts, tools=self.registry, mode=mode)

    def close(self) -> None:
        self.registry.close()
        self.store.close()


PASSAGES = [
    Passage(1, "orders/returns.md", "Returns > Deadline", "You have 30 days.\x1b[2J", 0.71234, 2),
    Passage(2, "orders/shipping.md", "Shipping", "Two days.", 0.5),
]


class Cli:
    """Runs command lines and keeps what the last one printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder, self._capsys, self._patch = folder, capsys, patch
        self.steps: list[Step] = []
        self.notices: list[str] = []
        """Of the knowledge base."""
        self.changes: list[list[str]] = []
        """Of the knowledge base, with each agent."""
        self.out = self.err = ""
        patch.chdir(folder)
        patch.setenv("AGENTKIT_DATA_DIR", str(folder / "data"))
        patch.setattr("agentkit.build.open_project", self._open)

    def _open(self, project: Path | None = None, options: Any = None) -> ScriptedWorkspace:
        self.workspace = ScriptedWorkspace(project, dict(options or {}), self.steps, self.notices)
        self.workspace.changes = [*self.changes]
        return self.workspace

    def __call__(self, *arguments: str, stdin: str | bytes = "") -> int:
        import io

        from agentkit.cli.main import run

        raw = stdin.encode() if isinstance(stdin, str) else stdin
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        code = run(arguments)
        self.out, self.err = self._capsys.readouterr()
        return code

    def lines(self) -> Iterator[dict[str, Any]]:
        """The objects on stdout."""
        return (json.loads(line) for line in self.out.splitlines())
