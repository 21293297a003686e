"""The training curves."""

from __future__ import annotations

from pathlib import Path

import pytest

import fake_run
from isentropic.report.curves import curve_series, draw_curves, group_names

# --- curves ---


def test_series_prefer_the_signed_gap_skip_what_is_not_finite_and_keep_the_later_row() -> None:
    rows = [
        {"step": 2, "gap": 0.2},
        {"step": 1, "gap": 0.4, "gap_signed": -0.4, "H_male": float("nan"), "val_ci95": [None, 1.0]},
        {"step": 2, "gap": 0.1, "gap_signed": -0.1, "H_a": 1.0, "note": "x"},
        {"gap": 9.0},
    ]
    series = curve_series(rows)
    assert series == {"gap": [(1.0, -0.4), (2.0, -0.1)], "H_a": [(2.0, 1.0)]}
    assert group_names(series) == ["a"]


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1, "gap": 0.4}],
        [{"step": 0, "val_gap": -0.1, "val_ci95": [-0.2, 0.0], "kl": 0.0}],
        fake_run.metrics(),
        fake_run.metrics(("男", "女", "x$y$", "b", "c", "d")),
    ],
)
def test_curves_are_drawn_whatever_is_there(rows: list[dict], tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    facts = draw_curves(rows, path, target_gap=0.01, title="运行 $x_1$ 💥")
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert facts["panels"][0] == "gap"
    assert ("entropy" in facts["panels"]) == bool(facts["groups"])
    assert facts["points"] == {name: len(points) for name, points in curve_series(rows).items()}
    draw_curves(rows, path, target_gap=0.01, title="运行 $x_1$ 💥")
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_a_drawing_that_fails_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_curves([], path)
    old = path.read_bytes()
    with pytest.raises(AttributeError):
        draw_curves([None], path)  # type: ignore[list-item]
    assert path.read_bytes() == old
    with pytest.raises(OSError):
        draw_curves([], tmp_path / "missing" / "curves.png")
