"""The process that parses: used for many files, held to limits, replaced when it breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from pdf_files import column, make_pdf

from agentkit.errors import KnowledgeError, UsageError
from agentkit.retrieval.documents import Document, DocumentBuilder
from agentkit.retrieval.loaders import Limits, formats, load_document, process
from agentkit.retrieval.loaders.registry import GROUP
from agentkit.retrieval.loaders.wire import document_line, to_document

TEXT = "You can return any item within thirty days of delivery, as long as it is unused."


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    process.close()
    yield
    process.close()


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf([column([TEXT])]))
    return path


def running() -> process.Parser:
    assert process._parser is not None
    return process._parser


def test_one_process_reads_many_files(pdf: Path) -> None:
    for _ in range(20):
        assert load_document(pdf, "a.pdf").blocks[0].text == TEXT
    assert running().files == 20


def test_it_starts_without_what_only_the_program_needs() -> None:
    code = (
        "import sys, agentkit.retrieval.loaders.worker;"
        "print(*{'torch', 'numpy', 'faiss', 'transformers', 'py3langid', 'bs4', 'docx'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_it_ends_when_idle(pdf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "IDLE_S", 600)
    load_document(pdf, "a.pdf")
    first = running()._process
    monkeypatch.setattr(process, "IDLE_S", 0.05)
    load_document(pdf, "a.pdf")
    assert first.wait(60) is not None
    assert load_document(pdf, "a.pdf").blocks


def test_a_process_that_was_killed_is_replaced(pdf: Path) -> None:
    load_document(pdf, "a.pdf")
    os.kill(running()._process.pid, signal.SIGKILL)
    running()._process.wait()
    assert load_document(pdf, "a.pdf").blocks
    assert running().files == 1


def test_a_file_that_breaks_the_parser_costs_only_itself(
    pdf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(pdf.read_bytes())
    # A sitecustomize is imported by every Python process: it breaks PDFium for the process that parses.
    hook = "import pypdfium2, os\npypdfium2.PdfDocument = lambda data: os.kill(os.getpid(), 11)\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(
            KnowledgeError, match=r"bad\.pdf makes the parser end \(signal 11\): it is damaged"
        ):
            load_document(bad, "bad.pdf")
    assert load_document(pdf, "a.pdf").blocks


def test_time(tmp_path: Path) -> None:
    page = tmp_path / "deep.html"
    page.write_text("<div>" * 200_000)
    with pytest.raises(
        KnowledgeError, match=r"deep\.html takes more than 0\.5 s to read; split .*knowledge rebuild"
    ):
        load_document(page, "deep.html", Limits(seconds=0.5, inline=0))


def test_html_that_its_parser_goes_through_again_and_again_is_stopped(tmp_path: Path) -> None:
    page = tmp_path / "open.html"
    page.write_text("<p>x</p>" + "<a " * 40_000)  # a tenth of what is parsed here otherwise
    with pytest.raises(KnowledgeError, match=r"open\.html takes more than 0\.5 s to read"):
        load_document(page, "open.html", Limits(seconds=0.5))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on address space")
def test_memory(tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text("<p>x</p>" * 300_000)
    with pytest.raises(
        KnowledgeError, match=r"wide\.html needs more than 150 MB of memory to read; split it"
    ):
        load_document(page, "wide.html", Limits(memory=150 << 20))
    assert process._parser is None


def test_large_text_is_parsed_there_too(tmp_path: Path) -> None:
    large = tmp_path / "a.md"
    large.write_text("# T\n\n" + f"{TEXT}\n\n" * 100)
    here = load_document(large, "a.md")
    assert process._parser is None
    assert load_document(large, "a.md", Limits(inline=100)) == here
    assert running().files == 1


def test_a_document_travels_whole() -> None:
    builder = DocumentBuilder()
    builder.heading(1, "Größe", page=1)
    builder.paragraph("One two.", page=1, breaks=[(4, 2)], language="de", keywords="a, b")
    document = builder.build("x", "", "k", "de", [("author", "A")], ["a notice"])

    assert to_document(json.loads(document_line(document))["document"]) == document


def load_log(data: bytes, name: str) -> Document:
    builder = DocumentBuilder()
    builder.paragraph(data.decode())
    return builder.build(name)


def load_nothing(data: bytes, name: str) -> Document:
    raise RuntimeError("no such\nluck")


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    entries: list[EntryPoint] = []
    monkeypatch.setattr(
        "agentkit.retrieval.loaders.registry.entry_points",
        lambda group: EntryPoints(entries).select(group=group),
    )
    formats.cache_clear()
    yield entries
    formats.cache_clear()


def test_loaders_of_other_packages(tmp_path: Path, entry_points: list[EntryPoint]) -> None:
    module = load_log.__module__
    for name, function in (("log", "load_log"), ("md", "load_nothing"), ("odd", "load_nothing")):
        entry_points.append(EntryPoint(name, f"{module}:{function}", GROUP))
    for name in ("a.LOG", "a.md", "a.odd"):
        (tmp_path / name).write_text(TEXT)
    assert load_document(tmp_path / "a.LOG", "a").blocks[0].text == TEXT
    assert load_document(tmp_path / "a.md", "a").blocks[0].text == TEXT  # agentkit's own goes first
    with pytest.raises(
        KnowledgeError, match=r"a\.odd cannot be read as a \.odd file: no such luck; check the"
    ):
        load_document(tmp_path / "a.odd", "a")


def test_a_loader_that_cannot_be_imported(tmp_path: Path, entry_points: list[EntryPoint]) -> None:
    entry_points.append(EntryPoint("log", "missing_module:load", GROUP))
    (tmp_path / "a.md").write_text(TEXT)
    with pytest.raises(UsageError, match="the loader 'log' of an installed package cannot be loaded"):
        load_document(tmp_path / "a.md", "a")
