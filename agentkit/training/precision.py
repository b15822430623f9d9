"""In which numbers a run computes. The device decides; what it decides is followed by one loop for all of them.

The weights of the base model are not learned and are held in 16 bits where the device multiplies those fast. What is
learned, its gradients and the optimizer's state are always float32 (arXiv:1710.03740, section 3.1).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agentkit.engine.precision import native_dtype
from agentkit.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a run computes in."""

    device: Literal["cpu", "cuda"]
    """``cpu`` or ``cuda``."""
    dtype: torch.dtype
    """Of the base model's weights, and so of what passes between its layers."""
    autocast: bool = False
    """Products with float32 operands are computed in ``dtype`` too. The fused layers do so by themselves; this is for
    the adapters that PEFT computes, and for what bitsandbytes leaves in float32."""
    scaled: bool = False
    """The loss is scaled, so that small gradients do not become zero in float16 (arXiv:1710.03740, section 3.2)."""

    def context(self) -> AbstractContextManager[object]:
        """For a forward pass, and nothing else."""
        import torch

        return torch.autocast(self.device, self.dtype) if self.autocast else nullcontext()

    def scaler(self) -> torch.amp.GradScaler | None:
        """Scales losses, undoes it in the gradients and leaves out steps that overflowed; ``None`` where not needed."""
        import torch

        return torch.amp.GradScaler(self.device) if self.scaled else None


def choose(precision: Precision, device: Literal["cpu", "cuda"]) -> Numbers:
    """The numbers for a device: bfloat16 where it is native, else float16 on CUDA and float32 on a CPU.

    On a CPU nothing is cast automatically: the fused layers and the attention choose their own numbers there.

    Args:
        precision: As the settings say.
        device: ``cpu`` or ``cuda``.

    Raises:
        UsageError: The device does not compute in what was asked for.
    """
    import torch

    if device == "cpu":
        if precision == "fp16":
            raise UsageError("precision fp16 is for CUDA", "use auto, bf16 or fp32")
        chosen = {"auto": native_dtype(), "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        return Numbers(device, chosen)
    # What emulates bfloat16 is slower than float32.
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not has_bf16:
        raise UsageError("this GPU does not compute in bfloat16", "use precision auto, fp16 or fp32")
    if precision == "fp32":
        return Numbers(device, torch.float32)
    if precision == "fp16" or not has_bf16:
        return Numbers(device, torch.float16, autocast=True, scaled=True)
    return Numbers(device, torch.bfloat16, autocast=True)
