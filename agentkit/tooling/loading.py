"""Tools from a project's folder and from the entry points of other packages."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from agentkit.errors import AgentkitError, NotFoundError, ProjectError
from agentkit.tooling.results import error_text
from agentkit.tooling.tool import Tool

GROUP = "agentkit.tools"
"""Entry-point group: each entry is a `Tool`, a list of tools or a module that holds some."""


def load_tools(folder: Path) -> list[Tool]:
    """Every tool of the folder's ``*.py`` files, in order of file name; none where there is no folder.

    Files that start with ``_`` or ``.`` are no tools; their neighbours import them relatively
    (``from ._helper import …``).

    Raises:
        ProjectError: A file does not import, defines no tool, or two tools have one name.
    """
    if not folder.is_dir():
        return []
    _forget(folder)
    found = (path for path in folder.glob("*.py") if path.is_file() and not path.name.startswith(("_", ".")))
    files = sorted(found)
    return unique(tool for path in files for tool in load_file(path))


def load_file(path: Path) -> list[Tool]:
    """The tools that one file defines.

    Raises:
        ProjectError: Names file, line and exception in one line.
    """
    path = path.resolve()
    module = _import_file(path)
    own = [
        value for value in vars(module).values() if isinstance(value, Tool) and not _imported(value, module)
    ]
    if not own:
        raise ProjectError(
            f"{path} defines no tool", "decorate a function with @tool, or let its name start with _"
        )
    return [replace(found, source=path) for found in dict.fromkeys(own)]


def load_entry_points() -> list[Tool]:
    """The tools that installed packages offer in the group ``agentkit.tools``.

    Raises:
        ProjectError: An entry point cannot be loaded or holds no tool.
    """
    return [found for entry in sorted(entry_points(group=GROUP)) for found in _load_entry(entry)]


def load_entry_point(name: str) -> list[Tool]:
    """The tools of one entry point.

    Raises:
        ProjectError: It cannot be loaded or holds no tool.
        NotFoundError: No installed package has it.
    """
    found = [tool for entry in entry_points(group=GROUP, name=name) for tool in _load_entry(entry)]
    if not found:
        raise NotFoundError(
            f"no package offers the tool entry point {name!r}", "install the package that does"
        )
    return found


def unique(tools: Iterable[Tool]) -> list[Tool]:
    """The tools as a list.

    Raises:
        ProjectError: Two of them have the same name; names both files.
    """
    seen: dict[str, Tool] = {}
    for found in tools:
        if found.name in seen:
            places = " and ".join(
                str(t.source or t.entry_point or "this program") for t in (seen[found.name], found)
            )
            raise ProjectError(f"two tools are called {found.name!r}: in {places}", "rename one of them")
        seen[found.name] = found
    return list(seen.values())


def _load_entry(entry: EntryPoint) -> list[Tool]:
    try:
        with redirect_stdout(sys.stderr):
            value = entry.load()
    except (Exception, SystemExit) as error:
        cause = f"entry point {entry.name!r} of {GROUP} ({entry.value}) does not load: {error_text(error)}"
        raise ProjectError(cause, "fix or uninstall the package that offers it") from error
    if isinstance(value, Tool):
        found = [value]
    elif isinstance(value, ModuleType | Iterable):
        candidates = vars(value).values() if isinstance(value, ModuleType) else value
        found = [item for item in candidates if isinstance(item, Tool)]
    else:
        cause = f"entry point {entry.name!r} of {GROUP} holds no tool, but {type(value).__name__}"
        raise ProjectError(cause, "make it a tool with @tool in its package, or uninstall that")
    if not found:
        raise ProjectError(f"entry point {entry.name!r} of {GROUP} holds no tool", "uninstall its package")
    return [replace(tool, entry_point=entry.name) for tool in dict.fromkeys(found)]


def _imported(found: Tool, module: ModuleType) -> bool:
    """Whether a tool is that of another file of the folder."""
    others = [
        value
        for name, value in sys.modules.items()
        if name.startswith(f"{module.__package__}.") and value is not module
    ]
    return any(found is value for other in others for value in vars(other).values())


def _package(folder: Path) -> str:
    """A module name of its own for each folder, so that no tool file shadows another module."""
    return f"agentkit_tools_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def _forget(folder: Path) -> None:
    name = _package(folder)
    for key in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        del sys.modules[key]
    importlib.invalidate_caches()


def _import_file(path: Path) -> ModuleType:
    package = _package(path.parent)
    if package not in sys.modules:
        parent = ModuleType(package, "The tools of one folder.")
        parent.__path__ = [str(path.parent)]
        sys.modules[package] = parent
    name = f"{package}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # always so for a .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with redirect_stdout(sys.stderr):  # standard output is the answer's alone
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        problem = error.cause if isinstance(error, AgentkitError) else error_text(error)
        remedy = (
            error.remedy if isinstance(error, AgentkitError) else "fix the file or move it out of the folder"
        )
        raise ProjectError(f"{path}{_line(error, path)}: {problem}", remedy) from error
    return module


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""
