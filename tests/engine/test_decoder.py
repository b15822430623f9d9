"""The written-out forward pass says what transformers' says, for every family that it covers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from agentkit.engine.cache import GrowingLayer, can_crop, head
from agentkit.engine.decoder import Decoder
from agentkit.engine.families import layer_kinds
from agentkit.engine.native import NativeDecoder
from agentkit.engine.rotary import Rotary
from agentkit.engine.simd import Kind, takes_pairs
from agentkit.engine.weights import load_weights

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


def build_seeing() -> Any:
    """A Gemma 3 that reads images too: its layers are those of a language model within it."""
    text = SMALL | FAMILIES["gemma3"][1]
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    tokens = {"boi_token_index": 317, "eoi_token_index": 318, "image_token_index": 319}
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, tie_word_embeddings=True, **tokens
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    for parameter in model.model.language_model.parameters():
        if parameter.ndim == 1:
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
    assert close(decoder(ids, decoder.new_cache(), every=True), expected)
    cache = decoder.new_cache()
    steps = [decoder(part, cache) for part in (ids[:20], ids[20:23], *ids[23:].split(1))]
    assert close(torch.stack(steps), expected[[19, 22, *range(23, 40)]])


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_conversations_of_the_torch_pass_do_not_disturb_each_other(family: str) -> None:
    model = build(family)
    decoder = Decoder(model)
    texts = [torch.randint(0, 320, (n,)) for n in (30, 3, 17)]
    whole = [model(input_ids=ids[None]).logits[0].float() for ids in texts]
    caches = [decoder.new_cache() for _ in texts]
    assert decoder.batch([ids[:2] for ids in texts], caches, [0, 0, 0]).shape == (0, 320)
    parts = [texts[0][2:20], texts[1][2:3], texts[2][2:9]]
    batch = decoder.batch(parts, caches, [1, 1, 7])
    assert close(batch, torch.cat([whole[0][19:20], whole[1][2:3], whole[2][2:9]]))
    batch = decoder.batch([texts[2][9:10], texts[0][20:30]], [caches[2], caches[0]], [1, 2])
    assert close(batch, torch.cat([whole[2][9:10], whole[0][28:30]]))


@torch.inference_mode()
def test_torch_compile_says_the_same_and_compiles_a_layer_once() -> None:
    """Traced and run without a C++ compiler: what is fused in the end is torch's matter."""
    decoder = Decoder(build("gemma3"))
    ids = torch.randint(0, 320, (24,))

    def logits() -> torch.Tensor:
        cache = decoder.new_cache()
        return torch.stack([decoder(part, cache) for part in (ids[:20], *ids[20:].split(1))])

    plain = logits()
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    decoder.compile(backend="aot_eager")
    assert close(logits(), plain, 1e-4)
    assert not counters["graph_break"]
    # One for each of three layers, of its two parts, and of one token and many would be twelve.
    assert counters["stats"]["unique_graphs"] <= 6


KINDS: dict[Kind, float] = {"float32": 1e-3, "bfloat16": 0.04, "int8": 0.05, "int4": 2.0}
"""Formats, and by how much they may change the logits of a small random model: int4 is not made for such weights."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_the_compiled_pass_agrees_with_transformers(family: str, kind: Kind) -> None:
    model = build(family)
    ids = torch.randint(0, 320, (40,))
    plain = model(input_ids=ids[None]).logits[0].float()
    before = sum(p.numel() * p.element_size() for p in model.parameters())
    decoder = NativeDecoder(model, kind)
    assert decoder.agrees()
    ours = decoder(ids, decoder.new_cache(), every=True)
    # The cache is in 16 bits, and some processors multiply inputs that were rounded to bf16.
    same_weights = model(input_ids=ids[None]).logits[0].float()
    assert close(ours, same_weights, 0.04 if takes_pairs(kind) else 1e-3)
    assert close(ours, plain, KINDS[kind])
    tensors = [*model.parameters(), *model.buffers()]
    after = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    assert after <= before * {"float32": 1.1, "bfloat16": 0.6, "int8": 0.4, "int4": 0.33}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_token_has_the_same_bits_however_it_is_read(family: str, kind: Kind) -> None:
    """Alone, in a prompt of any length, after a rollback, beside other conversations."""
    decoder = NativeDecoder(build(family), kind)
    ids, others = torch.randint(0, 320, (90,)), torch.randint(0, 320, (50,))
    whole = decoder(ids, decoder.new_cache(), every=True)
    cache = decoder.new_cache()
    parts = [decoder(part, cache, every=True) for part in ids.split([1, 2, 3, 5, 7, 11, 1, 1, 19, 40])]
    assert torch.equal(torch.cat(parts), whole)
    cache.crop(-30)
    assert torch.equal(decoder(ids[60:], cache, every=True), whole[60:])
    caches = [decoder.new_cache() for _ in range(3)]
    decoder(ids[:70], caches[0])
    decoder(others[:20], caches[1])
    batch = decoder.batch([ids[70:75], others[20:21], ids[:4]], caches, [5, 1, 4])
    assert torch.equal(
        batch,
        torch.cat([whole[70:75], decoder(others[:21], decoder.new_cache(), every=True)[20:], whole[:4]]),
    )


@torch.inference_mode()
def test_a_cache_grows_and_is_copied() -> None:
    decoder = NativeDecoder(build("llama"), "int8")
    ids = torch.randint(0, 320, (120,))
    cache = decoder.new_cache()
    assert can_crop(cache)
    decoder(ids[:100], cache)
    size = cache.bytes()
    copied = head(cache, None, 60)
    cache.crop(-40)
    assert (copied.length, cache.length) == (60, 60)
    assert torch.equal(decoder(ids[60:], copied), decoder(ids[60:], cache))
    decoder(torch.randint(0, 320, (400,)), cache)
    assert cache.length == 520
    assert cache.bytes() == 4 * size  # 256 tokens at first, then 1024


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
    for kind in (Decoder, partial(NativeDecoder, kind="int8")):
        with pytest.raises(NotImplementedError):
            kind(model)


@pytest.mark.parametrize("kind", [None, *KINDS])
@torch.inference_mode()
def test_a_model_that_reads_images_too_runs_by_its_language_model(kind: Kind | None) -> None:
    model = build_seeing()
    ids = torch.randint(0, 310, (40,))
    plain = model(input_ids=ids[None]).logits[0].float()
    decoder: Any = Decoder(model) if kind is None else NativeDecoder(model, kind)
    assert decoder.agrees()
    ours = decoder(ids, decoder.new_cache(), every=True)
    assert close(ours, plain, 1e-4 if kind is None else KINDS[kind])


def test_layers_that_are_elsewhere_are_left_to_transformers() -> None:
    model = build_seeing()
    model.model.language_model = torch.nn.Module()
    for make in (Decoder, partial(NativeDecoder, kind="int8")):
        with pytest.raises(NotImplementedError):
            make(model)


@torch.inference_mode()
def test_gemmas_norms_are_not_rounded() -> None:
    """They are held less one: bf16 has no room for both."""
    model = build("gemma3").bfloat16()
    assert torch.equal(Decoder(model)._final.weight, model.model.norm.weight.float() + 1)


@pytest.mark.parametrize(("family", "tables"), [("llama", 1), ("mistral, sliding", 1), ("gemma3", 2)])
def test_rotary_tables_are_held_once(family: str, tables: int) -> None:
    model = build(family)
    rotary = Rotary(model.model, model.config, set(layer_kinds(model.config)), torch.float32)
    assert rotary.upto(10)[0].shape == (tables, 1024, model.config.head_dim)
    assert rotary.upto(5000)[1].shape == (tables, 8192, model.config.head_dim)
    assert len(rotary._held) == 1


def test_rotary_tables_that_depend_on_the_length_are_left_to_transformers() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, rope_parameters=rope))
    for kind in (Decoder, partial(NativeDecoder, kind="int8")):
        with pytest.raises(NotImplementedError, match="rotary"):
            kind(model)
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear  # nothing was packed


def test_a_pass_that_does_not_agree_is_not_used(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeDecoder, "agrees", lambda self: False)
    loaded = load_weights(tiny_folder, device="cpu", quantize="int8")
    assert loaded.decoder is None
    assert loaded.info()["forward_pass"] == "transformers"
    assert loaded.forward_all([5, 6, 7]).shape == (3, loaded.vocab_size)


def test_a_torch_cache_grows_crops_and_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 64)
    model = build("llama")
    decoder = Decoder(model)
    cache = decoder.new_cache()
    assert can_crop(cache)
    for _ in range(4):
        decoder(torch.full((30,), 5), cache)
    assert (cache.length, cache.capacity, cache.keys.shape[2]) == (120, 128, 128)
    copied = head(cache, model.config, 50)
    before = cache.keys[:, :, :50].clone()
    cache.crop(-70)
    decoder(torch.full((10,), 7), cache)
    assert copied.length == 50
    assert torch.equal(copied.keys[:, :, :50], before)
    assert torch.equal(cache.keys[:, :, :50], before)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_step_of_unchanging_shapes_says_the_same(family: str) -> None:
    """What is recorded on a GPU; the rows that fill it up leave nothing behind."""
    model = build(family)
    decoder, ids = Decoder(model), torch.randint(0, 320, (40,))
    expected = model(input_ids=ids[None]).logits[0].float()
    cache, rows = decoder.new_cache(), []
    decoder(ids[:10], cache)
    for start, n in ((10, 4), (14, 1), (15, 4), (18, 2), (20, 4), (24, 16)):  # of the third, three are kept
        cache.reserve(n)
        rows.append(
            decoder.fixed(ids[start : start + n], torch.tensor(start), cache)[: 3 if start == 15 else n]
        )
        cache.length += len(rows[-1])
    assert close(torch.cat(rows), expected[10:])


def test_a_buffer_that_could_not_grow_takes_the_token_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 4)
    layer, rows, one = GrowingLayer(), torch.ones(1, 2, 4, 8), torch.full((1, 2, 1, 8), 2.0)
    layer.update(rows, rows)

    def scarce(self: torch.Tensor, *args: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", scarce)
        with pytest.raises(RuntimeError):
            layer.update(one, one)
    layer.crop(4 - layer.length)  # as Ledger._undo does
    keys, _ = layer.update(one, one)
    assert keys.shape[2] == 5
    assert (keys[0, 0, 4] == 2).all()
