"""Figures: every estimate drawn, every interval covered."""

from __future__ import annotations

import math
import re

import pytest

from isentropic.report import figures

# --- figures ---


def signed(value: float) -> str:
    return f"{value:+.3f}"


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.03), (0, 1), (-7e-6, 3e-6), (100, 350), (2, 2)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = figures.ticks(low, high, 5)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)
    steps = {round(b - a, 12) for a, b in zip(found, found[1:], strict=False)}
    assert len(steps) <= 1
    if steps:
        step = steps.pop()
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


def test_forest_draws_every_estimate_and_covers_every_interval() -> None:
    rows = [
        {"label": "a", "marks": [{"gap": -0.1, "ci95": (-0.3, 0.1)}, {"gap": 0.2, "ci95": None}]},
        {"label": "b", "marks": [None, {"gap": 0.0, "ci95": None}]},
    ]
    drawings, facts = figures.forest(
        rows, ["x", "y"], name="f", title="T", axis="gap", ends=("l", "r"), fmt=signed, target=0.01
    )
    assert facts["rows"] == {"a": [-0.1, 0.2], "b": [None, 0.0]}
    assert facts["range"][0] < -0.3 and facts["range"][1] > 0.2
    for drawing in drawings:
        assert drawing.count('class="mark"') == 3
        assert drawing.count('class="whisker"') == 1
        assert "a x: -0.100 [-0.300, +0.100]" in drawing


def test_histogram_counts_every_pair_once() -> None:
    columns = [{"label": "x", "values": [-0.2, 0.0, 0.1, 0.1]}, {"label": "y", "values": [0.05] * 7}]
    _, facts = figures.histogram(columns, name="h", title="T", axis="gap", fmt=signed)
    assert sum(facts["counts"]["x"]) == 4 and sum(facts["counts"]["y"]) == 7
    assert max(facts["counts"]["y"]) == 7
    assert facts["means"] == {"x": 0.0, "y": pytest.approx(0.05)}
    for value in (-0.2, 0.1):
        assert facts["edges"][0] <= value <= facts["edges"][-1]


def test_long_labels_are_cut_by_the_room_they_take() -> None:
    rows = [{"label": "男" * 80, "marks": [{"gap": 0.1, "ci95": (0.0, 0.2)}]}]
    drawings, _ = figures.forest(rows, ["x"], name="f", title="T", axis="g", ends=("l", "r"), fmt=signed)
    shown = re.findall(r">(男+…)</text>", drawings[0])
    assert len(shown) == 1 and len(shown[0]) <= 17
    assert "男" * 80 in drawings[0]  # whole in its title
