"""Public tests of stereotypes in the report: a section of a run, or a page of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from isentropic.labels import interval_text, verdict_key, way_key
from isentropic.report.head import Head
from isentropic.report.sections import Block, Number, Section, table, text
from isentropic.report.words import Words
from isentropic.schema import Behaviour, BehaviourChange, BehaviourSet

Judged = Literal["mean", "mean_abs"]
JUDGED: tuple[Judged, ...] = ("mean", "mean_abs")
"""The figures whose change has a verdict."""


def behaviour_head(found: Behaviour, words: Words) -> Head:
    """The first screen of a page of its own."""
    names = [model["name"] for model in found["models"]]
    return Head(
        h1=words("behaviour_h1", n=len(found["sets"])),
        eyebrow=words("section_behaviour"),
        name="",
        meta=names,
        lead=[behaviour_lead(found, words)],
        stats=[],
        warnings=found["notes"],
    )


def behaviour_lead(found: Behaviour, words: Words) -> str:
    """How many of the figures moved, and how many verdicts there are; "" for a single model."""
    told = [
        (change[key]["verdict"], way_key(one, change, key))
        for one in found["sets"]
        for change in one["changes"]
        for key in JUDGED
    ]
    if not told:
        return ""
    counts = {word: sum(verdict == word for verdict, _ in told) for word in ("moved", "not_moved", "too_few")}
    nearer = told.count(("moved", "nearer"))
    return words("behaviour_lead", n=len(told), margin=margin_text(found, words), nearer=nearer, **counts)


def behaviour_section(found: Behaviour, words: Words, names: Sequence[str] | None = None) -> Section:
    """A table for each set: its figures, and the paired changes with their verdicts.

    Args:
        names: how the models are called in a run, whose section has the notes too; by default as in the
            file.
    """
    models = [model["name"] for model in found["models"]]
    notes = found["notes"] if names else []
    names = names or models
    head = [words("col_quantity"), *names[:1]]
    for name in names[1:]:
        moved = words("col_moved" if len(names) == 2 else "col_moved_of", model=name)
        head += [name, moved, words("row_verdict")]
    note = words("behaviour_note")
    if len(models) > 1:
        note = words.joined([note, words("behaviour_verdicts", margin=margin_text(found, words))])
    tables = [table(described(one, words), head, rows(one, models, found, words)) for one in found["sets"]]
    told: list[Block] = [{"kind": "list", "items": notes}] if notes else []
    return Section("behaviour", words("section_behaviour"), [text(note), *tables, *told])


def rows(one: BehaviourSet, models: Sequence[str], found: Behaviour, words: Words) -> list[list[str]]:
    """The figures of a set, differences first; then the scores that its authors define."""
    figures = {row["model"]: row for row in one["models"]}
    changes: dict[str, Any] = {row["model"]: row for row in one["changes"]}
    shown: list[Any] = [figures.get(model) for model in models]
    written = []
    for key in (*JUDGED, "percent"):
        places = 1 if key == "percent" else None
        plain, signed = partial(words.plain, places=places), partial(words.signed, places=places)
        end = partial(words.end, places=places)
        write, write_end = (signed, end) if key == "mean" else (plain, plain)
        row = [words(f"behaviour_{key}")]
        for model, figure in zip(models, shown, strict=True):
            row.append(Number(estimated(figure and figure[key], write, write_end, words)))
            if model != models[0]:
                change = changes.get(model)
                verdict = (
                    verdict_text(one, change, key, found, words) if change and key in JUDGED else words.blank
                )
                row += [Number(estimated(change and change[key], signed, end, words)), verdict]
        written.append(row)
    for key in dict.fromkeys(key for figure in shown if figure for key in figure["extra"]):
        row = [words.texts.get(f"behaviour_{key}", key)]
        for place, figure in enumerate(shown):
            row.append(Number(words.plain(figure["extra"].get(key) if figure else None, 1)))
            row += [words.blank] * (2 if place else 0)
        written.append(row)
    return written


def verdict_text(
    one: BehaviourSet, change: BehaviourChange, key: Judged, found: Behaviour, words: Words
) -> str:
    """The verdict on a change, and which way the figure went if it moved; a dash where it is unknown."""
    way, name = way_key(one, change, key), f"behaviour_{verdict_key(change[key], found['margin'])}"
    if way is None or name not in words.texts:
        return words.blank
    return words(name, margin=margin_text(found, words), way=words(f"behaviour_{way}"))


def described(one: BehaviourSet, words: Words) -> str:
    """What a set compares, in one line."""
    first, second = ([words.name(side) for side in one["sides"]] + ["", ""])[:2]
    unequal = one["models"][0]["unequal_tokens"] if one["models"] else None
    return words(
        "behaviour_set",
        name=one["name"],
        first=first,
        second=second,
        n=words.count(one["n_items"]),
        clusters=words.count(one["n_clusters"]),
        unit=words.name(one["unit"]),
        unequal=words.count(unequal),
    )


def estimated(
    found: Any, write: Callable[[float | None], str], write_end: Callable[[float], str], words: Words
) -> str:
    """A figure, or its change, with the interval; a dash where it is unknown."""
    if not found:
        return words.blank
    value = found["change"] if "change" in found else found["value"]
    parts = [write(value), interval_text(found["ci95"], write_end, words.blank)]
    return " ".join(part for part in parts if part != words.blank) or words.blank


def margin_text(found: Behaviour, words: Words) -> str:
    return words.blank if found["margin"] is None else f"{found['margin']:g}"
