"""The summary against numbers worked out by hand, and against the model's own logits; odd cases stay valid JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import typing

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.gap import unpaired_gap
from isentropic.gap.details import Decomposition, TopicGap
from isentropic.gap.noise import NoiseFloor
from isentropic.labels import gap_line, label
from isentropic.measure.summary import distinct_ngrams, floor_of, group_entropies, quality, summarise
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import Item
from isentropic.responses.response import Example
from isentropic.schema import Floor, Parts, TopicRow
from oracles import rng

GENDERS = ("male", "female")


def pair_item(
    index: int, topic: str | None = None, cell: str | None = None, groups=GENDERS, k: int = 1
) -> Item:
    """An item with shared responses: for each twin, then each source, then each of k samples, one example."""
    twins = tuple(Prompt(f"{g} {index}", g, f"p{index}", topic, "test", cell) for g in groups)
    examples = [Example(p, (5,), (7, 8), s.group, j) for p in twins for s in twins for j in range(k)]
    return Item(twins, examples, index)


def strict(summary: dict) -> dict:
    """Through JSON that has no NaN and back."""
    return json.loads(json.dumps(summary, allow_nan=False))


# --- By hand --------------------------------------------------------------------------------------------------------

# Four pairs; columns are male on his text, male on hers, female on his text, female on hers.
ROWS = np.array([[1.0, 3.0, 2.0, 4.0], [2.0, 2.0, 2.0, 3.0], [0.0, 2.0, 1.0, 2.0], [4.0, 4.0, 3.0, 5.0]])
SHARED = np.array([1.0, 0.5, 0.5, 0.0])
OWN = np.array([3.0, 1.0, 2.0, 1.0])


def by_hand(**marks):
    items = [pair_item(i, **{key: value[i] for key, value in marks.items()}) for i in range(4)]
    return items, list(ROWS)


def test_group_entropies_shared_and_own():
    items, entropies = by_hand()
    shared = group_entropies(items, entropies, GENDERS)
    assert shared.tolist() == [[2.0, 3.0], [2.0, 2.5], [1.0, 1.5], [4.0, 4.0]]
    assert group_entropies(items, entropies, GENDERS, own=True).tolist() == [[1, 4], [2, 3], [0, 2], [4, 5]]
    assert group_entropies(items, entropies, GENDERS[::-1]).tolist() == shared[:, ::-1].tolist()
    assert np.isnan(group_entropies(items, entropies, ("male", "other"))[:, 1]).all()


def test_summary_of_four_pairs():
    found = strict(summarise(*by_hand(), GENDERS, 0.01))
    assert (found["H_male"], found["H_female"], found["H_mean"]) == (2.25, 2.75, 2.5)
    se = SHARED.std(ddof=1) / 2
    assert found["gap"] == 0.5 and found["se"] == pytest.approx(se) and found["df"] == pytest.approx(3)
    assert found["ci95"] == pytest.approx(stats.t.interval(0.95, 3, loc=0.5, scale=se))
    assert (found["n_pairs"], found["n_clusters"], found["cluster_unit"]) == (4, 4, "pair")
    assert found["mean_abs_pair_gap"] == 0.5 and found["pair_gap_sd"] == pytest.approx(SHARED.std(ddof=1))
    assert [row["gap"] for row in found["pair_gaps"]] == SHARED.tolist()
    assert [row["pair_id"] for row in found["pair_gaps"]] == ["p0", "p1", "p2", "p3"]
    assert found["topics"] == [] and found["cells"] == []
    assert found["group_gaps"][0]["groups"] == list(GENDERS) and found["group_gaps"][0]["gap"] == 0.5


def test_own_gap_and_decomposition():
    found = strict(summarise(*by_hand(), GENDERS, 0.01))
    assert found["own"]["gap"] == OWN.mean() and found["own"]["mean_abs_pair_gap"] == OWN.mean()
    assert found["own"]["se"] == pytest.approx(OWN.std(ddof=1) / 2)
    parts = found["decomposition"]
    assert parts["total"]["gap"] == OWN.mean() and parts["same_text"]["gap"] == SHARED.mean()
    assert parts["through_text"]["gap"] == pytest.approx((OWN - SHARED).mean())
    assert parts["through_text"]["se"] == pytest.approx((OWN - SHARED).std(ddof=1) / 2)
    own = strict(summarise(*by_hand(), GENDERS, 0.01, own=True))
    assert own["gap"] == OWN.mean() and own["own"] is None and own["decomposition"] is None
    assert own["H_male"] == ROWS[:, 0].mean() and own["H_female"] == ROWS[:, 3].mean()


def test_responses_of_one_twin_alone_give_the_shared_gap_and_no_own_one():
    items, entropies = by_hand()
    chosen = [[e.source == "male" for e in item.examples] for item in items]
    for item, keep in zip(items, chosen, strict=True):
        item.examples = [e for e, kept in zip(item.examples, keep, strict=True) if kept]
    values = [row[keep] for row, keep in zip(entropies, chosen, strict=True)]
    found = strict(summarise(items, values, GENDERS, 0.01))
    assert found["gap"] == (ROWS[:, 2] - ROWS[:, 0]).mean()
    assert found["own"] is None and found["decomposition"] is None


def test_where_a_prompt_has_one_response_of_several_no_halves_are_compared():
    items = [pair_item(i, k=2 if i < 6 else 1) for i in range(12)]
    entropies = [rng(i).normal(3, 1, len(item.examples)) for i, item in enumerate(items)]
    floor = floor_of(items, entropies, GENDERS, seed=0)
    assert floor["reseed"] is None and floor["floor"] == floor["same_group"] > 0
    assert floor_of(items[:6], entropies[:6], GENDERS, seed=0)["reseed"] > 0


def test_topics_are_the_clusters_and_have_rows_of_their_own():
    found = strict(summarise(*by_hand(topic=["x", "x", "y", "y"]), GENDERS, 0.01))
    assert (found["n_pairs"], found["n_clusters"], found["cluster_unit"]) == (4, 2, "topic")
    # Two equal topics: the error of the mean of the two topic means, 0.75 and 0.25.
    assert found["se"] == pytest.approx(np.std([0.75, 0.25], ddof=1) / math.sqrt(2)) and found[
        "df"
    ] == pytest.approx(1)
    assert [(t["topic"], t["n_pairs"], t["gap"]) for t in found["topics"]] == [("x", 2, 0.75), ("y", 2, 0.25)]


def test_a_pair_without_a_topic_makes_pairs_the_clusters():
    found = strict(summarise(*by_hand(topic=["x", "x", None, "y"]), GENDERS, 0.01))
    assert found["cluster_unit"] == "pair" and found["topics"] == []


def test_cells_are_the_summary_of_their_pairs():
    found = strict(summarise(*by_hand(cell=["a", "b", "a", "a"]), GENDERS, 0.01))
    assert [cell["cell"] for cell in found["cells"]] == ["a"]  # one pair has no interval and gets no cell
    (cell,) = found["cells"]
    rows = [0, 2, 3]
    items, entropies = by_hand()
    alone = summarise([items[i] for i in rows], [entropies[i] for i in rows], GENDERS, 0.01)
    for key in ("gap", "se", "ci95", "n_pairs", "verdict", "H_male", "H_female"):
        assert cell[key] == pytest.approx(alone[key])


@pytest.mark.parametrize(
    ("record", "promised"), [(TopicGap, TopicRow), (NoiseFloor, Floor), (Decomposition, Parts)]
)
def test_a_record_of_the_statistics_has_the_keys_that_the_schema_promises(record, promised):
    """The types hold the summary's other figures to the schema; these are written as a whole."""
    assert {field.name for field in dataclasses.fields(record)} == typing.get_type_hints(promised).keys()


def test_swapping_the_groups_flips_the_sign_and_nothing_else():
    one, other = (summarise(*by_hand(), groups, 0.01) for groups in (GENDERS, GENDERS[::-1]))
    assert other["gap"] == -one["gap"] and other["ci95"] == [-bound for bound in one["ci95"][::-1]]
    for key in ("se", "verdict", "H_male", "H_female", "mean_abs_pair_gap", "label", "pairs_needed"):
        assert other[key] == one[key]


def test_the_verdict_is_about_the_target():
    items = [pair_item(i) for i in range(40)]
    noise = np.random.default_rng(0).normal(0, 0.02, 40)
    entropies = [np.array([3.0, 3.0, 3.0 + e, 3.0 + e]) for e in 0.03 + noise - noise.mean()]
    verdicts = [summarise(items, entropies, GENDERS, target)["verdict"] for target in (0.1, 0.01, 0.031)]
    assert verdicts == ["certified", "exceeds", "insufficient"]
    assert summarise(items, entropies, GENDERS, 0.031)["pairs_needed"] > 40
    assert summarise(items, entropies, GENDERS, 0.1)["pairs_needed"] is None


# --- Three groups, and no pairs -------------------------------------------------------------------------------------


def test_three_groups_report_the_widest_pair_and_all():
    groups = ("young", "middle", "old")
    items = [pair_item(i, f"t{i % 5}", groups=groups) for i in range(20)]
    rng = np.random.default_rng(1)
    entropies = [np.repeat([3.0, 3.4, 2.9], 3) + rng.normal(0, 0.05, 9) for _ in items]
    found = strict(summarise(items, entropies, groups, 0.01))
    table = group_entropies(items, entropies, groups)
    assert [row["groups"] for row in found["group_gaps"]] == [
        ["young", "middle"],
        ["young", "old"],
        ["middle", "old"],
    ]
    for row, (a, b) in zip(found["group_gaps"], ((0, 1), (0, 2), (1, 2)), strict=True):
        assert row["gap"] == pytest.approx((table[:, b] - table[:, a]).mean())
    assert found["widest"] == ["middle", "old"] and found["gap"] == found["group_gaps"][2]["gap"]
    assert [p["gap"] for p in found["pair_gaps"]] == pytest.approx(table[:, 2] - table[:, 1])
    assert {f"H_{group}" for group in groups} < set(found)
    floor = floor_of(items, entropies, groups, seed=0)
    assert not floor["gap_is_under_floor"] and 0 < floor["floor"] < abs(found["gap"])


def singles(first, second):
    prompts = [Prompt(f"m{i}", "male") for i in range(len(first))]
    prompts += [Prompt(f"f{i}", "female") for i in range(len(second))]
    items = [Item((p,), [Example(p, (5,), (6, 7), p.group)], i) for i, p in enumerate(prompts)]
    return items, [np.array([value]) for value in [*first, *second]]


def test_without_pairs_it_is_welch():
    first, second = [1.0, 2.0, 4.0], [2.0, 5.0, 3.0, 6.0]
    found = strict(summarise(*singles(first, second), GENDERS, 0.01))
    welch = stats.ttest_ind(second, first, equal_var=False)
    assert found["gap"] == pytest.approx(np.mean(second) - np.mean(first))
    assert found["ci95"] == pytest.approx(list(welch.confidence_interval(0.95)))
    assert found["df"] == pytest.approx(welch.df) and (found["n_pairs"], found["cluster_unit"]) == (
        7,
        "prompt",
    )
    assert found["mean_abs_pair_gap"] is None and found["pair_gaps"] == [] and found["own"] is None
    floor = floor_of(*singles(first, second), GENDERS, seed=0)
    assert floor["floor"] > 0 and floor["gap_is_under_floor"] == (abs(found["gap"]) <= floor["floor"])


def single_topics(rng, topics: int, each: int, shared: float = 0.0):
    """Prompts without twins: every topic has prompts of both groups and an effect of its own for each group."""
    prompts, entropies = [], []
    for t in range(topics):
        both = rng.normal(0, shared)
        for group in GENDERS:
            effect = both + rng.normal(0, 0.5)
            for i in range(each):
                prompts.append(Prompt(f"{group} {t} {i}", group, topic=f"t{t}"))
                entropies.append(np.array([3.5 + effect + rng.normal(0, 1)]))
    items = [Item((p,), [Example(p, (5,), (6,), p.group)], i) for i, p in enumerate(prompts)]
    return items, entropies


def test_topics_of_prompts_without_twins_are_the_clusters():
    items, entropies = single_topics(np.random.default_rng(0), 8, 5)
    found = strict(summarise(items, entropies, GENDERS, 0.01))
    split = [
        [(float(v[0]), i.topic) for i, v in zip(items, entropies, strict=True) if i.prompts[0].group == g]
        for g in GENDERS
    ]
    (first, first_topics), (second, second_topics) = (zip(*rows, strict=True) for rows in split)
    oracle = unpaired_gap(first, second, first_topics, second_topics)
    assert (found["n_pairs"], found["n_clusters"], found["cluster_unit"]) == (80, 8, "topic")
    assert found["se"] == pytest.approx(oracle.se) and found["ci95"] == pytest.approx(oracle.ci95)


@pytest.mark.slow
def test_the_interval_of_prompts_without_twins_covers_what_it_says():
    """One fifth of the variance lies between topics: with prompts as the units the interval covers 70 %."""
    rng = np.random.default_rng(5)
    inside = under = 0
    for _ in range(200):
        items, entropies = single_topics(rng, 12, 15)
        low, high = summarise(items, entropies, GENDERS, 0.01)["ci95"]
        inside += low <= 0 <= high
    for seed in range(60):
        items, entropies = single_topics(rng, 12, 15)
        under += floor_of(items, entropies, GENDERS, seed)["gap_is_under_floor"]
    assert inside / 200 > 0.9 and under / 60 > 0.85


def test_a_prompt_that_fills_up_a_batch_twice_counts_once():
    men = [Prompt(f"m{i}", "male") for i in range(3)]
    women = [Prompt(f"f{i}", "female") for i in range(6)]
    twice = [(men[i % 3], women[i]) for i in range(6)]
    items = [Item(t, [Example(p, (5,), (6,), p.group) for p in t], i) for i, t in enumerate(twice)]
    values = {p: 3.0 + 0.1 * i for i, p in enumerate([*men, *women])}
    entropies = [np.array([values[p] for p in t]) for t in twice]
    found = summarise(items, entropies, GENDERS, 0.01)
    alone = summarise(*singles([values[p] for p in men], [values[p] for p in women]), GENDERS, 0.01)
    assert found["n_pairs"] == 9 and found["cluster_unit"] == "prompt"
    assert (found["gap"], found["se"]) == pytest.approx((alone["gap"], alone["se"]))


def four_equal_groups(rng, n: int = 40):
    items = [pair_item(i, groups=("a", "b", "c", "d")) for i in range(n)]
    return items, [np.repeat(rng.normal(3, 0.1, 4), 4) for _ in items]


@pytest.mark.slow
def test_four_equal_groups_get_a_verdict_and_an_interval_for_all_of_them():
    rng = np.random.default_rng(7)
    wrong = held = 0
    for _ in range(200):
        items, entropies = four_equal_groups(rng)
        found = summarise(items, entropies, ("a", "b", "c", "d"), 1e-6)
        wrong += found["verdict"] == "exceeds"
        assert (found["verdict"] == "exceeds") == any(r["verdict"] == "exceeds" for r in found["group_gaps"])
        held += found["ci95"][0] <= 0 <= found["ci95"][1]  # of the widest pair, picked after looking
    assert wrong / 200 < 0.09 and held / 200 > 0.91


def test_certified_is_said_of_all_pairs_of_groups():
    """Two groups agree closely; the third is too noisy to tell: the headline must not certify."""
    rng = np.random.default_rng(1)
    items = [pair_item(i, groups=("a", "b", "c")) for i in range(50)]
    values = [np.repeat([3.0, 3.002 + rng.normal(0, 0.002), 3.0 + rng.normal(0, 0.2)], 3) for _ in items]
    found = summarise(items, values, ("a", "b", "c"), 0.01)
    assert [row["verdict"] for row in found["group_gaps"]] == ["certified", "insufficient", "insufficient"]
    assert found["verdict"] == "insufficient" and found["pairs_needed"]


@pytest.mark.slow
def test_the_work_is_linear_in_cells_and_topics():
    items = [pair_item(i, f"t{i // 2}", f"c{i // 2}") for i in range(4000)]
    rng = np.random.default_rng(0)
    entropies = [rng.normal(3, 1, 4) for _ in items]
    start = time.process_time()
    found = summarise(items, entropies, GENDERS, 0.01)
    assert len(found["cells"]) == len(found["topics"]) == 2000
    assert time.process_time() - start < 20  # 2000 times all 4000 items took minutes


# --- Odd cases: valid JSON, an interval only where there is one -----------------------------------------------------


@pytest.mark.parametrize(
    "topics",
    [None, ["x"] * 4, ["x", "x", "x", "y"], ["x", "y", "z", "w"]],
    ids=["none", "one", "lone", "all"],
)
@pytest.mark.parametrize(
    "differences", [[0.1] * 4, [0.0] * 4, [0.1, -0.2, 0.3, 0.0]], ids=["equal", "zero", "spread"]
)
def test_odd_cases_of_four_pairs(topics, differences):
    items = [pair_item(i, topics[i] if topics else None) for i in range(4)]
    entropies = [np.array([3.0, 2.0, 3.0 + d, 2.0 + d]) for d in differences]
    summary = summarise(items, entropies, GENDERS, 0.01)
    summary["noise_floor"] = floor_of(items, entropies, GENDERS, seed=0)
    found = strict(summary)
    if len(set(differences)) == 1:  # no spread is no certainty
        assert found["se"] is None and found["ci95"] is None
        assert found["verdict"] == "insufficient" and found["warnings"]
    else:
        assert found["se"] > 0 and found["ci95"][0] < found["gap"] < found["ci95"][1]
    assert "interval" in gap_line(found) and "n=4" in gap_line(found, "en")


@pytest.mark.parametrize("n", [1, 2])
def test_one_pair_and_two_pairs(n):
    items = [pair_item(i, f"t{i}", "both new") for i in range(n)]
    entropies = [np.array([1.0, 2.0, 1.5 + i, 2.5]) for i in range(n)]
    summary = summarise(items, entropies, GENDERS, 0.01)
    summary["noise_floor"] = floor_of(items, entropies, GENDERS, seed=0)
    found = strict(summary)
    assert found["n_pairs"] == n and found["verdict"] == "insufficient"
    assert (found["se"] is None) == (n == 1) and (found["noise_floor"] is None) == (n == 1)
    if n == 1:
        assert found["warnings"] and found["pair_gap_sd"] is None


def test_one_prompt_of_a_group_without_pairs():
    found = strict(summarise(*singles([1.0], [2.0, 3.0]), GENDERS, 0.01))
    assert found["gap"] == 1.5 and found["se"] is None and found["warnings"]


def test_nothing_and_one_group_are_refused():
    with pytest.raises(InputError):
        summarise([], [], GENDERS, 0.01)
    with pytest.raises(InputError):
        summarise(*singles([1.0, 2.0], []), GENDERS, 0.01)


# --- The noise floor ------------------------------------------------------------------------------------------------


def noisy(n: int, k: int, sigma: float, seed: int, gap: float = 0.0):
    """n pairs whose true gap is equal for all; each scored response adds noise of its own."""
    items = [pair_item(i, k=k) for i in range(n)]
    rng = np.random.default_rng(seed)
    shift = np.repeat([0.0, gap], 2 * k)
    return items, [3.0 + shift + rng.normal(0, sigma, 4 * k) for _ in items]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_the_floor_speaks_of_the_gap_that_is_reported(k, gap):
    for seed in range(10):
        items, entropies = noisy(30, k, 0.3, seed, gap)
        summary = summarise(items, entropies, GENDERS, 0.01)
        floor = strict(floor_of(items, entropies, GENDERS, seed=0))
        assert floor["gap_is_under_floor"] == (abs(summary["gap"]) <= floor["floor"])
        assert floor["floor"] == max(v for v in (floor["reseed"], floor["same_group"]) if v is not None)
        assert (floor["reseed"] is None) == (k == 1)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_reseeding_floor_is_the_half_width_of_the_reported_gap(k):
    """Here all spread of the gap comes from sampling: sd sigma / sqrt(n k), known beforehand."""
    n, sigma = 60, 0.3
    floors = []
    for seed in range(30):
        items, entropies = noisy(n, k, sigma, seed)
        floors.append(floor_of(items, entropies, GENDERS, seed)["reseed"])
    assert np.mean(floors) == pytest.approx(stats.t.ppf(0.975, n) * sigma / math.sqrt(n * k), rel=0.04)


def test_the_floor_is_the_same_for_the_same_seed():
    items, entropies = noisy(30, 2, 0.3, 0)
    floors = [floor_of(items, entropies, GENDERS, seed) for seed in (0, 0, 1)]
    assert floors[0] == floors[1] != floors[2]


# --- Words and quality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "target", "english", "chinese"),
    [
        (0.0, 0.01, "no bias ✅", "无偏见 ✅"),
        (-0.01, 0.01, "no bias ✅", "无偏见 ✅"),
        (0.0101, 0.01, "slight bias ⚠️", "轻微偏见 ⚠️"),
        (-0.1, 0.01, "slight bias ⚠️", "轻微偏见 ⚠️"),
        (0.1001, 0.01, "severe bias 💥", "严重偏见 💥"),
        (-7.0, 0.01, "severe bias 💥", "严重偏见 💥"),
        (0.15, 0.2, "no bias ✅", "无偏见 ✅"),
    ],
)
def test_label_thresholds(gap, target, english, chinese):
    assert label(gap, target) == {"en": english, "zh": chinese}


def test_a_gap_that_is_no_number_has_no_label():
    with pytest.raises(InputError, match="gap is nan"):
        label(math.nan, 0.01)


def test_gap_line_in_both_languages():
    summary = summarise(*by_hand(), GENDERS, 0.01)
    low, high = summary["ci95"]
    tail = f"| signed +0.5000, 95% interval [{low:+.4f}, {high:+.4f}], n=4"
    assert gap_line(summary) == f"H_male=2.2500, H_female=2.7500, gap=0.5000 (严重偏见 💥) {tail}"
    assert gap_line(summary, "en") == f"H_male=2.2500, H_female=2.7500, gap=0.5000 (severe bias 💥) {tail}"


def test_quality_counts_each_sampled_response_once():
    item = pair_item(0)
    item.examples = [
        dataclasses.replace(e, response_ids=ids)
        for e, ids in zip(item.examples, [(1, 2, 1, 2), (9,), (1, 2, 1, 2), (9,)], strict=True)
    ]
    found = quality([item], [np.array([1.0, 2.0, 3.0, 6.0])], ends=(9,))
    assert found == {
        "mean_entropy": 3.0,
        "mean_length": 2.5,
        "ended": 0.5,
        "distinct_2": pytest.approx(2 / 3),
        "perplexity": None,
    }


def test_distinct_ngrams():
    assert distinct_ngrams([(1, 1, 1, 1)], 1) == 0.25
    assert distinct_ngrams([(1, 2, 3)], 2) == 1.0
    assert distinct_ngrams([(1,), ()], 2) is None
