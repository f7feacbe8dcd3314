"""Output head and loss as one node: the loss and the gradients are those of torch's own cross-entropy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nightsmith.model.head import HeadLoss


def both(tokens: int, width: int, vocabulary: int, seed: int, dtype: torch.dtype, scale: float = 1.0):
    """Loss, gradients of the hidden states and of the head: ours, then torch's in float32."""
    draw = torch.Generator().manual_seed(seed)
    hidden_TD = scale * torch.randn(tokens, width, generator=draw)
    head_VD = torch.randn(vocabulary, width, generator=draw)
    targets_T = torch.randint(0, vocabulary, (tokens,), generator=draw)
    found = []
    for loss_of in (
        lambda hidden, head: HeadLoss.apply(hidden, head, targets_T, dtype),
        lambda hidden, head: F.cross_entropy(hidden @ head.t(), targets_T),
    ):
        hidden, head = hidden_TD.clone().requires_grad_(), head_VD.clone().requires_grad_()
        loss = loss_of(hidden, head)
        (3.0 * loss).backward()
        found.append((loss.detach(), hidden.grad, head.grad))
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 17), st.integers(1, 9), st.integers(2, 33), st.integers(0, 2**20))
def test_loss_and_gradients_are_those_of_cross_entropy(tokens: int, width: int, vocabulary: int, seed: int):
    ours, torchs = both(tokens, width, vocabulary, seed, torch.float32)
    for mine, right in zip(ours, torchs, strict=True):
        assert torch.allclose(mine, right, rtol=1e-5, atol=1e-6)


def test_products_in_bfloat16_are_off_by_its_rounding_only():
    ours, torchs = both(64, 32, 128, 0, torch.bfloat16)
    for mine, right in zip(ours, torchs, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - right).norm() <= 0.02 * right.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_target_that_the_model_holds_impossible_gives_a_finite_loss_and_finite_gradients(dtype: torch.dtype):
    ours, _ = both(16, 8, 32, 1, dtype, scale=1e4)
    assert all(torch.isfinite(each).all() for each in ours)
    assert 1 < float(ours[0]) < 100
