"""Decoding and prefill on this CPU, side by side in one run: agentkit's kernels against plain `generate`.

    python benchmarks/speed.py                   # prints a table, writes docs/benchmarks/speed.json

Every engine has the same weights, prompt and threads. Medians over `--runs`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64
PREFILL = 1024
TEXT = "You can return any unused item within 30 days of delivery. "


def median(measure: Callable[[], float], runs: int) -> float:
    measure()  # the first run pays for allocation and thread start
    return statistics.median(measure() for _ in range(runs))


def ours(quantize: Any, runs: int) -> dict[str, float]:
    from agentkit.build import _source
    from agentkit.engine.decode import Sampler, decode
    from agentkit.engine.ledger import Ledger
    from agentkit.engine.weights import load_weights
    from agentkit.settings import SamplingSettings

    loaded = load_weights(_source("smollm2-135m"), quantize=quantize)
    prompt = loaded.tokenizer.encode(TEXT * 100)[:PREFILL]

    def decoding() -> float:
        ledger = Ledger(loaded)
        ledger.align(prompt[:64])
        ledger.logits()
        ledger.ids.append(prompt[64])
        started = time.perf_counter()
        for _ in decode(
            ledger, Sampler(SamplingSettings(), "cpu"), stop_ids=frozenset(), max_new_tokens=TOKENS
        ):
            pass
        return TOKENS / (time.perf_counter() - started)

    def prefill() -> float:
        ledger = Ledger(loaded)
        ledger.align(prompt)
        started = time.perf_counter()
        ledger.logits()
        return PREFILL / (time.perf_counter() - started)

    return {"decode": median(decoding, runs), "prefill": median(prefill, runs)}


def generate(dtype: torch.dtype, runs: int) -> dict[str, float]:
    """transformers' `generate`, greedy."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from agentkit.assets import asset_path

    folder = asset_path("smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    prompt = torch.tensor([AutoTokenizer.from_pretrained(folder).encode(TEXT * 100)[:PREFILL]])

    def timed(ids: torch.Tensor, tokens: int) -> float:
        started = time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        return time.perf_counter() - started

    def decoding() -> float:
        first = timed(prompt[:, :64], 1)
        return TOKENS / (timed(prompt[:, :64], TOKENS + 1) - first)

    return {"decode": median(decoding, runs), "prefill": median(lambda: PREFILL / timed(prompt, 1), runs)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/speed.json")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    engines: list[tuple[str, Callable[[], dict[str, float]]]] = [
        ("transformers generate, bfloat16", lambda: generate(torch.bfloat16, options.runs)),
        ("transformers generate, float32", lambda: generate(torch.float32, options.runs)),
        ("agentkit, none", lambda: ours("none", options.runs)),
        ("agentkit, int8", lambda: ours("int8", options.runs)),
        ("agentkit, int4", lambda: ours("int4", options.runs)),
        ("agentkit, nf4 (bitsandbytes)", lambda: ours("nf4", options.runs)),
    ]
    print("| engine | decode tok/s | prefill tok/s |\n|---|---|---|")
    for name, measure in engines:
        rows[name] = {key: round(value, 1) for key, value in measure().items()}
        print(f"| {name} | {rows[name]['decode']} | {rows[name]['prefill']} |", flush=True)
    machine = {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    body = {"machine": machine, "tokens": TOKENS, "prefill_tokens": PREFILL, "tokens_per_second": rows}
    options.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
