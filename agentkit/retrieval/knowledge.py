"""The knowledge base: a folder of documents, and documents added by hand, searched together."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from agentkit.closing import Closing
from agentkit.errors import IndexDamaged, IndexOutdated, KnowledgeError, NotFoundError, UsageError
from agentkit.messages import Message, Passage
from agentkit.retrieval.abstention import load_abstention
from agentkit.retrieval.followup import understood
from agentkit.retrieval.parsed import Parsed
from agentkit.retrieval.places import IndexPlace, SqlitePlace
from agentkit.retrieval.protocol import Embedder, Index, Reader, Reranker, Where
from agentkit.retrieval.records import IndexedDocument, Vectors
from agentkit.retrieval.search import find
from agentkit.retrieval.seen import Seen
from agentkit.retrieval.sources import Listing, copy_file, list_folder, readable_sources
from agentkit.retrieval.spelling import corrected, is_english
from agentkit.retrieval.sync import Progress, SyncReport, synchronize

QUERY_CHARACTERS = 8_000
UNFITTED = (
    'when to say "I don\'t know" was not fitted for the embedder {name}: '
    "see how often it is right with `agentkit eval rag --data FILE`"
)


class KnowledgeBase(Closing):
    """Finds passages; keeps its index in step with the files.

    Nothing is read or written before the first use, so a damaged index can still be rebuilt.

    Args:
        folder: Documents kept by the user; ``None`` for a knowledge base of added documents only.
        index_path: The SQLite file. Beside it: ``.faiss`` (a view) and ``.added/`` (copies of added files).
        embedder: Texts to vectors.
        on_notice: Told of every repair and of every file that cannot be read, as it happens; `notices` keeps them too.
        reranker: Reads question and passage together and decides about the order; without one the index does. One
            that has learned to judge (`Reranker`) has a say in `answerable` too.
        place: Where the index is kept instead of the SQLite file; only ``.added/`` is then beside ``index_path``.
        optional: The folder may be missing as long as the index has no documents of it.
    """

    def __init__(
        self,
        folder: Path | None,
        index_path: Path,
        embedder: Embedder,
        on_notice: Callable[[str], None] | None = None,
        reranker: Reranker | None = None,
        place: IndexPlace | None = None,
        optional: bool = False,
    ) -> None:
        self.folder = folder
        self.index_path = index_path
        self.embedder = embedder
        self.notices: list[str] = []
        self._on_notice, self._reranker = on_notice, reranker
        self._place = place or SqlitePlace(index_path)
        self._added = index_path.with_name(index_path.name + ".added")
        self._lock = threading.RLock()
        self._opened: Index | None = None
        self._optional = optional
        self._stale = False  # the index has been emptied, and not been filled again yet
        self._renewed: SyncReport | None = None  # what filled it again
        self._told: dict[str, str] = {}  # files that the last round could not read, and why
        self._told_unfitted = False

    def search(
        self,
        query: str,
        limit: int = 4,
        *,
        where: Where | None = None,
        history: Sequence[Message] = (),
    ) -> list[Passage]:
        """The best passages: order by meaning and words together, the score is the cosine.

        Args:
            query: The question, or what to look for.
            limit: Passages at most.
            where: Only documents with these properties: ``{"folder": "orders", "language": ["en", "de"]}``.
            history: The conversation before, where the query may go on from it ("and how long does that take?").

        Raises:
            UsageError: The query is empty, ``limit`` is less than 1, or no document has a key of ``where``.
            KnowledgeError: The index is damaged.
        """
        query = query.strip()[:QUERY_CHARACTERS]
        if not query:
            raise UsageError("the question is empty", "ask something")
        if limit < 1:
            raise UsageError(f"a limit of {limit} passages finds nothing", "use 1 or more")
        index = self._index()
        self._check_own(index)
        question = understood(query, history, self.corrected)
        return find(question, limit, index, self.embedder, where=where, reranker=self._reranker)

    def answerable(self, query: str, passages: Sequence[Passage], reader: Reader | None = None) -> float:
        """Probability, 0 to 1, that the passages answer the question; compare with `answer_threshold`.

        Args:
            query: The question as somebody would ask it who has said nothing before.
            passages: Best first.
            reader: Reads the best of them for it, unless the reranker has learned to; without either the embedder
                decides alone.
        """
        query = self.corrected(query[:QUERY_CHARACTERS])
        reader = self._judge or reader
        model = load_abstention(self.embedder.name, reader.name if reader else "")
        if model.vectors != self.embedder.name and not self._told_unfitted:
            self._told_unfitted = True
            self._notice(UNFITTED.format(name=self.embedder.name))
        return model.probability(query, passages, self.embedder, self._index(), reader)

    @property
    def judged(self) -> bool:
        """Whether a reranker that has learned to judge has its say in `answerable`: under the threshold it is right."""
        return self._judge is not None

    @property
    def _judge(self) -> Reader | None:
        judge: Reader | None = getattr(self._reranker, "reader", None)
        return judge

    def corrected(self, query: str) -> str:
        """The question, its misspelt words replaced by the nearest words of the documents."""
        return corrected(query, self._index().vocabulary, is_english)

    @property
    def answer_threshold(self) -> float:
        """`answerable` under this means: say that the knowledge base does not know."""
        return load_abstention(self.embedder.name).threshold

    def sync(self, progress: Progress | None = None) -> SyncReport:
        """Bring the index in step with the files; unreadable files are named in the report and skipped.

        Args:
            progress: Called with the name of every document that has been embedded.

        Raises:
            KnowledgeError: The folder is missing, or the index is damaged or not writable.
        """
        return self._sync(self._index(progress), progress, force=False)

    def add(self, paths: Sequence[Path], progress: Progress | None = None) -> SyncReport:
        """Add files, or all files of folders, to the knowledge base; their content is copied.

        A document of the same name that was added before is replaced. What is refused is named in the report.

        Raises:
            NotFoundError: A path does not exist; nothing has been added.
            KnowledgeError: None of the files can be read as text, or a name is taken by the folder.
        """
        index = self._index(progress)
        skipped: list[tuple[str, str]] = []
        taken = {document.name for document in index.documents() if document.origin == "folder"}
        if self._has_folder(index) and self.folder is not None:  # also those that the index does not know yet
            taken |= {source.name for source in list_folder(self.folder, "folder").sources}
        parsed = Parsed()
        accepted = readable_sources(paths, taken, skipped, parsed)
        if skipped and not accepted:
            raise KnowledgeError(skipped[0][1])
        for source in accepted:
            self._place.push(source.name, source.path)
            copy_file(source.path, self._added / source.name)
        for name, reason in skipped:
            self._notice(f"{name} skipped: {reason}")
        report = self._sync(index, progress, force=False, parsed=parsed)
        return replace(report, skipped=(*report.skipped, *skipped))

    def remove(self, name: str) -> None:
        """Remove a document that was added; also a copy that the index has not: unreadable, or hidden by the folder.

        Raises:
            NotFoundError: There is no such document; names the nearest ones.
            UsageError: The document is a file of the folder.
            KnowledgeError: Its file cannot be deleted.
        """
        index = self._index()
        documents = {document.name: document for document in index.documents()}
        copies = self._copies()
        indexed, copy = documents.get(name), copies.get(name)
        if indexed is None and copy is None:
            near = difflib.get_close_matches(name, [*documents, *copies], n=3, cutoff=0.4)
            remedy = f"did you mean {', '.join(near)}?" if near else "see `agentkit knowledge list`"
            raise NotFoundError(f"there is no document {name!r} in the knowledge base", remedy)
        if indexed and indexed.origin == "folder" and copy is None:
            raise UsageError(
                f"{name} is a file of {self.folder}", f"delete {self.folder}/{name} and it is gone"
            )
        self._place.forget(name)
        try:
            if copy is not None:
                copy.unlink(missing_ok=True)
        except OSError as error:
            cause = f"cannot delete {copy}: {error.strerror}"
            raise KnowledgeError(cause, "check permissions and the disk") from error
        if indexed and indexed.origin == "added":
            index.remove([name])
            index.flush()

    def list(self) -> list[IndexedDocument]:
        """Every document of the index, by name."""
        return self._index().documents()

    def verify(self) -> None:
        """Check database and view.

        Raises:
            KnowledgeError: The database is damaged; the remedy is `rebuild`.
        """
        self._index().verify()

    def rebuild(self, progress: Progress | None = None) -> SyncReport:
        """Load and embed every document again; a damaged index is put out of the way first."""
        with self._lock:
            self._renewed = None
            try:
                index = self._index(progress)
                index.verify()
            except IndexDamaged as error:
                self.close()
                self._put_away(error)
                index = self._index(progress)
            return self._renewed or self._sync(index, progress, force=True)

    def close(self) -> None:
        """Release the index; the next call opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    def _sync(
        self, index: Index, progress: Progress | None, force: bool, parsed: Parsed | None = None
    ) -> SyncReport:
        walk = self._has_folder(index)
        seen = Seen(self.index_path.with_name(self.index_path.name + ".seen"))

        def embed(texts: list[str]) -> Vectors:
            vectors = self.embedder.embed(texts)
            self._check_own(index)  # they are stored next
            return vectors

        find = partial(self._list_files, walk)
        report = synchronize(index, find, embed, progress, force, seen, parsed)
        self._tell(report)
        return report

    def _has_folder(self, index: Index | None = None) -> bool:
        """Whether there is a folder to read.

        Raises:
            KnowledgeError: It is missing, and documents would be.
        """
        if self.folder is None or self.folder.is_dir():
            return self.folder is not None
        if self._optional and not (index and any(d.origin == "folder" for d in index.documents())):
            return False
        cause = f"the knowledge folder {self.folder} does not exist"
        raise KnowledgeError(cause, "make it or name another")

    def _list_files(self, walk: bool) -> Listing:
        self._place.pull(self._added)
        listing = list_folder(self.folder, "folder") if walk and self.folder is not None else Listing()
        if self._added.is_dir():
            listing.join(list_folder(self._added, "added"))
        return listing

    def _copies(self) -> dict[str, Path]:
        """The files that were added, by name."""
        found = list_folder(self._added, "added") if self._added.is_dir() else Listing()
        return {source.name: source.path for source in found.sources}

    def _tell(self, report: SyncReport) -> None:
        """Say what the user should know of files; of a file that is still unreadable, once."""
        reasons = dict(report.skipped)
        for name, reason in reasons.items():
            if self._told.get(name) != reason:
                self._notice(f"{name} skipped: {reason}")
        self._told = reasons
        for name, text in report.notices:
            self._notice(f"{name}: {text}")
        if report.removed and not (report.changed or report.unchanged):
            where = self.folder or self._added  # a disk that is not mounted leaves an empty folder
            gone = f"{len(report.removed)} removed from the index"
            if not report.added:
                self._notice(f"{where} holds no documents any more: {gone}")
            elif len(report.removed) > 1:
                self._notice(
                    f"{where} holds none of the documents that the index had: {gone}; if they are those of another "
                    "project, give each its own [knowledge] index or index_schema"
                )

    def _index(self, progress: Progress | None = None) -> Index:
        """The index, filled anew where another version or another embedder made it; one that is refused is closed."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
                try:
                    self._check_embedder(self._opened)
                    if self._stale:
                        self._renewed = self._sync(self._opened, progress, force=False)
                        self._stale = False
                except BaseException:
                    self.close()
                    raise
            return self._opened

    def _open(self) -> Index:
        try:
            return self._place.open(self.embedder.dimension, self._notice)
        except IndexOutdated as error:
            self._put_away(error)
            return self._place.open(self.embedder.dimension, self._notice)

    def _put_away(self, error: IndexDamaged) -> None:
        """Make room for a new index; not where its documents could not be read again."""
        self._has_folder()
        outdated = isinstance(error, IndexOutdated)
        self._notice(f"{error.cause}; {self._place.discard(self.embedder.dimension, outdated)}")
        self._stale = True

    def _check_embedder(self, index: Index) -> None:
        """Vectors of another embedder cannot be compared with ours."""
        before, ours = index.embedder(), self.embedder.name
        if before == ours:
            return
        had_documents = index.counts()[0] > 0
        if had_documents:
            self._has_folder(index)
        index.reset(ours)
        if had_documents:
            self._notice(f"the embedding model changed from {before} to {ours}; indexing again")
            self._stale = True

    def _check_own(self, index: Index) -> None:
        """Another process may have filled it with the vectors of another embedder since it was opened.

        Raises:
            KnowledgeError: It has.
        """
        if (now := index.embedder()) != self.embedder.name:
            cause = f"another process has made the index anew for the embedder {now}; here it is {self.embedder.name}"
            raise KnowledgeError(
                cause, "start again with the same [knowledge] embedder, or with an index of its own"
            )

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        if self._on_notice:
            self._on_notice(text)
