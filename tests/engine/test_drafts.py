"""Drafts: the latest longest match, no longer than they pay, and not a token changed by them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from agentkit.engine.decode import FinishReason, Sampler, Step, Tokens, decode, decoding
from agentkit.engine.drafts import LONGEST, MOST, Drafts, best_length
from agentkit.engine.ledger import Ledger
from agentkit.engine.weights import LoadedModel
from agentkit.settings import SamplingSettings


def naive(ids: Sequence[int]) -> tuple[int, int]:
    """Where the latest of the longest matches goes on, and its length, by trying all of them."""
    best = (0, 0)
    for end in range(1, len(ids)):
        length = 0
        while length < min(LONGEST, end) and ids[end - 1 - length] == ids[len(ids) - 1 - length]:
            length += 1
        if length and length >= best[1]:
            best = end, length
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_match_is_the_longest_and_of_these_the_latest(seed: int) -> None:
    draw, drafts, ids = random.Random(seed), Drafts(), [0]
    for _ in range(300):
        ids += draw.choices(range(4), k=draw.choice([1, 1, 3, 2000 if len(ids) < 100 else 1]))
        drafts._extend(ids)
        at, length = drafts._find()
        assert (at - LONGEST * (length > 0), length) == naive(ids)


def test_a_draft_is_what_came_next_and_goes_round_where_that_ends() -> None:
    drafts = Drafts()
    assert drafts.propose([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5], 3) == [6, 7, 8]
    assert Drafts().propose([5, *[1, 2] * 20], 5) == [1, 2, 1, 2, 1]
    assert Drafts().propose([1, 2, 3, 4], 5) == Drafts().propose([7], 5) == []
    assert Drafts().propose([1, 2, 3, 4, 5, 1, 2, 3, 4], 0) == []


def test_a_draft_is_as_long_as_it_pays() -> None:
    assert [best_length(n / 100) for n in range(101)] == sorted(best_length(n / 100) for n in range(101))
    assert best_length(0.05) == 0
    assert 0 < best_length(0.3) <= best_length(0.6) < best_length(0.9) <= best_length(0.999) == MOST


def test_drafts_grow_while_they_hold_stop_when_they_fail_and_are_tried_again() -> None:
    drafts, ids = Drafts(), [1, 2, 3, 4, 5, 6] * 8
    first = len(drafts.propose(ids, 99))
    for _ in range(20):
        drafts.learn(1, missed=False)
    assert len(drafts.propose(ids, 99)) == MOST > first
    lengths = []
    for _ in range(30):
        lengths.append(len(drafts.propose(ids, 99)))
        if lengths[-1]:
            drafts.learn(0, missed=True)
    assert lengths[:3] == sorted(lengths[:3], reverse=True)
    assert lengths[15:].count(0) >= 8
    assert 0 < sum(lengths[15:]) < 15
    assert drafts.accepted == 20
    assert drafts.drafted == 20 + sum(n > 0 for n in lengths)


class Repeating(Drafts):
    """Drafts that hold in part: what the model says alone, with a mistake now and then."""

    def __init__(self, prompt: int, answer: Sequence[int], seed: int) -> None:
        super().__init__()
        self._prompt, self._answer, self._draw = prompt, answer, random.Random(seed)

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        at, length = len(ids) - self._prompt, self._draw.randrange(9)
        right = list(self._answer[at : at + length])
        return [id if self._draw.random() < 0.8 else 7 for id in right][:most]


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.3, "repetition_penalty": 1.4}, {"temperature": 0.8, "top_k": 9}]
)
def test_a_draft_changes_no_token_and_saves_passes(tiny: LoadedModel, settings: dict[str, Any]) -> None:
    prompt = list(range(10, 60))

    def run(drafts: Drafts | None) -> tuple[list[int], int]:
        ledger, sampler = Ledger(tiny), Sampler(SamplingSettings(**settings), "cpu")
        ledger.align(prompt)
        for step in decode(ledger, sampler, stop_ids=frozenset(), max_new_tokens=60, drafts=drafts):
            assert ledger.cached <= len(ledger.ids)
            assert isinstance(step, Tokens) or step == "length"
        return ledger.ids, ledger.forward_passes

    plain, passes = run(None)
    assert passes == 60
    for seed in range(4):
        drafted, fewer = run(drafts := Repeating(len(prompt), plain[len(prompt) :], seed))
        assert drafted == plain
        assert fewer == 60 - drafts.accepted < 40
    assert run(Drafts())[0] == plain


def test_a_conversation_left_within_a_draft_goes_on_as_if_there_had_been_none(tiny: LoadedModel) -> None:
    prompt = list(range(10, 60))
    ledger = Ledger(tiny)
    ledger.align(prompt)
    list(decode(ledger, Sampler(SamplingSettings(), "cpu"), stop_ids=frozenset(), max_new_tokens=20))
    answer = ledger.ids[len(prompt) :]
    for left_after in range(1, 9):
        other = Ledger(tiny)
        other.align(prompt)
        steps = decode(
            other,
            Sampler(SamplingSettings(), "cpu"),
            stop_ids=frozenset(),
            max_new_tokens=20,
            drafts=Repeating(len(prompt), answer, 3),
        )
        for _ in range(left_after):
            next(steps)
        steps.close()  # type: ignore[attr-defined]
        assert other.ids == prompt + answer[:left_after]
        whole = other.fork(other.cached)
        whole.append(other.ids[other.cached :])
        more = [*other.ids, 5, 6, 7]
        fresh = Ledger(tiny)
        for each in (other, whole, fresh):
            each.align(more)
        expected = fresh.logits()
        assert torch.equal(other.logits(), expected)
        assert torch.equal(whole.logits(), expected)


def test_a_draft_ends_before_the_end_of_a_turn_the_budget_and_the_context(tiny: LoadedModel) -> None:
    class Wild(Drafts):
        def propose(self, ids: Sequence[int], most: int) -> list[int]:
            return [5, 6, 2, 7, 8, 9, 10, 11][:most]

    def first_draft(prompt: int, budget: int, stop: int) -> Sequence[int]:
        ledger = Ledger(tiny)
        ledger.align([9] * prompt)
        ledger.logits()
        sampler = Sampler(SamplingSettings(), "cpu")
        loop = decoding(ledger, sampler, stop_ids=frozenset({stop}), max_new_tokens=budget, drafts=Wild())
        step = next(loop)
        assert isinstance(step, Step)
        return step.draft

    assert first_draft(5, 100, 2) == [5, 6]
    assert first_draft(5, 4, 400) == [5, 6, 2]
    assert first_draft(254, 100, 400) == [5, 6]
    assert first_draft(5, 1, 400) == []


def test_a_pass_that_is_refused_ends_the_answer_as_cancelled(tiny: LoadedModel) -> None:
    ledger = Ledger(tiny)
    ledger.align([5, 6])
    loop = decoding(ledger, Sampler(SamplingSettings(), "cpu"), stop_ids=frozenset(), max_new_tokens=9)
    assert isinstance(next(loop), Step)
    last: Step | Tokens | FinishReason = loop.send(None)
    assert last == "cancelled"
    assert (ledger.ids, ledger.cached) == ([5, 6], 0)
