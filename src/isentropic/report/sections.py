"""The sections of the report below the first screen: one function each, a view and words in,
plain blocks out.

The HTML and the Markdown template only write the blocks down. A section that has nothing to say is None.
"""

from __future__ import annotations

import difflib
import heapq
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict, TypeVar

from isentropic.labels import EXPECTATION_FORMS
from isentropic.report import figures
from isentropic.report.curves import curve_series, draw_panels, group_names, shown_panels
from isentropic.report.head import gap_labels, labels, of_pair
from isentropic.report.view import View
from isentropic.report.words import Words
from isentropic.schema import (
    Estimate,
    Expectation,
    ExpectationChange,
    ExpectationRow,
    ExpectationShift,
    GapFigures,
    RunExample,
    Summary,
    TopicRow,
    mean_entropy,
)

MOST_DRAWN, MOST_LISTED = 40, 200
"""Rows of a figure and of a table: a report does not grow with the data."""

Block = dict[str, Any]
Row = TypeVar("Row", bound=Estimate)
Aligned = list[tuple[str, list[Row | None]]]
"""Rows of every column that go by the same name: the name, and one row a column, None where it has none."""


class Number(str):
    """A table cell that holds a number: written to the right."""


class Verbatim(str):
    """A table cell that holds text of the data or the model: its line breaks and spaces are kept."""


class Mark(TypedDict):
    """One estimate in a figure."""

    gap: float
    ci95: list[float] | None
    note: str


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    id: str
    title: str
    blocks: list[Block]


def sections(view: View, words: Words) -> list[Section]:
    """All sections that have something to say, in the order of the report."""
    writers: list[Callable[[View, Words], Section | None]] = [
        results, served, expectation, others, training, topics, pairs, cost, kinds, twins, settings, limits,
    ]  # fmt: skip
    return [section for writer in writers if (section := writer(view, words)) is not None]


# --- The sections -------------------------------------------------------------------------------------------


def results(view: View, words: Words) -> Section:
    """Group entropies, gap, interval and verdict; by part of the test, by pair of groups, and the change."""
    unit = f"cluster_{view.last['cluster_unit'] or 'pair'}"
    groups = words.groups(view)
    note = words("results_note", cluster=words.texts.get(unit, view.last["cluster_unit"]), **groups)
    if len(view.groups) > 2:
        note = words.joined([note, words("several_groups")])
    blocks: list[Block] = [text(note)]
    cells = aligned(view, words, lambda s: [(row["cell"], row) for row in s["cells"]])
    if cells:
        everything = {"label": words("all_pairs"), "strong": True,
                      "marks": [mark(column.summary) for column in view.columns]}  # fmt: skip
        drawn = [
            {"label": words.name(c), "marks": [mark(row) for row in found]}
            for c, found in largest(cells, MOST_DRAWN)
        ]
        blocks += left_out(len(cells), words)
        blocks.append(forest(view, words, "fig-cells", [everything, *drawn], told=column_facts(view, words)))
    blocks.append(
        table(
            words("table_results"), [words("col_quantity"), *gap_labels(view, words)], quantities(view, words)
        )
    )
    if cells:
        listed = largest(cells, MOST_LISTED)
        verdicts = None if view.kind == "compare" else [last_verdict(words, found) for _, found in listed]
        blocks.append(estimates(view, words, "cells", "part", listed, verdicts=verdicts))
    if len(view.groups) > 2:
        by_groups = aligned(
            view, words,
            lambda s: [(" "
            "– ".join(map(words.name, reversed(row["groups"]))), row) for row in s["group_gaps"]],
        )  # fmt: skip
        if by_groups:
            verdicts = [last_verdict(words, found) for _, found in by_groups]
            blocks.append(estimates(view, words, "groups", "groups", by_groups, verdicts=verdicts))
    if view.kind == "compare" and view.differences:
        blocks.append(differences_table(view, words))
    title = {
        "run": "section_results",
        "measure": "section_results_measure",
        "compare": "section_results_compare",
    }
    return Section("results", words(title[view.kind]), blocks)


def quantities(view: View, words: Words) -> list[list[str]]:
    """The rows of the table of results; a row that no column can fill is left out."""
    summaries = [column.summary for column in view.columns]
    decided = [view.figures_of(column) for column in view.columns]
    written: list[tuple[str, list[str]]] = [
        (words("row_H", group=words.name(g)), [words.plain(mean_entropy(s, g)) for s in summaries])
        for g in view.groups
    ]
    written += [
        (words("row_gap", **words.groups(view)), [words.signed(s["gap"]) for s in summaries]),
        (words("row_ci"), [words.brackets(s["ci95"]) for s in summaries]),
        (words("row_se"), [words.plain(s["se"], words.places + 1) for s in summaries]),
        (words("row_abs"), [words.plain(s["mean_abs_pair_gap"]) for s in summaries]),
        (words("row_sd"), [words.plain(s["pair_gap_sd"]) for s in summaries]),
        (words("row_n"), [words.count(s["n_pairs"]) for s in summaries]),
        (words("row_clusters"), [words.count(s["n_clusters"]) for s in summaries]),
    ]
    if view.estimated:
        blank = [words.blank] * (len(summaries) - 1)
        written += [
            (words("row_estimated"), [*blank, words.signed(view.decided["gap"])]),
            (words("row_ci"), [*blank, words.brackets(view.decided["ci95"])]),
        ]
    rows = [[title, *map(Number, cells)] for title, cells in written]
    rows.append([words("row_verdict"), *(words.verdict(found["verdict"]) for found in decided)])
    rows.append([words("row_label"), *(words.label(view.label_of(c)) or words.blank for c in view.columns)])
    needed = [(s, found["pairs_needed"]) for s, found in zip(summaries, decided, strict=True)]
    rows.append(
        [words("row_needed"), *(Number(words.blank if n is None else words.units(s, n)) for s, n in needed)]
    )
    return [row for row in rows if any(cell != words.blank for cell in row[1:])]


def differences_table(view: View, words: Words) -> Block:
    """How each model's gap differs from the first's."""
    head = [words(f"col_{c}") for c in ("model", "against", "change")]
    head += [words("row_ci"), words("col_p_plain"), words("col_abs_change")]
    rows = [
        [
            row["model"] or words.blank,
            row["against"] or words.blank,
            Number(words.signed(row["gap_change"])),
            Number(words.brackets(row["ci95"])),
            Number(words.p(row["p"])),
            Number(words.signed(row["abs_change"])),
        ]
        for row in view.differences
    ]
    caption = words("table_differences")
    if len(view.groups) > 2 and rows:
        caption = f"{caption} ({words.minus(view.pair_of(view.differences[0]['groups']))})"
    return table(caption, head, rows)


def expectation(view: View, words: Words) -> Section | None:
    """Which group the model expects, after neutral contexts and in the twins' own prompts,
    and how that changed."""
    told = view.last["expectation"]
    pair = view.pair_of(told["groups"]) if told else view.pair
    columns: list[Expectation | None] = [
        found if (found := column.summary["expectation"]) and view.pair_of(found["groups"]) == pair else None
        for column in view.columns
    ]
    changes: list[tuple[str, ExpectationChange]] = [
        (row["model"], change)
        for row in view.differences
        if (change := row["expectation_change"]) and view.pair_of(row["groups"]) == pair
    ]
    groups = words.pair(pair)
    head = [words("col_quantity"), *labels(view, words)]
    head += [words("col_moved" if len(changes) == 1 else "col_moved_of", model=name) for name, _ in changes]
    blocks: list[Block] = []
    for form, _ in EXPECTATION_FORMS:
        rows = expectation_rows(
            [found and found[form] for found in columns],
            [change[form] for _, change in changes],
            words,
            groups,
        )
        if rows:
            where = words(f"where_{form}")
            blocks.append(table(words("table_expectation", where=where, **groups), head, rows))
    if not blocks:
        return None
    hold = written(view.settings.get("hold")) if view.finished and not view.unchanged else ""
    if view.run and view.run["result"] and view.run["result"]["held"] is False and hold == "expectation":
        hold = "nothing"
    if view.settings.get("close") == "expectation":
        hold = f"closed_{hold}"
    held = words(f"held_{hold}") if f"held_{hold}" in words.texts else ""
    note = text(words.joined([words("expectation_note", **groups), held]))
    return Section("expectation", words("section_expectation"), [note, *blocks])


def expectation_rows(
    found: Sequence[ExpectationRow | None],
    changes: Sequence[ExpectationShift | None],
    words: Words,
    groups: Mapping[str, str],
) -> list[list[str]]:
    """One form of the expectation: the figures of each column, then of each change;
    what no column has is left out."""
    kinds: list[tuple[str, Callable[[ExpectationRow], str], Callable[[ExpectationShift], str]]] = [
        (words("row_mean"), lambda r: words.signed(r["gap"]), lambda r: words.signed(r["change"])),
        (words("row_ci"), lambda r: words.brackets(r["ci95"]), lambda r: words.brackets(r["ci95"])),
        (
            words("row_mean_abs"),
            lambda r: words.plain(r["mean_abs"]),
            lambda r: words.signed(r["abs_change"]),
        ),
        (words("row_ci_abs"), lambda r: words.blank, lambda r: words.brackets(r.get("abs_ci95"))),
        (words("row_prefers", **groups), lambda r: words.plain(r["prefers_second"]), lambda r: words.blank),
        (words("row_items"), lambda r: words.count(r["n"]), lambda r: words.count(r["n"])),
    ]
    rows = [
        [
            title,
            *(Number(write(row) if row else words.blank) for row in found),
            *(Number(write_change(row) if row else words.blank) for row in changes),
        ]
        for title, write, write_change in kinds
    ]
    return [row for row in rows if any(cell != words.blank for cell in row[1:])]


def served(view: View, words: Words) -> Section | None:
    """The change before the weights were rounded, and what other dtypes leave of it."""
    result = view.run["result"] if view.run else None
    found = result["also_measured"] if result else []
    rows = [
        [
            f"{row['folder']}/" if row["folder"] else words("row_unrounded"),
            row["dtype"],
            *(Number(words.signed(gap)) for gap in (row["gap_before"], row["gap_after"], row["gap_change"])),
            Number(words.brackets(row["ci95"])),
            Number(words.blank if row["change_left"] is None else f"{100 * row['change_left']:.0f} %"),
        ]
        for row in found
    ]
    if not rows:
        return None
    notes = [
        words(f"served_{key}")
        for key in dict.fromkeys("loaded" if row["folder"] else "unrounded" for row in found)
    ]
    head = [words("col_model"), words("fact_dtype"), words("column_before"), words("column_after")]
    head += [words("col_change"), words("row_ci"), words("col_left")]
    return Section(
        "served",
        words("section_served"),
        [text(words.joined(notes)), table(words("table_served"), head, rows)],
    )


def others(view: View, words: Words) -> Section | None:
    """How the gaps of the built-in sets changed that the run did not aim at."""
    rows = [
        [
            words.name(found["data"]),
            " – ".join(map(words.name, reversed(row["groups"]))),
            Number(words.count(found["n_pairs"])),
            *(Number(words.signed(gap)) for gap in (row["gap_before"], row["gap_after"], row["gap_change"])),
            Number(words.brackets(row["ci95"])),
            words.texts.get(f"moved_{row['moved']}", row["moved"]),
        ]
        for found in view.other_sets
        for row in found["group_gaps"]
    ]
    if not rows:
        return None
    head = [words("fact_data"), words("col_groups"), words("col_pairs")]
    head += [
        words("column_before"),
        words("column_after"),
        words("col_change"),
        words("row_ci"),
        words("col_finding"),
    ]
    blocks = [text(words("others_note")), table(words("table_others"), head, rows)]
    return Section("others", words("section_others"), blocks)


def training(view: View, words: Words) -> Section | None:
    """Why it stopped, how long it took, the curves, and what to try next."""
    if view.run is None:
        return None
    result, blocks = view.run["result"], []
    best = result["best_step"] if result else None
    if result:
        stopped, sentences = result["stopped"], []
        if stopped:
            key = f"stopped_{stopped}" if f"stopped_{stopped}" in words.texts else "stopped_other"
            sentences.append(words(key, steps=words.count(result["steps"]), reason=stopped))
        if best is not None and stopped != "already_within":
            sentences.append(words("best_step", step=words.count(best)))
        times = [
            f"{words.texts.get(f'second_{name}', name)} {words.time(seconds)}"
            for name, seconds in result["seconds"].items()
            if seconds is not None
        ]
        if times:
            sentences.append(words("seconds", parts=words("join").join(times)))
        if sentences:
            blocks.append(text(words.joined(sentences)))
    blocks += curves(view, words, best)
    if result and result["advice"]:
        blocks.append({"kind": "heading", "text": words("advice")})
        blocks.append({"kind": "list", "items": [words.in_language(line) for line in result["advice"]]})
    return Section("training", words("section_training"), blocks) if blocks else None


def curves(view: View, words: Words, best: float | None) -> list[Block]:
    """The training curves with their legend; nothing where no step was logged."""
    assert view.run is not None
    series = curve_series(view.run["metrics"])
    if not shown_panels(series):
        return []
    # Drawn where they are shown: Markdown has no need of them.
    closed = view.settings.get("close") == "expectation"  # which the target is not about
    target = None if closed else view.target
    drawings = partial(draw_panels, series, words.texts, target_gap=target, best=best)
    legend = [("batch", words("line_batch")), ("m1", words("legend_band"))]
    legend += [("strip", words("line_target"))] if target else []
    legend += [(f"g{i % 5}", words.name(group)) for i, group in enumerate(group_names(series))]
    shown = [(figures.key(kind), told) for kind, told in legend]
    figure = {"kind": "figure", "drawings": drawings, "legend": shown, "png": view.run["curves"]}
    return [text(words("training_intro_expectation" if closed else "training_intro")), figure]


def topics(view: View, words: Words) -> Section | None:
    """The gap of each topic, since gaps of opposite sign cancel in the mean."""
    found = aligned(view, words, lambda s: [(row["topic"], row) for row in s["topics"]])
    if not found:
        return None

    def place(item: tuple[str, list[TopicRow | None]]) -> tuple[float, str]:
        return next(row["gap"] or 0.0 for row in item[1] if row), item[0]

    ordered = sorted(largest(found, MOST_LISTED), key=place)
    rows = [
        {"label": topic, "marks": [mark(row, " ●" if row and row["clear"] else "") for row in marks]}
        for topic, marks in largest(ordered, MOST_DRAWN)
    ]
    clear = [
        sum(bool(row and row["clear"]) for row in column)
        for column in zip(*(r for _, r in found), strict=True)
    ]
    parts = [
        f"{label} {n}" if len(clear) > 1 else str(n)
        for label, n in zip(gap_labels(view, words), clear, strict=True)
    ]
    told = words("topics_clear", parts=words("join").join(parts))
    blocks = [text(words("topics_note", n=len(found))), text(told), *left_out(len(found), words)]
    blocks.append(forest(view, words, "fig-topics", rows, title="fig_topics", told=told))
    block = estimates(view, words, "topics", "topic", ordered, tests=[tested for _, tested in ordered])
    return Section("topics", words("section_topics"), [*blocks, {**block, "fold": True}])


def pairs(view: View, words: Words) -> Section | None:
    """How the gaps of single pairs are spread."""
    shown, told = [], []
    for label, column in zip(gap_labels(view, words), view.columns, strict=True):
        summary = column.summary
        values = [row["gap"] for row in summary["pair_gaps"] if row["gap"] is not None]
        if len(values) < 2:
            return None
        facts = {"mean": words.signed(summary["gap"]), "sd": words.plain(summary["pair_gap_sd"])}
        note = words("pairs_facts", abs=words.plain(summary["mean_abs_pair_gap"]), **facts)
        shown.append({"label": label, "values": values, "note": note})
        if view.target is not None:
            inside = words.count(sum(abs(value) <= view.target for value in values))
            n = words.count(len(values))
            told.append(words("within_target", label=label, inside=inside, n=n, target=words.target))
    spoken = " ".join(f"{column['label']}: {column['note']}." for column in shown)
    drawings, _ = figures.histogram(
        shown,
        name="fig-pairs",
        title=words("fig_pairs", facts=spoken),
        axis=words("axis_gap", **words.groups(view)),
        fmt=words.signed,
        target=view.target,
        first_mark=view.first_mark,
    )
    blocks = [
        text(words.joined([words("pairs_note"), *told])),
        {"kind": "figure", "drawings": drawings, "legend": []},
    ]
    return Section("pairs", words("section_pairs"), blocks)


def cost(view: View, words: Words) -> Section | None:
    """What the change cost the model; for one model alone, how its responses look."""
    costs = [column.cost for column in view.columns]
    first = labels(view, words)[0]
    several = len(costs) > 1
    title = words("cost_kl", name=first) if view.kind == "compare" else words("cost_kl_base")

    def kl_interval(interval: list[float] | None) -> str:
        return (
            words.blank
            if interval is None
            else "[" + ", ".join(words.plain(end, 4) for end in interval) + "]"
        )

    rows = [
        [title, words.blank, *(words.plain(c["kl_to_first"], 4) for c in costs[1:])],
        [words("cost_kl_ci"), words.blank, *(kl_interval(c["kl_ci95"]) for c in costs[1:])],
        [words("cost_perplexity"), *(words.plain(c["perplexity"], 2) for c in costs)],
        [words("cost_mean_entropy"), *(words.plain(c["mean_entropy"], 3) for c in costs)],
        [words("cost_mean_length"), *(words.plain(c["mean_length"], 1) for c in costs)],
        [words("cost_ended"), *(words.plain(c["ended"], 3) for c in costs)],
        [words("cost_distinct_2"), *(words.plain(c["distinct_2"], 3) for c in costs)],
    ]
    rows = [[row[0], *map(Number, row[1:])] for row in rows if any(cell != words.blank for cell in row[1:])]
    if not rows:
        return None
    kind = "cost" if several else "quality"
    block = table(words(f"table_{kind}"), [words("col_quantity"), *labels(view, words)], rows)
    return Section("cost", words(f"section_{kind}"), [text(words(f"{kind}_note")), block])


def kinds(view: View, words: Words) -> Section | None:
    """The gap on own responses, split in two, and the noise floor."""
    summaries = [column.summary for column in view.columns]
    blocks: list[Block] = []
    rows: Aligned[Estimate] = []
    parts = [s["decomposition"] for s in summaries]
    if any(parts):
        rows.append((words("kind_total"), [part["total"] if part else None for part in parts]))
        rows.append((words("kind_same_text"), [part["same_text"] if part else None for part in parts]))
        rows.append((words("kind_through_text"), [part["through_text"] if part else None for part in parts]))
        word = view.last["responses"] or "shared"
        responses = words.texts.get(f"responses_{word}", word)
        rows.insert(0, (words("kind_shared", responses=responses), list(summaries)))
        same = words(f"kinds_same_{view.kind}") if len(summaries) > 1 else ""
        blocks.append(text(words.joined([words("kinds_note"), same])))
        blocks.append(estimates(view, words, "kinds", "kind", rows))
    floors = [s["noise_floor"] for s in summaries]
    if any(floors):
        body = [
            [words("floor_reseed"), *(Number(words.plain(f["reseed"] if f else None)) for f in floors)],
            [
                words("floor_same_group"),
                *(Number(words.plain(f["same_group"] if f else None)) for f in floors),
            ],
            [words("floor_floor"), *(Number(words.plain(f["floor"] if f else None)) for f in floors)],
            [
                words("floor_under"),
                *(
                    words.blank if f is None else words("yes" if f["gap_is_under_floor"] else "no")
                    for f in floors
                ),
            ],
        ]
        blocks.append(table(words("table_floor"), [words("col_quantity"), *labels(view, words)], body))
    return Section("kinds", words("section_kinds"), blocks) if blocks else None


def twins(view: View, words: Words) -> Section | None:
    """A few pairs with their responses."""
    examples = view.run["examples"] if view.run else []
    if not examples:
        return None
    blocks: list[Block] = [{"kind": "twins", "items": [twin(example, view, words) for example in examples]}]
    if all(example["place"] for example in examples):
        own = all(len(response["entropy"]) == 1 for e in examples for response in e["responses"])
        blocks.insert(0, text(words("twins_note_own" if own else "twins_note")))
    return Section("twins", words("section_twins"), blocks)


def twin(example: RunExample, view: View, words: Words) -> Block:
    """One pair: its prompts with what differs marked, its responses and their entropies."""
    before, after = example["gap_before"], example["gap_after"]
    gap = ""
    if after is not None:
        told = [
            of_pair(view, words, words.signed(gap), column.summary["widest"])
            for gap, column in zip((before, after), view.columns, strict=False)
        ]
        gap = words("twins_gap_both", before=told[0], after=told[-1])
    elif before is not None:
        gap = words("twins_gap", gap=words.signed(before))
    groups = [prompt["group"] for prompt in example["prompts"]]
    rows = []
    for response in example["responses"]:
        cells = []
        for group in groups:
            values = [words.plain(v) for v in response["entropy"].get(group, ()) if v is not None]
            cells.append(Number(" → ".join(values) or words.blank))
        said = response["response"]
        rows.append(
            [
                Verbatim(said) if said.strip() else words("empty_response"),
                words.name(response["source"]),
                *cells,
            ]
        )
    head = [
        words("col_response"),
        words("col_source"),
        *(words("col_H", group=words.name(g)) for g in groups),
    ]
    marked = differing([prompt["prompt"] for prompt in example["prompts"]])
    return {
        "title": words(f"twins_{example['place']}") if example["place"] else example["pair_id"],
        "topic": example["topic"] or "",
        "gap": gap,
        "prompts": [
            {"group": words.name(g), "parts": parts} for g, parts in zip(groups, marked, strict=True)
        ],
        "table": table(words("table_twins"), head, rows),
    }


def settings(view: View, words: Words) -> Section:
    """What it takes to make the report again."""
    blocks: list[Block] = []
    if view.command:
        blocks.append({"kind": "heading", "text": words("command")})
        blocks.append({"kind": "code", "text": view.command})
    if view.kind == "run":
        blocks.append(text(words("same_bytes")))
    shown = view.columns if view.kind == "compare" else view.columns[:1]
    names = "model model_sha256 data data_sha256 split responses groups seed target_gap".split()
    rows = []
    for name in names:
        values = [written(column.summary.get(name)) for column in shown]
        if any(values):
            rows.append(
                [words(f"fact_{name}"), *(Verbatim(words.name(v) if v else words.blank) for v in values)]
            )
    weights = view.columns[-1:] if view.finished else shown
    dtypes = [written(column.summary["settings"].get("dtype")) for column in weights]
    if any(dtypes):
        title = words("fact_saved_dtype" if view.finished else "fact_dtype")
        rows.append([title, *(Verbatim(dtype or words.blank) for dtype in dtypes)])
        computed = [
            words("arithmetic_bf16" if c.summary["settings"].get("bf16") else "arithmetic") for c in weights
        ]
        rows.append([words("fact_arithmetic"), *computed])
    head = [words("col_setting"), *(labels(view, words) if len(shown) > 1 else [words("col_value")])]
    if rows:
        blocks.append(table(words("table_facts"), head, rows))
    flat = [(k, v) for k, v in flattened(view.settings) if k.partition(".")[0] not in ("versions", "command")]
    for key, pairs_shown in (("settings", flat), ("versions", list(view.versions.items()))):
        if pairs_shown:
            body = [[k, Verbatim(written(v) or words.blank)] for k, v in pairs_shown]
            block = table(words(f"table_{key}"), [words("col_setting"), words("col_value")], body)
            blocks.append({**block, "fold": True})
    return Section("settings", words("section_settings"), blocks)


def limits(view: View, words: Words) -> Section:
    """What a gap does and does not show."""
    return Section("limits", words("section_limits"), [{"kind": "list", "items": words.texts["limits"]}])


# --- Parts --------------------------------------------------------------------------------------------------


def text(content: str) -> Block:
    """A paragraph."""
    return {"kind": "text", "text": content}


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Block:
    """A table; a column with a number in it is written to the right."""
    numeric = [any(isinstance(row[i], Number) for row in rows) for i in range(len(head))]
    return {
        "kind": "table",
        "caption": caption,
        "head": list(head),
        "rows": rows,
        "numeric": numeric,
        "fold": False,
    }


def aligned(
    view: View, words: Words, rows_of: Callable[[Summary], list[tuple[str | None, Row]]]
) -> Aligned[Row]:
    """Bring rows of every column together by name, in the order of first appearance."""
    found: dict[str, list[Row | None]] = {}
    for i, column in enumerate(view.columns):
        for name, row in rows_of(column.summary):
            found.setdefault(name or words.blank, [None] * len(view.columns))[i] = row
    return list(found.items())


def largest(rows: Aligned[Row], most: int) -> Aligned[Row]:
    """The rows with the largest gaps, at most so many, in the order given."""

    def size(place: int) -> float:
        return max(abs(row["gap"] or 0.0) for row in rows[place][1] if row)

    return [rows[place] for place in sorted(heapq.nlargest(most, range(len(rows)), key=size))]


def left_out(count: int, words: Words) -> list[Block]:
    """A paragraph on how many rows a figure and a table show; none where both show all."""
    if count <= MOST_DRAWN:
        return []
    return [text(words("rows_shown", n=count, drawn=MOST_DRAWN, listed=min(count, MOST_LISTED)))]


def last_verdict(words: Words, found: Sequence[GapFigures | None]) -> str:
    """The verdict of the last column that has one."""
    last = found[-1]
    return words.verdict(last["verdict"]) if last and last["verdict"] else words.blank


def estimates(
    view: View,
    words: Words,
    caption: str,
    first: str,
    rows: Sequence[tuple[str, Sequence[Estimate | None]]],
    *,
    verdicts: Sequence[str] | None = None,
    tests: Sequence[Sequence[TopicRow | None]] | None = None,
) -> Block:
    """A table of estimates: gap and interval of each column, with verdicts or Holm's p if there are some."""
    several = len(view.columns) > 1
    names = labels(view, words) if first == "groups" else gap_labels(view, words)
    counts = [next((row["n_pairs"] for row in found if row), None) for _, found in rows]
    counted = any(n is not None for n in counts)
    shown_p = tests is not None and len(names) <= 2
    head = [words(f"col_{first}")] + [words("col_pairs")] * counted
    for label in names:
        head.append(label if several else words("col_estimate"))
        head += [words("col_p", column=label) if several else "p (Holm)"] * shown_p
    shown = verdicts if verdicts and any(v != words.blank for v in verdicts) else None
    head += [words("row_verdict")] * (shown is not None)
    body = []
    for i, ((name, found), n) in enumerate(zip(rows, counts, strict=True)):
        line: list[str] = [words.name(name)] + [Number(words.count(n))] * counted
        for row, test in zip(found, tests[i] if tests else [None] * len(found), strict=True):
            line.append(Number(estimate(row, words, bool(test and test["clear"]))))
            line += [Number(words.p(test["p_holm"] if test else None))] * shown_p
        body.append(line + ([shown[i]] if shown else []))
    return table(words(f"table_{caption}"), head, body)


def estimate(row: Estimate | None, words: Words, clear: bool = False) -> str:
    """A gap with its interval; ● where it differs from 0."""
    if row is None:
        return words.blank
    parts = [words.signed(row["gap"]), words.brackets(row["ci95"]), "●" if clear else words.blank]
    return " ".join(part for part in parts if part != words.blank) or words.blank


def mark(row: Estimate | None, note: str = "") -> Mark | None:
    """An estimate as a figure takes it."""
    if row is None or row["gap"] is None:
        return None
    return {"gap": row["gap"], "ci95": row["ci95"], "note": note}


def column_facts(view: View, words: Words) -> str:
    """Gap and interval of each column in one sentence, for a screen reader."""
    return " ".join(
        f"{label}: {words.signed(shown['gap'])} {words.brackets(shown['ci95'])}."
        for label, column in zip(gap_labels(view, words), view.columns, strict=True)
        for shown in [view.figures_of(column)]
    )


def strip(view: View, words: Words) -> Block | None:
    """The gaps of the first screen on one axis."""
    marks = [mark(view.figures_of(column)) for column in view.columns]
    if not any(marks):
        return None
    rows: list[dict[str, Any]] = [{"label": "", "marks": marks}]
    if view.kind == "compare":
        rows = [
            {"label": label, "marks": [one if i == j else None for j in range(len(marks))]}
            for i, (label, one) in enumerate(zip(gap_labels(view, words), marks, strict=True))
        ]
    return forest(view, words, "fig-gap", rows, told=column_facts(view, words), numbers=False)


def forest(
    view: View,
    words: Words,
    name: str,
    rows: list[dict[str, Any]],
    *,
    title: str = "fig_forest",
    told: str,
    numbers: bool = True,
) -> Block:
    """A forest plot of the rows, in the view's colours."""
    groups = words.groups(view)
    ends = [words("more_over", group=groups[place]) for place in ("first", "second")]
    drawings, _ = figures.forest(
        rows,
        gap_labels(view, words),
        name=name,
        title=words(title, facts=told),
        axis=words("axis_gap", **groups),
        ends=(ends[0], ends[1]),
        fmt=words.signed,
        fmt_end=words.end,
        target=view.target,
        target_label=words("target_strip", target=words.target) if view.target else "",
        first_mark=view.first_mark,
        numbers=numbers,
    )
    keys = [
        (figures.key(f"m{view.first_mark + i}"), label) for i, label in enumerate(gap_labels(view, words))
    ]
    return {"kind": "figure", "drawings": drawings, "legend": keys if numbers and len(keys) > 1 else []}


def written(value: Any) -> str:
    """A setting as text."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings within settings as one list, their names joined by dots."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        rows += (
            flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
        )
    return rows


def differing(prompts: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """Split twins into parts and mark the words that the others do not share.

    Example:
        >>> differing(["He is a nurse.", "She is a nurse."])
        [[('He', True), (' is a nurse.', False)], [('She', True), (' is a nurse.', False)]]
    """
    words = [re.findall(r"\w+|\W", prompt) for prompt in prompts]
    shared = [[True] * len(w) for w in words]
    for i, mine in enumerate(words):
        other = words[1 if i == 0 else 0] if len(words) > 1 else mine
        for tag, a, b, _, _ in difflib.SequenceMatcher(None, mine, other, autojunk=False).get_opcodes():
            if tag != "equal":
                shared[i][a:b] = [False] * (b - a)
    parts = []
    for mine, same in zip(words, shared, strict=True):
        runs: list[tuple[str, bool]] = []
        for word, equal in zip(mine, same, strict=True):
            if runs and runs[-1][1] is not equal:
                runs[-1] = (runs[-1][0] + word, not equal)
            else:
                runs.append((word, not equal))
        parts.append(runs)
    return parts
