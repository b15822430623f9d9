"""A model on a server in its places: `load_model`, an agent's whole turn, settings, the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import remote_helpers as it
from remote_helpers import Fake, chunk, said

from agentkit import Agent, KnowledgeBase, load_model, open_project
from agentkit.cli.main import run
from agentkit.errors import SettingsError, UsageError
from agentkit.events import Notice, Retrieved, TextDelta, ToolFinished, ToolStarted, TurnDone, TurnFailed
from agentkit.llm.remote import RemoteModel
from agentkit.messages import Reply
from agentkit.settings import load_settings

CALL = it.called(("order_status", '{"order_id": "1042"}'))
HALF = chunk(tool_calls=[it.part('{"order_id": "10', "order_status", index=0, id="a")])
WHOLE = chunk(tool_calls=[it.part('{"order_id": "1042"}', "order_status", index=0, id="a")])


def order_status(order_id: str) -> str:
    """Look up where an order is.

    Args:
        order_id: The number of the order.
    """
    return f"order {order_id} is on its way"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    for name in ("AGENTKIT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with it.fake_server() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "knowledge").mkdir(parents=True)
    (root / "agentkit.toml").write_text("[agent]\nrouting = 'model'\n[remote]\nretries = 0\n")
    (root / "knowledge" / "returns.md").write_text("# Returns\n\nYou can return parcels within 30 days.\n")
    (root / "prompts").symlink_to(Path(__file__).parents[2] / "prompts")
    return root


def make_agent(fake: Fake, project: Path, knowledge: bool = False, **options: Any) -> Agent:
    workspace = open_project(project, {"model": f"openai+{fake.url}", **options})
    base = KnowledgeBase(project / "knowledge", project / "index.sqlite") if knowledge else None
    return Agent(workspace=workspace, tools=[order_status], knowledge=base)


def reply_of(events: list[Any]) -> Reply:
    assert isinstance(events[-1], TurnDone), events[-1]
    return events[-1].reply


def test_a_whole_turn(fake: Fake, project: Path) -> None:
    fake.answers = [CALL, said("Order 1042 ", "is on its way.")]
    agent = make_agent(fake, project, knowledge=True)
    events = list(agent.stream("Where is order 1042, and can I return parcels?"))
    reply = reply_of(events)
    assert reply.text == "Order 1042 is on its way."  # its own words, not a template's
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        ("order_status", {"order_id": "1042"})
    ]
    kinds = [type(event) for event in events]
    assert kinds.index(Retrieved) < kinds.index(ToolFinished) < kinds.index(TextDelta)
    first, second = (body["messages"] for body in fake.bodies)
    assert [message["role"] for message in first] == ["system", "user"]
    assert "30 days" in first[1]["content"]
    call, result = second[-2:]
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"order_id": "1042"}
    assert (result["role"], result["tool_call_id"]) == ("tool", call["tool_calls"][0]["id"])
    assert json.loads(result["content"]) == {"result": "order 1042 is on its way"}
    fake.answers = [said("You can return parcels within 30 days.")]
    reply = agent.ask("Within how many days can I return parcels?")
    assert [citation.document for citation in reply.citations] == ["returns.md"]
    agent.close()
    agent.workspace.close()


def test_a_turn_with_the_router(fake: Fake, project: Path) -> None:
    def status(order_id: str) -> str:
        """Look up where an order is.

        Args:
            order_id: The number of the order.
        """
        return "on its way"

    from agentkit import tool

    routed = tool(name="order_status", examples=[("Where is order 1042?", {"order_id": "1042"})])(status)
    workspace = open_project(project, {"model": f"openai+{fake.url}", "agent.routing": "auto"})
    fake.answers = [CALL, said("It is on its way.")]
    agent = Agent(workspace=workspace, tools=[routed])
    assert agent.ask("Where is order 1043?").text == "It is on its way."
    assert fake.bodies[0]["tool_choice"] == {"type": "function", "function": {"name": "order_status"}}
    assert fake.bodies[1]["tool_choice"] == "none"
    agent.close()
    workspace.close()


def test_nothing_runs_that_does_not_fit_and_the_session_goes_on(fake: Fake, project: Path) -> None:
    agent = make_agent(fake, project)
    for wrong in ([it.called(("order_status", '{"order_id": 1}'))] * 3, [it.called(("rm", "{}"))] * 3):
        fake.answers = wrong
        events = list(agent.stream("Where is order 1042?"))
        assert isinstance(events[-1], TurnFailed)
        assert "nothing that fits in 3 tries" in events[-1].error
        assert not any(isinstance(event, ToolFinished) for event in events)
        assert [event.code for event in events if isinstance(event, Notice)] == ["bad_call"] * 2
    fake.answers = [it.reply(b"", 500)]
    assert "answered 500" in list(agent.stream("And now?"))[-1].error  # type: ignore[attr-defined]
    fake.answers = [CALL, said("On its way.")]
    assert agent.ask("Where is order 1042?").text == "On its way."
    assert not any(message.tool_calls for message in agent.session.messages()[:-3])
    agent.close()
    agent.workspace.close()


BAD: dict[str, tuple[list[it.Answer], str, int]] = {
    "slow": ([it.hang(headers=False)], "sent nothing for 1 s", 1),
    "slow in the middle": ([it.hang(5, it.event(chunk(content="Order 10")))], "sent nothing for 1 s", 1),
    "nothing but keep-alives": ([it.pinging(0.1)], "sent nothing but keep-alives for 1 s", 1),
    "gone": ([it.drop], "closed the connection", 1),
    "busy": ([it.reply(b"", 429)], "answered 429", 1),
    "HTML": ([it.reply(b"<!DOCTYPE html><h1>Hello</h1>", 200, "text/html")], "answered with a web page", 1),
    "words": ([it.reply(b"in maintenance")], "something that is no JSON", 1),
    "half a text": ([it.stream(chunk(content="Order 10"), done=False)], "ended in the middle of its answer", 1),
    "half a call": ([it.stream(HALF, done=False)], "ended in the middle of its answer", 1),
    "half a call, lost": ([it.reply(it.event(HALF), length=10_000)], "closed the connection in the middle", 1),
    "a whole call, lost": ([it.reply(it.event(WHOLE), length=10_000)], "closed the connection in the middle", 1),
    "invalid JSON": ([it.stream(b"{")], "a chunk is no JSON", 1),
    "invalid arguments": ([it.called(("order_status", "{1}"))] * 3, "in 3 tries: the arguments of order_status: no", 3),
    "an unknown tool": ([it.called(("rm", "{}"))] * 3, "in 3 tries: there is no tool rm", 3),
    "too large a number": ([it.called(("order_status", '{"order_id": "1", "n": 1e999}'))] * 3, "1e999 is too large", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_one_event_tells_what_is_wrong_and_the_session_goes_on(fake: Fake, project: Path, name: str) -> None:
    answers, cause, asked = BAD[name]
    limit = {"remote.timeout_s": 1.0} if cause.endswith("for 1 s") else {}
    agent = make_agent(fake, project, **limit)
    fake.answers = list(answers)
    events = list(agent.stream("Where is order 1042?"))
    (failed,) = [event for event in events if isinstance(event, TurnFailed)]
    assert events[-1] is failed
    assert cause in failed.error
    assert failed.error.isprintable()
    assert len(fake.asked) == asked
    assert not any(isinstance(event, ToolStarted | ToolFinished) for event in events)
    fake.answers = [CALL, said("Order 1042 is on its way.")]
    assert reply_of(list(agent.stream("And now?"))).text == "Order 1042 is on its way."
    assert [message.role for message in agent.session.messages()][-4:] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert not any(message.tool_calls for message in agent.session.messages()[:-3])
    agent.close()
    agent.workspace.close()


def test_a_turn_on_a_server_that_is_down_and_comes_up(project: Path) -> None:
    with it.fake_server() as fake:
        agent = make_agent(fake, project)
        port = int(fake.url.split(":")[2].split("/")[0])
    events = list(agent.stream("Where is order 1042?"))
    (failed,) = [event for event in events if isinstance(event, TurnFailed)]
    assert events[-1] is failed
    assert "cannot reach http://127.0.0.1" in failed.error
    with it.fake_server(port) as fake:
        fake.answers = [CALL, said("On its way.")]
        assert agent.ask("And now?").text == "On its way."
    agent.close()
    agent.workspace.close()


def test_a_long_conversation_is_fitted_into_the_servers_context(fake: Fake, project: Path) -> None:
    fake.models = {"data": [{"id": "tiny", "max_model_len": 2000}]}
    agent = make_agent(fake, project)
    with pytest.raises(UsageError, match="too long for the model's context"):
        agent.ask("word " * 2000)
    for _ in range(5):
        fake.answers = [said("word " * 200)]
        reply = agent.ask("word " * 200)
    assert "left out" in reply.notices[0]
    assert len(json.dumps(fake.bodies[-1]["messages"])) < 6000
    agent.close()
    agent.workspace.close()


def test_loading_asks_nobody(fake: Fake) -> None:
    model = load_model(f"openai+{fake.url}#tiny", max_new_tokens=7, adapter="none")
    assert isinstance(model, RemoteModel)
    assert (model.name, fake.models_asked) == ("tiny", 0)
    fake.answers = [said("Hello.")]
    assert model.chat(it.ASK).text == "Hello."
    assert fake.bodies[0]["max_tokens"] == 7


@pytest.mark.parametrize(
    "option",
    [
        {"adapter": "mine"},
        {"device": "cpu"},
        {"quantize": "int4"},
        {"compile": True},
        {"tool_format": "hermes"},
    ],
)
def test_options_of_weights_make_no_sense_on_a_server(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(option))} .* cannot be applied to a model on a server"):
        load_model("openai+http://127.0.0.1:9/v1", **option)


def test_training_a_model_on_a_server_is_refused(project: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (project / "chats.jsonl").write_text(json.dumps(chat) + "\n", encoding="utf-8")
    with (
        open_project(project, {"model": "openai+http://127.0.0.1:9/v1"}) as workspace,
        pytest.raises(UsageError, match="cannot be fine-tuned"),
    ):
        workspace.start_finetune(project / "chats.jsonl")


def test_importing_agentkit_loads_no_http_client() -> None:
    code = "import sys, agentkit, agentkit.llm.remote; print([m for m in ('httpx', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_hold_no_secret(tmp_path: Path) -> None:
    assert (
        load_settings(
            environ={"AGENTKIT_API_KEY": "sk-secret", "AGENTKIT_REMOTE__RETRIES": "7"}
        ).remote.retries
        == 7
    )
    file = tmp_path / "agentkit.toml"
    file.write_text("api_key = 'x'\n")
    with pytest.raises(SettingsError, match="unknown setting 'api_key'"):
        load_settings(file)
    for model in ("openai+http://me:hidden@host/v1", "openai+http://me:hid/den@host"):
        with pytest.raises(SettingsError, match="AGENTKIT_API_KEY") as caught:
            load_settings(environ={"AGENTKIT_MODEL": model})
        assert "hid" not in str(caught.value)


def test_the_command_line(
    fake: Fake, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"openai+{fake.url}"
    fake.models = {"data": [{"id": "tiny", "max_model_len": 4096}, {"id": "big"}]}
    monkeypatch.setenv("AGENTKIT_API_KEY", "sk-secret")
    monkeypatch.setenv("AGENTKIT_PROJECT", str(project))
    assert run(["models", "info", address]) == 0
    out = capsys.readouterr().out
    assert "context length  4,096" in out
    assert "models          tiny, big" in out
    assert run(["models", "info", "openai+http://me:hidden@host/v1"]) == 2
    assert run(["ask", "Hi", "--model", "openai+http://me:hidden@host/v1"]) == 2
    assert run(["ask", "Hi", "--model", address, "--quantize", "int4"]) == 2
    assert run(["demo", "--model", address]) == 2
    told = capsys.readouterr()
    assert "hidden" not in told.err + told.out
    assert all(line.startswith("agentkit: ") for line in told.err.splitlines()), told.err
    run(["doctor", "--model", address])
    assert f"server              {fake.url}, model tiny" in capsys.readouterr().out
    fake.models = it.reply(b"", 401)
    assert run(["models", "info", address]) == 1
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].endswith("answered 401; check the key in AGENTKIT_API_KEY")
    assert "secret" not in told.out + told.err


def test_ask_on_the_command_line(fake: Fake, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers = [it.stream(chunk(content="Hel\x1b[31mlo."), chunk("stop"))]
    options = ["--project", str(project), "--model", f"openai+{fake.url}"]
    assert run(["ask", "Hi", *options]) == 0
    assert capsys.readouterr().out == "Hello.\n"
    fake.answers = [it.reply(b"<html>", 502)]
    assert run(["ask", "Hi", *options]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-1].endswith("answered 502: a web page (after one try); see the server's log")
