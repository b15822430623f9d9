"""The cross-encoder, on a tiny model made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentkit.errors import ModelError
from agentkit.retrieval.embedder import beginning
from agentkit.retrieval.rerank import CrossEncoder


def tiny_model(folder: Path, outputs: int) -> Path:
    """A BERT of two layers with random weights, and a tokenizer of a few words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

    set_seed(0)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lamp", "rug", "wash", "red", "blue"]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=outputs,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_scores_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    reranker = CrossEncoder(tiny_model(tmp_path, 1))
    texts = [f"{'red ' * n} lamp wash" for n in range(11)]
    together = reranker.scores("wash lamp", texts)
    assert together.shape == (11,)
    assert together.dtype == np.float32
    alone = [reranker.scores("wash lamp", [text])[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(set(np.round(together, 5))) > 5
    assert reranker.scores("lamp", []).shape == (0,)


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    assert np.isfinite(CrossEncoder(tiny_model(tmp_path, 1)).scores("lamp " * 200, ["rug " * 100_000])).all()


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 3 outputs"):
        CrossEncoder(tiny_model(tmp_path, 3)).scores("lamp", ["rug"])


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load the reranker .*nothing"):
        CrossEncoder(tmp_path / "nothing").scores("lamp", ["rug"])


def test_half_a_character_is_scored_like_a_question_mark(tmp_path: Path) -> None:
    reranker = CrossEncoder(tiny_model(tmp_path, 1))
    np.testing.assert_array_equal(
        reranker.scores("lamp \ud800", ["red \udcff rug"]), reranker.scores("lamp ?", ["red ? rug"])
    )


def test_what_a_tokenizer_is_given_of_a_text() -> None:
    assert beginning("é \ud800 灯") == "é ? 灯"
    assert len(beginning("x" * 100_000)) == 8_000
