"""Public tests of stereotypes in the report: a section of a run, or a page of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isentropic.report.head import Head
from isentropic.report.sections import Block, Number, Section, table, text
from isentropic.report.words import Words
from isentropic.schema import Behaviour, BehaviourEstimate, BehaviourMove, BehaviourSet

QUANTITIES = ("mean", "mean_abs", "percent")


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
    verdicts = [
        change[key]["verdict"]
        for one in found["sets"]
        for change in one["changes"]
        for key in ("mean", "mean_abs")
    ]
    if not verdicts:
        return ""
    counts = {word: verdicts.count(word) for word in ("moved", "not_moved", "too_few")}
    return words("behaviour_lead", n=len(verdicts), margin=margin_text(found, words), **counts)


def behaviour_section(found: Behaviour, words: Words, names: Sequence[str] | None = None) -> Section:
    """The figures of each set, the paired changes with their verdicts, and the sets' own scores.

    Args:
        names: how the models are called here; by default as in the file.
    """
    models = [model["name"] for model in found["models"]]
    names = names or models
    head = [words("col_set"), words("col_quantity"), *names]
    for name in names[1:]:
        head += [words("col_moved" if len(names) == 2 else "col_moved_of", model=name), words("row_verdict")]
    rows, extras = [], []
    for one in found["sets"]:
        figures = {row["model"]: row for row in one["models"]}
        changes = {row["model"]: row for row in one["changes"]}
        shown = [figures.get(model) for model in models]
        for key in QUANTITIES:
            row = [one["name"], words(f"behaviour_{key}")]
            row += [Number(estimated(figure and figure[key], words)) for figure in shown]  # type: ignore[literal-required]
            for model in models[1:]:
                row += changed(changes.get(model), key, found, words)
            rows.append(row)
        for key in dict.fromkeys(key for figure in shown if figure for key in figure["extra"]):
            label = words.texts.get(f"behaviour_{key}", key)
            values = [figure["extra"].get(key) if figure else None for figure in shown]
            extras.append([one["name"], label, *(Number(words.plain(value, 1)) for value in values)])
    note = words("behaviour_note")
    if len(models) > 1:
        note = words.joined([note, words("behaviour_verdicts", margin=margin_text(found, words))])
    blocks: list[Block] = [
        text(note),
        {"kind": "list", "items": [described(one, words) for one in found["sets"]]},
        table(words("table_behaviour"), head, rows),
    ]
    if extras:
        head = [words("col_set"), words("col_quantity"), *names]
        blocks.append({**table(words("table_behaviour_extra"), head, extras), "fold": True})
    return Section("behaviour", words("section_behaviour"), blocks)


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


def estimated(found: BehaviourEstimate | None, words: Words) -> str:
    """A figure with its interval."""
    if not found:
        return words.blank
    parts = [words.signed(found["value"]), words.brackets(found["ci95"])]
    return " ".join(part for part in parts if part != words.blank) or words.blank


def changed(change: Any, key: str, found: Behaviour, words: Words) -> list[str]:
    """The cells of a paired change: the change, and its verdict where there is one."""
    if change is None:
        return [Number(words.blank), words.blank]
    if key == "percent":
        return [Number(estimated(change[key], words)), words.blank]
    move: BehaviourMove = change[key]
    verdict = words(f"behaviour_{move['verdict']}", margin=margin_text(found, words))
    return [Number(estimated({"value": move["change"], "ci95": move["ci95"]}, words)), verdict]


def margin_text(found: Behaviour, words: Words) -> str:
    return words.blank if found["margin"] is None else f"{found['margin']:g}"
