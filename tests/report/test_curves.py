"""The training curves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fake_run
from isentropic.report.curves import curve_series, draw_curves, draw_panels, group_names, shown_panels
from isentropic.report.words import Words

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
    draw_curves(rows, path, target_gap=0.01, title="运行 $x_1$ 💥")
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_panels_of_the_report_hold_every_point_and_no_colour_or_font_of_their_own(lang: str) -> None:
    series = curve_series(fake_run.metrics(("男", "<b>", "x$y$")))
    assert shown_panels(series) == ["gap", "entropy", "loss", "kl"]
    words = Words(lang).texts
    drawings = draw_panels(series, words, target_gap=0.01, best=14)
    assert drawings == draw_panels(series, words, target_gap=0.01, best=14)
    page = "".join(drawings)
    ids = re.findall(r'id="([^"]*)"', page)
    assert len(ids) == len(set(ids)) and set(re.findall(r"#([\w-]+)", page)) <= set(ids)
    assert not re.search(r"<style|<metadata|font|#[0-9a-f]{6}|<b>|DejaVu", page)
    assert page.count("<title") == 4 and "var(--strip)" in drawings[0] and words["kept"] in page
    for name, drawing in zip(shown_panels(series), drawings, strict=True):
        assert words[f"axis_{name}_step"] in drawing
    points = [
        sum(len(series[key]) for key in keys)
        for keys in (
            ["gap", "val_gap"],
            [k for k in series if "H_" in k and "mean" not in k],
            ["loss"],
            ["kl"],
        )
    ]
    points[0] += 1  # the band of the interval
    assert [drawing.count("<use") for drawing in drawings] == points


def test_no_panel_without_a_point() -> None:
    assert draw_panels({}, Words("en").texts) == [] and shown_panels({"H_mean": [(1.0, 2.0)]}) == []
