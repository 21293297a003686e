"""Several models on the same pairs and the same responses: who has which gap,
and what is sure about the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isentropic import gap as statistics
from isentropic.gap import GroupGap
from isentropic.measure.cost import known_or_note
from isentropic.measure.expectation import expectation_change
from isentropic.measure.measurement import Measurement
from isentropic.measure.summary import are_twins, by_group
from isentropic.schema import COMPARE_SCHEMA, ComparedModel, Comparison, Cost, Difference, GroupChange


def comparison(
    names: Sequence[str], measurements: Sequence[Measurement], costs: Sequence[Mapping[str, Any]]
) -> Comparison:
    """The comparison: each model's summary and cost, and its paired difference against the first.

    Args:
        names: one name per model; the first is the base that the others are compared with.
        measurements: of the same items in the same order.
        costs: ``kl``, ``kl_ci95`` and ``perplexity`` of each model, None where not measured, and what
            `answers_of` says of its own answers: the measurements are of one model's responses.
    """
    notes: list[str] = []
    models: list[ComparedModel] = [
        {"name": name, "summary": measurement.summary, "cost": cost_row(name, measurement, cost, notes)}
        for name, measurement, cost in zip(names, measurements, costs, strict=True)
    ]
    return {
        "schema": COMPARE_SCHEMA,
        "models": models,
        "differences": [
            difference(name, names[0], measurements[0], measurement)
            for name, measurement in zip(names[1:], measurements[1:], strict=True)
        ],
        "cells": cell_rows(names, measurements),
        "notes": notes,
    }


def cost_row(name: str, measurement: Measurement, cost: Mapping[str, Any], notes: list[str]) -> Cost:
    """The cost of one model; what is infinite becomes None, with a note."""

    def known(key: str, what: str) -> float | None:
        return None if cost[key] is None else known_or_note(cost[key], f"{name}: {what}", notes)

    return {
        "kl_to_first": known("kl", "KL to the first model"),
        "kl_ci95": cost["kl_ci95"],
        "perplexity": known("perplexity", "perplexity"),
        "mean_entropy": measurement.summary["H_mean"],
        "mean_length": cost.get("mean_length"),
        "ended": cost.get("ended"),
        "distinct_2": cost.get("distinct_2"),
    }


def cell_rows(names: Sequence[str], measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The gap of each model in each part of the test set."""
    rows: dict[str | None, list[dict[str, Any]]] = {}
    for name, measurement in zip(names, measurements, strict=True):
        for cell in measurement.summary["cells"]:
            row = {"model": name, "gap": cell["gap"], "ci95": cell["ci95"]}
            rows.setdefault(cell["cell"], []).append(row)
    return [{"cell": cell, "rows": found} for cell, found in rows.items()]


def difference(name: str, against: str, first: Measurement, second: Measurement) -> Difference:
    """How the signed gap changed, prompt by prompt, with interval and p-value.

    It is the gap of the first model's widest pair of groups. Interval and p hold for the changes of all pairs
    of groups at once, which are listed too.
    """
    groups, widest = first.summary["groups"], first.summary["widest"]
    changes = group_changes(first, second, groups)
    row = next(row for row in changes if list(row.groups) == widest)
    figures = row.estimate.to_dict()
    before = first.summary["gap"] or 0.0
    after = before + row.estimate.gap
    return {
        "model": name,
        "against": against,
        **change_row(row),
        "df": figures["df"],
        "n_pairs": row.estimate.n,
        "n_clusters": row.estimate.n_clusters,
        "cluster_unit": row.estimate.cluster_unit,
        "abs_change": abs(after) - abs(before),
        "note": row.estimate.note,
        "group_changes": [change_row(change) for change in changes],
        "expectation_change": (  # each has the log-odds of its own widest pair
            expectation_change(first.log_odds, second.log_odds)
            if second.summary["widest"] == widest
            else None
        ),
    }


def group_changes(first: Measurement, second: Measurement, groups: Sequence[str]) -> list[GroupGap]:
    """The change of the gap of every two groups: each pair, or prompt without a twin, is its own control."""
    own = first.summary.get("responses") == "own"
    (before, topics), (after, _) = (by_group(m.items, m.entropies, groups, own=own) for m in (first, second))
    moved = {group: after[group] - before[group] for group in groups}
    return statistics.group_gaps(moved, topics, paired=are_twins(first.items))


def change_row(change: GroupGap) -> GroupChange:
    figures = change.estimate.to_dict()
    return {
        "groups": list(change.groups),
        "gap_change": figures["gap"],
        "se": figures["se"],
        "ci95": figures["ci95"],
        "p": change.p if change.estimate.known else None,
    }
