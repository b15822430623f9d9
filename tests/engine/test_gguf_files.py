"""What a GGUF file says beyond what transformers reads of it is followed, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from test_decoder import FAMILIES, SMALL
from test_weights import few_tokens, write_gguf

from agentkit.engine.gguf_files import Positions, read_positions, scale_attention, scale_positions
from agentkit.engine.weights import LoadedModel, load_weights
from agentkit.errors import ModelError

FACTORS = np.array([1, 1, 1, 1, 2, 3, 4, 8], np.float32)


def load(path: Path, more: Callable[[Any], None] = lambda _: None, **options: Any) -> LoadedModel:
    write_gguf(path, more, **options)
    return load_weights(path, device="cpu", quantize="none")


def frequencies(loaded: LoadedModel) -> torch.Tensor:
    found: torch.Tensor = loaded.model.model.rotary_emb.inv_freq
    return found


def linear(writer: Any) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def test_the_frequencies_of_llama_3_are_divided(tmp_path: Path) -> None:
    plain = load(tmp_path / "plain.gguf")
    scaled = load(tmp_path / "scaled.gguf", lambda writer: writer.add_tensor("rope_freqs.weight", FACTORS))
    assert torch.allclose(frequencies(scaled) * torch.from_numpy(FACTORS), frequencies(plain))
    assert len(few_tokens(scaled)) == 5
    ids = list(range(5, 45))
    apart = scaled.forward_all(ids) - plain.forward_all(ids)
    assert float(apart.norm()) > 0.01 * float(plain.forward_all(ids).norm())
    assert scaled.info()["forward_pass"] == "compiled"  # whose tables come from the same frequencies


@pytest.mark.parametrize(
    "more",
    [linear, lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0)],
    ids=["type", "old key"],
)
def test_a_linear_scaling_divides_positions(more: Callable[[Any], None], tmp_path: Path) -> None:
    plain, scaled = load(tmp_path / "plain.gguf"), load(tmp_path / "scaled.gguf", more)
    assert torch.equal(frequencies(scaled) * 4, frequencies(plain))


def test_no_scaling_is_none(tmp_path: Path) -> None:
    def none(writer: Any) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_rope_scaling_factor(4.0)

    for name, more in (("none", none), ("silent", lambda _: None)):
        write_gguf(tmp_path / name, more)
        assert read_positions(tmp_path / name) == Positions(1.0, None)


def test_other_scalings_are_refused(tmp_path: Path) -> None:
    def refused(kind: str, more: Callable[[Any], None]) -> None:
        with pytest.raises(
            ModelError, match=rf"by {kind}: .*; use the model's safetensors repository$"
        ) as caught:
            load(tmp_path / f"{kind}.gguf", more)
        assert "\n" not in str(caught.value)

    refused("yarn", lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN))
    refused("longrope", lambda writer: writer.add_tensor("rope_factors_long.weight", FACTORS))


def test_frequencies_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a llama cannot scale positions as its file wants it; use"):
        load(tmp_path / "odd.gguf", lambda writer: writer.add_tensor("rope_freqs.weight", FACTORS[:5]))


def gemma(name: str = "gemma3", **options: Any) -> Any:
    config = getattr(transformers, "Gemma3TextConfig" if name == "gemma3" else "Gemma2Config")
    with torch.device("meta"):
        kind = transformers.Gemma3ForCausalLM if name == "gemma3" else transformers.Gemma2ForCausalLM
        return kind(config(**(SMALL | {"head_dim": 32} | options)))


def test_gemma_3_scales_its_full_layers_alone() -> None:
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**(SMALL | FAMILIES["gemma3"][1])))
    rotary = model.model.rotary_emb
    full, sliding = rotary.full_attention_inv_freq.clone(), rotary.sliding_attention_inv_freq.clone()
    scale_positions(model, Positions(8.0, None))
    assert torch.equal(rotary.full_attention_inv_freq * 8, full)
    assert torch.equal(rotary.sliding_attention_inv_freq, sliding)


@pytest.mark.parametrize(
    ("name", "layers", "scalar"),
    [("gemma3", 62, 16), ("gemma3", 48, 32), ("gemma2", 46, 16), ("gemma2", 42, 32)],
)
def test_gemmas_of_27b_scale_attention_by_width_per_head(name: str, layers: int, scalar: int) -> None:
    model = gemma(name, num_hidden_layers=layers)
    scale_attention(model)
    assert model.config.query_pre_attn_scalar == scalar
    assert {layer.self_attn.scaling for layer in model.model.layers} == {scalar**-0.5}


def test_a_part_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"part\.gguf is one of 3 files .*; merge them with `llama-gguf-split --merge`"
    ):
        load(tmp_path / "part.gguf", lambda writer: writer.add_uint16("split.count", 3))
    load(tmp_path / "merged.gguf", lambda writer: writer.add_uint16("split.count", 0))


def test_a_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"lacks 1 of its weights: model\.layers\.0\.mlp\.up_proj\.weight; use"
    ):
        load(tmp_path / "cut.gguf", without="blk.0.ffn_up")


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    loaded = load(tmp_path / "tied.gguf", without="output")
    assert loaded.model.config.tie_word_embeddings
    assert len(few_tokens(loaded)) == 5


def test_a_damaged_file_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0 not much more")
    with pytest.raises(ModelError, match="cannot load model") as caught:
        load_weights(path, device="cpu")
    assert "\n" not in str(caught.value)
