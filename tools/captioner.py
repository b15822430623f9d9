"""What an image shows, in a sentence."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit import UsageError, asset_path, tool, tool_options

from ._models import device_of, load_model

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 30 << 20
MAX_PIXELS = 60_000_000
LABELS = 5
EXAMPLES = (
    ("What can you see in photo.jpg?", {"image": "photo.jpg"}),
    ("Describe the picture /tmp/upload/IMG_2041.png", {"image": "/tmp/upload/IMG_2041.png"}),
    ("Write a caption for holiday/beach.webp", {"image": "holiday/beach.webp"}),
    (
        "I attached an image of what arrived: parcels/broken.jpeg. What is on it?",
        {"image": "parcels/broken.jpeg"},
    ),
    ("caption this please: ~/Pictures/cat.jpg", {"image": "~/Pictures/cat.jpg"}),
)
COLOURS = {
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "red": (190, 30, 35),
    "orange": (240, 130, 30),
    "yellow": (240, 215, 50),
    "green": (60, 130, 50),
    "turquoise": (50, 180, 175),
    "blue": (50, 90, 180),
    "light blue": (150, 195, 235),
    "purple": (120, 50, 150),
    "pink": (240, 150, 185),
    "brown": (110, 70, 40),
    "beige": (215, 195, 160),
}
"""Names for the nearest of these, in sRGB."""


@tool(examples=EXAMPLES, reply="{{ result.caption }}")
def captioner(image: str) -> dict[str, Any]:
    """Describe what an image file shows: a caption, likely labels and the main colours.

    Args:
        image: Path of the image file (PNG, JPEG, WebP, GIF, BMP or TIFF).
    """
    picture = _open(Path(os.path.expanduser(image)))  # leaves ~NAME of nobody as it is
    colours = _colours(picture)
    model = tool_options("captioner").get("model")
    if model:
        return {"caption": _with_model(picture, str(model)), "labels": [], "colours": colours}
    labels = _labels(picture)
    return {"caption": _caption(labels, colours), "labels": labels, "colours": colours}


def _open(path: Path) -> Image.Image:
    """The first frame, upright, in RGB on white."""
    from PIL import Image, ImageOps

    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"the image {str(path)!r} {found}", "give the path of an image file")
    if path.stat().st_size > MAX_BYTES:
        size = path.stat().st_size >> 20
        raise UsageError(f"the image {str(path)!r} has {size} MiB", f"give at most {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                cause = f"the image {str(path)!r} has {file.width} x {file.height} pixels"
                raise UsageError(cause, f"give at most {MAX_PIXELS // 1_000_000} megapixels")
            upright = ImageOps.exif_transpose(file)
            if upright.mode.startswith("I;16"):  # Pillow would cut it off at 255 instead of scaling it
                upright = upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
            layers = upright.convert("RGBA")
    except UsageError:
        raise
    except Exception as error:  # Pillow raises many kinds for broken files
        cause = f"the image {str(path)!r} cannot be read ({type(error).__name__})"
        raise UsageError(cause, "give a PNG, JPEG, WebP, GIF, BMP or TIFF file") from error
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _labels(picture: Image.Image) -> list[dict[str, Any]]:
    import torch

    from ._efficientnet import preprocess

    model, names = _network()
    with torch.inference_mode():
        scores = model(preprocess(picture)).softmax(-1)[0]
    best = scores.topk(LABELS)
    return [
        {"label": names[int(index)].split(",")[0], "score": round(float(score), 3)}
        for score, index in zip(best.values, best.indices, strict=True)
    ]


@functools.cache
def _network() -> tuple[Any, list[str]]:
    from ._efficientnet import load

    return load(asset_path("efficientnet-lite0"))


def _caption(labels: list[dict[str, Any]], colours: list[str]) -> str:
    first, second = labels[0], labels[1]
    verb = "looks like" if first["score"] >= 0.25 else "may show"
    text = f"This {verb} {_with_article(first['label'])} ({first['score']:.2f})"
    if second["score"] >= 0.1:
        text += f" or {_with_article(second['label'])} ({second['score']:.2f})"
    return f"{text}, mostly {' and '.join(colours[:2])}."


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _colours(picture: Image.Image) -> list[str]:
    """The names of the colours that cover most of the image, at most three, the largest share first."""
    import numpy as np

    pixels = np.asarray(picture.resize((64, 64)), dtype=np.int32).reshape(-1, 3)
    palette = np.array(list(COLOURS.values()))
    nearest = ((pixels[:, None] - palette) ** 2).sum(-1).argmin(1)
    shares = np.bincount(nearest, minlength=len(palette)) / len(pixels)
    order = [index for index in shares.argsort()[::-1][:3] if shares[index] >= 0.1]
    return [list(COLOURS)[index] for index in order]


def _with_model(picture: Image.Image, name: str) -> str:
    """A caption by BLIP or any other image-to-text model; chat models are asked for one."""
    import torch

    model, processor = load_model(
        "AutoModelForImageTextToText", name, device_of("captioner"), "AutoProcessor"
    )
    if getattr(processor, "chat_template", None):
        content = [
            {"type": "image", "image": picture},
            {"type": "text", "text": "Describe this image in a sentence."},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    else:
        inputs = processor(images=picture, return_tensors="pt")
    prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    with torch.inference_mode():
        ids = model.generate(**inputs.to(model.device), max_new_tokens=60, do_sample=False)
    return str(processor.batch_decode(ids[:, prompt:], skip_special_tokens=True)[0]).strip()
