"""Topics, spread, decomposition and change, each against its definition."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap.details import decompose, holm, pair_spread, paired_change, topic_gaps
from isentropic.gap.estimate import (
    paired_gap,
)
from oracles import LOPSIDED, rng, topical

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
