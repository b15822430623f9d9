"""Drafts from the conversation's own tokens: answers that quote, and free chat, beside transformers' prompt lookup.

    python benchmarks/drafts.py                  # prints a table, writes docs/benchmarks/drafts.json

The quoting prompts ask for a passage of the shop's help centre (`knowledge/`) again, word by word; the others are open
questions. Every engine has the same prompts, threads and number of tokens, and the weights of one GGUF file of 4 bits:
agentkit holds its very levels, transformers has them in bf16. The engines take turns, prompt by prompt, each in a
process of its own, and the medians over the rounds count. Only decoding is timed: what comes after the first token.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from machine import ROOT, positive, write

TOKENS = 96
PASSAGE_WORDS = 110
LOOKUP = 10
"""Tokens of a draft of transformers, as its documentation shows it."""
DOCUMENTS = (
    "orders/returns.md",
    "orders/refunds.md",
    "orders/damaged-items.md",
    "account/privacy.md",
    "payment/payment-methods.md",
    "company/sustainability.md",
    "products/warranty.md",
    "products/assembly.md",
)
QUESTIONS = (
    "Tell me a story about a lighthouse keeper and a whale.",
    "Explain how a bicycle stays upright.",
    "What should I think about before I adopt a dog?",
    "Describe a day in the life of a baker.",
    "Why is the sky blue in the day and red in the evening?",
    "Give me some advice for a first job interview.",
    "How did people travel before there were trains?",
    "Write a letter to a friend who has moved to another country.",
)

Answer = tuple[list[int], float, int]
"""Ids, seconds after the first token, forward passes."""
Engine = Callable[[list[int]], Answer]


def ours(drafts: bool) -> Engine:
    from agentkit.assets import asset_path
    from agentkit.engine.decode import Sampler, decoding
    from agentkit.engine.drafts import Drafts
    from agentkit.engine.ledger import Ledger
    from agentkit.engine.scheduler import Scheduler
    from agentkit.engine.weights import load_weights
    from agentkit.settings import SamplingSettings

    loaded = load_weights(asset_path("smollm2-135m"))
    scheduler = Scheduler(loaded)

    def answer(prompt: list[int]) -> Answer:
        ledger = Ledger(loaded)
        ledger.align(prompt)
        loop = decoding(
            ledger,
            Sampler(SamplingSettings(), "cpu"),
            stop_ids=frozenset(),
            max_new_tokens=TOKENS,
            drafts=Drafts() if drafts else None,
        )
        steps = scheduler.run(loop)
        next(steps)
        started = time.perf_counter()
        for _ in steps:
            pass
        return ledger.ids[len(prompt) :], time.perf_counter() - started, ledger.forward_passes

    return answer


def generate(**options: Any) -> Engine:
    """transformers' `generate`, greedy."""
    from transformers import AutoModelForCausalLM

    from agentkit.assets import asset_path

    model = AutoModelForCausalLM.from_pretrained(asset_path("smollm2-135m"), dtype=torch.bfloat16).eval()
    passes = 0

    def counted(*_: Any) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_pre_hook(counted)

    def timed(prompt: list[int], tokens: int, **more: Any) -> tuple[list[int], float]:
        ids = torch.tensor([prompt])
        started = time.perf_counter()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            **more,
        )
        return out[0, len(prompt) :].tolist(), time.perf_counter() - started

    def answer(prompt: list[int]) -> Answer:
        nonlocal passes
        _, first = timed(prompt, 1)
        passes = 0
        ids, seconds = timed(prompt, TOKENS, **options)
        return ids, seconds - first, passes

    return answer


def prompts(count: int) -> dict[str, list[list[int]]]:
    """Token ids by kind of answer."""
    from transformers import AutoTokenizer

    from agentkit.assets import asset_path

    tokenizer = AutoTokenizer.from_pretrained(asset_path("smollm2-135m"))

    def encode(text: str) -> list[int]:
        message = [{"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"])

    passages = [passage(ROOT / "knowledge" / name) for name in DOCUMENTS[:count]]
    return {
        "quote": [encode(f"Repeat this text word by word, and nothing else:\n\n{text}") for text in passages],
        "chat": [encode(text) for text in QUESTIONS[:count]],
    }


def passage(file: Path) -> str:
    """The first words of a document's text."""
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    return " ".join(" ".join(lines).split()[:PASSAGE_WORDS])


def measure(engines: dict[str, Engine], count: int, rounds: int) -> dict[str, dict[str, Any]]:
    """By kind of answer and engine: tokens a second, and tokens for each forward pass."""
    results: dict[str, dict[str, Any]] = {}
    for kind, asked in prompts(count).items():
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        said: dict[str, list[Answer]] = {}
        for turn in range(rounds + 1):
            answers: dict[str, list[Answer]] = {name: [] for name in engines}
            for prompt in asked:
                for name, engine in engines.items():
                    answers[name].append(engine(prompt))
            if turn:  # the first round pays for allocation, threads and compiled code
                for name in engines:
                    seconds[name].append(sum(answer[1] for answer in answers[name]))
            said = answers
        plain, drafted = (said[name] for name in list(engines)[:2])
        if [ids for ids, *_ in plain] != [ids for ids, *_ in drafted]:
            raise SystemExit(f"drafts changed a token of a {kind} answer")
        made = len(asked) * (TOKENS - 1)
        results[kind] = {
            name: {
                "tokens_per_second": round(made / statistics.median(seconds[name]), 1),
                "tokens_per_pass": round(len(asked) * TOKENS / sum(answer[2] for answer in said[name]), 2),
                "rounds": [round(made / each, 1) for each in seconds[name]],
            }
            for name in engines
        }
    return results


def ratios(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Of each round's speeds, the median."""

    def ratio(kind: str, one: str, other: str) -> float:
        pairs = zip(results[kind][one]["rounds"], results[kind][other]["rounds"], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 2)

    return {
        "quote, drafts to plain": ratio("quote", OURS, PLAIN),
        "quote, drafts to prompt lookup": ratio("quote", OURS, LOOKED_UP),
        "quote, prompt lookup to generate": ratio("quote", LOOKED_UP, GENERATE),
        "chat, drafts to plain": ratio("chat", OURS, PLAIN),
    }


PLAIN, OURS = "agentkit", "agentkit, drafts"
GENERATE, LOOKED_UP = "transformers generate", "transformers generate, prompt lookup"


def engine(name: str) -> Engine:
    if name in (PLAIN, OURS):
        return ours(drafts=name == OURS)
    return generate(**({"prompt_lookup_num_tokens": LOOKUP} if name == LOOKED_UP else {}))


def serve(name: str, calls: Connection) -> None:
    """One engine in a process of its own: torch's teams of threads in one process hinder each other."""
    answer = engine(name)
    while prompt := calls.recv():
        calls.send(answer(prompt))


def remote(calls: Connection) -> Engine:
    def answer(prompt: list[int]) -> Answer:
        calls.send(prompt)
        result: Answer = calls.recv()
        return result

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--prompts", type=positive, default=len(QUESTIONS), help="of each kind")
    options = parser.parse_args()
    context, calls = multiprocessing.get_context("spawn"), {}
    for name in (PLAIN, OURS, GENERATE, LOOKED_UP):
        calls[name], theirs = context.Pipe()
        context.Process(target=serve, args=(name, theirs), daemon=True).start()
        theirs.close()  # else who waits for an engine that has died waits for ever
    engines = {name: remote(call) for name, call in calls.items()}
    results = measure(engines, options.prompts, options.rounds)
    for call in calls.values():
        call.send(None)
    found = ratios(results)
    write("drafts.json", {"tokens": TOKENS, "prompts": options.prompts, "answers": results, "ratios": found})
    for kind, rows in results.items():
        print(f"\n| {kind} | tok/s | tokens per pass |\n|---|---|---|")
        for name, row in rows.items():
            print(f"| {name} | {row['tokens_per_second']} | {row['tokens_per_pass']} |")
    print("\n" + "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
