"""Plain conversation as the untuned model has it, so that learning tools does not change how it talks.

The untuned model answers, and how likely each token was to it is what is learned: nothing is taught, something is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
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
_WHOLE = 0.25
"""Share of requests that are taken as they stand."""


def replies(seed: int, count: int) -> Iterator[Json]:
    """Conversations of one question and the untuned model's answer."""
    if not count:
        return
    random = Random(f"chat {seed}")
    model = load_model("smollm2-135m", adapter="none")
    for _ in range(count):
        messages: list[Json] = [{"role": "user", "content": prompt(random)}]
        seen = {"temperature": random.choice(_TEMPERATURES), "seed": random.randrange(2**31)}
        answer = model.chat(messages, max_new_tokens=_TOKENS, **seen).text.strip()
        if answer:
            yield {"messages": [*messages, {"role": "assistant", "content": answer}], "keep": True}


def prompt(random: Random) -> str:
    """A question or request about nothing in particular."""
    if random.random() < _WHOLE:
        return random.choice(PROMPTS["whole"])
    form = random.choice(PROMPTS["forms"])
    thing, other = random.sample(PROMPTS["things"], 2)
    return form.format(topic=random.choice(PROMPTS["topics"]), thing=thing, thing2=other)
