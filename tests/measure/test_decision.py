"""The decision of a run: looks, their share of the error, and a run that looks again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from isentropic.gap import GapEstimate, paired_gap, two_phase_gaps, verdict
from isentropic.measure.decision import decide, error_of_look, look_sizes
from isentropic.measure.summary import summarise
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import Item
from isentropic.responses.response import Example
from oracles import rng
from runs import exit_code, flags, read
from tiny import lines_file


def tables(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"male": np.zeros(len(x)), "female": x}


def test_pairs_measured_before_alone_correct_the_mean_by_the_slope() -> None:
    x = rng(1).normal(size=30)
    y = 0.3 + 0.5 * x[:12]  # on a line: the gap after all 30 is known without error
    row = two_phase_gaps(tables(x), tables(y), range(12))[0].estimate
    assert row.gap == pytest.approx(0.3 + 0.5 * x.mean())
    # What is left is how the 30 vary, by the slope; one degree of freedom is the slope's.
    assert row.se == pytest.approx(0.5 * x.std(ddof=1) / np.sqrt(30) * np.sqrt(11 / 10))
    assert row.n == 12


def test_where_all_pairs_were_measured_after_it_is_the_mean() -> None:
    x, y = rng(2).normal(size=(2, 40))
    row = two_phase_gaps(tables(x), tables(y), range(40))[0].estimate
    assert row.gap == pytest.approx(y.mean())
    # y - b x and b x are not correlated within the sample, so their errors add up to that of y.
    assert row.se == pytest.approx(paired_gap(y).se * np.sqrt(39 / 38))


@pytest.mark.parametrize("topics", [None, 12])
def test_its_intervals_cover(topics: int | None) -> None:
    n, m, draws = 72, 24, 400
    held = shorter = 0
    for k in range(draws):
        r = rng(k)
        group = np.repeat(np.arange(topics or n), n // (topics or n))
        effect = r.normal(size=(2, topics or n))[:, group] * (0.5 if topics else 0.0)
        x = effect[0] + r.normal(size=n)
        y = 0.9 * x + 0.3 * (effect[1] + r.normal(size=n))
        measured = np.flatnonzero(
            np.isin(group, r.permutation(group[:: n // (topics or n)])[: m * (topics or n) // n])
        )
        clusters = group if topics else None
        row = two_phase_gaps(tables(x), tables(y[measured]), measured, clusters)[0].estimate
        held += row.ci95[0] <= 0 <= row.ci95[1]
        shorter += row.se < paired_gap(y[measured], None if clusters is None else group[measured]).se
    assert 0.92 * draws <= held <= 0.985 * draws  # 95% +- three standard errors
    assert shorter > 0.7 * draws


def test_the_pairs_needed_are_those_to_be_measured_after_training() -> None:
    """More test pairs bring no more of the pairs that were measured before alone, and those count too."""
    apart, target, mean = 500, 0.007, 0.002

    def estimate(m: int, seed: int) -> GapEstimate:
        x, noise = rng(seed).normal(0, 0.075, m + apart), rng(seed + 10_000).normal(0, 0.02, m)
        return two_phase_gaps(tables(x), tables(mean + x[:m] + noise), range(m))[0].estimate

    promised = [verdict(replace(estimate(120, seed), gap=mean), target).pairs_needed for seed in range(40)]
    needed = int(np.median([number or 0 for number in promised]))
    decided = [verdict(estimate(needed, seed), target).verdict == "certified" for seed in range(300)]
    assert np.mean(decided) == pytest.approx(0.8, abs=0.06)


AGES = ("young", "middle", "old")


def items_of(n: int, *, twins: bool) -> list[Item]:
    """Pairs of three groups, or as many prompts of each without twins."""
    prompts = [[Prompt(f"{g} {i}", g, f"p{i}" if twins else None) for g in AGES] for i in range(n)]
    made = [tuple(row) for row in prompts] if twins else [(p,) for row in prompts for p in row]
    return [Item(row, [Example(p, (1,), (2,), p.group) for p in row], i) for i, row in enumerate(made)]


def test_the_figures_of_a_decision_are_of_the_groups_that_the_summary_names() -> None:
    items, other = items_of(60, twins=True), 0
    for seed in range(12):
        x = 3 + rng(seed).normal(0, 0.1, (60, 3)) + [0, 0.02, -0.02]
        y = x[:10] + rng(seed + 99).normal(0, 0.001, (10, 3))
        summary = summarise(items[:10], list(y), AGES, 0.01)
        earlier, before = (items[10:], list(x[10:])), (items[:10], list(x[:10]))
        found = decide(earlier, before, (items[:10], list(y)), AGES, 0.01)
        first, second = (AGES.index(name) for name in summary["widest"])
        assert found["gap"] == pytest.approx((x[:, second] - x[:, first]).mean(), abs=0.003)
        means = x.mean(0)
        other += not np.isclose(np.ptp(means), abs(means[second] - means[first]))
    assert other > 2  # where all pairs together would name two other groups


def test_prompts_of_groups_that_are_not_shown_are_not_counted() -> None:
    items = items_of(8, twins=False)
    values = list(rng(1).normal(3, 1, (24, 1)))
    found = decide(None, (items, values), (items, values), AGES, 0.01)
    assert found["n_before"] == found["n_pairs"] == 16


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_all_looks_together_take_five_per_cent(looks: int) -> None:
    assert sum(error_of_look(k, looks) for k in range(looks)) == pytest.approx(0.05)


def test_looks_grow_to_the_budget() -> None:
    assert look_sizes(128, 512) == [128, 256, 512] and look_sizes(8, 9) == [8, 9] and look_sizes(8, 8) == [8]


@pytest.fixture
def unmarked(tmp_path, tiny_file) -> str:
    """The same pairs without splits: these are then drawn."""
    lines = [json.loads(line) for line in tiny_file.read_text(encoding="utf-8").splitlines()]
    kept = [{key: value for key, value in line.items() if key not in ("split", "cell")} for line in lines]
    (tmp_path / "unmarked.jsonl").write_text("\n".join(map(json.dumps, kept)), encoding="utf-8")
    return str(tmp_path / "unmarked.jsonl")


def test_a_run_that_looks_again_tells_what_one_look_at_all_pairs_tells(go, unmarked) -> None:
    """The further pairs need the untrained model once more; whoever measures all at once has the same figures."""
    _, again, screen = go("looks", train_data=unmarked, test_pairs=4, until_decided=8, max_steps=2)
    _, once, _ = go("once", train_data=unmarked, test_pairs=8, max_steps=2)
    for name in ("gap_before.json", "gap_after.json", "comparison.json"):
        left, right = read(again / name), read(once / name)
        if name == "gap_after.json":
            found, single = left.pop("decision"), right.pop("decision")
        if name == "comparison.json":
            for side in (left, right):
                side["models"][1]["summary"].pop("decision")
        assert left == right, name
    assert (found["look"], found["looks"], found["n_pairs"]) == (3, 3, 8)
    assert found["n_before"] == single["n_before"] > 8
    # The same estimate; its interval is wider, since it holds at all looks.
    assert (found["gap"], found["se"]) == pytest.approx((single["gap"], single["se"]))
    wider = stdtrit(found["df"], 1 - error_of_look(2, 3) / 2) / stdtrit(found["df"], 0.975)
    halves = [(row["ci95"][1] - row["ci95"][0]) / 2 for row in (found, single)]
    assert halves[0] == pytest.approx(wider * halves[1])
    assert "look 1 of 3" in screen.text and "further test pairs" in screen.text


def test_a_run_that_is_decided_looks_once(go) -> None:
    _, folder, screen = go("early", test_pairs=4, until_decided=8, max_steps=1, target_gap=50.0, force=True)
    found = read(folder / "gap_after.json")
    assert found["decision"]["verdict"] == read(folder / "result.json")["verdict"] == "certified"
    assert found["n_pairs"] == 4
    assert "further test pairs" not in screen.text


def test_a_split_that_the_user_made_was_not_drawn(go) -> None:
    """Nothing says that the user's test pairs are like the training pairs: the test pairs stand alone."""
    _, folder, _ = go("marked", max_steps=1)
    found = read(folder / "gap_after.json")
    assert found["decision"]["n_before"] == found["n_pairs"] == 12
    assert found["decision"]["gap"] == pytest.approx(found["gap"])


def test_a_budget_below_the_first_look_is_refused(tmp_path, tiny_folder, tiny_file, capsys) -> None:
    words = flags(tiny_folder, tiny_file, tmp_path / "runs", test_pairs=6, until_decided=4)
    assert exit_code(["train", *words]) == 2
    assert "--until_decided is 4" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_prompts_without_twins_are_looked_at_as_asked(go, tmp_path, tiny_file) -> None:
    """A look counts prompts of each group; without --until_decided there is one, of --test_pairs prompts."""
    rows = [json.loads(line) for line in tiny_file.read_text(encoding="utf-8").splitlines()]
    singles = [
        {"prompt": row[group], "gender": group, "split": row["split"]}
        for row in rows
        for group in ("male", "female")
        if group == "male" or row["topic"] in ("works", "asked", "family", "sum")
    ]
    data = lines_file(tmp_path / "singles.jsonl", singles)
    _, folder, _ = go("once", train_data=str(data), test_pairs=4, max_steps=1)
    assert read(folder / "gap_after.json")["n_pairs"] == 8
    _, folder, screen = go("looks", train_data=str(data), test_pairs=4, until_decided=40, max_steps=1)
    found = read(folder / "gap_after.json")
    assert (found["decision"]["look"], found["n_pairs"]) == (3, 20), screen.text
