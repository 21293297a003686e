"""The losses by identities: what must not change them, what must flip them, and the estimators' expectations."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from isentropic.errors import InputError
from isentropic.losses import DebiasingLoss, GEELoss
from isentropic.losses.debiasing_loss import unbiased_square_of_groups, unbiased_square_of_pairs
from isentropic.losses.groups import membership, pair_entropies

TWO = ["male", "female"] * 5
THREE = ["a", "b", "c"] * 4
PAIRS = [i // 2 for i in range(10)]
MAKERS: dict[str, Any] = {
    "l2": DebiasingLoss,
    "l1": lambda **k: DebiasingLoss(use_l1=True, **k),
    "scaled": lambda **k: DebiasingLoss(scale_factor=0.3, **k),
    "unbiased": lambda **k: DebiasingLoss(estimator="unbiased", **k),
    "pairwise": lambda **k: DebiasingLoss(estimator="pairwise", **k),
    "pairwise l1": lambda **k: DebiasingLoss(True, estimator="pairwise", **k),
    "gee": GEELoss,
    "gee l1": lambda **k: GEELoss(use_l1=True, **k),
}
every_loss = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def values(n: int = 10, seed: int = 0) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5


# --- Identities -----------------------------------------------------------------------------------------------------


@every_loss
def test_swapping_the_groups_flips_the_signed_gap_and_leaves_the_loss(make):
    swapped = ["female" if group == "male" else "male" for group in TWO]
    loss, parts = make()(values(), TWO, PAIRS)
    other, other_parts = make()(values(), swapped, PAIRS)
    assert other.item() == pytest.approx(loss.item(), rel=1e-12)
    assert other_parts["entropy_gap_signed"] == pytest.approx(-parts["entropy_gap_signed"], rel=1e-12)
    assert other_parts["H_male"] == pytest.approx(parts["H_female"], rel=1e-12)
    assert parts["entropy_gap"] == abs(parts["entropy_gap_signed"]) > 0


@every_loss
def test_the_order_of_the_samples_does_not_matter(make):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    loss, parts = make()(values(), TWO, PAIRS)
    shuffled, shuffled_parts = make()(values()[order], [TWO[i] for i in order], [PAIRS[i] for i in order])
    assert shuffled.item() == pytest.approx(loss.item(), rel=1e-12)
    assert shuffled_parts == pytest.approx(parts, rel=1e-12)


@every_loss
def test_only_gee_minds_a_constant_added_to_all(make):
    before, after = (make()(values() + shift, TWO, PAIRS)[0].item() for shift in (0.0, 0.7))
    assert after - before == pytest.approx(0.7 if isinstance(make(), GEELoss) else 0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["l2", "l1", "gee", "pairwise"])
def test_every_sample_twice_changes_nothing(name):
    loss, parts = MAKERS[name]()(values(), TWO, PAIRS)
    doubled, doubled_parts = MAKERS[name]()(values().repeat(2), TWO * 2, PAIRS * 2)
    assert doubled.item() == pytest.approx(loss.item(), rel=1e-12)
    assert doubled_parts == pytest.approx(parts, rel=1e-12)


def test_l2_is_the_square_of_l1_and_gee_with_lambda_zero_is_the_mean():
    square, absolute = (DebiasingLoss(use_l1=l1)(values(), TWO)[0] for l1 in (False, True))
    assert square.item() == pytest.approx(absolute.item() ** 2, rel=1e-12)
    assert GEELoss(0.0)(values(), TWO)[0].item() == pytest.approx(values().mean().item(), rel=1e-12)
    assert GEELoss(2.0)(values(), TWO)[0] - values().mean() == pytest.approx(2 * square.item(), rel=1e-12)


@every_loss
def test_equal_groups_leave_nothing_of_the_gap(make):
    same = torch.repeat_interleave(values(5), 2)
    loss, parts = make()(same, TWO, PAIRS)
    assert parts["entropy_gap"] == pytest.approx(0, abs=1e-15)
    rest = same.mean().item() if isinstance(make(), GEELoss) else 0.0
    assert loss.item() == pytest.approx(rest, abs=1e-15)


@every_loss
def test_gradients_in_double_precision(make):
    entropies = values().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: make()(h, TWO, PAIRS)[0], [entropies])


def test_metrics_have_the_named_keys_and_no_more():
    keys = {"loss", "entropy_gap", "entropy_gap_signed", "H_male", "H_female", "H_mean"}
    for make in MAKERS.values():
        loss, parts = make()(values(), TWO, PAIRS)
        assert set(parts) == keys
        assert parts["loss"] == loss.item()
        assert parts["H_mean"] == pytest.approx(values().mean().item())


# --- More than two groups -------------------------------------------------------------------------------------------


@every_loss
def test_three_groups_are_the_mean_over_their_pairs(make):
    entropies, pairs = values(12), [i // 3 for i in range(12)]
    whole, parts = make(groups=("a", "b", "c"))(entropies, THREE, pairs)
    two = []
    for names in itertools.combinations("abc", 2):
        rows = [i for i, group in enumerate(THREE) if group in names]
        two.append(make(groups=names)(entropies[rows], [THREE[i] for i in rows], [pairs[i] for i in rows]))
    expected = torch.stack([loss for loss, _ in two]).mean().item()
    if isinstance(
        make(), GEELoss
    ):  # its mean entropy is over all samples, and each sample is in two of three pairs
        assert entropies.mean().item() == pytest.approx(sum(p["H_mean"] for _, p in two) / 3)
    assert whole.item() == pytest.approx(expected, rel=1e-12)
    assert parts["entropy_gap"] == pytest.approx(max(p["entropy_gap"] for _, p in two), rel=1e-12)
    assert set(parts) == {"loss", "entropy_gap", "H_a", "H_b", "H_c", "H_mean"}


# --- Estimators -----------------------------------------------------------------------------------------------------


def test_unbiased_square_of_pairs_is_the_double_loop():
    d = values(7) - 1
    loop = [d[i] * d[j] for i in range(7) for j in range(7) if i != j]
    assert unbiased_square_of_pairs(d).item() == pytest.approx(torch.stack(loop).mean().item(), rel=1e-12)


def test_unbiased_square_of_groups_is_the_double_loop():
    """The same thing as the mean of (f_i - m_k)(f_j - m_l) over different women i, j and different men k, l."""
    h = values(7)
    groups = ["male"] * 3 + ["female"] * 4
    m, f = h[:3], h[3:]
    loop = [
        (f[i] - m[k]) * (f[j] - m[l])
        for i, j in itertools.permutations(range(4), 2)
        for k, l in itertools.permutations(range(3), 2)  # noqa: E741
    ]
    found = unbiased_square_of_groups(h, membership(groups, ("male", "female")))
    assert found.item() == pytest.approx(torch.stack(loop).mean().item(), rel=1e-12)


def test_expectations_over_every_batch_that_can_be_drawn():
    """Pairs drawn from four with replacement, all 64 batches of three: exact expectations, no sampling."""
    male, female = values(4, seed=2), values(4, seed=3)
    gap = (female.mean() - male.mean()).item()
    variance = (female - male).var(unbiased=False).item()
    totals = dict.fromkeys(("plain", "unbiased", "pairwise"), 0.0)
    for drawn in itertools.product(range(4), repeat=3):
        rows = list(drawn)
        entropies = torch.stack([male[rows], female[rows]], 1).flatten()
        for estimator in totals:
            loss, _ = DebiasingLoss(estimator=estimator)(
                entropies, ["male", "female"] * 3, [0, 0, 1, 1, 2, 2]
            )
            totals[estimator] += loss.item() / 64
    assert totals["plain"] == pytest.approx(gap**2 + variance / 3, rel=1e-10)
    assert totals["unbiased"] == pytest.approx(gap**2, rel=1e-10)
    assert totals["pairwise"] == pytest.approx(gap**2 + variance, rel=1e-10)


def test_unpaired_unbiased_square_has_the_right_expectation():
    """Two men of three and two women of three, with replacement: all 81 batches."""
    male, female = values(3, seed=4), values(3, seed=5)
    loss_fn = DebiasingLoss(estimator="unbiased")
    groups = ["male", "male", "female", "female"]
    losses = [
        loss_fn(torch.cat([male[list(m)], female[list(f)]]), groups)[0].item()
        for m in itertools.product(range(3), repeat=2)
        for f in itertools.product(range(3), repeat=2)
    ]
    assert sum(losses) / 81 == pytest.approx((female.mean() - male.mean()).item() ** 2, rel=1e-10)
    assert min(losses) < 0  # an unbiased estimate of a small square must sometimes be negative


def test_a_pair_with_several_responses_counts_once():
    entropies = torch.tensor([1.0, 2.0, 3.0, 5.0, 0.0, 4.0], dtype=torch.float64)
    groups = ["male", "male", "female", "female", "male", "female"]
    pairs = ["x", "x", "x", "x", "y", "y"]
    table = pair_entropies(entropies, membership(groups, ("male", "female")), pairs)
    assert table.tolist() == [[1.5, 4.0], [0.0, 4.0]]
    loss, _ = DebiasingLoss(estimator="pairwise")(entropies, groups, pairs)
    assert loss.item() == pytest.approx((2.5**2 + 4.0**2) / 2)


# --- Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DebiasingLoss(scale_factor=0), "scale_factor is 0"),
        (lambda: DebiasingLoss(scale_factor=-1.0), "scale_factor is -1.0"),
        (lambda: DebiasingLoss(scale_factor=float("nan")), "scale_factor is nan"),
        (lambda: DebiasingLoss(scale_factor=float("inf")), "scale_factor is inf"),
        (lambda: DebiasingLoss(estimator="best"), "estimator is 'best'"),
        (lambda: DebiasingLoss(use_l1=True, estimator="unbiased"), "use_l1 with estimator 'unbiased'"),
        (lambda: DebiasingLoss(groups=("male",)), "needs two"),
        (lambda: DebiasingLoss(groups=("male", "male")), "no gap to itself"),
        (lambda: GEELoss(groups=("male",)), "needs two"),
        (lambda: GEELoss(groups=("male", "male")), "no gap to itself"),
        (lambda: GEELoss(lambda_weight=-1), "lambda_weight is -1"),
        (lambda: GEELoss(lambda_weight=float("nan")), "lambda_weight is nan"),
        (lambda: DebiasingLoss()(torch.ones(2), ["male", "male"]), "no sample of group 'female'"),
        (lambda: GEELoss()(torch.ones(2), ["female", "female"]), "no sample of group 'male'"),
        (lambda: GEELoss()(torch.ones(0), []), "no sample of group 'male'"),
        (lambda: DebiasingLoss()(torch.ones(2), ["male", "young"]), "unknown group 'young'"),
        (lambda: DebiasingLoss()(torch.ones(3), ["male", "female"]), "shape (3,)"),
        (lambda: DebiasingLoss()(torch.ones(2, 1), ["male", "female"]), "shape (2, 1)"),
        (lambda: DebiasingLoss(estimator="pairwise")(torch.ones(2), ["male", "female"]), "without pairs"),
        (
            lambda: DebiasingLoss(estimator="pairwise")(torch.ones(3), ["male", "female", "male"], [1, 1, 2]),
            "pair 2 lacks",
        ),
        (
            lambda: DebiasingLoss(estimator="unbiased")(torch.ones(2), ["male", "female"], [1, 1]),
            "1 pair in the batch",
        ),
        (lambda: DebiasingLoss(estimator="unbiased")(torch.ones(2), ["male", "female"]), "one prompt"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)
