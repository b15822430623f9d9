"""What the commands of `agentkit eval` share: what their rows depend on, and where their figures go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common
from agentkit.cli.output import data, json_line, note, table

if TYPE_CHECKING:
    from agentkit.build import Workspace
    from agentkit.evaluation.suite import Scores
    from agentkit.retrieval.knowledge import KnowledgeBase

FACES = ("cli", "ui")
SHOWING = ("metrics", "summary", "plots", "page", "tables")
"""Code that no row depends on: it may change, and the rows still hold."""

Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N.")]
Split = Annotated[str | None, typer.Option(metavar="S", help="Only those of this split.")]
NoAdapter = Annotated[bool, typer.Option("--no-adapter", help="The same as --adapter none.")]


def without_adapter(options: Common, no_adapter: bool) -> dict[str, str]:
    """The settings that ``--no-adapter`` stands for.

    Raises:
        UsageError: An adapter is named too.
    """
    from agentkit.errors import UsageError

    if no_adapter and options.adapter not in (None, "none"):
        cause = f"--no-adapter and --adapter {options.adapter} say different things"
        raise UsageError(cause, "leave out one of them")
    return {"adapter": "none"} if no_adapter else {}


def identity(workspace: Workspace, files: Iterable[Path]) -> dict[str, str]:
    """What rows depend on: the model with its adapter, data, settings, and the program itself."""
    import agentkit
    from agentkit.evaluation.journal import digest

    package = Path(agentkit.__file__).parent
    code = [path for suffix in ("*.py", "*.json") for path in package.rglob(suffix)]
    code = [
        path for path in code if path.relative_to(package).parts[0] not in FACES and path.stem not in SHOWING
    ]
    folders = (workspace.project.prompts_dir, workspace.project.tools_dir)
    project = [path for folder in folders if folder.is_dir() for path in folder.glob("*.*") if path.is_file()]
    return {
        "model": workspace.model.name,
        "weights": _weights(workspace),
        "adapter": _adapter(workspace),
        "data": digest(files),
        "settings": hashlib.sha256(workspace.settings.model_dump_json().encode()).hexdigest()[:16],
        "project": digest(project),
        "code": digest(code),
    }


def knowledge_digest(knowledge: KnowledgeBase) -> str:
    """Of the documents that are indexed."""
    documents = "\n".join(f"{document.name} {document.sha256}" for document in knowledge.list())
    return hashlib.sha256(documents.encode()).hexdigest()[:16]


def _weights(workspace: Workspace) -> str:
    """How they are held, and which they are, for a folder may get others; nothing is known of those on a server."""
    from agentkit.build.models import chat_source

    model: Any = workspace.model
    if not hasattr(model, "hf_model"):
        return ""
    return f"{model.info()['quantization']} {stamp(chat_source(workspace.settings.model))}"


def stamp(source: str | Path) -> str:
    """A digest of the names, sizes and times of a model's files: their contents would take as long as loading them.

    Args:
        source: A folder, a ``.gguf`` file, or the hub id of a model that has been loaded.
    """
    from huggingface_hub import try_to_load_from_cache

    from agentkit.settings import expanded

    path = expanded(source)
    if not path.exists():
        found = try_to_load_from_cache(str(source), "config.json")
        assert isinstance(found, str)  # the model was loaded from there
        path = Path(found).parent
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    told = [f"{file.name} {found.st_size} {found.st_mtime_ns}" for file in files for found in [file.stat()]]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _adapter(workspace: Workspace) -> str:
    from agentkit.evaluation.journal import digest
    from agentkit.settings import data_dir
    from agentkit.training.adapters import resolve_adapter

    settings = workspace.settings
    path = resolve_adapter(data_dir() / "adapters", settings.adapter, settings.model)
    if path is None:
        return "none"
    return f"{path.name} {digest(file for file in path.rglob('*') if file.is_file())}"


def tell_resumed(known: dict[str, Any], ids: Iterable[str]) -> None:
    """Say how much of a run has been done before."""
    asked = [id in known for id in ids]
    if any(asked):
        note(f"{sum(asked)} of {len(asked)} have been asked before; going on")


def finish(scores: Scores, run: dict[str, str], out: Path, as_json: bool | None) -> None:
    """Write ``summary.json`` and ``summary.md``, and print the one or the other.

    Raises:
        StoreError: They cannot be written.
    """
    from agentkit.evaluation.tables import markdown

    body = {"suite": scores.suite, "run": run, "scores": scores.scores, **scores.summary}
    write(out / "summary.json", json.dumps(body, indent=1) + "\n")
    write(out / "summary.md", markdown(f"agentkit eval {scores.suite}", run, scores.tables))
    if as_json:
        json_line(body)
    else:
        for number, each in enumerate(scores.tables):
            if number:
                data("")
            table([each.heading, *each.rows])
    note(f"tables: {out / 'summary.md'}")


def write(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        StoreError: It cannot be written.
    """
    from agentkit.errors import StoreError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", "make room and run again") from error
