"""The exact loss and its steadying, without a Trainer: entropies are a formula of two weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from isentropic.entropy import EntropySums
from isentropic.losses import DebiasingLoss, GEELoss
from isentropic.measure.summary import summarise
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import Item
from isentropic.responses.response import Example
from isentropic.training.exact_loss import DirectedStep, ExactLoss, OwnLossOfEachMicroBatch
from isentropic.training.steady import Steadying

GROUPS = ("male", "female", "neutral")


def make_items(pairs: int, groups: Sequence[str] = GROUPS[:2], each: int = 1, start: int = 0) -> list[Item]:
    return [
        Item(
            prompts := tuple(
                Prompt(f"{group} {k}", group, f"pair {k}", f"topic {k % 3}") for group in groups
            ),
            [Example(p, (k, 5), (7, sample), p.group, sample) for p in prompts for sample in range(each)],
            index=start + k,
        )
        for k in range(pairs)
    ]


class Curves:
    """``H_i = 3 + sin(a_i w_1) + b_i w_2^2``: each example has a curve of its own."""

    def __init__(self, items: Sequence[Item]) -> None:
        rng = np.random.default_rng(4)
        self.a, self.b = ({id(e): rng.normal() for item in items for e in item.examples} for _ in range(2))
        self.w = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)

    def __call__(self, items: Sequence[Item]) -> Tensor:
        examples = [e for item in items for e in item.examples]
        a, b = (
            torch.tensor([part[id(e)] for e in examples], dtype=torch.float64) for part in (self.a, self.b)
        )
        return 3 + torch.sin(a * self.w[0]) + b * self.w[1] ** 2

    def score(self, items: Sequence[Item]) -> list[np.ndarray]:
        return [self([item]).detach().numpy() for item in items]

    def gradient(self, loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, self.w)
        return gradient


def step(
    exact: ExactLoss, h: Curves, batches: Sequence[Sequence[Item]], by_direction: bool
) -> tuple[float, Tensor]:
    """One step as a Trainer makes it: the loss, and the gradient after all micro-batches."""

    def weighted(items: Sequence[Item], weights: Tensor) -> tuple[Tensor, EntropySums]:
        values = h(items)
        return (weights * values).sum(), EntropySums(values.detach(), torch.ones(len(values)))

    exact.begin(batches, h.score, by_direction=by_direction)
    total, gradient = 0.0, torch.zeros(2, dtype=torch.float64)
    for items in batches:
        share = exact.share(items, lambda items=items: h(items), lambda c, items=items: weighted(items, c))
        gradient += h.gradient(share)
        total += float(share)
        if finished := exact.finish():
            loss, slope = finished
            gradient *= slope
            total += loss
    return total, gradient


def whole(loss: DebiasingLoss | GEELoss, h: Curves, items: Sequence[Item]) -> tuple[float, Tensor]:
    """The loss of the batch in one formula."""
    names = [e.prompt.group for item in items for e in item.examples]
    pairs = [k for k, item in enumerate(items) for _ in item.examples]
    value, _ = loss(h(items), names, pairs)
    return value.item(), h.gradient(value)


def cuts(items: list[Item]) -> list[list[list[Item]]]:
    return [[items], [items[:1], items[1:]], [items[:3], items[3:5], items[5:]], [[item] for item in items]]


LOSSES = {
    "L2": lambda groups: DebiasingLoss(groups=groups),
    "L1": lambda groups: DebiasingLoss(True, 0.5, groups=groups),
    "GEE": lambda groups: GEELoss(2.0, groups=groups),
    "unbiased": lambda groups: DebiasingLoss(groups=groups, estimator="unbiased"),
    "pairwise": lambda groups: DebiasingLoss(groups=groups, estimator="pairwise"),
}


@pytest.mark.parametrize("groups, each", [(GROUPS[:2], 1), (GROUPS[:2], 3), (GROUPS, 1)])
@pytest.mark.parametrize("by_direction", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_whole_batch_for_any_split(name, by_direction, groups, each):
    items = make_items(6, groups, each)
    h, loss = Curves(items), LOSSES[name](groups)
    value, gradient = whole(loss, h, items)
    for batches in cuts(items):
        exact = ExactLoss(loss, groups, Steadying())
        made, found = step(exact, h, batches, by_direction)
        assert made == pytest.approx(value, rel=1e-6)
        assert torch.allclose(found, gradient, rtol=1e-5, atol=1e-9)
        assert exact.means()["entropy_gap"] == pytest.approx(
            loss(h(items).detach(), *names_and_pairs(items))[1]["entropy_gap"]
        )


def names_and_pairs(items: Sequence[Item]) -> tuple[list[str], list[int]]:
    rows = [(e.prompt.group, k) for k, item in enumerate(items) for e in item.examples]
    return [row[0] for row in rows], [row[1] for row in rows]


def test_the_ancestors_loss_is_the_mean_over_the_micro_batches():
    items = make_items(6)
    h, loss = Curves(items), DebiasingLoss()
    for batches in cuts(items)[1:]:
        exact = OwnLossOfEachMicroBatch(loss, GROUPS[:2], Steadying())
        made, found = step(exact, h, batches, by_direction=True)
        each = [whole(loss, h, batch) for batch in batches]
        assert made == pytest.approx(np.mean([value for value, _ in each]))
        assert torch.allclose(found, torch.stack([gradient for _, gradient in each]).mean(0))


def test_the_parts_of_several_steps_are_averaged_and_then_forgotten():
    items = make_items(8)
    h, loss = Curves(items), DebiasingLoss()
    exact = ExactLoss(loss, GROUPS[:2], Steadying())
    gaps = []
    for batch in (items[:2], items[2:8]):
        step(exact, h, [batch[:1], batch[1:]], by_direction=True)
        gaps.append(loss(h(batch).detach(), *names_and_pairs(batch))[1]["entropy_gap_signed"])
    assert exact.means()["entropy_gap_signed"] == pytest.approx(np.mean(gaps))
    assert exact.means() == {}


# ---- steadying -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_direction", [True, False])
def test_a_steady_gap_starts_at_the_held_out_one_and_moves_with_the_batch(by_direction):
    items = make_items(6)
    h, loss = Curves(items), DebiasingLoss()
    steadying = Steadying()
    steadying.start(items, h.score(items))
    steadying.measured({"male": 3.0, "female": 3.5})
    exact = ExactLoss(loss, GROUPS[:2], steadying)
    start = h(items).detach()
    value, _ = step(exact, h, cuts(items)[2], by_direction)
    assert value == pytest.approx(0.5**2)
    with torch.no_grad():
        h.w += torch.tensor([0.3, 0.2])
    moved = h(items).detach() - start
    sign = torch.tensor([1.0 if name == "female" else -1.0 for name in names_and_pairs(items)[0]])
    gap = 0.5 + float((sign * moved).sum() / 6)
    own = h(items)
    expected = h.gradient(2 * gap * (sign * own).sum() / 6)
    for batches in cuts(items):
        value, gradient = step(exact, h, batches, by_direction)
        assert value == pytest.approx(gap**2, rel=1e-6)
        assert torch.allclose(gradient, expected, rtol=1e-5)


def test_the_anchor_is_set_once_by_each_measurement_and_survives_a_checkpoint():
    items = make_items(4)
    h = Curves(items)
    steadying = Steadying()
    steadying.start(items, h.score(items))
    names = names_and_pairs(items)[0]

    def means(batch: Sequence[Item], of: Steadying) -> list[float]:
        moves = h(batch).detach() - torch.from_numpy(of.baseline(batch))
        values = of.add_anchor(moves, names_and_pairs(batch)[0])
        return [float(values[[n == g for n in names_and_pairs(batch)[0]]].mean()) for g in GROUPS[:2]]

    steadying.measured({"male": 1.0, "female": 2.0})
    waiting = Steadying()
    waiting.start(items, h.score(items))
    waiting.load(steadying.state())
    assert means(items, waiting) == pytest.approx([1.0, 2.0])
    with torch.no_grad():
        h.w *= 2
    assert means(items[:2], steadying) == pytest.approx([1.0, 2.0])
    assert means(items[2:], steadying) != pytest.approx([1.0, 2.0], abs=1e-3)
    again = Steadying()
    again.start(items, [steadying.before[item.index] for item in items])
    again.load(steadying.state())
    assert means(items[2:], again) == means(items[2:], steadying)
    assert len(names) == 8


class OnMac(torch.Tensor):
    """A tensor on the GPU of a Mac, which has no float64."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_a_device_without_float64_will_do():
    values = torch.arange(2.0).as_subclass(OnMac)
    assert DirectedStep([], torch.zeros(2), batches=1, seen=[values]).entropies().tolist() == [0, 1]
    items = make_items(1)
    steadying = Steadying()
    steadying.start(items, [np.zeros(2)])
    steadying.measured({"male": 3.0, "female": 3.5})
    assert steadying.add_anchor(values, names_and_pairs(items)[0]).tolist() == [3.0, 3.5]


def test_without_a_start_nothing_is_steadied():
    items = make_items(3)
    values = torch.arange(6.0)
    steadying = Steadying()
    steadying.measured({"male": 9.0, "female": 9.0})
    assert not steadying.baseline(items).any()
    assert steadying.add_anchor(values, names_and_pairs(items)[0]) is values
    assert steadying.estimate(items, [], GROUPS) is None


def test_the_pooled_estimate_is_the_pool_before_training_and_the_change_of_the_validation_prompts_since():
    training, validation = make_items(9), make_items(6, start=100)
    h = Curves([*training, *validation])
    steadying = Steadying()
    steadying.start(training, h.score(training))
    before = h.score(validation)
    steadying.start_pool((training, h.score(training)), (validation, before), GROUPS[:2])
    at_start = steadying.estimate(validation, before, GROUPS[:2])
    pool = summarise([*training, *validation], h.score([*training, *validation]), GROUPS[:2], 0.01)
    assert at_start is not None and at_start["gap"] == pytest.approx(pool["gap"])
    assert at_start["ci95"] == pytest.approx(pool["ci95"])
    with torch.no_grad():
        h.w += 0.5
    now = h.score(validation)
    gaps = [[float(v[1] - v[0]) for v in values] for values in (before, now)]
    change = np.mean(gaps[1]) - np.mean(gaps[0])
    later = steadying.estimate(validation, now, GROUPS[:2])
    assert later is not None and later["gap"] == pytest.approx(pool["gap"] + change)
    assert later["se"] > at_start["se"]
