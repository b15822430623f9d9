"""How a model is made trainable: the adapter that a method puts into it, and the optimizer that moves it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentkit.training.settings import JobSettings

if TYPE_CHECKING:
    import torch

_MOMENTUM = 0.9


def with_adapter(model: Any, job: JobSettings) -> Any:
    """The model, wrapped in place with a fresh adapter on every linear layer but the head."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        use_dora=job.method == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by an old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(model, config)


def make_optimizer(weights: Sequence[torch.nn.Parameter], job: JobSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings over these weights."""
    import torch

    if job.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=job.learning_rate, momentum=_MOMENTUM, weight_decay=job.weight_decay
        )
    return torch.optim.AdamW(weights, lr=job.learning_rate, weight_decay=job.weight_decay)
