"""Packed linears stay close to the float ones, whatever their shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agentkit.engine.kernels import Int4Linear, Int8Linear, pack_linears, packed_bytes
from agentkit.engine.precision import native_dtype, packed_rows


def relative_error(packed: nn.Module, linear: nn.Linear, rows: int) -> float:
    torch.manual_seed(1)
    x = torch.randn(1, rows, linear.in_features).to(linear.weight.dtype)
    with torch.inference_mode():
        exact, close = linear(x).float(), packed(x).float()
    assert close.shape == exact.shape
    return float((close - exact).norm() / exact.norm())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 17), (96, 5), (576, 192), (64, 1)])
def test_int8_is_within_two_percent(width: int, height: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, height, bias=bias)
    assert relative_error(Int8Linear(linear), linear, 1) < 0.02
    assert relative_error(Int8Linear(linear), linear, packed_rows()) < 0.02


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 32), (576, 192), (32, 16)])
def test_int4_is_within_fifteen_percent(width: int, height: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, height, bias=bias)
    assert relative_error(Int4Linear(linear), linear, 1) < 0.15


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_many_rows_use_the_plain_weight(kind: type[Int8Linear] | type[Int4Linear]) -> None:
    linear = nn.Linear(64, 32)
    assert relative_error(kind(linear), linear, 64) == 0


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_zero_weights_give_zero(kind: type[Int8Linear] | type[Int4Linear]) -> None:
    linear = nn.Linear(64, 32, bias=False)
    nn.init.zeros_(linear.weight)
    assert float(kind(linear)(torch.ones(1, 64)).abs().max()) < 1e-3


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
    assert packed_bytes(model) > 0


def test_the_plain_type_is_float32_where_bf16_is_emulated() -> None:
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert native_dtype() == (torch.bfloat16 if native else torch.float32)
    assert native_dtype("cuda") == torch.bfloat16
