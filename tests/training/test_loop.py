"""The training loop on a tiny model: what it reports, and that an interrupted run ends like one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import TrainingError, UsageError
from agentkit.training.data import IGNORED, Row, Split
from agentkit.training.loop import Stopped, Trained, evaluate, rate, train
from agentkit.training.settings import JobSettings, make_settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def settings(**changes: Any) -> JobSettings:
    fixed = {"name": "x", "model_name": "tiny", "model_source": "tiny", "data_name": "c", "data_sha256": ""}
    chosen = {"epochs": 3, "batch_size": 2, "learning_rate": 0.01, "rank": 4, "dropout": 0.1, **changes}
    return make_settings({**fixed, "adapters_dir": "unused", **chosen})


def row(n: int, split: Split = "train") -> Row:
    ids = [(7 * n + 13 * place) % 400 + 20 for place in range(12)]
    return Row(ids, [IGNORED] * 6 + ids[6:], split)


ROWS = [*(row(n) for n in range(6)), *(row(n, "validation") for n in range(6, 9))]
STEPS = 9


@pytest.fixture
def fresh(tiny: Path) -> Callable[[], Any]:
    def load() -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(tiny)

    return load


def weights(trained: Trained) -> dict[str, Any]:
    return {
        name: value.detach().clone() for name, value in trained.model.named_parameters() if "lora" in name
    }


def has_seen(lines: list[Any], count: int) -> bool:
    return len(lines) >= count


@pytest.mark.parametrize(
    "change", [{}, {"optimizer": "sgd"}, {"method": "dora"}, {"method": "adalora"}, {"patience": 9}]
)
def test_a_resumed_run_ends_exactly_as_one_that_was_never_interrupted(
    fresh: Callable[[], Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    import torch

    job = settings(**change)
    lines: list[dict[str, Any]] = []
    whole = train(job, fresh(), ROWS, lines.append)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["val_loss"] is not None for line in lines] == [n % 3 == 0 for n in range(1, STEPS + 1)]
    assert all(line["grad_norm"] > 0 and line["lr"] > 0 for line in lines)

    seen: list[dict[str, Any]] = []
    for end in (2, 6):  # within an epoch, and at the end of one
        stop = partial(has_seen, seen, end)
        with pytest.raises(Stopped):
            train(job, fresh(), ROWS, seen.append, checkpoint_dir=tmp_path, should_stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]
    resumed = train(job, fresh(), ROWS, seen.append, checkpoint_dir=tmp_path)
    assert [line["loss"] for line in seen] == [line["loss"] for line in lines]
    assert (resumed.train_loss, resumed.loss_before, resumed.loss_after) == (
        whole.train_loss, whole.loss_before, whole.loss_after,
    )  # fmt: skip
    assert (resumed.steps, resumed.held_out) == (STEPS, 3)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_half_written_and_damaged_checkpoints_are_left_out(
    fresh: Callable[[], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, Any]] = []
    with pytest.raises(Stopped):
        train(
            settings(),
            fresh(),
            ROWS,
            seen.append,
            checkpoint_dir=tmp_path,
            should_stop=lambda: len(seen) == 4,
        )
    torn = tmp_path / "checkpoint-8"
    shutil.copytree(tmp_path / "checkpoint-4", torn)
    with (torn / "state.safetensors").open("rb+") as handle:
        handle.truncate(1000)
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / ".checkpoint-9").mkdir()
    train(settings(), fresh(), ROWS, seen.append, checkpoint_dir=tmp_path)
    assert [line["step"] for line in seen] == list(range(1, STEPS + 1))
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" is ")[0] for line in told] == [
        "checkpoint-8",
        "checkpoint-7",
        "going on from checkpoint-4",
    ]


def test_checkpoints_come_by_the_clock(fresh: Callable[[], Any], tmp_path: Path) -> None:
    train(settings(checkpoint_every_s=1e-6), fresh(), ROWS, lambda line: None, checkpoint_dir=tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"checkpoint-{STEPS}"]
    train(settings(), fresh(), ROWS, lambda line: None, checkpoint_dir=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_without_progress_on_held_out_chats_it_ends_early_with_the_best_weights(
    fresh: Callable[[], Any],
) -> None:
    job = settings(learning_rate=0.5, epochs=20, patience=2, schedule="linear", warmup=0)
    lines: list[dict[str, Any]] = []
    trained = train(job, fresh(), ROWS, lines.append)
    held_out = [line["val_loss"] for line in lines if line["val_loss"] is not None]
    assert len(held_out) < 20
    assert round(trained.loss_after or 0, 4) == min(held_out)
    assert held_out.index(min(held_out)) == len(held_out) - 3
    assert evaluate(trained.model, ROWS[6:], shared=False) == pytest.approx(trained.loss_after)


def test_a_loss_that_is_no_number_ends_the_run(fresh: Callable[[], Any]) -> None:
    model = fresh()
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan at step 1; lower learning_rate"):
        train(settings(), model, ROWS, lambda line: None)


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(fresh: Callable[[], Any], tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    stop = partial(has_seen, seen, 3)
    with pytest.raises(Stopped):
        train(settings(), fresh(), ROWS, seen.append, checkpoint_dir=tmp_path, should_stop=stop)
    again: list[dict[str, Any]] = []
    train(settings(learning_rate=0.02), fresh(), ROWS, again.append, checkpoint_dir=tmp_path)
    assert again[0]["step"] == 1


@pytest.mark.parametrize("method", ["lora", "dora", "adalora"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_method_and_optimizer_learns_and_leaves_the_base_alone(
    fresh: Callable[[], Any], method: str, optimizer: str
) -> None:
    model = fresh()
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    job = settings(
        method=method, optimizer=optimizer, learning_rate=0.02 if optimizer == "adamw" else 0.5, epochs=8,
        dropout=0.0,
    )  # fmt: skip
    same = [row(n, "train") for n in range(6)] + [row(n, "validation") for n in range(3)]
    trained = train(job, model, same, lambda line: None)
    assert trained.loss_before is not None
    assert trained.loss_after is not None
    assert trained.loss_after < trained.loss_before - 0.2
    assert trained.model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.equal(before)


def test_the_learning_rate_rises_and_falls() -> None:
    for schedule in ("cosine", "linear"):
        rates = [rate(step, 20, settings(schedule=schedule)) for step in range(20)]
        assert rates[:2] == [0.5, 1.0]
        assert rates[2:] == sorted(rates[2:], reverse=True)
        assert 0 < rates[-1] < 0.1
    assert {rate(step, 20, settings(schedule="constant")) for step in range(2, 20)} == {1.0}
    assert [rate(0, 1, settings(warmup=warmup)) for warmup in (0.0, 0.1)] == [pytest.approx(0.5), 1.0]


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"learning_rate": -1}, {"optimizer": "adam-x"}, {"steps": 3}]
)
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"training setting '{next(iter(change))}'"):
        settings(**change)
