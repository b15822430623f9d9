"""Training an adapter of a chat model, with loss on the assistant's tokens alone.

A run can be interrupted at any moment and goes on from its newest checkpoint, step for step.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.engine.peft_files import LowRank
from agentkit.errors import TrainingError
from agentkit.training import checkpoint, fused
from agentkit.training.data import IGNORED, Row
from agentkit.training.loss import can_share, loss_sum, shared_attention
from agentkit.training.memory import keep_memory
from agentkit.training.methods import make_optimizer, orthogonality, with_adapter
from agentkit.training.neftune import noisy_embeddings
from agentkit.training.packing import Pack, pack
from agentkit.training.plan import PACK_TOKENS, Step, rate, steps
from agentkit.training.precision import Numbers, choose
from agentkit.training.settings import JobSettings
from agentkit.training.warm_start import initialize

if TYPE_CHECKING:
    import torch

Progress = dict[str, Any]
"""``{"step", "steps", "epoch", "loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "eta_s"}`` after each step;
epochs count from 1, ``val_loss`` is ``None`` but for the last step of an epoch, ``grad_norm`` where a gradient was too
large for float16 and the step was left out."""


class Stopped(Exception):
    """``should_stop`` said so; there is a checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with a trained adapter."""

    model: Any
    """The PEFT model, in evaluation mode."""
    train_loss: float
    """Mean over the steps of the last epoch, in nats per token, with variations, noise and dropout."""
    loss_before: float | None
    """Of the held-out chats; ``None`` where there are none."""
    loss_after: float | None
    steps: int
    held_out: int
    seconds: float
    """Of this run and of those it goes on from."""


def train(
    job: JobSettings,
    model: Any,
    rows: Sequence[Row],
    on_progress: Callable[[Progress], None],
    *,
    start: Mapping[str, LowRank] | None = None,
    varied: Callable[[int], Sequence[Row]] | None = None,
    numbers: Numbers | None = None,
    checkpoint_dir: Path | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trained:
    """Train an adapter on the model, which is wrapped in place.

    Args:
        job: Settings of the run.
        model: A transformers causal language model: nf4 weights for ``qlora``, else not quantized.
        rows: Conversations as `encode` gives them, to learn from or to validate by.
        on_progress: Called after each step.
        start: The adapter to begin from, as `read_lora` gives it; by default the bare model.
        varied: The rows to learn from in a pass, counted from 1; by default the same in all of them.
        numbers: What the model computes in; by default what suits settings and device.
        checkpoint_dir: Where to keep checkpoints, and to go on from the newest whole one of the same run.
        should_stop: Asked after each step.

    Raises:
        TrainingError: The loss is no longer a number, or the adapter to begin from does not fit the model.
        Stopped: After a checkpoint, because ``should_stop`` said so.
        OSError: A checkpoint cannot be written.
    """
    import torch

    keep_memory()
    torch.manual_seed(job.seed)
    order = random.Random(job.seed)
    learn = [row for row in rows if row.split == "train"]
    held_out = [row for row in rows if row.split == "validation"]
    passes = [varied(number) if varied else learn for number in range(1, job.epochs + 1)]
    plan = [steps(of_pass, job, order) for of_pass in passes]
    tuned = with_adapter(model, job, sum(map(len, plan)))
    if start:
        initialize(tuned, start)
    if job.method in ("lora", "qlora"):
        fused.fuse(tuned)
    longest = max(len(row.ids) for of_pass in (rows, *passes) for row in of_pass)
    numbers = numbers or choose(job.precision, model.device.type)
    with contextlib.ExitStack() as stack:
        shared = can_share(model, longest)
        if shared:
            stack.enter_context(shared_attention(model))
        run = _Run(job, tuned, plan, held_out, shared, numbers, on_progress, checkpoint_dir, should_stop)
        return run.train()


def evaluate(model: Any, rows: Sequence[Row], *, shared: bool) -> float:
    """Mean loss per assistant token, in nats."""
    import torch

    model.eval()
    with torch.inference_mode():
        total = sum(float(loss_sum(model, packed, shared=shared)) for packed in pack(rows, PACK_TOKENS))
    return total / sum(row.weight * (label != IGNORED) for row in rows for label in row.labels[1:])


@dataclass
class _Run:
    job: JobSettings
    model: Any
    plan: list[list[Step]]
    held_out: Sequence[Row]
    shared: bool
    numbers: Numbers
    on_progress: Callable[[Progress], None]
    folder: Path | None
    should_stop: Callable[[], bool] | None
    step: int = 0
    """Steps that are done."""
    tokens: int = 0
    before: float | None = None
    best: float | None = None
    worse: int = 0
    """Epochs since the best."""
    losses: list[float] = field(default_factory=list)
    """Of the steps of this epoch."""
    earlier_s: float = 0.0
    """Seconds that the runs before this one took."""
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    """The best weights so far, with patience."""

    def __post_init__(self) -> None:
        self.weights = {name: w for name, w in self.model.named_parameters() if w.requires_grad}
        self.optimizer: Any = make_optimizer(self.weights.values(), self.job)
        self.scaler = self.numbers.scaler()
        self.steps = sum(map(len, self.plan))
        self.started = self.saved = time.perf_counter()

    def train(self) -> Trained:
        resumed = self._resume()
        if self.before is None and self.held_out and not resumed:
            self.before = self._evaluate()
        self.begun, self.speed_from = time.perf_counter(), self.tokens
        after = self.before
        done = 0
        for epoch, of_epoch in enumerate(self.plan, 1):
            done += len(of_epoch)
            if done <= self.step and not (done == self.step and epoch == len(self.plan)):
                continue
            after = self._epoch(epoch, of_epoch, done)
            if self.job.patience is not None and self.worse >= self.job.patience:
                break
        if self.kept:
            self._put(self.kept)
            after = self.best
        self.model.eval()
        mean = sum(self.losses) / len(self.losses)
        return Trained(self.model, mean, self.before, after, self.step, len(self.held_out), self._seconds())

    def _epoch(self, epoch: int, of_epoch: list[Step], end: int) -> float | None:
        """Take the steps that are left; returns the held-out loss after them."""
        begin = end - len(of_epoch)
        if self.step == begin:
            self.losses = []
        after: float | None = None
        for number in range(self.step, end):
            progress = self._take(of_epoch[number - begin], epoch)
            if self.step == end and self.held_out:
                after = self._evaluate()
                progress["val_loss"] = round(after, 4)
                self._judge(after)
            self.on_progress(progress)
            self._checkpoint()
        return after

    def _take(self, packs: Step, epoch: int) -> Progress:
        self.model.train()
        learned = sum(packed.learned for packed in packs)
        lr = self.job.learning_rate * rate(self.step, self.steps, self.job)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = 0.0
        for packed in packs:
            part = self._loss(packed) / learned
            self.scaler.scale(part).backward()
            loss += float(part.detach())
        self.step += 1
        norm = self._update(loss)
        self.losses.append(loss)
        self.tokens += sum(len(row.ids) for packed in packs for group in packed.groups for row in group.rows)
        passed = time.perf_counter() - self.begun
        speed = (self.tokens - self.speed_from) / passed
        total = self.tokens / self.step * self.steps
        return {
            "step": self.step,
            "steps": self.steps,
            "epoch": epoch,
            "loss": round(loss, 4),
            "val_loss": None,
            "lr": lr,
            "grad_norm": None if norm is None else round(norm, 4),
            "tokens_per_s": round(speed, 1),
            "eta_s": round(max(0.0, total - self.tokens) / speed, 1),
        }

    def _loss(self, packed: Pack) -> torch.Tensor:
        alpha = self.job.neftune_alpha
        with self.numbers.context(), noisy_embeddings(self.model, packed, alpha, shared=self.shared):
            return loss_sum(self.model, packed, shared=self.shared)

    def _evaluate(self) -> float:
        with self.numbers.context():
            return evaluate(self.model, self.held_out, shared=self.shared)

    def _update(self, loss: float) -> float | None:
        """Move the weights by their gradients; returns the norm of those, or ``None`` where they overflowed."""
        import torch

        if self.job.method == "adalora":
            self.scaler.scale(orthogonality(self.model)).backward()
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), self.job.clip))
        overflows = self.numbers.scaled and not math.isfinite(norm)
        if not (math.isfinite(loss) and (math.isfinite(norm) or overflows)):
            remedy = "lower learning_rate" + ", or use precision fp32" * self.numbers.scaled
            raise TrainingError(f"the loss is {loss} at step {self.step}", remedy)
        if overflows:  # the scaler leaves this step out and goes down; AdaLoRA looks at the gradients
            for weight in self.weights.values():
                if weight.grad is not None:
                    weight.grad.zero_()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if overflows and self.scaler.get_scale() < 1:
            raise TrainingError(f"gradients overflow at step {self.step}", "use precision fp32")
        if self.job.method == "adalora":
            self.model.base_model.update_and_allocate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        return None if overflows else norm

    def _judge(self, after: float) -> None:
        if self.best is None or after < self.best:
            self.best, self.worse = after, 0
            if self.job.patience is not None:
                self.kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        else:
            self.worse += 1

    def _seconds(self) -> float:
        return self.earlier_s + time.perf_counter() - self.started

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(weights[name])

    def _checkpoint(self) -> None:
        if self.folder is None:
            return
        stop = self.step < self.steps and self.should_stop is not None and self.should_stop()
        if not stop and time.perf_counter() - self.saved < self.job.checkpoint_every_s:
            return
        import torch

        tensors: dict[str, torch.Tensor] = {f"weight.{name}": weight for name, weight in self.weights.items()}
        tensors |= {f"kept.{name}": weight for name, weight in self.kept.items()}
        tensors |= checkpoint.random_states(self.model.device)
        for kind, found in self._importance().items():
            tensors |= {f"{kind}.{name}": value for name, value in found.items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state[weight].items():
                if torch.is_tensor(value):
                    tensors[f"optimizer.{key}.{name}"] = value
        state = {
            "run": self._identity(),
            "ranks": self.model.peft_config["default"].rank_pattern,
            "scaler": self.scaler.state_dict(),
            "tokens": self.tokens,
            "before": self.before,
            "best": self.best,
            "worse": self.worse,
            "losses": self.losses,
            "seconds": self._seconds(),
        }
        checkpoint.save(self.folder, self.step, tensors, state)
        self.saved = time.perf_counter()
        if stop:
            raise Stopped

    def _resume(self) -> bool:
        found = checkpoint.newest(self.folder) if self.folder is not None else None
        if found is None or found[1]["run"] != self._identity():
            return False
        tensors, state = found
        self._put({name: tensors[f"weight.{name}"] for name in self.weights})
        self.kept = {k.removeprefix("kept."): v for k, v in tensors.items() if k.startswith("kept.")}
        checkpoint.restore_random(tensors, self.model.device)
        self.scaler.load_state_dict(state["scaler"])
        for kind, own in self._importance().items():
            own |= {
                key.removeprefix(f"{kind}."): value.to(self.model.device)
                for key, value in tensors.items()
                if key.startswith(f"{kind}.")
            }
        self.model.peft_config["default"].rank_pattern = state["ranks"]
        for name, weight in self.weights.items():
            for key, value in tensors.items():
                if key.startswith("optimizer.") and key.endswith(f".{name}"):
                    kind = key.removeprefix("optimizer.").removesuffix(f".{name}")
                    self.optimizer.state[weight][kind] = value.to(
                        weight.device if value.dim() else value.device
                    )
        self.step, self.tokens, self.before = state["step"], state["tokens"], state["before"]
        self.best, self.worse, self.losses = state["best"], state["worse"], state["losses"]
        self.earlier_s = state["seconds"]
        print(f"going on from checkpoint-{self.step}", flush=True)
        return True

    def _importance(self) -> dict[str, dict[str, torch.Tensor]]:
        """What AdaLoRA knows of its weights, besides them."""
        if self.job.method != "adalora":
            return {}
        allocator = self.model.base_model.rankallocator
        return {kind: getattr(allocator, kind) for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")}

    def _identity(self) -> str:
        """Of data and settings: a checkpoint of another run is not gone on from."""
        import hashlib

        text = f"{self.job.model_dump_json()}{[[p.ids for p in step] for of in self.plan for step in of]}"
        return hashlib.sha256(text.encode()).hexdigest()
