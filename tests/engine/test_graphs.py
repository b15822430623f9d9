"""On a GPU: recorded steps say what transformers says, however the conversation goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_decoder import FAMILIES, build, close
from test_packed_lora import write_adapter

from agentkit.engine.cache import head
from agentkit.engine.decoder import Decoder
from agentkit.engine.graphs import WIDTHS, width_of
from agentkit.engine.peft_files import read_lora


def test_the_width_of_a_step() -> None:
    assert [width_of(n) for n in (1, 2, 4, 5, 64, 65)] == [1, 4, 4, 16, 64, None]
    assert WIDTHS[0] == 1


@pytest.fixture
def on_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")


@pytest.mark.gpu
@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_recorded_steps_agree_with_transformers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkit.engine.cache.FIRST_CAPACITY", 32)
    model = build(family).to("cuda")
    ids = torch.randint(0, 320, (100,), device="cuda")
    expected = model(input_ids=ids[None]).logits[0].float()
    decoder = Decoder(model)
    assert decoder.agrees()
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


@pytest.mark.gpu
@pytest.mark.usefixtures("on_gpu")
@torch.inference_mode()
def test_an_adapter_runs_beside_recorded_steps(tmp_path: Path) -> None:
    from peft import PeftModel

    model = build("llama").to("cuda")
    folder = write_adapter(tmp_path / "shop", model, size=0.1)
    ids = torch.randint(0, 320, (60,), device="cuda")
    plain = model(input_ids=ids[None]).logits[0].float()
    decoder = Decoder(model)
    adapter: Any = decoder.pack_adapter("shop", read_lora(folder))
    caches = [decoder.new_cache(adapter), decoder.new_cache()]
    found = [[decoder(part, cache) for part in ids.split(1)] for cache in caches]
    tuned = PeftModel.from_pretrained(model, str(folder)).eval()
    wanted = tuned(input_ids=ids[None]).logits[0].float()
    assert not close(wanted, plain, 0.05)
    assert close(torch.stack(found[0]), wanted, 1e-3)
    assert close(torch.stack(found[1]), plain, 1e-3)
