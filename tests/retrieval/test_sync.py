"""What a round of indexing tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pdf_files import column, encrypted, make_pdf

from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.records import Vectors
from agentkit.retrieval.seen import Seen
from agentkit.retrieval.sync import Step, find_sources, synchronize

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
    sources = list(find_sources(folder, "folder", []))
    report = synchronize(index, sources, embed, steps.append, force=False, seen=Seen(tmp_path / "seen"))
    assert steps == ["0.md", "1.md", "3.md"]
    assert [(step.done, step.total) for step in steps] == [(2, 4), (3, 4), (4, 4)]
    assert [name for name, _ in report.skipped] == ["2.md"]
    (folder / "3.md").write_text(TEXT)
    synchronize(index, sources, embed, steps.append, force=False, seen=Seen(tmp_path / "seen"))
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
    refused: list[tuple[str, str]] = []
    report = synchronize(
        index,
        list(find_sources(folder, "folder", refused)),
        embed,
        None,
        force=False,
        seen=Seen(tmp_path / "seen"),
    )
    assert report.added == ("d.pdf", "e.csv", "f.txt")
    assert [(name, reason.split(" ", 1)[1]) for name, reason in report.skipped] == [
        ("a.pdf", "is encrypted; save it without a password"),
        ("b.pdf", "is cut off: its end is missing; get a whole copy of it"),
        ("c.docx", "is a PDF, not a DOCX document; rename it to .pdf"),
    ]
    assert report.notices == (
        ("e.csv", "1 of 2 rows left out: line 3 has no answer"),
        ("f.txt", "read as cp1252: it is not UTF-8"),
    )
    assert refused == [("link.pdf", "a link that leads out of the knowledge folder")]
