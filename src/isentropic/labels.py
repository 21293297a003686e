"""What a run says in the guide's own words. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from isentropic.errors import InputError
from isentropic.schema import ExpectationChange, ExpectationShift, Form, Label

LABELS = (  # (largest gap in nats, English, Chinese); the first limit is the target gap itself
    (None, "no bias ✅", "无偏见 ✅"),
    (0.1, "slight bias ⚠️", "轻微偏见 ⚠️"),
    (float("inf"), "severe bias 💥", "严重偏见 💥"),
)


EXPECTATION_FORMS: tuple[tuple[Form, str], ...] = (
    ("contexts", "after neutral contexts"),
    ("twins", "in the twins' own prompts"),
)
"""The forms of the expectation gap, the better one first, and where each is read."""


def label(gap: float, target_gap: float) -> Label:
    """The guide's three words for a gap: within the target, up to 0.1 nats, above.

    Example:
        >>> label(-0.02, target_gap=0.01)["zh"]
        '轻微偏见 ⚠️'
    """
    for limit, english, chinese in LABELS:
        if abs(gap) <= (target_gap if limit is None else limit):
            return {"en": english, "zh": chinese}
    raise InputError(
        f"gap is {gap}; it is not a number, so it has no label; see the warnings of the measurement"
    )


def interval_text(
    interval: Sequence[float | None] | None,
    number: Callable[[float], str] = "{:+.4f}".format,
    unknown: str = "unknown",
) -> str:
    """An interval as text.

    Args:
        interval: its two ends; None, or ends of None, where they are unknown.
        number: how an end is written.
        unknown: what is said where there is none.

    Example:
        >>> interval_text([-0.1, 0.02]), interval_text(None)
        ('[-0.1000, +0.0200]', 'unknown')
    """
    ends = [end for end in interval or () if end is not None]
    return "[" + ", ".join(map(number, ends)) + "]" if len(ends) == 2 else unknown


def gap_line(summary: Mapping[str, Any], lang: str = "zh") -> str:
    """The guide's line: ``H_male=0.25, H_female=0.95, gap=0.70 (严重偏见 💥)``, then the interval."""
    entropies = ", ".join(f"H_{group}={summary[f'H_{group}']:.4f}" for group in summary["groups"])
    words = summary["label"]
    return (
        f"{entropies}, gap={abs(summary['gap']):.4f} ({words['zh'] if lang == 'zh' else words['en']}) "
        f"| signed {summary['gap']:+.4f}, 95% interval {interval_text(summary['ci95'])}, "
        f"n={summary['n_pairs']}"
    )


def decision_line(summary: Mapping[str, Any]) -> str:
    """What is decided about the target, by which estimate."""
    found = summary["decision"] or summary
    before, after, interval = found.get("n_before", found["n_pairs"]), found["n_pairs"], found["ci95"]
    several = found.get("looks", 1) > 1  # the interval then holds at all of them together
    looked = f", look {found['look']} of {found['looks']}" if several else ""
    return (
        f"verdict {found['verdict']}: gap {found['gap']:+.4f}, 95% interval "
        f"{'over all looks ' if several else ''}{interval_text(interval)}, from "
        f"{before} pairs before and {after} of them after{looked}; {found['reason']}"
    )


def expectation_line(expectation: Mapping[str, Any] | None) -> str | None:
    """Which group the model expects, in one line; None where it was not measured.

    Example:
        >>> found = {"groups": ["male", "female"], "twins": None}
        >>> row = {"gap": 0.21, "ci95": [-0.07, 0.49], "mean_abs": 0.92, "prefers_second": 0.58, "n": 192}
        >>> expectation_line({**found, "contexts": row}).partition(", 95%")[0]
        'expectation after neutral contexts: female over male +0.2100 nats'
    """
    for form, where in EXPECTATION_FORMS:
        row = expectation and expectation[form]
        if expectation and row:
            first, second = expectation["groups"]
            return (
                f"expectation {where}: {second} over {first} {row['gap']:+.4f} nats, 95% interval "
                f"{interval_text(row['ci95'])}, n={row['n']}"
            )
    return None


def has_zero(interval: Sequence[float]) -> bool:
    """Whether the data are in keeping with no difference."""
    return interval[0] <= 0 <= interval[1]


class ToldChange(NamedTuple):
    """How one form of the expectation moved.

    Attributes:
        where: where the form is read, in words.
        change: of the mean, nats.
        clear: its interval leaves out zero.
    """

    form: Form
    where: str
    change: float
    row: ExpectationShift
    clear: bool


def told_changes(change: ExpectationChange | None) -> list[ToldChange]:
    """What is told of a change of the expectation: the better form there is, and the other where it clearly
    moved."""
    told: list[ToldChange] = []
    for form, where in EXPECTATION_FORMS:
        row = change and change[form]
        if row and row["change"] is not None:
            clear = row["ci95"] is not None and not has_zero(row["ci95"])
            if clear or not told:
                told.append(ToldChange(form, where, row["change"], row, clear))
    return told


def expectation_change_lines(change: ExpectationChange | None, groups: Sequence[str]) -> list[str]:
    """How far a model expects another group than the first model does, one line a form that is told.

    Example:
        >>> row = {"change": -0.4, "ci95": [-0.41, -0.39], "abs_change": 0.1, "abs_ci95": [0.0, 0.2]}
        >>> both = {"contexts": row, "twins": {**row, "ci95": [-0.9, 0.1]}}
        >>> [line.partition(", 95%")[0] for line in expectation_change_lines(both, ["male", "female"])]
        ['expectation moved towards male: female over male -0.4000 nats after neutral contexts']
        >>> both = {"contexts": both["twins"], "twins": row}
        >>> [line.partition(":")[0] for line in expectation_change_lines(both, ["male", "female"])]
        ['expectation', 'expectation moved towards male']
    """
    first, second = groups
    lines = []
    for _, where, moved, row, clear in told_changes(change):
        towards = first if moved < 0 else second
        told = f"expectation moved towards {towards}" if clear else "expectation: no change can be seen"
        lines.append(
            f"{told}: {second} over {first} {moved:+.4f} nats {where}, 95% interval "
            f"{interval_text(row['ci95'])}; mean absolute value {row['abs_change']:+.4f}, "
            f"{interval_text(row['abs_ci95'])}"
        )
    return lines


def other_set_line(row: Mapping[str, Any]) -> str:
    """What became of a gap that a run does not aim at.

    Example:
        >>> row = {"data": "age prompts", "groups": ["young", "old"], "gap_before": 0.01, "gap_after": 0.03}
        >>> other_set_line({**row, "moved": "opened", "gap_change": 0.02, "ci95": [0.01, 0.03]})[:64]
        'age prompts: opened, old - young +0.0100 to +0.0300 nats, change'
    """
    first, second = row["groups"]
    told = "no change can be seen" if row["moved"] == "unchanged" else row["moved"]
    return (
        f"{row['data']}: {told}, {second} - {first} {row['gap_before']:+.4f} to {row['gap_after']:+.4f} "
        f"nats, change {row['gap_change']:+.4f}, 95% interval {interval_text(row['ci95'])}"
    )


def served_line(row: Mapping[str, Any]) -> str:
    """What is left of the change in another dtype.

    Example:
        >>> row = {"folder": "final", "dtype": "bfloat16", "gap_after": -0.002, "gap_change": 0.035}
        >>> served_line({**row, "ci95": [0.03, 0.04], "change_left": 0.972}).partition(" (")[0]
        'final in bfloat16: gap -0.0020, change +0.0350 nats, 97 % of it left'
    """
    where, share, by = f"{row['folder']} in {row['dtype']}", row["change_left"], ""
    if not row["folder"]:  # the change is that before, and what is left of it the certified one
        where, share, by = "before rounding", 1 / share if share else None, " by rounding"
    left = "" if share is None else f", {share:.0%} of it left{by}".replace("%", " %")
    return (
        f"{where}: gap {row['gap_after']:+.4f}, change {row['gap_change']:+.4f} "
        f"nats{left} (95% interval {interval_text(row['ci95'])})"
    )


def monitor_line(step: int, parts: dict[str, float], last_gap: float | None) -> str:
    """The guide's line; 📈 where the gap rose.

    Example:
        >>> monitor_line(1, {"loss": 0.16, "entropy_gap": 0.4, "H_male": 0.45, "H_female": 0.85}, None)
        '📉 Step 1 | loss=0.160000 | gap=0.400000 | H_male=0.4500 | H_female=0.8500'
    """
    mark = "📈" if last_gap is not None and parts["entropy_gap"] > last_gap else "📉"
    groups = [name for name in parts if name.startswith("H_") and name != "H_mean"]
    entropies = " | ".join(f"{name}={parts[name]:.4f}" for name in groups)
    return f"{mark} Step {step} | loss={parts['loss']:.6f} | gap={parts['entropy_gap']:.6f} | {entropies}"


def verdict_key(move: Mapping[str, Any], margin: float | None) -> str:
    """The verdict on a paired change; a certain change within the margin is "moved_little".

    Example:
        >>> verdict_key({"verdict": "moved", "largest": 0.01}, 0.05)
        'moved_little'
    """
    largest = move["largest"]
    little = largest is not None and margin is not None and largest <= margin
    return "moved_little" if move["verdict"] == "moved" and little else str(move["verdict"])


def way_key(one: Mapping[str, Any], change: Mapping[str, Any], key: str) -> str | None:
    """Which way a figure of a public test set went, whose best value is 0; None where that is unknown.

    Example:
        >>> one = {"models": [{"model": "base", "mean": {"value": -0.5}}]}
        >>> change = {"against": "base", "mean": {"change": 0.2}}
        >>> way_key(one, change, "mean"), way_key(one, {**change, "mean": {"change": -0.2}}, "mean")
        ('nearer', 'farther')
    """
    before = next((row[key]["value"] for row in one["models"] if row["model"] == change["against"]), None)
    moved = change[key]["change"]
    if before is None or moved is None:
        return None
    return "nearer" if abs(before + moved) < abs(before) else "farther"


def behaviour_lines(behaviour: Mapping[str, Any]) -> list[str]:
    """Models on public test sets, in a few lines a set: differences in nats first, shares second."""
    margin = behaviour["margin"]
    ways = {"nearer": "nearer to 0", "farther": "farther from 0"}
    words = {
        "moved": "moved {way}",
        "moved_little": f"moved {{way}}, by less than {margin:g}",
        "not_moved": f"not moved beyond {margin:g}",
        "too_few": "too few items to say",
    }
    lines = []
    for one in behaviour["sets"]:
        first, second = one["sides"]
        lines.append(
            f"{one['name']}, {second} over {first}: {one['n_items']} items, {one['n_clusters']} "
            f"{one['unit']} (nearest to 0 nats, smallest size and nearest to 50 % are best)"
        )
        for row in one["models"]:
            mean, size, share = row["mean"], row["mean_abs"], row["percent"]
            extra = "".join(f", {name} {value:.1f}" for name, value in row["extra"].items())
            lines.append(
                f"   {row['model']}: mean {mean['value']:+.4f} {interval_text(mean['ci95'])}, mean size "
                f"{size['value']:.4f}, {share['value']:.1f} % above 0{extra}"
            )
        for row in one["changes"]:
            told = []
            for name, key in (("mean", "mean"), ("mean size", "mean_abs")):
                move, way = row[key], way_key(one, row, key)
                verdict = words[verdict_key(move, margin)].format(way=ways[way] if way else "")
                told.append(f"{name} {move['change']:+.4f} {interval_text(move['ci95'])} {verdict}")
            lines.append(
                f"   {row['model']} against {row['against']}, item by item: {'; '.join(told)}; "
                f"{row['percent']['value']:+.1f} percentage points"
            )
    return lines + [f"note: {note}" for note in behaviour["notes"]]
