"""Packed linears stay close to the float ones, whatever their shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agentkit.engine.kernels import Int4Linear, Int8Linear, pack, pack_linears
from agentkit.engine.precision import native_dtype


def relative_error(packed: nn.Module, linear: nn.Linear, rows: int) -> float:
    torch.manual_seed(1)
    x = torch.randn(1, rows, linear.in_features).to(linear.weight.dtype)
    with torch.inference_mode():
        exact, close = linear(x).float(), packed(x).float()
    assert close.shape == exact.shape
    return float((close - exact).norm() / exact.norm())


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 17), (96, 5), (576, 192), (64, 1)])
def test_int8_is_within_two_percent(width: int, height: int, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, height, bias=bias)
    assert relative_error(pack([linear], 8), linear, rows) < 0.02


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 32), (576, 192), (32, 16)])
def test_int4_is_within_fifteen_percent(width: int, height: int, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, height, bias=bias)
    assert relative_error(pack([linear], 4), linear, rows) < 0.15


@pytest.mark.parametrize("bits", [8, 4])
def test_few_rows_and_many_multiply_by_the_same_weights(bits: int) -> None:
    torch.manual_seed(0)
    packed = pack([nn.Linear(64, 32)], bits)
    x = torch.randn(100, 64)
    alone = torch.cat([packed(row[None]) for row in x])
    assert float((packed(x) - alone).norm() / alone.norm()) < 0.01


def test_weights_of_a_q4_1_file_lose_nothing_as_int4() -> None:
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (64, 4, 32))
    levels[..., 0], levels[..., 1] = 0, 15  # such a file's blocks use their whole range
    weight = (levels * 0.01 * torch.rand(64, 4, 1) - 0.05).reshape(64, 128)
    error = (Int4Linear(weight).widened(torch.float32) - weight).norm() / weight.norm()
    assert float(error) < 0.005  # bf16 scales


@pytest.mark.parametrize("bits", [8, 4])
def test_joined_linears_are_one(bits: int) -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(64, 32), nn.Linear(64, 16)]
    x = torch.randn(1, 64)
    apart = torch.cat([pack([part], bits)(x) for part in parts], dim=-1)
    assert torch.equal(pack(parts, bits)(x), apart)


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_zero_weights_give_zero(kind: type[Int8Linear] | type[Int4Linear]) -> None:
    assert float(kind(torch.zeros(32, 64))(torch.ones(1, 64)).abs().max()) < 1e-3


def test_pack_linears_falls_back_to_int8_where_int4_does_not_fit() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.flat, self.head = nn.Linear(64, 32), nn.Linear(64, 5), nn.Linear(64, 32)
            self.odd = nn.Linear(33, 32)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    model = Model()
    pack_linears(model, 4)
    assert [type(m) for m in (model.wide, model.flat, model.head)] == [Int4Linear, Int8Linear, Int8Linear]
    assert type(model.odd) is nn.Linear  # torch's kernels crash on it


def test_the_plain_type_is_float32_where_bf16_is_emulated() -> None:
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert native_dtype() == (torch.bfloat16 if native else torch.float32)
    assert native_dtype("cuda") == torch.bfloat16
