"""The composition root: the only place where models, tools, knowledge and sessions are wired together."""

from __future__ import annotations

from agentkit.build.agent import SMALL, Agent
from agentkit.build.knowledge import KnowledgeBase
from agentkit.build.models import (
    DEFAULT_MODEL,
    EMBEDDER_ASSET,
    adapter_folder,
    load_embedder,
    load_model,
    trained_model,
)
from agentkit.build.workspace import Workspace, open_project, start_finetune

__all__ = [
    "DEFAULT_MODEL", "EMBEDDER_ASSET", "SMALL", "Agent", "KnowledgeBase", "Workspace", "adapter_folder",
    "load_embedder", "load_model", "open_project", "start_finetune", "trained_model",
]  # fmt: skip
