"""The written-out forward pass says what transformers' says, for every family that it covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from agentkit.engine.cache import GrowingLayer, can_crop, head, new_cache
from agentkit.engine.decoder import Decoder
from agentkit.engine.weights import LoadedModel, load_weights

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "llama with every head its own": ("Llama", {"num_key_value_heads": 4}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral, sliding": ("Mistral", {"sliding_window": 8, "head_dim": 16}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 32,
            "sliding_window": 8,
            "query_pre_attn_scalar": 32,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}


def build(family: str) -> Any:
    name, extra = FAMILIES[family]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, config_name)(**(SMALL | extra)))
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms start as ones or zeros, which would hide a missing one
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return model.eval().requires_grad_(False)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_prefill_and_single_tokens_agree_with_transformers(family: str) -> None:
    model = build(family)
    ids = torch.randint(0, 320, (40,))
    expected = model(input_ids=ids[None]).logits[0].float()
    decoder = Decoder(model)
    assert decoder.agrees()
    assert close(decoder(ids, new_cache(model.config), every=True), expected)
    cache = new_cache(model.config)
    steps = [decoder(part, cache) for part in (ids[:20], ids[20:23], *ids[23:].split(1))]
    assert close(torch.stack(steps), expected[[19, 22, *range(23, 40)]])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_packing_leaves_both_forward_passes_whole_and_equal(family: str, bits: int) -> None:
    model = build(family)
    before = sum(p.numel() * p.element_size() for p in model.parameters())
    decoder = Decoder(model)
    decoder.pack(bits)
    ids = torch.randint(0, 320, (30,))
    ours = decoder(ids, new_cache(model.config), every=True)
    assert close(ours, model(input_ids=ids[None]).logits[0].float(), 0.05)
    tensors = [*model.parameters(), *model.buffers()]
    after = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    assert after < 0.7 * before


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320}),
        ("Phi3", SMALL | {"pad_token_id": 0}),
    ],
)
def test_other_families_run_through_transformers(name: str, extra: dict[str, Any]) -> None:
    model = getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(
        getattr(transformers, f"{name}Config")(**extra)
    )
    with pytest.raises(NotImplementedError):
        Decoder(model)


def test_rotary_tables_that_depend_on_the_length_are_left_to_transformers() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, rope_parameters=rope))
    with pytest.raises(NotImplementedError, match="rotary"):
        Decoder(model)


def test_a_pass_that_does_not_agree_is_not_used(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "agrees", lambda self: False)
    loaded = load_weights(tiny_folder, device="cpu", quantize="int8")
    assert loaded.decoder is None
    assert loaded.info()["forward_pass"] == "transformers"
    assert loaded.forward_all([5, 6, 7]).shape == (3, loaded.vocab_size)


def test_a_cache_grows_crops_and_is_copied(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 64)
    cache = tiny.new_cache()
    assert can_crop(cache)
    for _ in range(4):
        tiny.forward([5] * 60, cache)
    first: GrowingLayer = cache.layers[0]
    assert first.keys.shape[2] == first.get_seq_length() == 240
    copied = head(cache, tiny.model.config, 100)
    before = first.keys[:, :, :100].clone()
    cache.crop(-140)
    assert first.get_seq_length() == 100
    tiny.forward([7] * 10, cache)
    assert torch.equal(copied.layers[0].keys, before)
    assert torch.equal(first.keys[:, :, :100], before)
