"""LoRA training of a chat model (arXiv:2106.09685), with loss on the assistant's tokens alone."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentkit.errors import TrainingError
from agentkit.training.data import IGNORED, Row
from agentkit.training.settings import JobSettings

if TYPE_CHECKING:
    import torch

Progress = dict[str, Any]
"""``{"step", "steps", "epoch", "loss", "tokens_per_s", "eta_s"}`` after each step; epochs count from 1."""
Batch = list[Row]

MIN_EXAMPLES_TO_HOLD_OUT = 10


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with a trained adapter."""

    model: Any
    """The PEFT model, in evaluation mode."""
    train_loss: float
    """Mean over the last epoch, in nats per token."""
    loss_before: float | None
    """Of the held-out chats; ``None`` where there are none."""
    loss_after: float | None
    steps: int
    held_out: int
    seconds: float


def train(
    job: JobSettings, model: Any, rows: Sequence[Row], on_progress: Callable[[Progress], None]
) -> Trained:
    """Train an adapter on the model, which is wrapped in place.

    Args:
        job: Settings of the run.
        model: A transformers causal language model, not quantized.
        rows: Conversations as `encode` gives them.
        on_progress: Called after each step.

    Raises:
        TrainingError: The loss is no longer a number.
    """
    import torch

    started = time.perf_counter()
    torch.manual_seed(job.seed)
    order = random.Random(job.seed)
    learn, held_out = split(rows, job.validation, order)
    tuned = _with_lora(model, job)
    before = evaluate(tuned, held_out, job) if held_out else None
    plan = [batches(learn, job, order) for _ in range(job.epochs)]
    train_loss = _run(tuned, plan, job, on_progress)
    tuned.eval()
    after = evaluate(tuned, held_out, job) if held_out else None
    seconds = time.perf_counter() - started
    return Trained(tuned, train_loss, before, after, sum(map(len, plan)), len(held_out), seconds)


def split(rows: Sequence[Row], share: float, order: random.Random) -> tuple[list[Row], list[Row]]:
    """(to learn from, held out), by conversation; nothing is held out of fewer than ten."""
    shuffled = list(rows)
    order.shuffle(shuffled)
    few = len(shuffled) < MIN_EXAMPLES_TO_HOLD_OUT or not share
    held_out = 0 if few else max(1, round(len(shuffled) * share))
    return shuffled[held_out:], shuffled[:held_out]


def batches(rows: Sequence[Row], job: JobSettings, order: random.Random | None = None) -> list[Batch]:
    """Conversations of similar length together, so that little is padded; the batches in random order."""
    # Few chats need many small steps: 24 of them in steps of 2 teach more than in steps of 4.
    size = job.batch_size or min(8, max(2, len(rows) // 50))
    found: list[Batch] = []
    tie = order.random if order else float
    for row in sorted(rows, key=lambda row: (len(row.ids), tie())):
        batch = found[-1] if found else []
        # The new row is the longest so far: all others are padded to its length.
        if batch and len(batch) < size and len(row.ids) * (len(batch) + 1) <= job.batch_tokens:
            batch.append(row)
        else:
            found.append([row])
    if order:
        order.shuffle(found)
    return found


def evaluate(model: Any, rows: Sequence[Row], job: JobSettings) -> float:
    """Mean loss per assistant token, in nats."""
    import torch

    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in batches(rows, job):
            labels = sum(label != IGNORED for row in batch for label in row.labels[1:])
            total += float(loss_of(model, batch)) * labels
            count += labels
    return total / count


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross entropy over the labels of a batch; a scalar.

    Rows are padded on the right, where causal attention never looks: no mask is needed. Padding has no label.
    """
    import torch
    from torch.nn.functional import cross_entropy

    width = max(len(row.ids) for row in batch)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch], device=model.device)
    labels = torch.tensor([row.labels + [IGNORED] * (width - len(row.labels)) for row in batch])
    targets = labels[:, 1:].to(model.device)
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[:, :-1] = targets != IGNORED
    with _head_only_at(model, chosen):
        logits = model(input_ids=ids, use_cache=False).logits
    return cross_entropy(logits.float(), targets[targets != IGNORED])


@contextmanager
def _head_only_at(model: Any, chosen: torch.Tensor) -> Iterator[None]:
    """Let the output head see only the chosen hidden states: (batch, width, d) becomes (labels, d).

    The head of a small model is a fifth of its work, and most positions have no label. Going through the
    model's own forward keeps what some families do to the logits afterwards.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0][chosen],))
    try:
        yield
    finally:
        hook.remove()


def _with_lora(model: Any, job: JobSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by an old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(model, config)


def _run(
    model: Any, plan: list[list[Batch]], job: JobSettings, on_progress: Callable[[Progress], None]
) -> float:
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=job.learning_rate, weight_decay=job.weight_decay)
    steps = sum(map(len, plan))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, job))
    tokens, step, started = 0, 0, time.perf_counter()
    losses: list[float] = []
    model.train()
    for epoch, batches_of_epoch in enumerate(plan, 1):
        losses = []
        for batch in batches_of_epoch:
            losses.append(_step(model, batch, weights, optimizer, job.clip))
            schedule.step()
            step += 1
            if not math.isfinite(losses[-1]):
                raise TrainingError(f"the loss is {losses[-1]} at step {step}", "lower learning_rate")
            tokens += sum(len(row.ids) for row in batch)
            passed = time.perf_counter() - started
            on_progress(
                {
                    "step": step,
                    "steps": steps,
                    "epoch": epoch,
                    "loss": round(losses[-1], 4),
                    "tokens_per_s": round(tokens / passed, 1),
                    "eta_s": round(passed / step * (steps - step), 1),
                }
            )
    return sum(losses) / len(losses)


def _step(
    model: Any, batch: Batch, weights: list[Any], optimizer: torch.optim.Optimizer, clip: float
) -> float:
    import torch

    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(weights, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def rate(step: int, steps: int, job: JobSettings) -> float:
    """Share of the learning rate for a step, counted from 0: warm-up from zero, then decay to zero."""
    warmup = max(1, round(steps * job.warmup)) if job.warmup else 0
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup + 0.5) / max(1, steps - warmup))
    return (1 + math.cos(math.pi * done)) / 2 if job.schedule == "cosine" else 1 - done
