"""``[tools.options.NAME] model``: tiny models in a folder, made here, whose biases force a known outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

TINY = {
    "vocab_size": 13,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}
LAMP, HOLA, SEP = 9, 10, 3


def force(layer: Any, outcome: int) -> None:
    """Make a linear layer prefer one output, whatever comes in."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.bias[outcome] = 5.0


def save(folder: Path, *parts: Any) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def test_a_classifier_with_its_own_labels(run_with: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(**TINY, id2label={0: "complaint", 1: "praise"}))
    force(model.classifier, 1)
    run = run_with("classifier", model=save(tmp_path, model, tokenizer))
    assert run("classifier", text="the lamp").value["label"] == "praise"
    assert run("classifier", text="the lamp", labels=["Praise", "complaint"]).value["label"] == "Praise"
    result = run("classifier", text="the lamp", labels=["sports", "praise"])
    assert "knows only the labels complaint, praise" in result.error


def test_a_classifier_by_entailment(run_with: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    labels = {0: "contradiction", 1: "neutral", 2: "ENTAILMENT"}
    model = BertForSequenceClassification(BertConfig(**TINY, id2label=labels))
    run = run_with("classifier", model=save(tmp_path, model, tokenizer))
    value = run("classifier", text="ann likes the lamp " * 50, labels=["lamp", "ann"]).value
    assert list(value["scores"]) == ["lamp", "ann"]
    assert sum(value["scores"].values()) == pytest.approx(1, abs=0.001)
    assert list(run("classifier", text="ann").value["scores"]) == ["positive", "negative", "neutral"]


def test_a_classifier_reads_as_far_as_its_tokenizer_says(
    run_with: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**TINY, initializer_range=1.0))
    short = "ann likes the lamp"
    found = []
    for most in (6, 32):
        tokenizer.save_pretrained(tmp_path / str(most))
        own = type(tokenizer).from_pretrained(tmp_path / str(most), model_max_length=most)
        run = run_with("classifier", model=save(tmp_path / str(most), model, own))
        found.append([run("classifier", text=text).value["scores"] for text in (short, short + " hola" * 20)])
    assert found[0][0] == found[0][1] == found[1][0] != found[1][1]


def test_a_token_classifier_joins_what_belongs_together(
    run_with: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertForTokenClassification

    model = BertForTokenClassification(BertConfig(**TINY, id2label={0: "O", 1: "B-PER", 2: "I-PER"}))
    force(model.classifier, 2)
    run = run_with("ner", model=save(tmp_path, model, tokenizer))
    assert run("ner", text=" Ann Lee ").value == [{"text": "Ann Lee", "label": "PER", "start": 1, "end": 8}]
    long = "Ann Lee " * 40
    assert run("ner", text=long).value == [
        {"text": long.strip(), "label": "PER", "start": 0, "end": len(long) - 1}
    ]


def test_a_type_of_entity_may_hold_hyphens(run_with: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification

    model = BertForTokenClassification(BertConfig(**TINY, id2label={0: "O", 1: "B-credit-card"}))
    force(model.classifier, 1)
    run = run_with("ner", model=save(tmp_path, model, tokenizer))
    found = run("ner", text="Ann Lee").value
    assert [(entity["text"], entity["label"]) for entity in found] == [
        ("Ann", "credit-card"),
        ("Lee", "credit-card"),
    ]


def test_a_token_classifier_that_finds_nothing(run_with: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification

    model = BertForTokenClassification(BertConfig(**TINY, id2label={0: "O", 1: "B-PER", 2: "I-PER"}))
    force(model.classifier, 0)
    assert run_with("ner", model=save(tmp_path, model, tokenizer))("ner", text="Ann Lee").value == []


def test_a_translation_model_works_sentence_by_sentence(
    run_with: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=13,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=600,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=SEP,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config)
    model.final_logits_bias[0, SEP] = 100.0
    model.generation_config.forced_bos_token_id = HOLA
    folder = save(tmp_path / "en-es", model, tokenizer)
    run = run_with("translator", model=str(tmp_path / "{source}-{target}"))
    value = run("translator", text="the lamp. the lamp?\n\nann", target="es", source="en").value
    assert value == {"translation": "hola hola\n\nhola", "source": "en", "target": "es", "backend": folder}


def test_a_captioning_model(run_with: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**TINY, "encoder_hidden_size": 16, "bos_token_id": 2, "sep_token_id": SEP, "pad_token_id": 0}
    text = {**text, "eos_token_id": SEP, "max_position_embeddings": 100}
    config = BlipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 16})
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[LAMP] = 100.0
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    run = run_with("captioner", model=save(tmp_path / "model", model, processor))
    value = run("captioner", image=str(tmp_path / "red.png")).value
    assert set(value["caption"].split()) == {"lamp"}
    assert value["colours"] == ["red"]


@pytest.mark.parametrize("name", ["classifier", "ner"])
def test_a_model_that_does_not_exist(run_with: Any, name: str) -> None:
    result = run_with(name, model="nobody/nothing")(name, text="a")
    assert not result.ok
    assert result.error.startswith("cannot load the model 'nobody/nothing'")
    assert "\n" not in result.error
