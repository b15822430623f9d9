"""Real jobs in real processes, on a tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentkit.assets import asset_path
from agentkit.engine.weights import load_weights
from agentkit.errors import NotFoundError, UsageError
from agentkit.training.adapters import get_adapter, list_adapters
from agentkit.training.jobs import Job, cancel, get_job, list_jobs, start, wait

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
    assert (job.step, job.steps, job.epoch, job.eta_s) == (6, 6, 2, 0)
    assert job.loss == seen[-1]["loss"]

    adapter = get_adapter(dirs["adapters_dir"], "chats")
    assert adapter.path == job.adapter
    assert (adapter.base, adapter.data, adapter.examples, adapter.steps) == ("tiny", "chats.jsonl", 12, 6)
    assert adapter.loss_after is not None
    assert adapter.loss_before is not None
    files = {"adapter_config.json", "adapter_model.safetensors", "agentkit.json", "settings.json"}
    assert {path.name for path in adapter.path.iterdir()} == files
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
    assert job.status == "failed"
    assert "ended unexpectedly; last log line: step " in str(job.error)
    assert not stage.exists()
    assert get_job(dirs["jobs_dir"], job.id).status == "failed"


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
    with pytest.raises(UsageError, match=r"chats\.jsonl, line 2: unknown message role 'robot'"):
        start(path, model_name="tiny", model_source=tiny, **dirs)
    assert not dirs["jobs_dir"].exists()


def test_jobs_are_found_by_id_beginning_and_name(dirs: dict[str, Path], begin: Begin) -> None:
    jobs = dirs["jobs_dir"]
    with pytest.raises(NotFoundError):
        get_job(jobs, "chats")
    job = begin(epochs=LONG)
    cancel(job)
    assert get_job(jobs, job.id).id == get_job(jobs, job.id[:-1]).id == get_job(jobs, "chats").id
    for id in ("", "nothing"):
        with pytest.raises(NotFoundError):
            get_job(jobs, id)


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
