"""Random LoRA adapters as PEFT saves them, for any Llama-class model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINEARS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


def write_adapter(
    folder: Path,
    model: Any,
    *,
    base: str = "",
    rank: int = 8,
    seed: int = 0,
    size: float = 0.02,
    names: Sequence[str] = (),
    **config: Any,
) -> Path:
    """An adapter for the linears of a model, or for those of some names; with ``base`` as `finetune` describes it."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    held = {}
    for number, layer in enumerate(model.model.layers):
        for owner, linears in LINEARS.items():
            for name in linears:
                if names and name not in names:
                    continue
                linear = getattr(getattr(layer, owner), name)
                key = f"base_model.model.model.layers.{number}.{owner}.{name}"
                a = torch.randn(rank, linear.in_features, generator=random) * linear.in_features**-0.5
                held[f"{key}.lora_A.weight"] = a
                held[f"{key}.lora_B.weight"] = torch.randn(linear.out_features, rank, generator=random) * size
    folder.mkdir(parents=True)
    targets = list(names) or [name for linears in LINEARS.values() for name in linears]
    body = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(body | config), encoding="utf-8")
    save_file(held, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if base:
        card = {"base": base, "data": "chats.jsonl", "data_sha256": "ab", "examples": 24, "duplicates": 0, "cut": 0,
                "epochs": 1, "steps": 6, "train_loss": 1.0, "loss_before": 2.0, "loss_after": 1.0, "seconds": 1.0,
                "created": "2025-01-01T00:00:00+00:00", "version": "0.1.0"}  # fmt: skip
        (folder / "agentkit.json").write_text(json.dumps(card), encoding="utf-8")
    return folder
