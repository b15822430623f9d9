"""Which floating-point type and which weight-only kernel this processor runs fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def native_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where matrix products of it are native, else float32.

    Without AVX-512 or AMX instructions for it, a bf16 product is emulated and 5 to 20 times slower than float32.
    """
    import torch

    if device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32
