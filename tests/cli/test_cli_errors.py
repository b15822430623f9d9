"""Every mistake is one line that names cause and remedy, with the right exit code, and stdout stays empty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import Cli

from agentkit.errors import ModelError

REPOSITORY = Path(__file__).resolve().parents[2]
MAIN = [sys.executable, "-m", "agentkit.cli.main"]


def environ() -> dict[str, str]:
    """That of the test: what its fixtures have set is not there yet when this module is imported."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nope",), "No such command 'nope'; see `agentkit --help`"),
        (("tool",), "Did you mean 'tools'?"),
        (("tools",), "Missing command; see `agentkit tools --help`"),
        (("sessions", "fork"), "Missing argument 'ID'; see `agentkit sessions fork --help`"),
        (("--seed", "x", "ask", "hi"), "--seed"),
        (("ask", "hi", "--quantize", "bad"), "option --quantize"),
        (("ask", "hi", "--nope"), "No such option: --nope"),
        (("ask", ""), "the question is empty; ask something"),
        (("ask", " \n\t"), "the question is empty; ask something"),
        (("ask",), "the question is empty; ask something"),
        (("ask", "hi", "--image", "none.png"), "--image none.png: no such file"),
        (("ask", "hi", "--approve", "some"), "--approve some: unknown choice; use all or none"),
        (("ask", "hi", "--tool-choice", "shuot"), "no tool is called 'shuot'; did you mean shout?"),
        (("ask", "hi", "--session", "x"), "no session 'x'; start one"),
        (("chat", "--session", "x"), "no session 'x'; start one"),
        (("ask", "hi", "--project", "/none"), "--project: /none is not a folder; make a project there"),
        (("tools", "show", "x"), "no tool is called 'x'"),
        (("tools", "call", "shout", "{"), "the arguments are not JSON"),
        (("tools", "call", "shout", "[1]"), "the arguments are list, not an object"),
        (("tools", "call", "shout", "{}"), "text"),
        (("tools", "call", "shout", '{"text": "a", "loud": 1}'), "loud"),
        (("tools", "call", "send", '{"to": "Rome"}'), "was not approved; add --approve all"),
        (("sessions", "show", "x"), "no session 'x'"),
        (("models", "pull", "x"), "no embedded model is called 'x'; known: "),
        (("init",), "Missing argument 'DIR'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    assert cli(*arguments) == 2
    assert cli.err.startswith("agentkit: ")
    assert told in cli.err
    assert len(cli.err.splitlines()) == 1
    assert cli.out == ""


def test_a_failure_while_running_is_exit_1(cli: Cli) -> None:
    cli.steps = [ModelError("decoding failed", "try a smaller model")]
    assert cli("ask", "hi") == 1
    assert cli.err == "agentkit: decoding failed; try a smaller model\n"
    assert cli.out == ""


def test_an_unexpected_error_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*arguments: object) -> None:
        raise TypeError("a\x1b[31m bug\nin two lines")

    monkeypatch.setattr("agentkit.build.open_project", bug)
    assert cli("tools", "list") == 1
    assert cli.err == "agentkit: unexpected TypeError: a bug in two lines; run again with --debug\n"
    assert cli("tools", "list", "--debug") == 1
    assert "Traceback (most recent call last)" in cli.err
    assert cli.err.splitlines()[-1].startswith("agentkit: unexpected TypeError")


def test_a_traceback_is_shown_of_errors_that_are_told_too(cli: Cli) -> None:
    assert cli("sessions", "show", "nope") == 2
    (told,) = cli.err.splitlines()
    assert cli("sessions", "show", "nope", "--debug") == 2
    assert "Traceback (most recent call last)" in cli.err
    assert cli.err.splitlines()[-1] == told


def test_broken_settings_name_the_file(cli: Cli) -> None:
    (cli.folder / "agentkit.toml").write_text("model = ")
    assert cli("tools", "list") == 2
    assert f"cannot read {cli.folder / 'agentkit.toml'}" in cli.err


def test_a_corrupt_session_database_is_told_and_kept(cli: Cli) -> None:
    cli.steps = ["Hello."]
    cli("ask", "hi")
    path = next((cli.folder / "data").rglob("sessions.sqlite"))
    for log in path.parent.glob("sessions.sqlite-*"):
        log.unlink()
    path.write_bytes(b"not a database" * 1000)
    assert cli("sessions", "list") == 1
    assert "is damaged" in cli.err
    assert len(cli.err.splitlines()) == 1
    assert path.read_bytes().startswith(b"not a database")


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom agentkit.cli.main import run\ncode = run(['--help'])\n"
        "heavy = {'rich', 'torch', 'textual', 'pydantic', 'transformers', 'numpy', 'asyncio', 'sqlite3'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))\nsys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ(), check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("LOADED\n")
    for command in (
        "demo",
        "chat",
        "ask",
        "tools",
        "knowledge",
        "sessions",
        "finetune",
        "models",
        "init",
        "doctor",
    ):
        assert f"\n  {command} " in run.stdout


@pytest.mark.parametrize(
    "group", ["chat", "ask", "tools", "knowledge", "sessions", "finetune", "models", "init", "doctor"]
)
def test_every_command_has_help(cli: Cli, group: str) -> None:
    assert cli(group, "--help") == 0
    assert "--project DIR" in cli.out
    assert cli.err == ""


@pytest.mark.parametrize("arguments", [("--version",), ("tools", "list", "--version")])
def test_version(cli: Cli, arguments: tuple[str, ...]) -> None:
    from agentkit.__about__ import __version__

    assert cli(*arguments) == 0
    assert cli.out == f"agentkit {__version__}\n"


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("ask <&-", 2, "the question is empty"),
        ("tools call word_count - <&-", 2, "the arguments are not JSON"),
        ("models list --json >&-", 0, ""),
        ("models list --json 2>&-", 0, ""),
        ("nope 2>&-", 2, ""),
    ],
)
def test_closed_streams_are_no_crash(tmp_path: Path, command: str, code: int, told: str) -> None:
    tool = "from agentkit import tool\n\n\n@tool\ndef word_count(text: str) -> int:\n    'Count.'\n    return 1\n"
    (tmp_path / "agentkit.toml").write_text("")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "word_count.py").write_text(tool)
    run = subprocess.run(
        ["bash", "-c", f"{' '.join(MAIN)} {command}"],
        capture_output=True, text=True, env={**environ(), "AGENTKIT_DATA_DIR": str(tmp_path / "data")},
        cwd=tmp_path, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_arguments_from_stdin_are_utf_8(cli: Cli) -> None:
    assert cli("tools", "call", "shout", "-", stdin=b'{"text": "caf\xc3\xa9 \xff"}') == 0
    assert "CAF\u00c9 \ufffd" in cli.out


def test_a_closed_pipe_is_quiet() -> None:
    shell = f"{' '.join(MAIN)} models list --json | true"
    run = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env=environ(), check=False, timeout=60
    )
    assert run.stderr == ""


def test_a_data_folder_that_cannot_be_made_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_DATA_DIR", "/dev/null/x")
    assert cli("sessions", "list") == 1
    assert "unexpected" not in cli.err
    assert "set AGENTKIT_DATA_DIR to one you can write to" in cli.err


def test_demo_takes_no_project(cli: Cli) -> None:
    assert cli("demo", "--project", "/none") == 2
    assert "demo plays in the starter project; leave --project out" in cli.err
