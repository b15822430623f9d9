from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from agentkit.training import fused, loop
from agentkit.training.data import IGNORED, Row
from agentkit.training.loss import can_share, loss_sum, shared_attention
from agentkit.training.methods import with_adapter
from agentkit.training.packing import Pack, pack, padded, share
from agentkit.training.plan import steps
from agentkit.training.settings import JobSettings, make_settings


def settings(**changes: Any) -> JobSettings:
    fixed = {"name": "x", "model_name": "tiny", "model_source": "tiny", "data_name": "c", "data_sha256": ""}
    return make_settings({**fixed, "adapters_dir": "unused", **changes})


def row(begin: list[int], seed: int, length: int, weight: float = 1.0, *, keep: bool = False) -> Row:
    rest = random.Random(seed)
    ids = begin + [rest.randrange(20, 400) for _ in range(length)]
    learned = len(begin) + length // 2
    return Row(ids, [IGNORED] * learned + ids[learned:], weight=weight, keep=keep)


TALK = list(range(30, 60))
FAMILY = [row(TALK, n, 8 + n) for n in range(4)]
ALONE = [row([], 90 + n, 25) for n in range(2)]


def test_what_rows_have_in_common_is_read_once() -> None:
    groups = share([*FAMILY, *ALONE], None)
    assert sorted((len(group.rows), group.prefix) for group in groups) == [(1, 0), (1, 0), (4, 30)]
    family = next(group for group in groups if len(group.rows) == 4)
    assert family.tokens == 30 + 8 + 9 + 10 + 11


def test_rows_that_are_learned_otherwise_are_another_plan() -> None:
    def fingerprint(kept: Row) -> str:
        learner = loop._ChatLearner.__new__(loop._ChatLearner)  # of a learner, only what there is to learn
        learner.plan = [steps([*FAMILY, kept], settings(), random.Random(0))]
        return learner.fingerprint()

    made = row([], 90, 25)
    others = [
        row([], 90, 25, weight=2.0),
        row([], 90, 25, keep=True),
        Row(made.ids, [IGNORED] * 20 + made.ids[20:]),
    ]
    assert fingerprint(made) == fingerprint(row([], 90, 25))
    assert len({fingerprint(each) for each in (made, *others)}) == 4


def test_a_few_words_in_common_are_no_reason_to_share() -> None:
    assert len(share([row([1, 2], n, 30) for n in range(3)], None)) == 3


def test_a_row_that_goes_on_from_another_keeps_a_branch_of_its_own() -> None:
    short = Row(TALK, [IGNORED] * 20 + TALK[20:])
    long = Row([*TALK, 7, 8, 9], [IGNORED] * 20 + [*TALK[20:], 7, 8, 9])
    (group,) = share([short, long], None)
    assert group.prefix == 19
    targets = Pack((group,)).targets
    assert sum(weight for *_, weight in targets) == 10 + 13


def test_rows_whose_labels_differ_are_not_shared() -> None:
    asked = Row([*TALK, 5, 6], [IGNORED] * 31 + [6])
    said = Row([*TALK, 5, 7], [IGNORED] * 10 + TALK[10:] + [IGNORED, 7])
    assert [group.prefix for group in share([asked, said], None)] in ([0, 0], [9])


def test_packs_and_groups_keep_to_their_tokens_and_lose_no_row() -> None:
    rows = [row(TALK[: 10 + n % 3 * 10], n, 5 + n) for n in range(20)] + [row([], 99, 200)]
    packs = pack(rows, 90)
    assert all(len(packed.ids) <= 90 or len(packed.groups) == 1 for packed in packs)
    found = [r.ids for packed in packs for group in packed.groups for r in group.rows]
    assert sorted(found) == sorted(r.ids for r in rows)
    assert sum(packed.learned for packed in packs) == sum(
        label != IGNORED for r in rows for label in r.labels
    )


def test_a_step_has_its_size_and_every_row_comes_once_in_a_pass() -> None:
    rows = [row(TALK, n, 9) for n in range(30)] + [row([], 50 + n, 9) for n in range(9)]
    plan = steps(rows, settings(batch_size=4, batch_tokens=100), random.Random(0))
    sizes = [sum(len(group.rows) for packed in step for group in packed.groups) for step in plan]
    assert max(sizes) == 4
    assert sum(sizes) == 39
    assert all(sum(len(packed.ids) for packed in step) <= 100 for step in plan)
    again = steps(rows, settings(batch_size=4, batch_tokens=100), random.Random(0))
    assert [[packed.ids for packed in step] for step in again] == [[p.ids for p in step] for step in plan]


@pytest.mark.parametrize(("count", "size"), [(24, 2), (100, 2), (200, 4), (1000, 8)])
def test_larger_data_is_learned_in_larger_steps(count: int, size: int) -> None:
    plan = steps([row([], n, 4) for n in range(count)], settings(), random.Random(0))
    assert max(sum(len(g.rows) for p in step for g in p.groups) for step in plan) == size


@pytest.fixture
def model(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


def alone(model: Any, row: Row) -> Any:
    """The loss as transformers computes it."""
    import torch

    learned = sum(label != IGNORED for label in row.labels[1:])
    labels = torch.tensor([row.labels])
    return model(input_ids=torch.tensor([row.ids]), labels=labels).loss * learned * row.weight


def gradients(model: Any) -> dict[str, Any]:
    found = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return found


def test_rows_that_are_read_alone_keep_to_their_tokens_when_padded() -> None:
    rows = [row([], n, 10) for n in range(12)] + [row([], 50, 100), row([], 51, 9, keep=True)]
    packs = pack(rows, 240)
    assert len(packs) == 2
    found = padded(packs, 60)
    read = [[each for group in packed.groups for each in group.rows] for packed in found]
    assert sorted(map(len, read)) == [1, 1, 6, 6]
    assert all(len(part) == 1 or len(part) * max(len(each.ids) for each in part) <= 60 for part in read)
    assert sorted(each.ids for part in read for each in part) == sorted(each.ids for each in rows)
    assert sum(packed.learned for packed in found) == sum(packed.learned for packed in packs)
    assert [packed.keep for packed in found].count(True) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_loss_and_gradients_are_those_of_every_row_by_itself(model: Any, shared: bool) -> None:
    import torch

    rows = [*FAMILY, *ALONE, row(TALK[:20], 5, 12, weight=3.0)]
    expected = sum(alone(model, r) for r in rows)
    expected.backward()
    right = gradients(model)
    assert can_share(model, 60)
    packs = pack(rows, 120)
    assert len(packs) > 1
    if shared:
        with shared_attention(model):
            total = sum(loss_sum(model, packed, shared=True) for packed in packs)
    else:
        total = sum(loss_sum(model, packed, shared=False) for packed in packs)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    total.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, right[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rows", [256, 4])
@pytest.mark.parametrize("kept", [1 << 25, 0])
def test_the_blocks_on_a_cpu_see_what_the_mask_elsewhere_sees(
    kept: int, rows: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from agentkit.training import tree

    monkeypatch.setattr(tree, "_KEPT", kept)
    monkeypatch.setattr(tree, "_ROWS", rows)  # with 4 parts of the spans are several blocks
    torch.manual_seed(0)
    spans = (tree.Span(0, 7, (3, 5, 1)), tree.Span(16, 0, (9,)), tree.Span(25, 6, ()))
    query = torch.randn(4, 31, 8, requires_grad=True)
    key, value = (torch.randn(heads, 31, 8, requires_grad=True) for _ in range(2))
    grad = torch.randn(4, 31, 8)
    wide = (states.repeat_interleave(4 // heads, 0)[None] for states in (key, value))
    found = []
    for out in (
        tree._TreeAttention.apply(query, key, value, 0.3, spans),
        tree._masked(query[None], *wide, 0.3, spans)[0],
    ):
        found.append((out, *torch.autograd.grad(out, (query, key, value), grad)))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)


def test_one_mask_keeps_the_spans_of_a_pack_apart() -> None:
    import torch

    from agentkit.training import tree

    torch.manual_seed(0)
    spans = (tree.Span(0, 7, (3, 5, 1)), tree.Span(16, 0, (4,)), tree.Span(20, 2, (1, 2)))
    states = [torch.randn(1, 2, 25, 8) for _ in range(3)]
    right = torch.cat(
        [tree._masked(*(s[:, :, p.start : p.end] for s in states), 0.3, (p,)) for p in spans], dim=2
    )
    torch.testing.assert_close(tree._masked(*states, 0.3, spans), right)
    alone = (tree.Span(0, 0, (25,)),)
    causal = torch.nn.functional.scaled_dot_product_attention(
        *states, torch.ones(25, 25).tril().bool(), scale=0.3
    )
    torch.testing.assert_close(tree._masked(*states, 0.3, alone), causal)


def test_fused_layers_compute_what_peft_computes(model: Any) -> None:
    import torch

    tuned = with_adapter(model, settings(), 10)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    alone(tuned, FAMILY[0]).backward()
    right = gradients(tuned)
    assert fused.fuse(tuned) == 14
    alone(tuned, FAMILY[0]).backward()
    for name, gradient in gradients(tuned).items():
        torch.testing.assert_close(gradient, right[name], rtol=1e-4, atol=1e-5, msg=name)


def test_linears_with_inputs_of_their_own_are_computed_from_those() -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    class Crossing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj = (torch.nn.Linear(6, n) for n in (8, 4, 4))

        def forward(self, x: Any, other: Any) -> Any:
            return torch.cat((self.v_proj(other), self.k_proj(other), self.q_proj(x), self.k_proj(x)), -1)

        @property
        def device(self) -> torch.device:
            return self.q_proj.weight.device

    config = LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False)
    tuned = get_peft_model(Crossing(), config)  # type: ignore[arg-type]
    x, other = (torch.randn(3, 6, requires_grad=True) for _ in range(2))
    right = tuned(x, other)
    right.square().sum().backward()
    wanted = {**gradients(tuned), "x": x.grad, "other": other.grad}
    assert fused.fuse(tuned) == 3
    tuned.zero_grad()
    x.grad = other.grad = None
    found = tuned(x, other)
    torch.testing.assert_close(found, right)
    found.square().sum().backward()
    for name, gradient in {**gradients(tuned), "x": x.grad, "other": other.grad}.items():
        torch.testing.assert_close(gradient, wanted[name], msg=name)


def test_norms_are_fused_where_they_are_the_one_that_is_known() -> None:
    import torch
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    class PlusOne(LlamaRMSNorm):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * (1 + self.weight) / self.weight

    weight = torch.linspace(0.5, 1.5, 24)
    known, other = LlamaRMSNorm(24), PlusOne(24)  # type: ignore[no-untyped-call]
    for norm in (known, other):
        norm.weight.data = weight
        assert not fused._is_norm(norm)  # its weight is learned
        norm.requires_grad_(requires_grad=False)
    assert fused._is_norm(known)
    assert not fused._is_norm(other)
    x = torch.randn(2, 5, 24, requires_grad=True)
    above = torch.randn(2, 5, 24)
    (right,) = torch.autograd.grad(known(x), x, above)
    torch.testing.assert_close(fused._norm(known)(x), known(x))
    torch.testing.assert_close(torch.autograd.grad(fused._norm(known)(x), x, above)[0], right)
    halved = known.to(torch.bfloat16)
    near = fused._norm(halved)(x.bfloat16())
    assert near.dtype == torch.bfloat16
    torch.testing.assert_close(near, halved(x.bfloat16()))


def test_rows_to_be_kept_are_packed_by_themselves() -> None:
    kept = [row(TALK, 40 + n, 8, keep=True) for n in range(3)]
    packs = pack([*FAMILY, *kept], 1000)
    assert [packed.keep for packed in packs] == [False, True]
    assert sum(len(group.rows) for group in packs[1].groups) == 3


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_what_is_kept_is_how_likely_the_untuned_model_finds_each_token(
    model: Any, tiny: Path, shared: bool, fuse: bool
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    untuned = AutoModelForCausalLM.from_pretrained(tiny)
    tuned = with_adapter(model, settings(), 10)
    if fuse:
        fused.fuse(tuned)
    rows = [row(TALK, 40 + n, 8, weight=2.0, keep=True) for n in range(3)]
    (packed,) = pack(rows, 1000)
    with shared_attention(model) if shared else contextlib.nullcontext():
        assert float(loss_sum(tuned, packed, shared=shared).detach()) == pytest.approx(0, abs=1e-5)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        found = loss_sum(tuned, packed, shared=shared)
    expected = 0.0
    for one in rows:
        ids, places = (
            torch.tensor([one.ids]),
            [n - 1 for n, label in enumerate(one.labels) if label != IGNORED],
        )
        with torch.no_grad():
            before, after = (m(input_ids=ids).logits[0, places].log_softmax(-1) for m in (untuned, tuned))
        expected += one.weight * float((before.exp() * (before - after)).sum())
    assert expected > 1
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.backward()
    assert any(gradient.abs().max() > 0 for gradient in gradients(tuned).values())


def test_models_with_another_attention_are_read_row_by_row(model: Any) -> None:
    import torch

    model.config.sliding_window = 32
    assert can_share(model, 32)
    assert not can_share(model, 33)
    model.config.sliding_window = None
    assert can_share(model, 10)
    layer = model.model.layers[0].self_attn
    layer.sinks = torch.nn.Parameter(torch.ones(4))
    assert not can_share(model, 10)
    del layer.sinks
    model.config.attention_dropout = 0.1
    assert not can_share(model, 10)
