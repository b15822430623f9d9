"""`agentkit finetune` on the real project, without training anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agentkit.cli.main import run
from agentkit.settings import data_dir
from agentkit.training import adapters


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An adapter on disk, as a job leaves it."""
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    made = adapters.Adapter(
        "tone",
        Path(),
        "smollm2-135m",
        "chats.jsonl",
        "0" * 64,
        12,
        0,
        0,
        3,
        9,
        0.5,
        2.25,
        1.5,
        10.0,
        "2026",
        "0",
    )
    folder = data_dir() / "adapters"

    def write(stage: Path) -> None:
        (stage / "adapter_config.json").write_text("{}", encoding="utf-8")
        (stage / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")

    adapters.add(folder, made, write, stage=folder / ".stage")
    return made.name


def test_adapters_are_listed_used_and_unused(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["finetune", "list"]) == 0
    assert capsys.readouterr().out == "tone  smollm2-135m  12 chats  loss 2.250 → 1.500\n"
    assert run(["finetune", "use", adapter]) == 0
    assert capsys.readouterr().out == "smollm2-135m now runs with tone\n"
    assert run(["finetune", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["in_use"]) == ("tone", True)
    assert run(["finetune", "unuse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["before"] == "tone"


def test_the_shipped_adapter_takes_the_place_of_one_that_goes(
    adapter: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> dict[str, str]:
        run(["doctor", "--json"])
        checks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return next(check for check in checks if check["name"] == "adapter")

    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    assert told()["detail"] == "none for smollm2-135m"
    shutil.copytree(data_dir() / "adapters" / adapter, adapters.SHIPPED / "smollm2-135m")
    assert told()["detail"].startswith("shipped for smollm2-135m, beside the weights")
    run(["finetune", "use", adapter])
    capsys.readouterr()
    assert run(["finetune", "unuse"]) == 0
    out = capsys.readouterr().out
    assert out == "smollm2-135m now runs without tone, with the adapter that comes with agentkit\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("use", "tune"), "no adapter is called 'tune'; did you mean tone?"),
        (("cancel", "x"), "there is no job 'x'"),
        (("status", "x"), "there is no job 'x'"),
        (("start", "/none.jsonl"), "no such file: /none.jsonl"),
        (("evaluate",), "No such command 'evaluate'"),
    ],
)
def test_mistakes(
    adapter: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert run(["finetune", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
