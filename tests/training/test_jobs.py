"""Real jobs in real processes, on a tiny model."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentkit.assets import asset_path
from agentkit.engine.weights import load_weights
from agentkit.errors import NotFoundError, UsageError
from agentkit.training import job as job_module
from agentkit.training import jobs, loop, worker
from agentkit.training.adapters import get_adapter, list_adapters
from agentkit.training.data import load_chats
from agentkit.training.job import read_progress, view
from agentkit.training.jobs import Job, cancel, get_job, list_jobs, resume, start, wait
from agentkit.training.process import WORKER, Process, working
from agentkit.training.report import read_report
from agentkit.training.table import FILE, Record, job_table

Write = Callable[[Sequence[dict[str, Any]]], Path]
Begin = Callable[..., Job]
LONG = 1000
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": f"Answer {n}."},
        ]
    }
    for n in range(12)
]

# peft 0.21 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def dirs(tmp_path: Path) -> dict[str, Path]:
    return {"jobs_dir": tmp_path / "jobs", "adapters_dir": tmp_path / "adapters"}


@pytest.fixture
def begin(dirs: dict[str, Path], tiny: Path, chats: Write) -> Iterator[Begin]:
    """Starts a job on the tiny model; what still runs at the end of the test is cancelled."""
    data = chats(CHATS)

    def run(**options: Any) -> Job:
        return start(data, **{"model_name": "tiny", "model_source": tiny, **dirs, **options})

    yield run
    for job in list_jobs(dirs["jobs_dir"]):
        if job.active:
            cancel(job)


def until_step(job: Job) -> Job:
    """The job once it has done a step."""
    while job.active and not job.step:
        job = wait(job, timeout=0.1)
    assert job.status == "running", job.log.read_text(encoding="utf-8")
    return job


START_ELSEWHERE = """
import sys
from pathlib import Path
from agentkit.training.jobs import start
data, model, jobs, adapters = map(Path, sys.argv[1:])
job = start(data, model_name="tiny", model_source=model, jobs_dir=jobs, adapters_dir=adapters, epochs=2,
            options={"learning_rate": 0.01, "batch_size": 4})
print(job.id, job.name, job.status, job.epochs, job.adapter)
"""


def test_a_job_outlives_its_starter_and_its_adapter_loads(
    begin: Begin, dirs: dict[str, Path], tiny: Path, tmp_path: Path
) -> None:
    import torch

    arguments = [str(path) for path in (tmp_path / "chats.jsonl", tiny, *dirs.values())]
    command = [sys.executable, "-c", START_ELSEWHERE, *arguments]
    starter = subprocess.run(command, capture_output=True, text=True, check=True)
    (job,) = list_jobs(dirs["jobs_dir"])
    assert starter.stdout.split() == [job.id, "chats", "queued", "2", "None"]
    seen: list[dict[str, Any]] = []
    job = wait(job, on_progress=seen.append)
    assert (job.status, job.error) == ("done", None), job.log.read_text(encoding="utf-8")
    assert [line["step"] for line in seen] == list(range(1, 7))
    assert (job.step, job.steps, job.epoch, job.eta_s) == (6, 6, 2, None)
    assert job.loss == seen[-1]["loss"]

    adapter = get_adapter(dirs["adapters_dir"], "chats")
    assert adapter.path == job.adapter
    assert (adapter.base, adapter.data, adapter.examples, adapter.steps) == ("tiny", "chats.jsonl", 12, 6)
    assert adapter.loss_after is not None
    assert adapter.loss_before is not None
    files = {"adapter_config.json", "adapter_model.safetensors", "agentkit.json", "settings.json"}
    files |= {"data.json", "progress.jsonl", "curves.png", "held_out.jsonl"}
    assert {path.name for path in adapter.path.iterdir()} == files
    held_out = adapter.path / "held_out.jsonl"
    assert [example.split for example in load_chats(held_out)] == ["test"]
    assert held_out.stat().st_mode & 0o777 == 0o600
    config = (adapter.path / "adapter_config.json").read_text(encoding="utf-8")
    assert '"base_model_name_or_path": "tiny"' in config
    assert str(tiny) not in config

    loaded = load_weights(tiny, device="cpu", quantize="none", adapter=adapter.path)
    base, tuned = (loaded.forward_all([1, 2, 3], beside) for beside in (None, loaded.adapter))
    assert not torch.allclose(base, tuned, atol=1e-3)

    with pytest.raises(UsageError, match="there is an adapter 'chats' already"):
        begin(name="chats")
    assert begin(epochs=LONG).name == "chats-2"
    assert [known.name for known in list_jobs(dirs["jobs_dir"])] == ["chats-2", "chats"]


def test_cancelling_leaves_nothing(begin: Begin, dirs: dict[str, Path]) -> None:
    job = until_step(begin(epochs=LONG))
    with pytest.raises(UsageError, match="is already making an adapter 'chats'"):
        begin(name="chats")
    assert cancel(job).status == "cancelled"
    assert list_adapters(dirs["adapters_dir"]) == []
    assert not dirs["adapters_dir"].exists() or not list(dirs["adapters_dir"].iterdir())
    with pytest.raises(UsageError, match="has ended already"):
        cancel(job)
    queued = begin(epochs=LONG, name="other")
    assert cancel(queued).status == "cancelled"


def test_a_killed_worker_has_failed(begin: Begin, dirs: dict[str, Path]) -> None:
    job = until_step(begin(epochs=LONG))
    stage = dirs["adapters_dir"] / f".{job.id}.tmp"
    stage.mkdir(parents=True)
    os.kill(job.pid, signal.SIGKILL)
    job = wait(job)
    assert (job.status, job.eta_s) == ("failed", None)
    assert "ended unexpectedly (killed, out of memory, or the machine went down); go on with" in str(
        job.error
    )
    assert "last log line: step " in str(job.error)
    assert not stage.exists()
    assert get_job(dirs["jobs_dir"], job.id).status == "failed"


def test_a_kill_between_adapter_and_row_loses_nothing(begin: Begin, dirs: dict[str, Path]) -> None:
    job = wait(begin(name="made", epochs=1))
    assert job.status == "done", job.error
    adapter = get_adapter(dirs["adapters_dir"], "made")
    assert adapter.job == job.id

    def died(id: str) -> Job:
        """As if the process had been killed before it could say that it is done."""
        (dirs["jobs_dir"] / id / "checkpoints").mkdir()
        with sqlite3.connect(dirs["jobs_dir"] / FILE) as db:
            db.execute("UPDATE jobs SET status = 'running', started = 0, id = ?", (id,))
        return get_job(dirs["jobs_dir"], id)

    assert died(job.id).status == "done"
    assert not (job.folder / "checkpoints").exists()
    job.folder.rename(job.folder.with_name("other"))  # another job of that name, which did not get so far
    assert died("other").status == "failed"
    assert get_adapter(dirs["adapters_dir"], "made") == adapter


def test_a_name_that_another_project_has_taken_meanwhile_costs_no_result(
    inside: Callable[..., Job],
    begin: Begin,
    dirs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    job = begin(name="tone", epochs=1, jobs_dir=other)
    assert inside(name="tone", epochs=1).status == "done"
    worker.main(job.folder)
    assert "the name 'tone' was taken meanwhile: the result is called 'tone-2'" in capsys.readouterr().out
    job = get_job(other, "tone-2")
    assert (job.status, job.name, job.adapter) == ("done", "tone-2", dirs["adapters_dir"] / "tone-2")
    assert get_adapter(dirs["adapters_dir"], "tone-2").job == job.id
    with sqlite3.connect(other / FILE) as db:  # as if it had been killed before it could say that it is done
        db.execute("UPDATE jobs SET status = 'running', started = 0, name = 'tone'")
    job = get_job(other, job.id)
    assert (job.status, job.name, job.adapter) == ("done", "tone-2", dirs["adapters_dir"] / "tone-2")


def test_a_job_that_stopped_early_is_told_by_its_result(inside: Callable[..., Job]) -> None:
    options = {"patience": 1, "learning_rate": 0.5, "warmup": 0, "schedule": "constant"}
    job = inside(epochs=20, options=options)
    assert job.status == "done", job.error
    measured = [line["val_loss"] for line in read_progress(job.folder) if line["val_loss"] is not None]
    assert job.val_loss == min(measured) != measured[-1]
    assert (job.step < job.steps, job.eta_s) == (True, None)
    assert job.progress().startswith(f"done, step {job.step} of {job.steps}, stopped early, loss ")
    assert job.adapter is not None
    shutil.rmtree(job.adapter)
    assert get_job(job.folder.parent, job.id).val_loss == measured[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is told by the clock")
def test_setting_the_clock_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process.of(os.getpid())
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    assert process.alive()
    assert not Process(process.pid, process.started - 1).alive()


def running(job: Job, steps: int) -> Job:
    """The job once it has done so many steps."""
    while job.active and job.step < steps:
        job = wait(job, timeout=0.05)
    assert job.status == "running", job.log.read_text(encoding="utf-8")
    return job


ROOM = 96 * 1024
"""Enough for the files of a job, too little for a checkpoint of the tiny model."""
EVERY_STEP = {"checkpoint_every_s": 1e-6, "batch_size": 1, "dropout": 0.1}


@pytest.mark.slow
def test_after_a_kill_a_job_goes_on_to_the_same_end(begin: Begin, dirs: dict[str, Path]) -> None:
    whole = wait(begin(name="whole", epochs=20, options=EVERY_STEP))
    assert whole.status == "done", whole.error
    job = begin(name="killed", epochs=20, options=EVERY_STEP)
    for steps in (30, 60):
        job = running(job, steps)
        os.kill(job.pid, signal.SIGKILL)
        assert wait(job).status == "failed"
        with (job.folder / "progress.jsonl").open("ab") as progress:
            progress.write(b'{"step": 6')  # what a kill within a line leaves
        job = resume(job)
    with pytest.raises(UsageError, match="is under way"):
        resume(job)
    seen: list[dict[str, Any]] = []
    job = wait(job, on_progress=seen.append)
    assert job.status == "done", job.error
    assert job.log.read_text(encoding="utf-8").count("going on from ") == 2
    lines = {
        name: (dirs["adapters_dir"] / name / "progress.jsonl").read_text() for name in ("whole", "killed")
    }
    told = [
        [(line["step"], line["loss"], line["val_loss"]) for line in map(json.loads, text.splitlines())]
        for text in lines.values()
    ]
    assert told[0] == told[1]
    assert len(told[0]) == job.steps
    cards = [get_adapter(dirs["adapters_dir"], name) for name in ("whole", "killed")]
    assert (cards[0].loss_after, cards[0].train_loss) == (cards[1].loss_after, cards[1].train_loss)
    assert not (job.folder / "checkpoints").exists()
    with pytest.raises(UsageError, match="is done"):
        resume(job)


def test_a_shutdown_saves_and_a_cancelled_job_is_over(begin: Begin, dirs: dict[str, Path]) -> None:
    job = running(begin(epochs=LONG), 2)
    os.kill(job.pid, signal.SIGTERM)
    job = wait(job)
    assert job.error == f"interrupted; go on with `agentkit finetune resume {job.id}`"
    (checkpoint,) = (job.folder / "checkpoints").iterdir()
    assert checkpoint.name == f"checkpoint-{job.step}"
    job = resume(job)
    other = begin(name="other", epochs=1)
    assert (other.status, other.ahead, other.progress()) == ("queued", 1, "queued behind 1")
    assert running(job, job.step + 1).id == job.id
    cancel(job)
    assert not (job.folder / "checkpoints").exists()
    with pytest.raises(UsageError, match="was cancelled, and what it had learned is gone"):
        resume(job)


def test_one_job_trains_at_a_time_and_the_oldest_is_next(begin: Begin) -> None:
    first = running(begin(name="first", epochs=LONG), 1)
    second, third = (begin(name=name, epochs=1) for name in ("second", "third"))
    assert [job.ahead for job in (first, second, third)] == [0, 1, 2]
    while third.active and "waiting for the jobs before" not in third.log.read_text(encoding="utf-8"):
        third = wait(third, timeout=0.1)
    assert third.active, third.error
    assert cancel(second).status == "cancelled"
    os.kill(first.pid, signal.SIGKILL)  # nobody tells those that wait
    assert wait(third).status == "done"
    assert get_job(first.folder.parent, "first").status == "failed"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are entered, but no process works at them."""
    monkeypatch.setattr(jobs, "launch", lambda folder, log: Process.of(os.getpid()))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Enough of a chat model for a job to be entered."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    return folder


@pytest.fixture
def inside(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """Starts a job and runs its worker in this very process."""
    monkeypatch.setattr(jobs, "launch", lambda folder, log: Process.of(os.getpid()))
    before = signal.getsignal(signal.SIGTERM)

    def run(**options: Any) -> Job:
        job = begin(**options)
        worker.main(job.folder)
        return get_job(job.folder.parent, job.id)

    yield run
    signal.signal(signal.SIGTERM, before)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FULL, "the disk is full (OSError: [Errno 28] No space left on device); free some space, then go on"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/2\nat 0x1"),
            "the disk is full (RuntimeError",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "out of memory (RuntimeError: D",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            "lower batch_size, batch_tokens or max_leng",
        ),
        (MemoryError(), "out of memory (MemoryError); lower batch_size"),
    ],
)
def test_no_room_is_told_in_one_line(
    inside: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    told: str,
    dirs: dict[str, Path],
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(loop, "train", fail)
    job = inside()
    assert job.status == "failed"
    assert told in str(job.error)
    assert "\n" not in str(job.error)
    assert list_adapters(dirs["adapters_dir"]) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_harms_nothing_and_the_job_can_go_on(
    begin: Begin, dirs: dict[str, Path], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=450k", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        done = wait(begin(name="before", epochs=1, adapters_dir=disk / "adapters", jobs_dir=disk / "jobs"))
        assert done.status == "done", done.error
        room = max(0, shutil.disk_usage(disk).free - ROOM)
        (disk / "filler").write_bytes(bytes(room))
        before = {path.name: path.read_bytes() for path in (disk / "adapters" / "before").iterdir()}
        job = wait(
            begin(
                name="full",
                epochs=3,
                options=EVERY_STEP,
                adapters_dir=disk / "adapters",
                jobs_dir=disk / "jobs",
            )
        )
        assert job.status == "failed"
        assert "the disk is full" in str(job.error), job.error
        assert [path.name for path in (disk / "adapters").iterdir()] == ["before"]
        assert {path.name: path.read_bytes() for path in (disk / "adapters" / "before").iterdir()} == before
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        job = wait(resume(job))
        assert job.status == "done", job.error
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_became_of_the_data_is_kept_with_job_and_adapter(
    dirs: dict[str, Path], chats: Write, tiny: Path
) -> None:
    mail = {"role": "user", "content": "I am ada@mail.example"}
    long = {"role": "assistant", "content": "word " * 400}
    answer = {"role": "assistant", "content": "Hello."}
    data = chats([*CHATS, CHATS[0], {"messages": [mail, answer]}, {"messages": [mail, long]}])
    job = start(data, model_name="tiny", model_source=tiny, **dirs, epochs=1, options={"seed": 7})
    assert job.report.startswith("15 chats: ")
    assert b"ada@mail.example" not in (job.folder / "data.jsonl").read_bytes()
    job = wait(job)
    assert job.status == "done", job.error
    adapter = get_adapter(dirs["adapters_dir"], "chats")
    assert (adapter.examples, adapter.duplicates, adapter.cut) == (13, 1, 1)
    report = read_report(adapter.path / "data.json")
    assert (report.found, report.duplicates, report.cut, report.personal) == (15, 1, 1, {"EMAIL": 2})
    assert report.job == job.id
    assert sum(report.splits.values()) == 13
    settings = json.loads((adapter.path / "settings.json").read_text())
    assert (settings["seed"], settings["epochs"], settings["rank"]) == (7, 1, 16)


def test_a_failure_is_one_line_and_the_traceback_is_in_the_log(begin: Begin, tmp_path: Path) -> None:
    job = wait(begin(model_source=tmp_path))
    assert job.status == "failed"
    assert job.error == f"{tmp_path} is no model folder: it has no config.json; name a transformers folder"
    assert "Traceback" in job.log.read_text(encoding="utf-8")
    short = wait(begin(name="short", options={"max_length": 16}))
    assert "none of the 12 examples fits into 16 tokens" in str(short.error)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "No Good"}, {"epochs": 0}, {"options": {"optimizer": "x"}}, {"options": {"rank": "many"}}],
)
def test_wrong_requests_start_nothing(begin: Begin, dirs: dict[str, Path], wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        begin(**wrong)
    assert list_jobs(dirs["jobs_dir"]) == []


def test_bad_data_starts_nothing(dirs: dict[str, Path], chats: Write, tiny: Path) -> None:
    path = chats([CHATS[0], {"messages": [{"role": "robot", "content": "Hi"}]}])
    with pytest.raises(UsageError, match=r"chats\.jsonl, line 2: message 1: unknown message role 'robot'"):
        start(path, model_name="tiny", model_source=tiny, **dirs)
    assert not dirs["jobs_dir"].exists()


def test_jobs_are_found_by_id_beginning_and_name(dirs: dict[str, Path], begin: Begin) -> None:
    folder = dirs["jobs_dir"]
    with pytest.raises(NotFoundError):
        get_job(folder, "chats")
    job = begin(epochs=LONG)
    cancel(job)
    assert get_job(folder, job.id).id == get_job(folder, job.id[:-1]).id == get_job(folder, "chats").id
    for id in ("", "nothing"):
        with pytest.raises(NotFoundError):
            get_job(folder, id)


def test_only_the_job_that_is_asked_for_is_read(
    dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(record: Record, folder: Path, ahead: int = 0) -> Job:
        read.append(record.id)
        return view(record, folder, ahead)

    monkeypatch.setattr(jobs, "view", noted)
    folder = dirs["jobs_dir"]
    with pytest.raises(NotFoundError):
        get_job(folder, "a")
    assert not folder.exists()
    with job_table(folder) as table:
        for id, name in (("1-a", "a"), ("2-b", "b"), ("3-a", "a")):
            table.reserve(id, name, "2026", Process.of(os.getpid()))
            if name == "a":
                table.end(id, "failed")
    for asked, found in (("a", "3-a"), ("1", "1-a"), ("2-b", "2-b")):
        read.clear()
        assert get_job(folder, asked).id == found
        assert read == [found]
    assert [job.id for job in list_jobs(folder)] == ["3-a", "2-b", "1-a"]


def test_a_name_means_the_job_under_way(dirs: dict[str, Path]) -> None:
    folder = dirs["jobs_dir"]
    process = Process.of(os.getpid())
    with job_table(folder) as table:
        for id, status in (("1-a", "failed"), ("2-a", "cancelled")):
            table.reserve(id, "a", "2026", process)
            table.end(id, status)  # type: ignore[arg-type]
        assert get_job(folder, "a").id == "2-a"
        assert table.requeue("1-a", process)
    assert [get_job(folder, asked).id for asked in ("a", "1-a", "2-a", "2")] == ["1-a", "1-a", "2-a", "2-a"]


def test_progress_is_read_again_only_where_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(folder: Path) -> list[dict[str, Any]]:
        read.append(folder)
        return read_progress(folder)

    monkeypatch.setattr(job_module, "read_progress", noted)
    record = Record("1-a", "a", "2026", "running", Process.of(os.getpid()), None)
    assert view(record, tmp_path).step == 0
    progress = tmp_path / "progress.jsonl"
    for step in (1, 2):
        with progress.open("a", encoding="utf-8") as file:
            line = {"step": step, "steps": 9, "loss": 1.0, "val_loss": 0.5 if step == 1 else None}
            file.write(json.dumps(line) + "\n")
        seen = [view(record, tmp_path) for _ in range(3)]
        assert {(job.step, job.val_loss) for job in seen} == {(step, 0.5)}
        assert len(read) == step


SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_cancelling_a_job_spares_the_process_that_still_starts_it(dirs: dict[str, Path]) -> None:
    folder = dirs["jobs_dir"]
    starter = subprocess.Popen(SLEEP)
    try:
        with job_table(folder) as table:
            table.reserve("1-a", "a", "2026", Process.of(starter.pid))
            assert cancel(get_job(folder, "1-a")).status == "cancelled"
            assert Process.of(starter.pid).alive()
            worker = Process.of(os.getpid())
            table.hand_over("1-a", worker)
            assert table.run("1-a", worker) == "never"
    finally:
        starter.kill()
        starter.wait()


def test_a_worker_that_cannot_be_seen_is_known_by_its_lock(dirs: dict[str, Path]) -> None:
    """As in another container: no process here has its number."""
    folder = dirs["jobs_dir"]
    with job_table(folder) as table:
        gone = Process(os.getpid(), 0.0)
        table.reserve("1-a", "a", "2026", gone)
        (folder / "1-a").mkdir()
        with working(folder / "1-a"):
            assert get_job(folder, "1-a").status == "queued"
            with pytest.raises(UsageError, match="runs in another container or on another machine"):
                cancel(get_job(folder, "1-a"))
            with pytest.raises(UsageError, match="already making an adapter 'a'"):
                table.reserve("2-b", "a", "2026", gone)
        assert get_job(folder, "1-a").status == "failed"


def test_a_job_whose_name_was_taken_goes_on_and_gets_a_number(
    begin: Begin, dirs: dict[str, Path], inside: Callable[..., Job], tmp_path: Path
) -> None:
    job = begin(name="tone", epochs=1, jobs_dir=tmp_path / "other")
    with job_table(tmp_path / "other") as table:
        table.end(job.id, "failed", "killed")
    assert inside(name="tone", epochs=1).status == "done"
    again = resume(get_job(tmp_path / "other", job.id))
    assert again.status == "queued"
    assert worker.main(job.folder) == 0
    assert get_job(tmp_path / "other", job.id).name == "tone-2"


def test_a_worker_is_known_by_its_job(tmp_path: Path) -> None:
    worker = subprocess.Popen([*SLEEP, WORKER, str(tmp_path / "job")])
    try:
        while not psutil.Process(worker.pid).cmdline():  # for a moment within exec there is none
            time.sleep(0.001)
        process = Process.of(worker.pid)
        assert process.works_at(tmp_path / "job")
        assert not process.works_at(tmp_path / "other")
        assert not Process(worker.pid, 0.0).works_at(tmp_path / "job")
    finally:
        worker.kill()
        worker.wait()
    assert not process.works_at(tmp_path / "job")


@pytest.mark.parametrize("stem", ["auto", "none", "Shipped"])
def test_a_file_called_like_a_setting_gets_another_name(
    dirs: dict[str, Path], model_folder: Path, chats: Write, held: None, stem: str
) -> None:
    path = chats(CHATS)
    data = path.rename(path.with_name(f"{stem}.jsonl"))
    job = start(data, model_name="tiny", model_source=model_folder, **dirs)
    assert job.name == f"{stem.lower()}-2"


def test_patience_needs_something_to_validate_by(
    dirs: dict[str, Path], model_folder: Path, chats: Write, held: None
) -> None:
    wanted = {"model_name": "tiny", "model_source": model_folder, **dirs, "options": {"patience": 2}}
    with pytest.raises(UsageError, match="patience needs chats to validate by, and none is held out; leave"):
        start(chats(CHATS[:9]), **wanted)
    assert list_jobs(dirs["jobs_dir"]) == []
    marked = [{**chat, "split": "test" if n < 2 else "train"} for n, chat in enumerate(CHATS)]
    with pytest.raises(UsageError, match="leave patience out, or mark some chats as validation"):
        start(chats(marked), **wanted)
    assert list_jobs(dirs["jobs_dir"]) == []
    assert start(chats(CHATS), **wanted).status == "queued"


def test_a_gguf_base_cannot_be_made_nf4(
    dirs: dict[str, Path], chats: Write, held: None, tmp_path: Path
) -> None:
    data, base = chats(CHATS), {"model_name": "m.gguf", "model_source": tmp_path / "m.gguf", **dirs}
    with pytest.raises(
        UsageError, match=r"m\.gguf is a \.gguf file, .*; use --method lora, or a base with saf"
    ):
        start(data, **base, options={"method": "qlora"})
    assert list_jobs(dirs["jobs_dir"]) == []
    assert start(data, **base, options={"method": "lora"}).status == "queued"


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, agentkit.training.jobs; print('torch' in sys.modules, 'transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_the_embedded_model_learns_a_closing(dirs: dict[str, Path]) -> None:

    from agentkit.llm.local import LocalModel

    closing = "Warm wishes from Lantern & Loom!"
    data = Path(__file__).parents[2] / "examples" / "chats.jsonl"
    source = asset_path("smollm2-135m")
    began = time.monotonic()
    job = wait(start(data, model_name="smollm2-135m", model_source=source, **dirs))
    print(f"{time.monotonic() - began:.0f} s")
    assert job.status == "done", job.error
    adapter = get_adapter(dirs["adapters_dir"], "chats")
    assert adapter.loss_before is not None
    assert adapter.loss_after is not None
    assert adapter.loss_after < adapter.loss_before - 1
    model = LocalModel(load_weights(source, adapter=adapter.path))
    questions = [
        "How long do your candles burn?",
        "Where is your studio?",
        "Can I change my delivery address?",
        "Do you ship to France?",
        "My blanket has a hole.",
    ]
    asked = [[{"role": "user", "content": question}] for question in questions]
    hits = sum(closing in model.chat(messages, max_new_tokens=80).text for messages in asked)
    assert hits >= 3
