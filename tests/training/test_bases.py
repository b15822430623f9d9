"""Which bases can be read, how far, and why one cannot be loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from agentkit.errors import MissingBackendError, ModelError
from agentkit.training.bases import load_base, longest_answer, room

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "ann", "lee"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_positions_that_no_token_has_do_not_count() -> None:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast, RobertaConfig, RobertaModel

    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
    sizes = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 24}
    roberta, bert = RobertaModel(RobertaConfig(**sizes)), BertModel(BertConfig(**sizes))
    assert [room(model, tokenizer, 2048) for model in (roberta, bert)] == [22, 24]
    assert room(roberta, tokenizer, 8) == 8
    roberta(torch.full((1, 22), 5))
    with pytest.raises(RuntimeError, match="out of bounds"):
        roberta(torch.full((1, 23), 5))


def test_a_decoder_may_have_positions_of_its_own() -> None:
    from transformers import BartConfig, LEDConfig, T5Config

    found = [
        BartConfig(max_position_embeddings=99),
        LEDConfig(max_decoder_position_embeddings=77),
        T5Config(),
    ]
    assert [longest_answer(config) for config in found] == [98, 76, None]


def test_a_base_without_safetensors_is_told_so(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertTokenizerFast

    BertConfig(**SIZES, architectures=["BertForMaskedLM"]).save_pretrained(tmp_path)
    BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"'tiny' has no weights as safetensors \(.*\); name a base that has them"
    ):
        load_base(str(tmp_path), "tiny", "classification", ["a", "b"])


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="there is nothing missing")
@pytest.mark.parametrize("config", ['{"tokenizer_class": "MarianTokenizer"}', '{"source_lang": "en"}'])
def test_a_package_that_a_base_needs_is_named(tmp_path: Path, config: str) -> None:
    from transformers import MarianConfig

    MarianConfig().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    told = (
        "model 'tiny' needs a package that is not installed: sentencepiece; run `pip install sentencepiece`"
    )
    with pytest.raises(MissingBackendError, match=f"^{told}$"):
        load_base(str(tmp_path), "tiny", "seq2seq")
