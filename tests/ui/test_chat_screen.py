"""The terminal chat, with a scripted agent: what is shown, and what keys do."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chat_helpers import ScriptedWorkspace, Turn, call_tool, say, say_until_stopped, wait_until
from textual import events
from textual.pilot import Pilot
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownBlock

from agentkit.errors import AgentkitError, ModelError, StoreError
from agentkit.events import ApprovalRequired, Event, Notice, TextDelta, TurnDone, TurnFailed
from agentkit.messages import Citation, Message, Reply, ToolCall, ToolResult
from agentkit.ui.app import AGAIN_S, WAITING, ChatApp, run_chat
from agentkit.ui.messages import AgentEvent, Loading
from agentkit.ui.runner import Runner
from agentkit.ui.screens.chat import ChatScreen
from agentkit.ui.widgets import question
from agentkit.ui.widgets.answer import Answer
from agentkit.ui.widgets.composer import Composer
from agentkit.ui.widgets.conversation import LEFT_OUT, REPLAYED, Conversation
from agentkit.ui.widgets.lines import CommandAnswer, ErrorMessage, NoticeLine, UserMessage
from agentkit.ui.widgets.question import ApprovalQuestion
from agentkit.ui.widgets.tool_call import ToolCallLine

CALL = ToolCall("call_1", "order_status", {"order_id": "1042"})
RESULT = ToolResult("call_1", "order_status", True, {"state": "shipped"}, seconds=0.31)
EVIL = "red\x1b[31m bell\x07 \x1b]0;title\x07 bidi\u202eabc \x9b31m &#x202e; <b>tag</b> [red]markup[/red]"


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "GRACE_S", 0.0)


def chat(app: ChatApp) -> ChatScreen:
    assert isinstance(app.screen, ChatScreen)
    return app.screen


def screen_text(app: ChatApp) -> str:
    """What stands on the terminal, row by row."""
    return "\n".join(
        "".join(segment.text for segment in row) for row in app.screen._compositor.render_strips()
    )


def answers(app: ChatApp) -> list[str]:
    """The rendered text of every answer."""
    found = []
    for answer in app.screen.query(Answer):
        found.append(
            "\n".join(block._content.plain for block in answer.query(MarkdownBlock) if not block._blocks)
        )
    return found


async def ready(pilot: Pilot[str]) -> ChatScreen:
    await wait_until(
        lambda: isinstance(pilot.app.screen, ChatScreen) and not pilot.app.screen.busy, "the agent"
    )
    return chat(pilot.app)  # type: ignore[arg-type]


async def send(pilot: Pilot[str], text: str, wait: bool = True) -> None:
    composer = pilot.app.screen.query_one(Composer)
    composer.focus()
    composer.text = text
    await pilot.press("enter")
    if wait:
        await wait_until(lambda: not pilot.app.screen.busy, "the end of the turn")  # type: ignore[attr-defined]
        await pilot.pause()


async def test_an_answer_streams_and_is_replaced_by_its_checked_form(tmp_path: Path) -> None:
    def play(turn: Turn) -> Iterator[Event]:
        yield TextDelta("You have 30 days. ")
        yield TextDelta("Invented.")
        turn.go.wait(60)
        cite = Citation(1, "orders/returns.md", "Returns > Deadline", 2, "30 days", 0.9)
        yield Notice("unsupported_sentence", "removed, no passage supports it: Invented.")
        yield TurnDone(Reply("You have 30 days. [1]", citations=(cite,)))

    workspace = ScriptedWorkspace(tmp_path, play)
    app = ChatApp(workspace)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "How long?", wait=False)
        await wait_until(lambda: answers(app) == ["You have 30 days. Invented."], "the streamed text")
        workspace.go.set()
        await wait_until(lambda: answers(app) == ["You have 30 days. [1]"], "the final text")
        await wait_until(lambda: not chat(app).busy)
        await pilot.pause()
        shown = screen_text(app)
        assert "[1] orders/returns.md › Returns › Deadline, page 2" in shown
        assert "removed, no passage supports it: Invented." in shown
        assert workspace.agents[0].seen == ["How long?"]


async def test_a_tool_call_is_one_line_that_opens(tmp_path: Path) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, call_tool(CALL, RESULT, "It is on its way.")))
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Where is order 1042?")
        line = app.screen.query_one(ToolCallLine)
        assert 'order_status(order_id="1042")  0.31 s → {"state": "shipped"}' in screen_text(app)
        assert '"order_id": "1042"' not in screen_text(app)
        line.query_one("CollapsibleTitle").focus()
        await pilot.press("enter")
        await pilot.pause()
        assert '"order_id": "1042"' in screen_text(app)
        order = [type(child) for child in app.screen.query_one(Conversation).children]
        assert order == [UserMessage, ToolCallLine, Answer]


async def test_esc_stops_and_keeps_the_text(tmp_path: Path) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, say_until_stopped, say("Again.")))
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "Talk", wait=False)
        await wait_until(lambda: answers(app) and "more more" in answers(app)[0], "some text")
        await pilot.press("escape")
        await wait_until(lambda: not chat(app).busy, "the stop")
        assert "more more" in answers(app)[0]
        await send(pilot, "Go on")
        assert answers(app)[1] == "Again."


async def test_esc_drops_what_waits_and_says_so(tmp_path: Path) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, say_until_stopped, say("Again.")))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Talk", wait=False)
        await wait_until(lambda: answers(app) and "more more" in answers(app)[0], "some text")
        await send(pilot, "And this", wait=False)
        await pilot.press("escape")
        await wait_until(lambda: "Not sent, as you stopped: And this" in screen_text(app), "the note")
        await wait_until(lambda: not chat(app).busy, "the stop")
        await send(pilot, "Go on")
        assert answers(app)[1:] == ["Again."]


async def test_what_waits_when_the_chat_ends_is_told(tmp_path: Path) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, say_until_stopped))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Talk", wait=False)
        await wait_until(lambda: answers(app) and "more more" in answers(app)[0], "some text")
        await send(pilot, "And this", wait=False)
        app.screen.query_one(Composer).text = "and a draft"
        await pilot.press("ctrl+q")
    assert app.unsent == ["And this", "and a draft"]


async def test_no_control_reaches_the_screen_through_a_link(tmp_path: Path) -> None:
    """Markdown shows "%1b" in a link as the character that it stands for."""
    links = "See <http://a.b/%1b%5d52;c;cHduZWQ=%1b%5c>, http://c.d/%1B%5B2J and http://e.f/%C2%9B%E2%80%AEx."
    app = ChatApp(ScriptedWorkspace(tmp_path, say(links)))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Links")
        shown = screen_text(app)
    assert "http://c.d/" in shown
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_a_chat_that_crashes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: ChatApp) -> None:
        self._return_code = 1

    monkeypatch.setattr(ChatApp, "run", crash)
    with pytest.raises(AgentkitError, match="the chat has crashed"):
        run_chat(ScriptedWorkspace(tmp_path))


@pytest.mark.parametrize("said", [True, False])
def test_a_chat_that_a_signal_ends_tells_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    session = workspace.store.create()
    if said:
        session.append(Message("user", "Hi"))

    def end(self: ChatApp) -> None:
        self._chat.session = session.id
        self._return_code = 143

    monkeypatch.setattr(ChatApp, "run", end)
    told: list[str] = []
    with pytest.raises(SystemExit):
        run_chat(workspace, None, told.append)
    assert told == ([f"Go on with: agentkit chat --session {session.id}"] if said else [])
    assert len(workspace.store.list()) == said


@pytest.mark.parametrize(("key", "last"), [("y", "Done."), ("n", "I did not do it.")])
async def test_approval_blocks_until_y_or_n(tmp_path: Path, key: str, last: str) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, call_tool(CALL, RESULT, ask=True)))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Do it", wait=False)
        await wait_until(lambda: isinstance(app.focused, ApprovalQuestion), "the question")
        await pilot.pause()
        assert "order_status changes something. Allow it?" in screen_text(app)
        await pilot.press(key)
        await wait_until(lambda: not chat(app).busy, "the answer")
        assert answers(app) == [last]
        assert isinstance(app.focused, Composer)
        assert not app.screen.query(ApprovalQuestion)


async def test_keys_typed_before_the_question_was_seen_do_not_answer_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question, "GRACE_S", 60.0)
    app = ChatApp(ScriptedWorkspace(tmp_path, call_tool(CALL, RESULT, ask=True)))
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "Do it", wait=False)
        await wait_until(lambda: isinstance(app.focused, ApprovalQuestion), "the question")
        await pilot.press("y")
        assert chat(app).busy
        await pilot.press("escape")  # stopping denies
        await wait_until(lambda: not chat(app).busy, "the end")
        assert answers(app) == ["I did not do it."]


async def test_a_key_within_the_grace_period_begins_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question, "GRACE_S", 60.0)
    app = ChatApp(ScriptedWorkspace(tmp_path, call_tool(CALL, RESULT, ask=True)))
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "Do it", wait=False)
        await wait_until(lambda: isinstance(app.focused, ApprovalQuestion), "the question")
        asked = app.screen.query_one(ApprovalQuestion)
        begun = asked._quiet_since
        await pilot.press("x")
        assert asked._quiet_since > begun
        monkeypatch.setattr(question, "GRACE_S", 0.0)
        begun = asked._quiet_since
        await pilot.press("y")
        await wait_until(lambda: not chat(app).busy, "the answer")
        assert asked._quiet_since == begun
        assert answers(app) == ["Done."]


async def test_a_paste_of_many_lines_is_one_message(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await ready(pilot)
        composer = app.screen.query_one(Composer)
        before = composer.size.height
        app.post_message(events.Paste("one\r\ntwo\x1b[2J\nthree"))
        await wait_until(lambda: composer.text == "one\ntwo\nthree", "the paste")
        await pilot.pause()
        assert composer.size.height > before
        await pilot.press("shift+enter", "4", "ctrl+j", "5", "enter")
        await wait_until(lambda: workspace.agents[0].seen == ["one\ntwo\nthree\n4\n5"], "the message")


async def test_foreign_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    def play(turn: Turn) -> Iterator[Event]:
        evil_call = ToolCall("c", "order_status", {"order_id": EVIL})
        cite = Citation(1, EVIL, EVIL, None, "", 1.0)
        yield from list(call_tool(evil_call, ToolResult("c", "order_status", True, EVIL))(turn))[:-1]
        yield Notice("x", EVIL)
        yield TurnDone(Reply(EVIL, citations=(cite,)))

    def fail(turn: Turn) -> Iterator[Event]:
        yield TurnFailed(EVIL)

    app = ChatApp(ScriptedWorkspace(tmp_path, play, fail))
    async with app.run_test(size=(140, 50)) as pilot:
        await ready(pilot)
        await send(pilot, EVIL)
        app.screen.query_one(ToolCallLine).collapsed = False
        await send(pilot, "fail")
        await pilot.pause()
        shown = screen_text(app)
        for control in "\x1b\x07\x9b\u202e":
            assert control not in shown
        assert "<b>tag</b>" in answers(app)[0]
        assert "&#x202e;" in answers(app)[0]
        assert "[red]markup[/red]" in shown
        assert app.screen.query_one(NoticeLine)
        assert app.screen.query_one(ErrorMessage)


async def test_documents_that_cannot_be_read_are_named_at_the_start(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    workspace.notices = ["a.pdf skipped: it is encrypted"]
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await ready(pilot)
        await wait_until(lambda: workspace.notices[0] in screen_text(app), "the notice")


async def test_a_failed_turn_leaves_the_chat_usable(tmp_path: Path) -> None:
    def fail(turn: Turn) -> Iterator[Event]:
        yield TextDelta("Half")
        yield TurnFailed("decoding failed; try again")

    def crash(turn: Turn) -> Iterator[Event]:
        raise KeyError("bug")
        yield

    app = ChatApp(ScriptedWorkspace(tmp_path, fail, crash, say("Fine.")))
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "one")
        await send(pilot, "two")
        await send(pilot, "three")
        assert [str(error.content) for error in app.screen.query(ErrorMessage)] == [
            "decoding failed; try again",
            "unexpected KeyError: 'bug'",
        ]
        assert answers(app) == ["Half", "Fine."]


async def test_a_message_sent_while_loading_waits(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path, say("Hello."))
    workspace.loaded.clear()
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await wait_until(lambda: isinstance(app.screen, ChatScreen) and app.screen.query(Composer))
        await wait_until(lambda: "indexing orders/returns.md" in screen_text(app), "the progress")
        await send(pilot, "Hi", wait=False)
        assert len(app.screen.query(UserMessage)) == 1
        assert not workspace.agents
        workspace.loaded.set()
        await wait_until(lambda: answers(app) == ["Hello."], "the answer")
        assert len(app.screen.query(UserMessage)) == 1


async def test_a_resumed_session_shows_its_history(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    session = workspace.store.create()
    cite = {"number": 1, "document": "a.md", "heading": "A", "page": None, "quote": "q", "score": 1.0}
    for message in (
        Message("system", "secret prompt"),
        Message("user", "Where is it?"),
        Message("user", "what only the model reads", meta={"kind": "context"}),
        Message("assistant", "", (CALL,)),
        Message("tool", '{"result": "shipped"}', (), "call_1", "order_status"),
        Message("assistant", "On its way. [1]", meta={"citations": [cite], "notices": ["cut"]}),
    ):
        session.append(message)
    app = ChatApp(workspace, session.id)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await wait_until(lambda: answers(app) == ["On its way. [1]"], "the history")
        await pilot.pause()
        shown = screen_text(app)
        assert "Where is it?" in shown
        assert '→ "shipped"' in shown
        assert "[1] a.md › A" in shown
        assert "secret" not in shown
        assert "only the model" not in shown
        assert session.id in shown


async def test_of_a_long_session_the_end_is_shown(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    session = workspace.store.create()
    session.append(Message("system", "secret prompt"))
    for n in range(REPLAYED):
        session.append(Message("user", f"Question {n}?"))
        session.append(Message("assistant", f"Answer {n}."))
    app = ChatApp(workspace, session.id)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await wait_until(lambda: answers(app)[-1:] == [f"Answer {REPLAYED - 1}."], "the history")
        assert answers(app)[0] == f"Answer {REPLAYED // 2}."
        assert len(app.screen.query(UserMessage)) == REPLAYED // 2
        (line,) = app.screen.query(NoticeLine)
        assert LEFT_OUT.format(REPLAYED) in str(line.render())


async def test_results_of_calls_with_the_same_id_stand_at_their_own_call(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    session = workspace.store.create()
    for state in ("shipped", "lost"):
        session.append(Message("user", "Where is it?"))
        session.append(Message("assistant", "", (CALL,)))
        session.append(Message("tool", f'{{"result": "{state}"}}', (), "call_1", "order_status"))
    app = ChatApp(workspace, session.id)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await wait_until(lambda: len(app.screen.query(ToolCallLine)) == 2, "the history")
        titles = [str(line.title) for line in app.screen.query(ToolCallLine)]
        assert [title.rpartition("→ ")[2] for title in titles] == ['"shipped"', '"lost"']


async def test_a_call_that_has_no_result_does_not_run_any_more(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    session = workspace.store.create()
    session.append(Message("user", "Where is it?"))
    session.append(Message("assistant", "", (CALL,)))  # and then the program was killed
    app = ChatApp(workspace, session.id)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await wait_until(lambda: len(app.screen.query(ToolCallLine)) == 1, "the history")
        (line,) = app.screen.query(ToolCallLine)
        assert "failed: interrupted" in str(line.title)


async def test_quitting_while_a_new_session_opens_leaves_none(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    runner = Runner(workspace, lambda message: None)
    runner.load(None)
    workspace.agents[0].session.append(Message("user", "Hi"))
    opened = workspace.agent

    def slow(session: str | None = None) -> Any:
        runner.quit()
        return opened(session)

    workspace.agent = slow  # type: ignore[method-assign]
    runner.new_session()
    assert [info.id for info in workspace.store.list()] == [workspace.agents[0].session.id]


async def test_a_new_session_tells_what_became_of_the_documents(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    workspace.notices = ["a.pdf skipped"]
    posted: list[Any] = []
    runner = Runner(workspace, posted.append)
    runner.load(None)
    workspace.notices.append("b.pdf skipped")
    del posted[:]
    runner.new_session()
    assert [message.event.text for message in posted if isinstance(message, AgentEvent)] == ["b.pdf skipped"]
    assert isinstance(posted[0], Loading)


async def test_quitting_while_something_loads_says_what_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    workspace.loaded.clear()
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+q")
        workspace.loaded.set()
    assert WAITING in capsys.readouterr().err
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+q")
    assert WAITING not in capsys.readouterr().err


async def test_the_hint_of_ctrl_c_goes_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_timer, due = ChatScreen.set_timer, list[Callable[[], None]]()

    def kept(self: ChatScreen, delay: float, callback: Any = None, **more: Any) -> Any:
        if delay == AGAIN_S:
            due.append(callback)
            return None
        return set_timer(self, delay, callback, **more)

    monkeypatch.setattr(ChatScreen, "set_timer", kept)
    workspace = ScriptedWorkspace(tmp_path)
    workspace.loaded.clear()
    app = ChatApp(workspace)
    async with app.run_test(size=(110, 30)) as pilot:
        await wait_until(lambda: "indexing" in screen_text(app), "loading")
        await pilot.press("ctrl+c")
        assert "press Ctrl+C again" in screen_text(app)
        (over,) = due
        over()
        await pilot.pause()
        assert "press Ctrl+C again" not in screen_text(app)
        assert "indexing" in screen_text(app)
        workspace.loaded.set()
        await ready(pilot)


async def test_quitting_while_loading_opens_no_session(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    posted: list[object] = []
    runner = Runner(workspace, posted.append)
    workspace.loaded.clear()
    thread = threading.Thread(target=runner.load, args=(None,))
    thread.start()
    await wait_until(lambda: len(posted) == 2, "the first document")
    runner.quit()
    workspace.loaded.set()
    thread.join(10)
    assert not thread.is_alive()
    assert workspace.store.list() == []
    assert [type(message) for message in posted] == [Loading, Loading]


async def test_quitting_while_loading_indexes_no_further_document(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    dealt: list[int] = []

    def ready_knowledge(progress: Callable[[str], None]) -> None:
        for number in range(3):
            dealt.append(number)
            runner.quit()
            progress(f"{number}.md")

    workspace.ready_knowledge = ready_knowledge  # type: ignore[assignment, method-assign]
    posted: list[object] = []
    runner = Runner(workspace, posted.append)
    runner.load(None)
    assert dealt == [0]
    assert [type(message) for message in posted] == [Loading]


async def test_quitting_during_generation_ends_the_thread_and_keeps_the_session(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path, say_until_stopped)
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "Talk", wait=False)
        await wait_until(lambda: answers(app) and "more" in answers(app)[0], "some text")
        await pilot.press("ctrl+c", "ctrl+c")
        await wait_until(lambda: not app.is_running, "the end")
    session = workspace.agents[0].session
    await wait_until(lambda: len(session.messages()) == 2, "the stored answer")
    assert "more" in session.messages()[1].content
    assert app.return_value == session.id


async def test_quitting_denies_a_waiting_approval(tmp_path: Path) -> None:
    decided: list[bool] = []

    def play(turn: Turn) -> Iterator[Event]:
        request = ApprovalRequired(CALL, "order_status changes something")
        yield request
        decided.append(turn.approve(request))
        yield TurnDone(Reply("I did not do it."))

    app = ChatApp(ScriptedWorkspace(tmp_path, play))
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "Do it", wait=False)
        await wait_until(lambda: isinstance(app.focused, ApprovalQuestion), "the question")
        await pilot.press("ctrl+q")
    await wait_until(lambda: decided, "the thread")
    assert decided == [False]


async def test_commands_and_new_session(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path, say("Hello."))
    app = ChatApp(workspace)
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        await send(pilot, "Hi")
        for command in ("/tools", "/sessions", "/help", "/tolls"):
            await send(pilot, command)
        texts = [str(answer.content) for answer in app.screen.query(CommandAnswer)]
        assert "Look up an order." in texts[0]
        assert f"* {workspace.agents[0].session.id}" in texts[1]
        assert "Ctrl+Y" in texts[2]
        assert "did you mean /tools?" in texts[3]
        await send(pilot, "/new")
        await wait_until(lambda: not app.screen.query(UserMessage), "the empty conversation")
        assert len(workspace.agents) == 2
        await send(pilot, "/new")  # nothing was said in the second one
        kept = {workspace.agents[0].session.id, workspace.agents[2].session.id}
        assert {info.id for info in workspace.store.list()} == kept
        await send(pilot, "/quit", wait=False)
        await wait_until(lambda: not app.is_running, "the end")


@dataclass
class FakeJob:
    id: str
    name: str
    status: str
    told: str
    model: str = "scripted"
    adapter: Path | None = None

    @property
    def active(self) -> bool:
        return self.status in ("queued", "running")

    def progress(self) -> str:
        return self.told


async def test_fine_tuning_is_watched_beside_the_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.ui.screens.chat.WATCH_S", 0.02)
    workspace = ScriptedWorkspace(tmp_path)
    app = ChatApp(workspace)

    def facts() -> str:
        return str(app.screen.query_one("#facts", Static).content)

    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        tone = FakeJob("1", "tone", "running", "step 3 of 9, 2 min left")
        workspace.running = [FakeJob("2", "next", "queued", "queued behind 1"), tone]
        await wait_until(lambda: facts().startswith("tone: step 3 of 9, 2 min left · "), "the progress")
        await send(pilot, "/jobs")
        await send(pilot, "/good")
        answers = [str(answer.content) for answer in app.screen.query(CommandAnswer)]
        assert answers[0] == "next  queued behind 1\ntone  step 3 of 9, 2 min left"
        assert "rated good" in answers[1]
        assert workspace.store.list()[0].rating == "good"
        tone.status, tone.told = "done", "done, loss 0.5"
        await wait_until(lambda: len(app.screen.query(CommandAnswer)) == 3, "the end of the job")
        assert str(app.screen.query(CommandAnswer).last().content) == "Fine-tuning tone: done, loss 0.5"
        await wait_until(lambda: facts().startswith("next: queued behind 1"), "the next job")


async def test_jobs_that_cannot_be_read_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.ui.screens.chat.WATCH_S", 0.01)
    looks: list[None] = []

    def fail() -> list[FakeJob]:
        looks.append(None)
        raise StoreError("the table is damaged", "move it away")

    workspace = ScriptedWorkspace(tmp_path)
    workspace.jobs = fail  # type: ignore[method-assign]
    app = ChatApp(workspace)
    async with app.run_test() as pilot:
        await ready(pilot)
        await wait_until(lambda: len(looks) > 3, "some looks")
        (told,) = app.screen.query(CommandAnswer)
        assert "jobs cannot be read: the table is damaged" in str(told.content)


async def test_copying_themes_and_status(tmp_path: Path) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, say("Hello there.", final="Hello there, \x1b[31mfriend.")))
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Hi")
        await pilot.press("ctrl+y")
        assert app.clipboard == "Hello there, friend."
        facts = str(app.screen.query_one("#facts", Static).content)
        assert facts.startswith("1,203 cached + 45 new · 51 tok/s · ")
        assert facts.endswith(" · scripted")
        await pilot.press("ctrl+t")
        assert app.theme == "agentkit-light"
        await pilot.press("ctrl+t")
        assert app.theme == "agentkit-dark"


async def test_an_agent_that_cannot_load_ends_the_app(tmp_path: Path) -> None:
    workspace = ScriptedWorkspace(tmp_path)
    workspace.load_error = ModelError("cannot load x", "name another")
    app = ChatApp(workspace)
    async with app.run_test():
        await wait_until(lambda: app.load_error is not None, "the error")
    assert app.load_error is workspace.load_error


async def test_a_copied_link_is_encoded_again(tmp_path: Path) -> None:
    app = ChatApp(ScriptedWorkspace(tmp_path, say("See [it](https://a.b/My%20File.pdf?q=1%0Arm)")))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await send(pilot, "Links")
        widget = app.screen.query(Markdown).last()
        widget.post_message(Markdown.LinkClicked(widget, "https://a.b/My%20File.pdf?q=1%0Arm"))
        await wait_until(lambda: app.clipboard, "the copy")
    assert app.clipboard == "https://a.b/My%20File.pdf?q=1%0Arm"
