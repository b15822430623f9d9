"""Which floating-point type is fast here, and models in another one than they were loaded in."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

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


def cast_model(model: Any, dtype: torch.dtype) -> None:
    """The model as if it had been loaded in another type.

    What transformers keeps in float32 stays so, and so do the frequencies of positions: rounded to bf16, the angles of
    distant positions would be off by whole turns.
    """
    kept = [name.replace("*", ".*") for name in model._keep_in_fp32_modules_strict or ()]
    stored = model.dtype
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        keeps = name.endswith("inv_freq") or any(re.search(pattern, name) for pattern in kept)
        if tensor.dtype == stored and not keeps:
            tensor.data = tensor.data.to(dtype)
