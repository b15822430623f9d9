"""What is on disk, and what of it the index does not have yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentkit.errors import KnowledgeError, NotFoundError
from agentkit.retrieval.chunks import Chunk, chunk_document
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders import parse_document, read_bytes
from agentkit.retrieval.protocol import Index
from agentkit.retrieval.records import NewDocument, Origin, Vectors
from agentkit.retrieval.seen import Seen
from agentkit.retrieval.sentences import sentences


class Step(str):
    """The name of a document that has been indexed, with how far the round is."""

    done: int
    """Files of the round that are dealt with: indexed, unchanged or skipped."""
    total: int
    """Files of the round."""

    def __new__(cls, name: str, done: int, total: int) -> Step:
        step = super().__new__(cls, name)
        step.done, step.total = done, total
        return step


Progress = Callable[[Step], None]
"""Told of every document that has been indexed; a function of its name alone will do."""
Embed = Callable[[list[str]], Vectors]
GROUP = 512
"""Chunks embedded together, across documents: full batches cost half of many small ones."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that should be in the index."""

    name: str
    path: Path
    origin: Origin


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a round of synchronisation did; names in order."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of files that cannot be read."""
    notices: tuple[tuple[str, str], ...] = ()
    """(name, what to know) of files that were read: rows left out, an encoding that was guessed."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    source: Source
    sha256: str
    document: Document
    chunks: list[Chunk]

    def texts(self) -> list[list[str]]:
        """What is embedded: the rows of every chunk, then those of the document."""
        return [*map(_embedded, self.chunks), [self.document.title, *self.document.keywords]]

    def prepared(self, vectors: Mapping[str, Vectors]) -> NewDocument:
        *own, phrases = [np.array([vectors[text] for text in rows]) for rows in self.texts()]
        source, document = self.source, self.document
        return NewDocument(
            source.name, document.title, document.text, self.sha256, source.origin, document.keywords,
            self.chunks, own, phrases, document.language, document.metadata,
        )  # fmt: skip


def find_sources(folder: Path, origin: Origin, skipped: list[tuple[str, str]]) -> Iterator[Source]:
    """Every visible file under a folder, by name; what must not be followed goes to ``skipped``."""
    root = folder.resolve()

    def unreadable(error: OSError) -> None:
        skipped.append((_name(Path(error.filename), folder), f"cannot be read: {error.strerror}"))

    for where, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if (here / name).is_symlink()]:
            skipped.append((_name(here / name, folder), "a link to a folder is not followed"))
        for name in sorted(
            name for name in files if not name.startswith((".", "~")) and not name.endswith("~")
        ):
            path = here / name
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                skipped.append((_name(path, folder), "a link that leads out of the knowledge folder"))
            else:
                yield Source(_name(path, folder), path, origin)


def synchronize(
    index: Index, sources: list[Source], embed: Embed, progress: Progress | None, force: bool, seen: Seen
) -> SyncReport:
    """Make the index hold exactly ``sources``; only new and changed files are loaded and embedded, and those that have
    not been touched since ``seen`` are not even read.

    Documents are stored whole, a few in one transaction: a stop half-way keeps what is done.
    """
    known = {document.name: document for document in index.documents()}
    added, changed, unchanged = list[str](), list[str](), list[str]()
    skipped: list[tuple[str, str]] = []
    notices: list[tuple[str, str]] = []
    pending: list[_Loaded] = []
    waiting: set[str] = set()

    def stored(name: str) -> None:
        if progress:
            waiting.discard(name)
            done = len(added) + len(changed) + len(unchanged) + len(skipped) - len(waiting)
            progress(Step(name, done, len(sources)))

    for source in sources:
        try:
            old = known.get(source.name)
            same = (old.sha256, old.origin) if old and not force else None
            if same == (seen.digest(source.path), source.origin):
                unchanged.append(source.name)
                continue
            data = read_bytes(source.path)
            sha256 = seen.note(source.path, data)
            if same == (sha256, source.origin):
                unchanged.append(source.name)
                continue
            document = parse_document(data, source.path, source.name)
        except KnowledgeError as error:
            skipped.append((source.name, str(error)))
            continue
        (changed if old else added).append(source.name)
        waiting.add(source.name)
        notices += [(source.name, notice) for notice in document.notices]
        pending.append(_Loaded(source, sha256, document, chunk_document(document)))
        if sum(len(loaded.chunks) for loaded in pending) >= GROUP:
            _store(index, pending, embed, stored)
            pending = []
    _store(index, pending, embed, stored)
    removed = sorted(known.keys() - {*added, *changed, *unchanged})
    if removed:
        index.remove(removed)
    index.flush()
    seen.save()
    return SyncReport(
        tuple(added), tuple(changed), tuple(removed), tuple(unchanged), tuple(skipped), tuple(notices)
    )


def _store(index: Index, pending: list[_Loaded], embed: Embed, stored: Callable[[str], None]) -> None:
    if not pending:
        return
    texts = {text for loaded in pending for rows in loaded.texts() for text in rows}
    vectors = dict(zip(texts, embed(list(texts)), strict=True))
    index.put([loaded.prepared(vectors) for loaded in pending])
    for loaded in pending:
        stored(loaded.source.name)


def _embedded(chunk: Chunk) -> list[str]:
    """The rows of `StoredChunk.vectors`: a question may match a whole section or one sentence of it."""
    return [chunk.embedded_text(), *sentences(chunk.text)]


def _name(path: Path, folder: Path) -> str:
    # Undecodable bytes of a file name must not reach SQLite as lone surrogates.
    return path.relative_to(folder).as_posix().encode(errors="surrogateescape").decode(errors="replace")


def sources_of(path: Path, skipped: list[tuple[str, str]]) -> list[Source]:
    """The file, or the files of the folder, that a user asks to add.

    Raises:
        NotFoundError: There is nothing at ``path``.
    """
    if not path.exists():
        raise NotFoundError(f"{path} does not exist", "name an existing file or folder")
    if not path.is_dir():
        return [Source(path.name, path, "added")]
    name = path.resolve().name
    return [Source(f"{name}/{s.name}", s.path, "added") for s in find_sources(path, "added", skipped)]


def copy_file(source: Path, target: Path) -> None:
    """Copy content only, whole or not at all, readable by the owner only."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with (
            source.open("rb") as read,
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as write,
        ):
            shutil.copyfileobj(read, write)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KnowledgeError(
            f"cannot copy {source}: {error.strerror}", "check permissions and the disk"
        ) from error
