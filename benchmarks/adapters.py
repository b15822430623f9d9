"""What LoRA adapters cost beside packed weights, and how long a swap takes.

    python benchmarks/adapters.py                # prints the result, writes docs/benchmarks/adapters.json

The embedded model without an adapter and with random ones of two ranks on all linears take turns, round by round; the
medians over the rounds count. A random adapter costs what a trained one costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import positive, write
from safetensors.torch import save_file

from agentkit.assets import asset_path
from agentkit.engine.packed_lora import PRODUCTS, PackedLora
from agentkit.engine.weights import LoadedModel, load_weights

RANKS = (16, 32)
ROWS = (1, 4, 8)
TOKENS = 64
PREFILL = 1024
TEXT = "You can return any unused item within 30 days of delivery. "


def adapter_folder(loaded: LoadedModel, rank: int, folder: Path) -> Path:
    """A random adapter of all linears, as PEFT saves them."""
    tensors = {}
    for number, layer in enumerate(loaded.model.model.layers):
        for owner, names in PRODUCTS:
            for name in names:
                linear = getattr(getattr(layer, owner), name)
                key = f"base_model.model.model.layers.{number}.{owner}.{name}"
                tensors[f"{key}.lora_A.weight"] = (
                    torch.randn(rank, linear.in_features) / linear.in_features**0.5
                )
                tensors[f"{key}.lora_B.weight"] = torch.randn(linear.out_features, rank) * 0.01
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {key: tensor.bfloat16() for key, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )
    return folder


@torch.inference_mode()
def decode(loaded: LoadedModel, prompt: list[int], adapter: PackedLora | None, rows: int) -> float:
    """Tokens a second of conversations that decode together."""
    caches = [loaded.new_cache(adapter) for _ in range(rows)]
    for cache in caches:
        loaded.forward(prompt[:64], cache)
    started = time.perf_counter()
    for _ in range(TOKENS):
        loaded.forward_batch([prompt[64:65]] * rows, caches, [1] * rows)
    return rows * TOKENS / (time.perf_counter() - started)


def prefill(loaded: LoadedModel, prompt: list[int], adapter: PackedLora | None) -> float:
    """Tokens a second of a prompt."""
    cache = loaded.new_cache(adapter)
    started = time.perf_counter()
    loaded.forward(prompt, cache)
    return len(prompt) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=15)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    loaded = load_weights(asset_path("smollm2-135m"))
    prompt = loaded.tokenizer.encode(TEXT * 100)[:PREFILL]
    adapters: dict[str, PackedLora | None] = {"none": None}
    swap: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rank in RANKS:
            path = adapter_folder(loaded, rank, Path(folder) / f"rank {rank}")
            for _ in range(5):
                started = time.perf_counter()
                adapters[path.name] = loaded.load_adapter(path)
                swap.setdefault(path.name, []).append(time.perf_counter() - started)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in adapters}
    for turn in range(rounds + 1):
        for name, adapter in adapters.items():
            found = {f"decode, {n} at once": decode(loaded, prompt, adapter, n) for n in ROWS}
            found["prefill"] = prefill(loaded, prompt, adapter)
            for what, speed in found.items():
                if turn:  # the first round pays for allocation and threads
                    times[name].setdefault(what, []).append(speed)
    body: dict[str, Any] = {
        "quantization": loaded.quantization,
        "prefill_tokens": len(prompt),
        "tokens": TOKENS,
        "adapters": {},
    }
    for name, adapter in adapters.items():
        row: dict[str, Any] = {what: round(statistics.median(all), 1) for what, all in times[name].items()}
        row["share"] = {
            what: round(statistics.median(a / b for a, b in zip(all, times["none"][what], strict=True)), 3)
            for what, all in times[name].items()
        }
        if adapter is not None:
            row |= {"bytes": adapter.bytes(), "load_seconds": round(statistics.median(swap[name]), 3)}
        body["adapters"][name] = row
    print(json.dumps(body, indent=1))
    write("adapters.json", body)


if __name__ == "__main__":
    main()
