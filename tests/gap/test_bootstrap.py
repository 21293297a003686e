"""The bootstrap against SciPy, t, and its own rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap.bootstrap import bootstrap_interval, unpaired_bootstrap_interval
from isentropic.gap.estimate import (
    paired_gap,
    unpaired_gap,
)
from oracles import LOPSIDED, rng, topical

# ---- bootstrap ---------------------------------------------------------------------------------------------


def test_bootstrap_seed_matters_and_the_global_one_does_not():
    d = topical(LOPSIDED)
    a, b = rng(3).normal(size=30), rng(4).normal(size=20)
    for draw in (
        lambda seed: bootstrap_interval(d, LOPSIDED, rng=rng(seed)),
        lambda seed: unpaired_bootstrap_interval(a, b, rng=rng(seed)),
    ):
        np.random.seed(0)
        first = draw(1)
        np.random.seed(1)
        assert draw(1) == first
        assert draw(2) != first


def test_bootstrap_resamples_whole_clusters():
    # Each topic holds one value many times over: as topics there are 12 facts, as pairs there seem to be 240.
    means = rng(7).normal(0.2, 1, 12)
    d, labels = np.repeat(means, 20), np.repeat(np.arange(12), 20)
    whole = bootstrap_interval(d, labels, rng=rng(0), draws=4000)
    assert whole == pytest.approx(bootstrap_interval(means, rng=rng(0), draws=4000), rel=1e-9)
    apart = bootstrap_interval(d, rng=rng(0), draws=4000)
    assert whole[1] - whole[0] > 3 * (apart[1] - apart[0])


def test_bootstrap_agrees_with_scipy_and_t_on_many_normal_rows():
    d = rng(8).normal(0.1, 1, 400)
    ours = bootstrap_interval(d, rng=rng(0), draws=8000)
    theirs = stats.bootstrap((d,), np.mean, n_resamples=8000, rng=rng(1)).confidence_interval
    assert ours == pytest.approx(theirs, abs=0.01)
    assert ours == pytest.approx(paired_gap(d).ci95, abs=0.01)
    a, b = rng(1).normal(0, 1, 300), rng(2).normal(0.2, 2, 500)
    loose = unpaired_bootstrap_interval(a, b, rng=rng(0), draws=8000)
    assert loose == pytest.approx(unpaired_gap(a, b).ci95, abs=0.015)


def test_bootstrap_edge_cases():
    assert all(map(math.isnan, bootstrap_interval([1.0, 1.0], rng=rng())))
    assert all(map(math.isnan, unpaired_bootstrap_interval([1.0], [2.0, 1.0], rng=rng())))
    with pytest.raises(InputError):
        bootstrap_interval([1.0, 2.0], rng=0)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        bootstrap_interval([1.0, 2.0], rng=rng(), draws=10)
