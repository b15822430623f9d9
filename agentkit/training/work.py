"""What a job is to do, with its model loaded and its data encoded: the same few things whatever the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.training.augment import Augmenter
from agentkit.training.data import Report, Split, encode, load_chats
from agentkit.training.job import START
from agentkit.training.precision import choose
from agentkit.training.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Work:
    """One job, ready to be trained."""

    report: Report
    splits: Counter[Split]
    """Examples that are left, by split."""
    device: str
    train: Callable[..., Any]
    """Called as `loop.train` from ``on_progress`` on; returns a `run.Trained`."""
    save: Callable[[Any, Path], None]
    """Writes what was trained into a folder."""
    shortened: int = 0


def make_work(job: JobSettings, data: Path) -> Work:
    """Load the base model and encode the data.

    Args:
        job: Settings of the run.
        data: The job's own copy of its data; beside it lies that of the adapter to begin from.

    Raises:
        AgentkitError: The model cannot be loaded, or the data does not fit it.
    """
    return _chat(job, data) if job.task == "chat" else _head(job, data)


def _chat(job: JobSettings, data: Path) -> Work:
    from agentkit.engine.peft_files import read_lora
    from agentkit.engine.weights import load_weights, resolve_device
    from agentkit.llm.encoding import ChatEncoder
    from agentkit.training import loop

    device = resolve_device(job.device)
    numbers = choose(job.precision, device)
    start = read_lora(data.parent / START) if job.start_sha256 else None
    loaded = load_weights(
        job.model_source,
        name=job.model_name,
        device=device,
        dtype=numbers.dtype,
        quantize="nf4" if job.method == "qlora" else "none",
        trainable=True,
    )
    encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids, job.tool_format)
    length = min(loaded.context_length, job.max_length)
    rows, report = encode(load_chats(data), encoder, length, system=job.system)
    learned = [row for row in rows if row.split != "test"]
    augmenter = Augmenter(rows, encoder, length, system=job.system, rate=job.augment, seed=job.seed)
    varied = augmenter.rows if job.augment else None

    def train(on_progress: Callable[[dict[str, Any]], None], **options: Any) -> Any:
        return loop.train(job, loaded.model, learned, on_progress, start=start, varied=varied, **options)

    def save(trained: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        from agentkit.training.methods import exported

        config, weights = exported(trained.model, job.model_name)
        config.save_pretrained(folder)
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return Work(report, Counter(row.split for row in rows), loaded.device, train, save)


def _head(job: JobSettings, data: Path) -> Work:
    from agentkit.training.heads import HeadJob
    from agentkit.training.labelled import load_labelled

    work = HeadJob(job, load_labelled(data, job.task))
    shortened = sum(row.shortened for row in work.rows)
    splits = Counter(row.split for row in work.rows)
    return Work(work.report, splits, work.device, work.train, work.save, shortened)
