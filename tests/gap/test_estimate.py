"""gap.py against definitions worked out the slow way, closed forms and SciPy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap.details import pair_spread, paired_change
from isentropic.gap.estimate import (
    Crossed,
    clusters_of,
    paired_gap,
    unpaired_gap,
)
from isentropic.gap.groups import group_gaps
from isentropic.gap.two_phase import two_phase_gaps
from isentropic.gap.verdict import verdict
from oracles import LOPSIDED, rng, slow_cr2, topical

# ---- the partition -----------------------------------------------------------------------------------------


def test_partition_is_the_same_for_any_order_of_rows_and_kind_of_label():
    labels = ["b", "a", "b", "c"]
    part = clusters_of(labels, 4)
    assert (
        part.labels == ("a", "b", "c")
        and part.sizes.tolist() == [1, 2, 1]
        and part.member.tolist() == [1, 0, 1, 2]
    )
    assert clusters_of(np.array(labels), 4).member.tolist() == part.member.tolist()
    assert clusters_of([7, 3, 7, 9], 4).member.tolist() == part.member.tolist()
    assert len(clusters_of([1, "1", 1, "1"], 4).sizes) == 2  # a number and its name do not collide


@pytest.mark.parametrize("labels", [["a", None], ["a", math.nan], ["a"], ["a", "b", "c"]])
def test_partition_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(InputError):
        clusters_of(labels, 2)


# ---- paired ------------------------------------------------------------------------------------------------


def test_paired_gap_is_the_one_sample_t_test():
    d = rng().normal(-0.08, 0.1, 37)
    e, oracle = paired_gap(d), stats.ttest_1samp(d, 0)
    assert e.p == pytest.approx(oracle.pvalue, rel=1e-10)
    assert e.df == pytest.approx(36, rel=1e-12)
    assert e.ci95 == pytest.approx(oracle.confidence_interval(0.95), rel=1e-10)
    assert e.interval(0.9) == pytest.approx(oracle.confidence_interval(0.90), rel=1e-10)
    assert (e.n, e.n_clusters, e.cluster_unit, e.note) == (37, 37, "pair", None)


def test_closed_forms_for_one_and_two_degrees_of_freedom():
    # t quantiles: df 1 is tan(pi (p - 1/2)); df 2 is (2p - 1) sqrt(2 / (1 - (2p - 1)^2)).
    two = paired_gap([0.0, 2.0])
    assert two.ci95[1] == pytest.approx(1 + math.tan(math.pi * 0.475) * 1.0, rel=1e-9)
    three = paired_gap([0.0, 1.0, 2.0])
    assert three.ci95[1] == pytest.approx(1 + 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_clustered_error_and_df_are_the_matrix_definition(seed):
    d = topical(LOPSIDED, seed, between=seed / 2)
    n = len(d)
    se, df = slow_cr2(d, np.ones((n, 1)), np.array([1.0]), LOPSIDED, np.zeros(n, dtype=int))
    e = paired_gap(d, LOPSIDED)
    assert e.se == pytest.approx(se, rel=1e-10)
    assert e.df == pytest.approx(df, rel=1e-8)
    assert e.gap == pytest.approx(d.mean()) and (e.n_clusters, e.cluster_unit) == (5, "topic")


def test_equal_topics_give_the_t_test_of_topic_means():
    d = topical(["a", "b", "c", "d", "e"] * 6, seed=3)
    e = paired_gap(d, ["a", "b", "c", "d", "e"] * 6)
    oracle = stats.ttest_1samp(d.reshape(6, 5).mean(0), 0)
    assert e.df == pytest.approx(4, rel=1e-9)
    assert e.ci95 == pytest.approx(oracle.confidence_interval(), rel=1e-9)


def test_clusters_of_one_row_are_no_clusters():
    d = rng(1).normal(size=12)
    alone = paired_gap(d, list(range(12)))
    plain = paired_gap(d)
    assert (alone.gap, alone.se, alone.df) == pytest.approx((plain.gap, plain.se, plain.df), rel=1e-12)


def test_topics_that_differ_widen_the_interval_and_one_big_topic_costs_degrees_of_freedom():
    d = topical(LOPSIDED, 2, between=2.0)
    assert paired_gap(d, LOPSIDED).se > paired_gap(d).se
    assert paired_gap(d, LOPSIDED).df < 4


def test_swapping_groups_flips_the_sign_and_the_order_of_rows_does_not_matter():
    d = topical(LOPSIDED)
    e, swapped = paired_gap(d, LOPSIDED), paired_gap(-d, LOPSIDED)
    assert (swapped.gap, swapped.se, swapped.df) == pytest.approx((-e.gap, e.se, e.df))
    assert swapped.ci95 == pytest.approx((-e.ci95[1], -e.ci95[0]))
    order = rng(5).permutation(len(d))
    moved = paired_gap(d[order], [LOPSIDED[i] for i in order])
    assert (moved.gap, moved.se, moved.df) == pytest.approx((e.gap, e.se, e.df))


def test_scaling_and_shifting():
    d = topical(LOPSIDED)
    e, f = paired_gap(d, LOPSIDED), paired_gap(3 * d + 1, LOPSIDED)
    assert (f.gap, f.se, f.df) == pytest.approx((3 * e.gap + 1, 3 * e.se, e.df))


def test_what_cannot_be_known_is_marked_and_never_zero():
    for e in (
        paired_gap([0.3]),
        paired_gap([0.1, 0.1, 0.1]),
        paired_gap([0.0, 0.0]),
        paired_gap([0.1 + 0.2, 0.3, 0.3]),  # equal but for rounding
        paired_gap([1.0, -1.0, 1.0, -1.0], ["a", "a", "b", "b"]),  # topics with equal means
        unpaired_gap([1.0], [2.0, 3.0]),
        unpaired_gap([1.0, 1.0], [2.0, 2.0]),
    ):
        assert math.isnan(e.se) and all(map(math.isnan, e.ci95)) and e.note
        v = verdict(e, 0.01)
        assert v.verdict == "insufficient" and v.pairs_needed is None and v.reason == e.note
        written = json.loads(json.dumps([e.to_dict(), v.to_dict()], allow_nan=False))
        assert written[0]["se"] is None and written[0]["ci95"] is None


def test_one_topic_falls_back_to_pairs_and_says_so():
    d = rng().normal(size=9)
    e = paired_gap(d, ["only"] * 9)
    assert e.cluster_unit == "pair" and "one topic" in str(e.note)
    assert e.ci95 == paired_gap(d).ci95


def test_few_topics_are_said_to_be_few():
    few, enough = (
        paired_gap(rng().normal(size=12), list("abcd") * 3),
        paired_gap(rng().normal(size=12), list("abcdef") * 2),
    )
    assert few.known and "only 4 topics" in str(few.note)
    assert enough.note is None


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [1.0, math.inf]])
def test_bad_rows_are_refused(bad):
    for call in (paired_gap, pair_spread, lambda d: unpaired_gap([1.0, 2.0], d)):
        with pytest.raises(InputError) as info:
            call(bad)
        assert "\n" not in str(info.value)


# ---- unpaired ----------------------------------------------------------------------------------------------


def test_unpaired_gap_is_welch():
    a, b = rng(1).normal(3.5, 0.6, 20), rng(2).normal(3.4, 0.2, 41)
    e, oracle = unpaired_gap(a, b), stats.ttest_ind(b, a, equal_var=False)
    assert e.gap == pytest.approx(b.mean() - a.mean())
    assert e.df == pytest.approx(oracle.df, rel=1e-10)
    assert e.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert e.ci95 == pytest.approx(oracle.confidence_interval(), rel=1e-9)
    back = unpaired_gap(b, a)
    assert (back.gap, back.se, back.df) == pytest.approx((-e.gap, e.se, e.df))
    assert e.to_dict()["n_prompts"] == 61 and "n_pairs" not in e.to_dict()


@pytest.mark.parametrize("seed", range(4))
def test_unpaired_topics_are_the_matrix_definition(seed):
    draw = rng(seed)
    first, second = LOPSIDED, ["a"] * 3 + ["b"] * 8 + ["c"] * 2 + ["f"] * 5
    effect = dict(zip("abcdef", draw.normal(0, seed, 6), strict=True))
    a = np.array([effect[t] for t in first]) + draw.normal(0, 1, len(first))
    b = np.array([effect[t] for t in second]) + draw.normal(0, 2, len(second))
    group = np.repeat([0, 1], [len(a), len(b)])
    x = np.stack([group == 0, group == 1], axis=1).astype(float)
    se, df = slow_cr2(np.r_[a, b], x, np.array([-1.0, 1.0]), first + second, group)
    e = unpaired_gap(a, b, first, second)
    assert e.se == pytest.approx(se, rel=1e-10)
    assert e.df == pytest.approx(df, rel=1e-8)
    assert (e.n_clusters, e.cluster_unit) == (6, "topic")


def test_unpaired_topics_edge_cases():
    a, b = [1.0, 2.0, 3.0], [2.0, 2.5, 4.0]
    e = unpaired_gap(a, b, ["x", "x", "x"], ["x", "y", "y"])
    assert e.cluster_unit == "prompt" and e.note and e.ci95 == unpaired_gap(a, b).ci95
    with pytest.raises(InputError):
        unpaired_gap(a, b, ["x", "y", "y"])
    with pytest.raises(InputError):
        unpaired_gap(a, b, ["x", "y"], ["x", "y", "z", "z"])


def test_pairing_removes_what_twins_share():
    shared = rng(0).normal(3.5, 1.0, 40)
    a, b = shared + rng(1).normal(0, 0.1, 40), shared + rng(2).normal(0, 0.1, 40)
    assert paired_gap(b - a).gap == pytest.approx(unpaired_gap(a, b).gap)
    assert paired_gap(b - a).se < unpaired_gap(a, b).se / 5


# ---- two labels --------------------------------------------------------------------------------------------


def crossed(seed: int, n: int = 30) -> list[Crossed]:
    """Labels of n rows, some of which share both."""
    draw = rng(100 + seed)
    topics, fillers = draw.choice(list("abcdef"), n), draw.choice(list("uvwxyz"), n, p=[0.4, *[0.12] * 5])
    return [Crossed(*both) for both in zip(topics.tolist(), fillers.tolist(), strict=True)]


def effects(labels: list[Crossed], seed: int, of_topic: float = 1.0, of_filler: float = 1.0) -> np.ndarray:
    draw = rng(seed)
    drawn = [
        {x: draw.normal(0, sd) for x in sorted(set(part))}
        for sd, part in zip((of_topic, of_filler), zip(*labels, strict=True), strict=True)
    ]
    return np.array([drawn[0][t] + drawn[1][f] + draw.normal() for t, f in labels])


def slow_two_way(
    y: np.ndarray, x: np.ndarray, contrast: np.ndarray, labels: list[Crossed], group: np.ndarray
):
    """Cameron, Gelbach and Miller: three one-way errors by matrices."""
    topics, fillers = zip(*labels, strict=True)
    (t, df_t), (f, df_f), (c, _) = (
        slow_cr2(y, x, contrast, list(part), group) for part in (topics, fillers, labels)
    )
    return math.sqrt(max(t**2 + f**2 - c**2, t**2, f**2)), min(df_t, df_f)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_two_labels_is_three_one_way_errors(seed):
    labels = crossed(seed)
    d, n = effects(labels, seed, seed / 2, 2 - seed / 2), len(labels)
    e = paired_gap(d, labels)
    assert (e.se, e.df) == pytest.approx(
        slow_two_way(d, np.ones((n, 1)), np.ones(1), labels, np.zeros(n, dtype=int)), rel=1e-8
    )
    assert (e.n_clusters, e.cluster_unit) == (len({label.topic for label in labels}), "topic and filler")
    order = rng(seed).permutation(n)
    moved = paired_gap(d[order], [labels[i] for i in order])
    turned = paired_gap(d, [Crossed(filler, topic) for topic, filler in labels])
    for other in (moved, turned):
        assert (other.se, other.df) == pytest.approx((e.se, e.df), rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_two_labels_of_unpaired_groups_and_of_two_phases(seed):
    labels = crossed(seed, 36)
    group = np.repeat([0, 1], [16, 20])
    h, x = effects(labels, seed), np.stack([group == 0, group == 1], axis=1).astype(float)
    e = unpaired_gap(h[:16], h[16:], labels[:16], labels[16:])
    expected = slow_two_way(h, x, np.array([-1.0, 1.0]), labels, group)
    assert (e.se, e.df) == pytest.approx(expected, rel=1e-8) and e.cluster_unit == "topic and filler"

    before, after = effects(labels[:24], seed), effects(labels[:12], seed + 9)
    slope = np.polyfit(before[:12], after, 1)[0]
    y, both = np.r_[after - slope * before[:12], slope * before], labels[:12] + labels[:24]
    group = np.repeat([0, 1], [12, 24])
    x = np.stack([group == 0, group == 1], axis=1).astype(float)
    se, df = slow_two_way(y, x, np.ones(2), both, group)
    tables = [{"male": np.zeros(len(values)), "female": values} for values in (before, after)]
    found = two_phase_gaps(*tables, range(12), labels[:24])[0].estimate
    assert (found.se, found.df) == pytest.approx((se * math.sqrt(11 / 10), df - 1), rel=1e-8)


def test_the_error_is_never_less_than_that_of_one_label():
    table = rng(4).normal(size=(6, 1)) + rng(5).normal(size=(6, 5))
    table -= table.mean(0)  # fillers with equal means have no error, and those of the cells is not taken off
    labels = [Crossed(t, f) for t in range(6) for f in range(5)]
    by_topic, both = paired_gap(table.ravel(), [t for t, _ in labels]), paired_gap(table.ravel(), labels)
    assert both.se == pytest.approx(by_topic.se) and both.df == pytest.approx(4)
    turned = paired_gap(table.ravel(), [Crossed(f, t) for t, f in labels])
    assert not turned.known and "no spread" in str(turned.note)


def test_a_label_that_does_not_cross_the_other_is_not_counted():
    topics = LOPSIDED
    d, n = topical(topics, 3), len(topics)
    for fillers in (["same"] * n, range(n), [f"{t}{i % 2}" for i, t in enumerate(topics)]):
        one = paired_gap(d, topics)
        assert paired_gap(d, [Crossed(t, f) for t, f in zip(topics, fillers, strict=True)]) == one
        turned = paired_gap(d, [Crossed(f, t) for t, f in zip(topics, fillers, strict=True)])
        assert (turned.se, turned.df, turned.cluster_unit) == (one.se, one.df, "filler")
    alone = paired_gap(d, [Crossed("same", "same")] * n)
    assert alone.cluster_unit == "pair" and alone.ci95 == paired_gap(d).ci95
    # One group with a single filler cannot say how its fillers vary.
    first, second = [Crossed(t, "u") for t in "aabb"], [Crossed(t, f) for t, f in ("au", "av", "bu", "bv")]
    e = unpaired_gap(d[:4], d[4:8], first, second)
    assert e.cluster_unit == "topic" and e.se == unpaired_gap(d[:4], d[4:8], list("aabb"), list("aabb")).se


def test_a_row_without_a_filler_among_others_is_refused():
    with pytest.raises(InputError, match="row 1 has a topic and no filler"):
        clusters_of([Crossed("a", "u"), "b", Crossed("b", "u")], 3)
    with pytest.raises(InputError, match="filler of row 0"):
        clusters_of([Crossed("a", None), Crossed("b", "u")], 2)


def test_the_gaps_of_several_groups_count_both_labels():
    labels = crossed(1, 60)
    h = {name: effects(labels, seed) for seed, name in enumerate("abc")}
    rows = group_gaps(h, labels)
    for row in rows:
        alone = paired_gap(h[row.groups[1]] - h[row.groups[0]], labels)
        assert (row.estimate.se, row.estimate.df) == (alone.se, alone.df)
        assert row.estimate.ci95[0] < alone.ci95[0]
    change = paired_change(h["a"], h["b"], labels)
    assert change.se == rows[0].estimate.se and change.cluster_unit == "topic and filler"


def test_intervals_hold_where_both_labels_recur_and_those_of_one_label_do_not():
    rows = [(t, (t * 5 + r) % 16) for t in range(24) for r in range(5)]  # 120 pairs, 24 topics, 16 fillers
    topics, fillers = np.array(rows).T
    labels, draw = [Crossed(*row) for row in rows], rng(7)
    held, draws = {"both": 0, "topics": 0, "fillers": 0}, 600
    for _ in range(draws):
        d = draw.normal(0, 0.4, 24)[topics] + draw.normal(0, 0.5, 16)[fillers] + draw.normal(0, 0.8, 120)
        for name, clusters in (("both", labels), ("topics", topics), ("fillers", fillers)):
            low, high = paired_gap(d, clusters).ci95
            held[name] += low <= 0 <= high
    assert 0.92 < held["both"] / draws < 0.975
    assert held["topics"] / draws < 0.9 and held["fillers"] / draws < 0.93


def test_where_one_group_or_phase_has_a_single_topic_what_recurs_beside_it_is_counted():
    labels = [Crossed(t, f) for t in "abcdef" for f in "uvwxyz"]
    h = effects(labels, 3)
    x, y = h, h[:6] + rng(8).normal(size=6)  # the pairs measured after are all of topic a
    tables = [{"male": np.zeros(len(values)), "female": values} for values in (x, y)]
    by_filler = two_phase_gaps(*tables, range(6), [filler for _, filler in labels])[0].estimate
    found = two_phase_gaps(*tables, range(6), labels)[0].estimate
    assert (found.se, found.cluster_unit) == (by_filler.se, "filler") and "single topic" in found.note
    alone = two_phase_gaps(*tables, range(6), [topic for topic, _ in labels])[0].estimate
    pairs = two_phase_gaps(*tables, range(6))[0].estimate
    assert (alone.se, alone.ci95, alone.cluster_unit) == (pairs.se, pairs.ci95, "pair")
    assert alone.known and "single topic" in alone.note
    groups = [h[:6], h[6:], labels[:6], labels[6:]]
    by_filler = unpaired_gap(*groups[:2], *([filler for _, filler in part] for part in groups[2:]))
    found = unpaired_gap(*groups)
    assert (found.se, found.df, found.cluster_unit) == (by_filler.se, by_filler.df, "filler")


def test_a_gap_that_was_the_same_everywhere_before_gives_no_slope():
    y, draw = rng(2).normal(size=7), rng(3)
    for x in (np.full(20, 0.1), np.r_[np.full(7, 0.1), draw.normal(size=13)]):
        tables = [{"male": np.zeros(len(values)), "female": values} for values in (x, y)]
        assert two_phase_gaps(*tables, range(7))[0].estimate.gap == pytest.approx(y.mean())
