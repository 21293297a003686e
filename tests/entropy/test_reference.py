"""The reference against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from isentropic.entropy.reference import EntropySums, token_entropy, token_surprisal
from isentropic.errors import InputError

# ---- the reference against closed forms ------------------------------------------------------------------------


def test_uniform_is_log_v_and_certain_is_zero():
    assert token_entropy(torch.zeros(3, 50)).tolist() == pytest.approx([math.log(50)] * 3, rel=1e-6)
    certain = torch.zeros(1, 50)
    certain[0, 7] = 1e4
    assert token_entropy(certain).item() == 0.0


def test_two_outcomes():
    p = torch.tensor([0.1, 0.25, 0.5, 0.999], dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()], dim=-1) + 5.0
    expected = -(p * p.log() + (1 - p) * (1 - p).log())
    assert torch.allclose(token_entropy(logits), expected, atol=1e-14)


def test_minus_infinity_is_probability_zero_in_value_and_gradient():
    kept = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    masked = torch.cat([kept, torch.full((4, 3), -torch.inf, dtype=torch.float64)], dim=-1)
    assert torch.allclose(token_entropy(masked), token_entropy(kept), atol=1e-15)
    (grad,) = torch.autograd.grad(token_entropy(masked).sum(), kept)
    (expected,) = torch.autograd.grad(token_entropy(kept).sum(), kept)
    assert torch.allclose(grad, expected, atol=1e-15)


def test_shapes_and_dtypes_of_the_reference():
    assert token_entropy(torch.zeros(2, 3, 5)).shape == (2, 3)
    assert token_entropy(torch.zeros(5)).shape == ()
    assert token_entropy(torch.zeros(2, 5, dtype=torch.bfloat16)).dtype == torch.float32
    assert token_entropy(torch.zeros(2, 5, dtype=torch.float64)).dtype == torch.float64


def test_entropy_is_expected_surprisal():
    logits = torch.randn(1, 7, dtype=torch.float64)
    surprisals = token_surprisal(logits.expand(7, 7), torch.arange(7))
    assert (torch.softmax(logits[0], -1) * surprisals).sum().item() == pytest.approx(
        token_entropy(logits).item()
    )


def test_means_divide_and_refuse_empty_rows():
    sums = EntropySums(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([2, 0, 1]))
    with pytest.raises(InputError, match=r"rows \[1\] of 3 have no response token"):
        sums.means()
    assert EntropySums(sums.sums[::2], sums.counts[::2]).means().tolist() == [1.5, 1.0]
