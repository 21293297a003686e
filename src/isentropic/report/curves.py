"""The training curves: metrics in; `curves.png`, and the same panels as SVG for the report, out."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, list[tuple[float, ...]]]
MOST_POINTS = 500

GROUP_COLOURS = ("#0072b2", "#c8551b", "#00805e", "#a04a86", "#7a6a00")
INK, MUTED, HELD_OUT, TARGET, RULE, ACCENT = "#22262b", "#8a929c", "#0b6e69", "#dfeeec", "#e2e5e8", "#0b6e68"
COLOURS = {
    **{colour: f"g{i}" for i, colour in enumerate(GROUP_COLOURS)},
    **{INK: "ink", MUTED: "muted", HELD_OUT: "accent", TARGET: "strip", RULE: "rule", ACCENT: "accent"},
}
"""In the report each colour is a variable of the style sheet, which knows light and dark."""
_CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei",
              "Microsoft YaHei", "PingFang SC")  # fmt: skip


def finite(value: Any) -> float | None:
    """Return `value` as a float, or None if it is not a finite number.

    Example:
        >>> finite(2), finite(float("nan")), finite("2"), finite(None)
        (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        return None
    return number if math.isfinite(number) else None


def curve_series(metrics: Iterable[Mapping[str, Any]]) -> Series:
    """Collect the series of a run from the rows of `metrics.jsonl`.

    Args:
        metrics: rows with a `step`; any number in them is a point of the series of that name (gaps and
            entropies in nats). `val_ci95` gives a band of (step, low, high).

    Returns:
        name -> points (step, value), ordered by step. `gap` holds the signed gap wherever rows have one. A
        step written twice, as after a resume, counts once: the later row wins. Values that are not finite are
        left out. A long series is thinned: at most MOST_POINTS evenly spaced points and the last one.

    Example:
        >>> curve_series([{"step": 1, "gap": 0.4, "gap_signed": -0.4}, {"step": 1, "val_ci95": [-0.5, -0.3]}])
        {'gap': [(1.0, -0.4)], 'val_ci95': [(1.0, -0.5, -0.3)]}
    """
    points: dict[str, dict[float, tuple[float, ...]]] = {}
    for row in metrics:
        step = finite(row.get("step"))
        if step is None:
            continue
        for name, value in row.items():
            if name == "step" or (name == "gap" and finite(row.get("gap_signed")) is not None):
                continue
            values = tuple(map(finite, value)) if isinstance(value, (list, tuple)) else (finite(value),)
            if not values or None in values:
                continue
            known = points.setdefault("gap" if name == "gap_signed" else name, {})
            known[step] = (step, *(v for v in values if v is not None))
    series = {}
    for name, known in points.items():
        *steps, last = sorted(known)
        series[name] = [known[step] for step in [*steps[:: 1 + len(steps) // MOST_POINTS], last]]
    return series


def group_names(series: Mapping[str, Any]) -> list[str]:
    """Return the groups that have an entropy curve, in the order they were logged.

    Example:
        >>> group_names({"loss": [], "H_male": [], "H_female": [], "H_mean": [], "val_H_male": []})
        ['male', 'female']
    """
    names = [
        name.removeprefix("val_").removeprefix("H_") for name in series if name.startswith(("H_", "val_H_"))
    ]
    return [name for name in dict.fromkeys(names) if name != "mean"]


def draw_curves(
    metrics: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    target_gap: float | None = None,
    title: str = "",
) -> None:
    """Draw gap, group entropies and, where logged, KL against the step, as a PNG.

    The top panel shows the signed gap of each training step and, with its 95 % interval, of the held-out
    prompts; the strip is `-target_gap..target_gap`.

    Args:
        metrics: rows of `metrics.jsonl` so far; may be empty.
        path: the PNG. It is replaced in one move, so a reader never sees half a picture.
        target_gap: half the height of the strip, in nats.
        title: one line above the panels.
    """
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = curve_series(metrics)
    panels = ["gap", *(name for name in shown_panels(series) if name in ("entropy", "kl"))]
    heights = [{"gap": 3.0, "entropy": 2.4, "kl": 1.3}[panel] for panel in panels]
    size = (7.6, 1.0 + 0.82 * sum(heights))
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(panels), 1, height_ratios=heights, hspace=0.16, left=0.115, right=0.975,
        top=1 - (0.42 if title else 0.15) / size[1], bottom=0.52 / size[1],
    )  # fmt: skip
    if title:
        figure.text(0.115, 1 - 0.27 / size[1], _drawable(title), size=11, weight="bold", color=INK,
                    parse_math=False, family=_families())  # fmt: skip
    for i, name in enumerate(panels):
        ax = figure.add_subplot(grid[i])
        draw_panel(ax, name, series, target_gap)
        ax.set_ylabel(
            {"gap": "gap, nats", "entropy": "entropy, nats", "kl": "KL to base"}[name], size=9, color=INK
        )
        ax.tick_params(labelbottom=name == panels[-1])
        if ax.get_legend_handles_labels()[0]:
            legend = ax.legend(loc="best", fontsize=8, frameon=False, ncols=3 if name == "gap" else 2)
            for text in legend.get_texts():
                text.set_parse_math(False)
                text.set_fontfamily(_families())
    ax.set_xlabel("step", size=9, color=INK)

    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(partial, format="png", dpi=130, metadata={"Software": None})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def draw_panels(
    series: Series, texts: Mapping[str, str], *, target_gap: float | None = None, best: float | None = None
) -> list[Markup]:
    """Draw the same curves, and the loss, for the report: one SVG a panel,
    its colours left to the style sheet.

    Args:
        series: what `curve_series` gives.
        texts: the texts of a language, for titles and axes.
        target_gap: half the height of the strip, in nats.
        best: a step to mark.

    Returns:
        The drawings of the panels that have points; the same series give the same bytes.
    """
    return [_panel_svg(name, series, texts, target_gap, best) for name in shown_panels(series)]


def shown_panels(series: Series) -> list[str]:
    """The panels that have something to show."""
    return [name for name in ("gap", "entropy", "loss", "kl") if name in map(_panel_of, series)]


def _panel_of(name: str) -> str | None:
    if name.removeprefix("val_").startswith("H_"):
        return None if name.endswith("H_mean") else "entropy"
    return {"gap": "gap", "val_gap": "gap", "loss": "loss", "kl": "kl"}.get(name)


def draw_panel(ax: Axes, name: str, series: Series, target_gap: float | None = None) -> None:
    """Draw one panel: "gap", "entropy", "loss" or "kl". Training batches are thin, held-out prompts thick."""
    from matplotlib.ticker import MaxNLocator

    if name == "gap":
        _draw_gap(ax, series, target_gap)
    elif name == "entropy":
        for i, group in enumerate(group_names(series)):
            colour, held_out = GROUP_COLOURS[i % len(GROUP_COLOURS)], f"val_H_{group}" in series
            shown = _drawable(group)
            _line(ax, series.get(f"H_{group}"), color=colour, label=None if held_out else shown,
                  alpha=0.4 if held_out else 1, size=2.5)  # fmt: skip
            _line(
                ax,
                series.get(f"val_H_{group}"),
                color=colour,
                label=f"{shown}, held-out",
                size=4.5,
                width=1.8,
            )
    elif name == "loss":
        _line(ax, series["loss"], color=MUTED, size=2.5)
    else:
        _line(ax, series["kl"], color=HELD_OUT, size=4, width=1.8)
        ax.set_ylim(bottom=min(0.0, *(y for _, y in series["kl"])))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=INK, labelsize=8.5, length=3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.margins(x=0.02)
    steps = [point[0] for points in series.values() for point in points]
    if steps:
        pad = max(0.03 * (max(steps) - min(steps)), 0.4)
        ax.set_xlim(min(steps) - pad, max(steps) + pad)


def _draw_gap(ax: Axes, series: Series, target_gap: float | None) -> None:
    if target_gap:
        ax.axhspan(-target_gap, target_gap, color=TARGET, lw=0, label=f"target, ±{target_gap:g}")
    ax.axhline(0, color=MUTED, lw=0.8)
    _line(ax, series.get("gap"), color=MUTED, label="training batch", size=2.5)
    if band := [point for point in series.get("val_ci95", []) if len(point) == 3]:
        steps, low, high = zip(*band, strict=True)
        ax.fill_between(steps, low, high, color=HELD_OUT, alpha=0.18, lw=0)
        # a band of one point has no area: whiskers show every interval
        ax.vlines(steps, low, high, color=HELD_OUT, lw=1, alpha=0.6)
    _line(ax, series.get("val_gap"), color=HELD_OUT, label="held-out, 95 % interval", size=5, width=1.8)


def import_matplotlib() -> None:
    """Import matplotlib whatever a notebook left in ``MPLBACKEND``:
    a backend that is not installed here would be an error.

    The drawing names its own backend, and the variable stays as it is.
    """
    left = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib  # noqa: F401
    finally:
        del os.environ["MPLBACKEND"]
        if left is not None:
            os.environ["MPLBACKEND"] = left


def _line(
    ax: Axes, points: list[tuple[float, ...]] | None, *, color: str, label: str | None = None,
    size: float = 3, width: float = 1.1, alpha: float = 1.0,
) -> None:  # fmt: skip
    if points:
        x, y = zip(*points, strict=True)
        ax.plot(x, y, color=color, lw=width, marker="o", ms=size, label=label, alpha=alpha)


# --- From a figure to inline SVG ----------------------------------------------------------------------------


def _panel_svg(
    name: str, series: Series, texts: Mapping[str, str], target_gap: float | None, best: float | None
) -> Markup:
    """One panel of 480 by 270 units: text is text in the reader's font,
    every colour a variable of the style sheet."""
    import_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(480 / 72, 270 / 72), facecolor="none")
    FigureCanvasSVG(figure)
    ax = figure.add_axes((0.13, 0.17, 0.85, 0.70), facecolor="none")
    draw_panel(ax, name, series, target_gap)
    ax.grid(axis="y", color=RULE, lw=1)
    ax.set_axisbelow(True)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0, pad=6)
    ax.set_xlabel(texts["step"])
    figure.text(0, 0.94, texts[f"axis_{name}_step"], gid="label", parse_math=False)
    if best is not None and ax.get_xlim()[0] <= best <= ax.get_xlim()[1]:
        ax.axvline(best, color=ACCENT, lw=1, ls=(0, (3, 3)))
        left = best > sum(ax.get_xlim()) / 2
        ax.annotate(texts["kept"], (best, 1), (-5 if left else 5, 2), xycoords=("data", "axes "
        "fraction"), gid="kept",
                    textcoords="offset points", ha="right" if left else "left", va="top")  # fmt: skip
    out = io.StringIO()
    # The reader's browser draws the text; it does not matter if no font here has a character.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    facts = " ".join(
        texts["from_to"].format(label=label, first=_short(points[0][1]), last=_short(points[-1][1]))
        for label, points in _named(name, series, texts)
    )
    title = texts[f"fig_{name}_step"].format(facts=facts)
    return _inlined(out.getvalue(), f"fig-{name}-step", title)


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _named(
    panel: str, series: Series, texts: Mapping[str, str]
) -> Iterable[tuple[str, list[tuple[float, ...]]]]:
    """The lines of a panel by their names, for a screen reader."""
    for name, points in series.items():
        if _panel_of(name) != panel:
            continue
        source = texts["line_held_out" if name.startswith("val_") else "line_batch"]
        group = name.removeprefix("val_").removeprefix("H_")
        label = {"gap": source, "entropy": f"{group}, {source}", "loss": texts["axis_loss_step"], "kl": "KL"}[
            panel
        ]
        yield label, points


def _inlined(svg: str, name: str, title: str) -> Markup:
    """An SVG file as a part of a page: no header, no style of its own,
    no id that two drawings could share."""
    body = svg[svg.index("<defs>") : svg.rindex("</svg>")]  # behind the header and the metadata
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="(label|kept)"', r' class="\1"', body)
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"font(-\w+)?: [^;\"]*;?\s*| transform=\"rotate\(-0 [^\"]*\"", "", body)
    for colour, variable in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"\s*\n\s*", " ", body)
    return Markup(
        f'<svg class="figure panel" viewBox="0 0 480 270" role="img" aria-labelledby="{name}">'
        f'<title id="{name}">{escape(title)}</title>{body}</svg>'
    )


def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(font for font in _CJK_FONTS if font in installed)]


def _drawable(text: str) -> str:
    """Replace characters that no font at hand can draw, so that drawing never warns."""
    if text.isascii() or len(_families()) > 1:
        return text
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(char if ord(char) in glyphs else "?" for char in text)
