"""Drafts on real models: the same tokens in fewer passes; greedy, sampled, under a grammar."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.llm.local import LocalModel
from agentkit.messages import Completion

PASSAGE = (
    "Unused items can be returned within 30 days of delivery. The refund is paid within five days after the parcel "
    "has arrived at our warehouse, by the means of payment that was used for the order."
)
QUOTE = [
    {"role": "system", "content": "You repeat what you are given, word by word."},
    {"role": "user", "content": f"Repeat this text: {PASSAGE}"},
    {"role": "assistant", "content": PASSAGE},
    {"role": "user", "content": f"Repeat this text: {PASSAGE}"},
]
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.7, "seed": 5, "repetition_penalty": 1.05},
    "hot": {"temperature": 1.2, "top_p": 0.9, "top_k": 40, "seed": 1},
    "grammar": {
        "response_format": {
            "type": "object",
            "properties": {"first": {"type": "string"}, "again": {"type": "string"}},
            "required": ["first", "again"],
        }
    },
    "grammar, sampled": {
        "temperature": 0.8,
        "seed": 3,
        "response_format": {
            "type": "object",
            "properties": {"quotes": {"type": "array", "items": {"type": "string"}, "maxItems": 4}},
            "required": ["quotes"],
        },
    },
}


CASES = [
    # Gemma's vocabulary is five times as large, and so are its masks.
    pytest.param(family, kind, marks=[pytest.mark.slow] * (family == "gemma" and "grammar" in kind))
    for family in ("smollm", "gemma")
    for kind in OPTIONS
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_the_text_is_the_same_with_and_without_drafts(
    request: pytest.FixtureRequest, family: str, kind: str
) -> None:
    loaded = request.getfixturevalue(family)._loaded
    tokens = 24 if family == "gemma" and "grammar" in kind else 60
    plain, drafted = (answer(LocalModel(loaded, drafts=on), OPTIONS[kind], tokens) for on in (False, True))
    assert drafted.text == plain.text
    assert drafted.usage.completion_tokens == plain.usage.completion_tokens
    assert drafted.finish_reason == plain.finish_reason
    assert drafted.usage.forward_passes <= plain.usage.forward_passes
    if kind == "greedy":
        assert drafted.usage.forward_passes < 0.6 * plain.usage.forward_passes


def answer(model: LocalModel, options: dict[str, Any], tokens: int) -> Completion:
    return model.chat(QUOTE, max_new_tokens=tokens, **options)


def test_a_loop_ends_at_the_same_token(smollm: LocalModel) -> None:
    """Drafts foresee a loop best of all; it must not run on for that."""
    ask = [{"role": "user", "content": "la la la la la la la la la la la la la la la la la la la la"}]
    plain, drafted = (
        LocalModel(smollm._loaded, drafts=on).chat(ask, max_new_tokens=200, stop=["zzz"])
        for on in (False, True)
    )
    assert drafted.text == plain.text
    assert drafted.usage.completion_tokens == plain.usage.completion_tokens
