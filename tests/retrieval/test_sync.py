"""What a round of indexing tells of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pdf_files import column, encrypted, make_pdf

from agentkit.errors import KnowledgeError
from agentkit.retrieval import loaders, seen, sync
from agentkit.retrieval.chunks import MAX_SENTENCES
from agentkit.retrieval.documents import Document
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.loaders import Killed, TookTooLong
from agentkit.retrieval.parsed import Parsed
from agentkit.retrieval.records import Vectors
from agentkit.retrieval.seen import Seen
from agentkit.retrieval.sources import Listing, list_folder, readable_sources
from agentkit.retrieval.sync import Step, SyncReport, synchronize

TEXT = "You can return any item within thirty days of delivery."


def embed(texts: list[str]) -> Vectors:
    return np.eye(1, 4, dtype=np.float32).repeat(len(texts), 0)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path / "index.db", 4, lambda notice: None)
    yield index
    index.close()


def test_progress_counts_every_file_of_the_round(tmp_path: Path, index: SqliteIndex) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    steps: list[Step] = []
    for number in range(4):
        (folder / f"{number}.md").write_text(f"# Title\n\n{TEXT} {number}")
    (folder / "2.md").write_bytes(b"\x00")

    def find() -> Listing:
        return list_folder(folder, "folder")

    report = synchronize(index, find, embed, steps.append, force=False, seen=Seen(tmp_path / "seen"))
    assert steps == ["0.md", "1.md", "3.md"]
    assert [(step.done, step.total) for step in steps] == [(2, 4), (3, 4), (4, 4)]
    assert [name for name, _ in report.skipped] == ["2.md"]
    (folder / "3.md").write_text(TEXT)
    synchronize(index, find, embed, steps.append, force=False, seen=Seen(tmp_path / "seen"))
    assert [(step, step.done, step.total) for step in steps[3:]] == [("3.md", 4, 4)]


def test_a_bad_file_is_named_and_the_rest_goes_on(tmp_path: Path, index: SqliteIndex) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    good = make_pdf([column([TEXT])])
    (folder / "a.pdf").write_bytes(encrypted(good, "secret"))
    (folder / "b.pdf").write_bytes(good[:500])
    (folder / "c.docx").write_bytes(good)
    (folder / "d.pdf").write_bytes(good)
    (folder / "e.csv").write_text("question,answer\nA?,a\nB?,\n")
    (folder / "f.txt").write_bytes(f"{TEXT} It costs £5 to send it back.".encode("cp1252"))
    outside = tmp_path / "secret.pdf"
    outside.write_bytes(good)
    (folder / "link.pdf").symlink_to(outside)
    report = synchronize(
        index,
        lambda: list_folder(folder, "folder"),
        embed,
        None,
        force=False,
        seen=Seen(tmp_path / "seen"),
    )
    assert report.added == ("d.pdf", "e.csv", "f.txt")
    assert [(name, reason.split(" ", 1)[1]) for name, reason in report.skipped] == [
        ("link.pdf", "link that leads out of the knowledge folder"),
        ("a.pdf", "is encrypted; save it without a password"),
        ("b.pdf", "is cut off: its end is missing; get a whole copy of it"),
        ("c.docx", "is a PDF, not a DOCX document; rename it to .pdf"),
    ]
    assert report.notices == (
        ("e.csv", "1 of 2 rows left out: line 3 has no answer"),
        ("f.txt", "read as cp1252: it is not UTF-8"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


@pytest.fixture
def go(index: SqliteIndex, folder: Path, tmp_path: Path) -> Callable[..., SyncReport]:
    """One round over the folder."""

    def run(force: bool = False) -> SyncReport:
        return synchronize(
            index, lambda: list_folder(folder, "folder"), embed, None, force, Seen(tmp_path / "seen")
        )

    return run


def stored(index: SqliteIndex) -> list[str]:
    return [document.name for document in index.documents()]


def test_half_characters_do_not_stop_the_round(
    index: SqliteIndex, folder: Path, go: Callable[..., SyncReport]
) -> None:
    (folder / "a.jsonl").write_text(
        r'{"question": "Is it \ud83d?", "answer": "Yes \udc00, it is.", "keywords": ["\ud83d", "fine"]}'
    )
    (folder / "b.md").write_text(f"# Title\n\n{TEXT}")
    report = go()
    assert (report.added, report.skipped) == (("a.jsonl", "b.md"), ())
    assert index.text("a.jsonl", 0, 100) == "Is it \ufffd?\n\nYes \ufffd, it is."


def test_many_sentences_without_a_space(
    index: SqliteIndex, folder: Path, go: Callable[..., SyncReport]
) -> None:
    (folder / "a.txt").write_text("X。" * 1_400)
    (folder / "b.md").write_text(TEXT)
    assert go().added == ("a.txt", "b.md")
    assert index.documents()[0].chunks == 2
    index.verify()


def test_fewer_sentences_stay_one_chunk(
    index: SqliteIndex, folder: Path, go: Callable[..., SyncReport]
) -> None:
    (folder / "a.txt").write_text("X。" * MAX_SENTENCES)
    go()
    assert index.documents()[0].chunks == 1


def test_a_link_to_itself_is_named(folder: Path, go: Callable[..., SyncReport]) -> None:
    (folder / "a.md").symlink_to("b.md")
    (folder / "b.md").symlink_to("a.md")
    (folder / "c.md").write_text(TEXT)
    report = go()
    assert report.added == ("c.md",)
    assert [name for name, _ in report.skipped] == ["a.md", "b.md"]


@pytest.mark.parametrize(
    "made",
    ["a string", Document("a.odd", "T", "\ud83d", ()), Document("a.odd", "T", "x", (), ("k",) * 2_000)],
)
def test_what_another_packages_loader_returns_is_checked(
    folder: Path, go: Callable[..., SyncReport], monkeypatch: pytest.MonkeyPatch, made: object
) -> None:
    odd = loaders.registry.Format("a .odd file", lambda data, name, limits: made, own=False)
    monkeypatch.setattr(loaders.reading, "formats", lambda: {**loaders.formats(), ".odd": odd})
    (folder / "a.odd").write_bytes(b"odd")
    (folder / "b.md").write_text(TEXT)
    report = go()
    assert report.added == ("b.md",)
    assert [name for name, _ in report.skipped] == ["a.odd"]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the documents that are parsed."""
    names: list[str] = []
    parse = sync.parse_document

    def noted(data: bytes, path: Path, name: str) -> Document:
        names.append(name)
        return parse(data, path, name)

    monkeypatch.setattr(sync, "parse_document", noted)
    return names


@pytest.mark.parametrize("recent_ns", [0, 10**18])
def test_a_file_that_fails_is_not_parsed_again(
    folder: Path,
    go: Callable[..., SyncReport],
    parsed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    recent_ns: int,
) -> None:
    monkeypatch.setattr(seen, "_RECENT_NS", recent_ns)
    (folder / "a.md").write_bytes(b"a\x00b")
    first = go()
    assert parsed == ["a.md"]
    assert go().skipped == go().skipped == first.skipped != ()
    assert parsed == ["a.md"]
    assert go(force=True).skipped == first.skipped
    assert parsed == ["a.md"] * 2
    monkeypatch.setattr(seen, "__version__", "another")
    go()
    assert parsed == ["a.md"] * 3
    (folder / "a.md").write_text(TEXT)
    assert go().added == ("a.md",)


@pytest.mark.parametrize(("error", "tries"), [(TookTooLong, [1, 1, 2]), (Killed, [1, 2, 3])])
def test_a_file_whose_parser_was_ended_is_tried_again(
    folder: Path,
    go: Callable[..., SyncReport],
    monkeypatch: pytest.MonkeyPatch,
    error: type[KnowledgeError],
    tries: list[int],
) -> None:
    asked: list[str] = []

    def end(data: bytes, suffix: str, name: str, limits: object) -> Document:
        asked.append(name)
        raise error("was ended", "try again")

    monkeypatch.setattr(loaders.process, "parse", end)
    monkeypatch.setattr(seen, "_RECENT_NS", 0)
    file = folder / "a.pdf"
    file.write_bytes(make_pdf([column([TEXT])]))
    counted = []
    for step in range(3):
        if step == 2:
            os.utime(file, (1, 1))
        assert go().skipped == (("a.pdf", f"{file} was ended; try again"),)
        counted.append(len(asked))
    assert counted == tries
    monkeypatch.undo()
    os.utime(file, (2, 2))
    assert go().added == ("a.pdf",)


def test_a_file_that_may_not_be_looked_at_is_read_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that lists its files and lets nobody see more of them: mode 644."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("B")

    def refused(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "lstat", refused)
    assert [source.name for source in list_folder(tmp_path, "folder").sources] == ["sub/b.txt"]


def test_what_may_not_be_looked_at_cannot_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(KnowledgeError, match=r"b\.txt cannot be read: Permission denied"):
        readable_sources([tmp_path / "b.txt"], set(), [], Parsed())


def test_a_document_that_becomes_unreadable_stays(
    index: SqliteIndex, folder: Path, go: Callable[..., SyncReport]
) -> None:
    (folder / "a.md").write_text(TEXT)
    go()
    (folder / "a.md").write_bytes(b"\x00")
    for _ in range(2):
        report = go()
        assert (report.removed, [name for name, _ in report.skipped]) == ((), ["a.md"])
        assert index.text("a.md", 0, 100) == TEXT
    (folder / "a.md").write_text(TEXT)
    assert go().unchanged == ("a.md",)
    (folder / "a.md").unlink()
    assert go().removed == ("a.md",)


def test_documents_of_a_folder_that_cannot_be_listed_stay(
    index: SqliteIndex, folder: Path, go: Callable[..., SyncReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.md").write_text(TEXT)
    (folder / "b.md").write_text(TEXT)
    go()
    (folder / "b.md").unlink()
    scandir = os.scandir

    def refuse(path: str) -> object:  # a mode of the folder would not stop root
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = go()
    assert (report.removed, stored(index)) == (("b.md",), ["sub/a.md"])
    assert report.skipped == (("sub", "cannot be read: Permission denied"),)


def test_what_another_process_adds_meanwhile_is_not_removed(
    index: SqliteIndex, folder: Path, tmp_path: Path, go: Callable[..., SyncReport]
) -> None:
    def find() -> Listing:
        listing = list_folder(folder, "folder")
        if not (folder / "b.md").exists():
            (folder / "b.md").write_text(TEXT)
            go()
        return listing

    (folder / "a.md").write_text(TEXT)
    report = synchronize(index, find, embed, None, False, Seen(tmp_path / "seen"))
    assert (report.removed, stored(index)) == ((), ["a.md", "b.md"])


def test_a_file_that_is_missing_for_a_moment_is_not_removed(
    index: SqliteIndex, folder: Path, tmp_path: Path, go: Callable[..., SyncReport]
) -> None:
    (folder / "a.md").write_text(TEXT)
    go()
    listings = [Listing(), list_folder(folder, "folder")]
    report = synchronize(index, lambda: listings.pop(0), embed, None, False, Seen(tmp_path / "seen"))
    assert (report.removed, stored(index)) == ((), ["a.md"])


def test_names_that_are_no_utf_8_stay_apart(
    index: SqliteIndex, folder: Path, go: Callable[..., SyncReport]
) -> None:
    for byte in (b"\xe4", b"\xf6"):
        (folder / os.fsdecode(b"f" + byte + b"r.md")).write_text(f"{TEXT} {byte!r}")
    (folder / "für.md").write_text(TEXT)
    assert sorted(go().added) == ["f%E4r.md", "f%F6r.md", "für.md"]
    assert sorted(go().unchanged) == stored(index) == ["f%E4r.md", "f%F6r.md", "für.md"]


def test_texts_are_embedded_in_the_same_order_every_time() -> None:
    code = (
        "import numpy as np;from pathlib import Path;from types import SimpleNamespace as N;"
        "from agentkit.retrieval.parsed import Parsed;from agentkit.retrieval.sync import _Round;"
        "from agentkit.retrieval.sources import Source;"
        "index=N(put=lambda documents: None);got=[];"
        "seen=N(digest=lambda p: None,failure=lambda *a: '',note=lambda *a: '');"
        "embed=lambda texts: got.extend(texts) or np.zeros((len(texts),4));"
        "work=_Round(index,embed,None,False,seen,Parsed(),1);"
        "work.take(Source('a.md',Path('README.md'),'folder'),None);work.store();print(got)"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(runs) == 1
    assert len(runs.pop()) > 100
