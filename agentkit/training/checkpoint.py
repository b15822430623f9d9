"""Where a run stands, on disk: whole or not there at all, and without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_STATE, _WEIGHTS = "state.json", "state.safetensors"

Tensors = dict[str, "torch.Tensor"]


def save(folder: Path, step: int, tensors: Tensors, state: dict[str, Any]) -> Path:
    """Write ``checkpoint-<step>`` and remove all others, later ones of another run too.

    Raises:
        OSError: It cannot be written; earlier checkpoints stay as they are.
    """
    from safetensors.torch import save as to_bytes

    content = to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    about = {**state, "step": step, "sha256": hashlib.sha256(content).hexdigest()}
    final, stage = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        stage.mkdir(parents=True, mode=0o700)
        for name, data in ((_WEIGHTS, content), (_STATE, json.dumps(about).encode())):
            with (stage / name).open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        shutil.rmtree(final, ignore_errors=True)
        os.rename(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    for _, path in _found(folder):
        if path != final:
            shutil.rmtree(path, ignore_errors=True)
    return final


def random_states(device: torch.device) -> Tensors:
    """Of PyTorch's generators that a run on this device draws from."""
    import torch

    states = {"random": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random(tensors: Tensors, device: torch.device) -> None:
    """Let the generators go on from where `random_states` found them."""
    import torch

    torch.set_rng_state(tensors["random"])
    if device.type == "cuda" and "random.cuda" in tensors:  # not where the run began on a CPU
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def newest(folder: Path) -> tuple[Tensors, dict[str, Any]] | None:
    """The newest checkpoint that is whole; damaged ones are passed over."""
    from safetensors.torch import load

    for _, path in reversed(_found(folder)):
        with contextlib.suppress(OSError, ValueError, KeyError):
            state = json.loads((path / _STATE).read_bytes())
            content = (path / _WEIGHTS).read_bytes()
            if hashlib.sha256(content).hexdigest() == state["sha256"]:
                return load(content), state
        print(f"{path.name} is damaged and left out", flush=True)
    return None


def _found(folder: Path) -> list[tuple[int, Path]]:
    found = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit():
            found.append((int(number), path))
    return sorted(found)
