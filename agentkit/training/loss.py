"""The loss of a pack: cross entropy over the assistant's tokens, or how far they are from the untuned model's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentkit.training.packing import Pack

if TYPE_CHECKING:
    import torch


def can_share(model: Any, longest: int) -> bool:
    """Whether the model's attention is the plain one over all that came before, so that `tree.attend` can replace it.

    Args:
        model: A transformers causal language model.
        longest: Tokens of the longest row.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if window and longest <= window:
        kinds.discard("sliding_attention")
    elif window and not getattr(config, "layer_types", None):
        kinds.add("sliding_attention")
    special = ("attn_logit_softcapping", "attention_dropout", "num_experts", "num_local_experts")
    plain = not any(getattr(config, name, None) for name in special) and not _has_sinks(model)
    return (
        plain and kinds <= {"full_attention"} and bool(getattr(model, "_supports_attention_backend", False))
    )


def _has_sinks(model: Any) -> bool:
    """Whether attention goes to learned sinks beside the keys (arXiv:2309.17453)."""
    return any(name.rpartition(".")[2] == "sinks" for name, _ in model.named_parameters())


@contextmanager
def shared_attention(model: Any) -> Iterator[None]:
    """Let the model read packs."""
    from agentkit.training import tree

    tree.register()
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = tree.IMPLEMENTATION
    try:
        yield
    finally:
        config._attn_implementation = before


def loss_sum(model: Any, pack: Pack, *, shared: bool) -> torch.Tensor:
    """Cross entropy summed over the labels of all rows, in nats; a scalar.

    Of rows to be kept it is the Kullback-Leibler divergence from what the model says without its adapter, the loss of
    learning without forgetting (arXiv:1606.09282, equation 2) at temperature 1 less its constant part.

    Args:
        model: A PEFT model, in `shared_attention` if ``shared``.
        pack: Rows.
        shared: What rows have in common is read once; otherwise each row is read by itself, padded on the right,
            where causal attention never looks.
    """
    import torch
    from torch.nn.functional import kl_div, log_softmax

    from agentkit.training.cross_entropy import weighted_cross_entropy

    device = model.device
    targets = pack.targets if shared else _padded_targets(pack)
    where = torch.tensor([position for position, _, _ in targets], device=device)
    labels = torch.tensor([label for _, label, _ in targets], device=device)
    weights = torch.tensor([weight for _, _, weight in targets], device=device)

    def logits() -> torch.Tensor:
        with _head_only_at(model, where):
            found = _shared_logits(model, pack) if shared else _padded_logits(model, pack)
        return found.view(len(targets), -1)

    if pack.keep:
        with torch.no_grad(), model.disable_adapter():
            before = log_softmax(logits().float(), dim=-1)
        after = log_softmax(logits().float(), dim=-1)
        losses = kl_div(after, before, reduction="none", log_target=True).sum(dim=-1)
        return (losses * weights).sum()
    return weighted_cross_entropy(logits(), labels, weights)


def _shared_logits(model: Any, pack: Pack) -> torch.Tensor:
    import torch

    from agentkit.training.tree import SPANS

    ids = torch.tensor([pack.ids], device=model.device)
    positions = torch.cat([span.positions() for span in pack.spans])[None].to(model.device)
    token = SPANS.set(pack.spans)
    try:
        return model(input_ids=ids, position_ids=positions, use_cache=False).logits  # type: ignore[no-any-return]
    finally:
        SPANS.reset(token)


def _rows(pack: Pack) -> list[Any]:
    return [row for group in pack.groups for row in group.rows]


def _padded_logits(model: Any, pack: Pack) -> torch.Tensor:
    import torch

    rows = _rows(pack)
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows], device=model.device)
    return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


def _padded_targets(pack: Pack) -> list[tuple[int, int, float]]:
    from agentkit.training.packing import targets_of

    rows = _rows(pack)
    width = max(len(row.ids) for row in rows)
    return [target for n, row in enumerate(rows) for target in targets_of(row.labels, n * width, row.weight)]


@contextmanager
def _head_only_at(model: Any, where: torch.Tensor) -> Iterator[None]:
    """Let the output head see the chosen hidden states alone: (batch, width, d) becomes (1, labels, d).

    The head of a small model is a fifth of its work, and most positions have no label. Going through the
    model's own forward keeps what some families do to the logits afterwards.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0].flatten(0, 1)[where][None],)
    )
    try:
        yield
    finally:
        hook.remove()
