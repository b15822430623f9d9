"""The chat while a fine-tuning job runs: seconds of a turn and tokens a second, alone and beside the job.

    python benchmarks/beside.py                # prints a table, writes docs/benchmarks/beside.json

The same turns alone, beside a job that trains on ``examples/chats.jsonl``, and alone again: questions to the starter's
help centre, asked once before, so that what was read for them is in the cache, and free answers of the model, which is
asked by itself. The job's own pace is told beside them and without them.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import Any

from machine import ROOT, write

from agentkit import Agent, load_model
from agentkit.build import open_project
from agentkit.training.jobs import Job, cancel, get_job

QUESTIONS = (
    "How many days do I have to send something back?",
    "Do you accept PayPal?",
    "How much is delivery to Spain?",
    "Can I change the address of my order?",
    "How do I clean a linen lampshade?",
    "What does gift wrapping cost?",
    "Which language is this: 'Wo ist mein Paket?'",
    "When is the showroom open?",
)
FREE = "Tell me in a few sentences how a lamp is made."
TOKENS, ANSWERS, EPOCHS = 60, 5, 400
PATIENCE_S = 120


def turns(agent: Agent, model: Any) -> dict[str, Any]:
    """Seconds of each turn, and the pace of free answers."""
    seconds = []
    for question in QUESTIONS:
        began = time.perf_counter()
        agent.ask(question)
        seconds.append(time.perf_counter() - began)
    paces = []
    for _ in range(ANSWERS):
        usage = model.chat([{"role": "user", "content": FREE}], max_new_tokens=TOKENS).usage
        paces.append((usage.completion_tokens - 1) / (usage.seconds - usage.ttft_s))
    return {
        "turn_p50_s": statistics.median(seconds),
        "turn_max_s": max(seconds),
        "tokens_per_s": statistics.median(paces),
    }


def steps(job: Job) -> int:
    """How many the job has noted."""
    path = job.folder / "progress.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def pace(job: Job, during_s: float) -> float:
    """Steps a second that it goes through while nothing else is asked of the machine."""
    before = steps(job)
    time.sleep(during_s)
    return (steps(job) - before) / during_s


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AGENTKIT_DATA_DIR"] = folder
        with open_project(ROOT) as workspace, Agent.from_project(ROOT) as agent:
            model = load_model("smollm2-135m")
            turns(agent, model)  # compiles, and reads the system prompt
            alone = turns(agent, model)
            job = workspace.start_finetune(ROOT / "examples" / "chats.jsonl", "beside", EPOCHS)
            try:
                begin = time.monotonic()
                while steps(job) < 3:
                    job = get_job(workspace.jobs_dir, job.id)
                    if not job.active or time.monotonic() - begin > PATIENCE_S:
                        raise SystemExit(f"the job does not train: {job}")
                    time.sleep(0.2)
                undisturbed = pace(job, 15)
                before, began = steps(job), time.perf_counter()
                beside = turns(agent, model)
                disturbed = (steps(job) - before) / (time.perf_counter() - began)
            finally:
                cancel(job)
            again = turns(agent, model)
    body = {"alone": alone, "beside": beside, "alone again": again}
    for name, found in body.items():
        told = f"turn {found['turn_p50_s']:.2f} s, at most {found['turn_max_s']:.2f} s"
        print(f"{name:<12} {told}; {found['tokens_per_s']:.1f} tokens/s")
    print(f"the job: {undisturbed:.2f} steps/s by itself, {disturbed:.2f} beside the chat")
    write("beside.json", {**body, "steps_per_s": undisturbed, "steps_per_s_beside": disturbed})


if __name__ == "__main__":
    main()
