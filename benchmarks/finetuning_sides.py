"""The sides of `finetuning.py`: one training, or the losses of adapters, in this process.

    python benchmarks/finetuning_sides.py agentkit|trl|tuned --data ROWS.json --out DIR --max-length N --device cpu
    python benchmarks/finetuning_sides.py losses --data ROWS.json --adapters DIR ...

Each prints one JSON object or list, its last line.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.training.data import Row

MODEL = "smollm2-135m"
SEED = 6
RANK, ALPHA = 16, 32
LEARNING_RATE, WARMUP = 1e-3, 0.1
BATCH = 8


def save_rows(rows: list[Row], path: Path) -> None:
    path.write_text(json.dumps([[row.ids, row.labels] for row in rows]), encoding="utf-8")


def load_rows(path: Path) -> list[Row]:
    from agentkit.training.data import Row

    return [Row(ids, labels) for ids, labels in json.loads(path.read_text(encoding="utf-8"))]


def train_agentkit(rows: list[Row], out: Path, most: int, device: Any) -> dict[str, Any]:
    """By `agentkit.training.loop`, as a job of `agentkit finetune` runs it, with the settings' own defaults."""
    from safetensors.torch import save_file

    from agentkit.assets import asset_path
    from agentkit.engine.weights import load_weights
    from agentkit.training import loop
    from agentkit.training.methods import exported
    from agentkit.training.settings import make_settings

    settings = make_settings(
        {
            "name": MODEL, "model_name": MODEL, "model_source": str(asset_path(MODEL)), "data_name": "traces",
            "data_sha256": "", "adapters_dir": out, "device": device, "epochs": 1, "max_length": most, "rank": RANK,
            "alpha": ALPHA, "learning_rate": LEARNING_RATE, "warmup": WARMUP, "batch_size": BATCH, "seed": SEED,
        }
    )  # fmt: skip
    loaded = load_weights(settings.model_source, name=MODEL, device=device, quantize="none", trainable=True)
    dtype = str(loaded.model.dtype)
    losses: list[float] = []
    trained = loop.train(settings, loaded.model, rows, lambda progress: losses.append(progress["loss"]))
    peak = _peak(device)
    config, weights = exported(trained.model, MODEL)
    config.save_pretrained(out)
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return {
        "seconds": trained.seconds,
        "steps": trained.steps,
        "loss": losses[-1],
        "dtype": dtype,
        "peak_bytes": peak,
    }


def train_trl(rows: list[Row], out: Path, most: int, device: str, *, tuned: bool) -> dict[str, Any]:
    """By TRL's SFTTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from agentkit.assets import asset_path

    class Clock(TrainerCallback):  # type: ignore[misc]
        """The training alone, from its first step to its last."""

        started = seconds = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.started

    changed: dict[str, Any] = {}
    if tuned:
        changed = {"gradient_checkpointing": False, "model_init_kwargs": {"dtype": "bfloat16"}}
    config = SFTConfig(
        str(out / "run"), use_cpu=device == "cpu", num_train_epochs=1, learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine", warmup_steps=WARMUP, per_device_train_batch_size=BATCH,
        max_length=max(1024, most), seed=SEED, save_strategy="no", report_to="none", disable_tqdm=True, **changed,
    )  # fmt: skip
    clock = Clock()
    trainer = SFTTrainer(
        model=str(asset_path(MODEL)),
        args=config,
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}
        ),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[clock],
    )
    weights = {p.dtype for name, p in trainer.model.named_parameters() if "lora_" not in name}
    if len(trainer.train_dataset) != len(rows):
        raise SystemExit("TRL has left out traces: the sides would not learn from the same")
    trainer.train()
    peak = _peak(device)
    trainer.model.save_pretrained(out)
    (dtype,) = weights
    autocast = trainer.args.bf16 and dtype != torch.bfloat16
    log = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "seconds": clock.seconds,
        "steps": trainer.state.global_step,
        "loss": log[-1] if log else None,
        "dtype": f"{dtype}{', bf16 autocast' if autocast else ''}",
        "peak_bytes": peak,
    }


def held_out_losses(rows: list[Row], adapters: list[Path]) -> list[float]:
    """Mean loss per label, in nats: without an adapter, then with each; fp32, each trace read by itself."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from agentkit.assets import asset_path
    from agentkit.training.loop import evaluate

    losses = []
    for adapter in (None, *adapters):
        model = AutoModelForCausalLM.from_pretrained(asset_path(MODEL), dtype=torch.float32)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter))
        losses.append(evaluate(model, rows, shared=False))
    return losses


def _peak(device: str) -> int:
    """Most memory that this process has held so far, bytes; on a GPU what torch held there."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("agentkit", "trl", "tuned", "losses"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/finetuning"))
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--adapters", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    import torch

    rows = load_rows(options.data)
    found: Any
    if options.what == "losses":
        found = held_out_losses(rows, options.adapters)
    else:
        options.out.mkdir(parents=True)
        if options.what == "agentkit":
            found = train_agentkit(rows, options.out, options.max_length, options.device)
        else:
            tuned = options.what == "tuned"
            found = train_trl(rows, options.out, options.max_length, options.device, tuned=tuned)
        found["threads"] = torch.get_num_threads()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
