"""Configuration: option > environment (``AGENTKIT_*``) > ``agentkit.toml`` > default.

Environment names follow the keys: ``AGENTKIT_MODEL`` is ``model``, ``AGENTKIT_SAMPLING__SEED`` is
``[sampling] seed``. Unknown keys are refused everywhere.
"""

from __future__ import annotations

import os
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentkit.errors import NotFoundError, SettingsError, StoreError

Device = Literal["auto", "cpu", "cuda"]
Quantize = Literal["auto", "none", "int8", "int4", "nf4"]

RESERVED_VARIABLES = ("AGENTKIT_PROJECT", "AGENTKIT_DATA_DIR", "AGENTKIT_CACHE_DIR", "AGENTKIT_API_KEY")
"""``AGENTKIT_*`` names that say where things are, or hold a secret; they are no settings."""


POSTGRES = ("postgresql://", "postgres://")
"""How the address of an index on a server begins."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SamplingSettings(_Section):
    """How tokens are chosen; the defaults decode greedily."""

    temperature: float = Field(default=0.0, ge=0, le=5)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with this probability; 1 keeps every token."""
    top_k: int = Field(default=0, ge=0)
    """0 keeps every token."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Drops tokens less likely than this share of the likeliest; 0 keeps every token."""
    repetition_penalty: float = Field(default=1.0, ge=1, le=10)
    """Divides the scores of tokens that the answer holds already; 1 does nothing."""
    seed: int = Field(default=0, ge=-(2**63), le=2**64 - 1)  # what torch takes
    """Of sampling; the same seed gives the same words."""
    max_new_tokens: int = Field(default=256, ge=1, le=32_768)
    """Tokens of one answer or call at most."""
    stop: tuple[str, ...] = ()
    """Decoding ends before any of these strings."""


class AgentSettings(_Section):
    """How one turn runs."""

    name: str = "Lumi"
    """What the assistant calls itself; a prompt variable."""
    company: str = "Lantern & Loom"
    """Whom the assistant works for; a prompt variable."""
    system_prompt: str = "system"
    """Name of a template in ``prompts/``."""
    max_steps: int = Field(default=4, ge=1, le=64)
    """Model calls per turn at most."""
    approve: Literal["ask", "all", "none"] = "ask"
    """What happens to calls with side effects."""
    answers: Literal["auto", "model", "quote"] = "auto"
    """``model``: answers in the model's own words, checked against the passages; ``quote``: in the passages' own
    sentences; ``auto``: quote with models under a billion parameters that run here."""
    routing: Literal["auto", "model"] = "auto"
    """``auto``: the router decides between answer and tools; ``model``: the model's own choice."""
    parallel_tool_calls: bool = False
    """The model may make several calls at once."""


class KnowledgeSettings(_Section):
    """Retrieval."""

    path: str = "knowledge"
    """Folder within the project."""
    limit: int = Field(default=4, ge=1, le=50)
    """Passages per question."""
    min_score: float | None = Field(default=None, ge=-1, le=1)
    """Cosine similarity under which a passage is left out of a turn, e.g. 0.3; unset leaves out none: whether passages
    answer is judged by more than that."""
    embedder: str = "minilm"
    """What makes vectors of texts: ``minilm``, ``mpnet`` (larger and slower, once pulled), a folder or a hub id."""
    reranker: str = ""
    """What reads question and passage together and has the last word about the order of passages: a chat model or a
    cross-encoder; embedded name, folder, ``.gguf`` file or hub id. ``qwen2.5-coder-1.5b`` has learned to judge too
    whether passages answer the question. None by default."""
    index: str = Field(default="", repr=False)
    """Where the index is kept: empty for a SQLite file among the user's data, or a PostgreSQL database with pgvector,
    ``postgresql://USER@HOST:PORT/DATABASE``; its password may stand in ``PGPASSWORD`` or ``~/.pgpass``."""
    index_schema: str = "agentkit"
    """Schema of the PostgreSQL database. Machines with the same folder may share one; projects with other documents
    each need their own, for it holds what the folder holds that was read last."""


class ToolSettings(_Section):
    """Limits for every tool."""

    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds a call may take before it is stopped."""
    output_limit: int = Field(default=20_000, ge=100)
    """Characters of a tool's JSON result."""
    options: dict[str, dict[str, Any]] = Field(default={}, repr=False)
    """``[tools.options.NAME]``: free settings a tool reads with `agentkit.tool_options`."""


class RemoteSettings(_Section):
    """How a model on a server is asked. Its key comes from ``AGENTKIT_API_KEY`` in the environment."""

    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds between two pieces of an answer at most."""
    retries: int = Field(default=3, ge=0, le=20)
    """How often a request is repeated when the server cannot be reached or has no time."""


class Settings(_Section):
    """All settings of one project."""

    model: str = "smollm2-135m"
    """Embedded name, hub id, folder, ``.gguf`` file, or a server: ``openai+http://HOST:PORT/v1#MODEL``."""
    adapter: str = "auto"
    """``auto`` (the one in use, else the one that comes with agentkit), ``none``, ``shipped``, a name or a path."""
    device: Device = "auto"
    """``auto`` takes CUDA where there is one."""
    quantize: Quantize = "auto"
    """``auto``: nf4 on CUDA; on a CPU int4 for weights from a 4-bit file, else int8; none if an adapter is merged."""
    compile: bool = False
    """Use torch.compile on CUDA and under nf4; on other CPU models it changes nothing, they are compiled anyway."""
    tool_format: str = "auto"
    """How tool calls are written: ``hermes``, ``llama3``, ``mistral``, ``mistral-args``, ``gemma`` or ``generic``;
    ``auto`` chooses by the model's chat template."""
    sampling: SamplingSettings = SamplingSettings()
    agent: AgentSettings = AgentSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    tools: ToolSettings = ToolSettings()
    remote: RemoteSettings = RemoteSettings()


def load_settings(
    toml_path: Path | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Merge defaults, file, environment and options.

    Args:
        toml_path: ``agentkit.toml``; ``None`` or a missing file means defaults.
        options: Dotted keys (``{"sampling.seed": 3}``); ``None`` values are ignored.
        environ: Defaults to ``os.environ``.

    Raises:
        SettingsError: A key is unknown or a value has the wrong type; names where it came from.
    """
    values: dict[str, Any] = {}
    source = "the defaults"
    if toml_path is not None and toml_path.is_file():
        values, source = _read_toml(toml_path), str(toml_path)
        _validate(values, source)
        _root_paths(values, toml_path.absolute().parent)
    for key, value in (os.environ if environ is None else environ).items():
        if key.startswith("AGENTKIT_") and key not in RESERVED_VARIABLES and value:
            keys = key.removeprefix("AGENTKIT_").lower().split("__")
            _put(values, keys, _from_text(value, free=keys[:2] == ["tools", "options"]), key)
            _validate(values, f"environment variable {key}")
    for dotted, value in (options or {}).items():
        if value is not None:
            _put(values, dotted.split("."), value, dotted)
            _validate(values, f"option --{dotted.rsplit('.', 1)[-1].replace('_', '-')}")
    return _validate(values, source)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        remedy = "fix the file or delete it to use the defaults"
        raise SettingsError(f"cannot read {path}: {error}", remedy) from error


def _root_paths(values: dict[str, Any], folder: Path) -> None:
    """Let paths of models and adapters in a file begin where the file lies, whatever the current folder is."""
    tables: list[tuple[Any, tuple[str, ...]]] = [(values, ("model", "adapter"))]
    tables += [(values.get("knowledge", {}), ("embedder", "reranker"))]
    tables += [(table, ("model",)) for table in values.get("tools", {}).get("options", {}).values()]
    for table, keys in tables:
        for key in keys:
            path = table.get(key) if isinstance(table, dict) else None
            if not isinstance(path, str) or not path or "://" in path or path[0] in "/~":
                continue
            if path.startswith(("./", "../")) or _leads_on(folder, path):  # a hub id has a slash too
                table[key] = str(folder / path)


def _leads_on(folder: Path, path: str) -> bool:
    """Whether there is something at a path; of a template such as ``models/{source}-{target}``, its folder."""
    if "/" not in path:  # names of adapters and embedded models have none either
        return (folder / path).is_file() or (folder / path / "config.json").is_file()
    before, brace, _ = path.partition("{")
    if not brace:
        return (folder / path).exists()
    parent = before.rpartition("/")[0]
    return bool(parent) and (folder / parent).is_dir()


def _put(values: dict[str, Any], keys: list[str], value: Any, source: str) -> None:
    *sections, last = keys
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{source}: {section} is not a section", "see `agentkit init` for the keys")
    values[last] = value


def _from_text(text: str, free: bool) -> Any:
    """The value of an environment variable; empty ones never get here, they count as unset.

    Lists and tables are read as TOML. Plain text stays text and is converted by the key's type, so that a
    model may be called ``7`` or ``true``; where there is no type (``free``), it is read as TOML too.
    """
    if not free and not text.startswith(("[", "{")):
        return text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _is_secret(place: Sequence[int | str]) -> bool:
    """Whether what stands there may hold a key or a password: tools' own options, an address, or all of a section."""
    return tuple(place[:2]) in (("tools", "options"), ("knowledge", "index")) or tuple(place) in (
        ("tools",),
        ("knowledge",),
    )


def _validate(values: dict[str, Any], source: str) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _known(first["loc"])
            raise SettingsError(f"{source}: unknown setting {key!r}", f"known here: {known}") from error
        remedy = "see docs/settings.md" if _is_secret(first["loc"]) else f"got {reprlib.repr(first['input'])}"
        raise SettingsError(f"{source}: {key}: {first['msg']}", remedy) from error
    if (
        "://" in settings.model and "@" in settings.model.partition("#")[0]
    ):  # it would be shown in many places
        cause = f"{source}: model: an address must hold no user name or password"
        raise SettingsError(cause, "put the key into AGENTKIT_API_KEY")
    address = settings.knowledge.index
    if address and not address.startswith(POSTGRES):  # not shown: there may be a password in it
        cause = f"{source}: knowledge.index: an address must begin with {POSTGRES[0]}"
        raise SettingsError(cause, "leave it empty to keep the index in a file")
    return settings


def _known(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return ", ".join(model.model_fields)


def expanded(path: str | Path) -> Path:
    """A path in which ``~`` or ``~NAME`` at the beginning is a home folder.

    Raises:
        NotFoundError: There is no user of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise NotFoundError(f"{path} begins with no known home folder", "write the path without ~") from error


def data_dir() -> Path:
    """Where user data lives (sessions, indexes, adapters); ``AGENTKIT_DATA_DIR`` overrides."""
    override = os.environ.get("AGENTKIT_DATA_DIR")
    return expanded(override) if override else platformdirs.user_data_path("agentkit", appauthor=False)


def cache_dir() -> Path:
    """Where embedded assets live; ``AGENTKIT_CACHE_DIR`` overrides."""
    override = os.environ.get("AGENTKIT_CACHE_DIR")
    return expanded(override) if override else platformdirs.user_cache_path("agentkit", appauthor=False)


def user_dir(path: Path) -> Path:
    """`private_dir`, of what belongs to the user.

    Raises:
        StoreError: It cannot be made.
    """
    try:
        return private_dir(path)
    except OSError as error:
        cause = f"cannot make the folder {path}: {error.strerror or error}"
        raise StoreError(cause, "set AGENTKIT_DATA_DIR to a folder that you can write to") from error


def private_dir(path: Path) -> Path:
    """Create a folder only its owner can read."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
