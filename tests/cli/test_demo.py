"""The demo is what a newcomer sees first: the whole of agentkit, on the embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.cli import demo
from agentkit.errors import AgentkitError

OFFLINE = """
import os, socket, sys

def told(event, arguments):
    if event == "import":
        return
    asks = event in ("socket.getaddrinfo", "socket.gethostbyname")
    if asks or event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        with open(os.environ["NETWORK_LOG"], "a") as log:
            print("asked for", arguments if asks else arguments[1], file=log)
        raise OSError("this test has no network")

sys.addaudithook(told)
with open(os.environ["NETWORK_LOG"], "a") as log:
    print("watched", file=log)
"""
"""A ``sitecustomize`` that writes down whatever a process asks of the network, and refuses it."""


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that is watched; it is not told to keep off the hub."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(OFFLINE)
    watched = {"PYTHONPATH": str(tmp_path / "watch"), "NETWORK_LOG": str(tmp_path / "network.log")}
    return {**{key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}, **watched}


def asked_for(offline: dict[str, str]) -> list[str]:
    """What processes asked of the network."""
    lines = Path(offline["NETWORK_LOG"]).read_text().splitlines()
    assert "watched" in lines
    return [line for line in lines if line != "watched"]


def test_what_asks_for_the_network_is_noticed(offline: dict[str, str]) -> None:
    code = "import socket; socket.create_connection(('localhost', 9))"
    run = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, check=False)
    assert b"this test has no network" in run.stderr
    assert len(asked_for(offline)) == 1


def test_every_step_does_its_job_without_the_network(tmp_path: Path, offline: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "agentkit", "demo", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**offline, "AGENTKIT_DATA_DIR": str(tmp_path / "data")},
        check=False,
        timeout=600,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, [line for line in lines if line.get("problem")] or run.stderr[-2000:]
    assert lines[-1]["type"] == "demo_done"
    assert lines[-1]["failed"] == 0
    # Only the translation may be left out, where its Debian package is missing.
    assert lines[-1]["done"] >= 11
    assert lines[-1]["done"] + lines[-1]["skipped"] == 12
    assert asked_for(offline) == []


def test_the_transcript_is_styled_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "has_colours", lambda stream: True)
    player = demo.Player(as_json=False)
    player._customer(demo.SCRIPT[0])
    player._note("foreign \x1b[31mtext")
    shown = capsys.readouterr().out
    assert "\x1b[1mCustomer\x1b[0m  Hello! Who are you?" in shown
    assert "\x1b[2m          foreign text\x1b[0m\n" in shown


def test_relative_paths_hold_in_the_folder_of_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "tuned", "smollm2-135m"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", "cache")
    monkeypatch.setenv("AGENTKIT_MODEL", "mine")
    monkeypatch.setenv("AGENTKIT_ADAPTER", "auto")
    options = demo._rooted({"model": "smollm2-135m", "adapter": "./tuned", "quantize": "mine"})
    assert options == {"model": "smollm2-135m", "adapter": str(tmp_path / "tuned"), "quantize": "mine"}
    assert os.environ["AGENTKIT_CACHE_DIR"] == str(tmp_path / "cache")
    assert os.environ["AGENTKIT_MODEL"] == str(tmp_path / "mine")
    assert os.environ["AGENTKIT_ADAPTER"] == "auto"


def test_without_scikit_learn_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    with pytest.raises(AgentkitError, match="pip install scikit-learn"):
        demo._files(tmp_path)
