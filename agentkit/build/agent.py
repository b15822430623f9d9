"""An agent, wired."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.agent import AgentLoop, check_adapter
from agentkit.answers import Knowledge
from agentkit.closing import Closing

if TYPE_CHECKING:
    from agentkit.build.workspace import Workspace
    from agentkit.llm.protocol import ChatModel
    from agentkit.tooling.registry import ToolRegistry

SMALL = 1_000_000_000
"""Parameters under which ``[agent] answers = "auto"`` quotes."""


class Agent(AgentLoop, Closing):
    """An agent, wired.

    ::

        agent = Agent.from_project()
        agent = Agent(model="smollm2-135m", tools=[my_function], knowledge=KnowledgeBase("docs"))
        reply = agent.ask("Where is order 1042?")

    Args:
        model: A loaded `ChatModel`, or the name of one.
        tools: Tools or plain typed functions.
        knowledge: What answers are grounded in.
        workspace: The project whose prompts, settings and session store are used; found as usual by default.
        session: Id of a session to resume; a new one by default.
        adapter: What this conversation runs with, where not the model's own choice: ``auto``, ``none``, a name, a path.
    """

    def __init__(
        self,
        model: ChatModel | str | None = None,
        *,
        tools: Iterable[Any] | ToolRegistry = (),
        knowledge: Knowledge | None = None,
        workspace: Workspace | None = None,
        session: str | None = None,
        adapter: str | None = None,
    ) -> None:
        from agentkit.build.workspace import open_project
        from agentkit.tooling.registry import ToolRegistry

        self._owns_workspace = workspace is None
        self.workspace = workspace or open_project()
        options = self.workspace.settings.agent
        loaded = self.workspace.load(model) if isinstance(model, str) else model or self.workspace.model
        registry = (
            tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools, self.workspace.settings.tools)
        )
        self._own_registry = registry if registry is not tools else None
        _check_tools(loaded, registry, routed=options.routing == "auto")
        # Whatever is wrong is told before there is a session.
        check_adapter(loaded, adapter)
        prompts = self.workspace.prompts
        router = self.workspace.router if options.routing == "auto" else None
        store = self.workspace.store
        super().__init__(
            loaded,
            store.open(session) if session else store.create(),
            prompts,
            tools=registry,
            knowledge=knowledge,
            router=router,
            mode=options.approve,
            parallel_tool_calls=options.parallel_tool_calls,
            quote=options.answers == "quote" or (options.answers == "auto" and _is_small(loaded)),
            max_steps=options.max_steps,
            passage_limit=self.workspace.settings.knowledge.limit,
            min_score=self.workspace.settings.knowledge.min_score,
            adapter=adapter,
            answer_tokens=self.workspace.settings.sampling.max_new_tokens,
        )

    @classmethod
    def from_project(
        cls, project: str | Path | None = None, *, session: str | None = None, **options: Any
    ) -> Agent:
        """The agent of a project: its tools, knowledge, prompts and settings.

        Args:
            project: The project's folder; found as on the command line by default.
            session: Id of a session to resume.
            **options: Settings, e.g. ``model="…"``; dots are written as two underscores (``sampling__seed=3``).
        """
        from agentkit.build.workspace import open_project

        dotted = {key.replace("__", "."): value for key, value in options.items()}
        agent = open_project(project, dotted).agent(session)
        agent._owns_workspace = True
        return agent

    def fork(self) -> Agent:
        """An agent that goes on from here in a session of its own."""
        other = object.__new__(Agent)
        other.__dict__.update(self.__dict__)
        other.session = self.workspace.store.fork(self.session.id)
        other._owns_workspace = False
        other._own_registry = None
        return other

    def close(self) -> None:
        """End the tools' worker process and close the files; the session stays in the store."""
        if self._own_registry is not None:
            self._own_registry.close()
        if self._owns_workspace:
            self.workspace.close()


def _check_tools(model: Any, registry: ToolRegistry, *, routed: bool) -> None:
    """A tool that cannot be called or routed to is refused now, not in the middle of a conversation."""
    from agentkit.llm.routing import check_names

    if routed:
        check_names(registry.specs())
    if hasattr(model, "check_tool"):
        for spec in registry.specs():
            model.check_tool(spec)


def _is_small(model: Any) -> bool:
    """Too small to be trusted with its own words about passages and results; never one on a server."""
    from agentkit.llm.remote import RemoteModel

    if isinstance(model, RemoteModel):
        return False
    return hasattr(model, "info") and model.info()["parameters"] < SMALL
