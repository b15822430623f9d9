"""Brings the index in step with the files: loads, cuts and embeds what it does not have yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agentkit.errors import KnowledgeError
from agentkit.retrieval.chunks import Chunk, chunk_document
from agentkit.retrieval.documents import CELL, COLUMN, Document
from agentkit.retrieval.loaders import Killed, TookTooLong, format_of, parse_document, read_bytes
from agentkit.retrieval.parsed import Parsed
from agentkit.retrieval.protocol import Index
from agentkit.retrieval.records import IndexedDocument, NewDocument, Vectors
from agentkit.retrieval.seen import Seen, state
from agentkit.retrieval.sentences import sentences
from agentkit.retrieval.sources import Listing, Source


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
class SyncReport:
    """What a round of synchronisation did; names in order."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of files that cannot be read; what the index has of them stays as it was."""
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


def synchronize(
    index: Index,
    find: Callable[[], Listing],
    embed: Embed,
    progress: Progress | None,
    force: bool,
    seen: Seen,
    parsed: Parsed | None = None,
) -> SyncReport:
    """Make the index hold exactly the files that there are; only new and changed ones are loaded and embedded, and
    those that have not been touched since ``seen`` are not even read.

    Documents are stored whole, a few in one transaction: a stop half-way keeps what is done. A document whose file
    cannot be read stays as it was.

    Args:
        index: Where documents are stored.
        find: Lists the files; asked again before documents are removed.
        embed: Texts to vectors.
        progress: Told of every document that has been stored.
        force: Load and embed unchanged files, too, and those that could not be read.
        seen: What is known of the files.
        parsed: Documents that are not parsed again.
    """
    # Read before the files are listed: what another process adds and indexes meanwhile is then not taken for removed.
    known = {document.name: document for document in index.documents()}
    listing = find()
    work = _Round(index, embed, progress, force, seen, parsed or Parsed(), len(listing.sources))
    for source in listing.sources:
        work.take(source, known.get(source.name))
    work.store()
    removed = known.keys() - work.dealt_with()
    if removed:
        # Editors write a file anew under its name: for a moment there is none.
        listing = find()
        removed = listing.missing(removed)
    if removed:
        index.remove(sorted(removed))
    index.flush()
    seen.save()
    return SyncReport(
        tuple(work.added),
        tuple(work.changed),
        tuple(sorted(removed)),
        tuple(work.unchanged),
        (*listing.skipped, *work.skipped),
        tuple(work.notices),
    )


class _Round:
    """The files of one round, one after the other."""

    def __init__(
        self,
        index: Index,
        embed: Embed,
        progress: Progress | None,
        force: bool,
        seen: Seen,
        parsed: Parsed,
        total: int,
    ) -> None:
        self._index, self._embed, self._progress, self._force = index, embed, progress, force
        self._seen, self._parsed, self._total = seen, parsed, total
        self._pending: list[_Loaded] = []
        self.added, self.changed, self.unchanged = list[str](), list[str](), list[str]()
        self.skipped: list[tuple[str, str]] = []
        self.notices: list[tuple[str, str]] = []

    def dealt_with(self) -> set[str]:
        """Names of all files so far."""
        return {*self.added, *self.changed, *self.unchanged, *(name for name, _ in self.skipped)}

    def take(self, source: Source, old: IndexedDocument | None) -> None:
        """Deal with one file; its document may be stored with those that follow."""
        try:
            loaded = self._load(source, old)
        except KnowledgeError as error:
            self.skipped.append((source.name, str(error)))
            return
        if loaded is None:
            self.unchanged.append(source.name)
            return
        (self.changed if old else self.added).append(source.name)
        self.notices += [(source.name, notice) for notice in loaded.document.notices]
        self._pending.append(loaded)
        if sum(len(loaded.chunks) for loaded in self._pending) >= GROUP:
            self.store()

    def _load(self, source: Source, old: IndexedDocument | None) -> _Loaded | None:
        """The file's document; none where the index has it.

        Raises:
            KnowledgeError: It cannot be read, now or when it was last tried.
        """
        path, seen = source.path, self._seen
        format_of(path)  # before it is read: there may be no loader for it
        same = (old.sha256, old.origin) if old and not self._force else None
        if same == (seen.digest(path), source.origin):
            return None
        if not self._force and (reason := seen.failure(path)):
            raise KnowledgeError(reason)
        before = state(path)
        data = read_bytes(path)
        sha256 = seen.note(path, data, before)
        if same == (sha256, source.origin):
            return None
        document = self._parsed.take(source.name, sha256)
        if document is None:
            document = self._parse(source, data, sha256)
        return _Loaded(source, sha256, document, chunk_document(document))

    def _parse(self, source: Source, data: bytes, sha256: str) -> Document:
        path, seen = source.path, self._seen
        if not self._force and (reason := seen.failure(path, sha256)):
            raise KnowledgeError(reason)
        try:
            return parse_document(data, path, source.name)
        except Killed:
            raise
        except TookTooLong as error:
            seen.fail(path, "", str(error))
            raise
        except KnowledgeError as error:
            if format_of(path).own:  # what another package reads may depend on more than its version
                seen.fail(path, sha256, str(error))
            raise

    def store(self) -> None:
        """Embed and store what is loaded."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        # In the order of the files: the same batches, and so the same vectors, every time.
        texts = list(dict.fromkeys(text for loaded in pending for rows in loaded.texts() for text in rows))
        vectors = dict(zip(texts, self._embed(texts), strict=True))
        self._index.put([loaded.prepared(vectors) for loaded in pending])
        dealt = len(self.added) + len(self.changed) + len(self.unchanged) + len(self.skipped)
        done = dealt - len(pending)
        for number, loaded in enumerate(pending, 1):
            if self._progress:
                self._progress(Step(loaded.source.name, done + number, self._total))


def _embedded(chunk: Chunk) -> list[str]:
    """The rows of `StoredChunk.vectors`: a question may match a whole section, one sentence or one keyword of it."""
    own = (sentence.replace(COLUMN, CELL) for sentence in sentences(chunk.text))
    return [chunk.embedded_text(), *own, *chunk.keywords]
