"""The training loop on a tiny model: what it reports, and that an interrupted run ends like one that was not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentkit.engine.weights import load_weights
from agentkit.errors import TrainingError, UsageError
from agentkit.training.data import IGNORED, Row, Split
from agentkit.training.loop import Stopped, Trained, evaluate, rate, train
from agentkit.training.loss import loss_sum
from agentkit.training.methods import exported, orthogonality, with_adapter
from agentkit.training.packing import pack
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
    "change",
    [
        {},
        {"optimizer": "sgd"},
        {"method": "dora"},
        {"method": "adalora"},
        {"patience": 9},
        {"loraplus_lr_ratio": 4},
    ],
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


def test_a_checkpoint_takes_the_place_of_later_ones_of_another_run(tmp_path: Path) -> None:
    import torch

    from agentkit.training import checkpoint

    for step in (9, 3):
        checkpoint.save(tmp_path, step, {"weight": torch.full((2,), float(step))}, {"run": str(step)})
        assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{step}"]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[0]["weight"].tolist() == [3.0, 3.0]


def test_a_checkpoint_of_another_device_can_be_gone_on_from() -> None:
    import torch

    from agentkit.training.checkpoint import random_states, restore_random

    on_cpu = random_states(torch.device("cpu"))
    drawn = torch.rand(3)
    restore_random(on_cpu, torch.device("cuda"))  # which has no state of its own in it
    assert torch.equal(torch.rand(3), drawn)


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


def test_a_gradient_that_is_no_number_is_named(fresh: Callable[[], Any]) -> None:
    model = fresh()
    model.model.norm.register_full_backward_hook(lambda module, given, got: (given[0] * math.inf,))
    with pytest.raises(TrainingError, match=r"the norm of the gradient is (nan|inf) at step 1; lower learn"):
        train(settings(), model, ROWS, lambda line: None)


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(
    fresh: Callable[[], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, Any]] = []
    stop = partial(has_seen, seen, 3)
    with pytest.raises(Stopped):
        train(settings(), fresh(), ROWS, seen.append, checkpoint_dir=tmp_path, should_stop=stop)
    again: list[dict[str, Any]] = []
    train(settings(learning_rate=0.02), fresh(), ROWS, again.append, checkpoint_dir=tmp_path)
    assert again[0]["step"] == 1
    assert "checkpoint-3 is of another run: this one begins anew" in capsys.readouterr().out.splitlines()


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


def test_adalora_learns_with_a_single_rank(fresh: Callable[[], Any]) -> None:
    trained = train(settings(method="adalora", rank=1, epochs=8), fresh(), ROWS, lambda line: None)
    config, weights = exported(trained.model, "tiny")
    assert 0 < sum(config.rank_pattern.values()) <= 28
    assert weights


def test_qlora_still_learns_after_the_held_out_chats_were_looked_at(tiny: Path) -> None:
    model = load_weights(str(tiny), name="tiny", device="cpu", quantize="nf4", trainable=True).model
    job = settings(method="qlora", learning_rate=0.02, epochs=1, dropout=0.0)
    tuned = with_adapter(model, job, 1)
    held_out = ROWS[6:]
    for look in (False, True):
        if look:
            evaluate(tuned, held_out, shared=False)
        tuned.train()
        (packed,) = pack(ROWS[:2], 100)
        loss_sum(tuned, packed, shared=False).backward()
        reached = {
            name
            for name, weight in tuned.named_parameters()
            if "lora_B" in name and weight.grad is not None and weight.grad.any()
        }
        assert len(reached) == 14, f"held out looked at: {look}"
        tuned.zero_grad()
    for name, weight in tuned.named_parameters():
        assert weight.requires_grad == ("lora" in name)


def test_qlora_learns(tiny: Path) -> None:
    model = load_weights(str(tiny), name="tiny", device="cpu", quantize="nf4", trainable=True).model
    same = [row(n, "train") for n in range(6)] + [row(n, "validation") for n in range(3)]
    job = settings(method="qlora", learning_rate=0.02, epochs=8, dropout=0.0)
    trained = train(job, model, same, lambda line: None)
    assert trained.loss_before is not None
    assert trained.loss_after is not None
    assert trained.loss_after < trained.loss_before - 0.2


@pytest.mark.parametrize("method", ["lora", "dora", "adalora"])
def test_what_is_stored_computes_what_was_trained(
    fresh: Callable[[], Any], tmp_path: Path, method: str
) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import save_file

    job = settings(method=method, learning_rate=0.05, epochs=9, dropout=0.0)
    trained = train(job, fresh(), ROWS, lambda line: None).model
    config, weights = exported(trained, "tiny")
    config.save_pretrained(tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    stored = PeftModel.from_pretrained(fresh(), str(tmp_path)).eval()
    ids = torch.tensor([ROWS[0].ids])
    with torch.inference_mode():
        right, bare = trained(input_ids=ids).logits, fresh()(input_ids=ids).logits
        torch.testing.assert_close(stored(input_ids=ids).logits, right, rtol=1e-4, atol=1e-4)
    assert float((right - bare).abs().max()) > 0.1
    assert config.peft_type == "LORA"
    if method == "adalora":
        assert sum(config.rank_pattern.values()) <= 14 * job.rank


def test_adalora_keeps_its_directions_apart_as_peft_does(fresh: Callable[[], Any]) -> None:
    import torch

    tuned = with_adapter(fresh(), settings(method="adalora"), 10)
    ids = torch.tensor([ROWS[0].ids])
    with_penalty = tuned(input_ids=ids, labels=ids).loss
    without = tuned.get_base_model()(input_ids=ids, labels=ids).loss
    assert float(orthogonality(tuned).detach()) == pytest.approx(
        float((with_penalty - without).detach()), rel=1e-3
    )


@pytest.mark.parametrize(
    ("change", "rate"),
    [({}, 0.001), ({"optimizer": "sgd"}, 0.1), ({"method": "adalora"}, 0.01), ({"method": "qlora"}, 0.001),
     ({"method": "adalora", "optimizer": "sgd"}, 0.1)],
)  # fmt: skip
def test_a_learning_rate_that_is_not_given_suits_the_method(change: dict[str, Any], rate: float) -> None:
    assert settings(learning_rate=None, **change).learning_rate == rate
    assert settings(learning_rate=0.3, **change).learning_rate == 0.3


def test_the_learning_rate_rises_and_falls() -> None:
    for schedule in ("cosine", "linear"):
        rates = [rate(step, 20, settings(schedule=schedule)) for step in range(20)]
        assert rates[:2] == [0.5, 1.0]
        assert rates[2:] == sorted(rates[2:], reverse=True)
        assert 0 < rates[-1] < 0.1
    assert {rate(step, 20, settings(schedule="constant")) for step in range(2, 20)} == {1.0}
    assert [rate(0, 1, settings(warmup=warmup)) for warmup in (0.0, 0.1)] == [pytest.approx(0.5), 1.0]


@pytest.mark.parametrize(("method", "ratio"), [("lora", 4.0), ("dora", 4.0), ("lora", 1.0)])
def test_second_matrices_learn_at_their_own_rate(fresh: Callable[[], Any], method: str, ratio: float) -> None:
    job = settings(method=method, loraplus_lr_ratio=ratio, epochs=1, warmup=0, schedule="constant")
    trained = train(job, fresh(), ROWS[:2], lambda _: None)
    # Adam's first step is the learning rate itself, whatever the gradient.
    moved = {name: float(value.abs().max()) for name, value in weights(trained).items() if ".lora_B." in name}
    assert list(moved.values()) == [pytest.approx(0.01 * ratio, rel=1e-3)] * 14


@pytest.mark.parametrize("method", ["adalora", "full"])
def test_a_ratio_is_refused_where_there_are_no_two_matrices(method: str) -> None:
    task = "classification" if method == "full" else "chat"
    with pytest.raises(UsageError, match="loraplus_lr_ratio"):
        settings(method=method, task=task, loraplus_lr_ratio=4, rank=None, dropout=None)


def test_float16_on_a_cpu_is_refused_before_a_job_begins() -> None:
    with pytest.raises(UsageError, match="precision fp16 is for CUDA: on a CPU use auto, bf16 or fp32"):
        settings(precision="fp16", device="cpu")
    assert settings(precision="fp16").precision == "fp16"


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"learning_rate": -1}, {"optimizer": "adam-x"}, {"steps": 3}, {"clip": math.inf},
        {"checkpoint_every_s": math.inf}, {"weight_decay": math.inf}, {"weight_decay": math.nan},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"training setting '{next(iter(change))}'"):
        settings(**change)
