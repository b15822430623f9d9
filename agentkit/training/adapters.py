"""Finished adapters and models: one folder each, complete or not there at all."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Container
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from agentkit.errors import NotFoundError, TrainingError, UsageError
from agentkit.llm.adapters import PLAIN, Traits
from agentkit.llm.guide import Strength
from agentkit.settings import expanded, private_dir
from agentkit.training.settings import Task

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
CARD = "agentkit.json"
"""What an adapter was made of; a folder without it is foreign or unfinished."""
IN_USE = "in_use.json"
"""Base model name to adapter name, or to a `Use` where the adapter was forced past the gate."""
HELD_OUT = "held_out.jsonl"
"""The chats that the run has not seen, in an adapter's folder: what `training.gate` judges it by."""
SHIPPED = Path(__file__).parents[1] / "_adapters"
"""Adapters that come with agentkit, in a folder named like their base model."""
JUDGES = SHIPPED.with_name("_judges")
"""Adapters that make rerankers judge passages, named alike; not for conversation."""
USES: dict[Task, str] = {"classification": "classifier", "tagging": "ner", "seq2seq": "translator"}
"""Starter tools that a trained model can be given to."""
SPECS = ("auto", "none", "shipped")
"""What a setting may say besides names and paths."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained LoRA adapter, or a model for a task other than chat, and how it came about."""

    name: str
    path: Path
    base: str
    """Name of the model it was trained on."""
    data: str
    """File name of the examples."""
    data_sha256: str
    examples: int
    duplicates: int
    cut: int
    """Examples that were left out because they were too long."""
    epochs: int
    steps: int
    train_loss: float
    """Mean of the last epoch, in nats per label (a token, of chats); so are the next two, of what is held out."""
    loss_before: float | None
    loss_after: float | None
    seconds: float
    created: str
    """ISO 8601, UTC."""
    version: str
    """Of agentkit."""
    task: Task = "chat"
    """An adapter of a chat model, or a model of its own for another task."""
    scores: dict[str, float] = field(default_factory=dict)
    """What a task other than chat is judged by."""
    scored_on: str = ""
    """Split that the scores are of: ``test``, or ``validation`` where nothing is in that."""
    scored: int = 0
    """Examples of it that they are of."""
    reads: bool = False
    """It judges whether a passage states an answer (`llm.reading`); so does what was trained on from it."""
    decides: bool = False
    """It tells whether a turn needs tools that have no examples; so does what was trained on from it."""
    evidence: dict[str, float] = field(default_factory=dict)
    """How far evidence counts in its calls: the fields of `llm.guide.Strength`, 1 where nothing is said."""
    job: str = ""
    """The job that has made it."""

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True, slots=True)
class Use:
    """An adapter in use."""

    adapter: str
    forced: str = ""
    """When it was put into use past the gate, ISO 8601, UTC; empty where it has passed. So is the next."""
    because: str = ""
    """What the gate said: what fell, or that it was not asked."""
    job: str = ""
    """The job that made it: another adapter that gets its name later is not in use."""


def list_adapters(adapters_dir: Path) -> list[Adapter]:
    """All finished adapters, by name; folders that are none are left out."""
    found = []
    for path in sorted(adapters_dir.glob("[!.]*")):
        with contextlib.suppress(TrainingError):
            if (path / CARD).is_file():
                found.append(_read(path))
    return found


def get_adapter(adapters_dir: Path, name: str) -> Adapter:
    """One adapter.

    Raises:
        NotFoundError: There is none of this name; the nearest names are given.
        TrainingError: Its description is damaged.
    """
    if NAME.fullmatch(name) and (adapters_dir / name / CARD).is_file():
        return _read(adapters_dir / name)
    names = [adapter.name for adapter in list_adapters(adapters_dir)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
    remedy = f"did you mean {', '.join(near)}?" if near else "make one with `agentkit finetune start`"
    raise NotFoundError(f"no adapter is called {name!r}", remedy)


def check_name(adapters_dir: Path, name: str) -> None:
    """Whether a new adapter may be called so.

    Raises:
        UsageError: The name has a wrong form or is taken.
    """
    if name in SPECS:
        raise UsageError(f"{name!r} means something else where an adapter is chosen", "choose another name")
    if not NAME.fullmatch(name):
        remedy = "use up to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
        raise UsageError(f"{name!r} is no name for an adapter", remedy)
    if (adapters_dir / name).exists():
        remedy = f"choose another name, or delete {adapters_dir / name}"
        raise UsageError(f"there is an adapter {name!r} already", remedy)


def free_name(adapters_dir: Path, name: str, taken: Container[str] = ()) -> str:
    """The name, with a number where it is taken: by an adapter, or among ``taken``."""
    number, found = 1, name
    while found in taken or (adapters_dir / found).exists():
        number += 1
        end = f"-{number}"
        found = name[: 64 - len(end)] + end
    return found


def add(adapters_dir: Path, adapter: Adapter, write: Callable[[Path], None], *, stage: Path) -> Adapter:
    """Put a new adapter in its place, whole or not at all; returns it as it lies there.

    It gets a number where its name is taken: by a job of another project, which shares the adapters but not the table
    that names are reserved in. A run of hours is not lost over that.

    Args:
        adapters_dir: Created when missing.
        adapter: Its description.
        write: Writes the weights and their configuration into the folder it is given.
        stage: Folder to write in, on the same disk; emptied before and gone afterwards.
    """
    private_dir(adapters_dir)
    shutil.rmtree(stage, ignore_errors=True)
    try:
        private_dir(stage)
        write(stage)
        for path in stage.iterdir():
            _settle(path)
        while True:
            name = free_name(adapters_dir, adapter.name)
            made = replace(adapter, name=name, path=adapters_dir / name)
            card = {key: value for key, value in made.to_json().items() if key != "path"}
            (stage / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            _settle(stage / CARD)
            try:
                os.rename(stage, made.path)
                return made
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise  # else somebody else's adapter has come in between
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _settle(path: Path) -> None:
    """Its owner's alone, and on the disk."""
    path.chmod(0o600)
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def in_use(adapters_dir: Path, base: str) -> str | None:
    """Name of the adapter of the user's that is in use for a base model."""
    found = use_of(adapters_dir, base)
    return found.adapter if found else None


def use_of(adapters_dir: Path, base: str) -> Use | None:
    """The adapter of the user's that is in use for a base model, and whether it was forced past the gate."""
    found = next((use for known, use in _uses(adapters_dir).items() if same_base(known, base)), None)
    return found if found and _is_there(adapters_dir / found.adapter, found.job) else None


def _is_there(path: Path, job: str) -> bool:
    """Whether the adapter of a job is still that of this folder; a damaged one is, and is told of when it is loaded."""
    if not (path / CARD).is_file():
        return False
    try:
        return not job or _read(path).job == job
    except TrainingError:
        return True


def same_base(one: str, other: str) -> bool:
    """Whether two names are those of one model: paths may be written in several ways."""
    return one == other or _place(one) == _place(other) != ""


def _place(base: str) -> str:
    path = os.path.expanduser(base)
    return os.path.realpath(path) if os.path.exists(path) else ""


def shipped(base: str) -> Path | None:
    """The folder of the adapter that comes with agentkit for a base model."""
    return _found(SHIPPED, base)


def judging(base: str) -> Path | None:
    """The folder of the adapter with which a base model as reranker judges passages."""
    return _found(JUDGES, base)


def _found(place: Path, base: str) -> Path | None:
    found = NAME.fullmatch(base) is not None and (place / base / CARD).is_file()
    return place / base if found else None


def label(path: Path) -> str:
    """How the adapter of a folder is called in messages."""
    return "shipped" if path.parent in (SHIPPED, JUDGES) else path.name


def use(adapters_dir: Path, name: str, *, forced: str = "") -> Adapter:
    """Make ``auto`` mean this adapter, for the model it was trained on. Asks no gate: that is `agentkit.gate.use`.

    Args:
        adapters_dir: Where adapters lie.
        name: Of the adapter.
        forced: What the gate said, where the adapter is put into use all the same; kept with the use.

    Raises:
        NotFoundError: There is none of this name.
        UsageError: It is a model for another task.
        TrainingError: It is damaged; what was in use stays.
    """
    adapter = get_adapter(adapters_dir, name)
    check_task(adapter, "chat")
    check_whole(adapter.path)
    when = datetime.now(UTC).isoformat(timespec="seconds") if forced else ""
    others = {known: use for known, use in _uses(adapters_dir).items() if not same_base(known, adapter.base)}
    _write_uses(adapters_dir, {**others, adapter.base: Use(name, when, forced, adapter.job)})
    return adapter


def unuse(adapters_dir: Path, base: str) -> str | None:
    """Make ``auto`` mean the shipped adapter, or none; returns the one that was in use."""
    uses = _uses(adapters_dir)
    found = [known for known in uses if same_base(known, base)]
    if not found:
        return None
    _write_uses(adapters_dir, {known: use for known, use in uses.items() if known not in found})
    return uses[found[0]].adapter


def resolve_adapter(adapters_dir: Path, spec: str, base: str) -> Path | None:
    """The folder that an adapter setting means.

    Args:
        adapters_dir: Where adapters lie.
        spec: ``auto`` (the one in use, else the shipped one), ``none``, ``shipped``, a name, or the path of a folder.
        base: Name of the model it is wanted for.

    Raises:
        NotFoundError: There is no such adapter.
        UsageError: It was trained for another base model, or is a model for another task.
        TrainingError: Its description, or what is known about use, is damaged.
    """
    if spec == "none":
        return None
    if spec in ("auto", "shipped"):
        name = in_use(adapters_dir, base) if spec == "auto" else None
        path = adapters_dir / name if name else shipped(base)
        if path is None and spec == "shipped":
            raise NotFoundError(f"no adapter for {base} comes with agentkit", "use --adapter auto or none")
        return path and _checked(_read(path), base)
    path = expanded(spec)
    if not (NAME.fullmatch(spec) and (adapters_dir / spec / CARD).is_file()) and path.is_dir():
        if not (path / CARD).is_file():
            if not (path / "adapter_config.json").is_file():
                raise NotFoundError(
                    f"{path} is no adapter: it has no adapter_config.json", "name a PEFT folder"
                )
            return path  # made elsewhere: whether it fits shows when it is loaded
        adapter = _read(path)
    else:
        adapter = get_adapter(adapters_dir, spec)
    return _checked(adapter, base)


def trained_model(adapters_dir: Path, spec: str, task: Task) -> Path | None:
    """The folder of a model that was trained here, by its name or path; ``None`` where none is meant.

    Args:
        adapters_dir: Where it lies.
        spec: A name as `list_adapters` gives it; or whatever else names a model: a folder, a hub id.
        task: What it is wanted for.

    Raises:
        UsageError: It was trained for another task.
        TrainingError: Its description is damaged.
    """
    own = NAME.fullmatch(spec) and (adapters_dir / spec).is_dir()
    path = adapters_dir / spec if own else expanded(spec)
    if not (path / CARD).is_file():
        return None
    adapter = _read(path)
    check_task(adapter, task)
    return adapter.path


def check_task(adapter: Adapter, task: Task) -> None:
    """Whether this is what a task needs.

    Raises:
        UsageError: It is for another one; says where it can be used.
    """
    if adapter.task == task:
        return
    if adapter.task == "chat":
        cause = f"{adapter.name!r} is an adapter of the chat model {adapter.base}, no model for {task}"
        raise UsageError(cause, f"use it with `--adapter {adapter.name}`")
    wanted = "adapter of a chat model" if task == "chat" else f"model for {task}"
    cause = f"{adapter.name!r} was trained for {adapter.task} and is no {wanted}"
    raise UsageError(
        cause, f'set `model = "{adapter.name}"` under [tools.options.{USES[adapter.task]}] in agentkit.toml'
    )


def _checked(adapter: Adapter, base: str) -> Path:
    check_task(adapter, "chat")
    if not same_base(adapter.base, base):
        remedy = f"use --model {adapter.base}, or another adapter"
        raise UsageError(f"adapter {adapter.name!r} was trained for {adapter.base}, not for {base}", remedy)
    return adapter.path


def traits_of(path: Path) -> Traits:
    """What the card of an adapter says about serving it, under ``reads``, ``decides`` and ``evidence``.

    Raises:
        TrainingError: The card cannot be read.
    """
    if not (path / CARD).is_file():
        return PLAIN  # made elsewhere
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        factors = {key: float(value) for key, value in card.get("evidence", {}).items()}
        return Traits(card.get("reads") is True, Strength(**factors), card.get("decides") is True)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        remedy = "delete the folder and train again"
        raise TrainingError(f"{path / CARD} cannot be read ({error!r})", remedy) from error


def _read(path: Path) -> Adapter:
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        own = [part for part in fields(Adapter) if part.name not in ("name", "path")]
        # What has a default is not in the cards of earlier versions.
        known = {part.name: card[part.name] for part in own if part.name in card or not _has_default(part)}
        if known.get("task", "chat") not in get_args(Task):
            raise ValueError(f"unknown task {known['task']!r}")
        return Adapter(name=path.name, path=path, **known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "delete the folder and train again"
        raise TrainingError(f"{path / CARD} cannot be read ({error!r})", remedy) from error


def _has_default(part: Field[Any]) -> bool:
    return part.default is not MISSING or part.default_factory is not MISSING


def check_whole(path: Path) -> None:
    """Whether the files of an adapter are there and as long as they say.

    Raises:
        TrainingError: They are not.
    """
    remedy = "delete the folder and train again"
    try:
        json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        weights = path / "adapter_model.safetensors"
        with weights.open("rb") as file:  # eight bytes of length, a description in JSON, the numbers
            length = int.from_bytes(file.read(8), "little")
            tensors = json.loads(file.read(min(length, weights.stat().st_size)))
        ends = [tensor["data_offsets"][1] for key, tensor in tensors.items() if key != "__metadata__"]
        if weights.stat().st_size != 8 + length + max(ends, default=0):
            raise ValueError(f"{weights.name} is cut")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TrainingError(f"adapter {path.name!r} is damaged ({error})", remedy) from error


def _uses(adapters_dir: Path) -> dict[str, Use]:
    try:
        uses = json.loads((adapters_dir / IN_USE).read_text(encoding="utf-8"))
        return {str(base): _use(body) for base, body in uses.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        remedy = "delete the file and run `agentkit finetune use NAME` again"
        raise TrainingError(f"{adapters_dir / IN_USE} cannot be read ({error})", remedy) from error


def _use(body: Any) -> Use:
    return (
        Use(**{key: str(value) for key, value in body.items()}) if isinstance(body, dict) else Use(str(body))
    )


def _write_uses(adapters_dir: Path, uses: dict[str, Use]) -> None:
    private_dir(adapters_dir)
    told = {
        base: {key: value for key, value in asdict(found).items() if value} for base, found in uses.items()
    }
    body = {base: found if len(found) > 1 else found["adapter"] for base, found in told.items()}
    draft = adapters_dir / f".{IN_USE}.{os.getpid()}"
    draft.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    draft.chmod(0o600)
    os.replace(draft, adapters_dir / IN_USE)
