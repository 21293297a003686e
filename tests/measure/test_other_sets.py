"""Gaps that a run does not aim at: which sets, and what became of them."""

from __future__ import annotations

import numpy as np
import pytest

from isentropic.measure.measurement import Measurement
from isentropic.measure.other_sets import other_set_row, other_sets
from isentropic.measure.summary import summarise
from isentropic.prompts.builtin import BUILTIN
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import Item
from isentropic.responses.response import Example

GROUPS = ("young", "middle-aged", "old")


def measured(table) -> Measurement:
    """A measurement whose prompts have the given (pairs, groups) mean entropies, each on its own response."""
    items = []
    for row in range(len(table)):
        prompts = tuple(Prompt(f"{g} {row}", g, f"pair {row}", f"topic {row}", "test") for g in GROUPS)
        items.append(Item(prompts, [Example(p, (1,), (2,), p.group) for p in prompts], row))
    entropies = [np.array(values, dtype=float) for values in table]
    summary = summarise(items, entropies, GROUPS, 0.01)
    return Measurement(items, entropies, {"data": "age prompts", **summary})  # type: ignore[typeddict-item]


def moved_by(*shifts: float) -> dict:
    """A base whose gaps are -0.02 and +0.03 against the first group, and the same after each group shifted."""
    rng = np.random.default_rng(0)
    base = rng.normal(3.0, 0.1, (24, 1)) + np.array([0.0, -0.02, 0.03]) + rng.normal(0, 0.01, (24, 3))
    after = base + np.array(shifts) + rng.normal(0, 0.001, (24, 3))
    row = other_set_row(measured(base), measured(after))
    change = (after - base).mean(axis=0)
    for found in row["group_gaps"]:
        first, second = (GROUPS.index(group) for group in found["groups"])
        assert found["gap_change"] == pytest.approx(change[second] - change[first], abs=1e-12)
        assert found["gap_after"] - found["gap_before"] == pytest.approx(found["gap_change"], abs=1e-12)
    return row


def test_a_gap_that_opened_is_told_first():
    """The first pair of groups closes by far more than the second opens."""
    row = moved_by(0.0, 0.02, 0.006)
    by_groups = {tuple(found["groups"]): found["moved"] for found in row["group_gaps"]}
    assert by_groups["young", "middle-aged"] == "closed" and by_groups["young", "old"] == "opened"
    assert row["groups"] == ["young", "old"] and row["moved"] == "opened" and row["n_pairs"] == 24


def test_what_moved_towards_zero_or_not_at_all_is_not_opened():
    assert moved_by(0.0, 0.01, -0.01)["moved"] == "closed"
    assert moved_by(0.01, 0.01, 0.01)["moved"] == "unchanged"  # more hesitation, the same gaps


def test_a_model_that_did_not_change_has_no_moved_gap():
    table = np.random.default_rng(1).normal(3.0, 0.1, (24, 3))
    row = other_set_row(measured(table), measured(table))
    assert row["moved"] == "unchanged" and row["gap_change"] == 0.0


@pytest.mark.parametrize("name", BUILTIN)
def test_the_other_sets_share_no_group(name):
    own = BUILTIN[name][0]
    found = other_sets(own, 8)
    groups = [group for part in found.values() for group in part.groups]
    assert len({*own, *groups}) == len(own) + len(groups) and len(found) == 2
    assert all(part.size() == 8 and {p.split for p in part.prompts} == {"test"} for part in found.values())
    assert other_sets(own, 0) == {}
