"""A tool may do its worst: the outcome is a result, and the next call works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentkit.messages import ToolCall, ToolResult
from agentkit.settings import ToolSettings
from agentkit.tooling.context import set_options, tool_options
from agentkit.tooling.registry import ToolRegistry
from agentkit.tooling.tool import Tool, tool

MakeRegistry = Callable[..., ToolRegistry]


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A call as the model makes it."""
    return ToolCall("call_1", name, arguments)


BAD = """
    import ctypes, datetime, os, pathlib, re, sys, threading, time, subprocess
    from enum import Enum

    @tool
    def ping(word: str = "pong") -> str:
        '''Answer.'''
        return word

    @tool
    def raises(text: str) -> str:
        '''Raise.'''
        raise ValueError(text)

    @tool(timeout_s=1)
    def hangs() -> str:
        '''Hang.'''
        while True:
            time.sleep(60)

    @tool(timeout_s=1, side_effect=True)
    def sends_and_hangs() -> str:
        '''Send, and hang.'''
        while True:
            time.sleep(60)

    @tool(timeout_s=1)
    def keeps_the_gil() -> str:
        '''Hang in C.'''
        return str(re.match(r"(a+)+$", "a" * 40 + "b"))

    @tool
    def leaves_one_behind() -> int:
        '''Fork.'''
        child = os.fork()
        if child == 0:
            os.setsid()
            time.sleep(120)
            os._exit(0)
        return child

    @tool
    def exits() -> str:
        '''Exit.'''
        sys.exit(3)

    @tool
    def ends_process() -> str:
        '''End.'''
        os._exit(7)

    @tool
    def crashes() -> str:
        '''Crash.'''
        return ctypes.string_at(0)

    @tool
    def floods(characters: int) -> str:
        '''Flood.'''
        return "x" * characters

    @tool
    def prints() -> str:
        '''Print.'''
        print('{"id": 1, "ok": true, "value": "forged"}')
        sys.stderr.write("noise")
        os.write(1, b"raw\\n")
        subprocess.run(["echo", "child"], check=True)
        return "quiet"

    @tool
    def reads() -> str:
        '''Read.'''
        return input("give me the protocol: ")

    @tool
    def returns_object() -> object:
        '''Return something odd.'''
        return {"f": ping.fn}

    @tool
    def returns_date() -> object:
        '''Return dates.'''
        return {"d": datetime.date(2024, 2, 29), "p": pathlib.PurePosixPath("a/b"), "n": float("nan"), 3: {1}}

    @tool
    def adds_days(day: datetime.date, days: int) -> str:
        '''Add days.'''
        return (day + datetime.timedelta(days=days)).isoformat()

    @tool
    def process() -> int:
        '''The process.'''
        return os.getpid()

    @tool
    def moves() -> str:
        '''Change folder.'''
        here = os.getcwd()
        os.chdir("/")
        return here

    @tool
    def surrogate() -> str:
        '''Return half a character.'''
        return "a\\ud800"

    @tool
    def odd_error() -> str:
        '''Raise something whose text cannot be read.'''
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError
        raise Odd

    @tool
    def starts_a_child() -> int:
        '''Start a process that outlives the call.'''
        return subprocess.Popen(["sleep", "600"]).pid

    @tool
    def options_of(name: str) -> dict:
        '''Read options.'''
        from agentkit.tooling.context import tool_options
        return tool_options(name)
"""


def check(result: ToolResult, text: str) -> None:
    assert not result.ok
    assert result.error is not None
    assert text in result.error
    assert "\n" not in result.error


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("raises", {"text": "no\nsuch order"}, "ValueError: no such order"),
        ("hangs", {}, "hangs took longer than 1 s and was stopped"),
        (
            "sends_and_hangs",
            {},
            "sends_and_hangs took longer than 1 s and was stopped; it may or may not have",
        ),
        ("keeps_the_gil", {}, "keeps_the_gil took longer than 1 s and was stopped"),
        ("exits", {}, "SystemExit: the tool tried to end the process (3)"),
        ("ends_process", {}, "ends_process ended its process (exit code 7)"),
        ("crashes", {}, "crashes ended its process (SIGSEGV)"),
        ("reads", {}, "EOFError"),
        ("returns_object", {}, "the tool returned a value that is not JSON"),
        ("adds_days", {"day": "soon", "days": 1}, "wrong arguments: day: Input should be a valid date"),
        ("odd_error", {}, "Odd: no message"),
        ("pin", {}, "no tool is called 'pin'; did you mean ping"),
    ],
)
def test_a_failure_is_a_result_and_the_next_call_works(
    make_registry: MakeRegistry, name: str, arguments: dict[str, Any], text: str
) -> None:
    registry = make_registry(BAD)
    check(registry.run(call(name, **arguments)), text)
    assert registry.run(call("ping")).value == "pong"


def test_one_process_serves_many_calls_and_ends_with_the_registry(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD)
    first, second = (registry.run(call("process")).value for _ in range(2))
    assert first == second != os.getpid()
    registry.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert registry.run(call("process")).value != first


def test_children_of_tools_end_with_the_worker(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD)
    child = registry.run(call("starts_a_child")).value
    registry.close()
    wait_until_gone(child)


def test_what_a_tool_leaves_behind_holds_nothing_up(make_registry: MakeRegistry) -> None:
    """A process of its own that has left the worker's group, as daemons are made by hand."""
    registry = make_registry(BAD)
    left = registry.run(call("leaves_one_behind")).value
    try:
        registry.close()
        os.kill(left, 0)  # it is still there: nobody waited for it
    finally:
        os.kill(left, signal.SIGKILL)


def test_prints_reach_nobody(make_registry: MakeRegistry, capfd: pytest.CaptureFixture[str]) -> None:
    assert make_registry(BAD).run(call("prints")).value == "quiet"
    assert capfd.readouterr() == ("", "")


def test_results_and_arguments_are_typed(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD)
    assert registry.run(call("returns_date")).value == {"d": "2024-02-29", "p": "a/b", "n": "NaN", "3": [1]}
    assert registry.run(call("adds_days", day="2024-02-28", days=2)).value == "2024-03-01"
    registry.run(call("surrogate")).content().encode()


def test_the_tool_sees_the_callers_folder_every_time(
    make_registry: MakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry(BAD)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert registry.run(call("moves")).value == str(tmp_path / name)


@pytest.mark.parametrize("size", [101, 300_000_000])
def test_a_flood_is_cut_before_it_is_sent(make_registry: MakeRegistry, size: int) -> None:
    result = make_registry(BAD, output_limit=100).run(call("floods", characters=size))
    assert (result.ok, result.truncated, result.value) == (True, True, "x" * 100)


def test_a_long_structure_becomes_a_text_prefix() -> None:
    result = ToolRegistry([numbers], ToolSettings(output_limit=100)).run(call("numbers", count=1000))
    assert result.truncated
    assert result.value == str(list(range(1000)))[:100]


@tool
def numbers(count: int) -> list[int]:
    """Count."""
    return list(range(count))


def test_options_reach_the_worker(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD, options={"mine": {"model": "x", "day": "2024-01-01"}})
    assert registry.run(call("options_of", name="mine")).value == {"model": "x", "day": "2024-01-01"}
    assert registry.run(call("options_of", name="other")).value == {}


def test_cancelling_stops_the_tool(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD.replace("timeout_s=1", "timeout_s=60"))
    before = registry.run(call("process")).value
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    check(registry.run(call("hangs"), cancel), "hangs was cancelled; it may or may not have taken effect")
    assert registry.run(call("process")).value != before


def test_closing_the_tools_ends_the_one_that_runs(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD.replace("timeout_s=1", "timeout_s=60"))
    registry.run(call("ping"))
    threading.Timer(0.3, registry.close).start()
    check(registry.run(call("hangs")), "hangs was stopped, as the tools were closed")
    assert registry.run(call("ping")).ok


def test_a_call_that_was_cancelled_before_it_began_does_nothing(make_registry: MakeRegistry) -> None:
    seen: list[str] = []

    @tool
    def note(text: str) -> None:
        """Note it."""
        seen.append(text)

    cancel = threading.Event()
    cancel.set()
    check(ToolRegistry([note]).run(call("note", text="a"), cancel), "note was cancelled before it began")
    check(make_registry(BAD).run(call("ping"), cancel), "ping was cancelled before it began")
    assert seen == []


def test_a_worker_that_died_while_it_waited_fails_no_call(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD)
    process = registry.run(call("process")).value
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert registry.run(call("ping")).value == "pong"


def test_no_time_limit_is_a_limit_too(make_registry: MakeRegistry) -> None:
    assert make_registry(BAD, timeout_s=float("inf")).run(call("ping")).value == "pong"


def test_two_threads_share_the_worker(make_registry: MakeRegistry) -> None:
    registry = make_registry(BAD)
    words = [f"word {n}" for n in range(8)]
    answers: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda w=w: answers.update({w: registry.run(call("ping", word=w)).value}))
        for w in words
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {word: word for word in words}


def test_an_interrupt_of_the_program_propagates_and_stops_the_tool(
    make_registry: MakeRegistry, tmp_path: Path
) -> None:
    make_registry(BAD.replace("timeout_s=1", "timeout_s=60"))
    script = f"""
        import signal, threading, os, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
        from pathlib import Path
        from agentkit.messages import ToolCall
        from agentkit.tooling.registry import ToolRegistry, load_tools
        registry = ToolRegistry(load_tools(Path({str(tmp_path / "tools0")!r})))
        print(registry.run(ToolCall("1", "process", {{}})).value, flush=True)
        try:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            registry.run(ToolCall("1", "hangs", {{}}))
        except KeyboardInterrupt:
            print("interrupted", len(registry._sandbox._workers))
    """
    done = run_python(script)
    worker, answer = done.stdout.splitlines()
    assert answer == "interrupted 0"
    wait_until_gone(int(worker))


@pytest.mark.parametrize("how", ["sys.exit()", "os.kill(os.getpid(), 9)"])
def test_the_worker_ends_with_the_program(make_registry: MakeRegistry, tmp_path: Path, how: str) -> None:
    make_registry(BAD)
    script = f"""
        import os, sys
        from pathlib import Path
        from agentkit.messages import ToolCall
        from agentkit.tooling.registry import ToolRegistry, load_tools
        registry = ToolRegistry(load_tools(Path({str(tmp_path / "tools0")!r})))
        print(registry.run(ToolCall("1", "process", {{}})).value, flush=True)
        {how}
    """
    wait_until_gone(int(run_python(script).stdout))


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


# --- callables of the running program -----------------------------------------------------------------


def test_a_closure_runs_in_this_process_under_the_same_limits() -> None:
    seen: list[str] = []

    @tool(output_limit=100)
    def note(text: str) -> Any:
        """Note it."""
        seen.append(text)
        return np.float32(0.5) if text == "number" else "x" * 200

    @tool(timeout_s=0.3)
    def waits() -> str:
        """Wait."""
        release.wait(20)
        return "late"

    release = threading.Event()
    with ToolRegistry([note, waits]) as registry:
        assert registry.run(call("note", text="number")).value == 0.5
        assert registry.run(call("note", text="long")).truncated
        check(registry.run(call("waits")), "waits took longer than 0.3 s and was abandoned")
        cancel = threading.Event()
        threading.Timer(0.1, cancel.set).start()
        check(
            registry.run(call("waits"), cancel),
            "waits was cancelled and abandoned: it runs inside this process",
        )
        release.set()
    assert seen == ["number", "long"]


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), MemoryError("big"), RecursionError()])
def test_a_closure_that_raises(error: BaseException) -> None:
    @tool
    def fails() -> str:
        """Fail."""
        raise error

    check(ToolRegistry([fails]).run(call("fails")), type(error).__name__)


def test_options_of_a_closure_are_those_of_its_registry() -> None:
    @tool
    def mine() -> dict[str, Any]:
        """Options."""
        return tool_options("mine")

    set_options({"mine": {"from": "process"}})
    try:
        assert ToolRegistry([mine], ToolSettings(options={"mine": {"a": 1}})).run(call("mine")).value == {
            "a": 1
        }
        assert tool_options("mine") == {"from": "process"}
    finally:
        set_options({})


def test_plain_functions_become_tools_and_schemas_stay_schemas() -> None:
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    registry = ToolRegistry([shout, Tool.from_schema({"name": "far"})])
    assert [spec.name for spec in registry.specs()] == ["shout", "far"]
    assert registry.run(call("shout", text="a")).value == "A"
    check(registry.run(call("far")), "only a schema")


def test_a_json_module_in_the_users_folder_is_not_imported(
    make_registry: MakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert make_registry(BAD).run(call("ping")).value == "pong"
