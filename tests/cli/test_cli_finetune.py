"""`agentkit finetune` on the real project, without training anything."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from agentkit.build import open_project
from agentkit.cli.main import run
from agentkit.messages import Message
from agentkit.settings import data_dir
from agentkit.training import adapters, jobs
from agentkit.training.process import Process
from agentkit.training.table import job_table


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
    assert capsys.readouterr().out == "tone  smollm2-135m  12 chats  loss 2.250 → 1.500  not evaluated\n"
    assert run(["finetune", "use", adapter, "--force"]) == 0
    told = "smollm2-135m now runs with tone, by force: tone has not been evaluated yet\n"
    assert capsys.readouterr().out == told
    assert run(["finetune", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["in_use"], listed["gate"]) == ("tone", True, "not evaluated")
    assert run(["finetune", "unuse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["before"] == "tone"


def write_chats(path: Path, count: int) -> None:
    chats = [
        [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Answer {n}."}]
        for n in range(count)
    ]
    text = "".join(json.dumps({"messages": messages}) + "\n" for messages in chats)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def held(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are entered, but no process works at them."""
    monkeypatch.setattr(jobs, "launch", lambda folder, log: Process.of(os.getpid()))


def test_options_win_over_the_settings_file(
    held: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_chats(tmp_path / "chats.jsonl", 12)
    (tmp_path / "s.toml").write_text("rank = 8\nlearning_rate = 0.5\nweight_decay = 0.1", encoding="utf-8")
    options = ["--lr", "0.01", "--method", "dora", "--seed", "7", "--max-length", "64", "--patience", "2"]
    assert run(["finetune", "start", "chats.jsonl", "--settings", "s.toml", *options]) == 0
    out, err = capsys.readouterr()
    id, name, *state = out.split()
    assert (name, state) == ("chats", ["about", "to", "start"])
    assert err.splitlines() == [
        "12 chats: 10 train, 1 validation, 1 test",
        f"follow it with `agentkit finetune status {id}`",
    ]
    (folder,) = data_dir().glob(f"**/jobs/{id}")
    kept = json.loads((folder / "settings.json").read_text())
    assert {key: kept[key] for key in ("rank", "learning_rate", "weight_decay", "method", "seed", "max_length")} == {
        "rank": 8, "learning_rate": 0.01, "weight_decay": 0.1, "method": "dora", "seed": 7, "max_length": 64,
    }  # fmt: skip
    assert (kept["patience"], kept["epochs"]) == (2, 3)

    again = [
        "finetune",
        "start",
        "chats.jsonl",
        "--settings",
        str(folder / "settings.json"),
        "--name",
        "again",
    ]
    assert kept["keep_personal_data"] is False
    assert run([*again, "--keep-personal-data", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert (job["name"], job["ahead"]) == ("again", 1)
    (other,) = data_dir().glob(f"**/jobs/{job['id']}")
    assert json.loads((other / "settings.json").read_text()) == {
        **kept,
        "name": "again",
        "keep_personal_data": True,
    }
    assert run(["finetune", "cancel", id]) == 0
    assert run(["finetune", "resume", id]) == 2
    assert "was cancelled, and what it had learned is gone" in capsys.readouterr().err


def test_settings_of_running_a_model_stand_in_no_ones_way(
    held: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chats(tmp_path / "chats.jsonl", 2)
    monkeypatch.setenv("AGENTKIT_ADAPTER", "none")
    monkeypatch.setenv("AGENTKIT_QUANTIZE", "int8")
    assert run(["finetune", "start", "chats.jsonl"]) == 0


def test_sessions_are_learned_from(held: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_project() as workspace:
        for n in range(3):
            session = workspace.store.create()
            session.append(Message("user", f"Question {n}, I am ada@mail.example"))
            session.append(Message("assistant", f"Answer {n}."))
            session.rate("good" if n else "bad")
    assert run(["finetune", "start", "--rated", "good", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert job["name"] == "sessions"
    assert job["report"] == "2 chats: 2 train; personal data replaced: 2 EMAIL"
    lines = (Path(job["folder"]) / "data.jsonl").read_text().splitlines()
    assert ["[EMAIL_1]" in line for line in lines] == [True, True]
    assert json.loads(lines[0])["describe_tools"] is False
    assert run(["finetune", "start", "--sessions", "--keep-personal-data", "--name", "all", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert (Path(job["folder"]) / "data.jsonl").read_text().count("ada@mail.example") == 3


def test_the_state_of_a_job_with_its_curve(
    held: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_chats(tmp_path / "chats.jsonl", 12)
    assert run(["finetune", "start", "chats.jsonl", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    steps = [
        {"step": n, "steps": 400, "epoch": 1, "loss": 4 / n, "val_loss": None, "eta_s": 125.0}
        for n in (1, 2, 3)
    ]
    text = "".join(json.dumps(step) + "\n" for step in steps)
    (Path(job["folder"]) / "progress.jsonl").write_text(text)
    with job_table(Path(job["folder"]).parent) as table:
        assert table.run(job["id"], Process.of(os.getpid())) == "now"
    assert run(["finetune", "status", "chats", "--plot", "curves.png"]) == 0
    out, err = capsys.readouterr()
    first, blank, heading, *curve = out.splitlines()
    assert first == f"{job['id']}  chats  running, step 3 of 400, loss 1.333, 2 min left"
    assert (blank, heading) == ("", "loss, steps 1 to 3, nats per token")
    assert [line.split()[0] for line in (curve[0], curve[-1])] == ["4.000", "1.333"]
    assert "drawn into curves.png" in err
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert run(["finetune", "status", "--json"]) == 0
    assert [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()] == [3]


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
    run(["finetune", "use", adapter, "--force"])
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
        (("resume", "x"), "there is no job 'x'"),
        (("start", "/none.jsonl"), "no such file: /none.jsonl"),
        (("start",), "there is nothing to learn from; name a file of examples, or use --sessions"),
        (("start", "a.jsonl", "--sessions"), "DATA and --sessions name two sources"),
        (("start", "a.jsonl", "--rated", "good"), "DATA and --rated name two sources"),
        (("start", "--sessions"), "there are no sessions"),
        (("start", "--rated", "great"), "unknown rating 'great'"),
        (("start", "--since", "yesterday"), "'yesterday' is no day"),
        (("start", "--session", "nobody"), "no session 'nobody'"),
        (("start", "chats.jsonl", "--settings", "none.toml"), "cannot read none.toml: No such file"),
        (("start", "chats.jsonl", "--settings", "bad.toml"), "bad.toml: 'device' is no setting of a file"),
        (("start", "chats.jsonl", "--settings", "odd.toml"), "training setting 'steps': Extra inputs"),
        (
            ("start", "chats.jsonl", "--settings", "all.toml"),
            "validation and test leave no example to learn from",
        ),
        (
            ("start", "chats.jsonl", "--optimizer", "adam"),
            "training setting 'optimizer': Input should be 'adamw' or",
        ),
        (("start", "chats.jsonl", "--rank", "0"), "training setting 'rank'"),
        (("start", "chats.jsonl", "--start", "tune"), "no adapter is called 'tune'; did you mean tone?"),
        (("start", "chats.jsonl", "--start", ""), "is no adapter: it has no adapter_config.json"),
        (("start", "chats.jsonl", "--start", "shipped"), "no adapter for smollm2-135m comes with agentkit"),
        (("start", "chats.jsonl", "--adapter", "tone"), "says nothing about training; use --start tone"),
        (("start", "chats.jsonl", "--quantize", "nf4"), "use --method qlora for a base of nf4 weights"),
        (("start", "one.jsonl"), "one.jsonl: 1 usable chat in 1; at least 2 different chats are needed"),
        (("status", "--plot", "a.png"), "--plot needs a job"),
        (("evaluate",), "Missing argument 'NAME'"),
    ],
)
def test_mistakes(
    adapter: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    write_chats(tmp_path / "chats.jsonl", 12)
    write_chats(tmp_path / "one.jsonl", 1)
    for name, text in (
        ("bad.toml", 'device = "cpu"'),
        ("odd.toml", "steps = 3"),
        ("all.toml", "validation = 0.5\ntest = 0.5"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert run(["finetune", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_an_adapter_that_is_damaged_is_not_begun_from(
    adapter: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_chats(tmp_path / "chats.jsonl", 12)
    assert run(["finetune", "start", "chats.jsonl", "--start", adapter]) == 1
    error = capsys.readouterr().err
    assert "adapter 'tone' is damaged: adapter_config.json has no usable rank" in error
    assert len(error.splitlines()) == 1
