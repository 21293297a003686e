"""Several models on the same pairs and the same responses: who has which gap, and what is sure about the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isentropic import gap as statistics
from isentropic.measure.measurement import Measurement
from isentropic.measure.summary import group_entropies, topics_of

SCHEMA = "isentropic.compare/1"


def comparison(
    names: Sequence[str], measurements: Sequence[Measurement], costs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The comparison dict: each model's summary and cost, and its paired difference against the first.

    Args:
        names: one name a model; the first is the base that the others are held against.
        measurements: of the same items in the same order.
        costs: ``kl``, ``kl_ci95`` and ``perplexity`` of each model, None where not measured, and what `answers_of`
            says of its own answers: the measurements are of one model's responses.
    """
    rows = []
    for name, measurement, cost in zip(names, measurements, costs, strict=True):
        rows.append(
            {
                "name": name,
                "summary": measurement.summary,
                "cost": {
                    "kl_to_first": cost["kl"],
                    "kl_ci95": cost["kl_ci95"],
                    "perplexity": cost["perplexity"],
                    "mean_entropy": measurement.summary["H_mean"],
                    **{key: cost.get(key) for key in ("mean_length", "ended", "distinct_2")},
                },
            }
        )
    cells = [cell["cell"] for cell in measurements[0].summary["cells"]]
    return {
        "schema": SCHEMA,
        "models": rows,
        "differences": [
            {"model": name, "against": names[0], **change(measurements[0], measurement)}
            for name, measurement in zip(names[1:], measurements[1:], strict=True)
        ],
        "cells": [{"cell": cell, "rows": cell_rows(cell, names, measurements)} for cell in cells],
        "notes": [],
    }


def cell_rows(cell: str, names: Sequence[str], measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    found = []
    for name, measurement in zip(names, measurements, strict=True):
        for row in measurement.summary["cells"]:
            if row["cell"] == cell:
                found.append({"model": name, "gap": row["gap"], "ci95": row["ci95"]})
    return found


def change(first: Measurement, second: Measurement) -> dict[str, Any]:
    """How the signed gap changed, pair by pair, with interval and p-value."""
    groups = first.summary["groups"]
    a, b = (groups.index(name) for name in first.summary.get("widest", groups[:2]))
    tables = [group_entropies(m.items, m.entropies, groups) for m in (first, second)]
    if np.isnan(tables[0]).any():
        return unpaired_change(tables, a, b)
    before, after = (table[:, b] - table[:, a] for table in tables)
    return statistics.paired_change(before, after, topics_of(first.items)).to_dict()


def unpaired_change(tables: Sequence[np.ndarray], a: int, b: int) -> dict[str, Any]:
    """Without twins a prompt is still its own control: the gap between the groups' changes (Welch)."""
    moved = tables[1] - tables[0]
    columns = [moved[:, column][~np.isnan(moved[:, column])] for column in (a, b)]
    estimate = statistics.unpaired_gap(*columns)
    row = estimate.to_dict()
    gaps = [np.nanmean(table[:, b]) - np.nanmean(table[:, a]) for table in tables]
    return {
        "gap_change": estimate.gap,
        "se": row["se"],
        "ci95": row["ci95"],
        "p": estimate.p if estimate.known else None,
        "abs_change": float(abs(gaps[1]) - abs(gaps[0])),
    }
