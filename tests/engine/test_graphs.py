"""Recorded steps say what transformers says, however the conversation goes on.

On a GPU they are CUDA graphs. Without one, what is recorded is run again by Python into the same tensor, which shows
all but the capture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_decoder import FAMILIES, build, close
from test_packed_lora import write_adapter

from agentkit.engine import graphs
from agentkit.engine.cache import TorchCache, head
from agentkit.engine.decoder import Decoder
from agentkit.engine.graphs import WIDTHS, width_of
from agentkit.engine.peft_files import read_lora


def test_the_width_of_a_step() -> None:
    assert [width_of(n) for n in (1, 2, 4, 5, 64, 65)] == [1, 4, 4, 16, 64, None]
    assert WIDTHS[0] == 1


class Replayed(graphs.Recorder):
    """A recorder without a GPU."""

    def __init__(self, fixed: graphs.Fixed, device: torch.device) -> None:
        self._fixed, self._device = fixed, device
        self.replays = 0

    def _run(self, given: Any, cache: TorchCache) -> torch.Tensor:
        return self._fixed(given.ids, given.start, cache)

    def _record(self, given: Any, cache: TorchCache) -> Any:
        logits = self._run(given, cache)
        buffers = cache.keys, cache.values

        def launch() -> None:
            assert (cache.keys, cache.values) == buffers, "recorded for other buffers"
            self.replays += 1
            logits.copy_(self._run(given, cache))

        return graphs._Recorded(launch, logits)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    return name


def recording(model: Any) -> Decoder:
    decoder = Decoder(model)
    assert decoder.agrees()
    if model.device.type == "cuda":
        assert decoder.record()
    else:
        assert not decoder.record()
        decoder._recorder = Replayed(decoder.fixed, model.device)
    return decoder


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_recorded_steps_agree_with_transformers(
    family: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 32)
    model = build(family).to(device)
    ids = torch.randint(0, 320, (100,), device=device)
    expected = model(input_ids=ids[None]).logits[0].float()
    decoder = recording(model)
    caches = [decoder.new_cache() for _ in range(2)]  # both grow, are recorded anew, and share their memory
    rows: list[list[torch.Tensor]] = [[], []]
    start = 0
    for n in (1, 1, 1, 3, 4, 2, 1, 9, 16, 1, 20, 1, 1, 3, 3, 3, 1, 1, 1):
        for cache, found in zip(caches, rows, strict=True):
            found.append(decoder(ids[start : start + n], cache, every=True))
        start += n
    for found in rows:
        assert close(torch.cat(found), expected[:start], 1e-3)
    # Rolled back, copied, and gone on with both ways.
    copied = head(caches[0], model.config, 30)
    caches[0].crop(30 - caches[0].length)
    for cache in (copied, caches[0]):
        again = [decoder(part, cache) for part in ids[30:40].split(1)]
        assert close(torch.stack(again), expected[30:40], 1e-3)
    # Several at once are not recorded, and leave what is recorded as it was.
    both = decoder.batch([ids[40:41], ids[40:43]], [copied, caches[0]], [1, 3])
    assert close(both, expected[[40, 40, 41, 42]], 1e-3)
    assert close(decoder(ids[43:44], caches[0]), expected[43], 1e-3)
    if isinstance(decoder._recorder, Replayed):
        assert decoder._recorder.replays > 20


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # peft asks transformers for it
@torch.inference_mode()
def test_an_adapter_runs_beside_recorded_steps(device: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = build("llama").to(device)
    folder = write_adapter(tmp_path / "shop", model, size=0.1)
    ids = torch.randint(0, 320, (60,), device=device)
    plain = model(input_ids=ids[None]).logits[0].float()
    decoder = recording(model)
    adapter: Any = decoder.pack_adapter("shop", read_lora(folder))
    caches = [decoder.new_cache(adapter), decoder.new_cache()]
    found = [[decoder(part, cache) for part in ids.split(1)] for cache in caches]
    tuned = PeftModel.from_pretrained(model, str(folder)).eval()
    wanted = tuned(input_ids=ids[None]).logits[0].float()
    assert not close(wanted, plain, 0.05)
    assert close(torch.stack(found[0]), wanted, 1e-3)
    assert close(torch.stack(found[1]), plain, 1e-3)
