from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import UsageError
from agentkit.training.data import IGNORED, Row
from agentkit.training.lora import batches, loss_of, rate, split, train
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


def test_loss_of_a_padded_batch_is_that_of_transformers_row_by_row(model: Any) -> None:
    import torch

    batch = rows(5, 9, 16)
    total = count = 0.0
    for row in batch:
        labels = torch.tensor([row.labels])
        learned = sum(label != IGNORED for label in row.labels[1:])
        total += float(model(input_ids=torch.tensor([row.ids]), labels=labels).loss.detach()) * learned
        count += learned
    assert float(loss_of(model, batch).detach()) == pytest.approx(total / count, rel=1e-5)


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
    assert seen[-1]["eta_s"] == 0
    assert trained.held_out == 2
    assert before[0] == before[1]
    assert after[0] == after[1]


def test_batches_are_of_similar_length_and_within_the_limits() -> None:
    job = settings(batch_size=3, batch_tokens=40)
    found = batches(rows(4, 30, 6, 5, 18, 7, 20, 90), job, random.Random(0))
    lengths = sorted(sorted(len(row.ids) for row in batch) for batch in found)
    assert lengths == [[4, 5, 6], [7, 18], [20], [30], [90]]


@pytest.mark.parametrize(("count", "size"), [(24, 2), (100, 2), (200, 4), (1000, 8)])
def test_larger_data_is_learned_in_larger_batches(count: int, size: int) -> None:
    assert max(map(len, batches(rows(*[4] * count), settings()))) == size


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


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"learning_rate": -1}, {"optimizer": "adam-x"}, {"steps": 3}]
)
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"training setting '{next(iter(change))}'"):
        settings(**change)
