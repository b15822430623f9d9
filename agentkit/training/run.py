"""A training run, whatever is trained: steps, held-out measurements, checkpoints.

It can be interrupted at any moment and goes on from its newest checkpoint, step for step.
"""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import TrainingError
from agentkit.training import checkpoint
from agentkit.training.methods import make_optimizer
from agentkit.training.settings import JobSettings

if TYPE_CHECKING:
    import torch

Progress = dict[str, Any]
"""``{"step", "steps", "epoch", "loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "eta_s"}`` after each step;
epochs count from 1, ``val_loss`` is ``None`` but for the last step of an epoch, where ``scores`` may join it,
``grad_norm`` where the gradients were too large for float16 and the step was left out."""


class Stopped(Exception):
    """``should_stop`` said so; there is a checkpoint to go on from."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How a model does on examples it has not learned from."""

    loss: float
    """Mean, in nats per label."""
    scores: dict[str, float] = field(default_factory=dict)
    """What the task is judged by, e.g. ``accuracy``."""
    scored: int = 0
    """Examples that the scores are of."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model."""

    model: Any
    """In evaluation mode; a PEFT model where an adapter was trained."""
    train_loss: float
    """Mean over the steps of the last epoch, in nats per label, with variations, noise and dropout."""
    loss_before: float | None
    """Of the held-out examples; ``None`` where there are none."""
    loss_after: float | None
    steps: int
    held_out: int
    seconds: float
    """Of this run and of those it goes on from."""
    scores: dict[str, float] = field(default_factory=dict)
    """As the result is judged; empty for chats."""
    scored_on: str = ""
    """Split that the scores are of."""
    scored: int = 0
    """Examples of it that they are of."""


class Learner(ABC):
    """What a run trains, and how it learns from a step."""

    model: Any
    """Those of its weights that require a gradient are trained."""
    plan: list[list[Any]]
    """The steps of each epoch."""
    scaler: Any = None
    """A `torch.amp.GradScaler` where gradients would become zero in float16."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss, scaled if need be."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()

    @abstractmethod
    def learn(self, step: Any) -> tuple[float, int]:
        """Add the gradient of a step; returns its mean loss and the tokens that were read."""

    @abstractmethod
    def measure(self, rows: Sequence[Any]) -> Measured:
        """Loss and scores over rows; there must be some."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for equal plans only."""

    def after_step(self, step: int) -> None:  # noqa: B027 - most have nothing to do
        """Called when the optimizer has moved the weights for the ``step``-th time, while gradients are there."""

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """What has to be in a checkpoint besides weights and optimizer, by kind; the dictionaries are filled again."""
        return {}

    def state(self) -> Any:
        """The same for what is no tensor."""
        return None

    def restore(self, state: Any) -> None:  # noqa: B027 - as `state`
        """Take back what `state` gave."""


def rate(step: int, steps: int, job: JobSettings) -> float:
    """Share of the learning rate for a step, counted from 0: warm-up from zero, then decay to zero."""
    warmup = max(1, round(steps * job.warmup)) if job.warmup else 0
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup + 0.5) / max(1, steps - warmup))
    falling = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return falling[job.schedule]


@dataclass
class Run:
    """One run.

    Args:
        job: Its settings.
        learner: What is trained.
        held_out: Rows to measure by before, after and between the epochs.
        on_progress: Called after each step.
        folder: Where to keep checkpoints, and to go on from the newest whole one of the same run.
        should_stop: Asked after each step.
    """

    job: JobSettings
    learner: Learner
    held_out: Sequence[Any]
    on_progress: Callable[[Progress], None]
    folder: Path | None = None
    should_stop: Callable[[], bool] | None = None
    step: int = 0
    """Steps that are done."""
    tokens: int = 0
    before: float | None = None
    after: Measured | None = None
    """As it was last measured."""
    best: Measured | None = None
    worse: int = 0
    """Epochs since the best."""
    losses: list[float] = field(default_factory=list)
    """Of the steps of this epoch."""
    earlier_s: float = 0.0
    """Seconds that the runs before this one took."""
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    """The best weights so far, with patience."""

    def __post_init__(self) -> None:
        named = self.learner.model.named_parameters()
        self.weights = {name: weight for name, weight in named if weight.requires_grad}
        self.device = next(iter(self.weights.values())).device
        self.optimizer: Any = make_optimizer(self.weights, self.job)
        self.steps = sum(map(len, self.learner.plan))
        self.started = self.saved = time.perf_counter()

    def train(self) -> Trained:
        """Take the steps that are left.

        Raises:
            TrainingError: The loss, or the norm of the gradient, is no longer a number.
            Stopped: After a checkpoint, because ``should_stop`` said so.
            OSError: A checkpoint cannot be written.
        """
        if not self._resume() and self.held_out:
            self.after = self.learner.measure(self.held_out)
            self.before = self.after.loss
        self.begun, self.speed_from = time.perf_counter(), self.tokens
        done = 0
        for epoch, of_epoch in enumerate(self.learner.plan, 1):
            done += len(of_epoch)
            if done <= self.step:
                continue
            if self.job.patience is not None and self.worse >= self.job.patience:
                break
            self._epoch(epoch, of_epoch, done)
        if self.kept:
            self._put(self.kept)
            self.after = self.best
        self.learner.model.eval()
        return Trained(
            self.learner.model,
            sum(self.losses) / len(self.losses),
            self.before,
            self.after.loss if self.after else None,
            self.step,
            len(self.held_out),
            self._seconds(),
            self.after.scores if self.after else {},
            "validation" if self.held_out else "",
            self.after.scored if self.after else 0,
        )

    def _epoch(self, epoch: int, of_epoch: list[Any], end: int) -> None:
        begin = end - len(of_epoch)
        if self.step == begin:
            self.losses = []
        for number in range(self.step, end):
            progress = self._take(of_epoch[number - begin], epoch)
            if self.step == end and self.held_out:
                self.after = self.learner.measure(self.held_out)
                progress["val_loss"] = round(self.after.loss, 4)
                if self.after.scores:
                    progress["scores"] = {key: round(value, 4) for key, value in self.after.scores.items()}
                self._judge(self.after)
            self.on_progress(progress)
            self._checkpoint()

    def _take(self, step: Any, epoch: int) -> Progress:
        self.learner.model.train()
        lr = self.job.learning_rate * rate(self.step, self.steps, self.job)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["times"]
        loss, tokens = self.learner.learn(step)
        self.step += 1
        norm = self._update(loss)
        self.learner.after_step(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss)
        self.tokens += tokens
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

    def _update(self, loss: float) -> float | None:
        """Move the weights by their gradients; returns the norm of those, or ``None`` where they overflowed."""
        import torch

        scaler = self.learner.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), self.job.clip))
        if not math.isfinite(loss) or (scaler is None and not math.isfinite(norm)):
            remedy = "lower learning_rate" + ", or use precision fp32" * (scaler is not None)
            what = f"loss is {loss}" if not math.isfinite(loss) else f"norm of the gradient is {norm}"
            raise TrainingError(f"the {what} at step {self.step}", remedy)
        if scaler is None:
            self.optimizer.step()
            return norm
        scaler.step(self.optimizer)  # does nothing where gradients have overflowed
        scaler.update()
        if math.isfinite(norm):
            return norm
        if scaler.get_scale() < 1:
            raise TrainingError(f"gradients overflow at step {self.step}", "use precision fp32")
        for weight in self.weights.values():
            if weight.grad is not None:  # AdaLoRA still looks at it
                weight.grad.zero_()
        return None

    def _judge(self, after: Measured) -> None:
        if self.best is None or after.loss < self.best.loss:
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
        tensors |= checkpoint.random_states(self.device)
        for kind, found in self.learner.tensors().items():
            tensors |= {f"{kind}.{name}": value for name, value in found.items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state[weight].items():
                if torch.is_tensor(value):
                    tensors[f"optimizer.{key}.{name}"] = value
        state = {
            "run": self._identity(),
            "learner": self.learner.state(),
            "scaler": self.learner.scaler and self.learner.scaler.state_dict(),
            "tokens": self.tokens,
            "before": self.before,
            "after": asdict(self.after) if self.after else None,
            "best": asdict(self.best) if self.best else None,
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
        if found is None:
            return False
        tensors, state = found
        if state["run"] != self._identity():
            print(f"checkpoint-{state['step']} is of another run: this one begins anew", flush=True)
            return False
        self._put({name: tensors[f"weight.{name}"] for name in self.weights})
        self.kept = {k.removeprefix("kept."): v for k, v in tensors.items() if k.startswith("kept.")}
        checkpoint.restore_random(tensors, self.device)
        for kind, own in self.learner.tensors().items():
            saved = {k.removeprefix(f"{kind}."): v for k, v in tensors.items() if k.startswith(f"{kind}.")}
            own |= {name: value.to(self.device) for name, value in saved.items()}
        self.learner.restore(state["learner"])
        if self.learner.scaler is not None and state["scaler"]:  # not where the run began on another device
            self.learner.scaler.load_state_dict(state["scaler"])
        for name, weight in self.weights.items():
            for key, value in tensors.items():
                if key.startswith("optimizer.") and key.endswith(f".{name}"):
                    kind = key.removeprefix("optimizer.").removesuffix(f".{name}")
                    self.optimizer.state[weight][kind] = value.to(
                        weight.device if value.dim() else value.device
                    )
        self.step, self.tokens, self.before = state["step"], state["tokens"], state["before"]
        self.after, self.best = (Measured(**state[key]) if state[key] else None for key in ("after", "best"))
        self.worse, self.losses, self.earlier_s = state["worse"], state["losses"], state["seconds"]
        print(f"going on from checkpoint-{self.step}", flush=True)
        return True

    def _identity(self) -> str:
        """Of data and settings: a checkpoint of another run is not gone on from."""
        text = f"{self.job.model_dump_json()}{self.learner.fingerprint()}"
        return hashlib.sha256(text.encode()).hexdigest()
