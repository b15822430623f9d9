"""What the commands print: data on stdout, everything else on stderr, JSON one object a line."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_helpers import Cli, ScriptedWorkspace

from agentkit.assets import ASSETS
from agentkit.build import open_project
from agentkit.cli import doctor, turns
from agentkit.cli.output import note
from agentkit.events import ApprovalRequired
from agentkit.messages import Passage, ToolCall

TURN_DONE = {"type", "text", "tool_calls", "citations", "notices", "usage", "session"}


def test_ask_prints_the_answer_only(cli: Cli) -> None:
    cli.steps = ["You have \x1b[31m30 days.\x07"]
    assert cli("ask", "How long?") == 0
    assert cli.out == "You have 30 days.\n"
    assert cli.err == ""


def test_ask_prints_events_as_json(cli: Cli) -> None:
    cli.steps = ["You have 30\u202e days."]
    assert cli("ask", "How long?", "--json") == 0
    assert cli.out.isascii()
    events = list(cli.lines())
    assert {event["type"] for event in events[:-1]} == {"text_delta"}
    assert events[-1]["type"] == "turn_done"
    assert set(events[-1]) >= TURN_DONE
    assert events[-1]["text"] == "You have 30\u202e days."


def test_a_picture_needs_no_words_at_a_terminal(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    monkeypatch.setattr("agentkit.cli.ask.is_terminal", lambda stream: True)
    cli.steps = ["A lamp."]
    assert cli("ask", "--image", str(tmp_path / "a.png")) == 0
    assert cli.out.strip() == "A lamp."
    assert cli("ask") == 2
    assert "there is no question" in cli.err


@pytest.mark.parametrize("arguments", [("ask",), ("ask", "-")])
def test_ask_reads_stdin(cli: Cli, arguments: tuple[str, ...]) -> None:
    cli.steps = ["Yes."]
    assert cli("--json", *arguments, stdin="Is it\nopen? \xff\n".encode("latin-1")) == 0
    session = list(cli.lines())[-1]["session"]
    cli("sessions", "show", session, "--json")
    assert "Is it\nopen? �" in [message["content"] for message in cli.lines()]


def test_a_tool_call_goes_to_stderr(cli: Cli) -> None:
    cli.steps = [ToolCall("c", "shout", {"text": "hi"}), "Done."]
    assert cli("ask", "shout hi") == 0
    assert cli.out == "Done.\n"
    called, returned = cli.err.splitlines()
    assert called == '→ shout(text="hi")'
    assert returned.startswith("← ")
    assert "HI" in returned
    assert "\x1b" not in cli.err


@pytest.mark.parametrize(
    ("approve", "ok"), [((), False), (("--approve", "none"), False), (("--approve", "all"), True)]
)
def test_side_effects_need_approval(cli: Cli, approve: tuple[str, ...], ok: bool) -> None:
    cli.steps = [ToolCall("c", "send", {"to": "Rome"}), "Done."]
    assert cli("ask", "send it", "--json", *approve) == 0
    finished = next(event for event in cli.lines() if event["type"] == "tool_finished")
    assert finished["result"]["ok"] is ok


def test_options_stand_before_or_after_the_command(cli: Cli) -> None:
    project = cli.folder / "shop"
    project.mkdir()
    (project / "agentkit.toml").write_text("")
    for arguments in (
        ("--json", "--project", str(project), "sessions", "list"),
        ("sessions", "--json", "list", "--project", str(project)),
        ("--project", "/none", "sessions", "list", "--json", "--project", str(project)),
    ):
        assert cli(*arguments) == 0, cli.err
        assert cli.out == ""


def test_a_session_goes_on(cli: Cli) -> None:
    cli.steps = ["One."]
    cli("ask", "first", "--json")
    session = list(cli.lines())[-1]["session"]
    cli.steps = ["Two."]
    assert cli("ask", "second", "--session", session[11:]) == 0
    assert cli("sessions", "list", "--json") == 0
    [info] = cli.lines()
    assert (info["id"], info["title"], info["messages"]) == (session, "first", 5)
    assert cli("sessions", "show", session) == 0
    assert cli.out == f"{session}  first\n\nYou: first\n\nAssistant: One.\n\nYou: second\n\nAssistant: Two.\n"
    assert cli("sessions", "export", session) == 0
    assert [line["type"] for line in cli.lines()] == ["session"] + ["message"] * 5
    assert cli("sessions", "rate", session[11:], "good") == 0
    assert cli.out == f"{session} is rated good\n"
    assert cli("sessions", "list") == 0
    assert cli.out.split()[4:] == ["good", "first"]
    assert cli("sessions", "rate", session, "great") == 2
    assert "unknown rating 'great'; use good, bad or none" in cli.err
    assert cli("sessions", "rate", session, "none", "--json") == 0
    assert list(cli.lines()) == [{"id": session, "rating": None}]
    assert cli("sessions", "fork", session, "--upto", "3") == 0
    fork = cli.out.strip()
    assert cli("sessions", "delete", session, "--json") == 0
    assert list(cli.lines()) == [{"deleted": session}]
    assert cli("sessions", "list") == 0
    assert cli.out.split()[0] == fork


def test_tools(cli: Cli) -> None:
    assert cli("tools", "list") == 0
    assert cli.out.splitlines()[0] == "shout   text, times?  Say a text loudly."
    assert cli("tools", "show", "send", "--json") == 0
    [shown] = cli.lines()
    assert shown["side_effect"] is True
    assert shown["parameters"]["required"] == ["to"]
    assert cli("tools", "show", "send") == 0
    assert "calls need approval" in cli.out


def test_tools_call(cli: Cli) -> None:
    assert cli("tools", "call", "shout", '{"text": "hi", "times": 2}') == 0
    assert cli.out == "HI HI\n"
    assert cli("tools", "call", "shout", "-", "--json", stdin='{"text": "hi"}') == 0
    [result] = cli.lines()
    assert set(result) == {"ok", "value", "error", "seconds"}
    assert (result["ok"], result["value"], result["error"]) == (True, "HI\x1b[31m", None)
    assert "\x1b" not in cli.out
    assert cli("tools", "call", "broken", "{}", "--json") == 1
    [result] = cli.lines()
    assert (result["ok"], result["value"]) == (False, None)
    assert "out of order" in result["error"]
    assert cli("tools", "call", "send", '{"to": "Rome"}', "--approve", "all") == 0
    assert json.loads(cli.out) == {"sent": "Rome"}
    assert cli("tools", "call", "shout", '{"text": "hi", "times": NaN}') == 2
    assert "the arguments are not JSON: NaN is no JSON" in cli.err


def test_knowledge_search(cli: Cli) -> None:
    assert cli("knowledge", "search", "days", "--json", "--limit", "1") == 0
    assert list(cli.lines()) == [
        {
            "document": "orders/returns.md",
            "heading": "Returns > Deadline",
            "page": 2,
            "text": "You have 30 days.\x1b[2J",
            "score": 0.7123,
            "start": 0,
            "end": 0,
        }
    ]
    assert cli("knowledge", "search", "days") == 0
    assert cli.out.splitlines()[:2] == [
        "1. orders/returns.md › Returns › Deadline, page 2  (0.71)",
        "   You have 30 days.",
    ]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("ask", "How long?", "--json"), 5),
        (("chat", "--no-input"), 5),
        (("knowledge", "search", "days"), 5),
        (("knowledge", "list"), 7),
    ],
)
def test_what_cannot_be_read_is_told_on_stderr(cli: Cli, arguments: tuple[str, ...], lines: int) -> None:
    cli.steps = ["Hello."]
    cli.notices = [f"{n}.pdf skipped: it is encrypted\x1b[2J" for n in range(7)]
    assert cli(*arguments) == 0
    told = [line for line in cli.err.splitlines() if line.startswith("!")]
    assert told[0] == "! 0.pdf skipped: it is encrypted"
    assert len(told) == lines
    assert lines == 7 or told[-1] == "! 3 more; `agentkit knowledge list` shows them all"
    assert "skipped" not in cli.out


@pytest.mark.parametrize("arguments", [("search", "days"), ("remove", "a.md")])
def test_what_is_repaired_meanwhile_is_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def repair(workspace: ScriptedWorkspace, *asked: object, **options: object) -> list[Passage]:
        workspace.knowledge.notices.append("index.db.faiss is damaged; rebuilt from the database")
        return []

    for name in ("_search", "_remove"):
        monkeypatch.setattr(ScriptedWorkspace, name, repair)
    cli.notices = ["a.pdf skipped: it is encrypted"]
    assert cli("knowledge", *arguments) == 0
    told = [line for line in cli.err.splitlines() if line.startswith("!")]
    assert told == [
        "! a.pdf skipped: it is encrypted",
        "! index.db.faiss is damaged; rebuilt from the database",
    ]


def test_a_new_session_tells_what_became_unreadable(cli: Cli) -> None:
    cli.notices = ["a.pdf skipped: it is encrypted"]
    cli.changes = [[], ["b.pdf skipped: it is empty"]]
    assert cli("chat", "--no-input", stdin="/new\n") == 0
    told = [line for line in cli.err.splitlines() if line.startswith("!")]
    assert told == ["! a.pdf skipped: it is encrypted", "! b.pdf skipped: it is empty"]


def test_a_search_is_narrowed(cli: Cli) -> None:
    assert cli("knowledge", "search", "days", "--where", "folder=orders", "--where", "folder=payment") == 0
    assert cli.workspace.searched == {"folder": ["orders", "payment"]}
    assert cli("knowledge", "search", "days", "--where", "folder") == 2
    assert "'folder' is no condition; write --where KEY=VALUE" in cli.err


def test_documents_come_and_go(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.build.open_project", open_project)  # a real knowledge base
    (cli.folder / "agentkit.toml").touch()
    (cli.folder / "knowledge").mkdir()
    (cli.folder / "returns.md").write_text("# Returns\n\nYou can return parcels within 30 days.\n")
    assert cli("knowledge", "add", "returns.md", "--json") == 0
    assert next(cli.lines())["added"] == ["returns.md"]
    for command in (("list",), ("search", "return a parcel"), ("rebuild",), ("list",)):
        assert cli("knowledge", *command, "--json") == 0
        (line,) = cli.lines()
        if command[0] == "list":
            assert (line["name"], line["origin"]) == ("returns.md", "added")
        elif command[0] == "search":
            assert (line["document"], "30 days" in line["text"]) == ("returns.md", True)
    assert cli("knowledge", "remove", "returns.md") == 0
    assert cli.out == "removed returns.md\n"
    assert cli("knowledge", "remove", "returns.md") == 2
    assert "there is no document 'returns.md'" in cli.err
    assert cli("knowledge", "list", "--json") == 0
    assert cli.out == ""


def test_doctor_tells_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", str(cli.folder / "cache"))
    assert cli("doctor", "--json") == 1
    missing = {line["name"]: line["remedy"] for line in cli.lines() if line["needed"] and not line["ok"]}
    needed = [asset.name for asset in ASSETS.values() if not asset.optional]
    assert needed
    assert missing == {name: f"agentkit models pull {name}" for name in needed}


def test_chat_line_by_line(cli: Cli) -> None:
    cli.steps = ["One.", ToolCall("c", "send", {"to": "Rome"}), "Two."]
    assert cli("chat", stdin="first\n\n/tools\n/nope\n/jobs\n/good\nsecond\n/sessions\n/quit\nnever\n") == 0
    assert cli.out.startswith("One.\n")
    assert "Say a text loudly." in cli.out
    assert "There is no /nope" in cli.out
    assert "There are no fine-tuning jobs" in cli.out
    assert "This conversation is rated good" in cli.out
    assert "Two.\n" in cli.out
    assert "nobody was there to approve it" in cli.err
    cli("sessions", "list", "--json")
    [info] = cli.lines()
    assert (info["title"], info["rating"]) == ("first", "good")


def test_ctrl_c_ends_a_question_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(question: str) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(turns, "can_ask", lambda no_input: True)
    monkeypatch.setattr(turns, "confirm", interrupted)
    cancel, asking = threading.Event(), threading.Event()
    approve = turns.approver(False, asking)
    assert approve is not None
    with turns._stopping(cancel, asking):
        assert not approve(ApprovalRequired(ToolCall("c", "send", {}), "it sends"))
    assert (cancel.is_set(), asking.is_set()) == (True, False)


def test_the_question_before_a_side_effect_shows_the_whole_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(turns, "can_ask", lambda no_input: True)
    monkeypatch.setattr(turns, "confirm", lambda question: bool(asked.append(question)))
    approve = turns.approver(False, threading.Event())
    assert approve is not None
    assert not approve(ApprovalRequired(ToolCall("c", "send", {"to": "x" * 2000 + " Rome"}), "it sends"))
    assert asked[0].endswith(' Rome")?')


@pytest.mark.parametrize("stdin", ["/help\n", "/new\n/help\n/new\n"])
def test_a_session_without_messages_is_not_kept(cli: Cli, stdin: str) -> None:
    assert cli("chat", stdin=stdin) == 0
    assert "/sessions" in cli.out
    assert cli("sessions", "list", "--json") == 0
    assert cli.out == ""


def test_ctrl_c_at_the_first_prompt_leaves_no_session(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentkit.cli.chat._read_line", interrupted)
    assert cli("chat") == 130
    assert cli("sessions", "list", "--json") == 0
    assert cli.out == ""


def test_chat_goes_on_after_a_command_that_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentkit.errors import KnowledgeError, StoreError

    def damaged(self: ScriptedWorkspace) -> None:
        raise StoreError("jobs.db is damaged", "move it away")

    make = ScriptedWorkspace.agent

    def agent(self: ScriptedWorkspace, session: str | None = None) -> object:
        if self.store.list():
            raise KnowledgeError("the index is damaged", "rebuild it")
        return make(self, session)

    monkeypatch.setattr(ScriptedWorkspace, "jobs", damaged)
    monkeypatch.setattr(ScriptedWorkspace, "agent", agent)
    cli.steps = ["One."]
    assert cli("chat", stdin="/jobs\n/new\nhi\n") == 1
    assert "agentkit: jobs.db is damaged; move it away" in cli.err
    assert "agentkit: the index is damaged; rebuild it" in cli.err
    assert cli.out == "One.\n"


def test_a_chat_whose_session_is_deleted_elsewhere_goes_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["/good\n", "/help\n", ""])

    def read() -> str:
        for info in cli.workspace.store.list():
            cli.workspace.store.delete(info.id)
        return next(lines)

    monkeypatch.setattr("agentkit.cli.chat._read_line", read)
    assert cli("chat") == 1
    assert "agentkit: no session" in cli.err
    assert "/sessions" in cli.out


def test_answers_of_commands_are_json_too(cli: Cli) -> None:
    assert cli("chat", "--json", stdin="/jobs\n") == 0
    [line] = cli.lines()
    assert (line["type"], line["command"]) == ("command", "/jobs")
    assert line["text"].startswith("There are no fine-tuning jobs")


@pytest.mark.parametrize("redirected", ["stdin", "stdout", "stderr"])
def test_the_chat_is_drawn_where_all_of_it_is_seen(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, redirected: str
) -> None:
    def is_terminal(stream: object) -> bool:
        return stream is not getattr(sys, redirected)

    monkeypatch.setattr("agentkit.cli.chat.is_terminal", is_terminal)
    monkeypatch.setattr("agentkit.ui.app.run_chat", lambda *_: pytest.fail("it was drawn"))
    assert cli("chat", stdin="/help\n") == 0
    assert "/sessions" in cli.out


def test_the_chat_is_drawn_at_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.steps = ["One."]
    assert cli("ask", "first") == 0
    assert cli("sessions", "list", "--json") == 0
    [info] = cli.lines()
    drawn: list[tuple[object, ...]] = []
    monkeypatch.setattr("agentkit.cli.chat.is_terminal", lambda stream: True)
    monkeypatch.setattr("agentkit.ui.app.run_chat", lambda *given: drawn.append(given))
    assert cli("chat", "--session", info["id"][11:]) == 0
    [(workspace, session, tell, again)] = drawn
    assert (session, tell, again) == (info["id"], note, "")
    assert hasattr(workspace, "ready_knowledge")
    for option in ("--no-input", "--json"):
        assert cli("chat", option, stdin="/help\n") == 0
    assert len(drawn) == 1


def test_chat_goes_on_after_an_error(cli: Cli) -> None:
    from agentkit.errors import ModelError

    cli.steps = [ModelError("decoding failed"), "Two."]
    assert cli("chat", "--json", stdin="first\nsecond") == 1
    assert [event["type"] for event in cli.lines()] == ["turn_failed", "text_delta", "turn_done"]


def test_the_doctor_goes_on_where_the_models_cannot_be_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", "~nobody-of-this-name/cache")
    found = list(doctor._assets())
    assert [check.name for check in found] == list(ASSETS)
    assert [check.needed for check in found] == [not asset.optional for asset in ASSETS.values()]
    assert not any(check.ok for check in found)
    assert all("no known home folder" in check.detail for check in found)


def test_models_and_init(cli: Cli, tmp_path: Path) -> None:
    assert cli("models", "list", "--json") == 0
    assert {"smollm2-135m", "minilm"} <= {line["name"] for line in cli.lines()}
    assert cli("init", str(tmp_path / "shop")) == 0
    assert str(tmp_path / "shop" / "agentkit.toml") in cli.out.splitlines()
    assert cli("init", str(tmp_path / "shop")) == 2
    assert "already holds" in cli.err
    assert cli("init", str(tmp_path / "my shop")) == 0
    assert f"cd '{tmp_path / 'my shop'}' && agentkit chat" in cli.err
    assert cli("knowledge", "list", "--project", str(tmp_path / "no shop")) == 2
    assert f"agentkit init '{tmp_path / 'no shop'}'" in cli.err


def test_nothing_is_deleted_unasked_at_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.steps = ["One."]
    assert cli("ask", "first") == 0
    assert cli("sessions", "list", "--json") == 0
    [info] = cli.lines()
    monkeypatch.setattr(
        "agentkit.cli.sessions.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    )
    assert cli("sessions", "delete", info["id"], "--no-input") == 2
    assert f"nobody was asked whether to delete {info['id']} (first); add --yes" in cli.err
    assert cli("sessions", "delete", info["id"], "--no-input", "--yes") == 0


def test_who_sends_a_picture_alone_is_there_to_be_asked(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    monkeypatch.setattr("agentkit.cli.ask.is_terminal", lambda stream: True)
    asked: list[bool | None] = []
    monkeypatch.setattr(
        "agentkit.cli.turns.play_turn", lambda *_, no_input, **more: asked.append(no_input) or 0
    )
    assert cli("ask", "--image", str(tmp_path / "a.png")) == 0
    monkeypatch.setattr("agentkit.cli.ask.is_terminal", lambda stream: False)
    assert cli("ask", "--image", str(tmp_path / "a.png"), stdin="What is it?") == 0
    assert [bool(value) for value in asked] == [False, True]
