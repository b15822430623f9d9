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

    if device != "cpu":
        return torch.bfloat16
    # A build without oneDNN, as for Apple Silicon, has no such operator.
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    native = onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    found = torch.cpu.get_capabilities()
    if (
        found.get("architecture") == "x86_64"
    ):  # where the answer is yes for every AVX-512, with or without bf16
        native = native and (found.get("avx512_bf16") or found.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32
