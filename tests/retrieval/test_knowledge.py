"""Sync, add, remove and search, on a small folder with the real embedder."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Thread, get_native_id
from typing import TYPE_CHECKING

import pytest

from agentkit.errors import KnowledgeError, NotFoundError, UsageError
from agentkit.retrieval import sources, sync
from agentkit.retrieval.documents import Document
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.loaders import parse_document
from agentkit.retrieval.places import SqlitePlace, _alone
from agentkit.retrieval.sources import copy_file

if TYPE_CHECKING:
    from tests.retrieval.conftest import CountingEmbedder

NAMES = ("contact.html", "returns.md", "sub/shipping.txt")


def names(base: KnowledgeBase) -> list[str]:
    return [document.name for document in base.list()]


def test_sync_embeds_only_what_changed(base: KnowledgeBase, folder: Path, embedder: CountingEmbedder) -> None:
    progress: list[str] = []
    assert base.sync(progress.append).added == NAMES
    assert progress == list(NAMES)
    embedder.texts = 0
    assert base.sync().unchanged == NAMES
    assert embedder.texts == 0

    (folder / "returns.md").write_text("# Returns\n\nYou can return items within 60 days.\n")
    (folder / "contact.html").unlink()
    (folder / "new.txt").write_text("Gift cards are valid for 5 years.")
    report = base.sync()
    assert (report.added, report.changed, report.removed) == (
        ("new.txt",),
        ("returns.md",),
        ("contact.html",),
    )
    assert report.unchanged == ("sub/shipping.txt",)
    assert "60 days" in base.search("How many days to return?")[0].text
    assert base.search("How long is a gift card valid?")[0].document == "new.txt"
    assert all(passage.document != "contact.html" for passage in base.search("call Monday", 10))


def test_bad_files_are_skipped_and_named(base: KnowledgeBase, folder: Path, tmp_path: Path) -> None:
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "nul.md").write_bytes(b"a\x00b")
    os.mkfifo(folder / "pipe.txt")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / ".hidden.md").write_text("hidden")
    report = base.sync()
    assert report.added == NAMES
    reasons = dict(report.skipped)
    assert sorted(reasons) == ["link.txt", "nul.md", "photo.png", "pipe.txt", "up"]
    assert "leads out" in reasons["link.txt"]
    assert "NUL" in reasons["nul.md"]


def test_missing_folder_removes_nothing(base: KnowledgeBase, folder: Path) -> None:
    base.sync()
    folder.rename(folder.with_name("moved"))
    with pytest.raises(KnowledgeError, match="does not exist"):
        base.sync()
    assert names(base) == list(NAMES)


def test_search(base: KnowledgeBase) -> None:
    base.sync()
    best = base.search("What does delivery cost?", limit=2)
    assert len(best) == 2
    assert best[0].document == "sub/shipping.txt"
    assert best[0].heading == "Shipping"
    assert best[0].text == "Standard delivery costs 4.95 euros."
    assert -1 <= best[0].score <= 1


def test_keywords_are_found_and_never_quoted(base: KnowledgeBase, folder: Path) -> None:
    (folder / "returns.md").write_text(
        "---\nkeywords: cooling-off period, zzyx\n---\n# Returns\n\nYou can return items within 30 days.\n"
    )
    base.sync()
    for question in ("zzyx", "Is there a cooling-off period?"):
        best = base.search(question)
        assert best[0].document == "returns.md"
        assert not any("cooling" in passage.text for passage in best)
        assert base.answerable(question, best) >= base.answer_threshold


def test_a_row_is_found_by_its_own_keywords_and_columns(base: KnowledgeBase, folder: Path) -> None:
    rows = [f"Question {n}?,Answer {n}.,word{n}x qux{n}x,Model{n}z,{n}" for n in range(150)]
    (folder / "faq.csv").write_text("\n".join(["question,answer,keywords,product,id", *rows]))
    base.sync()
    for word in ("word140x", "qux140x", "model140z"):  # the 100 keywords of a document would not reach so far
        assert base.search(f"what about {word}?")[0].text == "Answer 140."
    index = base._index()
    assert [index.frequency(word) for word in ("word7x", "model7z", "140")] == [1, 1, 1]
    chunk = index.fetch([*index.matching(["model7z"], 9)]).popitem()[1]
    assert (chunk.text, chunk.keywords) == ("Answer 7.", "word7x qux7x\nModel7z")
    assert len(chunk.vectors) == 3  # heading and text, a sentence, a keyword
    base.verify()
    assert base.notices == []


def test_a_column_tells_rows_of_the_same_question_apart(base: KnowledgeBase, folder: Path) -> None:
    rows = {"Oslo desk": "Two weeks.", "Bergen lamp": "Three days.", "Turku chair": "Five days."}
    lines = [f"How long does delivery take?,{answer},{product}" for product, answer in rows.items()]
    (folder / "faq.csv").write_text("\n".join(["question,answer,product", *lines]))
    base.sync()
    for product, answer in rows.items():
        for name in (product, product.split()[0]):
            assert base.search(f"How long does delivery of the {name} take?", 1)[0].text == answer


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_question_is_a_usage_error(base: KnowledgeBase, query: str) -> None:
    with pytest.raises(UsageError):
        base.search(query)


@pytest.mark.parametrize("query", ['" OR * NEAR(', "heading:x AND -y", "\x00", "?!", "return " * 150_000])
def test_odd_questions_find_something(base: KnowledgeBase, query: str) -> None:
    base.sync()
    assert base.search(query)


def test_search_before_sync_is_empty(base: KnowledgeBase) -> None:
    assert base.search("anything") == []
    assert base.answerable("anything", []) == 0.0


def test_add_and_remove(base: KnowledgeBase, tmp_path: Path) -> None:
    base.sync()
    extra = tmp_path / "extra.txt"
    extra.write_text("Workshops take place on Saturdays.")
    assert base.add([extra]).added == ("extra.txt",)
    extra.unlink()  # the content has been copied
    assert base.sync().unchanged == (*NAMES, "extra.txt")
    assert base.search("When are the workshops?")[0].document == "extra.txt"
    base.remove("extra.txt")
    assert names(base) == list(NAMES)
    assert base.sync().added == ()


def test_add_refuses(base: KnowledgeBase, tmp_path: Path) -> None:
    base.sync()
    with pytest.raises(NotFoundError, match="nowhere"):
        base.add([tmp_path / "nowhere.md"])
    bad = tmp_path / "bad.md"
    bad.write_bytes(b"\x00")
    with pytest.raises(KnowledgeError, match=r"bad\.md"):
        base.add([bad])
    taken = tmp_path / "returns.md"
    taken.write_text("other")
    with pytest.raises(KnowledgeError, match="already"):
        base.add([taken])
    assert names(base) == list(NAMES)


def test_add_parses_a_file_once(base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def counting(data: bytes, path: Path, name: str) -> Document:
        parsed.append(name)
        return parse_document(data, path, name)

    for module in (sources, sync):
        monkeypatch.setattr(module, "parse_document", counting)
    base.sync()
    parsed.clear()
    (tmp_path / "new.md").write_text("# New\n\nGift cards never expire.")
    (tmp_path / "bad.md").write_text("")
    report = base.add([tmp_path / "new.md", tmp_path / "bad.md"])
    assert parsed == ["new.md", "bad.md"]
    assert report.added == ("new.md",)
    assert base.search("gift cards")[0].text == "Gift cards never expire."

    parsed.clear()
    monkeypatch.setattr("agentkit.retrieval.parsed.CHARACTERS", 10)
    (tmp_path / "new.md").write_text("# New\n\nGift cards expire after a year.")
    assert base.add([tmp_path / "new.md"]).changed == ("new.md",)
    assert parsed == ["new.md", "new.md"]  # what would take too much memory is parsed when its turn comes


def test_a_file_that_changes_while_it_is_added_is_read_as_it_is(
    base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(source: Path, target: Path) -> None:
        source.write_text("# New\n\nThe second version.")
        copy_file(source, target)

    monkeypatch.setattr("agentkit.retrieval.knowledge.copy_file", late)
    (tmp_path / "new.md").write_text("# New\n\nThe first version.")
    base.add([tmp_path / "new.md"])
    assert base.search("version")[0].text == "The second version."


def test_remove_refuses(base: KnowledgeBase) -> None:
    base.sync()
    with pytest.raises(NotFoundError, match=r"did you mean returns\.md"):
        base.remove("return.md")
    with pytest.raises(UsageError, match="delete"):
        base.remove("returns.md")


def test_another_embedder_indexes_again(base: KnowledgeBase, embedder: CountingEmbedder) -> None:
    base.sync()
    base.close()
    other = KnowledgeBase(base.folder, base.index_path, type(embedder)(embedder.inner, "other"))
    assert names(other) == list(NAMES)
    assert other.embedder.texts > 0  # type: ignore[attr-defined]
    assert "changed" in other.notices[0]
    other.close()


def test_an_embedder_that_another_process_has_changed_is_told(
    base: KnowledgeBase, folder: Path, embedder: CountingEmbedder
) -> None:
    base.sync()
    other = KnowledgeBase(folder, base.index_path, type(embedder)(embedder.inner, "other"))
    other.sync()
    (folder / "new.txt").write_text("A new document about lamps.")
    for use in (lambda: base.search("lamps"), base.sync):
        with pytest.raises(
            KnowledgeError, match="another process has made the index anew for the embedder other"
        ):
            use()
    assert "new.txt" not in {document.name for document in other.list()}
    other.sync()
    assert other.search("lamps")[0].document == "new.txt"


def test_a_second_process_sees_changes(base: KnowledgeBase, folder: Path, embedder: CountingEmbedder) -> None:
    base.sync()
    reader = KnowledgeBase(folder, base.index_path, embedder)
    assert reader.search("return")[0].document == "returns.md"
    (folder / "new.txt").write_text("Candles burn for forty hours.")
    base.sync()
    assert reader.search("How long does a candle burn?")[0].document == "new.txt"
    assert reader.notices == []
    reader.close()


def test_rebuild_keeps_added_documents(base: KnowledgeBase, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text("Workshops take place on Saturdays.")
    base.add([extra])
    assert base.rebuild().changed == (*NAMES, "extra.txt")
    base.close()
    base.index_path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(KnowledgeError, match="agentkit knowledge rebuild") as caught:
        base.list()
    assert str(base.index_path) in caught.value.cause
    assert base.rebuild().added == (*NAMES, "extra.txt")
    assert base.index_path.with_name("index.db.damaged").exists()
    assert base.search("workshops")[0].document == "extra.txt"


def test_files_are_private(base: KnowledgeBase) -> None:
    base.sync()
    for path in base.index_path.parent.glob("index.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def outdate(base: KnowledgeBase) -> None:
    """As an older agentkit would have left it."""
    base.close()
    with closing(sqlite3.connect(base.index_path)) as connection:
        connection.execute("PRAGMA user_version = 1")


def renamed(base: KnowledgeBase) -> None:
    """Another embedder."""
    base.close()
    base.embedder = type(base.embedder)(base.embedder.inner, "another")  # type: ignore


@pytest.mark.parametrize("spoil", [outdate, renamed])
def test_an_index_that_cannot_be_made_anew_stays_and_is_refused(
    base: KnowledgeBase, folder: Path, spoil: Callable[[KnowledgeBase], None]
) -> None:
    base.sync()
    spoil(base)
    folder.rename(folder.with_name("moved"))
    for _ in range(2):
        with pytest.raises(KnowledgeError, match="does not exist"):
            base.search("return")
    folder.with_name("moved").rename(folder)
    assert base.search("return")[0].document == "returns.md"
    assert len([n for n in base.notices if "anew" in n or "indexing again" in n]) == 1


def test_a_round_that_fails_is_taken_up_again(
    base: KnowledgeBase, embedder: CountingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(texts: object) -> None:
        raise KnowledgeError("no memory")

    base.sync()
    outdate(base)
    monkeypatch.setattr(embedder, "embed", fail)
    for _ in range(2):
        with pytest.raises(KnowledgeError, match="no memory"):
            base.search("return")
    monkeypatch.undo()
    assert names(base) == list(NAMES)


def test_an_index_of_another_embedder_that_cannot_be_written_stays_refused(
    base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: SqliteIndex, embedder: str) -> None:
        raise KnowledgeError("cannot write")

    base.sync()
    renamed(base)
    monkeypatch.setattr(SqliteIndex, "reset", refuse)
    for _ in range(2):
        with pytest.raises(KnowledgeError, match="cannot write"):
            base.search("return")


def test_unreadable_files_are_told_once(base: KnowledgeBase, folder: Path) -> None:
    (folder / "bad.md").write_bytes(b"\x00")
    (folder / "old.txt").write_bytes("It costs £5 to send it back to us.".encode("cp1252"))
    for _ in range(2):
        base.sync()
        assert [notice.split(" ", 2)[:2] for notice in base.notices] == [
            ["bad.md", "skipped:"],
            ["old.txt:", "read"],
        ]
    (folder / "bad.md").write_text("Now it is good.")
    base.sync()
    (folder / "bad.md").write_bytes(b"\x00")
    base.sync()
    assert [notice.split(" ", 2)[0] for notice in base.notices] == ["bad.md", "old.txt:", "bad.md"]


def test_add_refuses_what_would_be_lost(base: KnowledgeBase, tmp_path: Path) -> None:
    for name in ("shop/faq.md", "blog/faq.md", ".faq.md", "notes.md~", ".docs/a.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"The text of {name}.")
    asked = ["shop/faq.md", "blog/faq.md", "shop/faq.md", ".faq.md", "notes.md~", ".docs"]
    report = base.add([*(tmp_path / name for name in asked), Path("/")])
    assert [name for name in report.added if name not in NAMES] == ["faq.md"]
    assert "shop" in base.search("text of the faq")[0].text
    assert [name for name, _ in report.skipped] == [".faq.md", "notes.md~", ".docs", "/", "faq.md"]
    assert all(f"{name} skipped: {reason}" in base.notices for name, reason in report.skipped)
    assert [path.name for path in tmp_path.glob("index.db.added/*")] == ["faq.md"]


def test_a_name_that_only_the_folder_knows_yet_is_taken(
    base: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    base.sync()
    (folder / "new.txt").write_text("Gift cards are valid for 5 years.")
    (tmp_path / "new.txt").write_text("other")
    with pytest.raises(KnowledgeError, match="is in the knowledge folder already"):
        base.add([tmp_path / "new.txt"])
    assert list(tmp_path.glob("index.db.added/*")) == []


def test_a_copy_that_the_index_has_not_can_be_removed(
    base: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "index.db.added"
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"The text of {name}.")
    base.add([tmp_path / "a.txt", tmp_path / "b.txt"])
    (copies / "a.txt").write_bytes(b"\x00")
    (folder / "b.txt").write_text("The folder's own.")
    base.sync()
    base._index().reset(base.embedder.name)  # as another embedder would: of a.txt there is nothing to keep
    assert [name for name, _ in base.sync().skipped] == ["b.txt", "a.txt"]
    assert names(base) == ["b.txt", *NAMES]
    base.remove("a.txt")
    base.remove("b.txt")
    assert list(copies.iterdir()) == []
    assert base.sync().skipped == ()
    assert names(base) == ["b.txt", *NAMES]
    with pytest.raises(NotFoundError):
        base.remove("a.txt")
    with pytest.raises(UsageError):
        base.remove("b.txt")
    with pytest.raises(NotFoundError):
        base.remove("../docs/b.txt")
    assert (folder / "b.txt").exists()


def test_errors_of_the_file_system_are_told(
    base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text("Workshops take place on Saturdays.")
    base.add([extra])
    (tmp_path / "extra.txt.d").mkdir()
    inner = tmp_path / "extra.txt.d" / "a.txt"
    inner.write_text("Inner text.")
    added = tmp_path / "index.db.added"
    with pytest.raises(KnowledgeError, match="cannot copy"):
        copy_file(inner, added / "extra.txt" / "a.txt")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(KnowledgeError, match=r"cannot delete .*extra\.txt: Permission denied"):
            base.remove("extra.txt")
    outdate(base)
    monkeypatch.setattr("agentkit.retrieval.places.os.replace", refuse)
    with pytest.raises(KnowledgeError, match="cannot move"):
        base.search("return")


def test_what_a_killed_process_left_is_no_part_of_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("new")
    (tmp_path / f".b.txt.{os.getpid()}.{get_native_id()}").write_text("longer than that")
    copy_file(tmp_path / "a.txt", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_an_optional_folder_may_be_missing_as_long_as_nothing_is_lost(
    base: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    missing = KnowledgeBase(tmp_path / "none", tmp_path / "other.db", base.embedder, optional=True)
    assert missing.sync().added == ()
    missing.close()
    base._optional = True
    base.sync()
    folder.rename(folder.with_name("moved"))
    with pytest.raises(KnowledgeError, match="does not exist"):
        base.sync()
    assert names(base) == list(NAMES)


def test_an_index_that_held_other_documents_is_told(base: KnowledgeBase, tmp_path: Path) -> None:
    """As of two projects that keep theirs in one place."""
    base.sync()
    other = tmp_path / "other"
    other.mkdir()
    (other / "lamps.txt").write_text("All about lamps.")
    second = KnowledgeBase(other, base.index_path, base.embedder)
    second.sync()
    assert [notice.partition(";")[0] for notice in second.notices] == [
        f"{other} holds none of the documents that the index had: 3 removed from the index"
    ]


def test_a_folder_that_is_suddenly_empty_is_told(base: KnowledgeBase, folder: Path) -> None:
    base.sync()
    (folder / "contact.html").unlink()
    base.sync()
    assert base.notices == []
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    base.sync()
    assert base.notices == [f"{folder} holds no documents any more: 2 removed from the index"]


def test_two_processes_meet_an_older_index(base: KnowledgeBase, embedder: CountingEmbedder) -> None:
    base.sync()
    outdate(base)
    place = SqlitePlace(base.index_path)
    assert names(base) == list(NAMES)  # the first makes it anew
    assert place.discard(embedder.dimension, outdated=True) == "another process has made it anew"
    assert names(base) == list(NAMES)
    assert "moved to" in place.discard(embedder.dimension)  # a damaged one is of this version, too


def test_two_processes_at_once_make_one_index(base: KnowledgeBase, folder: Path) -> None:
    base.sync()
    outdate(base)
    bases = [KnowledgeBase(folder, base.index_path, base.embedder) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(names, bases))
    for each in bases:
        each.sync()
        assert names(each) == list(NAMES)
        each.verify()
        each.close()
    assert list(NAMES) in found


def test_the_lock_outlasts_another_thread_that_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"

    def wait() -> None:
        with _alone(path):
            pass

    waiting = Thread(target=wait)
    with _alone(path):
        waiting.start()
        waiting.join(0.2)  # by then it has asked
        command = [sys.executable, "-c", code, f"{path}.lock"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    waiting.join()
    assert "database is locked" in run.stderr


def test_progress_may_ask_the_knowledge_base(base: KnowledgeBase) -> None:
    base.sync()
    outdate(base)
    listed: list[int] = []
    base.sync(lambda name: listed.append(len(base.list())))
    assert listed == [3, 3, 3]


def test_rebuild_of_an_older_index_embeds_once(base: KnowledgeBase, embedder: CountingEmbedder) -> None:
    base.sync()
    once = embedder.texts
    outdate(base)
    embedder.texts = 0
    progress: list[str] = []
    assert base.rebuild(progress.append).added == NAMES
    assert progress == list(NAMES)
    assert embedder.texts == once
