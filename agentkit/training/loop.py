"""A training run that can be interrupted at any moment and goes on from its newest checkpoint, step for step."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentkit.errors import TrainingError
from agentkit.settings import private_dir
from agentkit.training.data import Row
from agentkit.training.lora import Batch, Progress, Trained, batches, evaluate, loss_of, rate
from agentkit.training.methods import make_optimizer, with_adapter
from agentkit.training.settings import JobSettings

_STATE = "state.pt"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass
class _State:
    """What a run has done so far, besides weights, optimizer and random numbers."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Of the steps of this epoch."""
    before: float | None = None
    after: float | None = None
    """Of the held-out rows, after the last whole epoch."""
    best: float = math.inf
    waited: int = 0
    """Epochs since the best."""


class Stopped(Exception):
    """`should_stop` said so; a checkpoint has been written."""


def train(
    job: JobSettings,
    model: Any,
    rows: Sequence[Row],
    on_progress: Callable[[Progress], None],
    *,
    checkpoint_dir: Path | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trained:
    """Train an adapter on the model, which is wrapped in place.

    Args:
        job: Settings of the run.
        model: A transformers causal language model, not quantized.
        rows: Conversations as `encode` gives them, to learn from or to validate by.
        on_progress: Called after each step.
        checkpoint_dir: Where checkpoints are written; a run that finds one goes on from there.
        should_stop: Asked after each step.

    Raises:
        TrainingError: The loss is no longer a number.
        Stopped: `should_stop` said so.
    """
    run = _Run(job, model, rows, on_progress, checkpoint_dir)
    return run.train(should_stop or (lambda: False))


class _Run:
    def __init__(
        self,
        job: JobSettings,
        model: Any,
        rows: Sequence[Row],
        on_progress: Callable[[Progress], None],
        checkpoints: Path | None,
    ) -> None:
        import torch

        torch.manual_seed(job.seed)
        self._job, self._tell, self._checkpoints = job, on_progress, checkpoints
        order = random.Random(job.seed)
        learn = [row for row in rows if row.split == "train"]
        self._held_out = [row for row in rows if row.split == "validation"]
        self._plan: list[tuple[int, Batch]] = [
            (epoch, batch) for epoch in range(1, job.epochs + 1) for batch in batches(learn, job, order)
        ]
        self.model = with_adapter(model, job)
        self._weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._optimizer = make_optimizer(self._weights, job)
        self._state = _State()
        self._best: dict[str, Any] | None = None

    def train(self, should_stop: Callable[[], bool]) -> Trained:
        import torch

        state, steps = self._state, len(self._plan)
        self._load()
        if state.step == 0 and self._held_out:
            state.before = evaluate(self.model, self._held_out, self._job)
        began, saved = time.perf_counter() - state.seconds, time.perf_counter()
        self.model.train()
        while state.step < steps and not self._is_enough():
            epoch, batch = self._plan[state.step]
            if state.step and self._plan[state.step - 1][0] != epoch:
                state.losses = []
            for group in self._optimizer.param_groups:
                group["lr"] = self._job.learning_rate * rate(state.step, steps, self._job)
            loss = loss_of(self.model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(self._weights, self._job.clip))
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            state.losses.append(float(loss.detach()))
            state.step += 1
            if not math.isfinite(state.losses[-1]):
                raise TrainingError(
                    f"the loss is {state.losses[-1]} at step {state.step}", "lower learning_rate"
                )
            state.tokens += sum(len(row.ids) for row in batch)
            is_last = state.step == steps or self._plan[state.step][0] != epoch
            held_out = self._end_epoch() if is_last else None
            state.seconds = time.perf_counter() - began
            self._tell(self._progress(epoch, norm, held_out))
            stop = should_stop()
            if stop or time.perf_counter() - saved > self._job.checkpoint_every_s:
                self._save()
                saved = time.perf_counter()
            if stop and state.step < steps:
                raise Stopped
        if self._best is not None:
            self._set_weights(self._best)
        self.model.eval()
        mean = sum(state.losses) / len(state.losses) if state.losses else math.nan
        after = state.best if self._best is not None else state.after
        return Trained(self.model, mean, state.before, after, state.step, len(self._held_out), state.seconds)

    def _is_enough(self) -> bool:
        return self._job.patience is not None and self._state.waited >= self._job.patience

    def _end_epoch(self) -> float | None:
        state = self._state
        if not self._held_out:
            return None
        state.after = evaluate(self.model, self._held_out, self._job)
        self.model.train()
        state.waited += 1
        if state.after < state.best:
            state.best, state.waited = state.after, 0
            if self._job.patience is not None:
                self._best = self._get_weights()
        return state.after

    def _progress(self, epoch: int, norm: float, held_out: float | None) -> Progress:
        state, steps = self._state, len(self._plan)
        return {
            "step": state.step,
            "steps": steps,
            "epoch": epoch,
            "loss": round(state.losses[-1], 4),
            "val_loss": None if held_out is None else round(held_out, 4),
            "lr": self._optimizer.param_groups[0]["lr"],
            "grad_norm": round(norm, 4),
            "tokens_per_s": round(state.tokens / state.seconds, 1),
            "eta_s": round(state.seconds / state.step * (steps - state.step), 1),
        }

    def _get_weights(self) -> dict[str, Any]:
        from peft import get_peft_model_state_dict

        weights = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        return {key: value.detach().cpu().clone() for key, value in weights.items()}

    def _set_weights(self, weights: dict[str, Any]) -> None:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, weights)

    def _save(self) -> None:
        """Write a checkpoint, whole or not at all; then those before it are of no more use."""
        import torch

        if self._checkpoints is None:
            return
        private_dir(self._checkpoints)
        stage = self._checkpoints / ".checkpoint.tmp"
        shutil.rmtree(stage, ignore_errors=True)
        private_dir(stage)
        state = {
            "state": asdict(self._state),
            "weights": self._get_weights(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        with (stage / _STATE).open("wb") as handle:
            torch.save(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        path = self._checkpoints / f"checkpoint-{self._state.step}"
        shutil.rmtree(path, ignore_errors=True)
        os.rename(stage, path)
        for other in self._checkpoints.glob("checkpoint-*"):
            if other != path:
                shutil.rmtree(other, ignore_errors=True)

    def _load(self) -> None:
        import torch

        found = (
            sorted(
                (
                    (int(match[1]), path)
                    for path in self._checkpoints.iterdir()
                    if (match := _CHECKPOINT.fullmatch(path.name))
                ),
                reverse=True,
            )
            if self._checkpoints is not None and self._checkpoints.is_dir()
            else []
        )
        for _, path in found:
            try:
                state = torch.load(path / _STATE, weights_only=True)
            except Exception as error:  # torch raises whatever a torn file makes it stumble on
                print(f"{path.name} is damaged and left out: {error}", flush=True)
                continue
            self._set_weights(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            self._best = state["best"]
            for key, value in state["state"].items():
                setattr(self._state, key, value)
            print(f"going on from {path.name}", flush=True)
            return
