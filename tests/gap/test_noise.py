"""The noise floor is the sign-flip distribution, and chance passes it one time in twenty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isentropic.gap.estimate import (
    unpaired_gap,
)
from isentropic.gap.noise import noise_floor, unpaired_noise_floor
from oracles import rng

# ---- noise floor -------------------------------------------------------------------------------------------


def test_noise_floor_is_the_sign_flip_distribution():
    d = np.array([0.3, -0.1, 0.4, 0.2, -0.25, 0.15, 0.05, 0.35, -0.02, 0.11])
    flips = [abs(sum(x if mask >> i & 1 else -x for i, x in enumerate(d))) / 10 for mask in range(1 << 10)]
    f = noise_floor(d, rng=rng(0), splits=20000)
    assert f.same_group == pytest.approx(np.quantile(flips, 0.95), rel=0.03)
    assert f.to_dict()["reseed"] is None and f.floor == f.same_group
    assert noise_floor(d, rng=rng(0)) == noise_floor(d, rng=rng(0)) != noise_floor(d, rng=rng(1))


def test_noise_floor_is_passed_by_chance_one_time_in_twenty():
    draw = rng(1)
    labels = np.repeat(np.arange(20), 3)
    over = []
    for _ in range(600):
        d = draw.normal(0, 0.1, 60) + draw.normal(0, 0.1, 20)[labels]
        over.append(not noise_floor(d, clusters=labels, rng=draw, splits=400).gap_is_under_floor)
    assert 0.03 < np.mean(over) < 0.075


def test_reseed_floor_is_the_half_width_of_sampling_noise():
    """Two measurements with sampling noise of sd 0.2 a pair: the floor is 1.96 * 0.2 / sqrt(n)."""
    truth = rng(1).normal(-0.1, 0.05, 2000)
    d, again = truth + rng(2).normal(0, 0.2, 2000), truth + rng(3).normal(0, 0.2, 2000)
    f = noise_floor(d, again, rng=rng(0))
    assert f.reseed == pytest.approx(1.96 * 0.2 / math.sqrt(2000), rel=0.05)
    assert f.floor == max(f.reseed, f.same_group) and not f.gap_is_under_floor
    assert noise_floor(d, d, rng=rng(0)).reseed == 0.0


def test_unpaired_floor_has_the_precision_of_the_gap():
    a, b = rng(1).normal(3.5, 0.6, 101), rng(2).normal(3.5, 0.6, 80)
    f = unpaired_noise_floor(a, b, (a, b), rng=rng(0))
    assert f.reseed == 0.0
    assert f.same_group == pytest.approx(1.96 * unpaired_gap(a, b).se, rel=0.06)
    again = (a + rng(4).normal(0, 0.3, 101), b + rng(5).normal(0, 0.3, 80))
    wanted = 1.96 * math.sqrt(0.3**2 / 2 * (1 / 101 + 1 / 80))
    assert unpaired_noise_floor(a, b, again, rng=rng(0)).reseed == pytest.approx(wanted, rel=0.15)
    assert math.isnan(unpaired_noise_floor([1.0], [2.0, 3.0], rng=rng(0)).same_group)
