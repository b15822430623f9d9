"""What is on disk: the files that should be in the index, and those that a user asks to add."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agentkit.errors import KnowledgeError, NotFoundError
from agentkit.retrieval.loaders import parse_document, read_bytes
from agentkit.retrieval.parsed import Parsed
from agentkit.retrieval.records import Origin

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that should be in the index."""

    name: str
    path: Path
    origin: Origin


@dataclass(slots=True)
class Listing:
    """The visible files of a folder, by name."""

    sources: list[Source] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of what must not be followed or cannot be listed."""
    unreadable: list[str] = field(default_factory=list)
    """Folders that cannot be listed; ``.`` is the whole of it."""

    def join(self, added: Listing) -> None:
        """Take over the added files; those that stand in the folder too are hidden by it."""
        names = {source.name for source in self.sources}
        for source in added.sources:
            if source.name in names:
                reason = "an added document of this name is hidden by the one in the folder"
                self.skipped.append((source.name, reason))
            else:
                self.sources.append(source)
        self.skipped += added.skipped
        self.unreadable += added.unreadable

    def missing(self, names: Set[str]) -> set[str]:
        """Those of ``names`` that are no file here, nor below a folder that cannot be listed."""
        here = {source.name for source in self.sources}
        below = tuple(f"{folder}/" for folder in self.unreadable)
        return {name for name in names - here if "." not in self.unreadable and not name.startswith(below)}


def list_folder(folder: Path, origin: Origin) -> Listing:
    """Every visible file under a folder."""
    found = Listing()
    root = folder.resolve()

    def unreadable(error: OSError) -> None:
        name = _name(Path(error.filename), folder)
        found.unreadable.append(name)
        found.skipped.append((name, f"cannot be read: {error.strerror}"))

    for where, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if os.path.islink(here / name)]:
            found.skipped.append((_name(here / name, folder), "a link to a folder is not followed"))
        for name in sorted(name for name in files if not _is_hidden(name)):
            path = here / name
            if reason := _refused_link(path, root):
                found.skipped.append((_name(path, folder), reason))
            else:
                found.sources.append(Source(_name(path, folder), path, origin))
    return found


def _is_hidden(name: str) -> bool:
    """Hidden files, and those that editors leave beside a document."""
    return name.startswith((".", "~")) or name.endswith("~")


def _refused_link(path: Path, root: Path) -> str:
    """Why a link must not be followed; empty for other files."""
    if not os.path.islink(path):  # of what may not be looked at, reading it tells the reason
        return ""
    try:
        inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise the latter
        return "a link that leads to itself"
    return "" if inside else "a link that leads out of the knowledge folder"


def _name(path: Path, folder: Path) -> str:
    """The name within the knowledge base; bytes that are no UTF-8, which SQLite would refuse, as ``%FF``."""
    return _SURROGATE.sub(_escaped, path.relative_to(folder).as_posix())


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"%u{code:04X}"


def readable_sources(
    paths: Sequence[Path], taken: Set[str], skipped: list[tuple[str, str]], parsed: Parsed
) -> list[Source]:
    """The files, and the files of the folders, that a user asks to add and that can be added.

    Args:
        paths: What is asked for.
        taken: Names of documents that cannot be replaced, as they are files of the knowledge folder.
        skipped: Takes (name, reason) of what is refused.
        parsed: Takes the documents, so that indexing need not parse them again.

    Raises:
        NotFoundError: There is nothing at one of ``paths``.
    """
    accepted = []
    for source in _sources_of(paths, skipped):
        try:
            if source.name in taken:
                raise KnowledgeError(
                    f"{source.name} is in the knowledge folder already", "change the file there"
                )
            data = read_bytes(source.path)
            parsed.keep(source.name, data, parse_document(data, source.path, source.name))
            accepted.append(source)
        except KnowledgeError as error:
            skipped.append((source.name, str(error)))
    return accepted


def _sources_of(paths: Sequence[Path], skipped: list[tuple[str, str]]) -> list[Source]:
    """What is asked for, each under a name of its own."""
    found: dict[str, Source] = {}
    for source in [source for path in paths for source in _sources_at(path, skipped)]:
        other = found.setdefault(source.name, source)
        if not _same_file(other.path, source.path):
            reason = f"{source.path} would replace {other.path}; rename one of them, or add their folders"
            skipped.append((source.name, reason))
    return [*found.values()]


def _sources_at(path: Path, skipped: list[tuple[str, str]]) -> list[Source]:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path} does not exist", "name an existing file or folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise KnowledgeError(f"{path} cannot be read: {reason}", "check its name and permissions") from error
    real = Path(os.path.abspath(path))
    if not path.is_dir():
        name = _name(real, real.parent)
        if _is_hidden(name):
            skipped.append((name, f"{path} is a hidden or backup file; rename it"))
            return []
        return [Source(name, path, "added")]
    folder = path.resolve()
    name = _name(folder, folder.parent)
    if name == ".":
        skipped.append((str(path), f"{path} is the root of a file system; name folders below it"))
        return []
    if name.startswith("."):
        skipped.append((name, f"{path} is a hidden folder; rename it"))
        return []
    listing = list_folder(path, "added")
    skipped += [(f"{name}/{inner}", reason) for inner, reason in listing.skipped]
    return [Source(f"{name}/{s.name}", s.path, "added") for s in listing.sources]


def _same_file(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def copy_file(source: Path, target: Path) -> None:
    """Copy content only, whole or not at all, readable by the owner only.

    Raises:
        KnowledgeError: The source cannot be read, or the target not be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_native_id()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (
            source.open("rb") as read,
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as write,
        ):
            shutil.copyfileobj(read, write)
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise KnowledgeError(
            f"cannot copy {source}: {error.strerror}", "check permissions and the disk"
        ) from error
