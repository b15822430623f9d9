"""Finished adapters: one folder each, complete or not there at all."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from agentkit.errors import NotFoundError, TrainingError, UsageError
from agentkit.settings import private_dir

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
CARD = "agentkit.json"
"""What an adapter was made of; a folder without it is foreign or unfinished."""
IN_USE = "in_use.json"
"""Base model name to adapter name."""
SHIPPED = Path(__file__).parents[1] / "_adapters"
"""Adapters that come with agentkit, in a folder named like their base model."""
SPECS = ("auto", "none", "shipped")
"""What a setting may say besides names and paths."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained LoRA adapter and how it came about."""

    name: str
    path: Path
    base: str
    """Name of the model it was trained on."""
    data: str
    """File name of the chats."""
    data_sha256: str
    examples: int
    duplicates: int
    cut: int
    """Examples that were left out because they were too long."""
    epochs: int
    steps: int
    train_loss: float
    """Mean of the last epoch, in nats per token; so are the next two, over the held-out chats."""
    loss_before: float | None
    loss_after: float | None
    seconds: float
    created: str
    """ISO 8601, UTC."""
    version: str
    """Of agentkit."""

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


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


def add(adapters_dir: Path, adapter: Adapter, write: Callable[[Path], None], *, stage: Path) -> None:
    """Put a new adapter in its place, whole or not at all.

    Args:
        adapters_dir: Created when missing.
        adapter: Its description.
        write: Writes the weights and their configuration into the folder it is given.
        stage: Folder to write in, on the same disk; emptied before and gone afterwards.

    Raises:
        UsageError: The name was taken meanwhile.
    """
    private_dir(adapters_dir)
    shutil.rmtree(stage, ignore_errors=True)
    try:
        private_dir(stage)
        write(stage)
        card = {key: value for key, value in adapter.to_json().items() if key != "path"}
        (stage / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        for path in stage.iterdir():
            path.chmod(0o600)
            with path.open("rb+") as handle:
                os.fsync(handle.fileno())
        check_name(adapters_dir, adapter.name)
        os.rename(
            stage, adapters_dir / adapter.name
        )  # fails where somebody else's adapter has come in between
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def in_use(adapters_dir: Path, base: str) -> str | None:
    """Name of the adapter of the user's that is in use for a base model."""
    name = _uses(adapters_dir).get(base)
    return name if name and (adapters_dir / name / CARD).is_file() else None


def shipped(base: str) -> Path | None:
    """The folder of the adapter that comes with agentkit for a base model."""
    found = NAME.fullmatch(base) is not None and (SHIPPED / base / CARD).is_file()
    return SHIPPED / base if found else None


def label(path: Path) -> str:
    """How the adapter of a folder is called in messages."""
    return "shipped" if path.parent == SHIPPED else path.name


def use(adapters_dir: Path, name: str) -> Adapter:
    """Make ``auto`` mean this adapter, for the model it was trained on.

    Raises:
        NotFoundError: There is none of this name.
        TrainingError: It is damaged; what was in use stays.
    """
    adapter = get_adapter(adapters_dir, name)
    check_whole(adapter.path)
    _write_uses(adapters_dir, {**_uses(adapters_dir), adapter.base: name})
    return adapter


def unuse(adapters_dir: Path, base: str) -> str | None:
    """Make ``auto`` mean the shipped adapter, or none; returns the one that was in use."""
    uses = _uses(adapters_dir)
    name = uses.pop(base, None)
    if name is not None:
        _write_uses(adapters_dir, uses)
    return name


def resolve_adapter(adapters_dir: Path, spec: str, base: str) -> Path | None:
    """The folder that an adapter setting means.

    Args:
        adapters_dir: Where adapters lie.
        spec: ``auto`` (the one in use, else the shipped one), ``none``, ``shipped``, a name, or the path of a folder.
        base: Name of the model it is wanted for.

    Raises:
        NotFoundError: There is no such adapter.
        UsageError: It was trained for another base model.
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
    path = Path(spec).expanduser()
    if not (NAME.fullmatch(spec) and (adapters_dir / spec / CARD).is_file()) and path.is_dir():
        if not (path / "adapter_config.json").is_file():
            raise NotFoundError(f"{path} is no adapter: it has no adapter_config.json", "name a PEFT folder")
        if not (path / CARD).is_file():
            return path  # made elsewhere: whether it fits shows when it is loaded
        adapter = _read(path)
    else:
        adapter = get_adapter(adapters_dir, spec)
    return _checked(adapter, base)


def _checked(adapter: Adapter, base: str) -> Path:
    if adapter.base != base:
        remedy = f"use --model {adapter.base}, or another adapter"
        raise UsageError(f"adapter {adapter.name!r} was trained for {adapter.base}, not for {base}", remedy)
    return adapter.path


def trained_to_read(path: Path) -> bool:
    """Whether the card of an adapter declares ``"reads": true``: it was trained on the judgements of `llm.reading`.

    Raises:
        TrainingError: The card cannot be read.
    """
    if not (path / CARD).is_file():
        return False  # made elsewhere
    try:
        return json.loads((path / CARD).read_text(encoding="utf-8")).get("reads") is True
    except (OSError, ValueError, AttributeError) as error:
        remedy = "delete the folder and train again"
        raise TrainingError(f"{path / CARD} cannot be read ({error!r})", remedy) from error


def _read(path: Path) -> Adapter:
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        known = {
            field.name: card[field.name] for field in fields(Adapter) if field.name not in ("name", "path")
        }
        return Adapter(name=path.name, path=path, **known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "delete the folder and train again"
        raise TrainingError(f"{path / CARD} cannot be read ({error!r})", remedy) from error


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


def _uses(adapters_dir: Path) -> dict[str, str]:
    try:
        uses = json.loads((adapters_dir / IN_USE).read_text(encoding="utf-8"))
        return {str(base): str(name) for base, name in uses.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        remedy = "delete the file and run `agentkit finetune use NAME` again"
        raise TrainingError(f"{adapters_dir / IN_USE} cannot be read ({error})", remedy) from error


def _write_uses(adapters_dir: Path, uses: dict[str, str]) -> None:
    private_dir(adapters_dir)
    draft = adapters_dir / f".{IN_USE}.{os.getpid()}"
    draft.write_text(json.dumps(uses, indent=1) + "\n", encoding="utf-8")
    draft.chmod(0o600)
    os.replace(draft, adapters_dir / IN_USE)
