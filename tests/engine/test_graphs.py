"""Recorded steps say what transformers says, however the conversation goes on.

On a GPU they are CUDA graphs. Without one, what is recorded is run again by Python into the same tensor, which shows
all but the capture.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import write_adapter
from test_decoder import FAMILIES, build, close

from agentkit.engine import graphs
from agentkit.engine.cache import TorchCache, head
from agentkit.engine.decoder import Decoder
from agentkit.engine.graphs import WIDTHS, width_of
from agentkit.engine.peft_files import read_lora
from agentkit.engine.weights import load_weights


def test_the_width_of_a_step() -> None:
    assert [width_of(n) for n in (1, 2, 4, 5, 64, 65)] == [1, 4, 4, 16, 64, None]
    assert WIDTHS[0] == 1


class Replayed(graphs.Recorder):
    """A recorder without a GPU."""

    replays = 0
    fails = False

    def _begin(self) -> None:
        pass

    def _run(self, given: Any, cache: TorchCache) -> torch.Tensor:
        return self._compute(given, cache)

    def _capture(self, work: Callable[[], torch.Tensor]) -> Callable[[], None]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        def launch() -> None:
            self.replays += 1
            work()

        return launch


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
        decoder._recorder = Replayed(decoder.fixed, model.device, 320)
    return decoder


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_recorded_steps_agree_with_transformers(
    family: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 64)
    model = build(family).to(device)
    ids = torch.randint(0, 320, (100,), device=device)
    expected = model(input_ids=ids[None]).logits[0].float()
    decoder = recording(model)
    caches = [decoder.new_cache() for _ in range(2)]  # both grow, are recorded anew, and share their memory
    rows: list[list[torch.Tensor]] = [[], []]
    start = 0
    counts = (1, 1, 1, 3, 4, 2, 1, 1, 1, 9, 1, 1, 3, 3, 3, 1, 3, 2, 3, 1,
              16, 1, 1, 1, 1, 1, 1, 2, 3, 4, 3, 2, 3, 1, 1)  # fmt: skip
    for n in counts:
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
        assert decoder._recorder.replays > 10


def test_the_probe_records_every_width(device: str) -> None:
    model = build("llama").to(device)
    decoder = Decoder(model)
    made = graphs.Recorder if device == "cuda" else Replayed
    recorder = made(decoder.fixed, model.device, 320)
    assert decoder._record_with(recorder)
    assert sorted(recorder._logits) == list(WIDTHS)


@torch.inference_mode()
def test_what_cannot_be_recorded_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    model = build("llama")
    ids = torch.randint(0, 320, (30,))
    decoder = recording(model)
    assert decoder.name == "torch, recorded"
    decoder._recorder.fails = True  # type: ignore[union-attr]
    cache = decoder.new_cache()
    found = torch.stack([decoder(part, cache) for part in ids.split(1)])
    assert close(found, model(input_ids=ids[None]).logits[0].float(), 1e-3)
    assert decoder.name == "torch"
    assert caplog.messages == [
        "steps are no longer recorded on the GPU, which makes them slower: "
        "operation not permitted when stream is capturing"
    ]


def test_a_model_that_is_dropped_is_gone_at_once() -> None:
    decoder = recording(build("llama"))
    gone = weakref.ref(decoder)
    del decoder
    assert gone() is None


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("quantize", "passes"), [("none", "torch, recorded"), ("nf4", "torch, recorded"), ("int8", "torch")]
)
def test_a_gpu_runs_every_form(quantize: Any, passes: str, tiny_folder: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    loaded = load_weights(tiny_folder, device="cuda", quantize=quantize)
    assert loaded.info()["forward_pass"] == passes
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    whole = loaded.forward_all(list(range(100, 160)))
    cache = loaded.new_cache()
    steps = torch.stack([loaded.forward([token], cache) for token in range(100, 160)])
    assert close(steps, whole, 0.1)


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
