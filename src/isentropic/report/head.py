"""The first screen of the report: the verdict, the figures behind it, and what they mean in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from isentropic.labels import EXPECTATION_FORMS, has_zero, told_changes
from isentropic.report import figures
from isentropic.report.view import View
from isentropic.report.words import VERDICTS, Words
from isentropic.schema import Difference


@dataclass(frozen=True)
class Stat:
    """One measurement in large type."""

    label: str
    gap: str
    interval: str
    tag: str
    verdict: str
    state: str
    key: Markup


@dataclass(frozen=True)
class Head:
    """The first screen as the templates take it."""

    h1: str
    eyebrow: str
    name: str
    meta: list[str]
    lead: list[str]
    stats: list[Stat]
    warnings: list[str]


def head(view: View, words: Words) -> Head:
    """What is above all sections."""
    first = view.columns[0].summary
    model = first["model"] if view.kind == "run" or len(view.columns) == 1 else ""
    facts = [model, words.name(view.last["data"])]
    return Head(
        h1=headline(view, words),
        eyebrow=words(f"eyebrow_{view.kind}"),
        name=view.name,
        meta=[*filter(None, facts), words.sample(view.last)],
        lead=lead(view, words),
        stats=stats(view, words),
        warnings=warnings(view, words),
    )


def labels(view: View, words: Words) -> list[str]:
    """The names of the columns."""
    if view.kind == "compare":
        return [column.key for column in view.columns]
    return [words(f"column_{column.key}") for column in view.columns]


def gap_labels(view: View, words: Words) -> list[str]:
    """The names of columns of gaps: with the two groups, where those are not the same in all."""
    return [
        of_pair(view, words, label, column.summary["widest"])
        for label, column in zip(labels(view, words), view.columns, strict=True)
    ]


def of_pair(view: View, words: Words, told: str, pair: list[str]) -> str:
    """What is told of a gap, with its two groups where the columns show gaps of different groups."""
    return told if view.one_pair else f"{told} ({words.minus(view.pair_of(pair))})"


def stats(view: View, words: Words) -> list[Stat]:
    """The gap of each column, its interval and verdict."""
    return [
        Stat(
            label=label,
            gap=words.signed(shown["gap"]),
            interval=words.interval(shown["ci95"]),
            tag=words.label(view.label_of(column)),
            verdict=words.verdict(shown["verdict"]),
            state=shown["verdict"] or "none",
            key=figures.key(f"m{view.first_mark + i}"),
        )
        for i, (label, column) in enumerate(zip(gap_labels(view, words), view.columns, strict=True))
        for shown in [view.figures_of(column)]
    ]


def headline(view: View, words: Words) -> str:
    """The one sentence: the verdict, and for a run whether it changed anything."""
    if view.kind == "compare":
        return words("head_compare", n=len(view.columns))
    verdict = view.decided["verdict"]
    if verdict not in VERDICTS or view.target is None:
        verdict = "unknown"
    key = f"head_{verdict}"
    if view.kind == "run":
        before, shrank = view.columns[0].summary["verdict"], has_shrunk(view)
        if view.stopped == "already_within":
            key = "head_already" if verdict == "certified" else key
        elif not view.finished:
            key = "head_unfinished"
        elif verdict == "certified" and before != "certified" and shrank:
            key = "head_certified_run"
        elif verdict in ("exceeds", "insufficient") and shrank:
            key = f"head_shrank_{verdict}"
        elif verdict == before == "exceeds":
            key = "head_exceeds_run"
    return words(key, target=words.target, n=words.units(view.last, view.decided["n_pairs"]))


def has_shrunk(view: View) -> bool:
    """Whether the comparison shows a change, and towards zero."""
    before, after = view.columns[0].summary["gap"], view.decided["gap"]
    interval = view.differences[0]["ci95"] if view.differences else None
    if before is None or after is None or interval is None:
        return False
    return not has_zero(interval) and abs(after) < abs(before)


def lead(view: View, words: Words) -> list[str]:
    """The paragraphs below the figures: what was found, why the verdict, what it means, what changed."""
    if view.kind == "compare":
        return [*closest(view, words), *filter(None, [moved(view, words, row) for row in view.differences])]
    widest = ("widest" if view.one_pair else "widest_named") if len(view.groups) > 2 else ""
    paragraphs = [
        words.joined([found(view, words), estimated(view, words), reason(view, words)]),
        meaning(view, words),
        words(widest, **words.pair(view.pair)) if widest else "",
        change(view, words),
        *opened(view, words),
        expected(view, words),
    ]
    floor = view.last["noise_floor"]
    if floor and floor["gap_is_under_floor"]:
        paragraphs.append(words("under_floor", floor=words.plain(floor["floor"])))
    return [paragraph for paragraph in paragraphs if paragraph]


def closest(view: View, words: Words) -> list[str]:
    """Which of several models is closest to zero."""
    known = [
        (abs(gap), label, gap)
        for label, column in zip(labels(view, words), view.columns, strict=True)
        if (gap := column.summary["gap"]) is not None
    ]
    if not known:
        return []
    _, best, gap = min(known, key=lambda found: found[0])
    return [words("lead_compare", best=best, gap=words.signed(gap))]


def found(view: View, words: Words) -> str:
    """The gap, and on what."""
    n, gap = words.sample(view.last), view.last["gap"]
    if gap is None:
        return words("lead_nothing", n=n)
    if view.finished:
        before, after = (
            of_pair(view, words, words.signed(column.summary["gap"]), column.summary["widest"])
            for column in view.columns
        )
        return words("lead_run", n=n, before=before, after=after)
    if view.kind == "run":
        return words("lead_before", n=n, before=words.signed(gap))
    return words("lead_measure", n=n, after=words.signed(gap))


def reason(view: View, words: Words) -> str:
    """Why the verdict is what it is."""
    found, verdict = view.decided, view.decided["verdict"]
    if view.target is None or verdict not in VERDICTS:
        return ""
    if verdict == "insufficient":
        needed = found["pairs_needed"]
        if needed is None:
            return words("why_insufficient", target=words.target)
        return words("why_insufficient_n", target=words.target, n=words.units(view.last, needed))
    p = found["p_within"] if verdict == "certified" else found["p_exceeds"]
    key = f"why_{verdict}" + ("" if p is None else "_p")
    return words(key, target=words.target, p=words.p(p, relation=True))


def estimated(view: View, words: Words) -> str:
    """From which pairs the gap after training was estimated, where that is more than the test pairs."""
    found = view.last["decision"]
    if found is None or not view.estimated:
        return ""
    return words(
        "estimated",
        k=words.units(view.last, (found["n_before"] or 0) - (found["n_pairs"] or 0)),
        gap=words.signed(found["gap"]),
        interval=words.interval(found["ci95"]),
    )


def meaning(view: View, words: Words) -> str:
    """Over which group the model hesitates more."""
    gap, interval, groups = view.decided["gap"], view.decided["ci95"], words.pair(view.pair)
    if interval is not None and has_zero(interval):
        return words("means_none", **groups)
    if not gap:
        return ""
    key = ("means_less" if gap < 0 else "means_more") + ("_now" if view.finished else "")
    return words(key, size=words.plain(abs(gap)), **groups)


def change(view: View, words: Words) -> str:
    """How the gap changed on the same prompts and responses."""
    if not view.finished:
        return ""
    if view.unchanged:
        return words("unchanged")
    if len(view.differences) != 1 or view.differences[0]["gap_change"] is None:
        return ""
    row = view.differences[0]
    moved = of_pair(view, words, words.signed(row["gap_change"]), row["groups"])
    told = {"change": moved, "interval": words.interval(row["ci95"])}
    return words("change_no_p" if row["p"] is None else "change", p=words.p(row["p"], relation=True), **told)


def opened(view: View, words: Words) -> list[str]:
    """The gaps that the run did not aim at and that opened, one sentence a set of prompts."""
    return [
        words(
            "opened",
            data=words.name(row["data"]),
            before=words.signed(row["gap_before"]),
            after=words.signed(row["gap_after"]),
            change=words.signed(row["gap_change"]),
            interval=words.interval(row["ci95"]),
            **words.pair(view.pair_of(row["groups"])),
        )
        for row in view.other_sets
        if row["moved"] == "opened"
    ]


def expected(view: View, words: Words) -> str:
    """How training moved which group the model expects; where nothing was compared,
    which group it expects."""
    if view.finished and not view.unchanged and len(view.differences) == 1:
        told = moved(view, words, view.differences[0])
        if told:
            return words.joined([told, closed(view, words, view.differences[0])])
    found = view.last["expectation"]
    for form, _ in EXPECTATION_FORMS:
        row = found and found[form]
        if not found or not row or row["gap"] is None or row["ci95"] is None:
            continue
        pair = words.pair(view.pair_of(found["groups"]))
        more, less = ("first", "second") if row["gap"] < 0 else ("second", "first")
        return words(
            "expects_none" if has_zero(row["ci95"]) else "expects_more",
            where=words(f"where_{form}"),
            more=pair[more],
            less=pair[less],
            gap=words.signed(row["gap"]),
            interval=words.interval(row["ci95"]),
            **pair,
        )
    return ""


def moved(view: View, words: Words, row: Difference) -> str:
    """Towards which group the expectation moved, or that no change can be seen; "" where it is unknown."""
    pair = words.pair(view.pair_of(row["groups"]))
    than = "_than" if view.kind == "compare" else ""
    return words.joined(
        [
            words(
                ("expects_moved" if told.clear else "expects_still") + than,
                where=words(f"where_{told.form}"),
                towards=pair["first" if told.change < 0 else "second"],
                model=row["model"],
                against=row["against"],
                change=words.signed(told.change),
                interval=words.interval(told.row["ci95"]),
                **pair,
            )
            for told in told_changes(row["expectation_change"])
            if told.row["ci95"] is not None
        ]
    )


def closed(view: View, words: Words, row: Difference) -> str:
    """What became of the size of the expectation, where that is what the run closed."""
    change = row["expectation_change"] and row["expectation_change"]["contexts"]
    if view.settings.get("close") != "expectation" or not change:
        return ""
    interval = words.interval(change["abs_ci95"])
    return words("expects_closed", change=words.signed(change["abs_change"]), interval=interval)


def warnings(view: View, words: Words) -> list[str]:
    """What the reader should know: of the files, the data and the statistics; each once."""
    notes: list[Any] = list(view.notes)
    told = [words(f"note_{note['key']}", **note) if isinstance(note, dict) else note for note in notes]
    told += view.warnings
    for column in view.columns:
        told += column.summary["warnings"]
    return list(dict.fromkeys(told))
