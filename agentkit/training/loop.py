"""Training an adapter of a chat model, with loss on the assistant's tokens alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.engine.peft_files import LowRank
from agentkit.training import fused
from agentkit.training.data import IGNORED, Row
from agentkit.training.loss import can_share, loss_sum, shared_attention
from agentkit.training.memory import keep_memory
from agentkit.training.methods import orthogonality, with_adapter
from agentkit.training.neftune import noisy_embeddings
from agentkit.training.packing import Pack, pack, padded
from agentkit.training.plan import PACK_TOKENS, Step, steps
from agentkit.training.precision import Numbers, choose
from agentkit.training.run import Learner, Measured, Progress, Run, Stopped, Trained, rate
from agentkit.training.settings import JobSettings
from agentkit.training.warm_start import initialize

if TYPE_CHECKING:
    import torch

__all__ = ["Progress", "Stopped", "Trained", "evaluate", "rate", "train"]


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
        learner = _ChatLearner(job, tuned, plan, shared, numbers)
        return Run(job, learner, held_out, on_progress, checkpoint_dir, should_stop).train()


def evaluate(model: Any, rows: Sequence[Row], *, shared: bool) -> float:
    """Mean loss per assistant token, in nats."""
    import torch

    model.eval()
    with torch.inference_mode():
        packs = pack(rows, PACK_TOKENS)
        packs = packs if shared else padded(packs, PACK_TOKENS)
        total = sum(float(loss_sum(model, packed, shared=shared)) for packed in packs)
    return total / sum(row.weight * (label != IGNORED) for row in rows for label in row.labels[1:])


class _ChatLearner(Learner):
    def __init__(
        self, job: JobSettings, model: Any, plan: list[list[Step]], shared: bool, numbers: Numbers
    ) -> None:
        self.model, self.scaler = model, numbers.scaler()
        most = min(PACK_TOKENS, job.batch_tokens)
        self.plan = plan if shared else [[padded(step, most) for step in epoch] for epoch in plan]
        self._is_adalora, self._shared = job.method == "adalora", shared
        self._numbers, self._noise = numbers, job.neftune_alpha

    def learn(self, step: Step) -> tuple[float, int]:
        learned = sum(packed.learned for packed in step)
        loss = 0.0
        for packed in step:
            part = self._loss(packed) / learned
            self.backward(part)
            loss += float(part.detach())
        if self._is_adalora:
            self.backward(orthogonality(self.model))
        return loss, sum(len(row.ids) for packed in step for group in packed.groups for row in group.rows)

    def measure(self, rows: Sequence[Row]) -> Measured:
        with self._numbers.context():
            return Measured(evaluate(self.model, rows, shared=self._shared))

    def _loss(self, packed: Pack) -> torch.Tensor:
        alpha = 0.0 if packed.keep else self._noise  # what is kept is what the model says without noise
        noise = noisy_embeddings(self.model, packed, alpha, shared=self._shared)
        with self._numbers.context(), noise:
            return loss_sum(self.model, packed, shared=self._shared)

    def fingerprint(self) -> str:
        # Lengths will do, as the settings hold the digest of the data: some templates tell the day, which may pass.
        every = [step for epoch in self.plan for step in epoch]
        return str(
            [
                [(len(packed.ids), len(packed.targets), packed.learned, packed.keep) for packed in step]
                for step in every
            ]
        )

    def after_step(self, step: int) -> None:
        if self._is_adalora:
            self.model.base_model.update_and_allocate(step)

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """What AdaLoRA knows of its weights, besides them."""
        if not self._is_adalora:
            return {}
        allocator = self.model.base_model.rankallocator
        return {kind: getattr(allocator, kind) for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")}

    def state(self) -> Any:
        """The ranks that AdaLoRA has left."""
        return self.model.peft_config["default"].rank_pattern

    def restore(self, state: Any) -> None:
        self.model.peft_config["default"].rank_pattern = state
