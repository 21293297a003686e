"""All pairs of groups at once: against SciPy's closed distribution, by simulation, and the two-group case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap.estimate import paired_gap, unpaired_gap
from isentropic.gap.groups import group_gaps, widest_pair
from isentropic.gap.noise import group_noise_floor, noise_floor
from isentropic.gap.verdict import joint_verdict, verdict
from oracles import LOPSIDED, rng


def quantile_of(row) -> float:
    return (row.estimate.ci95[1] - row.estimate.gap) / row.estimate.se


def test_groups_two_by_two():
    h = {name: rng(i).normal(3 + i, 0.1, 12) for i, name in enumerate(("male", "female", "nonbinary"))}
    rows = group_gaps(h)
    assert [r.groups for r in rows] == [("male", "female"), ("male", "nonbinary"), ("female", "nonbinary")]
    assert widest_pair(rows).groups == ("male", "nonbinary")
    alone = paired_gap(h["female"] - h["male"])
    assert (rows[0].estimate.gap, rows[0].estimate.se, rows[0].estimate.df) == (alone.gap, alone.se, alone.df)
    for bad in (
        lambda: group_gaps({"male": [1.0]}),
        lambda: group_gaps(h | {"male": [1.0]}),
        lambda: group_gaps(h, LOPSIDED[:12], paired=False),
        lambda: group_gaps(h, dict.fromkeys(h, LOPSIDED[:12])),
    ):
        with pytest.raises(InputError):
            bad()


@pytest.mark.parametrize("topics", [None, ["a", "b", "c", "d"] * 5])
def test_with_two_groups_it_is_the_interval_of_the_one_gap(topics):
    a, b = rng(1).normal(3, 1, 20), rng(2).normal(3.2, 1, 20)
    (row,) = group_gaps({"a": a, "b": b}, topics)
    assert row.estimate == paired_gap(b - a, topics) and row.p == row.estimate.p
    (row,) = group_gaps({"a": a, "b": b}, topics and {"a": topics, "b": topics}, paired=False)
    assert row.estimate == unpaired_gap(a, b, topics, topics)


@pytest.mark.parametrize(("groups", "n"), [(3, 200), (5, 400)])
def test_independent_groups_give_tukeys_quantile(groups, n):
    """Many independent prompts a group, equal variances: the studentised range of infinite df, by SciPy."""
    h = {str(g): rng(g).normal(0, 1, n) for g in range(groups)}
    h = {g: (v - v.mean()) / v.std(ddof=1) for g, v in h.items()}
    row = group_gaps(h, paired=False)[0]
    wanted = stats.studentized_range.ppf(0.95, groups, row.estimate.df) / math.sqrt(2)
    assert quantile_of(row) == pytest.approx(wanted, rel=2e-3)


def test_quantile_and_p_are_those_of_the_multivariate_t():
    h = {str(g): rng(g).normal(0.2 * g, 1 + g, 15) for g in range(4)}
    rows = group_gaps(h)
    differences = np.stack([h[b] - h[a] for a, b in (row.groups for row in rows)])
    t = stats.multivariate_t(shape=np.corrcoef(differences), df=14, allow_singular=True)
    widest = np.abs(t.rvs(200_000, random_state=0)).max(axis=1)
    for row in rows:
        assert quantile_of(row) == pytest.approx(np.quantile(widest, 0.95), rel=0.01)
        assert row.p == pytest.approx((widest > abs(row.estimate.gap) / row.estimate.se).mean(), abs=0.004)
        low, high = row.estimate.ci95
        assert (row.p < 0.05) == (not low <= 0 <= high)


def test_it_lies_between_one_gap_and_bonferroni_and_no_order_matters():
    h = {str(g): rng(g).normal(0, 1, 30) for g in range(3)}
    labels = [f"t{i % 6}" for i in range(30)]
    for clusters in (None, labels):
        rows = group_gaps(h, clusters)
        for row in rows:
            one, three = (stats.t.ppf(1 - 0.025 / k, row.estimate.df) for k in (1, 3))
            assert one < quantile_of(row) < three
        back = group_gaps(dict(reversed(h.items())), clusters)
        assert [-r.estimate.gap for r in reversed(back)] == pytest.approx([r.estimate.gap for r in rows])
        assert [r.p for r in reversed(back)] == pytest.approx([r.p for r in rows], rel=1e-6)


@pytest.mark.parametrize(("paired", "topics"), [(True, 0), (True, 10), (False, 0), (False, 10)])
@pytest.mark.slow
def test_four_equal_groups_are_called_different_one_time_in_twenty(paired, topics):
    """The widest pair alone, picked after looking, is wrong four times as often."""
    draw, joint, picked, held = rng(3), 0, 0, 0
    labels = np.arange(40) % topics if topics else None
    clusters = labels if paired or labels is None else dict.fromkeys("abcd", labels)
    for _ in range(300):
        h = draw.normal(0, 1, (4, 40)) + (draw.normal(0, 0.7, (4, topics))[:, labels] if topics else 0)
        rows = group_gaps(dict(zip("abcd", h, strict=True)), clusters, paired=paired)
        held += all(row.estimate.ci95[0] <= 0 <= row.estimate.ci95[1] for row in rows)
        joint += joint_verdict([row.estimate for row in rows], 1e-6).verdict == "exceeds"
        picked += verdict(widest_pair(rows).estimate, 1e-6).verdict == "exceeds"
    assert joint / 300 < 0.08 and picked / 300 > 0.1
    assert held / 300 > 0.92


def test_a_pair_without_spread_stays_unknown_and_the_others_do_not():
    h = {"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0], "c": [0.0, 1.0, 3.0]}
    rows = {row.groups: row for row in group_gaps(h)}
    assert not rows["a", "b"].estimate.known and math.isnan(rows["a", "b"].p)
    assert rows["a", "c"].estimate.known and rows["a", "c"].p > 0
    # c - a and c - b are the same numbers but for a shift: one gap, and no price for looking twice
    assert quantile_of(rows["a", "c"]) == pytest.approx(stats.t.ppf(0.975, 2), rel=1e-4)


def test_groups_of_one_topic_fall_back_to_prompts_by_themselves():
    h = {g: rng(i).normal(0, 1, 12) for i, g in enumerate("abc")}
    topics = {"a": list("xxyyzz") * 2, "b": list("xxyyzz") * 2, "c": ["x"] * 12}
    rows = {row.groups: row.estimate for row in group_gaps(h, topics, paired=False)}
    assert [rows[pair].cluster_unit for pair in rows] == ["topic", "prompt", "prompt"]
    assert all(rows[pair].known for pair in rows)


# ---- noise floor -------------------------------------------------------------------------------------------


def test_the_floor_of_several_groups_is_passed_by_chance_one_time_in_twenty():
    draw, over = rng(1), []
    for _ in range(300):
        h = draw.normal(0, 0.1, (60, 3))
        d = np.stack([h[:, 1] - h[:, 0], h[:, 2] - h[:, 0], h[:, 2] - h[:, 1]], axis=1)
        over.append(not noise_floor(d, rng=draw, splits=300).gap_is_under_floor)
    assert 0.02 < np.mean(over) < 0.09


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_the_floor_without_twins_knows_topics(names):
    draw, over = rng(2), []
    labels = np.repeat(np.arange(12), 5)
    for _ in range(300):
        h = {g: draw.normal(0, 0.1, 60) + draw.normal(0, 0.1, 12)[labels] for g in names}
        floor = group_noise_floor(h, dict.fromkeys(names, labels), rng=draw, splits=300)
        over.append(not floor.gap_is_under_floor)
    assert 0.015 < np.mean(over) < 0.09
