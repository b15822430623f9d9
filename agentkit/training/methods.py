"""How a model is made trainable: the adapter that a method puts into it, and the optimizer that moves it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentkit.training.settings import LORA, JobSettings

if TYPE_CHECKING:
    import torch

_MOMENTUM = 0.9


def with_adapter(model: Any, job: JobSettings, steps: int) -> Any:
    """The model, wrapped in place, with an untrained adapter on all its linear layers.

    LoRA: arXiv:2106.09685; DoRA: arXiv:2402.09353; AdaLoRA: arXiv:2303.10512; QLoRA: arXiv:2305.14314, where the
    model must have been loaded with nf4 weights.

    Args:
        model: A transformers causal language model.
        job: Settings of the run.
        steps: Of the whole run; AdaLoRA's budget follows it.
    """
    from peft import AdaLoraConfig, LoraConfig, get_peft_model, prepare_model_for_kbit_training

    common: dict[str, Any] = {
        "lora_alpha": job.alpha,
        "lora_dropout": job.dropout,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    }
    if job.method == "adalora":
        # Ranks fall from one and a half times the target (PEFT needs one to give up) between a tenth and seven tenths
        # of the run.
        config: Any = AdaLoraConfig(
            init_r=job.rank + max(1, job.rank // 2), target_r=job.rank, tinit=steps // 10,
            tfinal=steps * 3 // 10, deltaT=max(1, steps // 50), total_step=max(steps, 2), **common,
        )  # fmt: skip
    else:
        config = LoraConfig(r=job.rank, use_dora=job.method == "dora", **common)
    if job.method == "qlora":
        model = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            model, use_gradient_checkpointing=False
        )
        _keep_differentiable(model)
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by an old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(model, config)


def _keep_differentiable(model: Any) -> None:
    """Let nf4 layers on a CPU keep the form that has a gradient.

    bitsandbytes packs their weights anew in the first pass in evaluation mode, for a kernel that cuts the graph without
    a word: after one look at the held-out chats nothing below the last layer would learn.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def exported(model: Any, base: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """The trained adapter as it is stored: its PEFT configuration, and its weights on the CPU by PEFT's names.

    AdaLoRA's singular values go into its matrices, without the ranks that it gave up: what remains is plain LoRA, which
    runs beside packed weights.

    Args:
        model: The PEFT model.
        base: Name of the model that was trained.
    """
    from peft import AdaLoraConfig, get_peft_model_state_dict

    config = model.peft_config["default"]
    if isinstance(config, AdaLoraConfig):
        config, weights = _without_singular_values(model)
    else:
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    config.base_model_name_or_path = base  # else the path of a folder on this machine
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # PEFT's set has another order in every process
    return config, {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}


def _without_singular_values(model: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    from peft import LoraConfig
    from peft.tuners.adalora import SVDLinear

    weights: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    layers: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, SVDLinear)
    ]
    for name, module in layers:
        a, b, values = (part["default"].detach() for part in (module.lora_A, module.lora_B, module.lora_E))
        kept = values.flatten() != 0
        kept[0] |= not kept.any()  # PEFT knows no rank of nothing
        scale = module.scaling["default"] / (module.ranknum["default"] + 1e-5)  # as in its forward pass
        weights[f"base_model.model.{name}.lora_A.weight"] = (a * values)[kept]
        weights[f"base_model.model.{name}.lora_B.weight"] = (b * scale)[:, kept]
        ranks[name] = int(kept.sum())
    widest = max(ranks.values())
    config = LoraConfig(
        r=widest,
        lora_alpha=widest,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        target_modules=sorted({name.rpartition(".")[2] for name in ranks}),
        task_type="CAUSAL_LM",
    )
    return config, weights


def orthogonality(model: Any) -> torch.Tensor:
    """What AdaLoRA adds to the loss, so that ranks can be told apart: a scalar (arXiv:2303.10512, equation 4).

    PEFT adds it to losses that a model computes itself; here the loss is computed outside.
    """
    import torch

    found = []
    for name, matrix in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            products = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            found.append(torch.linalg.matrix_norm(products - torch.eye(len(products), device=matrix.device)))
    weight: float = model.peft_config["default"].orth_reg_weight
    return torch.stack(found).mean() * weight


def make_optimizer(weights: Mapping[str, torch.nn.Parameter], job: JobSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings; each of its groups tells, as ``times``, how many times the learning rate it takes.

    An adapter's second matrices take more than the first ones (LoRA+, arXiv:2402.12354): both begin far apart, the
    second at zero, and what suits one is too slow for the other.

    Args:
        weights: What is learned, by name.
        job: Settings of the run.
    """
    import torch

    second = {name for name in weights if ".lora_B." in name} if job.method in LORA else set()
    parts = [
        ([weight for name, weight in weights.items() if name not in second], 1.0),
        ([weight for name, weight in weights.items() if name in second], job.loraplus_lr_ratio),
    ]
    groups = [{"params": part, "times": times} for part, times in parts if part]
    if job.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=job.learning_rate, momentum=_MOMENTUM, weight_decay=job.weight_decay
        )
    return torch.optim.AdamW(groups, lr=job.learning_rate, weight_decay=job.weight_decay)
