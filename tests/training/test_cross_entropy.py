"""Cross entropy in portions is torch's, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from agentkit.training.cross_entropy import weighted_cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 32, 70])
def test_loss_and_gradient_are_those_of_torch(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    made = (4 * torch.randn(rows, 500)).to(dtype)
    labels, weights = torch.randint(0, 500, (rows,)), torch.rand(rows)
    found, wanted = made.clone().requires_grad_(), made.clone().requires_grad_()
    loss = weighted_cross_entropy(found, labels, weights)
    expected = (cross_entropy(wanted.float(), labels, reduction="none") * weights).sum()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    (loss / 7).backward()
    (expected / 7).backward()
    assert found.grad is not None
    assert wanted.grad is not None
    assert found.grad.dtype == dtype
    # Rounded twice, as it is made and as it is scaled.
    near = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 0.0}[dtype]
    torch.testing.assert_close(found.grad, wanted.grad, rtol=near, atol=near / 100)
    with torch.no_grad():
        torch.testing.assert_close(weighted_cross_entropy(found, labels, weights), expected)


def test_what_is_unlikely_has_a_finite_loss_and_a_second_pass_is_refused() -> None:
    logits = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.tensor([2]), torch.ones(1))
    assert float(loss.detach()) == 1000
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
