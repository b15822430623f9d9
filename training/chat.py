"""Plain conversation as the untuned model has it, so that learning tools does not change how it talks.

The untuned model's own answers are what is learned (self-distillation): nothing is taught here, something is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import yaml
from domains import Json

from agentkit import load_model

PROMPTS: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "prompts.yaml").read_text("utf-8"))
_TOKENS = 120


def replies(seed: int, count: int) -> Iterator[Json]:
    """Conversations of one question and the untuned model's answer."""
    if not count:
        return
    random = Random(f"chat {seed}")
    asked = sorted({prompt(random) for _ in range(count * 2)})
    random.shuffle(asked)
    model = load_model("smollm2-135m", adapter="none")
    for text in asked[:count]:
        messages: list[Json] = [{"role": "user", "content": text}]
        answer = model.chat(messages, max_new_tokens=_TOKENS).text.strip()
        if answer:
            yield {"messages": [*messages, {"role": "assistant", "content": answer}]}


def prompt(random: Random) -> str:
    """A question or request about nothing in particular."""
    form = random.choice(PROMPTS["forms"])
    return form.format(topic=random.choice(PROMPTS["topics"]), thing=random.choice(PROMPTS["things"]))
