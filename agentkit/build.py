"""The composition root: the only place where models, tools, knowledge and sessions are wired together.

Everything is made on first use, so that `agentkit sessions list` loads no model.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from agentkit.agent import AgentLoop, Prompts
from agentkit.answers import Knowledge
from agentkit.errors import ProjectError, UsageError
from agentkit.project import Project, find_project
from agentkit.prompts import load_prompt
from agentkit.retrieval.knowledge import KnowledgeBase as BaseKnowledge
from agentkit.settings import POSTGRES, RemoteSettings, SamplingSettings, Settings, data_dir, private_dir

if TYPE_CHECKING:
    from agentkit.llm.adapters import AdapterFolder
    from agentkit.llm.local import LocalModel
    from agentkit.llm.protocol import ChatModel, Router
    from agentkit.llm.remote import RemoteModel
    from agentkit.messages import Message
    from agentkit.retrieval.places import IndexPlace
    from agentkit.retrieval.protocol import Embedder, Reranker
    from agentkit.retrieval.sync import Progress
    from agentkit.store import SessionStore
    from agentkit.tooling.registry import ToolRegistry
    from agentkit.training.jobs import Job
    from agentkit.training.prepare import Chosen
    from agentkit.training.sessions import Selection
    from agentkit.training.settings import Task

EMBEDDER_ASSET = "minilm"
"""Also the default base of classifiers and taggers."""
DEFAULT_MODEL = "smollm2-135m"
SMALL = 1_000_000_000
"""Parameters under which ``[agent] answers = "auto"`` quotes."""


class Agent(AgentLoop):
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
        from agentkit.tooling.registry import ToolRegistry

        self._owns_workspace = workspace is None
        self.workspace = workspace or open_project()
        options = self.workspace.settings.agent
        loaded = self.workspace.load(model) if model is None or isinstance(model, str) else model
        registry = (
            tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools, self.workspace.settings.tools)
        )
        self._own_registry = registry if registry is not tools else None
        _check_tools(loaded, registry)
        store = self.workspace.store
        super().__init__(
            loaded,
            store.open(session) if session else store.create(),
            self.workspace.prompts,
            tools=registry,
            knowledge=knowledge,
            router=self.workspace.router if options.routing == "auto" else None,
            mode=options.approve,
            parallel_tool_calls=options.parallel_tool_calls,
            quote=options.answers == "quote" or (options.answers == "auto" and _is_small(loaded)),
            max_steps=options.max_steps,
            passage_limit=self.workspace.settings.knowledge.limit,
            min_score=self.workspace.settings.knowledge.min_score,
            adapter=adapter,
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class KnowledgeBase(BaseKnowledge):
    """A folder of documents, searched with the embedded MiniLM.

    Args:
        folder: The documents; ``None`` for a knowledge base of added documents only.
        index_path: The SQLite file of the index; beside the other user data by default, one for each folder and
            embedder. Or a PostgreSQL database with pgvector: ``postgresql://USER@HOST:PORT/DATABASE``.
        embedder: Texts to unit vectors; the embedded one by default.
        index_schema: Schema of the PostgreSQL database; knowledge bases in one schema are one.
        reranker: Reads question and passage together; folder or hub id of a cross-encoder, or an object.

    Raises:
        KnowledgeError: The folder does not exist, or the index cannot be reached.
    """

    def __init__(
        self,
        folder: str | Path | None,
        index_path: str | Path | None = None,
        embedder: Embedder | None = None,
        index_schema: str = "agentkit",
        reranker: Reranker | str | None = None,
    ) -> None:
        root = Path(folder).expanduser().resolve() if folder is not None else None
        address = index_path if isinstance(index_path, str) and index_path.startswith(POSTGRES) else ""
        place = _index_place(address, index_schema)
        if index_path is None or address:
            # Each embedder has an index of its own, or two programs would make one anew in turns.
            what = os.fsencode(root or "added") + (f"\0{embedder.name}".encode() if embedder else b"")
            key = hashlib.sha256(what).hexdigest()[:16]
            index_path = (
                private_dir(data_dir() / "knowledge") / f"{key}.{'postgres' if address else 'sqlite'}"
            )
        super().__init__(
            root,
            Path(index_path).expanduser(),
            embedder or load_embedder(),
            reranker=_reranker(reranker) if isinstance(reranker, str) else reranker,
            place=place,
        )
        self.sync()


class Workspace:
    """A project with everything that belongs to it, each part made on first use.

    Args:
        project: The folder.
        settings: Merged settings.
        options: The command-line options among them, handed on to worker processes.
    """

    def __init__(self, project: Project, settings: Settings, options: Mapping[str, Any]) -> None:
        self.project, self.settings = project, settings
        self._options = {key: value for key, value in options.items() if value is not None}
        self._lock = threading.RLock()
        self._is_ready = False  # `ready_knowledge` has been called for the next agent

    @cached_property
    def store(self) -> SessionStore:
        """Sessions."""
        from agentkit.store import SessionStore

        return SessionStore(private_dir(self.project.data_dir) / self.project.sessions_path.name)

    @cached_property
    def embedder(self) -> Embedder:
        """The embedded MiniLM."""
        return load_embedder()

    @cached_property
    def knowledge(self) -> BaseKnowledge:
        """The knowledge base as it was last indexed."""
        options = self.settings.knowledge
        folder = self.project.root / options.path
        place = _index_place(options.index, options.index_schema)
        # Added files on a server are mirrored here, apart from those that belong to the SQLite file.
        name = "knowledge.postgres" if place else "knowledge.sqlite"
        index = private_dir(self.project.data_dir) / name
        return BaseKnowledge(
            folder,
            index,
            self.embedder,
            reranker=_reranker(options.reranker),
            place=place,
            optional=folder == self.project.knowledge_dir,
        )

    def ready_knowledge(self, progress: Progress | None = None) -> BaseKnowledge:
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
        small_talk = [(phrase.strip(), reply.strip()) for phrase, _, reply in pairs]
        return EmbeddingRouter(self.embedder, small_talk, _phrases(folder, "out_of_scope"))

    @cached_property
    def model(self) -> LocalModel | RemoteModel:
        """The project's chat model."""
        return self.load(None)

    @cached_property
    def prompts(self) -> Prompts:
        """The project's prompt templates."""
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
                adapter=options.adapter,
                device=options.device,
                quantize=options.quantize,
                compile=options.compile,
                tool_format=options.tool_format,
                router=self.router if options.agent.routing == "auto" else None,
                remote=options.remote,
                **options.sampling.model_dump(),
            )

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
        from agentkit.training import jobs
        from agentkit.training.labelled import task_of
        from agentkit.training.sessions import Selection, choose

        task = "chat" if isinstance(data, Selection) else task_of(Path(data))
        base = self._base_for(task)
        source: Path | Chosen
        if isinstance(data, Selection):
            described = self.settings.agent.routing != "auto"
            source = choose(self.store, data, self.registry.specs(), describe_tools=described)
        else:
            source = Path(data)
        return jobs.start(
            source,
            name=name,
            model_name=base,
            model_source=_source(base) if task == "chat" else _encoder_source(base),
            epochs=epochs,
            options={
                "device": self.settings.device,
                "tool_format": self.settings.tool_format,
                **(options or {}),
            },
            keep_personal_data=keep_personal_data,
            jobs_dir=private_dir(self.jobs_dir),
            adapters_dir=private_dir(self.adapters_dir),
        )

    def _base_for(self, task: Task) -> str:
        """The model that a task begins from: for chats the project's, else the one that was named for this run."""
        from agentkit.llm.openai.address import is_remote

        named = self._options.get("model")
        base = self.settings.model if task == "chat" else str(named or EMBEDDER_ASSET)
        if is_remote(base):
            cause = "a model on a server cannot be fine-tuned from here"
            raise UsageError(cause, "name the weights with --model: an embedded name, a hub id or a folder")
        if task == "seq2seq" and not named:
            remedy = "name one with --model, a folder or a hub id such as google-t5/t5-small"
            raise UsageError("no sequence-to-sequence model comes with agentkit", remedy)
        return base

    def close(self) -> None:
        """End the worker process and close the files."""
        made = self.__dict__
        for part in ("registry", "knowledge", "store"):
            if part in made:
                made.pop(part).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        """Variables that make a tool's process see this very project and these very options."""
        variables = {f"AGENTKIT_{key.upper().replace('.', '__')}": str(v) for key, v in self._options.items()}
        if not self.project.is_starter:
            variables["AGENTKIT_PROJECT"] = str(self.project.root)
        return variables


def open_project(project: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Workspace:
    """Find a project and read its settings.

    Args:
        project: Its folder; found as on the command line by default.
        options: Settings by dotted key, above environment and file.
    """
    found = find_project(Path(project) if project is not None else None)
    return Workspace(found, found.settings(options), options or {})


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    adapter: str = "auto",
    device: Any = "auto",
    quantize: Any = "auto",
    compile: bool = False,
    tool_format: str = "auto",
    router: Router | Literal["auto"] | None = "auto",
    remote: RemoteSettings | None = None,
    **sampling: Any,
) -> LocalModel | RemoteModel:
    """Load a chat model.

    Args:
        name: An embedded name, a hub id, a folder, a ``.gguf`` file, or a server with an OpenAI-compatible API:
            ``openai+http://HOST:PORT/v1``, the model's name behind ``#``.
        adapter: ``auto`` (the one in use, else the one that comes with agentkit), ``none``, ``shipped``, a name, or a
            path. What it means is looked up in every turn: `agentkit finetune use` reaches a model that runs.
        device: ``auto``, ``cpu`` or ``cuda``.
        quantize: ``auto``, ``none``, ``int8``, ``int4`` or ``nf4``.
        compile: Use torch.compile on CUDA and under nf4; needs a C++ compiler on a CPU.
        tool_format: How tool calls are written; ``auto`` chooses by the model's chat template.
        router: Decides under ``tool_choice="auto"``; ``None`` leaves it to the model; ``auto`` takes one over the
            embedded sentence embedder for the embedded model, which is too small to decide, and none for others.
        remote: Timeout and retries of a server.
        **sampling: Fields of `agentkit.settings.SamplingSettings`, the defaults for every call.

    Raises:
        NotFoundError: There is no such model or adapter.
        UsageError: An option is wrong, or makes no sense for a model on a server; or there is no such tool-call
            format.
        ModelError: It cannot be loaded.
    """
    from agentkit.llm.openai.address import is_remote
    from agentkit.llm.options import read_sampling

    settings = read_sampling(SamplingSettings(), sampling)
    if is_remote(name):
        given = {"adapter": adapter, "device": device, "quantize": quantize, "compile": compile,
                 "tool_format": tool_format}  # fmt: skip
        chosen_router = None if router == "auto" else router
        return _remote_model(name, given, settings, chosen_router, remote or RemoteSettings())
    from agentkit.engine.weights import load_weights
    from agentkit.llm.adapters import Adapters
    from agentkit.llm.local import LocalModel

    source = _source(name)
    folder = adapter_folder(adapter, name)
    loaded = load_weights(
        source,
        name=name,
        device=device,
        quantize=quantize,
        adapter=folder.path if folder else None,
        compile=compile,
    )
    adapters = Adapters(loaded, lambda spec: adapter_folder(spec, name), adapter, folder)
    if router == "auto":
        from agentkit.llm.routing import EmbeddingRouter

        router = EmbeddingRouter(load_embedder()) if name == DEFAULT_MODEL else None
    return LocalModel(loaded, sampling=settings, router=router, tool_format=tool_format, adapters=adapters)


def adapter_folder(spec: str, base: str) -> AdapterFolder | None:
    """What an adapter setting means now for a base model."""
    from agentkit.llm.adapters import AdapterFolder
    from agentkit.training.adapters import label, resolve_adapter, traits_of

    path = resolve_adapter(data_dir() / "adapters", spec, base)
    return AdapterFolder(label(path), path, traits_of(path)) if path else None


def _remote_model(
    name: str,
    given: Mapping[str, Any],
    sampling: SamplingSettings,
    router: Router | None,
    options: RemoteSettings,
) -> RemoteModel:
    """A model on a server, for which the options of weights in this process make no sense."""
    from agentkit.llm.remote import RemoteModel

    for option, value in given.items():
        if value not in ("auto", False) and not (option in ("adapter", "quantize") and value == "none"):
            cause = f"{option} {value!r} cannot be applied to a model on a server"
            raise UsageError(cause, f"leave {option} out and set it there")
    return RemoteModel(
        name, sampling=sampling, router=router, timeout_s=options.timeout_s, retries=options.retries
    )


def load_embedder(name: str = EMBEDDER_ASSET) -> Embedder:
    """A sentence embedder: the embedded MiniLM, a folder or a hub id."""
    from agentkit.assets import ASSETS, asset_path
    from agentkit.retrieval.embedder import load_embedder as load

    return load(asset_path(name) if name in ASSETS else name)


def start_finetune(
    data: str | Path | Selection, name: str | None = None, epochs: int | None = None, **options: Any
) -> Job:
    """Start a fine-tuning run in the current project; see `Workspace.start_finetune`."""
    with open_project() as workspace:
        return workspace.start_finetune(data, name, epochs, **options)


def trained_model(name: str, task: Task) -> Path | None:
    """The folder of a model that `agentkit finetune` has made, by its name or path; ``None`` for any other model.

    Args:
        name: As `agentkit finetune list` shows it; a folder or hub id is let through.
        task: What it is wanted for: ``classification``, ``tagging`` or ``seq2seq``.

    Raises:
        UsageError: It was trained for another task.
    """
    from agentkit.training.adapters import trained_model as find

    return find(data_dir() / "adapters", name, task)


def _reranker(source: str) -> Reranker | None:
    """The cross-encoder of a folder or hub id; its weights load at the first search."""
    from agentkit.retrieval.rerank import CrossEncoder

    return CrossEncoder(source) if source else None


def _index_place(address: str, schema: str) -> IndexPlace | None:
    """Where an index on a server is kept; ``None`` without an address: in a file."""
    if not address:
        return None
    from agentkit.retrieval.postgres import PostgresPlace

    return PostgresPlace(address, schema)


def _source(model: str) -> str | Path:
    """Folder of an embedded model, or the name itself."""
    from agentkit.assets import ASSETS, CHAT_MODEL, asset_path

    if model in ASSETS:
        if ASSETS[model].use != CHAT_MODEL:
            known = ", ".join(asset.name for asset in ASSETS.values() if asset.use == CHAT_MODEL)
            raise UsageError(f"{model!r} is no chat model", f"embedded chat models: {known}")
        return asset_path(model)
    return model


def _encoder_source(model: str) -> str | Path:
    """The same for a base that is no chat model; whether it suits, its configuration tells."""
    from agentkit.assets import ASSETS, asset_path

    if model in ASSETS:
        return asset_path(model)
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else model


def _check_tools(model: Any, registry: ToolRegistry) -> None:
    """A tool whose schema no grammar can express is refused now, not in the middle of a conversation."""
    if hasattr(model, "check_tool"):
        for spec in registry.specs():
            model.check_tool(spec)


def _is_small(model: Any) -> bool:
    """Too small to be trusted with its own words about passages and results; never one on a server."""
    from agentkit.llm.remote import RemoteModel

    if isinstance(model, RemoteModel):
        return False
    return hasattr(model, "info") and model.info()["parameters"] < SMALL


def _phrases(folder: Path, name: str) -> list[str]:
    """One phrase a line; a project may go without."""
    path = folder / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"cannot read {path}: {error}", "save it as UTF-8 text") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
