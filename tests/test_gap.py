"""gap.py against definitions worked out the slow way, closed forms and SciPy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap.bootstrap import bootstrap_interval, unpaired_bootstrap_interval
from isentropic.gap.details import decompose, holm, pair_spread, paired_change, topic_gaps
from isentropic.gap.estimate import (
    GapEstimate,
    clusters_of,
    group_gaps,
    paired_gap,
    unpaired_gap,
    widest_pair,
)
from isentropic.gap.noise import noise_floor, unpaired_noise_floor
from isentropic.gap.verdict import joint_verdict, pairs_for_halfwidth, verdict

LOPSIDED = ["a"] * 9 + ["b"] * 4 + ["c"] * 2 + ["d"] + ["e"] * 6


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def topical(labels: list[str], seed: int = 0, between: float = 0.5) -> np.ndarray:
    """Differences with an effect of each topic, around -0.08."""
    draw = rng(seed)
    effect = {label: draw.normal(0, between) for label in sorted(set(labels))}
    return -0.08 + np.array([effect[label] for label in labels]) + draw.normal(0, 1, len(labels))


def slow_cr2(y: np.ndarray, x: np.ndarray, contrast: np.ndarray, labels: list, group: np.ndarray):
    """CR2 and Satterthwaite df by the matrices of Bell-McCaffrey and Imbens-Kolesar, one loop at a time."""
    n = len(y)
    bread = np.linalg.inv(x.T @ x)
    maker = np.eye(n) - x @ bread @ x.T
    e = maker @ y
    clusters = sorted(set(labels))
    rows = {c: [i for i in range(n) if labels[i] == c] for c in clusters}

    kinds = sorted(set(group.tolist()))
    effect = {}
    for k in kinds:
        products = [
            e[i] * e[j]
            for c in clusters
            for i in rows[c]
            for j in rows[c]
            if i != j and group[i] == group[j] == k
        ]
        s2 = sum(e[i] ** 2 for i in range(n) if group[i] == k) / (sum(group == k) - 1)
        effect[k, k] = min(max(sum(products) / len(products), 0), s2) if products else 0.0
        effect["noise", k] = s2 - effect[k, k]
    for k in kinds:
        for m in kinds:
            if k != m:
                cross = [
                    e[i] * e[j]
                    for c in clusters
                    for i in rows[c]
                    for j in rows[c]
                    if (group[i], group[j]) == (k, m)
                ]
                bound = math.sqrt(effect[k, k] * effect[m, m])
                effect[k, m] = min(max(sum(cross) / len(cross), -bound), bound) if cross else 0.0
    phi = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if labels[i] == labels[j]:
                phi[i, j] = effect[group[i], group[j]] + (effect["noise", group[i]] if i == j else 0.0)

    pulled = []
    for c in clusters:
        g = rows[c]
        values, vectors = np.linalg.eigh(maker[np.ix_(g, g)])
        root = vectors @ np.diag([1 / math.sqrt(v) if v > 1e-10 else 0.0 for v in values]) @ vectors.T
        a = root @ x[g] @ bread @ contrast
        pulled.append(a @ maker[g])
    b = np.array(pulled)
    omega = b @ phi @ b.T
    variance = sum((row @ y) ** 2 for row in b)
    return math.sqrt(variance), np.trace(omega) ** 2 / np.trace(omega @ omega)


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


def test_groups_two_by_two():
    h = {name: rng(i).normal(3 + i, 0.1, 12) for i, name in enumerate(("male", "female", "nonbinary"))}
    rows = group_gaps(h)
    assert [r.groups for r in rows] == [("male", "female"), ("male", "nonbinary"), ("female", "nonbinary")]
    assert widest_pair(rows).groups == ("male", "nonbinary")
    assert rows[0].estimate == paired_gap(h["female"] - h["male"])
    loose = group_gaps(h | {"male": h["male"][:7]}, paired=False)
    assert loose[0].estimate == unpaired_gap(h["male"][:7], h["female"])
    for bad in (lambda: group_gaps({"male": [1.0]}), lambda: group_gaps(h | {"male": [1.0]})):
        with pytest.raises(InputError):
            bad()


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
    lambda e: pairs_for_halfwidth(0.1, 0), lambda e: pairs_for_halfwidth(math.nan, 0.1),
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


@pytest.mark.parametrize("sd", [0.08, 0.7])
def test_pairs_for_halfwidth_is_the_smallest_number(sd):
    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n))

    n = pairs_for_halfwidth(sd, 0.01)
    assert half(n) <= 0.01 < half(n - 1)


# ---- beside the one number ---------------------------------------------------------------------------------


def test_holm_by_its_definition():
    p = rng(9).uniform(0, 0.2, 15)
    p[3] = p[7]
    slow = []
    for i in range(15):
        larger = [min(1.0, sum(p[k] >= p[j] for k in range(15)) * p[j]) for j in range(15) if p[j] <= p[i]]
        slow.append(max(larger))
    assert holm(p) == pytest.approx(slow, rel=1e-12)
    with_hole = holm(np.insert(p, 4, math.nan))
    assert math.isnan(with_hole[4]) and np.delete(with_hole, 4) == pytest.approx(slow)
    assert holm([]).size == 0


def test_topic_gaps_are_paired_gaps_of_each_topic():
    d, labels = topical(LOPSIDED, 1), LOPSIDED
    rows = topic_gaps(d, labels)
    assert [r.topic for r in rows] == ["a", "b", "c", "d", "e"] and [r.n_pairs for r in rows] == [
        9,
        4,
        2,
        1,
        6,
    ]
    oracle = stats.ttest_1samp(d[:9], 0)
    assert rows[0].p == pytest.approx(oracle.pvalue) and rows[0].ci95 == pytest.approx(
        oracle.confidence_interval()
    )
    assert sum(r.gap * r.n_pairs for r in rows) / len(d) == pytest.approx(paired_gap(d, labels).gap)
    alone = rows[3]
    assert alone.to_dict()["ci95"] is None and alone.to_dict()["p_holm"] is None and not alone.clear
    tested = [r for r in rows if r.n_pairs > 1]
    assert [r.p_holm for r in tested] == pytest.approx(holm([r.p for r in tested]))
    assert [r.topic for r in topic_gaps([1.0, 2.0], ["one", "one"])] == ["one"]
    json.dumps([r.to_dict() for r in rows], allow_nan=False)


def test_opposite_topics_cancel_in_the_mean_but_show_by_topic():
    d = np.r_[rng(1).normal(0.2, 0.02, 20), rng(2).normal(-0.2, 0.02, 20)]
    labels = ["plus"] * 20 + ["minus"] * 20
    assert abs(paired_gap(d, labels).gap) < 0.01
    assert all(row.clear for row in topic_gaps(d, labels))
    assert pair_spread(d).mean_abs_pair_gap == pytest.approx(0.2, abs=0.01)


def test_pair_spread():
    d = np.arange(-50, 51) / 100
    s = pair_spread(d)
    assert s.mean_abs_pair_gap == pytest.approx(np.abs(d).mean()) and s.pair_gap_sd == pytest.approx(
        d.std(ddof=1)
    )
    assert s.quantiles == pytest.approx({"5": -0.45, "25": -0.25, "50": 0.0, "75": 0.25, "95": 0.45})
    assert pair_spread([0.1]).to_dict()["pair_gap_sd"] is None


def test_decomposition_adds_up_and_is_paired():
    same = rng(1).normal(-0.08, 0.08, len(LOPSIDED))
    own = same + rng(2).normal(0.02, 0.6, len(LOPSIDED))
    parts = decompose(own, same, LOPSIDED)
    assert parts.total.gap == pytest.approx(parts.same_text.gap + parts.through_text.gap)
    assert parts.through_text == paired_gap(own - same, LOPSIDED)
    with pytest.raises(InputError):
        decompose(own, same[:-1])


def test_change_is_the_paired_t_test():
    before, after = rng(1).normal(-0.1, 0.1, 30), rng(2).normal(0.02, 0.1, 30)
    c, oracle = paired_change(before, after), stats.ttest_rel(after, before)
    assert c.p == pytest.approx(oracle.pvalue) and c.ci95 == pytest.approx(oracle.confidence_interval())
    assert c.abs_change == pytest.approx(abs(after.mean()) - abs(before.mean()))
    back = paired_change(after, before)
    assert (back.gap_change, back.abs_change) == pytest.approx((-c.gap_change, -c.abs_change))
    still = paired_change(before, before)  # a model against itself: no change, and no claim to have proved it
    assert still.gap_change == 0 and still.to_dict()["p"] is None and still.note
    with pytest.raises(InputError):
        paired_change(before, after[1:])


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
