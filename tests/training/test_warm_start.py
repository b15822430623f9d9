"""A run that begins from an adapter computes what that adapter computes, until its first step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from adapter_files import write_adapter

from agentkit.engine.peft_files import CONFIG, WEIGHTS, read_lora
from agentkit.engine.weights import load_weights
from agentkit.errors import AgentkitError, TrainingError, UsageError
from agentkit.llm.adapters import Traits
from agentkit.llm.guide import Strength
from agentkit.training import adapters, jobs
from agentkit.training.data import IGNORED, Row, Split
from agentkit.training.loop import Stopped, evaluate, train
from agentkit.training.methods import _keep_differentiable, exported, with_adapter
from agentkit.training.settings import JobSettings, make_settings, read_settings_file
from agentkit.training.warm_start import find_start, initialize, settings_for

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def settings(folder: Path, **changes: Any) -> JobSettings:
    fixed = {"name": "x", "model_name": "tiny", "model_source": "tiny", "data_name": "c", "data_sha256": ""}
    return make_settings({**fixed, "adapters_dir": folder, **changes})


def row(n: int, split: Split = "train") -> Row:
    ids = [(7 * n + 13 * place) % 400 + 20 for place in range(12)]
    return Row(ids, [IGNORED] * 6 + ids[6:], split)


ROWS = [*(row(n) for n in range(6)), *(row(n, "validation") for n in range(6, 9))]


@pytest.fixture
def fresh(tiny: Path) -> Callable[[], Any]:
    def load() -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(tiny)

    return load


@pytest.fixture
def shipped(tmp_path: Path, fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    return write_adapter(tmp_path / "_adapters" / "tiny", fresh(), base="tiny", rank=4, size=0.3)


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ROWS[0].ids])).logits


def under_peft(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder)).eval()


def begun(model: Any, job: JobSettings, folder: Path) -> Any:
    tuned = with_adapter(model, job, 10)
    initialize(tuned, read_lora(folder))
    return tuned.eval()


def test_without_a_step_it_is_the_adapter_it_began_from(
    fresh: Callable[[], Any], shipped: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    job = settings(tmp_path)
    start = find_start(job)
    assert start is not None
    job = settings_for(job, start)
    assert (job.start, job.start_sha256, job.rank, job.alpha) == ("shipped", start.sha256, 4, 8)
    tuned = begun(fresh(), job, shipped)
    assert torch.equal(logits(tuned), logits(under_peft(fresh(), shipped)))
    config, weights = exported(tuned, "tiny")
    before = load_file(shipped / WEIGHTS)
    assert weights.keys() == before.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, before[name]), name
    assert (config.r, config.lora_alpha, config.peft_type) == (4, 8, "LORA")


@pytest.mark.parametrize(
    ("change", "config", "names"),
    [({"rank": 7}, {}, ()), ({"alpha": 5}, {}, ()), ({"rank": 16, "alpha": 3}, {}, ()), ({"method": "dora"}, {}, ()),
     ({"method": "dora", "rank": 6}, {}, ()), ({}, {}, ("q_proj", "down_proj")), ({}, {"use_rslora": True}, ()),
     ({}, {"alpha_pattern": {"v_proj": 40}}, ())],
)  # fmt: skip
def test_other_ranks_scales_methods_and_layers_change_nothing(
    fresh: Callable[[], Any],
    tmp_path: Path,
    change: dict[str, Any],
    config: dict[str, Any],
    names: Sequence[str],
) -> None:
    import torch

    folder = write_adapter(tmp_path / "own", fresh(), rank=4, size=0.3, names=names, **config)
    job = settings(tmp_path, start=str(folder), **change)
    job = settings_for(job, find_start(job))
    assert {key: getattr(job, key) for key in change} == change
    assert job.start == "own"
    right, bare = logits(under_peft(fresh(), folder)), logits(fresh())
    torch.testing.assert_close(logits(begun(fresh(), job, folder)), right, rtol=1e-4, atol=1e-4)
    assert float((right - bare).abs().max()) > 0.1


def test_beside_weights_of_four_bits_it_computes_the_same(tiny: Path, shipped: Path, tmp_path: Path) -> None:
    def load() -> Any:
        model = load_weights(str(tiny), name="tiny", device="cpu", quantize="nf4", trainable=True).model
        _keep_differentiable(model)  # the kernel that packs weights anew knows no layers as small as these
        return model

    job = settings(tmp_path, method="qlora")
    start = find_start(job)
    assert start is not None
    right = logits(under_peft(load(), shipped))
    mine = logits(begun(load(), settings_for(job, start), shipped))
    bare = logits(load())  # norms are float32 in training, bf16 without
    assert float((mine - right).float().norm()) < 0.02 * float((right - bare).float().norm())


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_run_goes_on_from_it_and_is_resumed_to_the_same_end(
    fresh: Callable[[], Any], shipped: Path, tmp_path: Path, method: str
) -> None:
    import torch

    job = settings(tmp_path, method=method, epochs=2, batch_size=2, learning_rate=0.01)
    job, start = settings_for(job, find_start(job)), read_lora(shipped)
    whole = train(job, fresh(), ROWS, lambda line: None, start=start)
    expected = evaluate(under_peft(fresh(), shipped), ROWS[6:], shared=False)
    assert whole.loss_before == pytest.approx(expected, rel=1e-4)
    seen: list[Any] = []
    folder = tmp_path / "checkpoints"
    with pytest.raises(Stopped):
        train(
            job,
            fresh(),
            ROWS,
            seen.append,
            start=start,
            checkpoint_dir=folder,
            should_stop=lambda: len(seen) > 3,
        )
    resumed = train(job, fresh(), ROWS, seen.append, start=start, checkpoint_dir=folder)
    assert resumed.loss_before == whole.loss_before
    for (name, first), second in zip(
        exported(whole.model, "tiny")[1].items(), exported(resumed.model, "tiny")[1].values(), strict=True
    ):
        assert torch.equal(first, second), name
    config, _ = exported(whole.model, "tiny")
    assert (config.r, config.use_dora) == (4, method == "dora")
    assert config.target_modules == sorted(config.target_modules)  # the same file from the same training


def test_what_the_setting_means(fresh: Callable[[], Any], shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    write_adapter(folder / "shop", fresh(), base="tiny", rank=6)

    def meant(**changes: Any) -> tuple[str, int, int]:
        job = settings(folder, **changes)
        job = settings_for(job, find_start(job))
        assert bool(job.start_sha256) == (job.start != "none")
        return job.start, job.rank, job.alpha

    assert meant() == meant(start="shipped") == ("shipped", 4, 8)
    assert meant(method="qlora") == ("shipped", 4, 8)
    assert meant(model_name="other") == meant(start="none") == meant(method="adalora") == ("none", 16, 32)
    assert (
        meant(task="classification") == meant(task="seq2seq", start="none", method="lora") == ("none", 16, 32)
    )
    assert meant(start="shop") == meant(start=str(folder / "shop")) == ("shop", 6, 12)
    assert meant(start="shop", rank=8) == ("shop", 8, 16)
    assert meant(start=str(shipped)) == ("shipped", 4, 8)
    adapters.use(folder, "shop")
    assert meant() == ("shipped", 4, 8)  # what is in use is not what is gone on from unless named


def test_the_settings_of_a_run_mean_the_same_in_the_next(
    fresh: Callable[[], Any], shipped: Path, tmp_path: Path
) -> None:
    job = settings(tmp_path)
    kept = settings_for(job, find_start(job))
    (tmp_path / "settings.json").write_text(kept.model_dump_json(), encoding="utf-8")
    read = read_settings_file(tmp_path / "settings.json")
    assert "start_sha256" not in read
    again = settings(tmp_path, **read)
    assert settings_for(again, find_start(again)) == kept


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"start": "nobody"}, "no adapter is called 'nobody'"),
        ({"start": "shipped", "model_name": "other"}, "no adapter for other comes with agentkit"),
        ({"start": "foreign"}, "adapter 'foreign' was trained for other, not for tiny"),
        ({"start": "cut"}, r"adapter 'cut' is damaged \(adapter_model.safetensors is cut\)"),
        ({"start": "bare"}, r"adapter 'bare' is damaged .*No such file"),
        ({"start": "odd"}, "adapter .*odd is damaged"),
        ({"start": "rankless"}, "'rankless' is damaged: adapter_config.json has no usable rank and alpha"),
        ({"start": "endless"}, "'endless' is damaged: adapter_config.json has no usable rank and alpha"),
        ({"start": "dora"}, r"adapter 'dora' is more than low-rank products \(use_dora\)"),
        ({"rank": 3}, r"rank 3 is less than that of the adapter that the run begins from \(4\); leave rank out"),
        ({"start": "shipped", "task": "tagging"}, "tagging cannot begin from an adapter; leave start out"),
        ({"start": "nobody", "task": "seq2seq", "method": "lora"}, "seq2seq cannot begin from an adapter"),
        ({"start": "shipped", "method": "adalora"}, "adalora cannot begin from an adapter; use --start none"),
    ],
)  # fmt: skip
def test_what_cannot_be_begun_from(
    fresh: Callable[[], Any], shipped: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    folder = tmp_path / "adapters"
    for name in ("cut", "bare", "odd", "rankless", "endless"):
        write_adapter(folder / name, fresh(), base="tiny")
    write_adapter(folder / "foreign", fresh(), base="other")
    write_adapter(folder / "dora", fresh(), base="tiny", use_dora=True)
    weights = folder / "cut" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4])
    (folder / "bare" / WEIGHTS).unlink()
    (folder / "odd" / CONFIG).write_text("[]", encoding="utf-8")
    (folder / "rankless" / CONFIG).write_text('{"peft_type": "LORA", "r": "many"}', encoding="utf-8")
    (folder / "endless" / CONFIG).write_text('{"r": 8, "lora_alpha": Infinity}', encoding="utf-8")
    with pytest.raises(AgentkitError, match=told) as error:
        settings_for(job := settings(folder, **change), find_start(job))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [({"hidden_size": 16}, "model.layers.0.mlp.down_proj is 32 × 64 here and 16 × 64 there"),
     ({"num_hidden_layers": 3}, r"model.layers.2.\w+.\w+_proj is no linear layer of this model")],
)  # fmt: skip
def test_an_adapter_of_another_shape(
    fresh: Callable[[], Any], tmp_path: Path, change: dict[str, int], told: str
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    own = fresh().config
    shape = {key: getattr(own, key) for key in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                "num_attention_heads", "num_key_value_heads")}  # fmt: skip
    other = LlamaForCausalLM(LlamaConfig(vocab_size=100, **shape | change))
    folder = write_adapter(tmp_path / "other", other, rank=4)
    with pytest.raises(TrainingError, match=f"does not fit: .*{told}"):
        begun(fresh(), settings(tmp_path, rank=4), folder)
    whole = write_adapter(tmp_path / "wide", fresh(), rank=8)
    with pytest.raises(TrainingError, match="has rank 8 there, which 4 cannot hold"):
        begun(fresh(), settings(tmp_path, rank=4), whole)


def test_a_job_begins_from_its_own_copy(
    fresh: Callable[[], Any], tiny: Path, shipped: Path, tmp_path: Path,
    chats: Callable[[Sequence[dict[str, Any]]], Path],
) -> None:  # fmt: skip
    said = ({"role": "user", "content": f"Question {n}?"} for n in range(12))
    data = chats([{"messages": [one, {"role": "assistant", "content": "Answer."}]} for one in said])
    dirs = {"jobs_dir": tmp_path / "jobs", "adapters_dir": tmp_path / "adapters"}
    begin = {"model_name": "tiny", "model_source": tiny, "epochs": 1, **dirs}
    card = json.loads((shipped / "agentkit.json").read_text(encoding="utf-8"))
    can = {"reads": True, "evidence": {"values": 0.5, "calls": 0.0}}
    (shipped / "agentkit.json").write_text(json.dumps({**card, **can}), encoding="utf-8")
    with pytest.raises(UsageError, match="rank 2 is less"):
        jobs.start(data, options={"rank": 2}, **begin)
    assert jobs.list_jobs(dirs["jobs_dir"]) == []
    job = jobs.start(data, **begin)
    assert job.start == "shipped"
    for path in shipped.iterdir():
        path.unlink()
    job = jobs.wait(job)
    assert job.status == "done", job.error
    assert "beginning from the adapter shipped\n" in job.log.read_text(encoding="utf-8")
    while (job.folder / "start").exists():  # cleared up after the end was told
        time.sleep(0.05)
    assert job.adapter is not None
    kept = json.loads((job.adapter / "settings.json").read_text(encoding="utf-8"))
    assert (kept["start"], kept["rank"], len(kept["start_sha256"])) == ("shipped", 4, 64)
    assert json.loads((job.adapter / CONFIG).read_text(encoding="utf-8"))["r"] == 4
    assert adapters.traits_of(job.adapter) == Traits(True, Strength(0.5, 0.0))
