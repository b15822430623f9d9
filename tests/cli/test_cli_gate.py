"""`agentkit finetune evaluate` and `use`: what the gate's verdict leads to. What the two answered is made up here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit import gate
from agentkit.build import open_project
from agentkit.cli.main import run
from agentkit.evaluation.suite import Scores
from agentkit.gate import Side
from agentkit.settings import data_dir
from agentkit.training import adapters
from agentkit.training.gate import FILE

CARD = {"base": "smollm2-135m", "data": "chats.jsonl", "data_sha256": "ab", "examples": 24, "duplicates": 0, "cut": 0,
        "epochs": 1, "steps": 6, "train_loss": 1.0, "loss_before": 2.0, "loss_after": 1.0, "seconds": 1.0,
        "created": "2025-01-01T00:00:00+00:00", "version": "0.1.0"}  # fmt: skip
WEIGHTS = (2).to_bytes(8, "little") + b"{}"


def put(folder: Path, name: str, base: str = "smollm2-135m") -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "agentkit.json").write_text(json.dumps(CARD | {"base": base}), encoding="utf-8")
    (path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (path / "adapter_model.safetensors").write_bytes(WEIGHTS)
    (path / adapters.HELD_OUT).write_text("{}\n", encoding="utf-8")
    return path


class Measured:
    """Stands in for the minutes of measuring: how many of 60 cases the adapter gets right, where the base gets 50."""

    def __init__(self) -> None:
        self.right = 50
        self.calls: list[tuple[str, int]] = []
        self.base_problems: dict[str, str] = {}

    def __call__(self, settings: Any, adapter: Any, limit: int, progress: Callable[[str], None]) -> Any:
        progress("routing 1 of 60")
        self.calls.append((adapter.name, limit))
        base, own = (
            Side(
                {
                    name: Scores(name, 60, {"x": right / 60}, {str(n): n < right for n in range(60)}, {}, [])
                    for name in (gate.ROUTING, gate.ANSWERS, gate.CALLS)
                },
                [(10.0, 5)] * 6,
            )
            for right in (50, self.right)
        )
        base.problems |= self.base_problems
        return base, own, {"device": "cpu"}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(gate, "_measure", made)
    return made


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    monkeypatch.chdir(tmp_path)
    return put(data_dir() / "adapters", "shop")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["finetune", *arguments])
        return code, *capsys.readouterr()

    return call


def in_use() -> adapters.Use | None:
    return adapters.use_of(data_dir() / "adapters", "smollm2-135m")


def test_an_adapter_that_keeps_up_comes_into_use(shop: Path, measured: Measured, cli: Any) -> None:
    code, out, err = cli("evaluate", "shop")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [
        ["held-out", "chats,"],
        ["routing,", "right"],
    ]
    assert out.splitlines()[-1] == "shop passed"
    assert "this takes minutes" in err
    assert cli("list")[1].split() == [
        "shop",
        "smollm2-135m",
        "24",
        "chats",
        "loss",
        "2.000",
        "→",
        "1.000",
        "passed",
    ]
    assert cli("use", "shop") == (0, "smollm2-135m now runs with shop\n", "")
    assert measured.calls == [("shop", gate.LIMIT)]
    assert in_use() == adapters.Use("shop")
    assert json.loads((shop.parent / adapters.IN_USE).read_text()) == {"smollm2-135m": "shop"}
    listed = json.loads(cli("list", "--json")[1])
    assert (listed["in_use"], listed["forced"], listed["gate"]) == (True, None, "passed")


def test_use_evaluates_first_where_nobody_has(shop: Path, measured: Measured, cli: Any) -> None:
    assert cli("list")[1].rstrip().endswith("not evaluated")
    code, out, err = cli("use", "shop", "--json")
    assert (code, json.loads(out)) == (0, {"in_use": "shop", "model": "smollm2-135m", "forced": None})
    assert err.startswith("shop has not been evaluated yet\n")
    assert "routing: as good, 83.3% → 83.3% (+0.0 points)" in err
    assert measured.calls == [("shop", gate.LIMIT)]


def test_an_adapter_that_falls_behind_is_refused_unless_forced(
    shop: Path, measured: Measured, cli: Any
) -> None:
    measured.right = 30
    code, out, err = cli("evaluate", "shop", "--json")
    body = json.loads(out)
    assert (code, body["passed"]) == (1, False)
    assert {part["name"]: part["verdict"] for part in body["parts"]} == {
        "held-out chats": "match", "routing": "worse", "answers": "worse", "tool calls": "worse"}  # fmt: skip
    code, out, err = cli("use", "shop")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert (
        "shop falls behind what runs without it: routing 83.3% → 50.0% (-33.3 points), 0 better, 20 worse"
        in err
    )
    assert "force it with `agentkit finetune use shop --force`" in err
    assert in_use() is None
    code, out, _ = cli("use", "shop", "--force")
    assert code == 0
    assert out.startswith("smollm2-135m now runs with shop, by force: routing 83.3% → 50.0%")
    found = in_use()
    assert found is not None
    assert found.forced.startswith("20")
    assert "in use by force: routing 83.3% → 50.0%" in cli("list")[1]
    assert len(measured.calls) == 1
    assert cli("unuse")[0] == 0
    assert in_use() is None


def test_force_asks_nothing_and_says_so(shop: Path, measured: Measured, cli: Any) -> None:
    code, out, _ = cli("use", "shop", "--force")
    assert (code, out) == (0, "smollm2-135m now runs with shop, by force: shop has not been evaluated yet\n")
    assert measured.calls == []
    assert cli("use", "shop")[0] == 0  # it passes, and the force is forgotten
    assert in_use() == adapters.Use("shop")
    assert cli("use", "shop", "--force")[1] == "smollm2-135m now runs with shop\n"  # nothing had to be forced


def test_a_report_that_no_longer_counts_is_made_anew(shop: Path, measured: Measured, cli: Any) -> None:
    assert cli("evaluate", "shop", "--limit", "5")[0] == 0
    assert cli("list")[1].rstrip().endswith("outdated")
    _, _, err = cli("use", "shop")
    assert "no longer counts: it looked at 5 cases of a suite, and 60 are needed" in err
    assert [limit for _, limit in measured.calls] == [5, 60]
    (shop / "adapter_model.safetensors").write_bytes((4).to_bytes(8, "little") + b"{}  ")
    assert "no longer counts: the adapter has changed" in cli("use", "shop")[2]
    (shop / adapters.HELD_OUT).write_text("{}\n{}\n", encoding="utf-8")
    assert "no longer counts: the held-out chats have changed" in cli("use", "shop")[2]
    put(adapters.SHIPPED, "smollm2-135m")
    assert "no longer counts: the adapter that comes with agentkit has changed" in cli("use", "shop")[2]
    (shop / FILE).write_text("{", encoding="utf-8")
    code, _, err = cli("use", "shop")
    assert (code, f"{FILE} cannot be read" in err) == (0, True)
    assert len(measured.calls) == 6
    assert cli("use", "shop")[2] == ""


def test_a_change_while_it_is_measured(shop: Path, measured: Measured, cli: Any) -> None:
    inner = measured.__call__

    def change(*arguments: Any) -> Any:
        (shop / "adapter_config.json").write_text('{"r": 1}', encoding="utf-8")
        return inner(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_measure", change)
        code, _, err = cli("evaluate", "shop")
    assert (code, "changed meanwhile; evaluate it again" in err) == (1, True)
    assert not (shop / FILE).exists()


def test_what_cannot_be_compared_is_said(shop: Path, measured: Measured, cli: Any) -> None:
    (shop / adapters.HELD_OUT).unlink()
    (shop / "data.json").write_text('{"found": 8, "duplicates": 0, "splits": {"train": 8, "test": 0}}')
    measured.base_problems = {gate.CALLS: "the model cannot call tools"}
    code, out, _ = cli("evaluate", "shop")
    assert code == 0
    assert "none: no chat was held out of the training, which takes ten or more" in out
    assert "the model cannot call tools" in out
    assert out.count("not run") == 2
    (shop / "data.json").write_text('{"found": 30, "duplicates": 0, "splits": {"train": 30, "test": 0}}')
    code, out, _ = cli("evaluate", "shop")
    assert "none: no chat was held out of the training, as its settings or its data say" in out
    measured.base_problems = dict.fromkeys((gate.ROUTING, gate.ANSWERS, gate.CALLS), "out of order")
    code, out, _ = cli("evaluate", "shop")
    assert code == 1
    assert "did not pass: nothing could be compared" in out


def test_another_base_is_judged_and_used_for_itself(shop: Path, measured: Measured, cli: Any) -> None:
    put(shop.parent, "big", base="org/big")
    assert cli("use", "big")[1] == "org/big now runs with big\n"
    assert in_use() is None


@pytest.mark.parametrize("command", ["evaluate", "use"])
def test_mistakes(shop: Path, measured: Measured, cli: Any, command: str) -> None:
    code, _, err = cli(command, "shopp")
    assert (code, "no adapter is called 'shopp'; did you mean shop?" in err) == (2, True)
    assert cli(command, "../shop")[0] == 2
    (shop / "adapter_model.safetensors").write_bytes(WEIGHTS[:-1])
    code, _, err = cli(command, "shop")
    assert (code, "adapter 'shop' is damaged" in err.splitlines()[-1]) == (1, True)
    (shop / "adapter_model.safetensors").unlink()
    assert cli(command, "shop")[0] == 1
    assert cli("use", "shop", "--force")[0] == 1
    assert in_use() is None
    assert cli("evaluate", "shop", "--limit", "0")[0] == 2


def test_nothing_but_the_gate_puts_an_adapter_into_use() -> None:
    package = Path(gate.__file__).parent
    callers = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"(?<!_)adapters\.use\(", path.read_text(encoding="utf-8"))
    ]
    assert callers == ["gate.py"]


def test_doctor_tells_of_force(shop: Path, measured: Measured, cli: Any) -> None:
    from agentkit.cli.common import Common
    from agentkit.cli.doctor import _adapter

    (shop / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}),
        encoding="utf-8",
    )
    assert cli("use", "shop", "--force")[0] == 0
    with open_project() as workspace:
        assert workspace.settings.model == "smollm2-135m"
    assert "in use by force since 20" in _adapter(Common()).detail
