"""Many conversations in shared passes: each gets what it would get alone, and none waits for another."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from agentkit.engine import scheduler as module
from agentkit.engine.decode import Decoding, Sampler, Tokens, decoding
from agentkit.engine.families import ROWS
from agentkit.engine.ledger import Ledger, LedgerPool
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel
from agentkit.settings import SamplingSettings

PROMPTS = [[*range(10 + n, 30 + 3 * n), 400 + n] for n in range(8)]


def loop(ledger: Ledger, count: int = 12, cancel: threading.Event | None = None, **settings: Any) -> Decoding:
    sampler = Sampler(SamplingSettings(**settings), "cpu")
    return decoding(ledger, sampler, stop_ids=frozenset(), max_new_tokens=count, cancel=cancel)


def aligned(loaded: LoadedModel, prompt: Sequence[int], relieve: Callable[[], None] | None = None) -> Ledger:
    ledger = Ledger(loaded, relieve)
    ledger.align(prompt)
    return ledger


def alone(loaded: LoadedModel, prompt: Sequence[int], count: int = 12, **settings: Any) -> list[int]:
    ledger = aligned(loaded, prompt)
    for _ in Scheduler(loaded).run(loop(ledger, count, **settings)):
        pass
    return ledger.ids


def together(*tasks: Callable[[], Any], first_pass: Scheduler | None = None) -> list[Any]:
    """Results, or errors, of functions that run at the same time; in the first pass of a scheduler, all of them."""
    results: list[Any] = [None] * len(tasks)

    def run(n: int, task: Callable[[], Any]) -> None:
        try:
            results[n] = task()
        except Exception as error:
            results[n] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(tasks)]

    def all_have_asked() -> None:
        for thread in threads:
            thread.start()
        while first_pass and first_pass._inbox.qsize() < len(tasks):
            time.sleep(0.001)

    if first_pass:
        first_pass.call(all_have_asked)
    else:
        all_have_asked()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


class Passes:
    """What each pass computed: the ids of every conversation in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[list[int]] = []
        one, many = LoadedModel.forward, LoadedModel.forward_batch

        def forward(loaded: LoadedModel, ids: Sequence[int], *args: Any, **options: Any) -> Any:
            self.sizes.append([len(ids)])
            return one(loaded, ids, *args, **options)

        def forward_batch(loaded: LoadedModel, ids: Sequence[Sequence[int]], *args: Any) -> Any:
            self.sizes.append([len(part) for part in ids])
            return many(loaded, ids, *args)

        monkeypatch.setattr(LoadedModel, "forward", forward)
        monkeypatch.setattr(LoadedModel, "forward_batch", forward_batch)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes wait until all have asked, however slow this machine is."""
    monkeypatch.setattr(module, "PATIENCE_S", 5.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.1, "seed": 3}])
def test_eight_conversations_share_passes_and_say_what_they_say_alone(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    expected = [alone(tiny, prompt, **settings) for prompt in PROMPTS]
    passes, scheduler = Passes(monkeypatch), Scheduler(tiny)
    ledgers = [aligned(tiny, prompt) for prompt in PROMPTS]
    tasks = [lambda own=ledger: list(scheduler.run(loop(own, **settings))) for ledger in ledgers]
    together(*tasks, first_pass=scheduler)
    assert [ledger.ids for ledger in ledgers] == expected
    assert [ledger.forward_passes for ledger in ledgers] == [12] * 8
    assert len(passes.sizes) == scheduler.counters.passes == 12
    assert scheduler.counters.steps == 12 * 8
    assert scheduler.counters.rows == sum(map(sum, passes.sizes)) == sum(map(len, PROMPTS)) + 11 * 8
    assert scheduler.counters.seconds > 0


def test_one_conversation_is_computed_when_asked_and_no_further(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, scheduler = Passes(monkeypatch), Scheduler(tiny)
    steps = scheduler.run(loop(aligned(tiny, PROMPTS[0])))
    assert passes.sizes == []
    for n in range(3):
        assert isinstance(next(steps), Tokens)
        scheduler.call(lambda: None)
        assert len(passes.sizes) == n + 1
    steps.close()


@pytest.mark.usefixtures("patient")
def test_a_long_prompt_stalls_nobody(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read, portion by portion, the other conversation gets a token from each pass."""
    monkeypatch.setattr(module, "ROWS", 48)
    monkeypatch.setattr(module, "PROMPT_ROWS", 16)
    passes, scheduler = Passes(monkeypatch), Scheduler(tiny)
    short, long = aligned(tiny, PROMPTS[0]), aligned(tiny, [7] * 200)
    running = scheduler.run(loop(short, 30))
    next(running)
    newcomer = scheduler.run(loop(long, 3))
    together(lambda: list(newcomer), lambda: list(running), first_pass=scheduler)
    reading = [sizes for sizes in passes.sizes[1:] if sum(sizes) > 3]
    assert sum(size for sizes in reading for size in sizes if size > 1) == 200
    assert len(reading) >= 5
    assert all(1 in sizes and sum(sizes) <= 48 for sizes in reading[1:])
    assert short.ids == alone(tiny, PROMPTS[0], 30)
    assert long.ids == alone(tiny, [7] * 200, 3)


def test_no_pass_is_larger_than_the_model_takes(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, scheduler = Passes(monkeypatch), Scheduler(tiny)
    ledgers = [aligned(tiny, [n + 5] * 150) for n in range(6)]
    tasks = [lambda own=ledger: list(scheduler.run(loop(own, 2))) for ledger in ledgers]
    together(*tasks, first_pass=scheduler)
    assert max(map(len, passes.sizes)) > 1
    assert max(map(sum, passes.sizes)) <= ROWS
    assert [ledger.ids for ledger in ledgers] == [alone(tiny, [n + 5] * 150, 2) for n in range(6)]


class Failing:
    """A grammar that allows everything, until it breaks."""

    complete = False

    def __init__(self, after: int) -> None:
        self._left = after

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        self._left -= 1
        if self._left < 0:
            raise ValueError("the grammar broke")
        return logits

    def permits(self, token: int, remaining: int) -> bool:
        return False

    def accept(self, token: int) -> None: ...

    def forced(self) -> list[int]:
        return []

    def allows(self, draft: Sequence[int]) -> int:
        return len(draft)


@pytest.mark.usefixtures("patient")
def test_whoever_fails_is_cancelled_or_goes_away_disturbs_no_other(tiny: LoadedModel) -> None:
    scheduler, cancel = Scheduler(tiny), threading.Event()
    ledgers = [aligned(tiny, prompt) for prompt in PROMPTS]

    def broken() -> list[Any]:
        sampler = Sampler(SamplingSettings(), "cpu")
        steps = decoding(ledgers[1], sampler, stop_ids=frozenset(), max_new_tokens=12, grammar=Failing(4))
        return list(scheduler.run(steps))

    def cancelled() -> list[Any]:
        said = []
        for step in scheduler.run(loop(ledgers[2], cancel=cancel), cancel):
            said.append(step)
            if len(said) == 5:
                cancel.set()
        return said

    def gone() -> None:
        steps = scheduler.run(loop(ledgers[3]))
        for _ in range(3):
            next(steps)
        steps.close()

    others = [0, 4, 5, 6, 7]
    results = together(
        broken, cancelled, gone, *(lambda n=n: list(scheduler.run(loop(ledgers[n]))) for n in others)
    )
    assert isinstance(results[0], ValueError)
    assert len(results[1]) == 6
    assert results[1][-1] == "cancelled"
    for n in others:
        assert ledgers[n].ids == alone(tiny, PROMPTS[n])
    for n, count in ((1, 4), (2, 5), (3, 3)):
        assert ledgers[n].ids == alone(tiny, PROMPTS[n], count)
    assert list(scheduler.run(loop(aligned(tiny, PROMPTS[0]), 2)))[-1] == "length"


def test_a_long_prompt_can_be_cancelled_while_it_is_read(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALONE", 40)
    passes, scheduler, cancel = Passes(monkeypatch), Scheduler(tiny), threading.Event()
    forward = LoadedModel.forward

    def second_sets(self: LoadedModel, *args: Any, **options: Any) -> Any:
        if len(passes.sizes) == 1:
            cancel.set()
        return forward(self, *args, **options)

    monkeypatch.setattr(LoadedModel, "forward", second_sets)
    ledger = aligned(tiny, [7] * 200)
    assert list(scheduler.run(loop(ledger, cancel=cancel), cancel)) == ["cancelled"]
    assert passes.sizes == [[40], [40]]
    assert ledger.cached == 80


@pytest.mark.usefixtures("patient")
def test_a_pass_that_fails_is_done_again_one_by_one(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One finds no memory for good, one after the others' caches were dropped, the rest at once."""
    expected = [alone(tiny, prompt) for prompt in PROMPTS[:4]]
    one, many = LoadedModel.forward, LoadedModel.forward_batch
    poor, once = aligned(tiny, PROMPTS[0], lambda: None), []
    relieved = aligned(tiny, PROMPTS[1], lambda: once.append(1))

    def forward(self: LoadedModel, ids: Sequence[int], cache: Any, **options: Any) -> Any:
        result = one(self, ids, cache, **options)
        if cache is poor.cache or (cache is relieved.cache and not once):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return result

    def forward_batch(self: LoadedModel, ids: Any, caches: Any, last: Any) -> Any:
        result = many(self, ids, caches, last)
        if any(cache is poor.cache for cache in caches):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return result

    monkeypatch.setattr(LoadedModel, "forward", forward)
    monkeypatch.setattr(LoadedModel, "forward_batch", forward_batch)
    scheduler = Scheduler(tiny)
    ledgers = [poor, relieved, aligned(tiny, PROMPTS[2]), aligned(tiny, PROMPTS[3])]
    tasks = [lambda own=ledger: list(scheduler.run(loop(own))) for ledger in ledgers]
    results = together(*tasks, first_pass=scheduler)
    assert "allocate memory" in str(results[0])
    assert (poor.ids, poor.cached, poor.relieved) == (PROMPTS[0], 0, 1)
    assert [ledger.ids for ledger in ledgers[1:]] == expected[1:]
    assert (relieved.relieved, ledgers[2].relieved) == (1, 0)


def test_a_slow_listener_delays_only_himself(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """He is no longer waited for: the other's passes go on without him."""
    passes, scheduler = Passes(monkeypatch), Scheduler(tiny)
    slow, quick = aligned(tiny, PROMPTS[0]), aligned(tiny, PROMPTS[1])
    held = scheduler.run(loop(slow))
    next(held)
    assert list(scheduler.run(loop(quick)))[-1] == "length"
    assert len(passes.sizes) == 13
    list(held)
    assert slow.ids == alone(tiny, PROMPTS[0])


def test_a_conversation_that_goes_on_is_copied_between_two_passes(tiny: LoadedModel) -> None:
    """Forks of ledgers that are being written, by many threads."""
    pool, scheduler, base = LedgerPool(tiny), Scheduler(tiny), list(range(10, 90))
    prompts = [[*base, *range(100 + n, 104 + n)] for n in range(6)] * 2

    def session(prompt: list[int]) -> list[int]:
        ledger, _ = scheduler.call(lambda: pool.acquire(prompt))
        for _ in scheduler.run(loop(ledger, 8)):
            pass
        pool.release(ledger)
        return ledger.ids

    results = together(*(lambda own=prompt: session(own) for prompt in prompts))
    assert results == [alone(tiny, prompt, 8) for prompt in prompts]
    assert not any(ledger.busy for ledger in pool._ledgers)


def test_an_error_of_a_called_function_is_the_callers(tiny: LoadedModel) -> None:
    scheduler = Scheduler(tiny)
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 // 0)
    assert scheduler.call(threading.current_thread).name.startswith("agentkit-")


def test_the_thread_ends_with_its_last_holder(tiny: LoadedModel) -> None:
    scheduler = Scheduler(tiny)
    thread = scheduler.call(threading.current_thread)
    steps = scheduler.run(loop(aligned(tiny, PROMPTS[0])))
    next(steps)
    del scheduler
    assert isinstance(next(steps), Tokens)
    assert thread.is_alive()
    del steps
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_a_model_that_runs_through_transformers_takes_turns() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    loaded = LoadedModel("plain", model, None, None, "cpu", "none", 256, frozenset(), 0)
    assert not loaded.batches
    with pytest.raises(ValueError, match="one conversation at a time"):
        loaded.forward_batch([[1]], [loaded.new_cache()], [1])
    scheduler = Scheduler(loaded)
    ledgers = [aligned(loaded, prompt) for prompt in PROMPTS]
    together(*(lambda own=ledger: list(scheduler.run(loop(own))) for ledger in ledgers))
    assert [ledger.ids for ledger in ledgers] == [alone(loaded, prompt) for prompt in PROMPTS]


def test_a_thread_that_does_not_start_keeps_nobody_waiting(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks at the end of the program gets an error, and so does whoever asks next."""
    scheduler, found = Scheduler(tiny), []

    def no_thread(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    def ask() -> None:
        for _ in range(2):
            try:
                found.append(scheduler.call(lambda: "answer"))
            except RuntimeError as error:
                found.append(str(error))

    for _ in range(2):
        thread = threading.Thread(target=ask, daemon=True)
        with monkeypatch.context() as patch:
            patch.setattr(scheduler._thread, "submit", no_thread)
            thread.start()
            thread.join(60)
        assert not thread.is_alive()
    assert found == ["can't start new thread"] * 4
    assert scheduler.call(lambda: "answer") == "answer"
    assert scheduler._inbox.empty()


def test_what_failed_is_not_held_by_its_error(tiny: LoadedModel) -> None:
    """A pass that found no memory is tried again: the caches of the first attempt must be gone by then."""
    scheduler, cache = Scheduler(tiny), tiny.new_cache()
    alive = weakref.ref(cache)
    gc.disable()
    try:
        with pytest.raises(MemoryError):
            scheduler.call(partial(_without_memory, cache))
        del cache
        scheduler.call(lambda: None)  # the thread has let go of the job before
        assert alive() is None
    finally:
        gc.enable()


def _without_memory(cache: Any) -> None:
    raise MemoryError
