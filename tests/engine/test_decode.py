"""Sampling, stopping, cancelling; the ledger under edits, forks and evictions."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from agentkit.engine.cache import can_crop
from agentkit.engine.decode import Sampler, Tokens, decode, decoding, is_looping
from agentkit.engine.ledger import Ledger, LedgerPool, _left_by_container
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel
from agentkit.errors import ModelError
from agentkit.settings import SamplingSettings

GREEDY = SamplingSettings()


def generate(
    loaded: LoadedModel,
    prompt: Sequence[int],
    pool: LedgerPool | None = None,
    count: int = 12,
    stop_ids: frozenset[int] = frozenset(),
) -> list[int]:
    """Ids of a greedy continuation, with the pool's cache or a fresh one."""
    ledger = pool.acquire(prompt)[0] if pool else Ledger(loaded)
    if pool is None:
        ledger.align(prompt)
    steps = decode(ledger, Sampler(GREEDY, "cpu"), stop_ids=stop_ids, max_new_tokens=count)
    ids = [id for step in steps if isinstance(step, Tokens) for id in step.ids]
    if pool:
        pool.release(ledger)
    return ids


def sample(logits: list[float], draws: int = 300, **settings: float) -> Counter[int]:
    sampler = Sampler(SamplingSettings.model_validate(settings), "cpu")
    return Counter(sampler.sample(torch.tensor(logits)) for _ in range(draws))


def test_temperature_zero_is_greedy() -> None:
    assert sample([0.0, 3.0, 2.9]) == {1: 300}


def test_top_k_keeps_k_tokens() -> None:
    assert set(sample([1.0, 1.1, 0.9, 0.8], temperature=5, top_k=2)) == {0, 1}
    assert set(sample([1.0, 1.1], temperature=1, top_k=50)) == {0, 1}


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert set(sample(logits, temperature=1, top_p=0.6)) == {0, 1}
    assert set(sample(logits, temperature=1, top_p=0.49)) == {0}
    assert set(sample(logits, temperature=1, top_p=0.0001)) == {0}
    assert set(sample(logits, draws=1000, temperature=1, top_p=1.0)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 2.0, "min_p": 0.2},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.8},
        {"temperature": 1.5, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.8},
        {"temperature": 1.0, "top_k": 5, "top_p": 0.7, "min_p": 0.3, "repetition_penalty": 3.0},
    ],
)
def test_the_distribution_is_that_of_transformers(settings: dict[str, float]) -> None:
    import transformers as t

    torch.manual_seed(0)
    logits, written = torch.randn(12) * 2, [3, 5, 3]
    warped = logits[None].clone()
    for warper in (
        t.RepetitionPenaltyLogitsProcessor(settings.get("repetition_penalty", 1.0)),
        t.TemperatureLogitsWarper(settings["temperature"]),
        t.TopKLogitsWarper(int(settings.get("top_k", 12))),
        t.TopPLogitsWarper(settings.get("top_p", 1.0)),
        t.MinPLogitsWarper(settings.get("min_p", 0.0)),
    ):
        warped = warper(torch.tensor([written]), warped)
    expected = warped.softmax(-1)[0]
    sampler = Sampler(SamplingSettings.model_validate(settings), "cpu")
    draws = 4000
    seen = torch.bincount(torch.tensor([sampler.sample(logits, written) for _ in range(draws)]), minlength=12)
    assert set(seen.nonzero().flatten().tolist()) <= set(expected.nonzero().flatten().tolist())
    # Five standard deviations of a share.
    assert (seen / draws - expected).abs().max() < 5 * (0.25 / draws) ** 0.5


def test_a_repetition_penalty_holds_for_greedy_answers_too() -> None:
    sampler = Sampler(SamplingSettings(repetition_penalty=2), "cpu")
    assert sampler.sample(torch.tensor([3.0, 2.0]), []) == 0
    assert sampler.sample(torch.tensor([3.0, 2.0]), [0]) == 1
    assert sampler.sample(torch.tensor([-1.0, -1.5]), [0, 0]) == 1
    assert sampler.sample(torch.tensor([3.0, 2.0, -torch.inf]), [0, 1, 2]) == 0


def test_the_penalty_is_for_the_answer_not_for_the_prompt(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []
    sample = Sampler.sample

    def watched(self: Sampler, logits: torch.Tensor, written: Sequence[int] = ()) -> int:
        told.append(list(written))
        return sample(self, logits, written)

    monkeypatch.setattr(Sampler, "sample", watched)
    answer = generate(tiny, [5, 6, 7], count=4)
    assert told == [answer[:n] for n in range(4)]


def test_the_seed_makes_a_draw_reproducible() -> None:
    def draws(seed: int) -> list[int]:
        sampler = Sampler(SamplingSettings(temperature=1, seed=seed), "cpu")
        return [sampler.sample(torch.zeros(1000)) for _ in range(20)]

    assert draws(3) == draws(3) != draws(4)


@pytest.mark.parametrize("temperature", [1e-30, 1e-42, 5.0])
def test_extreme_temperatures_work_with_masked_logits(temperature: float) -> None:
    logits = [-torch.inf, 40.0, 30.0, -torch.inf]
    assert set(sample(logits, temperature=temperature)) <= {1, 2}


def test_a_stop_id_ends_the_answer_and_stays_in_the_ledger(tiny: LoadedModel) -> None:
    free = generate(tiny, [5, 6, 7])
    stop = free[3]
    first = free.index(stop)
    ledger = Ledger(tiny)
    ledger.align([5, 6, 7])
    steps = list(decode(ledger, Sampler(GREEDY, "cpu"), stop_ids=frozenset({stop}), max_new_tokens=12))
    assert steps[-1] == "stop"
    assert [id for step in steps[:-1] for id in step.ids] == free[:first]  # type: ignore[union-attr]
    assert ledger.ids == [5, 6, 7, *free[:first], stop]


def test_cancel_takes_effect_within_two_tokens(tiny: LoadedModel) -> None:
    ledger, cancel = Ledger(tiny), threading.Event()
    ledger.align([5, 6, 7])
    seen = 0
    for step in decode(
        ledger, Sampler(GREEDY, "cpu"), stop_ids=frozenset(), max_new_tokens=100, cancel=cancel
    ):
        seen += isinstance(step, Tokens)
        if seen == 3:
            cancel.set()
    assert step == "cancelled"
    assert seen <= 5


def test_the_budget_ends_with_length(tiny: LoadedModel) -> None:
    ledger = Ledger(tiny)
    ledger.align([5])
    steps = list(decode(ledger, Sampler(GREEDY, "cpu"), stop_ids=frozenset(), max_new_tokens=4))
    assert len(steps) == 5
    assert steps[-1] == "length"


def test_a_conversation_longer_than_the_context_is_a_model_error(tiny: LoadedModel) -> None:
    ledger = Ledger(tiny)
    ledger.align([5] * (tiny.context_length + 1))
    with pytest.raises(ModelError, match="256 tokens"):
        ledger.logits()


@pytest.mark.parametrize(
    ("ids", "loops"),
    [
        ([], False),
        ([1] * 63, False),
        ([1] * 64, True),
        (list(range(150)), False),
        (list(range(16)) * 4, True),
        (list(range(20)) * 3, False),
        ([99, *range(20)] + list(range(20)) * 3, True),
        ([1, 2, 3] * 23, False),  # a list of zeros
        ([1, 2, 3] * 24, True),
    ],
)
def test_is_looping(ids: list[int], loops: bool) -> None:
    assert is_looping(ids) is loops


PROMPTS = [
    list(range(10, 90)),  # a conversation
    list(range(10, 95)),  # that goes on
    [*range(10, 50), 7, 8, 9, *range(53, 90)],  # an edit in the middle: little is lost
    [*range(10, 40), 300, 301],  # and a fork that would lose much
    [400, 401, 402],  # a stranger
    list(range(10, 90)),  # the first again
    [10],  # a single token, all of it cached
    list(range(10, 13)),
]


@pytest.mark.parametrize("budget", [0, 20_000, 1 << 30])
def test_reuse_changes_no_token(tiny: LoadedModel, budget: int) -> None:
    pool = LedgerPool(tiny, budget)
    for prompt in PROMPTS * 2:
        assert generate(tiny, prompt, pool) == generate(tiny, prompt)
    kept = sum(ledger.bytes() for ledger in pool._ledgers)
    assert kept <= budget


def test_a_continued_conversation_costs_its_new_tokens(tiny: LoadedModel) -> None:
    pool = LedgerPool(tiny)
    prompt = list(range(10, 90))
    answer = generate(tiny, prompt, pool)
    ledger, cached = pool.acquire([*prompt, *answer, 5, 6])
    assert cached == len(prompt) + len(answer) - 1  # the last token was never fed to the model
    pool.release(ledger)


def test_a_conversation_larger_than_the_budget_leaves_its_beginning(
    tiny: LoadedModel, recurrent: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system prompt and the tools stand there, and every new session needs them."""
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 8)
    system = list(range(10, 40))
    for loaded in (tiny, recurrent):
        generate(loaded, system, pool := LedgerPool(loaded))
        (short,) = pool._ledgers
        pool = LedgerPool(loaded, 2 * short.bytes())
        generate(loaded, system, pool)
        long = [*system, *range(50, 200)]
        for _ in range(2):
            assert generate(loaded, long, pool) == generate(loaded, long)
            (kept,) = pool._ledgers
            assert 0 < kept.bytes() <= 2 * short.bytes()
            session = [*system, 7, 8, 9]
            ledger, cached = pool.acquire(session)
            assert cached >= (
                len(system) if loaded is tiny else 1
            )  # to a snapshot, where there is no other way
            pool.release(ledger)
            assert generate(loaded, session, pool) == generate(loaded, session)


def test_a_busy_conversation_is_copied(tiny: LoadedModel) -> None:
    pool = LedgerPool(tiny)
    prompt = list(range(10, 90))
    generate(tiny, prompt, pool)
    first, _ = pool.acquire(prompt)
    second, cached = pool.acquire(prompt)
    assert first is not second
    assert cached == len(prompt) - 1
    assert second.ids == first.ids


def test_interleaved_conversations_do_not_disturb_each_other(tiny: LoadedModel) -> None:
    pool = LedgerPool(tiny)
    prompts = [list(range(10, 90)), [*range(10, 60), 99], [*range(10, 90), 98]]
    generate(tiny, prompts[0], pool)
    ledgers = [pool.acquire(prompt)[0] for prompt in prompts]
    running = [
        decode(ledger, Sampler(GREEDY, "cpu"), stop_ids=frozenset(), max_new_tokens=12) for ledger in ledgers
    ]
    said: list[list[int]] = [[] for _ in prompts]
    for _ in range(12):
        for n, steps in enumerate(running):
            step = next(steps)
            assert isinstance(step, Tokens)
            said[n] += step.ids
    assert said == [generate(tiny, prompt) for prompt in prompts]


def test_a_discarded_ledger_is_forgotten(tiny: LoadedModel) -> None:
    pool = LedgerPool(tiny)
    ledger, _ = pool.acquire([5, 6, 7])
    ledger.logits()
    pool.discard(ledger)
    pool.release(ledger)
    assert pool.acquire([5, 6, 7])[1] == 0


def test_truncate_and_fork(tiny: LoadedModel) -> None:
    ledger = Ledger(tiny)
    ledger.align(list(range(10, 30)))
    ledger.logits()
    copy = ledger.fork(12)
    assert (copy.ids, copy.cached) == (list(range(10, 22)), 12)
    ledger.truncate(5)
    assert (ledger.ids, ledger.cached) == (list(range(10, 15)), 5)
    assert copy.cached == 12


@pytest.fixture(scope="module")
def recurrent() -> LoadedModel:
    """A model with a state that no crop brings back."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        layer_types=["conv", "full_attention", "conv"],
        initializer_range=0.3,
    )
    model = Lfm2ForCausalLM(config).eval().requires_grad_(False)
    return LoadedModel("recurrent", model, None, None, "cpu", "none", 256, frozenset(), 0)


@pytest.mark.parametrize("budget", [0, 30_000, 1 << 30])
def test_reuse_changes_no_token_of_a_recurrent_model(recurrent: LoadedModel, budget: int) -> None:
    assert not can_crop(recurrent.new_cache())
    pool = LedgerPool(recurrent, budget)
    for prompt in PROMPTS * 2:
        assert generate(recurrent, prompt, pool) == generate(recurrent, prompt)
    assert sum(ledger.bytes() for ledger in pool._ledgers) <= budget


@pytest.mark.parametrize("length", [1, 2, 20, 32, 33, 80])
def test_a_short_turn_of_a_recurrent_model_is_computed(recurrent: LoadedModel, length: int) -> None:
    prompt = list(range(10, 10 + length))
    ledger, sampler = Ledger(recurrent), Sampler(SamplingSettings(), "cpu")
    ledger.align(prompt)
    loop = decoding(ledger, sampler, stop_ids=frozenset(), max_new_tokens=4)
    written = [id for step in Scheduler(recurrent).run(loop) if isinstance(step, Tokens) for id in step.ids]
    assert written == generate(recurrent, prompt)[:4]


def test_a_recurrent_model_returns_to_where_the_turn_began(recurrent: LoadedModel) -> None:
    pool = LedgerPool(recurrent)
    prompt = list(range(10, 90))
    answer = generate(recurrent, prompt, pool)
    for wanted, following in (
        (len(prompt) - 1, prompt),  # the same again
        (len(prompt) - 1, [*prompt, 7, 8]),  # another answer
        (len(prompt) + len(answer) - 1, [*prompt, *answer, 9]),  # the answer kept
    ):
        generate(recurrent, prompt, pool)
        ledger, cached = pool.acquire(following)
        assert cached == wanted
        pool.release(ledger)


def test_memory_that_ran_out_is_freed_and_the_step_repeated(
    tiny: LoadedModel, recurrent: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = LoadedModel.forward
    for loaded in (tiny, recurrent):
        prompt = list(range(10, 60))
        expected = generate(loaded, prompt)
        for failing in (1, 2, 5):
            passes = 0

            def scarce(self: LoadedModel, ids: Sequence[int], cache: Any, fails: int = failing) -> Any:
                nonlocal passes
                passes += 1
                result = forward(self, ids, cache)
                if passes == fails:
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
                return result

            pool = LedgerPool(loaded)
            generate(loaded, [400, 401, 402], pool)
            with monkeypatch.context() as patch:
                patch.setattr(LoadedModel, "forward", scarce)
                assert generate(loaded, prompt, pool) == expected
            (ledger,) = pool._ledgers
            assert ledger.relieved == 1


def test_without_memory_for_a_copy_the_prefix_is_read_again(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(self: Ledger, length: int) -> Ledger:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    pool, conversation, other = LedgerPool(tiny), list(range(10, 200)), [*range(10, 60), 7]
    generate(tiny, conversation, pool)
    expected = generate(tiny, other)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "fork", scarce)
        assert generate(tiny, other, pool) == expected
        pool._budget = pool._largest = 1
        assert generate(tiny, conversation, pool)
        assert pool._ledgers == []


def test_the_last_conversation_stays_whatever_others_in_use_take(tiny: LoadedModel) -> None:
    short, long = list(range(10, 40)), list(range(50, 200))
    generate(tiny, short, probe := LedgerPool(tiny))
    pool = LedgerPool(tiny, probe._ledgers[0].bytes())
    busy, _ = pool.acquire(long)
    busy.logits()
    for _ in range(3):
        generate(tiny, short, pool)
    ledger, cached = pool.acquire(short)
    assert cached == len(short) - 1
    pool.release(ledger)
    pool.release(busy)


def test_a_ledger_given_back_within_the_pools_own_work_waits_for_nothing(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the garbage collector with an abandoned stream, in whatever thread and at whatever moment."""
    pool = LedgerPool(tiny)
    prompt = list(range(10, 90))
    abandoned, _ = pool.acquire(prompt)
    abandoned.logits()
    fork = Ledger.fork

    def collecting(self: Ledger, length: int) -> Ledger:
        pool.release(abandoned)
        return fork(self, length)

    monkeypatch.setattr(Ledger, "fork", collecting)
    done = threading.Event()

    def acquire() -> None:
        pool.acquire(prompt)
        done.set()

    threading.Thread(target=acquire, daemon=True).start()
    assert done.wait(20)
    pool.release(pool.acquire([1, 2, 3])[0])
    assert not abandoned.busy


def test_a_single_long_conversation_may_take_what_memory_there_is(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, largest in ((1 << 20, 1 << 30), (64 << 30, 16 << 30)):
        monkeypatch.setattr("agentkit.engine.ledger._free_memory", lambda device, free=free: free)
        pool = LedgerPool(tiny)
        assert (pool._budget, pool._largest) == (1 << 30, largest)
    short, long = list(range(10, 40)), list(range(50, 200))
    generate(tiny, short, pool)
    pool._budget = pool._ledgers[0].bytes() - 1
    for _ in range(2):
        generate(tiny, long, pool)
        (kept,) = pool._ledgers
        assert kept.bytes() > pool._budget
        assert kept.ids[: len(long)] == long
        generate(tiny, short, pool)


def test_a_container_limits_the_budget(tmp_path: Path) -> None:
    assert _left_by_container(tmp_path) > 1 << 60
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert _left_by_container(tmp_path) > 1 << 60
    (tmp_path / "memory.max").write_text("4096\n")
    assert _left_by_container(tmp_path) == 3096


def test_memory_that_runs_out_takes_what_was_given_back_too(tiny: LoadedModel) -> None:
    pool = LedgerPool(tiny)
    ledger, _ = pool.acquire([5, 6, 7])
    ledger.logits()
    with pool._lock:  # another thread is at work
        pool.release(ledger)
    pool.free()
    assert pool._ledgers == []
