"""A project is a folder with ``agentkit.toml``: its tools, prompts and knowledge, and where its data lives.

Without one the starter project is used: ``agentkit/_starter`` in a wheel, the repository in a checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agentkit.errors import ProjectError
from agentkit.settings import Settings, data_dir, expanded, load_settings

MARKER = "agentkit.toml"
STARTER_FOLDERS = ("tools", "prompts", "knowledge", "examples")


@dataclass(frozen=True, slots=True)
class Project:
    """Where everything of one project is found."""

    root: Path
    """Resolved folder."""
    is_starter: bool = False
    own_data: Path | None = None
    """Where its data lives, if not among the user's."""

    @property
    def tools_dir(self) -> Path:
        """One tool file each; only a project's own are ever executed."""
        return self.root / "tools"

    @property
    def prompts_dir(self) -> Path:
        """One prompt template each."""
        return self.root / "prompts"

    @property
    def knowledge_dir(self) -> Path:
        """Documents, unless ``[knowledge] path`` names another folder."""
        return self.root / "knowledge"

    @property
    def toml(self) -> Path:
        """The settings file; the starter has none."""
        return self.root / MARKER

    @property
    def data_dir(self) -> Path:
        """Sessions, index and adapters of this project, outside its folder; not created here."""
        if self.own_data is not None:
            return self.own_data
        return data_dir() / "projects" / ("starter" if self.is_starter else self._key())

    @property
    def sessions_path(self) -> Path:
        """The session database."""
        return self.data_dir / "sessions.sqlite"

    def settings(self, options: Mapping[str, Any] | None = None) -> Settings:
        """The project's settings under the given options (see `load_settings`)."""
        return load_settings(self.toml, options)

    def _key(self) -> str:
        name = re.sub(r"[^\w.-]+", "-", self.root.name, flags=re.ASCII).strip("-.") or "project"
        # The path tells apart projects of one name; os.fsencode takes names that are not UTF-8 too.
        return f"{name[:40]}-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]}"


def find_project(
    explicit: Path | None = None, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> Project:
    """The project to work in: ``--project``, ``AGENTKIT_PROJECT``, the nearest ancestor, the starter.

    Args:
        explicit: The value of ``--project``.
        cwd: Where the search for an ancestor with ``agentkit.toml`` starts; the current folder by default.
        environ: Defaults to ``os.environ``.

    Raises:
        ProjectError: A folder that was named is not a project.
    """
    if explicit is not None:
        return _named(explicit, "--project")
    variable = (os.environ if environ is None else environ).get("AGENTKIT_PROJECT")
    if variable:
        return _named(Path(variable), "AGENTKIT_PROJECT")
    for folder in _ancestors(cwd):
        if os.path.isfile(folder / MARKER):  # unlike Path.is_file, no error in a folder we may not read
            return Project(folder)
    return Project(starter_root(), is_starter=True)


def starter_root() -> Path:
    """The starter project's folder.

    Raises:
        ProjectError: The installation lacks it.
    """
    package = Path(__file__).resolve().parent
    if (package / "_starter").is_dir():
        return package / "_starter"
    if (package.parent / "pyproject.toml").is_file():  # never take site-packages/tools for the starter's
        return package.parent
    raise ProjectError(
        f"{package} has no starter project", "reinstall agentkit, or name a project by --project"
    )


def suites_dir() -> Path:
    """Labelled cases about the starter project: ``routing.jsonl``, ``rag.jsonl`` and ``tools.jsonl``.

    Raises:
        ProjectError: The installation lacks them.
    """
    root = starter_root()
    for folder in (root / "suites", root / "tests" / "data"):  # in a wheel, in a checkout
        if (folder / "rag.jsonl").is_file():
            return folder
    raise ProjectError(f"{root} has no labelled cases", "reinstall agentkit")


def init_project(target: Path) -> list[Path]:
    """Make a new project from the starter.

    Args:
        target: A new folder, or one that holds nothing of these names yet.

    Returns:
        What was created in it: folders, and ``agentkit.toml`` last.

    Raises:
        ProjectError: Something would be overwritten, or cannot be written; the target is as before.
    """
    root = starter_root()
    names = [name for name in STARTER_FOLDERS if (root / name).is_dir()]
    taken = [name for name in (*names, MARKER) if os.path.lexists(target / name)]
    if taken:
        raise ProjectError(
            f"{target} already holds {', '.join(taken)}", "choose a new folder or move them away"
        )
    is_new = not target.exists()
    created: list[Path] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".agentkit-init-") as scratch:
            _fill(Path(scratch), root, names)
            for name in (*names, MARKER):  # the marker last: without it the folder is no project
                created.append((Path(scratch) / name).rename(target / name))
    except BaseException as error:
        for path in created:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if is_new and target.is_dir():
            target.rmdir()
        if isinstance(error, OSError):
            raise ProjectError(
                f"cannot create a project in {target}: {error}", "choose another folder"
            ) from error
        raise
    return created


def settings_template() -> str:
    """A commented ``agentkit.toml``: every key with its default and meaning, switched off by ``#``."""
    lines = [
        "# Settings of this project. Remove the # before a key to change it; shown is the default.",
        "# Also settable as AGENTKIT_MODEL, AGENTKIT_SAMPLING__SEED, … and by options, in rising order.",
    ]
    return "\n".join([*lines, *_section(Settings, ""), ""])


def _named(path: Path, source: str) -> Project:
    root = expanded(path).resolve()
    if os.path.isfile(root / MARKER):
        return Project(root)
    if root == starter_root():
        return Project(root, is_starter=True)
    what = f"has no {MARKER}" if root.is_dir() else "is not a folder"
    raise ProjectError(
        f"{source}: {path} {what}", f"make a project there with `agentkit init {shlex.quote(str(path))}`"
    )


def _ancestors(cwd: Path | None) -> Iterator[Path]:
    try:
        start = (Path.cwd() if cwd is None else cwd).resolve()
    except FileNotFoundError:  # the current folder has been deleted
        return
    yield from (start, *start.parents)


def _fill(folder: Path, root: Path, names: list[str]) -> None:
    for name in names:
        # Hidden files are editors' and ours (the scratch folder, if the target lies within the starter).
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
        shutil.copytree(root / name, folder / name, ignore=ignore)
    (folder / MARKER).write_text(settings_template(), encoding="utf-8")


def _section(model: type[BaseModel], name: str) -> list[str]:
    """Lines of one section and, after its own keys, of the sections within."""
    lines = ["", f"# {_one_line(model.__doc__ or '')}", f"[{name}]"] if name else []
    nested = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested += _section(field.annotation, f"{name}.{key}".strip("."))
        else:
            lines += ["", *_key_lines(key, field)]
    return lines + nested


def _key_lines(key: str, field: FieldInfo) -> list[str]:
    notes = [_one_line(field.description)] if field.description else []
    if get_origin(field.annotation) is Literal:
        notes.append(f"One of: {', '.join(get_args(field.annotation))}.")
    value = "" if field.default is None else json.dumps(field.default, ensure_ascii=False)
    return [*([f"# {' '.join(notes)}"] if notes else []), f"#{key} = {value}".rstrip()]


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
