"""The training curves: metrics in, series and `curves.png` out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GROUP_COLOURS = ("#0072b2", "#c8551b", "#00805e", "#a04a86", "#7a6a00")
_INK, _MUTED, _HELD_OUT, _TARGET = "#22262b", "#8a929c", "#0b6e69", "#dfeeec"
_CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei",
              "Microsoft YaHei", "PingFang SC")  # fmt: skip


def finite(value: Any) -> float | None:
    """Return `value` as a float, or None where it is no finite number.

    Example:
        >>> finite(2), finite(float("nan")), finite("2"), finite(None)
        (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def curve_series(metrics: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, ...]]]:
    """Collect the series of a run from the rows of `metrics.jsonl`.

    Args:
        metrics: rows with a `step`; any number in them is a point of the series of that name (gaps and
            entropies in nats). `val_ci95` gives a band of (step, low, high).

    Returns:
        name -> points (step, value), ordered by step. `gap` holds the signed gap wherever rows have one. A step
        written twice, as after a resume, counts once: the later row wins. Values that are not finite are left out.

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
    return {name: [known[step] for step in sorted(known)] for name, known in points.items()}


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
) -> dict[str, Any]:
    """Draw gap, group entropies and, where logged, KL against the step, as a PNG.

    The top panel shows the signed gap of each training step and, with its 95 % interval, of the held-out
    prompts; the strip is `-target_gap..target_gap`.

    Args:
        metrics: rows of `metrics.jsonl` so far; may be empty.
        path: the PNG. It is replaced in one move, so a reader never sees half a picture.
        target_gap: half the height of the strip, in nats.
        title: one line above the panels.

    Returns:
        The facts of the picture: `panels`, `groups`, `points` (series -> number of points).

    Example:
        >>> import tempfile
        >>> facts = draw_curves([{"step": 1, "gap": 0.4}], tempfile.mkdtemp() + "/curves.png", target_gap=0.01)
        >>> facts["panels"], facts["points"]
        (['gap'], {'gap': 1})
    """
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    series = curve_series(metrics)
    groups = group_names(series)
    panels = ["gap"] + ["entropy"] * bool(groups) + ["kl"] * ("kl" in series)
    ratios = {"gap": 3.0, "entropy": 2.4, "kl": 1.3}
    heights = [ratios[panel] for panel in panels]
    size = (7.6, 1.0 + 0.82 * sum(heights))
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(panels), 1, height_ratios=heights, hspace=0.16, left=0.115, right=0.975,
        top=1 - (0.42 if title else 0.15) / size[1], bottom=0.52 / size[1],
    )  # fmt: skip
    axes = {panel: figure.add_subplot(grid[i]) for i, panel in enumerate(panels)}
    if title:
        figure.text(0.115, 1 - 0.27 / size[1], _drawable(title), size=11, weight="bold", color=_INK,
                    parse_math=False, family=_families())  # fmt: skip

    ax = axes["gap"]
    if target_gap:
        ax.axhspan(-target_gap, target_gap, color=_TARGET, lw=0, label=f"target, ±{target_gap:g}")
    ax.axhline(0, color=_MUTED, lw=0.8)
    _line(ax, series.get("gap"), color=_MUTED, label="training batch", size=2.5)
    if band := series.get("val_ci95"):
        steps, low, high = zip(*band, strict=True)
        ax.fill_between(steps, low, high, color=_HELD_OUT, alpha=0.18, lw=0)
        # a band of one point has no area: whiskers show every interval
        ax.vlines(steps, low, high, color=_HELD_OUT, lw=1, alpha=0.6)
    _line(ax, series.get("val_gap"), color=_HELD_OUT, label="held-out, 95 % interval", size=5, width=1.8)
    ax.set_ylabel("gap, nats")
    if groups:
        ax = axes["entropy"]
        for i, group in enumerate(groups):
            colour = GROUP_COLOURS[i % len(GROUP_COLOURS)]
            held_out = f"val_H_{group}" in series
            name = _drawable(group)
            _line(ax, series.get(f"H_{group}"), color=colour, label=None if held_out else name,
                  alpha=0.4 if held_out else 1, size=2.5)  # fmt: skip
            _line(
                ax, series.get(f"val_H_{group}"), color=colour, label=f"{name}, held-out", size=4.5, width=1.8
            )
        ax.set_ylabel("entropy, nats")
    if "kl" in series:
        _line(axes["kl"], series["kl"], color=_INK, size=4)
        axes["kl"].set_ylabel("KL to base")
        axes["kl"].set_ylim(bottom=min(0.0, *(y for _, y in series["kl"])))
    for panel, ax in axes.items():
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(_MUTED)
        ax.tick_params(colors=_INK, labelsize=8.5, length=3, labelbottom=panel == panels[-1])
        ax.yaxis.label.set(size=9, color=_INK)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.margins(x=0.02)
        if ax.get_legend_handles_labels()[0]:
            legend = ax.legend(loc="best", fontsize=8, frameon=False, ncols=3 if panel == "gap" else 2)
            for text in legend.get_texts():
                text.set_parse_math(False)
                text.set_fontfamily(_families())
    steps_seen = [point[0] for points in series.values() for point in points]
    for ax in axes.values():
        if steps_seen:
            first, last = min(steps_seen), max(steps_seen)
            pad = max(0.03 * (last - first), 0.4)
            ax.set_xlim(first - pad, last + pad)
    axes[panels[-1]].set_xlabel("step", size=9, color=_INK)

    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(partial, format="png", dpi=130, metadata={"Software": None})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return {
        "panels": panels,
        "groups": groups,
        "points": {name: len(points) for name, points in series.items()},
    }


def import_matplotlib() -> None:
    """Import matplotlib whatever a notebook left in ``MPLBACKEND``: a backend that is not installed here would be an error.

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
    ax: Any, points: list[tuple[float, ...]] | None, *, color: str, label: str | None = None, size: float = 3,
    width: float = 1.1, alpha: float = 1.0,
) -> None:  # fmt: skip
    if points:
        x, y = zip(*points, strict=True)
        ax.plot(x, y, color=color, lw=width, marker="o", ms=size, label=label, alpha=alpha)


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
