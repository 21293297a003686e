"""The verdict is two one-sided tests; the number of pairs it names decides in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap.estimate import (
    GapEstimate,
    paired_gap,
)
from isentropic.gap.verdict import joint_verdict, verdict
from oracles import rng, topical

# ---- verdict -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.004, 0.01, 0.02, -0.03, -0.2])
def test_verdict_is_two_one_sided_tests_by_scipy(shift):
    d = rng(1).normal(shift, 0.02, 40)
    v = verdict(paired_gap(d), 0.01)
    below = stats.ttest_1samp(d, 0.01, alternative="less").pvalue
    above = stats.ttest_1samp(d, -0.01, alternative="greater").pvalue
    assert v.p_within == pytest.approx(max(below, above), rel=1e-8)
    low, high = paired_gap(d).interval(0.90)
    assert (v.verdict == "certified") == (-0.01 < low and high < 0.01)
    if v.verdict == "exceeds":
        assert low > 0.01 or high < -0.01
    assert verdict(paired_gap(-d), 0.01).verdict == v.verdict


def test_exceeds_at_a_tiny_target_is_the_two_sided_test():
    e = paired_gap(rng(2).normal(0.03, 0.1, 50))
    assert verdict(e, 1e-12).p_exceeds == pytest.approx(e.p, rel=1e-6)


def test_verdict_is_monotone_in_target_and_noise_never_helps():
    d = rng(3).normal(0.003, 0.02, 60)
    chances = [verdict(paired_gap(d), t).p_within for t in (0.004, 0.006, 0.01, 0.02, 0.05)]
    assert chances == sorted(chances, reverse=True)
    # From certain to noisy: the verdict may only lose its answer.
    around = d - d.mean()
    noisier = [verdict(paired_gap(0.003 + k * around), 0.01).p_within for k in (0.1, 0.5, 1, 2, 10)]
    assert noisier == sorted(noisier)
    assert verdict(paired_gap(0.003 + 10 * around), 0.01).verdict == "insufficient"


@pytest.mark.parametrize("gap", [0.0, 0.004, 0.02, 0.1])
def test_pairs_needed_decides_in_simulation(gap):
    """The promised number decides in about 80% of fresh samples, and a fourth of it does not."""
    target, sd = 0.01, 0.15
    d = rng(4).normal(0, 1, 30)
    d = gap + sd * (d - d.mean()) / d.std(ddof=1)
    v = verdict(paired_gap(d), target)
    if v.verdict != "insufficient":
        assert gap == 0.1 and v.pairs_needed is None
        return
    assert v.pairs_needed is not None and v.pairs_needed > 30

    def decided(n: int) -> float:
        draw = rng(5)
        wanted = "certified" if gap < target else "exceeds"
        found = []
        for _ in range(400):
            means, spread = (
                draw.normal(gap, sd / math.sqrt(n)),
                sd * math.sqrt(draw.chisquare(n - 1) / (n - 1)),
            )
            e = GapEstimate(means, spread / math.sqrt(n), (0.0, 0.0), n - 1, n, n, "pair")
            found.append(verdict(e, target).verdict == wanted)
        return float(np.mean(found))

    assert decided(v.pairs_needed) == pytest.approx(0.8, abs=0.06)
    assert decided(v.pairs_needed // 4) < 0.5


def test_pairs_needed_grows_by_the_design_effect_of_topics():
    labels = [f"t{i % 8}" for i in range(80)]
    d = 0.3 * topical(labels, 6, between=1.0)
    d -= d.mean()
    plain, clustered = verdict(paired_gap(d), 0.01), verdict(paired_gap(d, labels), 0.01)
    assert plain.pairs_needed and clustered.pairs_needed
    effect = (paired_gap(d, labels).se / paired_gap(d).se) ** 2
    assert effect > 2
    assert clustered.pairs_needed / plain.pairs_needed == pytest.approx(effect, rel=0.02)


def test_no_number_of_pairs_decides_a_gap_on_the_target():
    d = np.array([0.0, 0.25, 0.5])
    assert verdict(paired_gap(d), 0.25).pairs_needed is None


def test_wrong_verdicts_are_rare_in_simulation():
    draw = rng(6)
    certified = exceeds = 0
    for _ in range(1500):
        d = draw.normal(0.01, 0.03, 50)
        v = verdict(paired_gap(d), 0.01).verdict  # the worst case: the true gap is the target
        certified += v == "certified"
        exceeds += v == "exceeds"
    assert 0.035 < certified / 1500 < 0.065
    assert 0.035 < exceeds / 1500 < 0.065


@pytest.mark.parametrize("call", [
    lambda e: verdict(e, 0.0), lambda e: verdict(e, -1), lambda e: verdict(e, math.inf),
    lambda e: verdict(e, 0.01, alpha=0), lambda e: e.interval(1.0), lambda e: joint_verdict([], 0.01),
])  # fmt: skip
def test_settings_out_of_range_are_refused(call):
    with pytest.raises(InputError):
        call(paired_gap([0.1, 0.2]))


def test_joint_verdict():
    tight, far = paired_gap(rng(1).normal(0, 0.01, 50)), paired_gap(rng(2).normal(0.1, 0.01, 50))
    vague = paired_gap(rng(3).normal(0, 0.2, 50))
    assert joint_verdict([tight], 0.01) == verdict(tight, 0.01)
    assert joint_verdict([tight, tight], 0.01).verdict == "certified"
    assert joint_verdict([tight, far, vague], 0.01).verdict == "exceeds"
    both = joint_verdict([tight, vague], 0.01)
    assert both.verdict == "insufficient" and both.pairs_needed == verdict(vague, 0.01).pairs_needed
    assert joint_verdict([tight, paired_gap([1.0])], 0.01).verdict == "insufficient"
    # Three gaps at p = 0.03 each: one alone exceeds, three together do not.
    d = rng(4).normal(0, 1, 30)
    d = (d - d.mean()) / d.std(ddof=1)
    edge = paired_gap(1 + (stats.t.ppf(0.97, 29) / math.sqrt(30)) + d)
    assert verdict(edge, 1.0).verdict == "exceeds"
    assert joint_verdict([edge] * 3, 1.0).verdict == "insufficient"


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.3])
def test_the_margin_is_the_smallest_target_that_is_certified(shift):
    d = shift + np.random.default_rng(2).normal(0, 0.05, 60)
    estimate = paired_gap(d, np.repeat(np.arange(12), 5))
    margin = verdict(estimate, 0.01).margin
    low, high = stats.t.interval(0.90, estimate.df, estimate.gap, estimate.se)
    assert margin == pytest.approx(max(abs(low), abs(high)))
    assert verdict(estimate, margin * 1.0001).verdict == "certified"
    assert verdict(estimate, margin * 0.9999).verdict != "certified"
    other = paired_gap(d + 0.01)
    both = joint_verdict([estimate, other], 0.01).margin
    assert both == max(margin, verdict(other, 0.01).margin)
