"""Comparisons: the paired difference by hand, the base against itself, three groups, no pairs, strict JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from isentropic.gap import unpaired_gap
from isentropic.measure.compare import comparison
from isentropic.measure.expectation import LogOdds
from isentropic.measure.measurement import Measurement, make_items, measure
from isentropic.measure.summary import summarise
from isentropic.models.identity import model_sha256
from isentropic.models.model import LoadedModel
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import Item
from isentropic.responses.response import Example, Sampling
from isentropic.responses.sample import ResponseSampler

GENDERS = ("male", "female")
FREE = {"kl": 0.0, "kl_ci95": [0.0, 0.0], "perplexity": None}


def measured(differences, groups=GENDERS, topics=None, cells=None) -> Measurement:
    """Pairs with H = 3 for the first group and 3 + difference (one column a further group) for the others."""
    items, entropies = [], []
    for i, row in enumerate(np.reshape(differences, (len(differences), -1))):
        twins = tuple(
            Prompt(f"{g} {i}", g, f"p{i}", topics and topics[i], "test", cells and cells[i]) for g in groups
        )
        items.append(Item(twins, [Example(p, (5,), (6,), s.group) for p in twins for s in twins], i))
        entropies.append(np.repeat(3.0 + np.array([0.0, *row]), len(groups)))
    return Measurement(items, entropies, summarise(items, entropies, groups, 0.01))


def unpaired(first, second) -> Measurement:
    prompts = [Prompt(f"m{i}", "male") for i in range(len(first))]
    prompts += [Prompt(f"f{i}", "female") for i in range(len(second))]
    items = [Item((p,), [Example(p, (5,), (6,), p.group)], i) for i, p in enumerate(prompts)]
    entropies = [np.array([value]) for value in [*first, *second]]
    return Measurement(items, entropies, summarise(items, entropies, GENDERS, 0.01))


def test_the_difference_is_the_paired_t_test():
    before, after = np.array([-0.2, -0.1, -0.3, -0.2]), np.array([0.0, 0.05, -0.02, -0.01])
    made = comparison(["base", "final"], [measured(before), measured(after)], [FREE, FREE])
    (row,) = json.loads(json.dumps(made, allow_nan=False))["differences"]
    test = stats.ttest_rel(after, before)
    assert (row["model"], row["against"], row["n_pairs"]) == ("final", "base", 4)
    assert row["gap_change"] == pytest.approx((after - before).mean())
    assert row["p"] == pytest.approx(test.pvalue) and row["ci95"] == pytest.approx(
        list(test.confidence_interval(0.95))
    )
    assert row["abs_change"] == pytest.approx(abs(after.mean()) - abs(before.mean()))


def test_topics_are_the_clusters_of_the_difference_too():
    topics = ["x", "x", "y", "y"]
    models = [
        measured([-0.2, -0.1, -0.3, -0.2], topics=topics),
        measured([0.0, 0.0, 0.1, 0.0], topics=topics),
    ]
    (row,) = comparison(["a", "b"], models, [FREE, FREE])["differences"]
    assert (row["n_clusters"], row["cluster_unit"]) == (2, "topic")
    assert row["df"] == pytest.approx(1)


def test_a_model_against_itself_has_not_changed():
    model = measured([-0.2, -0.1, -0.3])
    (row,) = json.loads(json.dumps(comparison(["a", "b"], [model, model], [FREE, FREE]), allow_nan=False))[
        "differences"
    ]
    assert row["gap_change"] == 0 and row["abs_change"] == 0 and row["se"] is None and row["p"] is None


def test_every_model_is_held_against_the_first():
    models = [measured(np.array([0.1, 0.3, 0.2]) * k) for k in (1, 2, 5)]
    made = comparison(["a", "b", "c"], models, [FREE] * 3)
    assert [(d["model"], d["against"]) for d in made["differences"]] == [("b", "a"), ("c", "a")]
    assert [d["gap_change"] for d in made["differences"]] == pytest.approx([0.2, 0.8])
    assert [m["summary"]["gap"] for m in made["models"]] == pytest.approx([0.2, 0.4, 1.0])


def test_three_groups_compare_the_firsts_widest_pair():
    groups = ("a", "b", "c")
    before = measured([[0.0, 0.5], [0.1, 0.4], [0.0, 0.6]], groups)  # widest: a and c
    after = measured([[0.9, 0.1], [0.8, 0.1], [0.9, 0.0]], groups)  # widest: a and b
    (row,) = comparison(["x", "y"], [before, after], [FREE, FREE])["differences"]
    assert before.summary["widest"] == ["a", "c"]
    assert row["gap_change"] == pytest.approx(np.mean([0.1, 0.1, 0.0]) - 0.5)


@pytest.mark.parametrize(("second", "known"), [([0.9, 0.1], False), ([0.1, 0.9], True)])
def test_an_expectation_of_other_groups_is_no_change_of_it(second, known):
    """The log-odds are those of each model's own widest pair: a and c before; a and b, or a and c, after."""
    groups = ("a", "b", "c")
    before, after = measured([[0.0, 0.5], [0.1, 0.4]], groups), measured([second, second], groups)
    before.log_odds = {"twins": LogOdds(np.array([0.1, 0.2]), None)}
    after.log_odds = {"twins": LogOdds(np.array([0.4, 0.5]), None)}
    (row,) = comparison(["x", "y"], [before, after], [FREE, FREE])["differences"]
    assert (row["expectation_change"] is not None) is known
    assert not known or row["expectation_change"]["change"] == pytest.approx(0.3)


def test_without_pairs_each_prompt_is_its_own_control():
    before, after = unpaired([3.0, 3.2, 3.1], [3.4, 3.0]), unpaired([3.1, 3.3, 3.4], [3.3, 3.0])
    made = comparison(["a", "b"], [before, after], [FREE, FREE])
    (row,) = json.loads(json.dumps(made, allow_nan=False))["differences"]
    welch = stats.ttest_ind([-0.1, 0.0], [0.1, 0.1, 0.3], equal_var=False)
    assert row["gap_change"] == pytest.approx(after.summary["gap"] - before.summary["gap"])
    assert row["p"] == pytest.approx(welch.pvalue) and row["ci95"] == pytest.approx(
        list(welch.confidence_interval(0.95))
    )
    assert row["abs_change"] == pytest.approx(abs(after.summary["gap"]) - abs(before.summary["gap"]))


def test_cells_line_the_models_up():
    cells = ["new", "new", "both", "both"]
    models = [measured(np.array([0.1, 0.2, 0.3, 0.5]) * k, cells=cells) for k in (1, -1)]
    made = comparison(["a", "b"], models, [FREE, FREE])
    assert [cell["cell"] for cell in made["cells"]] == ["new", "both"]
    assert [[row["model"] for row in cell["rows"]] for cell in made["cells"]] == [["a", "b"]] * 2
    assert [row["gap"] for row in made["cells"][1]["rows"]] == pytest.approx([0.4, -0.4])


def test_two_real_models_on_the_same_responses(tiny_loaded, tiny_model, tiny_tokenizer, tiny_prompts):
    pairs = tiny_prompts.split("test")
    items = make_items(pairs, ResponseSampler(tiny_loaded.model, tiny_tokenizer, Sampling()), shared=True)
    other = tiny_model(seed=1)
    models = [
        measure(loaded, pairs, items=items)
        for loaded in (tiny_loaded, LoadedModel(other, tiny_tokenizer, "other", model_sha256(other)))
    ]
    made = json.loads(json.dumps(comparison(["a", "b"], models, [FREE, FREE]), allow_nan=False))
    gaps = [np.array([pair["gap"] for pair in model["summary"]["pair_gaps"]]) for model in made["models"]]
    assert made["differences"][0]["gap_change"] == pytest.approx((gaps[1] - gaps[0]).mean())
    assert made["differences"][0]["n_clusters"] == 6 and len(made["cells"]) == 2


def test_without_pairs_topics_are_the_clusters_of_the_difference():
    rng = np.random.default_rng(2)
    prompts = [Prompt(f"{g} {i}", g, topic=f"t{i % 6}") for g in GENDERS for i in range(30)]
    items = [Item((p,), [Example(p, (5,), (6,), p.group)], i) for i, p in enumerate(prompts)]
    models = []
    for _ in range(2):
        effect = {(g, f"t{t}"): rng.normal(0, 0.5) for g in GENDERS for t in range(6)}
        entropies = [np.array([3 + effect[p.group, p.topic] + rng.normal(0, 0.1)]) for p in prompts]
        models.append(Measurement(items, entropies, summarise(items, entropies, GENDERS, 0.01)))
    (row,) = comparison(["a", "b"], models, [FREE, FREE])["differences"]
    moved = np.concatenate(models[1].entropies) - np.concatenate(models[0].entropies)
    topics = [p.topic for p in prompts[:30]]
    oracle = unpaired_gap(moved[:30], moved[30:], topics, topics)
    assert (row["n_clusters"], row["cluster_unit"]) == (6, "topic")
    assert row["se"] == pytest.approx(oracle.se) and row["p"] == pytest.approx(oracle.p)
    assert row["se"] > 2 * unpaired_gap(moved[:30], moved[30:]).se


@pytest.mark.slow
def test_changes_of_four_groups_hold_at_once():
    """Nothing changed but noise: the change of the widest pair, and every other, is sure one time in twenty."""
    rng = np.random.default_rng(4)
    groups, sure = ("a", "b", "c", "d"), 0
    for _ in range(150):
        before, after = (measured(rng.normal(0, 0.1, (20, 3)), groups) for _ in range(2))
        (row,) = comparison(["x", "y"], [before, after], [FREE, FREE])["differences"]
        assert len(row["group_changes"]) == 6 and row["groups"] == before.summary["widest"]
        low, high = row["ci95"]
        assert (row["p"] < 0.05) == (not low <= 0 <= high)
        sure += any(change["p"] < 0.05 for change in row["group_changes"])
    assert sure / 150 < 0.1


def test_an_infinite_cost_is_null_with_a_note():
    costs = [FREE, {"kl": math.inf, "kl_ci95": None, "perplexity": math.inf}]
    made = comparison(["a", "b"], [measured([0.1, 0.2]), measured([0.1, 0.3])], costs)
    cost = json.loads(json.dumps(made, allow_nan=False))["models"][1]["cost"]
    assert cost["kl_to_first"] is None and cost["perplexity"] is None
    assert len(made["notes"]) == 2 and all(note.startswith("b: ") for note in made["notes"])
