"""Plain conversation as the untuned model has it, so that learning tools does not change how it talks.

The untuned model answers, and how likely each token was to it is what is learned: nothing is taught, something is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import yaml
from domains import Json

from agentkit import load_model

_PROMPTS_FILE = Path(__file__).parent / "prompts.yaml"
SOURCES = (_PROMPTS_FILE, Path(__file__))
"""The files that decide what is asked, and how."""
PROMPTS: dict[str, list[str]] = yaml.safe_load(_PROMPTS_FILE.read_text("utf-8"))
_TOKENS = 120
_TEMPERATURES = (0.3, 0.7, 1.0)
"""What people write is less likely to the model than what it would write itself."""
_AT_ONCE = 8
_WHOLE = 0.25
"""Share of requests that are taken as they stand."""


def replies(seed: int, count: int) -> Iterator[Json]:
    """Conversations of one question and the untuned model's answer."""
    if not count:
        return
    random = Random(f"chat {seed}")
    model = load_model("smollm2-135m", adapter="none")
    asked = [(prompt(random), random.choice(_TEMPERATURES), random.randrange(2**31)) for _ in range(count)]

    def answer(question: tuple[str, float, int]) -> Json | None:
        content, temperature, seed = question
        messages: list[Json] = [{"role": "user", "content": content}]
        found = model.chat(messages, max_new_tokens=_TOKENS, temperature=temperature, seed=seed).text.strip()
        return (
            {"messages": [*messages, {"role": "assistant", "content": found}], "keep": True}
            if found
            else None
        )

    with ThreadPoolExecutor(
        _AT_ONCE
    ) as pool:  # the model computes them together, with the same words as alone
        yield from filter(None, pool.map(answer, asked))


def prompt(random: Random) -> str:
    """A question or request about nothing in particular."""
    if random.random() < _WHOLE:
        return random.choice(PROMPTS["whole"])
    form = random.choice(PROMPTS["forms"])
    thing, other = random.sample(PROMPTS["things"], 2)
    return form.format(topic=random.choice(PROMPTS["topics"]), thing=thing, thing2=other)
