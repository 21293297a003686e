"""The report's figures: plain numbers in, SVG text and the facts it shows out.

Drawn by hand, not by matplotlib: colours are classes that the style sheet fills in (so dark mode works), text
stays text in the reader's own font (so Chinese works), and the same numbers give the same bytes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from isentropic.labels import interval_text

Format = Callable[[float], str]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between `low` and `high`, at most about `count` of them.

    Example:
        >>> ticks(-0.1, 0.03)
        [-0.1, -0.05, 0.0]
    """
    raw = (high - low) / max(count, 1)
    if not raw > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def forest(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    title: str,
    axis: str,
    ends: tuple[str, str],
    fmt: Format,
    fmt_end: Format | None = None,
    target: float | None = None,
    target_label: str = "",
    first_mark: int = 0,
    numbers: bool = True,
) -> tuple[list[Markup], dict[str, Any]]:
    """Draw estimates with their intervals: a row for each label, a mark for each column.

    It is long because every part is placed by one layout, once for a wide and once for a narrow page.

    Args:
        rows: each `label`, optional `strong` (bold), and `marks`, one for each column: None, or
            `{"gap", "ci95"}` in nats (`ci95` may be None) with an optional `note` that follows the number.
        columns: names of the columns.
        name: prefix of the ids in the figure.
        title: what a screen reader says.
        axis, ends: caption of the axis; what its left and right end mean.
        fmt, fmt_end: how a signed number and an end of an interval are written.
        target: half the width of the shaded strip around 0.
        first_mark: style of the first column's mark.
        numbers: write estimates and intervals beside the marks, where there is room.

    Returns:
        A wide and a narrow drawing of the same rows, and the facts: `rows` (label -> the gaps drawn),
        `range`.
    """
    spans = [x for row in rows for mark in row["marks"] if mark for x in (mark["gap"], *(mark["ci95"] or ()))]
    reach = [0.0, *spans] + ([-1.4 * target, 1.4 * target] if target else [])
    low, high = _padded(min(reach), max(reach))
    facts = {
        "rows": {row["label"]: [mark["gap"] if mark else None for mark in row["marks"]] for row in rows},
        "range": (low, high),
    }
    drawings = []
    for narrow in (False, True):
        labels = any(row["label"] for row in rows)
        written = numbers and not narrow and len(columns) <= 2
        width = 480 if narrow else 960
        left = 8.0 if narrow or not labels else 214.0
        right = width - 8.0 if not written else width - 192.0 * len(columns) - 4
        # rows that hold one mark each need one lane, however many columns there are
        lanes = max((sum(mark is not None for mark in row["marks"]) for row in rows), default=1)
        lanes = len(columns) if lanes > 1 else 1
        bar = 13.0 if lanes < 4 else 11.0
        label_height = 19.0 if narrow and labels else 0.0
        row_height = label_height + bar * lanes + (12 if len(rows) < 12 else 8)
        top = 26.0 if target_label or written else 8.0
        bottom = top + row_height * len(rows)

        x = _scale((low, high), (left, right))
        out = _ground(x, ticks(low, high, 4 if narrow else 6), (top, bottom), target)
        if target and target_label:
            out.append(_text(x(0), top - 9, target_label, "small middle accent"))
        if written:
            for i, column in enumerate(columns):
                out.append(_text(right + 192 * (i + 1), top - 9, column, "small end"))
        for i, row in enumerate(rows):
            y = top + row_height * i
            if i:
                out.append(_line(0, y, width, y, "rule"))
            middle = y + label_height + (row_height - label_height) / 2
            strong = " strong" if row.get("strong") else ""
            if row["label"]:
                label = _shortened(row["label"], 54 if narrow else 33)
                at = y + 16 if narrow else middle + 4
                out.append(f"<g>{_tag('title', row['label'])}{_text(0, at, label, 'label' + strong)}</g>")
            for j, mark in enumerate(row["marks"]):
                if not mark:
                    continue
                at = middle + bar * (j - (lanes - 1) / 2 if lanes > 1 else 0)
                words = (
                    fmt(mark["gap"])
                    + (" " + interval_text(mark["ci95"], fmt_end or fmt) if mark["ci95"] else "")
                    + mark.get("note", "")
                )
                drawn = _tag("title", " ".join(filter(None, [row["label"], columns[j]])) + f": {words}")
                if mark["ci95"]:
                    drawn += _line(x(mark["ci95"][0]), at, x(mark["ci95"][1]), at, "whisker")
                drawn += _mark(x(mark["gap"]), at, first_mark + j)
                out.append(f'<g class="m{first_mark + j}">{drawn}</g>')
                if written:
                    out.append(_text(right + 192 * (j + 1), middle + 4, words, "number end" + strong))
        outside = 56 if written and labels else 0
        below = 37 if right - left > 600 else 56
        out.append(_text(left - outside, bottom + 37, "← " + ends[0], "small"))
        out.append(_text(right + outside, bottom + 37, ends[1] + " →", "small end"))
        out.append(_text((left + right) / 2, bottom + below, axis, "small middle"))
        size = "narrow" if narrow else "wide"
        height = bottom + below + 6
        drawings.append(_svg(f"{name}-{size}", width, height, title, out, size))
    return drawings, facts


def histogram(
    columns: Sequence[Mapping[str, Any]],
    *,
    name: str,
    title: str,
    axis: str,
    fmt: Format,
    target: float | None = None,
    first_mark: int = 0,
) -> tuple[list[Markup], dict[str, Any]]:
    """Draw the distribution of the pair gaps, one row a column, on common bins.

    Long because every part is placed by one layout.

    Args:
        columns: each `label` and `values` (nats, at least one), optional `note`.
        axis: caption of the axis; `fmt`: how a signed number is written.
        target: half the width of the shaded strip around 0.

    Returns:
        A wide and a narrow drawing, and the facts: `edges`, `counts` (label -> pairs a bin), `means`.
    """
    values = [v for column in columns for v in column["values"]]
    low, high = _padded(min(*values, 0.0), max(*values, 0.0))
    n_bins = max(8, min(48, round(2.2 * math.sqrt(max(len(column["values"]) for column in columns)))))
    step = (high - low) / n_bins
    edges = [low + i * step for i in range(n_bins + 1)]
    counts = []
    for column in columns:
        bins = [0] * n_bins
        for value in column["values"]:
            bins[min(int((value - low) / step), n_bins - 1)] += 1
        counts.append(bins)
    means = [math.fsum(column["values"]) / len(column["values"]) for column in columns]
    tallest = max(max(bins) for bins in counts)
    drawings = []
    for narrow in (False, True):
        width, row, top = (480.0 if narrow else 960.0), 116.0, 6.0
        left, right = 0.0, width
        bottom = top + row * len(columns)

        x = _scale((low, high), (left, right))
        out = _ground(x, ticks(low, high, 4 if narrow else 8), (top, bottom), target)
        for i, column in enumerate(columns):
            base = top + row * (i + 1)
            path = f"M{_n(x(low))} {_n(base)}"
            for edge, count in zip(edges[:-1], counts[i], strict=True):
                path += f"H{_n(x(edge))}V{_n(base - count / tallest * (row - 44))}"
            path += f"H{_n(x(high))}V{_n(base)}Z"
            out.append(f'<g class="m{first_mark + i}">{_tag("path", cls="bars", d=path)}')
            out.append(_line(x(means[i]), base - row + 42, x(means[i]), base, "mean") + "</g>")
            out.append(_line(left, base, right, base, "zero"))
            out.append(_text(left, base - row + 18, column["label"], "label strong"))
            out.append(_text(left, base - row + 35, column.get("note", ""), "small"))
        out.append(_text(width / 2, bottom + 38, axis, "small middle"))
        size = "narrow" if narrow else "wide"
        drawings.append(_svg(f"{name}-{size}", width, bottom + 46, title, out, size))
    labels = [column["label"] for column in columns]
    return drawings, {
        "edges": edges,
        "counts": dict(zip(labels, counts, strict=True)),
        "means": dict(zip(labels, means, strict=True)),
    }


def key(kind: str) -> Markup:
    """Return a small sample of a mark for a legend; its meaning is in the text beside it."""
    if kind == "strip":
        body = _tag("rect", cls="strip", x=0, y=1, width=22, height=10)
    elif kind.startswith("m"):
        body = f'<g class="{escape(kind)}">{_line(0, 6, 22, 6, "whisker")}{_mark(11, 6, int(kind[1:]))}</g>'
    else:
        dot = _tag("circle", cls="dot", cx=11, cy=6, r=2.6)
        path = _tag("path", cls=f"line {kind}", d="M0 6L22 6")
        body = f'{path}<g class="{escape(kind)}">{dot}</g>'
    return Markup(f'<svg class="key" viewBox="0 0 22 12" aria-hidden="true">{body}</svg>')


def _scale(values: tuple[float, float], places: tuple[float, float]) -> Callable[[float], float]:
    """From a value to its place."""
    (low, high), (left, right) = values, places
    return lambda value: left + (value - low) / (high - low) * (right - left)


def _ground(
    x: Callable[[float], float], marked: Sequence[float], height: tuple[float, float], target: float | None
) -> list[str]:
    """What estimates are drawn on: the strip of the target, ticks, and zero."""
    top, bottom = height
    out = []
    if target:
        out.append(
            _tag("rect", cls="strip", x=x(-target), y=top, width=x(target) - x(-target), height=bottom - top)
        )
    for tick in marked:
        out.append(_line(x(tick), top, x(tick), bottom, "grid"))
        out.append(_text(x(tick), bottom + 17, _tick(tick), "small middle"))
    return [*out, _line(x(0), top, x(0), bottom, "zero")]


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or max(abs(low), 1.0) * 0.05
    return low - pad, high + pad


def _tick(value: float) -> str:
    return f"{value:.10g}".replace("-", "−") if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"


def _n(value: float) -> str:
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(a)} {_n(b)}" for a, b in points)


def _tag(tag: str, text: str | None = None, *, cls: str = "", **attributes: float | str) -> str:
    written = f' class="{escape(cls)}"' if cls else ""
    for attribute, value in attributes.items():
        written += f' {attribute}="{escape(value) if isinstance(value, str) else _n(value)}"'
    return f"<{tag}{written}/>" if text is None else f"<{tag}{written}>{escape(text)}</{tag}>"


def _text(x: float, y: float, text: str, cls: str) -> str:
    return _tag("text", text, cls=cls, x=x, y=y)


def _line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    return _tag("line", cls=cls, x1=x1, y1=y1, x2=x2, y2=y2)


def _mark(x: float, y: float, style: int) -> str:
    """Return the mark of a column: shape as well as colour tells columns apart."""
    if style < 2:
        return _tag("circle", cls="mark", cx=x, cy=y, r=4.2)
    shapes: list[list[tuple[float, float]]] = [
        [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        [(0, -5.4), (5.4, 0), (0, 5.4), (-5.4, 0)],
        [(0, -5), (5, 4), (-5, 4)],
        [(0, 5), (5, -4), (-5, -4)],
    ]
    corners = shapes[(style - 2) % len(shapes)]
    return _tag("path", cls="mark", d=_path([(x + a, y + b) for a, b in corners]) + "Z")


def _shortened(text: str, room: int) -> str:
    """Cut a label to `room` columns; East Asian characters take two."""
    text = " ".join(text.split())
    used = 0
    for i, char in enumerate(text):
        used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > room:
            return text[: max(i - 1, 1)].rstrip() + "…"
    return text


def _svg(name: str, width: float, height: float, title: str, body: Sequence[str], cls: str) -> Markup:
    return Markup(
        f'<svg class="figure {cls}" viewBox="0 0 {_n(width)} {_n(height)}" role="img" '
        f'aria-labelledby="{escape(name)}"><title id="{escape(name)}">{escape(title)}</title>'
        f"{''.join(body)}</svg>"
    )
