"""Packed linears stay close to the plain ones, whatever their shape and format."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from agentkit.engine.packed import PackedEmbedding, PackedLinear, fits_int4, pack_layers, pack_linears, packed
from agentkit.engine.precision import native_dtype
from agentkit.engine.simd import Kind

ERRORS: dict[Kind, float] = {"int4": 0.2, "int8": 0.02, "bfloat16": 0.005, "float16": 0.001, "float32": 1e-5}
"""What each format may change, relative to the outputs."""


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.mark.parametrize("rows", [1, 3, 16, 200])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 17), (96, 5), (576, 192), (64, 1)])
@pytest.mark.parametrize("kind", ERRORS)
def test_a_packed_linear_is_close_to_the_plain_one(
    kind: Kind, width: int, height: int, bias: bool, rows: int
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, height, bias=bias)
    x = torch.randn(1, rows, width)
    with torch.inference_mode():
        ours, plain = PackedLinear(packed(kind, linear.weight, linear.bias))(x), linear(x)
        # Outputs themselves may cancel to nearly nothing.
        typical = x.norm() * linear.weight.norm() / width**0.5
    assert ours.shape == plain.shape
    assert float((ours - plain).norm() / typical) < ERRORS[kind]


@pytest.mark.parametrize("kind", ERRORS)
def test_a_row_has_the_same_bits_alone_and_among_others(kind: Kind) -> None:
    torch.manual_seed(0)
    linear = PackedLinear(packed(kind, torch.randn(48, 96)))
    x = torch.randn(23, 96)
    assert torch.equal(linear(x), torch.cat([linear(row[None]) for row in x]))


@pytest.mark.parametrize("kind", ERRORS)
def test_weights_and_their_rows_are_read_back(kind: Kind) -> None:
    torch.manual_seed(0)
    weight = torch.randn(37, 64)
    held = packed(kind, weight)
    assert relative_error(held.unpacked(), weight) < ERRORS[kind]
    ids = torch.tensor([0, 36, 15, 16])
    assert torch.equal(held.rows(ids), held.unpacked()[ids])
    embedding = nn.Embedding(37, 64)
    assert PackedEmbedding(held, embedding)(ids[None]).shape == (1, 4, 64)


def test_weights_of_a_q4_1_file_lose_nothing_as_int4() -> None:
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (64, 4, 32))
    levels[..., 0], levels[..., 1] = 0, 15  # such a file's blocks use their whole range
    weight = (levels * 0.01 * torch.rand(64, 4, 1) - 0.05).reshape(64, 128)
    assert relative_error(packed("int4", weight).unpacked(), weight) < 0.001  # fp16 scales


@pytest.mark.parametrize("layers", [2, 12, 24, 30, 36, 48])
@pytest.mark.parametrize("trained", [0, 3, 6])
def test_every_kind_of_linear_has_a_say_in_int4(layers: int, trained: int) -> None:
    """One of seven was trained on after it had lain on the levels of a 4-bit file."""
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (64, 32))
    levels[:, 0], levels[:, 1] = 0, 15
    flat = levels * 0.01 - 0.07

    def model(change: float) -> nn.Module:
        stack = nn.Sequential()
        for _ in range(layers):
            linears = [nn.Linear(32, 64, bias=False) for _ in range(7)]
            for number, linear in enumerate(linears):
                linear.weight.data = flat + change * torch.randn(64, 32) * (number == trained)
            stack.append(nn.ModuleDict({f"part{n}": linear for n, linear in enumerate(linears)}))
        return stack

    assert fits_int4(model(0))
    assert not fits_int4(model(1e-2))


def test_a_model_of_tall_linears_alone_is_no_int4() -> None:
    assert not fits_int4(nn.Sequential(*(nn.Linear(32, 16_384) for _ in range(24))))


@pytest.mark.parametrize("kind", ERRORS)
@torch.inference_mode()
def test_joined_linears_are_one(kind: Kind) -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 20), nn.Linear(64, 16, bias=False)

    torch.manual_seed(0)
    owners = [Owner(), Owner()]
    plain = [(owner.a, owner.b) for owner in owners]
    x = torch.randn(5, 64)
    whole = pack_layers(kind, [(owner, ("a", "b")) for owner in owners])
    for layer, owner in enumerate(owners):
        apart = [
            relative_error(new(x), old(x)) for new, old in zip((owner.a, owner.b), plain[layer], strict=True)
        ]
        assert max(apart) < ERRORS[kind]
        assert torch.equal(PackedLinear(whole, layer)(x), torch.cat([owner.a(x), owner.b(x)], dim=-1))


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_zero_weights_give_zero(kind: Kind) -> None:
    assert float(PackedLinear(packed(kind, torch.zeros(32, 64)))(torch.ones(1, 64)).abs().max()) < 1e-3


def test_pack_linears_keeps_the_head_at_int8_and_odd_widths_plain() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.flat, self.head = nn.Linear(64, 32), nn.Linear(64, 5), nn.Linear(64, 32)
            self.odd = nn.Linear(33, 32)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    model = Model()
    pack_linears(model, "int4")
    kinds = [getattr(model, name).packed.kind for name in ("wide", "flat", "head")]
    assert kinds == ["int4", "int4", "int8"]
    assert type(model.odd) is nn.Linear


def test_the_plain_type_is_float32_where_bf16_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() == "x86_64":
        found = torch.cpu.get_capabilities()
        native = found.get("avx512_bf16") or found.get("amx_bf16")
        assert native_dtype() == (torch.bfloat16 if native else torch.float32)
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: {**found, "avx512_bf16": False, "amx_bf16": False}
        )
        assert native_dtype() == torch.float32  # Skylake, Cascade Lake: bf16 would be emulated
    assert native_dtype("cuda") == torch.bfloat16


def test_the_plain_type_is_float32_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Apple Silicon, whose builds have none of its operators."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert native_dtype() == torch.float32


OLDER = """
import llvmlite.binding
llvmlite.binding.get_host_cpu_features = lambda: {}
import torch, transformers
from agentkit.engine import simd
from agentkit.engine.native import NativeDecoder

assert not simd.takes_pairs("int4")
torch.manual_seed(0)
config = transformers.LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2)
for kind in ("int4", "int8", "bfloat16"):
    decoder = NativeDecoder(transformers.LlamaForCausalLM(config).eval().requires_grad_(False), kind)
    assert decoder.agrees()
    ids, cache = torch.randint(0, 320, (40,)), decoder.new_cache()
    whole = decoder(ids, decoder.new_cache(), every=True)
    assert torch.equal(torch.cat([decoder(part, cache, every=True) for part in ids.split([1, 30, 2, 7])]), whole)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="is about x86 processors")
@pytest.mark.slow  # everything is compiled anew
def test_processors_without_avx512_run_the_same_engine(tmp_path: Path) -> None:
    older = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+bmi,+bmi2,+sse4.2"}
    environment = {**os.environ, **older, "AGENTKIT_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OLDER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
