"""Models by name: chat models with their adapters, embedders, rerankers, and what has been trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentkit.errors import UsageError
from agentkit.settings import RemoteSettings, SamplingSettings, data_dir, expanded

if TYPE_CHECKING:
    from agentkit.llm.adapters import AdapterFolder
    from agentkit.llm.local import LocalModel
    from agentkit.llm.protocol import Router
    from agentkit.llm.remote import RemoteModel
    from agentkit.retrieval.protocol import Embedder
    from agentkit.training.settings import Task

DEFAULT_MODEL = "smollm2-135m"
EMBEDDER_ASSET = "minilm"
"""Also the default base of classifiers and taggers."""


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
            embedded sentence embedder for the embedded model, and none for others. It is asked about tools that have
            examples, and about others by a model whose adapter has not learned to decide, as the shipped one has.
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

    source = chat_source(name)
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


def adapter_folder(spec: str, base: str) -> AdapterFolder | None:
    """What an adapter setting means now for a base model."""
    from agentkit.llm.adapters import AdapterFolder
    from agentkit.training.adapters import label, resolve_adapter, traits_of

    path = resolve_adapter(data_dir() / "adapters", spec, base)
    return AdapterFolder(label(path), path, traits_of(path)) if path else None


def load_embedder(name: str = EMBEDDER_ASSET) -> Embedder:
    """A sentence embedder: ``minilm`` or ``mpnet``, a folder or a hub id.

    Raises:
        UsageError: The name is that of another kind of embedded model.
        AssetError: It has not been pulled.
        ModelError: There is no such folder and the hub does not give the model, or it is no encoder.
    """
    from agentkit.assets import ASSETS, EMBEDDER, asset_path
    from agentkit.retrieval.embedder import load_embedder as load

    if name in ASSETS and ASSETS[name].use != EMBEDDER:
        known = ", ".join(asset.name for asset in ASSETS.values() if asset.use == EMBEDDER)
        raise UsageError(f"{name!r} is no embedder", f"embedded embedders: {known}")
    return load(asset_path(name) if name in ASSETS else name)


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


def chat_source(model: str) -> str | Path:
    """Folder of an embedded model, or the name itself."""
    from agentkit.assets import ASSETS, CHAT_MODEL, asset_path

    if model in ASSETS:
        if ASSETS[model].use != CHAT_MODEL:
            known = ", ".join(asset.name for asset in ASSETS.values() if asset.use == CHAT_MODEL)
            raise UsageError(f"{model!r} is no chat model", f"embedded chat models: {known}")
        return asset_path(model)
    return model


def encoder_source(model: str) -> str | Path:
    """The same for a base that is no chat model; whether it suits, its configuration tells."""
    from agentkit.assets import ASSETS, asset_path

    if model in ASSETS:
        return asset_path(model)
    folder = expanded(model)
    return folder if folder.is_dir() else model
