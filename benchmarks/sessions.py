"""Eight chats of three turns at once: agentkit's scheduler, its turns one by one, and transformers.

    python benchmarks/sessions.py                # prints a table, writes docs/benchmarks/sessions.json

Every session has the same system prompt and asks its own three questions; each answer is read back as the next turn's
history, has the same number of tokens in every engine and is greedy. transformers runs in bf16: `generate` one turn
after the other, and `generate_batch` (continuous batching) with all sessions of a turn together, its manager kept
between the turns and its cache as small as the sessions need. The engines take turns, each in a process of its own;
medians of the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from machine import positive, write

SESSIONS, TURNS, TOKENS = 8, 3, 40
SYSTEM = (
    "You are the assistant of a small web shop for garden furniture. Answer the customer's questions in whole "
    "sentences, name the next step, and say so when you do not know something."
)
TOPICS = ("tables", "benches", "lamps", "parasols", "hammocks", "planters", "swings", "grills")
QUESTIONS = (
    "Tell me everything I should know before I buy {0} for my garden.",
    "How do I take care of {0} in winter? Explain it step by step.",
    "Compare three materials of {0} and tell me their advantages.",
)

Engine = Callable[[], tuple[float, float]]
"""Plays all sessions and returns the seconds that took, and how many sessions shared a forward pass."""


def scripts() -> list[list[str]]:
    """The user's turns, session by session."""
    return [[question.format(topic) for question in QUESTIONS] for topic in TOPICS[:SESSIONS]]


def ours(together: bool) -> Engine:
    from agentkit.assets import asset_path
    from agentkit.engine.weights import load_weights
    from agentkit.llm.local import LocalModel

    loaded = load_weights(asset_path("smollm2-135m"))
    endless = dataclasses.replace(loaded, eos_ids=frozenset())

    def play() -> tuple[float, float]:
        wrong: list[BaseException] = []

        def session(turns: list[str]) -> None:
            messages = [{"role": "system", "content": SYSTEM}]
            for text in turns:
                messages.append({"role": "user", "content": text})
                reply = model.chat(messages, max_new_tokens=TOKENS)
                if reply.usage.completion_tokens != TOKENS:
                    raise SystemExit(f"an answer has {reply.usage.completion_tokens} tokens")
                messages.append({"role": "assistant", "content": reply.text})

        def guarded(turns: list[str]) -> None:
            try:
                session(turns)
            except BaseException as error:
                wrong.append(error)

        started = time.perf_counter()
        model = LocalModel(endless)  # nothing is cached; made within the clock, as the peer's manager is
        if together:
            threads = [threading.Thread(target=guarded, args=(turns,)) for turns in scripts()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for turns in scripts():
                guarded(turns)
        seconds = time.perf_counter() - started
        if wrong:
            raise wrong[0]
        counters = model._scheduler.counters
        return seconds, counters.steps / counters.passes

    return play


class Peer:
    """transformers in bf16."""

    def __init__(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from agentkit.assets import asset_path

        folder = asset_path("smollm2-135m")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def play(self, answer: Callable[[list[list[int]]], list[list[int]]]) -> tuple[float, float]:
        """All sessions, turn by turn; ``answer`` continues the prompts of one turn."""
        sessions: list[list[dict[str, str]]] = [[{"role": "system", "content": SYSTEM}] for _ in scripts()]
        started = time.perf_counter()
        for turn in range(TURNS):
            for messages, turns in zip(sessions, scripts(), strict=True):
                messages.append({"role": "user", "content": turns[turn]})
            prompts = [
                list(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])
                for messages in sessions
            ]
            for messages, ids in zip(sessions, answer(prompts), strict=True):
                if len(ids) != TOKENS:
                    raise SystemExit(f"an answer of transformers has {len(ids)} tokens")
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                messages.append({"role": "assistant", "content": text})
        seconds = time.perf_counter() - started
        self.model.destroy_cached_continuous_batching_manager()  # its thread would compete with the others
        return seconds, 1.0

    def one_by_one(self, prompts: list[list[int]]) -> list[list[int]]:
        """`generate` for each prompt."""
        answers = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
            )
            answers.append(out[0, len(prompt) :].tolist())
        return answers

    def batched(self, prompts: list[list[int]]) -> list[list[int]]:
        """`generate_batch` for all prompts."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        results = self.model.generate_batch(
            prompts,
            # An id that no token has: nothing ends an answer early.
            generation_config=GenerationConfig(
                max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=2
            ),
            # Blocks of 256 tokens; by default it fills most of the memory with them, and touches every page.
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=4 * SESSIONS, max_batch_tokens=512
            ),
            persistent_manager=True,
            warmup=False,
        )
        by_prompt = {tuple(result.prompt_ids): list(result.generated_tokens) for result in results.values()}
        return [by_prompt[tuple(prompt)] for prompt in prompts]


def engine(name: str) -> Engine:
    if name in (TOGETHER, IN_TURN):
        return ours(together=name == TOGETHER)
    peer = Peer()
    return lambda: peer.play(peer.batched if name == BATCHED else peer.one_by_one)


def serve(name: str, calls: Connection) -> None:
    """One engine in a process of its own: torch's teams of threads in one process hinder each other."""
    play = engine(name)
    while calls.recv():
        calls.send(play())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=3)
    options = parser.parse_args()
    context, calls = multiprocessing.get_context("spawn"), {}
    for name in (TOGETHER, IN_TURN, GENERATE, BATCHED):
        calls[name], theirs = context.Pipe()
        context.Process(target=serve, args=(name, theirs), daemon=True).start()
        theirs.close()  # else who waits for an engine that has died waits for ever
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    shared: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.rounds + 1):
        for name, call in calls.items():
            call.send(True)
            taken, sharing = call.recv()
            if turn:  # the first round pays for allocation, threads and compiled code
                seconds[name].append(taken)
                shared[name].append(sharing)
    for call in calls.values():
        call.send(False)
    tokens = SESSIONS * TURNS * TOKENS
    rows = {
        name: {
            "seconds": round(statistics.median(taken), 2),
            "tokens_per_second": round(tokens / statistics.median(taken), 1),
            "rounds": [round(each, 2) for each in taken],
        }
        for name, taken in seconds.items()
    }
    ratios = {
        f"together to {name}": round(
            statistics.median(b / a for a, b in zip(seconds[TOGETHER], seconds[name], strict=True)), 2
        )
        for name in (IN_TURN, GENERATE, BATCHED)
    }
    body = {
        "sessions": SESSIONS,
        "turns": TURNS,
        "tokens": TOKENS,
        "sessions_per_pass": round(statistics.median(shared[TOGETHER]), 2),
        "sessions_per_pass_rounds": [round(each, 2) for each in shared[TOGETHER]],
        "engines": rows,
        "ratios": ratios,
    }
    write("sessions.json", body)
    print("| engine | time | tok/s |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['seconds']} s | {row['tokens_per_second']} |")
    print("\n" + "\n".join(f"{name}: {value}" for name, value in ratios.items()))
    print(f"sessions per pass: {body['sessions_per_pass']}")


TOGETHER, IN_TURN = "agentkit, sessions at once", "agentkit, one after the other"
GENERATE, BATCHED = "transformers generate", "transformers generate_batch"


if __name__ == "__main__":
    main()
