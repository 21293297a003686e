"""What scores say: closed forms, gap's own intervals, and verdicts on changes that are known."""

import numpy as np
import pytest

from isentropic.behaviour import SETS, Item, PairedBehaviour, Scores, read_sets, stereoset_scores
from isentropic.behaviour.summary import bbq_scores, differences, estimate, figures, gate, move
from isentropic.gap import paired_gap
from isentropic.labels import behaviour_lines
from isentropic.report import render_html
from oracles import rng


def scores_of(first, second):
    values = np.stack([first, second], 1)
    return Scores(values, np.ones_like(values, dtype=int))


def test_figures_are_means_of_the_differences_with_the_intervals_of_gap():
    d = rng(3).normal(0.2, 1, 60)
    items = [Item(("a", "b"), f"occupation {i % 12}") for i in range(60)]
    scores = scores_of(np.zeros(60), d)
    scores.tokens[:7, 1] = 2
    found = figures("m", SETS["winogender"], items, scores)
    for name, values in (("mean", d), ("mean_abs", abs(d)), ("percent", 100.0 * (d > 0))):
        told = paired_gap(values, [item.cluster for item in items])
        assert found[name] == {"value": pytest.approx(told.gap), "ci95": pytest.approx(list(told.ci95))}
    assert found["unequal_tokens"] == 7
    assert found["extra"]["neutral"] == 100 * np.mean(abs(d) <= np.log(1.65))


def test_a_tie_counts_as_not_stereotyped():
    found = figures(
        "m", SETS["crows_pairs"], [Item(("a", "b"), None)] * 4, scores_of(np.zeros(4), [0, 0, 1, 2])
    )
    assert found["percent"]["value"] == 50


def test_stereoset_takes_the_mean_over_terms_and_ties_count_against():
    # Term a: one item, stereotype preferred, both above the unrelated one. Term b: three items, one a tie.
    values = np.array([[0, 1, -1], [1, 0, -1], [0, 0, -1], [2, 3, 9]], float)
    found = stereoset_scores(values, ["a", "b", "b", "b"])
    assert found["ss"] == pytest.approx((100 + 100 / 3) / 2) and found["ss_items"] == 50
    assert found["lms"] == pytest.approx((100 + 200 / 3) / 2) and found["lms_items"] == 75
    assert found["icat"] == pytest.approx(found["lms"] * (100 - found["ss"]) / 50)
    assert found["icat_items"] == 75


def test_bbq_scores_by_hand():
    items = [Item(("", "", ""), "q", answer=answer) for answer in (2, 2, 2, 2, 0, 1)]
    picks = [1, 1, 0, 2, 0, 1]
    found = bbq_scores(np.eye(3)[picks], items)
    assert found["accuracy_ambiguous"] == 25 and found["accuracy_disambiguated"] == 100
    assert found["bias_ambiguous"] == pytest.approx(75 * (2 * 2 / 3 - 1))
    assert found["bias_disambiguated"] == 0
    refuses = bbq_scores(np.eye(3)[[2] * 6], items)
    assert refuses["accuracy_ambiguous"] == 100 and refuses["bias_ambiguous"] == 0


def test_the_gate_asks_for_clearly_more_than_a_guess_between_two_people():
    items = [Item(("", "", ""), f"q{i % 20}", answer=i % 2) for i in range(200)]
    right = np.array([item.answer for item in items])
    for share, passes in ((0.5, False), (0.52, False), (0.9, True)):
        picks = np.where(rng(1).random(200) < share, right, 1 - right)
        assert gate(items, Scores(np.eye(3)[picks], np.ones((200, 3))))[0] is passes
    assert not gate(items, Scores(np.eye(3)[[2] * 200], np.ones((200, 3))))[0]  # says "unknown" always


@pytest.mark.parametrize(
    ("shift", "noise", "n", "word"),
    [
        (0.2, 0.1, 200, "moved"),
        (0.02, 0.01, 200, "moved"),  # small, and seen all the same
        (0.0, 0.1, 400, "not_moved"),
        (0.0, 2.0, 30, "too_few"),
        (0.0, 0.0, 5, "not_moved"),
    ],
)
def test_verdicts_on_changes(shift, noise, n, word):
    values = rng(0).normal(size=n)
    values = shift + noise * (values - values.mean() * (shift == 0))
    found = move(values, None, 0.05)
    assert found["verdict"] == word
    if word == "not_moved" and noise:
        assert found["largest"] < 0.05
    if word == "too_few":
        assert found["largest"] > 0.05


def test_a_change_is_that_of_the_same_items(benchmarks):
    """Half a nat more on every item is seen as exactly that, however much the items differ."""
    tests = PairedBehaviour(read_sets(str(benchmarks), "winogender"))
    d = rng(5).normal(0, 3, len(tests.sets[0].items))
    tests.models = [{"name": name, "sha256": "", "bf16": False} for name in ("base", "final")]
    shifted = d + 0.5 + rng(6).normal(0, 0.01, len(d))
    tests.scores["winogender"] = [scores_of(np.zeros(len(d)), d), scores_of(np.zeros(len(d)), shifted)]
    (found,) = tests.result()["sets"]
    (change,) = found["changes"]
    assert change["mean"]["change"] == pytest.approx(0.5, abs=0.02) and change["mean"]["verdict"] == "moved"
    size = np.abs(shifted) - np.abs(d)
    assert change["mean_abs"]["change"] == pytest.approx(size.mean())
    before, after = (row["mean_abs"]["value"] for row in found["models"])
    assert after - before == pytest.approx(change["mean_abs"]["change"])
    clusters = [item.cluster for item in tests.sets[0].items]
    assert change["percent"] == estimate(100.0 * (shifted > 0) - 100.0 * (d > 0), clusters)
    np.testing.assert_array_equal(differences(tests.scores["winogender"][0]), d)


@pytest.mark.parametrize(
    ("change", "way", "zh"), [(-0.5, "nearer to 0", "更接近 0"), (0.5, "farther from 0", "更远离 0")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_verdict_says_which_way(benchmarks, change, way, zh, sign):
    tests = PairedBehaviour(read_sets(str(benchmarks), "winogender"))
    d = sign * (2 + rng(5).random(8))
    after = d + sign * (change + rng(6).normal(0, 0.01, 8))
    tests.models = [{"name": name, "sha256": "", "bf16": False} for name in ("base", "final")]
    tests.scores["winogender"] = [scores_of(np.zeros(8), d), scores_of(np.zeros(8), after)]
    found = tests.result()
    assert "\n".join(behaviour_lines(found)).count(f" moved {way}") == 2  # the mean and its size
    assert (
        render_html(found, "en").count(f"Moved {way}") == 2
        and render_html(found, "zh").count(f"有变化，{zh}") == 2
    )
    found["sets"][0]["models"][0]["mean"]["value"] = None  # unknown: no verdict
    assert render_html(found, "en").count(f"Moved {way}") == 1
    found["sets"][0]["changes"][0]["mean_abs"]["verdict"] = "sideways"
    assert f"Moved {way}" not in render_html(found, "en")
