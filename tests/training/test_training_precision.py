"""What a run computes in, by its device; and that the casts of CUDA change no more than their rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit.engine.precision import native_dtype
from agentkit.engine.weights import load_weights
from agentkit.errors import UsageError
from agentkit.training.data import IGNORED, Row, Split
from agentkit.training.loop import Stopped, Trained, train
from agentkit.training.methods import exported
from agentkit.training.precision import Numbers, choose
from agentkit.training.settings import make_settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def row(n: int, split: Split = "train") -> Row:
    ids = [(7 * n + 13 * place) % 400 + 20 for place in range(12)]
    return Row(ids, [IGNORED] * 6 + ids[6:], split)


ROWS = [*(row(n) for n in range(6)), *(row(n, "validation") for n in range(3))]


def settings(**changes: Any) -> Any:
    fixed = {"name": "x", "model_name": "tiny", "model_source": "tiny", "data_name": "c", "data_sha256": ""}
    chosen = {"rank": 4, "batch_size": 2, "epochs": 2, "learning_rate": 0.01, **changes}
    return make_settings({**fixed, "adapters_dir": "unused", **chosen})


def load(tiny: Path, dtype: Any, method: str = "lora", device: Any = "cpu") -> Any:
    quantize: Any = "nf4" if method == "qlora" else "none"
    return load_weights(
        str(tiny), name="tiny", device=device, quantize=quantize, trainable=True, dtype=dtype
    ).model


def test_a_cpu_computes_in_what_is_native() -> None:
    import torch

    assert choose("auto", "cpu") == Numbers("cpu", native_dtype())
    assert choose("bf16", "cpu") == Numbers("cpu", torch.bfloat16)
    assert choose("fp32", "cpu") == Numbers("cpu", torch.float32)
    with pytest.raises(UsageError, match="precision fp16 is for CUDA; use auto, bf16 or fp32"):
        choose("fp16", "cpu")


def test_a_gpu_computes_in_what_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    bf16 = Numbers("cuda", torch.bfloat16, autocast=True)
    fp16 = Numbers("cuda", torch.float16, autocast=True, scaled=True)
    fp32 = Numbers("cuda", torch.float32)
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, n=native: n)
        assert choose("auto", "cuda") == (bf16 if native else fp16)
        assert choose("fp16", "cuda") == fp16
        assert choose("fp32", "cuda") == fp32
        if native:
            assert choose("bf16", "cuda") == bf16
        else:
            with pytest.raises(UsageError, match="does not compute in bfloat16; use precision auto, fp16"):
                choose("bf16", "cuda")


def run(tiny: Path, numbers: Numbers, method: str, **options: Any) -> Trained:
    job = settings(method=method)
    device = numbers.device
    model = load(tiny, numbers.dtype, method, device)
    return train(job, model, ROWS, options.pop("seen", [].append), numbers=numbers, **options)


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "qlora"])
def test_autocast_changes_no_more_than_its_rounding(tiny: Path, method: str) -> None:
    import torch

    exact = run(tiny, Numbers("cpu", torch.float32 if method != "qlora" else torch.bfloat16), method)
    cast = run(tiny, Numbers("cpu", torch.bfloat16, autocast=True), method)
    assert exact.loss_before is not None
    assert exact.loss_after is not None
    assert cast.loss_before == pytest.approx(exact.loss_before, rel=0.02)
    assert cast.loss_after == pytest.approx(exact.loss_after, rel=0.05)
    assert exact.loss_after < exact.loss_before
    for name, weight in cast.model.named_parameters():
        assert weight.dtype == torch.float32 or not weight.requires_grad, name


def test_a_scaled_run_in_float16_leaves_out_what_overflows_and_is_resumed(tiny: Path, tmp_path: Path) -> None:
    import torch

    numbers = Numbers("cpu", torch.float16, autocast=False, scaled=True)
    lines: list[dict[str, Any]] = []
    whole = run(tiny, numbers, "lora", seen=lines.append)
    exact = run(tiny, Numbers("cpu", torch.float32), "lora")
    taken = [line["grad_norm"] for line in lines]
    assert sum(norm is not None for norm in taken) >= 3
    assert whole.loss_before == pytest.approx(exact.loss_before, rel=0.02)
    assert whole.loss_after is not None
    assert whole.loss_before is not None
    assert whole.loss_after < whole.loss_before
    seen: list[dict[str, Any]] = []
    folder = tmp_path / "checkpoints"
    with pytest.raises(Stopped):
        run(tiny, numbers, "lora", seen=seen.append, checkpoint_dir=folder, should_stop=lambda: len(seen) > 1)
    resumed = run(tiny, numbers, "lora", seen=seen.append, checkpoint_dir=folder)
    assert [line["loss"] for line in seen] == [line["loss"] for line in lines]
    first, second = (exported(trained.model, "tiny")[1] for trained in (whole, resumed))
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
        assert weight.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "qlora"])
@pytest.mark.parametrize("precision", ["auto", "fp16", "fp32"])
def test_a_gpu_learns_what_a_cpu_learns(tiny: Path, tmp_path: Path, method: str, precision: Any) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    numbers = choose(precision, "cuda")
    exact = run(tiny, Numbers("cpu", torch.float32 if method != "qlora" else torch.bfloat16), method)
    lines: list[dict[str, Any]] = []
    found = run(tiny, numbers, method, seen=lines.append)
    assert found.loss_before == pytest.approx(exact.loss_before, rel=0.05)
    assert found.loss_after == pytest.approx(exact.loss_after, rel=0.1)
    seen: list[dict[str, Any]] = []
    with pytest.raises(Stopped):
        run(
            tiny,
            numbers,
            method,
            seen=seen.append,
            checkpoint_dir=tmp_path,
            should_stop=lambda: len(seen) > 2,
        )
    resumed = run(tiny, numbers, method, seen=seen.append, checkpoint_dir=tmp_path)
    assert resumed.loss_after == pytest.approx(found.loss_after, rel=0.02)
