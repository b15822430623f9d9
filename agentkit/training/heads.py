"""Training classifiers, taggers and seq2seq models: what the three tasks share.

Each task's own module says how its examples are encoded and what it is judged by.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agentkit.engine.weights import resolve_device
from agentkit.training import classification, seq2seq, tagging
from agentkit.training.bases import load_base, longest_answer, room
from agentkit.training.data import IGNORED, Report
from agentkit.training.labelled import Labelled
from agentkit.training.memory import keep_memory
from agentkit.training.precision import choose
from agentkit.training.rows import Batch, HeadRow, batches, steps
from agentkit.training.run import Learner, Measured, Progress, Run, Trained
from agentkit.training.settings import JobSettings

if TYPE_CHECKING:
    import torch

TASKS: dict[str, ModuleType] = {"classification": classification, "tagging": tagging, "seq2seq": seq2seq}
READ = 64
"""Rows that are measured at once."""
GENERATED = 64
"""Held-out pairs, at most, that are written out to be scored, which takes long; the loss is of all."""


class HeadJob:
    """A base model and the encoded examples of a job.

    Args:
        job: Its settings; the task is none but ``chat``.
        examples: With their splits.

    Raises:
        NotFoundError: There is no such base model.
        UsageError: It does not suit the task.
        ModelError: It cannot be loaded.
    """

    def __init__(self, job: JobSettings, examples: Sequence[Labelled]) -> None:
        import torch

        self.job, self.task = job, TASKS[job.task]
        self.labels: list[str] = self.task.labels_of(examples)
        torch.manual_seed(job.seed)  # of the new head
        self.model, self.tokenizer = load_base(job.model_source, job.model_name, job.task, self.labels)
        self.device = resolve_device(job.device)
        self.length = length = room(self.model, self.tokenizer, job.max_length)
        encoded = [self.task.encode(example, self.tokenizer, self.labels, length) for example in examples]
        self.rows: list[HeadRow] = [row for row in encoded if row is not None]
        tokens = sum(len(row.ids) for row in self.rows)
        learned = sum(label != IGNORED for row in self.rows for label in row.labels)
        cut = len(encoded) - len(self.rows)
        self.report = Report(len(self.rows), 0, cut, tokens, learned)

    def train(
        self,
        on_progress: Callable[[Progress], None],
        *,
        checkpoint_dir: Path | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Trained:
        """Train, then judge by the test split, or where there is none by the validation split.

        Args:
            on_progress: Called after each step.
            checkpoint_dir: Where to keep checkpoints, and to go on from the newest whole one of the same run.
            should_stop: Asked after each step.

        Raises:
            TrainingError: The loss is no longer a number.
            Stopped: After a checkpoint, because ``should_stop`` said so.
            OSError: A checkpoint cannot be written.
        """
        import torch

        keep_memory()
        torch.manual_seed(self.job.seed)
        order = random.Random(self.job.seed)
        learn, held_out, test = (
            [row for row in self.rows if row.split == split] for split in ("train", "validation", "test")
        )
        plan = [steps(learn, self.job, order) for _ in range(self.job.epochs)]
        model = self.model if self.job.method == "full" else _with_lora(self.model, self.job)
        learner = HeadLearner(self, model.to(self.device), plan)
        trained = Run(self.job, learner, held_out, on_progress, checkpoint_dir, should_stop).train()
        if test:
            judged = learner.measure(test)
            trained = replace(trained, scores=judged.scores, scored_on="test", scored=judged.scored)
        return trained

    def save(self, trained: Trained, folder: Path) -> None:
        """The model with its tokenizer, as transformers loads it; an adapter is merged into the weights."""
        model = trained.model if self.job.method == "full" else trained.model.merge_and_unload()
        model.config._name_or_path = self.job.model_name  # else the path of a folder on this machine
        model.cpu().save_pretrained(folder)
        if self.job.task == "classification":
            self.tokenizer.model_max_length = self.length  # where the classifier tool cuts what it reads
        self.tokenizer.save_pretrained(folder)


class HeadLearner(Learner):
    """A model of a task, learned from padded batches.

    Args:
        work: Task, labels and tokenizer.
        model: On its device.
        plan: Batches of each epoch.
    """

    def __init__(self, work: HeadJob, model: Any, plan: list[list[Batch]]) -> None:
        self.model, self.plan, self._work = model, plan, work
        self._numbers = choose(work.job.precision, work.device)
        self.scaler = self._numbers.scaler()
        self._is_seq2seq = work.job.task == "seq2seq"

    def learn(self, step: Batch) -> tuple[float, int]:
        loss, count, _ = self._read(step)
        count = max(count, 1)  # no token may be left of a text that is all invisible characters
        self.backward(loss / count)
        return float(loss.detach()) / count, sum(row.tokens for row in step)

    def measure(self, rows: Sequence[HeadRow]) -> Measured:
        import torch

        self.model.eval()
        ordered = sorted(rows, key=lambda row: row.tokens)
        total, labels = 0.0, 0
        outputs: list[Any] = []
        with torch.inference_mode():
            for batch in batches(ordered, READ, self._work.job.batch_tokens):
                loss, count, logits = self._read(batch)
                total, labels = total + float(loss), labels + count
                if not self._is_seq2seq:  # else as many as the vocabulary, for each token
                    outputs += list(logits.cpu())
        if self._is_seq2seq:
            ordered = _spread(rows, GENERATED)
            parts = batches(ordered, READ, self._work.job.batch_tokens)
            outputs = [ids for batch in parts for ids in self._write(batch)]
        work = self._work
        scores = work.task.scores(ordered, outputs, work.labels, work.tokenizer)
        return Measured(total / labels, scores, len(ordered))

    def fingerprint(self) -> str:
        return str([[(row.ids, row.labels) for row in batch] for epoch in self.plan for batch in epoch])

    def _read(self, batch: Batch) -> tuple[torch.Tensor, int, torch.Tensor]:
        """Sum of the losses, number of labels, and logits in float32: (rows, labels) or (rows, tokens, labels)."""
        import torch

        inputs: dict[str, Any] = self._inputs(batch)
        labels = _padded([row.labels for row in batch], IGNORED).to(self._work.device)
        if self._is_seq2seq:
            inputs |= self._decoder_inputs(labels)
        dtype = self._numbers.dtype  # of products; all weights are learned, and kept in float32
        with torch.autocast(self._work.device, dtype, enabled=dtype != torch.float32):
            logits = self.model(**inputs).logits.float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, int((labels != IGNORED).sum()), logits

    def _decoder_inputs(self, labels: torch.Tensor) -> dict[str, Any]:
        """What the decoder reads: the target, one place later."""
        if not hasattr(self.model, "prepare_decoder_input_ids_from_labels"):
            return {"labels": labels}  # the model shifts them itself, and computes a loss that is not needed
        ids = self.model.prepare_decoder_input_ids_from_labels(labels=labels)
        return {"decoder_input_ids": ids, "use_cache": False}

    def _write(self, batch: Batch) -> list[list[int]]:
        """What the model answers, greedily; there is room for more than the longest target, if it has the positions."""
        import torch

        longest = max(len(row.labels) for row in batch)
        wanted = longest + longest // 2 + 4
        most = min(wanted, longest_answer(self.model.config) or wanted)
        with torch.inference_mode():
            ids = self.model.generate(
                **self._inputs(batch), max_new_tokens=most, do_sample=False, num_beams=1
            )
        return [row.tolist() for row in ids]

    def _inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        device = self._work.device
        ids = _padded([row.ids for row in batch], self._work.tokenizer.pad_token_id or 0)
        mask = _padded([[1] * len(row.ids) for row in batch], 0)
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _spread(rows: Sequence[HeadRow], most: int) -> list[HeadRow]:
    """Some of the rows, evenly over all: a file may be sorted."""
    count = min(most, len(rows))
    return [rows[n * len(rows) // count] for n in range(count)]


def _padded(rows: Sequence[list[int]], filler: int) -> torch.Tensor:
    """Shape (rows, longest)."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def _with_lora(model: Any, job: JobSettings) -> Any:
    """The model with an adapter on all its linear layers; new heads, which are no base, are trained as they are."""
    from peft import LoraConfig, get_peft_model

    heads = [
        name
        for name, part in model.named_children()
        if job.task != "seq2seq" and name != model.base_model_prefix and list(part.parameters())
    ]
    within = "|".join(map(re.escape, heads))
    config = LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        use_dora=job.method == "dora",
        target_modules="all-linear",
        exclude_modules=rf"(.*\.)?({within})(\..*)?" if heads else None,
        modules_to_save=heads or None,
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by an old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(model, config)
