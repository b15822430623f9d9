"""Variations of chats: what is learned stays to the token, and what is shared is still shared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentkit.llm.encoding import ChatEncoder
from agentkit.messages import Message, ToolCall, ToolSpec
from agentkit.training.augment import LONGEST, Augmenter, Said, altered
from agentkit.training.data import IGNORED, Example, Row, Split, encode
from agentkit.training.loop import Stopped, evaluate, train
from agentkit.training.neftune import noisy_embeddings
from agentkit.training.packing import Pack, pack, share
from agentkit.training.settings import make_settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TOOLS = tuple(
    ToolSpec(name, f"{name} something", {"type": "object", "properties": {"place": {"type": "string"}}})
    for name in ("book", "cancel", "find", "price")
)
ASKED = (
    "Could you please reserve something nice near the harbour of Galway for 3 people with the note Thank you!"
)


def chat(text: str, *more: str, split: Split = "train", described: bool = True) -> Example:
    call = ToolCall("call_0", "book", {"place": "Galway", "people": 3, "note": "Thank you!"})
    messages = [Message("user", text), Message("assistant", "", (call,)), Message("tool", "{}", name="book")]
    messages += [Message("assistant", "Your harbour table is ready.")]
    for said in more:
        messages += [Message("user", said), Message("assistant", f"As you like: {said}")]
    return Example(tuple(messages), TOOLS, describe_tools=described, split=split)


EXAMPLES = [
    *(chat(ASKED, f"Wonderful, now add candles number {n} please.") for n in range(4)),
    *(chat(f"Would somebody kindly arrange dinner number {n} somewhere around Galway?") for n in range(4)),
    chat("Held out dinner around Galway please", split="validation"),
    chat("Tested dinner around Galway please", split="test"),
]


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> ChatEncoder:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    return ChatEncoder(tokenizer, frozenset({tokenizer.eos_token_id}))


def augmenter(
    encoder: ChatEncoder, rate: float = 1.0, seed: int = 0, length: int = 2048,
    examples: Sequence[Example] = EXAMPLES,
) -> tuple[list[Row], Augmenter]:  # fmt: skip
    rows, _ = encode(examples, encoder, 2048)
    return rows, Augmenter(rows, encoder, length, rate=rate, seed=seed)


def learned(row: Row) -> list[int]:
    return [label for label in row.labels if label != IGNORED]


def test_what_is_learned_stays_and_what_is_read_changes(encoder: ChatEncoder) -> None:
    rows, vary = augmenter(encoder)
    learn = [row for row in rows if row.split == "train"]
    assert len(learn) == 8
    passes = [vary.rows(epoch) for epoch in range(1, 5)]
    for varied in passes:
        assert [learned(row) for row in varied] == [learned(row) for row in learn]
        assert {row.split for row in varied} == {"train"}
        assert all(len(row.ids) == len(row.labels) for row in varied)
        assert all(new.ids != old.ids for new, old in zip(varied, learn, strict=True))
    assert passes[0] != passes[1]
    assert augmenter(encoder)[1].rows(2) == passes[1]
    assert augmenter(encoder, seed=1)[1].rows(2) != passes[1]
    assert augmenter(encoder, rate=0.0)[1].rows(1) == learn


def test_a_share_of_the_turns_is_altered(encoder: ChatEncoder) -> None:
    examples = [chat(f"Kindly arrange something lovely for evening number {n}.") for n in range(60)]
    examples = [Example(e.messages, (), split="train") for e in examples]
    rows, vary = augmenter(encoder, rate=0.5, examples=examples)
    changed = sum(
        new.ids != old.ids for epoch in (1, 2, 3) for new, old in zip(vary.rows(epoch), rows, strict=True)
    )
    assert 50 < changed < 110


def read(rows: Sequence[Row]) -> float:
    """Share of the tokens that are read."""
    return sum(group.tokens for group in share(rows, None)) / sum(len(row.ids) for row in rows)


def test_chats_that_begin_alike_go_on_doing_so(encoder: ChatEncoder) -> None:
    rows, vary = augmenter(encoder)
    learn = [row for row in rows if row.split == "train"]
    assert read(learn) < 0.5  # so much is gained by sharing
    for epoch in range(1, 6):
        varied = vary.rows(epoch)
        text = [encoder.decode(row.ids) for row in varied]
        systems = {part.split("<|im_end|>")[0] for part in text}
        assert len(systems) == 1  # one order of the tools for all of them
        assert len({part.split("<|im_start|>user")[1] for part in text[:4]}) == 1
        assert read(varied) < read(learn) * 1.1


def test_tools_change_their_order_and_nothing_else(encoder: ChatEncoder) -> None:
    _, vary = augmenter(encoder)
    orders = {tuple(tool.name for tool in vary._example(EXAMPLES[0], epoch).tools) for epoch in range(20)}
    assert len(orders) > 8
    assert {frozenset(order) for order in orders} == {frozenset(tool.name for tool in TOOLS)}
    unread = chat(ASKED, described=False)
    assert vary._example(unread, 1).tools == TOOLS


def test_what_arguments_come_from_is_never_altered(encoder: ChatEncoder) -> None:
    _, vary = augmenter(encoder)
    seen = set()
    for epoch in range(300):
        text = vary._example(EXAMPLES[0], epoch).messages[0].content
        seen.add(text)
        assert all(value in text for value in ("Galway", "3", "Thank you!", "harbour"))
    assert len(seen) > 30
    assert any(text.startswith("could") for text in seen)


@pytest.mark.parametrize(
    "text",
    ["Remind me on March 3, 2026 at 5:30 pm.", "Mail Ada Lovelace at ada@mail.example about \"the Engine\".",
     "Convert forty five thousand dollars into euros please!", "Öffne bitte die Datei /tmp/übung.txt sofort.", "",
     "?", "...", "OK", "a" * (LONGEST + 1)],
)  # fmt: skip
def test_values_of_any_text_stay(text: str) -> None:
    from agentkit.llm.spans import spans

    values = {span.text for span in spans(text) if span.kind != "phrase"}
    for seed in range(200):
        found = altered(text, random.Random(seed), Said())
        assert all(value in found for value in values)
        assert bool(found.strip()) == bool(text.strip())


def test_a_word_is_mistyped_within() -> None:
    found = {altered("something wonderful", random.Random(seed), Said({"something"})) for seed in range(400)}
    typed = {text.removeprefix("something ") for text in found}
    assert {"wodnerful", "wondeful", "wonderrful"} & typed
    assert all(text.startswith("something w") and text.endswith("l") for text in found)


def test_what_no_longer_fits_is_read_as_it_is(encoder: ChatEncoder) -> None:
    rows, _ = augmenter(encoder)
    learn = [row for row in rows if row.split == "train"]
    _, vary = augmenter(encoder, length=1)
    assert vary.rows(1) == learn


def settings(**changes: Any) -> Any:
    fixed = {"name": "x", "model_name": "tiny", "model_source": "tiny", "data_name": "c", "data_sha256": ""}
    return make_settings({**fixed, "adapters_dir": "unused", "rank": 4, "batch_size": 2, **changes})


def load(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


def test_a_varied_and_noisy_run_is_resumed_to_the_same_end(
    encoder: ChatEncoder, tiny: Path, tmp_path: Path
) -> None:
    short = [Example(e.messages[:2], (), split=e.split) for e in EXAMPLES]
    short = [Example((Message("user", e.messages[0].content), Message("assistant", f"Yes {n}.")), split=e.split)
             for n, e in enumerate(short)]  # fmt: skip
    rows, vary = augmenter(encoder, rate=0.7, examples=short)
    rows = [row for row in rows if row.split != "test"]
    job = settings(epochs=2, neftune_alpha=5.0, learning_rate=0.01)
    lines: list[dict[str, Any]] = []
    whole = train(job, load(tiny), rows, lines.append, varied=vary.rows)
    seen: list[dict[str, Any]] = []
    folder = tmp_path / "checkpoints"
    with pytest.raises(Stopped):
        train(job, load(tiny), rows, seen.append, varied=vary.rows, checkpoint_dir=folder,
              should_stop=lambda: len(seen) > 2)  # fmt: skip
    resumed = train(job, load(tiny), rows, seen.append, varied=vary.rows, checkpoint_dir=folder)
    assert [line["loss"] for line in seen] == [line["loss"] for line in lines]
    assert resumed.loss_after == whole.loss_after
    held_out = [row for row in rows if row.split == "validation"]
    assert evaluate(whole.model, held_out, shared=False) == pytest.approx(whole.loss_after, rel=1e-5)
    quiet: list[dict[str, Any]] = []
    train(settings(epochs=2, learning_rate=0.01), load(tiny), rows, quiet.append, varied=vary.rows)
    assert quiet[0]["loss"] != lines[0]["loss"]
    assert quiet[0]["loss"] == pytest.approx(lines[0]["loss"], rel=0.3)


def noise_of(model: Any, packed: Pack, alpha: float, *, shared: bool) -> Any:
    import torch

    embed = model.get_input_embeddings()
    rows = [row for group in packed.groups for row in group.rows]
    width = max(len(row.ids) for row in rows)
    padded = [row.ids + [0] * (width - len(row.ids)) for row in rows]
    ids = torch.tensor([packed.ids] if shared else padded)
    clean = embed(ids)
    with noisy_embeddings(model, packed, alpha, shared=shared):
        noisy = embed(ids)
    assert torch.equal(embed(ids), clean)
    return (noisy - clean).detach()


def test_the_noise_has_the_size_of_the_paper(tiny: Path) -> None:
    import torch

    model = load(tiny)
    begin = list(range(100, 140))
    rows = [Row([*begin, *range(200, 200 + n)], [IGNORED] * 40 + list(range(200, 200 + n))) for n in (8, 60)]
    rows.append(Row(list(range(300, 316)), list(range(300, 316))))
    (packed,) = pack(rows, 500)
    shared = noise_of(model, packed, 5.0, shared=True)[0]
    start = 0
    for group in packed.groups:
        own = [len(row.ids) for row in group.rows]
        parts = [(group.prefix, max(own)), *((length - group.prefix, length) for length in own)]
        for tokens, length in parts:
            size = 5.0 / (length * 32) ** 0.5
            part = shared[start : start + tokens].abs()
            start += tokens
            if tokens:
                assert 0.9 * size < float(part.max()) <= size * 1.001
                assert float(part.mean()) == pytest.approx(size / 2, rel=0.15)
    assert start == len(shared)
    alone = noise_of(model, packed, 5.0, shared=False)
    for number, row in enumerate(row for group in packed.groups for row in group.rows):
        size = 5.0 / (len(row.ids) * 32) ** 0.5
        assert 0.9 * size < float(alone[number].abs().max()) <= size * 1.001
    assert torch.equal(noise_of(model, packed, 0.0, shared=True), torch.zeros_like(shared)[None])
