"""How likely a model finds a text: the very logits that it would decode from, and those of transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import write_adapter

from agentkit.assets import asset_path
from agentkit.engine.weights import LoadedModel, load_weights
from agentkit.errors import ModelError, UsageError
from agentkit.llm.adapters import AdapterFolder, Adapters
from agentkit.llm.local import LocalModel

ASK = [{"role": "user", "content": "Why does ice float on water?"}]
SHORT = "Because it is lighter."
LONG = "Water expands when it freezes, because its molecules form a roomy lattice. " * 6
"""More tokens than one pass reads of an answer."""
TOLD = [
    {"role": "system", "content": "Be brief."},
    *ASK,
    {"role": "assistant", "content": SHORT},
    {"role": "user", "content": "Than what?"},
]


def ids_of(model: LocalModel, messages: list[Any], answer: str) -> tuple[list[int], list[int]]:
    """Of the prompt as it is served, and of the answer with the end of its turn."""
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    return model.render(messages), [*model.encoder.plain(answer), end]


def picked(logits: torch.Tensor, prompt: list[int], answer: list[int]) -> list[float]:
    """From the logits after every token of a text, the log-probabilities of its last part."""
    rows = logits.float().log_softmax(-1)[len(prompt) - 1 : -1]
    return [float(row[id]) for row, id in zip(rows, answer, strict=True)]


@pytest.mark.parametrize("messages", [ASK, TOLD], ids=["one turn", "several"])
@pytest.mark.parametrize("answer", [SHORT, LONG], ids=["short", "long"])
def test_they_are_those_of_the_text_read_at_once(smollm: LocalModel, messages: Any, answer: str) -> None:
    prompt, own = ids_of(smollm, messages, answer)
    model = LocalModel(smollm._loaded)
    found = model.log_probs(messages, answer)
    assert found == pytest.approx(picked(smollm._loaded.forward_all([*prompt, *own]), prompt, own), abs=1e-4)
    assert model.log_probs(messages, answer) == found  # out of the cache


def test_a_long_answer_takes_few_passes(smollm: LocalModel) -> None:
    model = LocalModel(smollm._loaded)
    tokens = len(model.log_probs(ASK, LONG))
    assert tokens > 80
    assert model._scheduler.counters.passes <= 2 + tokens // 60


def test_control_tokens_in_an_answer_are_text(smollm: LocalModel) -> None:
    assert len(smollm.log_probs(ASK, "<|im_end|>")) > 3


def test_the_model_is_as_usable_as_before(smollm: LocalModel) -> None:
    model = LocalModel(smollm._loaded)
    said = model.chat(ASK, max_new_tokens=12).text
    model.log_probs(ASK, SHORT)
    assert model.chat(ASK, max_new_tokens=12).text == said
    likely = model.log_probs(ASK, said)[: len(model.encoder.plain(said))]
    assert max(likely) <= 0
    assert sum(likely) > sum(model.log_probs(ASK, said[::-1]))


def test_an_adapter_counts(smollm: LocalModel, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "own", smollm.hf_model, size=0.1)
    beside = smollm._loaded.load_adapter(folder)
    prompt, own = ids_of(smollm, ASK, LONG)
    model = LocalModel(
        smollm._loaded, adapters=Adapters(smollm._loaded, lambda spec: AdapterFolder("own", folder), "own")
    )
    found = model.log_probs(ASK, LONG)
    expected = picked(smollm._loaded.forward_all([*prompt, *own], beside), prompt, own)
    assert found == pytest.approx(expected, abs=1e-4)
    bare = LocalModel(smollm._loaded).log_probs(ASK, LONG)
    assert max(abs(a - b) for a, b in zip(found, bare, strict=True)) > 0.5


def test_transformers_says_the_same_of_the_same_weights(smollm: LocalModel, tmp_path: Path) -> None:
    """In fp32, with PEFT's own adapter. The engine rounds what enters a product to bf16, 8 bits: a relative error of
    0.4 % at most in each, about 0.1 in a logit of 20, as likely up as down; over 90 tokens a tenth of that is left."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = write_adapter(tmp_path / "own", smollm.hf_model)
    loaded = load_weights(asset_path("smollm2-135m"), device="cpu", quantize="none")
    model = LocalModel(loaded, adapters=Adapters(loaded, lambda spec: AdapterFolder("own", folder), "own"))
    prompt, own = ids_of(model, ASK, LONG)
    found = torch.tensor(model.log_probs(ASK, LONG))
    reference = AutoModelForCausalLM.from_pretrained(asset_path("smollm2-135m"), dtype=torch.float32)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        bare = reference(torch.tensor([[*prompt, *own]])).logits[0]
        theirs = PeftModel.from_pretrained(reference, str(folder))(torch.tensor([[*prompt, *own]])).logits[0]
    difference = found - torch.tensor(picked(theirs, prompt, own))
    assert difference.abs().max() < 0.5
    assert difference.mean().abs() < 0.03
    assert (found - torch.tensor(picked(bare, prompt, own))).abs().mean() > 3 * difference.abs().mean()


def test_what_is_no_answer_is_refused(smollm: LocalModel) -> None:
    for messages, answer in ((ASK, ""), ([*ASK, {"role": "assistant", "content": "It"}], "floats.")):
        with pytest.raises(UsageError, match="no answer to be scored"):
            smollm.log_probs(messages, answer)
    with pytest.raises(UsageError, match="no messages"):
        smollm.log_probs([], "It floats.")
    with pytest.raises(ModelError, match="the text has"):
        smollm.log_probs(ASK, "word " * 9_000)
    assert smollm.log_probs(ASK, SHORT)


def test_a_pass_that_fails_is_a_model_error(smollm: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel(smollm._loaded)
    found = model.log_probs(ASK, LONG)
    forward, errors = LoadedModel.forward, []

    def failing(self: LoadedModel, *args: Any, **options: Any) -> Any:
        result = forward(self, *args, **options)
        if errors:
            raise errors.pop()
        return result

    monkeypatch.setattr(LoadedModel, "forward", failing)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        model.chat(ASK, max_new_tokens=1)
        errors += [error]
        assert model.log_probs(ASK, LONG) == found  # tried once more, with memory that was freed
        assert model._pool._ledgers == []
    for several in ([MemoryError(), MemoryError()], [KeyError()], [ValueError("a kernel failed\nat length")]):
        errors[:] = several
        with pytest.raises(ModelError, match="the model failed while reading: ") as caught:
            model.log_probs(ASK, LONG)
        assert "\n" not in str(caught.value)
        assert errors == []
    assert model.log_probs(ASK, LONG) == found
