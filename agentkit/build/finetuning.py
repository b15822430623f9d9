"""From a project's settings and data to a fine-tuning job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.assets import ASSETS
from agentkit.build.models import EMBEDDER_ASSET, chat_source, encoder_source
from agentkit.errors import UsageError
from agentkit.settings import expanded, user_dir

if TYPE_CHECKING:
    from agentkit.build.workspace import Workspace
    from agentkit.training.jobs import Job
    from agentkit.training.prepare import Chosen
    from agentkit.training.sessions import Selection
    from agentkit.training.settings import Task


def start(
    workspace: Workspace,
    data: str | Path | Selection,
    name: str | None,
    epochs: int | None,
    *,
    options: Mapping[str, Any],
    keep_personal_data: bool,
) -> Job:
    """See `Workspace.start_finetune`."""
    from agentkit.training import jobs
    from agentkit.training.labelled import task_of
    from agentkit.training.sessions import Selection, choose

    data = data if isinstance(data, Selection) else expanded(data)
    task = "chat" if isinstance(data, Selection) else task_of(data)
    base = _base_for(workspace, task)
    source: Path | Chosen
    if isinstance(data, Selection):
        described = workspace.settings.agent.routing != "auto"
        source = choose(workspace.store, data, workspace.registry.specs(), describe_tools=described)
    else:
        source = data
    return jobs.start(
        source,
        name=name,
        model_name=base,
        model_source=chat_source(base) if task == "chat" else encoder_source(base),
        epochs=epochs,
        options={
            "device": workspace.settings.device,
            "tool_format": workspace.settings.tool_format,
            **options,
        },
        keep_personal_data=keep_personal_data,
        jobs_dir=user_dir(workspace.jobs_dir),
        adapters_dir=user_dir(workspace.adapters_dir),
    )


def _base_for(workspace: Workspace, task: Task) -> str:
    """The model that a task begins from: for chats the project's, else the one that was named for this run."""
    from agentkit.llm.openai.address import is_remote

    named = workspace.options.get("model")
    base = workspace.settings.model if task == "chat" else str(named or EMBEDDER_ASSET)
    if is_remote(base):
        cause = "a model on a server cannot be fine-tuned from here"
        raise UsageError(cause, "name the weights with --model: an embedded name, a hub id or a folder")
    if task == "seq2seq" and not named:
        remedy = "name one with --model, a folder or a hub id such as google-t5/t5-small"
        raise UsageError("no sequence-to-sequence model comes with agentkit", remedy)
    if base not in ASSETS and expanded(base).exists():  # the same words name another folder elsewhere
        return str(expanded(base).resolve())
    return base
