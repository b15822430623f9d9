"""Decoding and prefill on a GPU: agentkit's forward pass and transformers' `generate`, side by side.

    python benchmarks/gpu.py                     # prints a table, writes docs/benchmarks/gpu.json
    python benchmarks/gpu.py --compiled          # also transformers with a static cache, compiled; a minute more

Every engine has the same weights, prompt and GPU, and they take turns, round by round; the medians over the rounds
count. Decoding is greedy, token by token, each token brought to the processor before the next.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import machine, positive, write

from agentkit.assets import asset_path
from agentkit.engine.decode import Sampler, decode
from agentkit.engine.ledger import Ledger
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel, load_weights
from agentkit.settings import SamplingSettings

MODEL = "smollm2-135m"
TOKENS = 128
PREFILL = 1024
DEEP = 6144
AT_ONCE = 8
TEXT = "You can return any unused item within 30 days of delivery. "


@dataclass
class Engine:
    """One way to compute; each measure runs once and gives tokens a second."""

    name: str
    decoding: Callable[[int], float]
    """Behind a prompt of so many tokens."""
    prefill: Callable[[], float]
    together: Callable[[], float] | None = None
    """Of `AT_ONCE` conversations together."""
    weight_bytes: int = 0


def prompt_of(tokenizer: Any, length: int) -> list[int]:
    ids: list[int] = tokenizer.encode(TEXT * (length // 8))[:length]
    return ids


def timed(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def ours(name: str, loaded: LoadedModel, adapter: Any = None) -> Engine:
    """agentkit's, as a chat runs it."""

    def begun(length: int) -> Ledger:
        ledger = Ledger(loaded, adapter=adapter)
        ledger.align(prompt_of(loaded.tokenizer, length))
        token = int(ledger.logits().argmax())
        ledger.ids.append(token)
        return ledger

    def answer(ledger: Ledger, tokens: int) -> None:
        sampler = Sampler(SamplingSettings(), "cuda")
        for _ in decode(ledger, sampler, stop_ids=frozenset(), max_new_tokens=tokens):
            pass

    def decoding(length: int) -> float:
        ledger = begun(length)
        answer(ledger, 3)  # what is recorded is recorded
        return TOKENS / timed(lambda: answer(ledger, TOKENS))

    def prefill() -> float:
        ledger = Ledger(loaded, adapter=adapter)
        ledger.align(prompt_of(loaded.tokenizer, PREFILL))
        return PREFILL / timed(ledger.logits)

    def together() -> float:
        from concurrent.futures import ThreadPoolExecutor

        from agentkit.engine.decode import decoding as loop

        scheduler = Scheduler(loaded)
        ledgers = [begun(64) for _ in range(AT_ONCE)]

        def one(ledger: Ledger) -> None:
            sampler = Sampler(SamplingSettings(), "cuda")
            for _ in scheduler.run(loop(ledger, sampler, stop_ids=frozenset(), max_new_tokens=TOKENS)):
                pass

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return AT_ONCE * TOKENS / timed(lambda: list(pool.map(one, ledgers)))

    return Engine(name, decoding, prefill, together, loaded.info()["weight_bytes"])


def theirs(name: str, model: Any, tokenizer: Any, **options: Any) -> Engine:
    """transformers' `generate`."""

    def room(length: int) -> None:
        """A static cache is as long as the longest before it, and every step reads all of it."""
        model._previous_max_cache_length = length

    def run(ids: torch.Tensor, tokens: int) -> None:
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
            do_sample=False, **options,
        )  # fmt: skip

    def decoding(length: int) -> float:
        ids = torch.tensor([prompt_of(tokenizer, length)], device="cuda")
        room(length + TOKENS)
        first = timed(lambda: run(ids, 1))
        return TOKENS / (timed(lambda: run(ids, TOKENS + 1)) - first)

    def prefill() -> float:
        ids = torch.tensor([prompt_of(tokenizer, PREFILL)], device="cuda")
        room(PREFILL)
        return PREFILL / timed(lambda: run(ids, 1))

    def together() -> float:
        ids = torch.tensor([prompt_of(tokenizer, 64)] * AT_ONCE, device="cuda")
        room(64 + TOKENS)
        first = timed(lambda: run(ids, 1))
        return AT_ONCE * TOKENS / (timed(lambda: run(ids, TOKENS + 1)) - first)

    return Engine(name, decoding, prefill, together, model.get_memory_footprint())


def engines(compiled: bool) -> list[Engine]:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from agentkit.build.models import adapter_folder

    folder = asset_path(MODEL)
    found = []
    for quantize in ("none", "nf4", "int8"):
        loaded = load_weights(folder, device="cuda", quantize=quantize)
        print(loaded.info(), flush=True)
        found.append(ours(f"agentkit, {loaded.quantization}", loaded))
        if quantize == "none":
            shipped = adapter_folder("shipped", MODEL)
            if shipped is not None:
                found.append(
                    ours(
                        "agentkit, none, with the shipped adapter", loaded, loaded.load_adapter(shipped.path)
                    )
                )
            plain = load_weights(folder, device="cuda", quantize="none")
            plain.decoder._recorder = None  # type: ignore[union-attr]
            found.append(ours("agentkit, none, nothing recorded", plain))
    tokenizer = loaded.tokenizer
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map={"": "cuda"}).eval()
    found.append(theirs("transformers generate, bf16", model, tokenizer))
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    quantized = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": "cuda"}, quantization_config=nf4
    ).eval()
    found.append(theirs("transformers generate, nf4", quantized, tokenizer))
    if compiled:
        other = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, device_map={"": "cuda"}
        ).eval()
        name = "transformers generate, bf16, static cache, compiled"
        found.append(theirs(name, other, tokenizer, cache_implementation="static"))
    return found


def measured(engine: Engine) -> dict[str, float]:
    found = {
        "decode": engine.decoding(64),
        "decode_deep": engine.decoding(DEEP),
        "prefill": engine.prefill(),
    }
    return found | ({"together": engine.together()} if engine.together else {})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file in place of docs/benchmarks/gpu.json")
    options = parser.parse_args()
    sides = engines(options.compiled)
    runs: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    with torch.inference_mode():
        for turn in range(options.rounds + 1):
            for side in sides:
                found = measured(side)
                if turn:  # the first time kernels are loaded
                    runs[side.name].append(found)
                print(turn, side.name, {key: round(value) for key, value in found.items()}, flush=True)
    body: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(), "model": MODEL, "tokens": TOKENS, "prompt": PREFILL, "deep": DEEP,
        "at_once": AT_ONCE, "rounds": options.rounds,
        "engines": [
            {
                "name": side.name,
                "weight_bytes": side.weight_bytes,
                **{
                    key: round(statistics.median(run[key] for run in runs[side.name]), 1)
                    for key in runs[side.name][0]
                },
            }
            for side in sides
        ],
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), **body}, indent=1) + "\n", encoding="utf-8")
    else:
        write("gpu.json", body)
    print(json.dumps(body["engines"], indent=1))


if __name__ == "__main__":
    main()
