"""The sentence embedder as such: who waits for whom, and what its name tells apart."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from agentkit.assets import asset_path
from agentkit.retrieval.embedder import BATCH, MiniLMEmbedder


def test_a_question_does_not_wait_for_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = MiniLMEmbedder(asset_path("minilm"))
    begun, batches = threading.Event(), []

    def slow(texts: list[str]) -> np.ndarray:
        batches.append(len(texts))
        begun.set()
        time.sleep(0.02)
        return np.ones((len(texts), embedder.dimension), np.float32)

    monkeypatch.setattr(embedder, "_embed_batch", slow)
    documents = threading.Thread(target=embedder.embed, args=([f"Document {n}." for n in range(20 * BATCH)],))
    documents.start()
    assert begun.wait(10)
    assert embedder.embed(["A question?"]).shape == (1, embedder.dimension)
    documents.join()
    assert sorted(batches) == [1, *[BATCH] * 20]
    assert batches[-1] == BATCH  # the question was not the last


@pytest.mark.parametrize("change", ["pooling", "tokenizer", "weights"])
def test_what_makes_other_vectors_has_another_name(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(asset_path("minilm"), folder)
    before = MiniLMEmbedder(asset_path("minilm")).name
    assert MiniLMEmbedder(folder).name == before
    if change == "pooling":
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    elif change == "tokenizer":
        file = folder / "tokenizer.json"
        file.write_text(file.read_text("utf-8").replace("true", "false", 1), "utf-8")
    else:
        weights = next(folder.glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert MiniLMEmbedder(folder).name != before
