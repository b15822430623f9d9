"""EfficientNet-lite0 on torch alone: an image to the probabilities of ImageNet's 1000 classes.

Architecture: Tan & Le, *EfficientNet* (arXiv:1905.11946), in the ``lite`` variant of the TensorFlow
repository: ReLU6, no squeeze-and-excitation, stem and head not scaled. Module names follow the keys of
the published weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

SIZE = 224
"""Pixels of the square input."""
CROP = 0.875
"""Share of the shorter side that the central square covers."""
MEAN, STD = 127.0, 128.0
"""Of pixel values, 0 to 255; the lite variants were not trained with ImageNet's means."""
STAGES = (
    # repeats, kernel, stride, expansion, input channels, output channels
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's padding: what is odd goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return self._conv_forward(functional.pad(x, pads), self.weight, self.bias)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SameConv:
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted bottleneck: expand, filter per channel, project; with a shortcut where shapes allow."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _conv(inputs, inner), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, outputs), _norm(outputs)
        self._expands, self._shortcut = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._shortcut else y


class EfficientNetLite0(nn.Module):
    """Images, shape (n, 3, 224, 224), to logits, shape (n, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks = nn.ModuleList(
            Block(kernel, stride if first else 1, expansion, inputs if first else outputs, outputs)
            for repeats, kernel, stride, expansion, inputs, outputs in STAGES
            for first in (True, *[False] * (repeats - 1))
        )
        self._conv_head, self._bn1 = _conv(320, 1280), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


def load(folder: Path) -> tuple[EfficientNetLite0, list[str]]:
    """The network and its class names from the folder of the embedded asset."""
    from safetensors.torch import load_file

    with torch.device("meta"):  # no random initialisation: every weight comes from the file
        model = EfficientNetLite0()
    model.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return model.eval(), (folder / "labels.txt").read_text(encoding="utf-8").splitlines()


def preprocess(image: Image.Image) -> Tensor:
    """The central square, normalised, shape (1, 3, 224, 224)."""
    side = min(image.size) * CROP
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3)
    return ((pixels.float() - MEAN) / STD).permute(2, 0, 1)[None]
