"""What quantization costs: perplexity, agreement of greedy tokens, and resident memory.

    python benchmarks/quality.py                 # prints a table, writes docs/benchmarks/quality.json

The text is the starter's help centre, document after document. Perplexity is taken as a prompt, 1,024 tokens at a
time, and for the first of these token by token too, which must not make a difference. The reference is the model in
bf16 as transformers runs it; memory is what a fresh process has grown by after loading and one forward pass, in both
places without what is freed but not given back yet. The reference's weights are those of the same GGUF file (Q4_1
linears, a Q8_0 embedding), dequantized: what is measured is repacking, not what that file has lost.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from typing import Any

import torch
from machine import ROOT, write

WINDOW = 1024
METHODS = ("none", "int8", "int4", "nf4")
PROMPTS = (
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "Why is the sky blue?",
    "Tell me a short story about a cat.",
    "List two uses of wood.",
    "Who wrote Hamlet?",
    "What does a plumber do?",
)
MEMORY = """
import ctypes, gc, sys, os, psutil, torch
from agentkit.assets import asset_path
process = psutil.Process(os.getpid())
def resident():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return process.memory_info().rss
import agentkit.engine.weights, agentkit.engine.native, transformers.models.llama.modeling_llama
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained(asset_path("smollm2-135m"))
if sys.argv[1] == "nf4":
    import bitsandbytes
torch.ones(512, 512) @ torch.ones(512, 512)
torch.ones(512, 512).bfloat16() @ torch.ones(512, 512).bfloat16()
if sys.argv[1] in ("none", "int8", "int4"):  # machine code is no weight: it is loaded before, as torch's is
    from transformers import LlamaConfig, LlamaForCausalLM
    sizes = dict(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    kind = {"none": "bfloat16"}.get(sys.argv[1], sys.argv[1])
    decoder = agentkit.engine.native.NativeDecoder(LlamaForCausalLM(LlamaConfig(**sizes)).eval(), kind)
    decoder(torch.tensor([1, 2, 3]), decoder.new_cache())
    del decoder
before = resident()
if sys.argv[1] == "reference":
    model = AutoModelForCausalLM.from_pretrained(asset_path("smollm2-135m"), dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]))
else:
    from agentkit.engine.weights import load_weights
    loaded = load_weights(asset_path("smollm2-135m"), quantize=sys.argv[1])
    loaded.forward_all([1, 2, 3])
    model = loaded.model
tensors = [*model.parameters(), *model.buffers()]
held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
print(sum(held.values()), resident() - before)
"""


def text() -> str:
    files = sorted(path for path in (ROOT / "knowledge").rglob("*") if path.suffix in (".md", ".txt"))
    return "\n\n".join(path.read_text(encoding="utf-8") for path in files)


def loss(logits: torch.Tensor, ids: list[int]) -> float:
    """Summed negative log-likelihood of each id after the ones before it; logits of shape (n, vocabulary)."""
    return float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum"))


def perplexity(loaded: Any, ids: list[int]) -> float:
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - WINDOW + 1, WINDOW)]
    total = sum(loss(loaded.forward_all(window), window) for window in windows)
    return math.exp(total / sum(len(window) - 1 for window in windows))


def stepwise_perplexity(loaded: Any, ids: list[int]) -> float:
    cache = loaded.new_cache()
    logits = torch.stack([loaded.forward([id], cache) for id in ids])
    return math.exp(loss(logits, ids) / (len(ids) - 1))


def greedy(loaded: Any, prompt: list[int], count: int = 32) -> list[int]:
    cache, ids = loaded.new_cache(), []
    logits = loaded.forward(prompt, cache)
    for _ in range(count):
        ids.append(int(logits.argmax()))
        logits = loaded.forward(ids[-1:], cache)
    return ids


def memory(method: str) -> tuple[int, int]:
    """(bytes of the distinct tensors, bytes by which a process grew)."""
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, method], capture_output=True, text=True, check=True
    ).stdout.split()
    return int(out[-2]), int(out[-1])


def main() -> None:
    from transformers import AutoModelForCausalLM

    from agentkit.assets import asset_path
    from agentkit.engine.weights import LoadedModel, load_weights
    from agentkit.llm.encoding import ChatEncoder
    from agentkit.messages import Message

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    folder = asset_path("smollm2-135m")
    plain = load_weights(folder, quantize="none")
    plain.model, plain.decoder = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval(),
        None,
    )
    encoder = ChatEncoder(plain.tokenizer, plain.eos_ids)
    prompts = [encoder.encode([Message("user", prompt)]).ids for prompt in PROMPTS]
    ids = plain.tokenizer.encode(text())

    def told(loaded: LoadedModel, method: str) -> dict[str, Any]:
        tensors, resident = memory(method)
        return {
            "perplexity": round(perplexity(loaded, ids), 3),
            "perplexity_token_by_token": round(stepwise_perplexity(loaded, ids[:WINDOW]), 3),
            "weight_bytes": tensors,
            "resident_bytes": resident,
            "answers": [greedy(loaded, prompt) for prompt in prompts],
        }

    rows = {"reference": told(plain, "reference")}
    for method in METHODS:
        rows[method] = told(load_weights(folder, quantize=method), method)  # type: ignore[arg-type]
    reference = dict(rows["reference"])
    for row in rows.values():
        pairs = list(zip(row.pop("answers"), reference["answers"], strict=True))
        agree = [
            next((n for n, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), len(pair[0]))
            for pair in pairs
        ]
        row["tokens_until_first_difference"] = round(sum(agree) / len(agree), 1)
        for key in ("perplexity", "perplexity_token_by_token", "weight_bytes", "resident_bytes"):
            row[f"{key}_ratio"] = round(row[key] / reference[key], 4)
    body = {
        "text": "knowledge/, Markdown and text files",
        "tokens": len(ids) // WINDOW * WINDOW,
        "methods": rows,
    }
    write("quality.json", body)
    print(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
