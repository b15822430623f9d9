from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import UsageError
from agentkit.training.data import IGNORED, Row
from agentkit.training.lora import Stopped, Trained, rate, train
from agentkit.training.plan import split
from agentkit.training.settings import JobSettings, make_settings


def settings(**changes: Any) -> JobSettings:
    fixed = {"name": "x", "model_name": "tiny", "model_source": "tiny", "data_name": "c", "data_sha256": ""}
    return make_settings({**fixed, "adapters_dir": "unused", **changes})


def rows(*lengths: int) -> list[Row]:
    return [
        Row(
            [(7 * n + 13 * position) % 400 + 20 for position in range(length)],
            [IGNORED] * (length // 2)
            + [(7 * n + 13 * position) % 400 + 20 for position in range(length // 2, length)],
        )
        for n, length in enumerate(lengths)
    ]


@pytest.fixture
def model(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


def test_training_learns_is_repeatable_and_leaves_the_base_alone(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    losses, before, after = [], [], []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(tiny)
        base = model.model.layers[0].mlp.up_proj.weight.detach().clone()
        seen: list[dict[str, Any]] = []
        trained = train(
            settings(epochs=4, learning_rate=0.02, batch_size=4), model, rows(*[12] * 20), seen.append
        )
        inner = trained.model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
        assert inner.equal(base)
        losses.append([progress["loss"] for progress in seen])
        before.append(trained.loss_before)
        after.append(trained.loss_after)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0] - 0.5
    assert [(p["step"], p["steps"], p["epoch"]) for p in seen] == [
        (n, 20, (n - 1) // 5 + 1) for n in range(1, 21)
    ]
    assert [p["step"] for p in seen if p["val_loss"] is not None] == [5, 10, 15, 20]
    assert seen[-1]["val_loss"] == after[0]
    assert seen[-1]["eta_s"] == 0
    assert trained.held_out == 2
    assert before[0] == before[1]
    assert after[0] == after[1]


def test_every_tenth_conversation_is_held_out_of_ten_or_more() -> None:
    sizes = [len(split(rows(*[4] * n), 0.1, random.Random(0))[1]) for n in (1, 9, 10, 24, 100)]
    assert sizes == [0, 0, 1, 2, 10]
    assert split(rows(*[4] * 20), 0.0, random.Random(0))[1] == []


def test_the_learning_rate_rises_and_falls() -> None:
    for schedule in ("cosine", "linear"):
        rates = [rate(step, 20, settings(schedule=schedule)) for step in range(20)]
        assert rates[:2] == [0.5, 1.0]
        assert rates[2:] == sorted(rates[2:], reverse=True)
        assert 0 < rates[-1] < 0.1
    assert [rate(0, 1, settings(warmup=warmup)) for warmup in (0.0, 0.1)] == [pytest.approx(0.5), 1.0]


@pytest.mark.parametrize("change", [{"epochs": 0}, {"learning_rate": -1}, {"optimizer": "adam"}])
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"training setting '{next(iter(change))}'"):
        settings(**change)


def run(
    tiny: Path, folder: Path | None = None, stop_at: int = -1, **changes: Any
) -> tuple[Trained, list[int]]:
    from transformers import AutoModelForCausalLM

    seen: list[dict[str, Any]] = []
    trained = train(
        settings(**{"epochs": 3, "learning_rate": 0.02, "batch_size": 4, "dropout": 0.1, **changes}),
        AutoModelForCausalLM.from_pretrained(tiny),
        rows(*[12] * 20),
        seen.append,
        checkpoint_dir=folder,
        should_stop=lambda: len(seen) == stop_at,
    )
    return trained, [progress["step"] for progress in seen]


@pytest.mark.parametrize("stop_at", [2, 5, 7, 14])
def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(
    tiny: Path, tmp_path: Path, stop_at: int
) -> None:
    whole, _ = run(tiny)
    with pytest.raises(Stopped):
        run(tiny, tmp_path, stop_at)
    resumed, steps = run(tiny, tmp_path)
    assert steps == list(range(stop_at + 1, 16))
    assert (resumed.loss_before, resumed.loss_after, resumed.train_loss) == (
        whole.loss_before,
        whole.loss_after,
        whole.train_loss,
    )
    for name, weight in whole.model.named_parameters():
        assert weight.equal(resumed.model.get_parameter(name)), name


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tiny, tmp_path, 3)
    _, steps = run(tiny, tmp_path, learning_rate=0.01)
    assert steps[0] == 1
    weights = tmp_path / "checkpoint-3" / "state.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    _, steps = run(tiny, tmp_path)
    assert steps[0] == 1


def test_with_patience_a_run_ends_early_with_its_best_weights(tiny: Path) -> None:
    trained, steps = run(tiny, epochs=30, learning_rate=0.5, dropout=0.0, patience=2, schedule="constant")
    assert len(steps) < 150
    assert trained.loss_after is not None
    assert trained.loss_after <= (trained.loss_before or 0)


@pytest.mark.parametrize("method", ["lora", "dora", "adalora"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_method_and_optimizer_learns(tiny: Path, method: str, optimizer: str) -> None:
    rate = 0.02 if optimizer == "adamw" else 0.5
    trained, _ = run(tiny, method=method, optimizer=optimizer, learning_rate=rate, epochs=5, dropout=0.0)
    assert trained.loss_before is not None
    assert trained.loss_after is not None
    assert trained.loss_after < trained.loss_before
