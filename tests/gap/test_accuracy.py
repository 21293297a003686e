"""Paired accuracy against SciPy, closed forms, a published example and the coverage that is promised."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.special import comb, ndtri
from scipy.stats import binom

from isentropic.errors import InputError
from isentropic.gap.accuracy import paired_accuracy, score_interval
from oracles import rng


def test_mcnemar_is_the_sum_over_all_ways_in_which_chance_splits_the_changed_items():
    for lost, gained in product(range(9), range(9)):
        before = np.r_[np.ones(lost), np.zeros(gained), 1, 0]
        after = np.r_[np.zeros(lost), np.ones(gained), 1, 0]
        m = lost + gained
        as_extreme = [k for k in range(m + 1) if abs(k - m / 2) >= abs(lost - m / 2)]
        found = paired_accuracy(before, after)
        assert found.p == pytest.approx(sum(comb(m, k) for k in as_extreme) / 2**m)
        assert (found.lost, found.gained, found.n) == (lost, gained, m + 2)
        assert found.change == pytest.approx(found.after - found.before)


def test_the_interval_is_that_of_a_published_example():
    """Airway hyper-responsiveness before and after a transplant, in Fagerland, Lydersen and Laake 2014."""
    assert score_interval(21, 7, 1) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 7, 40, 10**6])
def test_closed_forms_of_the_interval_where_no_or_every_item_changed(n):
    z2 = ndtri(0.975) ** 2
    assert score_interval(n, 0, 0) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))
    assert score_interval(n, n, 0) == pytest.approx((-1, -1 + 2 * z2 / (n + z2)))


def test_the_interval_holds_the_change_turns_with_the_sides_and_excludes_0_as_mcnemars_score_does():
    for n in (1, 2, 5, 12):
        for lost, gained in ((a, b) for a in range(n + 1) for b in range(n + 1 - a)):
            low, high = score_interval(n, lost, gained)
            assert -1 <= low <= (gained - lost) / n <= high <= 1
            assert score_interval(n, gained, lost) == pytest.approx((-high, -low))
            if lost + gained:
                score = abs(gained - lost) / math.sqrt(lost + gained)
                assert (low > 0 or high < 0) == (score > ndtri(0.975))


@pytest.mark.parametrize("lose, gain", [(0.05, 0.02), (0.1, 0.1), (0.3, 0.2), (0.02, 0.0)])
def test_the_interval_covers_what_it_promises(lose, gain):
    """Exactly, over all outcomes of 60 items."""
    n, covered = 60, 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            chance = binom.pmf(lost, n, lose) * binom.pmf(gained, n - lost, gain / (1 - lose))
            if chance > 1e-7:
                low, high = score_interval(n, lost, gained)
                covered += chance * (low <= gain - lose <= high)
    assert covered > 0.93


def test_more_items_narrow_it_like_the_ordinary_interval():
    n, lost, gained = 100_000, 3_000, 2_500
    change = (gained - lost) / n
    half = ndtri(0.975) * math.sqrt((lost + gained) / n - change**2) / math.sqrt(n)
    assert score_interval(n, lost, gained) == pytest.approx((change - half, change + half), abs=1e-5)


def test_what_is_refused():
    right = rng(0).integers(0, 2, 9)
    with pytest.raises(InputError, match="9 and 8 rows"):
        paired_accuracy(right, right[:-1])
    with pytest.raises(InputError, match="an answer is 0.5"):
        paired_accuracy([0, 0.5], [0, 1])
    with pytest.raises(InputError, match="non-empty"):
        paired_accuracy([], [])
    with pytest.raises(InputError, match="level is 95"):
        score_interval(9, 1, 1, level=95)
