"""agentkit: a local-first agent and chat framework.

Importing it loads nothing heavy; every public name is fetched on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentkit.__about__ import __version__

if TYPE_CHECKING:
    from agentkit.assets import asset_path as asset_path
    from agentkit.build import Agent as Agent
    from agentkit.build import KnowledgeBase as KnowledgeBase
    from agentkit.build import load_embedder as load_embedder
    from agentkit.build import load_model as load_model
    from agentkit.build import open_project as open_project
    from agentkit.build import start_finetune as start_finetune
    from agentkit.build import trained_model as trained_model
    from agentkit.errors import AgentkitError as AgentkitError
    from agentkit.errors import MissingBackendError as MissingBackendError
    from agentkit.errors import ModelError as ModelError
    from agentkit.errors import UsageError as UsageError
    from agentkit.messages import Message as Message
    from agentkit.messages import Reply as Reply
    from agentkit.messages import ToolCall as ToolCall
    from agentkit.messages import ToolResult as ToolResult
    from agentkit.tooling.context import tool_options as tool_options
    from agentkit.tooling.tool import Tool as Tool
    from agentkit.tooling.tool import tool as tool

_HOMES = {
    "build": (
        "Agent",
        "KnowledgeBase",
        "load_embedder",
        "load_model",
        "open_project",
        "start_finetune",
        "trained_model",
    ),
    "assets": ("asset_path",),
    "errors": ("AgentkitError", "MissingBackendError", "ModelError", "UsageError"),
    "messages": ("Message", "Reply", "ToolCall", "ToolResult"),
    "tooling.context": ("tool_options",),
    "tooling.tool": ("Tool", "tool"),
}
_MODULES = {name: f"agentkit.{module}" for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agentkit' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
