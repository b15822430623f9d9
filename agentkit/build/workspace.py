"""A project with everything that belongs to it. Each part is made on first use: `sessions list` loads no model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.answers import Knowledge
from agentkit.build.agent import Agent
from agentkit.build.knowledge import index_place, reranker_of
from agentkit.build.models import EMBEDDER_ASSET, load_embedder, load_model
from agentkit.closing import Closing
from agentkit.errors import ProjectError
from agentkit.project import Project, find_project
from agentkit.prompts import load_prompt, render_text
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.settings import Settings, data_dir, user_dir
from agentkit.turn import Prompts

if TYPE_CHECKING:
    from agentkit.llm.local import LocalModel
    from agentkit.llm.protocol import Router
    from agentkit.llm.remote import RemoteModel
    from agentkit.messages import Message
    from agentkit.retrieval.protocol import Embedder
    from agentkit.retrieval.sync import Progress
    from agentkit.store import SessionStore
    from agentkit.tooling.registry import ToolRegistry
    from agentkit.training.jobs import Job
    from agentkit.training.sessions import Selection


class Workspace(Closing):
    """A project with everything that belongs to it, each part made on first use.

    Args:
        project: The folder.
        settings: Merged settings.
        options: The command-line options among them; `None` is one that was not given.
    """

    def __init__(self, project: Project, settings: Settings, options: Mapping[str, Any]) -> None:
        self.project, self.settings = project, settings
        self.options = {key: value for key, value in options.items() if value is not None}
        self._lock = threading.RLock()
        self._is_ready = False  # `ready_knowledge` has been called for the next agent

    @cached_property
    def store(self) -> SessionStore:
        """Sessions."""
        from agentkit.store import SessionStore

        return SessionStore(user_dir(self.project.data_dir) / self.project.sessions_path.name)

    @cached_property
    def _minilm(self) -> Embedder:
        """The router's: its weights were fitted over it."""
        return load_embedder()

    @cached_property
    def _embedder(self) -> Embedder:
        """The knowledge base's."""
        name = self.settings.knowledge.embedder
        return self._minilm if name == EMBEDDER_ASSET else load_embedder(name)

    @cached_property
    def knowledge(self) -> KnowledgeBase:
        """The knowledge base as it was last indexed."""
        options = self.settings.knowledge
        folder = self.project.root / options.path
        place = index_place(options.index, options.index_schema)
        # Added files on a server are mirrored here, apart from those that belong to the SQLite file.
        name = "knowledge.postgres" if place else "knowledge.sqlite"
        index = user_dir(self.project.data_dir) / name
        return KnowledgeBase(
            folder,
            index,
            self._embedder,
            reranker=reranker_of(
                options.reranker, self._own_model if options.reranker == self.settings.model else None
            ),
            place=place,
            optional=folder == self.project.knowledge_dir,
        )

    def _own_model(self) -> LocalModel | RemoteModel:
        return self.model

    def ready_knowledge(self, progress: Progress | None = None) -> KnowledgeBase:
        """The knowledge base in step with its folder."""
        self.knowledge.sync(progress)
        self._is_ready = True
        return self.knowledge

    @cached_property
    def registry(self) -> ToolRegistry:
        """The project's tools and those of installed packages."""
        from agentkit.tooling.registry import ToolRegistry, load_entry_points, load_tools

        tools = load_tools(self.project.tools_dir) if self.project.tools_dir.is_dir() else []
        return ToolRegistry([*tools, *load_entry_points()], self.settings.tools, self._environment())

    @cached_property
    def router(self) -> Router:
        """Decides what a turn needs, from the embedder's similarities."""
        from agentkit.llm.routing import EmbeddingRouter

        folder = self.project.prompts_dir
        pairs = [line.partition("=>") for line in _phrases(folder, "small_talk")]
        small_talk = [(phrase.strip(), self._named(reply)) for phrase, _, reply in pairs]
        kept_in = self.project.data_dir / "vectors"
        return EmbeddingRouter(self._minilm, small_talk, _phrases(folder, "out_of_scope"), kept_in)

    def _named(self, reply: str) -> str:
        """A reply of the small talk with the names of the settings in it."""
        options = self.settings.agent
        try:
            return render_text(reply, name=options.name, company=options.company)
        except ProjectError as error:
            path = self.project.prompts_dir / "small_talk.txt"
            raise ProjectError(f"{path}: {error.cause}", "variables there: name, company") from error

    @cached_property
    def model(self) -> LocalModel | RemoteModel:
        """The project's chat model."""
        return self.load(None)

    @property
    def prompts(self) -> Prompts:
        """The project's prompt templates, rendered for today."""
        folder, options = self.project.prompts_dir, self.settings.agent
        variables = {"name": options.name, "company": options.company, "today": date.today().isoformat()}
        return Prompts(
            load_prompt(folder, options.system_prompt).render(**variables),
            load_prompt(folder, "passages"),
            load_prompt(folder, "tool_call"),
            load_prompt(folder, "tool_result"),
            load_prompt(folder, "decline").render(**variables),
        )

    @property
    def adapters_dir(self) -> Path:
        """Where adapters live, for all projects."""
        return data_dir() / "adapters"

    @property
    def jobs_dir(self) -> Path:
        """Where this project's fine-tuning jobs live."""
        return self.project.data_dir / "jobs"

    def load(self, name: str | None) -> LocalModel | RemoteModel:
        """A chat model under this project's settings; the project's own by default."""
        with self._lock:
            if name is None and "model" in self.__dict__:
                return self.model
            options = self.settings
            return load_model(
                name or options.model,
                **self._pinned(name or options.model),
                router=self.router if options.agent.routing == "auto" else None,
                remote=options.remote,
                **options.sampling.model_dump(),
            )

    def _pinned(self, model: str) -> dict[str, Any]:
        """How a model runs; what the project's file says of that is about its own model."""
        from agentkit.llm.openai.address import is_remote

        settings = self.settings
        found = {
            key: getattr(settings, key) for key in ("adapter", "device", "quantize", "compile", "tool_format")
        }
        if model == settings.model:
            return found
        about_it = set(found) if is_remote(model) else {"adapter", "tool_format"}
        if settings.adapter == "none":
            about_it -= {"adapter"}
        for key in about_it - self.options.keys():
            found[key] = type(settings).model_fields[key].default
        return found

    def agent(self, session: str | None = None) -> Agent:
        """The project's agent, in a new session or a resumed one.

        Its knowledge base is in step with the folder: the first agent takes what `ready_knowledge` has just made.
        """
        if session is not None:
            self.store.open(session)  # an unknown id is told before a model is loaded
        knowledge = self.knowledge if self._is_ready else self.ready_knowledge()
        self._is_ready = False
        return Agent(self.model, tools=self.registry, knowledge=knowledge, workspace=self, session=session)

    @contextmanager
    def once(self, knowledge: Knowledge, history: Sequence[Message] = ()) -> Iterator[Agent]:
        """The agent in a fresh session that goes on from earlier messages; it is gone when left.

        Args:
            knowledge: What it searches.
            history: Of user and assistant.
        """
        from agentkit.messages import Message

        session = self.store.create("evaluation")
        try:
            for message in (Message("system", self.prompts.system), *history) if history else ():
                session.append(message)
            yield Agent(
                self.model, tools=self.registry, knowledge=knowledge, workspace=self, session=session.id
            )
        finally:
            self.store.delete(session.id)

    def jobs(self) -> list[Job]:
        """The project's fine-tuning jobs, the newest first."""
        from agentkit.training.jobs import list_jobs

        return list_jobs(self.jobs_dir)

    def start_finetune(
        self,
        data: str | Path | Selection,
        name: str | None = None,
        epochs: int | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        keep_personal_data: bool = False,
    ) -> Job:
        """Start a fine-tuning run on a file or on sessions, in a process of its own.

        Chats, in a file or as sessions, train an adapter of the project's chat model. Labelled texts (columns ``text``
        and ``label``), tagged tokens (``tokens``, ``tags``) and pairs (``source``, ``target``) train a model of their
        own; its base is the one named as an option (``--model``), for the first two else the embedded encoder.

        Args:
            data: The file, or which sessions.
            name: Of the adapter or model; by default that of the file.
            epochs: Passes over the data; by default by the number of examples.
            options: Other fields of `agentkit.training.settings.JobSettings`.
            keep_personal_data: Leave e-mail addresses, phone numbers and the like as they are.

        Raises:
            TrainingError: The data cannot be trained on.
            UsageError: The model is on a server or does not suit the data; a line of the data or a setting is wrong.
        """
        from agentkit.build import finetuning

        return finetuning.start(
            self, data, name, epochs, options=options or {}, keep_personal_data=keep_personal_data
        )

    def close(self) -> None:
        """End the worker process and close the files."""
        made = self.__dict__
        for part in ("registry", "knowledge", "store"):
            if part in made:
                made.pop(part).close()

    def _environment(self) -> dict[str, str]:
        """Variables that make a tool's process see this very project and these very options."""
        variables = {
            f"AGENTKIT_{key.upper().replace('.', '__')}": _as_text(v) for key, v in _flat(self.options)
        }
        return {**variables, "AGENTKIT_PROJECT": str(self.project.root)}


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options by dotted key, those within dictionaries too."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat({f"{key}.{inner}": own for inner, own in value.items()})
        else:
            yield key, value


def _as_text(value: Any) -> str:
    """An option as the environment takes it: lists in TOML's form, which is JSON's."""
    return json.dumps(list(value), ensure_ascii=False) if isinstance(value, list | tuple) else str(value)


def open_project(project: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Workspace:
    """Find a project and read its settings.

    Args:
        project: Its folder; found as on the command line by default.
        options: Settings by dotted key, above environment and file.
    """
    found = find_project(Path(project) if project is not None else None)
    return Workspace(found, found.settings(options), options or {})


def start_finetune(
    data: str | Path | Selection, name: str | None = None, epochs: int | None = None, **options: Any
) -> Job:
    """Start a fine-tuning run in the current project, in a process of its own.

    Args:
        data: A file of chats, labelled texts, tagged tokens or pairs, or which sessions to learn from.
        name: Of the adapter or model; by default that of the file.
        epochs: Passes over the data; by default by the number of examples.
        **options: ``options``, other fields of `agentkit.training.settings.JobSettings`, and ``keep_personal_data``.

    Raises:
        TrainingError: The data cannot be trained on.
        UsageError: The model is on a server or does not suit the data; a line of the data or a setting is wrong.
    """
    with open_project() as workspace:
        return workspace.start_finetune(data, name, epochs, **options)


def _phrases(folder: Path, name: str) -> list[str]:
    """One phrase a line; a project may go without."""
    path = folder / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"cannot read {path}: {error}", "save it as UTF-8 text") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
