"""Adapters beside the weights say what PEFT says, with the same bits however a token is read."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import write_adapter
from test_decoder import FAMILIES, build, build_seeing, close
from test_drafts import Repeating

from agentkit.engine.decode import Sampler, Tokens, decode
from agentkit.engine.drafts import Drafts
from agentkit.engine.ledger import Ledger, LedgerPool
from agentkit.engine.merged import with_adapter
from agentkit.engine.native import NativeDecoder
from agentkit.engine.packed_lora import PackedLora
from agentkit.engine.peft_files import beyond_low_rank, read_lora
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.simd import Kind, takes_pairs
from agentkit.engine.weights import LoadedModel, load_weights
from agentkit.errors import ModelError, NotFoundError, UsageError
from agentkit.settings import SamplingSettings

KINDS: tuple[Kind, ...] = ("float32", "bfloat16", "int8", "int4")
PATTERNS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    "some linears": {"r": 4, "lora_alpha": 4, "target_modules": ["v_proj", "up_proj"]},
    "ranks and scales by pattern": {
        "r": 8,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "down_proj", "gate_proj"],
        "rank_pattern": {"k_proj": 20, "layers.1.mlp.down_proj": 3},
        "alpha_pattern": {"q_proj": 24},
    },
    "rank-stabilized": {"r": 33, "lora_alpha": 9, "target_modules": ["o_proj"], "use_rslora": True},
    "one layer": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "layers_to_transform": [1]},
}


def with_peft(model: Any, folder: Path, **config: Any) -> Any:
    """The model with a random adapter in it, unmerged, which is saved to the folder."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        tuned = get_peft_model(model, LoraConfig(**config)).eval()
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(folder)
    return tuned.requires_grad_(False)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.inference_mode()
def test_an_adapter_says_what_peft_says_unmerged(family: str, pattern: str, tmp_path: Path) -> None:
    model = build(family)
    tuned = with_peft(copy.deepcopy(model), tmp_path, **PATTERNS[pattern])
    decoder = NativeDecoder(model, "float32")
    adapter = decoder.pack_adapter("x", read_lora(tmp_path))
    ids = torch.randint(0, 320, (40,))
    expected = tuned(input_ids=ids[None]).logits[0].float()
    base = decoder(ids, decoder.new_cache(), every=True)
    assert not close(base, expected, 0.03)
    assert close(decoder(ids, decoder.new_cache(adapter), every=True), expected, 2e-3)  # the cache is in fp16


@torch.inference_mode()
def test_an_adapter_for_a_language_model_within_another_fits(tmp_path: Path) -> None:
    model = build_seeing()
    targets = r".*language_model.*(q_proj|down_proj)"
    tuned = with_peft(copy.deepcopy(model), tmp_path, r=8, lora_alpha=16, target_modules=targets)
    decoder = NativeDecoder(model, "float32")
    adapter = decoder.pack_adapter("x", read_lora(tmp_path))
    ids = torch.randint(0, 310, (40,))
    expected = tuned(input_ids=ids[None]).logits[0].float()
    assert not close(decoder(ids, decoder.new_cache(), every=True), expected, 0.03)
    assert close(decoder(ids, decoder.new_cache(adapter), every=True), expected, 2e-3)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_an_adapter_is_not_rounded_away_beside_packed_weights(kind: Kind, tmp_path: Path) -> None:
    model = build("llama")
    decoder = NativeDecoder(model, kind)
    rounded = copy.deepcopy(build("llama"))
    for layer, held in zip(rounded.model.layers, model.model.layers, strict=True):
        for owner in ("self_attn", "mlp"):
            for name, linear in getattr(held, owner).named_children():
                if hasattr(linear, "packed"):
                    rows = slice(linear._start, linear._stop)
                    weight = linear.packed.unpacked(linear._layer)[rows]
                    getattr(getattr(layer, owner), name).weight.data = weight.contiguous()
    tuned = with_peft(rounded, tmp_path, **PATTERNS["plain"])
    tuned.get_output_embeddings().weight.data = model.get_output_embeddings().packed.unpacked()
    adapter = decoder.pack_adapter("x", read_lora(tmp_path))
    ids = torch.randint(0, 320, (40,))
    expected = tuned(input_ids=ids[None]).logits[0].float()
    ours = decoder(ids, decoder.new_cache(adapter), every=True)
    assert close(ours, expected, 0.04 if takes_pairs(kind) else 0.02)
    assert not close(decoder(ids, decoder.new_cache(), every=True), expected, 0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_token_has_the_same_bits_however_it_is_read(family: str, kind: Kind, tmp_path: Path) -> None:
    """Alone, in a prompt, after a rollback, beside conversations with other adapters and with none."""
    model = build(family)
    folders = [write_adapter(tmp_path / str(n), model, rank=3 + 20 * n, seed=n) for n in range(2)]
    decoder = NativeDecoder(model, kind)
    one, two = (decoder.pack_adapter(folder.name, read_lora(folder)) for folder in folders)
    ids = torch.randint(0, 320, (90,))
    plain, whole, other = (decoder(ids, decoder.new_cache(each), every=True) for each in (None, one, two))
    assert not close(whole, plain, 0.01)
    assert not close(other, whole, 0.01)
    cache = decoder.new_cache(one)
    parts = [decoder(part, cache, every=True) for part in ids.split([1, 2, 3, 5, 7, 11, 1, 1, 19, 40])]
    assert torch.equal(torch.cat(parts), whole)
    cache.crop(-30)
    assert torch.equal(decoder(ids[60:], cache.head(60), every=True), whole[60:])
    adapters = (one, None, two, one, one)
    caches = [decoder.new_cache(each) for each in adapters]
    for cache in caches:
        decoder(ids[:70], cache)
    counts = (5, 1, 3, 1, 2)
    batch = decoder.batch([ids[70 : 70 + n] for n in counts], caches, counts)
    expected = [
        {one: whole, None: plain, two: other}[each][70 : 70 + n]
        for each, n in zip(adapters, counts, strict=True)
    ]
    assert torch.equal(batch, torch.cat(expected))
    assert torch.equal(decoder(ids, decoder.new_cache(), every=True), plain)  # nothing of them stays


def answer(loaded: LoadedModel, adapter: PackedLora | None, drafts: Drafts | None = None) -> list[int]:
    ledger = Ledger(loaded, adapter=adapter)
    ledger.align([5, 6, 7, 8] * 10)
    steps = decode(
        ledger, Sampler(SamplingSettings(), "cpu"), stop_ids=frozenset(), max_new_tokens=40, drafts=drafts
    )
    return [id for step in steps if isinstance(step, Tokens) for id in step.ids]


@pytest.fixture(scope="module")
def adapters(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> list[PackedLora]:
    folder = tmp_path_factory.mktemp("adapters")
    names = ("one", "two")
    return [
        tiny.load_adapter(write_adapter(folder / name, tiny.model, seed=n, size=0.1))
        for n, name in enumerate(names)
    ]


def test_drafts_and_company_change_no_token(tiny: LoadedModel, adapters: list[PackedLora]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from agentkit.engine.decode import decoding

    mixed = [None, *adapters, None, *adapters]
    alone = [answer(tiny, adapter) for adapter in mixed]
    assert alone[0] != alone[1] != alone[2] != alone[0]
    drafts = Repeating(40, alone[1], 3)
    assert answer(tiny, adapters[0], drafts) == alone[1]
    assert drafts.accepted > 10
    scheduler = Scheduler(tiny)

    def scheduled(adapter: PackedLora | None) -> list[int]:
        ledger = Ledger(tiny, adapter=adapter)
        ledger.align([5, 6, 7, 8] * 10)
        loop = decoding(
            ledger,
            Sampler(SamplingSettings(), "cpu"),
            stop_ids=frozenset(),
            max_new_tokens=40,
            drafts=Drafts(),
        )
        return [id for step in scheduler.run(loop) if isinstance(step, Tokens) for id in step.ids]

    with ThreadPoolExecutor(len(mixed)) as threads:
        assert list(threads.map(scheduled, mixed)) == alone
    assert scheduler.counters.steps > scheduler.counters.passes  # they did share passes


def test_a_cache_serves_one_adapter_only(tiny: LoadedModel, adapters: list[PackedLora]) -> None:
    pool, prompt = LedgerPool(tiny), list(range(10, 110))
    for adapter in (None, *adapters):
        ledger, cached = pool.acquire(prompt, adapter)
        assert cached == 0
        assert ledger.cache.adapter is ledger.adapter is adapter
        ledger.logits()
        pool.release(ledger)
    for adapter in (adapters[1], None, adapters[0]):
        ledger, cached = pool.acquire([*prompt, 5], adapter)
        assert (cached, ledger.adapter) == (100, adapter)
        ledger.logits()
        pool.release(ledger)
    forked, cached = pool.acquire([*prompt[:80], 7], adapters[0])
    assert (cached, forked.adapter, forked.cache.adapter) == (80, adapters[0], adapters[0])


def test_what_is_read_from_a_folder(tiny: LoadedModel, tmp_path: Path) -> None:
    good = write_adapter(tmp_path / "good", tiny.model, rank=5)
    pair = read_lora(good)["model.layers.1.mlp.down_proj"]
    assert (pair.a.shape, pair.b.shape) == ((5, 128), (64, 5))
    with pytest.raises(NotFoundError, match="no adapter in"):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_of_a_later_version": {"a": 1}}, "something_of_a_later_version"),
        ({"megatron_core": "megatron.core", "loftq_config": {}, "bias": "none", "fan_in_fan_out": False}, ""),
    ],
)
def test_what_is_more_than_low_rank_products(
    config: dict[str, Any], cause: str, tiny: LoadedModel, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "a", tiny.model, **config)
    assert beyond_low_rank(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))) == cause
    if cause:
        with pytest.raises(
            UsageError, match=rf"has to be merged into the weights \({cause}\); start again with"
        ):
            tiny.load_adapter(folder)
    else:
        tiny.load_adapter(folder)


def test_damaged_and_foreign_adapters_are_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refused(folder: Path, reason: str) -> None:
        with pytest.raises(ModelError, match=reason) as caught:
            tiny.load_adapter(folder)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy

    def fresh(name: str, model: Any = tiny.model) -> tuple[Path, Path]:
        folder = write_adapter(tmp_path / name, model)
        return folder, folder / "adapter_model.safetensors"

    folder, weights = fresh("cut")
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, "is damaged: adapter_model.safetensors")
    weights.unlink()
    refused(folder, "has no adapter_model.safetensors")
    folder, weights = fresh("config")
    (folder / "adapter_config.json").write_text("{", encoding="utf-8")
    refused(folder, "is damaged: adapter_config.json")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 1}', encoding="utf-8")
    refused(folder, "no usable rank")
    folder, weights = fresh("half")
    tensors = load_file(weights)
    last = max(tensors)
    save_file({key: value for key, value in tensors.items() if key != last}, weights)
    refused(folder, "not a pair of rank 8")
    save_file(tensors | {last: tensors[last][:, :3].contiguous()}, weights)
    refused(folder, "not a pair of rank 8")
    save_file(tensors | {last: tensors[last] * float("nan")}, weights)
    refused(folder, "not finite")
    save_file(tensors | {"base_model.model.score.weight": torch.zeros(1, 64)}, weights)
    refused(folder, "no matrix of a LoRA")
    refused(fresh("foreign", build("qwen3"))[0], "does not fit this model")
    save_file({"model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(8, 64),
               "model.layers.9.mlp.up_proj.lora_B.weight": torch.zeros(128, 8)}, weights)  # fmt: skip
    refused(folder, "has no linear model.layers.9.mlp.up_proj")


@pytest.mark.parametrize("quantize", ["int4", "int8", "none", "auto"])
def test_a_model_is_loaded_with_an_adapter_beside_packed_weights(
    quantize: Any, tiny: LoadedModel, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "shop", tiny.model, size=0.1)
    loaded = load_weights(tiny_folder, device="cpu", quantize=quantize, adapter=folder)
    assert loaded.quantization == ("int8" if quantize == "auto" else quantize)
    assert loaded.adapter is not None
    assert (loaded.adapter.name, loaded.adapter.rank, loaded.fixed) == ("shop", 8, False)
    base = load_weights(tiny_folder, device="cpu", quantize=quantize)
    ids = list(range(400, 440))
    assert torch.equal(loaded.forward_all(ids), base.forward_all(ids))
    assert not close(loaded.forward_all(ids, loaded.adapter), base.forward_all(ids), 0.05)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@torch.inference_mode()
def test_what_cannot_run_beside_the_weights_is_merged(
    tiny: LoadedModel, tiny_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = {"r": 8, "target_modules": ["q_proj", "down_proj"], "use_dora": True}
    tuned = with_peft(plain, tmp_path / "dora", **config)
    ids = list(range(400, 440))
    expected = tuned(torch.tensor([ids])).logits[0]
    loaded = load_weights(tiny_folder, device="cpu", adapter=tmp_path / "dora")
    assert (loaded.adapter, loaded.fixed, loaded.quantization) == (None, True, "none")
    assert close(loaded.forward_all(ids), expected, 0.02)
    with pytest.raises(UsageError, match="round the adapter away"):
        load_weights(tiny_folder, device="cpu", quantize="int4", adapter=tmp_path / "dora")
    with pytest.raises(UsageError, match="has an adapter in its weights"):
        loaded.load_adapter(write_adapter(tmp_path / "other", tiny.model))


def test_weights_that_are_gone_are_not_fetched_from_anywhere(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def asked(*_: Any, **__: Any) -> bool:
        pytest.fail("the hub was asked")

    folder = write_adapter(tmp_path / "adapters" / "mine", tiny.model)
    (folder / "adapter_model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "file_exists", asked)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"adapters/mine is damaged: it has no adapter_model\.safetensors"):
        with_adapter(tiny.model, Path("adapters/mine"), merge=True)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_pass_through_transformers_has_the_adapter_merged(
    tiny: LoadedModel, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_adapter(tmp_path / "shop", tiny.model, size=0.1)
    ids = list(range(400, 440))
    expected = tiny.forward_all(ids, tiny.load_adapter(folder))
    monkeypatch.setattr(NativeDecoder, "agrees", lambda self: False)
    loaded = load_weights(tiny_folder, device="cpu", quantize="none", adapter=folder)
    assert (loaded.adapter, loaded.fixed, loaded.decoder) == (None, True, None)
    assert close(loaded.forward_all(ids), expected, 0.05)
    plain = load_weights(tiny_folder, device="cpu", quantize="none")
    with pytest.raises(UsageError, match="runs through transformers"):
        plain.load_adapter(folder)
    with pytest.raises(ValueError, match="takes no adapters"):
        plain.new_cache(tiny.load_adapter(folder))
