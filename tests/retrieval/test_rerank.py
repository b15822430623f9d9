"""Rerankers: the cross-encoder, on a tiny model made here, and the embedded chat model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agentkit.build.knowledge import NamedReranker, reranker_of
from agentkit.errors import ModelError, UsageError
from agentkit.events import Notice
from agentkit.llm.adapters import AdapterChoice
from agentkit.llm.reading import ModelReranker
from agentkit.retrieval.embedder import beginning
from agentkit.retrieval.rerank import CrossEncoder
from agentkit.training import adapters


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


class Fixed:
    """A chat model that can run with one adapter only, and says Yes."""

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter

    def choose_adapter(self, spec: str, *, quiet: bool) -> tuple[AdapterChoice, tuple[Notice, ...]]:
        assert quiet
        if spec != self.adapter:
            raise UsageError("it cannot run without", "start again")
        return AdapterChoice(None), ()

    def first_logits(self, messages: object, answers: object, *, adapter: str) -> list[float]:
        assert adapter == self.adapter
        return [1.5, 0.5]


def chat_folder(tmp_path: Path) -> str:
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
    return str(tmp_path / "chat")


def test_a_model_with_another_adapter_in_its_weights_is_loaded_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[str, str]] = []

    def load(name: str, *, adapter: str, router: None) -> Fixed:
        loads.append((name, adapter))
        return Fixed(adapter)

    monkeypatch.setattr("agentkit.build.knowledge.load_model", load)
    own, source = Fixed("merged"), chat_folder(tmp_path)
    reranker = NamedReranker(source, lambda: own)
    for _ in range(2):
        assert reranker.scores("lamp", ["red lamp"]).tolist() == [1.0]
    assert loads == [(source, "none")]


def test_a_name_is_a_cross_encoder_or_a_chat_model(tmp_path: Path) -> None:
    encoder = tiny_model(tmp_path / "encoder", 1)
    named = reranker_of(str(encoder))
    assert isinstance(named, NamedReranker)
    texts = ["red lamp", "blue rug", "wash"]
    np.testing.assert_array_equal(named.scores("lamp", texts), CrossEncoder(encoder).scores("lamp", texts))
    assert named.depth == CrossEncoder.depth

    chat = NamedReranker(chat_folder(tmp_path), lambda: Fixed("none"))
    assert chat.scores("lamp", texts).tolist() == [1.0] * 3
    assert chat.depth == ModelReranker.depth
    assert named.reader is chat.reader is None


def test_a_model_for_which_a_judge_ships_reads() -> None:
    (name,) = (path.name for path in adapters.JUDGES.iterdir())
    judge = NamedReranker(name, lambda: Fixed(str(adapters.JUDGES / name)))
    assert isinstance(judge.reader, ModelReranker)
    assert judge.reader.name == name
    assert judge.scores("lamp", ["red lamp"]).tolist() == [1.0]
    assert adapters.traits_of(adapters.JUDGES / name).reads
    adapters.check_whole(adapters.JUDGES / name)
    for other in ("../smollm2-135m", str(adapters.JUDGES / name), "smollm2-135m"):
        assert adapters.judging(other) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("minilm", "'minilm' is no reranker"),
        ("openai+http://127.0.0.1:1/v1", "a server does not"),
    ],
)
def test_what_can_be_no_reranker_is_refused_at_once(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        reranker_of(name)
    assert reranker_of("") is None


@pytest.mark.parametrize("config", ["", "[]", "{", '{"architectures": null}'])
def test_a_damaged_configuration_is_told_when_it_is_loaded(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    named = reranker_of(str(tmp_path))
    assert named is not None
    with pytest.raises(ModelError, match="cannot load the reranker"):
        named.scores("lamp", ["rug"])


def test_the_embedded_chat_model_is_one() -> None:
    reranker = reranker_of("smollm2-135m")
    assert reranker is not None
    baths = "Baths > Prices\n"
    scores = reranker.scores(
        "How much is a single swim?",
        [
            baths + "Towels are for hire at the desk. Please shower first.",
            baths + "A single swim costs €4.",
            "Parking\nThe car park is behind the hall.",
        ],
    )
    assert scores.argmax() == 1
