"""Bit masks of a grammar: what is permitted is what is not masked, and nothing else is changed."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from agentkit.engine.masks import Masked, first_of, has, packed_bits
from agentkit.llm.grammar import Grammar, GrammarCompiler
from agentkit.messages import ToolSpec

STRING = {"type": "string"}
SCHEMAS = [
    {"type": "object", "properties": {"city": STRING, "note": STRING}, "required": ["city", "note"]},
    {"type": "object", "properties": {"n": {"type": "number"}, "when": {"type": "string", "format": "date"}}},
    {"type": "array", "items": {"enum": ["small", "large", "<|im_end|>", "é🎉"]}, "minItems": 2},
    {},
]


@pytest.mark.parametrize("size", [1, 31, 64, 1000])
def test_masks_are_laid_over_logits_one_after_the_other(size: int) -> None:
    draw = np.random.default_rng(size)
    masked = Masked(size)
    for share in (0.0, 0.5, 0.02, 1.0, 0.02, 0.9):
        allowed, logits = (
            draw.random(size) < share,
            torch.from_numpy(draw.standard_normal(size).astype(np.float32)),
        )
        before, bits = logits.clone(), packed_bits(allowed)
        expected = torch.where(torch.from_numpy(allowed), logits, -torch.inf)
        assert torch.equal(masked(logits, bits), expected)
        assert torch.equal(logits, before)
        assert torch.equal(masked(logits.double(), bits), expected.double())  # as on a GPU
        assert [has(bits, token) for token in range(size)] == allowed.tolist()
        if allowed.any():
            assert first_of(bits) == allowed.argmax()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_token_is_permitted_where_the_mask_leaves_it(
    compiler: GrammarCompiler, schema: dict[str, object]
) -> None:
    draw = random.Random(1)
    for grammar in (compiler.json_value(schema), call(compiler, schema)):
        grammar.forced()
        for remaining in range(400, 340, -1):
            if grammar.complete:
                break
            flat = torch.zeros(grammar._vocab_size)
            allowed = torch.isfinite(grammar.mask(flat, remaining))
            likely = allowed.nonzero().flatten().tolist()
            others = [*draw.sample(likely, min(len(likely), 60)), *draw.sample(range(len(flat)), 60), 0, 1, 2]
            for token in others:
                assert grammar.permits(token, remaining) == bool(allowed[token])
            assert not any(
                grammar.permits(token, 2) for token in others
            )  # the end of the budget: closers only
            assert grammar.allows([draw.choice(likely)]) == 1
            grammar.accept(draw.choice(likely))
            grammar.forced()


def call(compiler: GrammarCompiler, schema: dict[str, object]) -> Grammar:
    properties = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    grammar = compiler.tool_call([ToolSpec("f", "", properties)])
    assert isinstance(grammar, Grammar)
    return grammar
