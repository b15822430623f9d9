from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentkit import database
from agentkit import store as store_module
from agentkit.errors import NotFoundError, StoreError, UsageError
from agentkit.messages import Message, ToolCall, ToolResult
from agentkit.store import SessionStore
from agentkit.training.table import JobTable

CALL = ToolCall("call_0", "ner", {"text": "Ada lives in London"})
OTHER = ToolCall("call_1", "ner", {"text": "Paris"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    opened = SessionStore(path)
    yield opened
    opened.close()


def result(call: ToolCall) -> Message:
    return Message("tool", ToolResult(call.id, call.name, True, []).content(), (), call.id, call.name)


def refused(path: Path) -> StoreError:
    with pytest.raises(StoreError) as error:
        SessionStore(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return error.value


# Messages


@pytest.mark.parametrize(
    "message",
    [
        Message("system", "You are Lumi."),
        Message("user", "¿Dónde está mi lámpara? 灯 \x00 \x1b[31m \ud800 " + "x" * 1_000_000),
        Message("assistant", "", (CALL, OTHER), meta={"usage": {"seconds": 0.5}}),
        Message("tool", '{"result": null}', (), "call_0", "ner", {"ok": True, "nested": [{"a": None}]}),
    ],
    ids=lambda message: message.role,
)
def test_message_comes_back_as_it_went_in(path: Path, message: Message) -> None:
    store = SessionStore(path)
    session = store.create()
    assert session.append(message) == 0
    assert session.append(message) == 1
    store.close()
    assert SessionStore(path).open(session.id).messages() == [message, message]


def test_message_that_cannot_be_stored_changes_nothing(store: SessionStore) -> None:
    session = store.create()
    with pytest.raises(StoreError, match="cannot be stored"):
        session.append(Message("user", "hi", meta={"value": object()}))
    assert session.messages() == []
    assert session.title == ""


def test_title_is_the_given_one_or_the_beginning_of_the_first_question(store: SessionStore) -> None:
    given, taken = store.create("Returns"), store.create()
    for session in (given, taken):
        session.append(Message("system", "You are Lumi."))
        session.append(Message("user", "Where  is\nmy \ud800 lamp? " + "It is late. " * 20))
        session.append(Message("user", "Hello?"))
    assert given.title == "Returns"
    assert taken.title.startswith("Where is my ? lamp?")
    assert len(taken.title) <= 60


# Sessions


def test_list_shows_the_last_used_first(store: SessionStore) -> None:
    first, second = store.create("first"), store.create("second")
    first.append(Message("user", "hi"))
    listed = store.list()
    assert [(info.id, info.title, info.messages, info.parent) for info in listed] == [
        (first.id, "first", 1, None),
        (second.id, "second", 0, None),
    ]
    assert listed[0].created < listed[0].updated


def test_ids_are_short_unique_and_sort_by_time(monkeypatch: pytest.MonkeyPatch, store: SessionStore) -> None:
    start = datetime(2026, 11, 23, 23, 59, 58, tzinfo=UTC)
    ids = [store_module._new_id(start + timedelta(seconds=second)) for second in range(4)]
    assert ids == sorted(ids)
    assert {len(id) for id in ids} == {17}
    monkeypatch.setattr(store_module.secrets, "randbits", lambda bits: random.randrange(4))  # collisions
    assert len({store.create().id for _ in range(8)}) == 8


def test_open_takes_a_unique_beginning_of_the_id_or_of_its_last_part(store: SessionStore) -> None:
    session = store.create()
    assert (
        store.open(session.id).id
        == store.open(session.id[:13]).id
        == store.open(session.id[11:15]).id
        == session.id
    )


def test_open_names_the_candidates_or_the_nearest(store: SessionStore) -> None:
    with pytest.raises(NotFoundError, match="agentkit chat"):
        store.open("2026")
    ids = [store.create().id for _ in range(2)]
    for wanted in (ids[0][:2], "", "nonsense", ids[0] + "x", "%"):  # the day may change between them
        with pytest.raises(NotFoundError) as error:
            store.open(wanted)
        assert all(id in str(error.value) for id in ids), wanted


def test_delete_removes_the_text_from_the_files(store: SessionStore, path: Path) -> None:
    kept, gone = store.create("kept"), store.create()
    kept.append(Message("user", "stay"))
    gone.append(Message("user", "my secret is 4711"))
    store.delete(gone.id)
    assert [info.id for info in store.list()] == [kept.id]
    assert all(b"4711" not in file.read_bytes() for file in path.parent.iterdir())
    with pytest.raises(NotFoundError):
        store.delete(gone.id)
    with pytest.raises(NotFoundError, match="deleted"):
        gone.append(Message("user", "hello?"))


@pytest.mark.parametrize(("upto", "kept"), [(None, 3), (0, 0), (2, 2), (3, 3)])
def test_fork_copies_and_then_goes_its_own_way(store: SessionStore, upto: int | None, kept: int) -> None:
    source = store.create("Lamps")
    for word in ("one", "two", "three"):
        source.append(Message("user", word))
    fork = store.fork(source.id, upto)
    assert fork.messages() == source.messages()[:kept]
    assert fork.append(Message("user", "four")) == kept
    assert len(source.messages()) == 3
    info = next(info for info in store.list() if info.id == fork.id)
    assert (info.parent, info.title) == (source.id, "Lamps")


@pytest.mark.parametrize("upto", [-1, 2])
def test_fork_outside_the_session_is_refused(store: SessionStore, upto: int) -> None:
    source = store.create()
    source.append(Message("user", "one"))
    with pytest.raises(UsageError, match="choose 0 to 1"):
        store.fork(source.id, upto)
    assert len(store.list()) == 1


def test_export_holds_everything(store: SessionStore) -> None:
    session = store.create("Lamps")
    messages = [Message("user", "hi"), Message("assistant", "", (CALL,), meta={"k": 1}), result(CALL)]
    for message in messages:
        session.append(message)
    head, *lines = store.export(session.id)
    assert (head["type"], head["id"], head["title"], head["parent"]) == ("session", session.id, "Lamps", None)
    assert [(line["type"], line["position"]) for line in lines] == [("message", n) for n in range(3)]
    assert lines[1]["meta"] == {"k": 1}
    assert [Message.from_openai(line).to_openai() for line in lines] == [m.to_openai() for m in messages]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"text": "b"}, "c"], "abc"),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ([{"type": "image_url", "image_url": {}}, {"type": "text", "text": "what?"}], None),
        ([{"type": "text", "text": None}], None),
        ([7], None),
    ],
)
def test_no_part_of_a_content_is_passed_over(content: Any, text: str | None) -> None:
    if text is not None:
        assert Message.from_openai({"role": "user", "content": content}).content == text
        return
    with pytest.raises(UsageError, match="cannot be read"):
        Message.from_openai({"role": "user", "content": content})


@pytest.mark.parametrize("wrong", [{"tool_calls": 5}, {"tool_call_id": 7}, {"name": 7}])
def test_fields_of_the_wrong_kind_are_usage_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        Message.from_openai({"role": "assistant", "content": "", **wrong})


def test_a_deletion_that_cannot_wipe_the_text_says_so(store: SessionStore, path: Path) -> None:
    """Another process in the middle of a reading holds on to the log."""
    store._db._db.execute("PRAGMA busy_timeout = 100")
    session = store.create()
    session.append(Message("user", "secret"))
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM messages").fetchall()
    with pytest.raises(StoreError, match=r"is deleted, but .* its text is in the log"):
        store.delete(session.id)
    assert store.list() == []
    reader.close()


# Resuming


@pytest.mark.parametrize(
    ("before", "dangling", "after"),
    [
        ([], [], ""),
        ([Message("user", "hi")], [], "u"),
        ([Message("assistant", "", (CALL,)), result(CALL)], [], "ac"),
        ([Message("assistant", "", (CALL,))], [CALL], "a!"),
        ([Message("assistant", "", (CALL, OTHER)), result(CALL)], [OTHER], "ac!"),
        ([Message("assistant", "", (CALL, OTHER))], [CALL, OTHER], "a!!"),
        # The same id again in a later turn is another call.
        (
            [Message("assistant", "", (CALL,)), result(CALL), Message("assistant", "", (CALL,))],
            [CALL],
            "aca!",
        ),
        # Continued without healing: the result belongs behind the call, not at the end.
        ([Message("assistant", "", (CALL,)), Message("user", "hi")], [CALL], "a!u"),
        ([Message("assistant", "", (CALL,)), Message("assistant", "", (OTHER,))], [CALL, OTHER], "a!a!"),
    ],
)
def test_dangling_calls_get_an_interrupted_result_in_their_place(
    store: SessionStore, before: list[Message], dangling: list[ToolCall], after: str
) -> None:
    session = store.create()
    for message in before:
        session.append(message)
    assert session.dangling() == dangling
    added = session.heal()
    assert [(m.role, m.tool_call_id, m.name) for m in added] == [("tool", c.id, c.name) for c in dangling]
    assert all('"error": "interrupted: ' in message.content for message in added)
    messages = session.messages()
    letters = ["!" if m.meta.get("interrupted") else "c" if m.role == "tool" else m.role[0] for m in messages]
    assert "".join(letters) == after
    assert session.dangling() == session.heal() == []
    assert session.append(Message("user", "go on")) == len(after)


def test_a_result_takes_the_place_of_the_one_that_healing_gave_its_call(store: SessionStore) -> None:
    """Another process went on with the session while the call waited for approval here."""
    session = store.create()
    session.append(Message("assistant", "", (CALL,)))
    session.heal()
    session.append(Message("user", "hello"))
    assert session.append(result(CALL)) == 1
    assert [m.role for m in session.messages()] == ["assistant", "tool", "user"]
    assert session.messages()[1] == result(CALL)
    session.append(Message("assistant", "", (CALL,)))  # the same id again: another call
    session.heal()
    session.append(Message("assistant", "", (CALL,)))
    assert session.append(result(CALL)) == 6
    letters = "".join("!" if m.meta.get("interrupted") else m.role[0] for m in session.messages())
    assert letters == "atua!at"


WRITER = """
import sys
from pathlib import Path
from typing import Any
from agentkit.messages import Message
from agentkit.store import SessionStore
session = SessionStore(Path(sys.argv[1])).open(sys.argv[2])
while True:
    position = session.append(Message("user", "x" * 3000))
    sys.stdout.write(f"{position}\\n")
    sys.stdout.flush()
"""


def test_every_acknowledged_message_survives_being_killed(path: Path) -> None:
    store = SessionStore(path)
    session, acknowledged = store.create(), 0
    chance = random.Random(0)
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, str(path), session.id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            timer = threading.Timer(chance.uniform(0, 0.05), process.send_signal, [signal.SIGKILL])
            timer.start()
            lines = process.stdout.read().splitlines(keepends=True)
            timer.join()
        acknowledged = max([acknowledged, *(int(line) + 1 for line in lines if line.endswith("\n"))])
        reopened = SessionStore(path)
        assert len(reopened.open(session.id).messages()) >= acknowledged
        reopened.close()
    assert acknowledged > 12


def test_one_thread_writes_while_others_read(store: SessionStore) -> None:
    session, seen, stop, looked = store.create(), [], threading.Event(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(len(session.messages()))
            looked.set()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(50):
        if n % 10 == 0:  # the readers keep up, however the threads are scheduled
            looked.clear()
            assert looked.wait(60)
        assert session.append(Message("user", str(n))) == n
    stop.set()
    for reader in readers:
        reader.join()
    assert set(seen) <= set(range(51))
    assert len(seen) >= 5
    assert [message.content for message in session.messages()] == [str(n) for n in range(50)]


def test_two_processes_share_a_session(path: Path) -> None:
    first, second = SessionStore(path), SessionStore(path)
    session = first.create()
    assert [s.open(session.id).append(Message("user", "hi")) for s in (first, second, first)] == [0, 1, 2]


VISIT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM sessions").fetchone()
connection.close()
"""


def test_a_process_that_closes_the_file_does_not_take_the_log_along(path: Path) -> None:
    first, second = SessionStore(path), SessionStore(path)
    session = first.create()
    session.append(Message("user", "one"))
    subprocess.run([sys.executable, "-c", VISIT, str(path)], check=True)
    assert path.with_name(path.name + "-wal").exists()
    session.append(Message("user", "two"))
    second.open(session.id).append(Message("user", "three"))
    first.close()
    second.close()
    kept = SessionStore(path).open(session.id).messages()
    assert [message.content for message in kept] == ["one", "two", "three"]


# The file


def test_files_are_private_and_durable(store: SessionStore, path: Path) -> None:
    store.create()
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert store._db.read("PRAGMA journal_mode") == [("wal",)]
    assert store._db.read("PRAGMA synchronous") == [(2,)]


def damage_head(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def damage_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 4))


def damage_length(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_body(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE messages SET body = '{' WHERE position = 0")
    db.close()


@pytest.mark.parametrize("damage", [damage_head, damage_page, damage_length, damage_body])
def test_damaged_file_is_reported_and_left_alone(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "my data" / "sessions.sqlite"
    store = SessionStore(path)
    session = store.create()
    for _ in range(40):
        session.append(Message("user", "x" * 900))
    store.close()
    assert callable(damage)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        SessionStore(path).open(session.id).messages()
    assert str(path) in error.value.cause
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    # The remedy is a command, and it works.
    subprocess.run(error.value.remedy.removeprefix("move it away: "), shell=True, check=True)
    assert (path.parent / "damaged-1-sessions.sqlite" / "sessions.sqlite").read_bytes() == before
    assert SessionStore(path).list() == []


def test_log_without_its_database_is_not_thrown_away(path: Path) -> None:
    store = SessionStore(path)
    store.create().append(Message("user", "only in the log"))
    log = path.with_name(path.name + "-wal")
    kept = log.read_bytes()
    assert b"only in the log" in kept
    path.unlink()  # while open, so that closing does not fold the log in
    error = refused(path)
    assert f"mv {shlex.quote(str(path))}*" in error.remedy
    assert log.read_bytes() == kept


def test_log_is_not_folded_into_a_damaged_file(path: Path, tmp_path: Path) -> None:
    store = SessionStore(path)
    store.create().append(Message("user", "x" * 20_000))
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)  # as a kill leaves it: the log is full, the database nearly empty
    store.close()
    path = copy / path.name
    store = SessionStore(path)
    store._db.read("PRAGMA wal_checkpoint(TRUNCATE)")
    store.create().append(Message("user", "y" * 20_000))
    damage_page(path)
    log = path.with_name(path.name + "-wal")
    before = (path.read_bytes(), log.read_bytes())
    with pytest.raises(StoreError, match="damaged"):
        SessionStore(path)
    assert (path.read_bytes(), log.read_bytes()) == before


def test_ratings(store: SessionStore) -> None:
    session, other = store.create(), store.create()
    session.rate("good")
    assert {info.id: info.rating for info in store.list()} == {session.id: "good", other.id: None}
    assert store.export(session.id)[0]["rating"] == "good"
    session.rate(None)
    assert store.list()[0].rating is None
    with pytest.raises(UsageError, match="unknown rating 'great'; use good or bad"):
        session.rate("great")  # type: ignore[arg-type]
    store.delete(session.id)
    with pytest.raises(NotFoundError, match="has been deleted"):
        session.rate("bad")


def test_a_store_of_the_first_version_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    body = (
        '{"role": "user", "content": "hi", "tool_calls": [], "tool_call_id": null, "name": null, "meta": {}}'
    )
    with sqlite3.connect(path) as db:
        db.executescript(
            """CREATE TABLE sessions (id TEXT PRIMARY KEY, title TEXT NOT NULL, created TEXT NOT NULL,
                   updated TEXT NOT NULL, parent TEXT);
               CREATE TABLE messages (session TEXT NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
                   position INTEGER NOT NULL, created TEXT NOT NULL, body TEXT NOT NULL,
                   PRIMARY KEY (session, position)) WITHOUT ROWID;
               INSERT INTO sessions VALUES ('2026-01-01-abcdef', 'old', '2026', '2026', NULL);"""
        )
        db.execute("INSERT INTO messages VALUES ('2026-01-01-abcdef', 0, '2026', ?)", (body,))
        db.execute(f"PRAGMA application_id={store_module.APPLICATION_ID}")
        db.execute("PRAGMA user_version=1")
    db.close()
    for _ in range(2):  # the second time it is of this version
        store = SessionStore(path)
        (info,) = store.list()
        assert (info.title, info.messages) == ("old", 1)
        store.open(info.id).rate("bad")
        assert store.list()[0].rating == "bad"
        store.close()


def test_newer_schema_is_refused_untouched(path: Path) -> None:
    store = SessionStore(path)
    store.create()
    store._db.read("PRAGMA user_version = 99")
    store.close()
    before = path.read_bytes()
    assert "install a newer agentkit" in refused(path).remedy
    assert path.read_bytes() == before


def test_a_damaged_table_of_jobs_is_not_taken_for_the_sessions(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    with pytest.raises(StoreError, match=r"the table of jobs .*jobs\.db is damaged"):
        JobTable(tmp_path)


def test_database_of_another_program_is_refused_untouched(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    assert "no session database of agentkit" in refused(path).cause
    assert path.read_bytes() == before


def test_path_that_cannot_be_a_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    refused(path)
    (path / "file").write_text("")
    refused(path / "file" / "sessions.sqlite")


def test_full_disk_loses_only_the_message_that_did_not_fit(store: SessionStore) -> None:
    session = store.create()
    session.append(Message("user", "fits"))
    store._db.read("PRAGMA max_page_count = 1")  # SQLite's own way to have no room
    with pytest.raises(StoreError, match=r"full.*free some space"):
        session.append(Message("user", "x" * 100_000))
    assert [message.content for message in session.messages()] == ["fits"]
    store._db.read("PRAGMA max_page_count = 100000")
    assert session.append(Message("user", "fits again")) == 1


def test_read_only_database_is_an_error(store: SessionStore) -> None:
    session = store.create()
    store._db.read("PRAGMA query_only = 1")
    with pytest.raises(StoreError, match="readonly"):
        session.append(Message("user", "hi"))


def test_waiting_for_another_writer_ends_with_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.database.BUSY_TIMEOUT_S", 0.1)
    first, second = SessionStore(path), SessionStore(path)
    session = first.create()
    with second._db.write(), pytest.raises(StoreError, match="another agentkit process"):
        session.append(Message("user", "hi"))
    assert session.append(Message("user", "hi")) == 0


def test_closed_store_is_an_error(path: Path) -> None:
    store = SessionStore(path)
    store.close()
    with pytest.raises(StoreError):
        store.list()


def test_a_fresh_file_waits_for_who_else_makes_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = threading.Event()
    pragma = database._pragma

    def busy_once(db: sqlite3.Connection, name: str) -> Any:
        if name == "journal_mode=WAL" and not locked.is_set():
            locked.set()
            error = sqlite3.OperationalError("database is locked")  # as where two change at the same moment
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return pragma(db, name)

    monkeypatch.setattr(database, "_pragma", busy_once)
    store = SessionStore(path)
    assert locked.is_set()
    assert store._db.read("PRAGMA journal_mode") == [("wal",)]


def test_a_lock_that_stays_is_an_error_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)

    def busy(db: sqlite3.Connection, name: str) -> Any:
        if name == "journal_mode=WAL":
            with closing(sqlite3.connect(path)) as other:
                other.execute("BEGIN EXCLUSIVE")
                return pragma(db, name)
        return pragma(db, name)

    pragma = database._pragma
    monkeypatch.setattr(database, "_pragma", busy)
    assert "another agentkit process" in str(refused(path))


def test_the_check_sees_one_state_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
    pragma = database._pragma

    def made_meanwhile(db: sqlite3.Connection, name: str) -> Any:
        found = pragma(db, name)
        if name == "user_version" and not found:
            monkeypatch.setattr(database, "_pragma", pragma)
            SessionStore(path).close()
        return found

    monkeypatch.setattr(database, "_pragma", made_meanwhile)
    assert SessionStore(path).list() == []


def test_an_interrupt_right_after_the_beginning_ends_the_transaction(store: SessionStore) -> None:
    class Interrupted:
        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db

        def execute(self, statement: str, *values: Any) -> Any:
            found = self._db.execute(statement, *values)
            if statement == "BEGIN IMMEDIATE":
                raise KeyboardInterrupt
            return found

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

    session, connection = store.create(), store._db._db
    store._db._db = Interrupted(connection)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        session.append(Message("user", "hi"))
    store._db._db = connection
    assert not connection.in_transaction
    assert session.append(Message("user", "hi")) == 0
