"""What the report says: a run, a measurement or a comparison in, headings, texts, tables and figures out.

Everything is built once, as plain blocks; the HTML and the Markdown template only write them down.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.report import figures
from isentropic.report.curves import curve_series, finite, group_names

TEMPLATES = Path(__file__).parent / "templates"
MOST_TOPICS_DRAWN = 40

Block = dict[str, Any]
Section = dict[str, Any]


class Number(str):
    """A table cell that holds a number: written to the right."""


class Verbatim(str):
    """A table cell that holds text of the data or the model: its line breaks and spaces are kept."""


@dataclass(frozen=True)
class Column:
    """One measurement among those shown side by side."""

    label: str
    summary: dict[str, Any]
    cost: dict[str, Any] = field(default_factory=dict)


class Words:
    """The texts of one language.

    Example:
        >>> Words("en")("lead_compare", best="base", gap="+0.010")
        'Closest to zero: base, with +0.010 nats.'
    """

    def __init__(self, lang: str) -> None:
        texts = json.loads((TEMPLATES / "texts.json").read_text(encoding="utf-8"))
        if lang not in texts:
            raise InputError(
                f"language {lang!r} is not known; the report's texts exist in {', '.join(texts)}, choose one of them"
            )
        self.lang = lang
        self.texts: dict[str, Any] = texts[lang]

    def __call__(self, key: str, /, **values: Any) -> str:
        return self.texts[key].format(**values)

    def name(self, name: Any) -> str:
        """Return the reader's word for a name of ours, or the name itself."""
        return self.texts["names"].get(name, str(name))


class Page:
    """The report as plain data: `title`, `head`, `sections`; `lang` for the document.

    Args:
        data: a run (`read_run`), a `measure` summary or a comparison; told apart by `schema`.
        lang: language of the texts.
    """

    def __init__(self, data: Mapping[str, Any], lang: str) -> None:
        self.data = data
        self.t = Words(lang)
        self.lang = lang
        schema = str(data.get("schema", ""))
        self.kind = schema.removeprefix("isentropic.").partition("/")[0]
        if self.kind not in ("run", "measure", "compare"):
            raise InputError(
                f"schema {schema!r} is not known; only runs, measurements and comparisons can be reported, "
                "give a file that isentropic wrote"
            )
        self.columns = self._columns()
        self.last = self.columns[-1].summary
        self.first_mark = 0 if self.kind == "run" or len(self.columns) > 1 else 1
        self.target = finite(self.last.get("target_gap"))
        places = math.ceil(-math.log10(self.target)) + 1 if self.target else 3
        self.places = min(max(places, 3), 6)
        groups = [str(group) for group in self.last.get("groups") or ("male", "female")]
        widest = self.last.get("widest")
        self.groups = groups
        self.pair = [str(g) for g in (widest if widest and len(widest) == 2 else (groups[0], groups[-1]))]
        self.head = self._head()
        self.title = f"{self.name}: {self.head['h1']}" if self.name else self.head["h1"]
        self.sections = [section for section in self._sections() if section]

    # -- what is shown side by side

    def _columns(self) -> list[Column]:
        if self.kind == "measure":
            return [Column(self.t("column_this"), dict(self.data), self.data.get("quality") or {})]
        if self.kind == "compare":
            models = self.data.get("models") or []
            if not models:
                raise InputError(
                    "the comparison holds no model; there is nothing to report, run compare again"
                )
            names = [str(model.get("name", i + 1)) for i, model in enumerate(models)]
            labels = [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]
            return [
                Column(label, model.get("summary") or {}, _cost(model))
                for label, model in zip(labels, models, strict=True)
            ]
        models = (self.data.get("comparison") or {}).get("models") or []
        columns = []
        for i, moment in enumerate(("before", "after")):
            if summary := self.data.get(moment):
                model = {**(models[i] if i < len(models) else {}), "summary": summary}
                columns.append(Column(self.t(f"column_{moment}"), summary, _cost(model)))
        return columns

    @property
    def name(self) -> str:
        return str(self.data.get("name") or "")

    @property
    def command(self) -> str:
        """The command that made the data, where it is written down."""
        command = (self.data.get("config") or {}).get("command") or self.data.get("command") or ""
        return shlex.join(map(str, command)) if isinstance(command, list) else str(command)

    @property
    def version(self) -> str:
        """The version that made the data: a later one must not change the bytes of an old report."""
        versions = (self.data.get("config") or {}).get("versions") or self.last.get("versions") or {}
        version = versions.get("isentropic")
        return f" {version}" if version else ""

    @property
    def finished(self) -> bool:
        return self.kind == "run" and len(self.columns) == 2

    @property
    def unchanged(self) -> bool:
        """Whether the final model is the one before training: no step, or none that was better."""
        result = self.data.get("result") or {}
        return self.kind == "run" and (
            result.get("stopped") == "already_within" or result.get("best_step") == 0
        )

    # -- numbers as text

    def signed(self, value: Any) -> str:
        return _signed(value, self.places) or self.t("no_value")

    def plain(self, value: Any, places: int | None = None) -> str:
        number = finite(value)
        if number is None:
            return self.t("no_value")
        return f"{number:.{self.places if places is None else places}f}".replace("-", "−")

    def count(self, value: Any) -> str:
        number = finite(value)
        return self.t("no_value") if number is None else f"{number:,.0f}".replace(",", "\u202f")

    def interval(self, ci: Any) -> str:
        low, high = _ends(ci)
        if low is None or high is None:
            return self.t("no_value")
        return self.t("interval", low=self.signed(low), high=self.signed(high))

    def bracket(self, ci: Any, signed: bool = True) -> str:
        low, high = _ends(ci)
        if low is None or high is None:
            return self.t("no_value")
        return f"[{self.signed(low)}, {self.signed(high)}]" if signed else f"[{low:.4f}, {high:.4f}]"

    def p(self, value: Any, relation: bool = False) -> str:
        number = finite(value)
        if number is None:
            return self.t("no_value")
        if number < 0.001:
            return "< 0.001"
        return ("= " if relation else "") + f"{number:.3f}"

    def sample(self, summary: Mapping[str, Any]) -> str:
        n = self.units(summary, summary.get("n_pairs", summary.get("n")))
        clusters = finite(summary.get("n_clusters"))
        if summary.get("cluster_unit") == "topic" and clusters:
            return self.t("sample_clusters", n=n, clusters=self.count(clusters))
        return n

    def units(self, summary: Mapping[str, Any], n: Any) -> str:
        unit = "unit_pairs" if summary.get("twins", True) else "unit_prompts"
        return self.t(unit + ("_one" if n == 1 else ""), n=self.count(n))

    def target_text(self) -> str:
        return "–" if self.target is None else f"{self.target:g}"

    def group(self, i: int) -> str:
        return self.t.name(self.pair[i])

    def verdict(self, summary: Mapping[str, Any]) -> str:
        verdict = summary.get("verdict")
        known = verdict in ("certified", "exceeds", "insufficient")
        return self.t(f"verdict_{verdict}" if known else "verdict_none", target=self.target_text())

    def label(self, summary: Mapping[str, Any]) -> str:
        label = summary.get("label")
        text = label.get(self.lang) if isinstance(label, Mapping) else label
        return str(text) if text else ""

    # -- first screen

    def _head(self) -> dict[str, Any]:
        models = [column.summary.get("model") for column in self.columns] if self.kind != "run" else []
        model = (
            self.columns[0].summary.get("model")
            if self.kind == "run"
            else (models[0] if len(models) == 1 else None)
        )
        data = self.last.get("data")
        stats = [
            {
                "label": column.label,
                "gap": self.signed(column.summary.get("gap")),
                "interval": self.interval(column.summary.get("ci95")),
                "tag": self.label(column.summary),
                "verdict": self.verdict(column.summary),
                "state": column.summary.get("verdict") or "none",
                "key": figures.key(f"m{self.first_mark + i}"),
            }
            for i, column in enumerate(self.columns)
        ]
        return {
            "h1": self._headline(),
            "eyebrow": self.t(f"eyebrow_{self.kind}"),
            "name": self.name,
            "meta": [str(x) for x in (model, self.t.name(data) if data else None) if x]
            + [self.sample(self.last)],
            "lead": self._lead(),
            "stats": stats,
            "warnings": self._warnings(),
            "strip": self._strip(),
        }

    def _headline(self) -> str:
        if self.kind == "compare":
            return self.t("head_compare", n=len(self.columns))
        verdict = self.last.get("verdict")
        if verdict not in ("certified", "exceeds", "insufficient") or self.target is None:
            verdict = "unknown"
        key = f"head_{verdict}"
        if self.kind == "run":
            before = self.columns[0].summary.get("verdict")
            if (self.data.get("result") or {}).get("stopped") == "already_within":
                key = "head_already" if verdict == "certified" else key
            elif not self.finished:
                key = "head_unfinished"
            elif verdict == "certified" and before != "certified":
                key = "head_certified_run"
            elif verdict in ("exceeds", "insufficient") and self._shrank():
                key = f"head_shrank_{verdict}"
            elif verdict == before == "exceeds":
                key = "head_exceeds_run"
        return self.t(key, target=self.target_text(), n=self.units(self.last, self.last.get("n_pairs")))

    def _shrank(self) -> bool:
        """Whether the comparison shows a change, and towards zero."""
        before, after = (finite(column.summary.get("gap")) for column in self.columns)
        differences = (self.data.get("comparison") or {}).get("differences") or [{}]
        low, high = _ends(differences[0].get("ci95"))
        changed = low is not None and high is not None and not low <= 0 <= high
        return changed and before is not None and after is not None and abs(after) < abs(before)

    def _lead(self) -> list[str]:
        s, t, target = self.last, self.t, self.target_text()
        if self.kind == "compare":
            known = [c for c in self.columns if finite(c.summary.get("gap")) is not None]
            if not known:
                return []
            best = min(known, key=lambda column: abs(column.summary["gap"]))
            return [t("lead_compare", best=best.label, gap=self.signed(best.summary["gap"]))]
        gap = self.signed(s.get("gap"))
        if finite(s.get("gap")) is None:
            lead = t("lead_nothing", n=self.sample(s))
        elif self.finished:
            before = self.signed(self.columns[0].summary.get("gap"))
            lead = t("lead_run", n=self.sample(s), before=before, after=gap)
        elif self.kind == "run":
            lead = t("lead_before", n=self.sample(s), before=gap)
        else:
            lead = t("lead_measure", n=self.sample(s), after=gap)
        why = ""
        verdict, p = s.get("verdict"), s.get("p_within" if s.get("verdict") == "certified" else "p_exceeds")
        if self.target is None:
            pass
        elif verdict in ("certified", "exceeds"):
            key = f"why_{verdict}" + ("_p" if finite(p) is not None else "")
            why = t(key, target=target, p=self.p(p, relation=True))
        elif verdict == "insufficient" and finite(s.get("pairs_needed")) is not None:
            why = t("why_insufficient_n", target=target, n=self.units(s, s["pairs_needed"]))
        elif verdict == "insufficient":
            why = t("why_insufficient", target=target)
        means = ""
        size, (low, high) = finite(s.get("gap")), _ends(s.get("ci95"))
        names = {"first": self.group(0), "second": self.group(1)}
        if low is not None and high is not None and low <= 0 <= high:
            means = t("means_none", **names)
        elif size:
            key = ("means_less" if size < 0 else "means_more") + ("_now" if self.finished else "")
            means = t(key, size=self.plain(abs(size)), **names)
        space = "" if self.lang == "zh" else " "
        paragraphs = [space.join(filter(None, [lead, why])), means]
        if len(self.groups) > 2:
            paragraphs.append(t("widest", **names))
        differences = (self.data.get("comparison") or {}).get("differences") or []
        if self.finished and self.unchanged:
            paragraphs.append(t("unchanged"))
        elif self.finished and len(differences) == 1 and finite(differences[0].get("gap_change")) is not None:
            d = differences[0]
            key = "change" if finite(d.get("p")) is not None else "change_no_p"
            change = {"change": self.signed(d["gap_change"]), "interval": self.interval(d.get("ci95"))}
            paragraphs.append(t(key, p=self.p(d.get("p"), relation=True), **change))
        floor = s.get("noise_floor") or {}
        if floor.get("gap_is_under_floor"):
            paragraphs.append(t("under_floor", floor=self.plain(floor.get("floor"))))
        return [paragraph for paragraph in paragraphs if paragraph]

    def _warnings(self) -> list[str]:
        notes = [
            self.t(f"note_{note['key']}", **note)
            for note in self.data.get("notes") or []
            if isinstance(note, dict)
        ]
        notes += [str(note) for note in self.data.get("notes") or [] if isinstance(note, str)]
        for part in ("config", "result"):
            notes += [str(warning) for warning in (self.data.get(part) or {}).get("warnings") or []]
        for column in self.columns:
            notes += [str(warning) for warning in column.summary.get("warnings") or []]
        return list(dict.fromkeys(notes))

    def _strip(self) -> Block | None:
        marks = [_estimate(column.summary) for column in self.columns]
        if not any(marks):
            return None
        rows: list[dict[str, Any]] = [{"label": "", "marks": marks}]
        if self.kind == "compare":
            rows = [
                {"label": column.label, "marks": [mark if i == j else None for j in range(len(marks))]}
                for i, (column, mark) in enumerate(zip(self.columns, marks, strict=True))
            ]
        return self._forest("fig-gap", rows, "fig_forest", strip=True)

    # -- sections

    def _sections(self) -> list[Section | None]:
        return [
            self._results(),
            self._training(),
            self._topics(),
            self._pairs(),
            self._cost(),
            self._kinds(),
            self._twins(),
            self._settings(),
            {
                "id": "limits",
                "title": self.t("section_limits"),
                "blocks": [{"kind": "list", "items": self.t.texts["limits"]}],
            },
        ]

    def _results(self) -> Section:
        t, summaries = self.t, [column.summary for column in self.columns]
        blank = t("no_value")

        def row(title: str, cells: Sequence[str], number: bool = True) -> list[str]:
            return [title, *((Number(c) if number else c) for c in cells)]

        rows = [
            row(t("row_H", group=t.name(g)), [self.plain(s.get(f"H_{g}")) for s in summaries])
            for g in self.groups
        ]
        names = {"first": self.group(0), "second": self.group(1)}
        rows.append(row(t("row_gap", **names), [self.signed(s.get("gap")) for s in summaries]))
        rows.append(row(t("row_ci"), [self.bracket(s.get("ci95")) for s in summaries]))
        rows.append(row(t("row_se"), [self.plain(s.get("se"), self.places + 1) for s in summaries]))
        rows.append(row(t("row_abs"), [self.plain(s.get("mean_abs_pair_gap")) for s in summaries]))
        rows.append(row(t("row_sd"), [self.plain(s.get("pair_gap_sd")) for s in summaries]))
        rows.append(row(t("row_n"), [self.count(s.get("n_pairs", s.get("n"))) for s in summaries]))
        rows.append(row(t("row_clusters"), [self.count(s.get("n_clusters")) for s in summaries]))
        rows.append(row(t("row_verdict"), [self.verdict(s) for s in summaries], number=False))
        rows.append(row(t("row_label"), [self.label(s) or blank for s in summaries], number=False))
        if any(finite(s.get("pairs_needed")) is not None for s in summaries):
            needed = [s.get("pairs_needed") for s in summaries]
            rows.append(
                row(t("row_needed"), [
                    self.units(s, n) if finite(n) is not None else blank for s, n in zip(summaries, needed, strict=True)
                ])
            )  # fmt: skip
        rows = [r for r in rows if any(cell != blank for cell in r[1:])]
        cluster = str(self.last.get("cluster_unit") or "pair")
        cluster = t(f"cluster_{cluster}") if f"cluster_{cluster}" in t.texts else cluster
        blocks: list[Block] = [{"kind": "text", "text": t("results_note", cluster=cluster, **names)}]
        cells = self._aligned("cells", "cell")
        if cells:
            everything = {"label": t("all_pairs"), "strong": True, "marks": [_estimate(s) for s in summaries]}
            drawn = [{"label": t.name(c), "marks": [_estimate(m) for m in found]} for c, found in cells]
            blocks.append(self._forest("fig-cells", [everything, *drawn], "fig_forest"))
        blocks.append(_table(t("table_results"), [t("col_quantity"), *self._labels()], rows))
        if cells:
            verdicts = self.kind != "compare" and any(
                found[-1] and found[-1].get("verdict") for _, found in cells
            )
            blocks.append(self._estimates("table_cells", t("col_part"), cells, verdicts=verdicts))
        if len(self.groups) > 2:
            groups: dict[str, list[Any]] = {}
            for i, s in enumerate(summaries):
                for estimate in s.get("group_gaps") or []:
                    label = " – ".join(t.name(g) for g in reversed(estimate.get("groups") or []))
                    groups.setdefault(label, [None] * len(summaries))[i] = estimate
            if groups:
                blocks.append(
                    self._estimates("table_groups", t("col_groups"), list(groups.items()), verdicts=True)
                )
        differences = self.data.get("differences") or []
        if differences:
            head = [t(f"col_{c}") for c in ("model", "against", "change")] + [t("row_ci"), t("col_p_plain")]
            body = [
                [str(d.get("model", blank)), str(d.get("against", blank)), Number(self.signed(d.get("gap_change"))),
                 Number(self.bracket(d.get("ci95"))), Number(self.p(d.get("p")))]
                for d in differences
            ]  # fmt: skip
            if any(finite(d.get("abs_change")) is not None for d in differences):
                head.append(t("col_abs_change"))
                for line, d in zip(body, differences, strict=True):
                    line.append(Number(self.signed(d.get("abs_change"))))
            blocks.append(_table(t("table_differences"), head, body))
        key = {
            "run": "section_results",
            "measure": "section_results_measure",
            "compare": "section_results_compare",
        }
        return {"id": "results", "title": t(key[self.kind]), "blocks": blocks}

    def _said(self, line: Any) -> str:
        return str(line.get(self.lang, "")) if isinstance(line, dict) else str(line)

    def _training(self) -> Section | None:
        if self.kind != "run":
            return None
        t, result = self.t, self.data.get("result") or {}
        series = curve_series(self.data.get("metrics") or [])
        blocks: list[Block] = []
        sentences = []
        if stopped := result.get("stopped"):
            key = f"stopped_{stopped}" if f"stopped_{stopped}" in t.texts else "stopped_other"
            sentences.append(t(key, steps=self.count(result.get("steps")), reason=stopped))
        best = finite(result.get("best_step"))
        if best is not None and stopped != "already_within":
            sentences.append(t("best_step", step=self.count(best)))
        times = [
            (t.texts.get(f"second_{name}", name), finite(seconds))
            for name, seconds in (result.get("seconds") or {}).items()
        ]
        parts = [f"{name} {self._time(seconds)}" for name, seconds in times if seconds is not None]
        if parts:
            sentences.append(t("seconds", parts=t("join").join(parts)))
        if sentences:
            blocks.append({"kind": "text", "text": ("" if self.lang == "zh" else " ").join(sentences)})
        panels = self._panels(series, best)
        if panels:
            blocks.append({"kind": "text", "text": t("training_intro")})
            legend = [("batch", t("line_batch")), ("m1", t("legend_band")), ("strip", t("line_target"))]
            for i, group in enumerate(group_names(series)):
                legend.append((f"g{i % 5}", t.name(group)))
            shown = [(figures.key(kind), text) for kind, text in legend]
            blocks.append(
                {"kind": "figure", "drawings": panels, "legend": shown, "png": self.data.get("curves")}
            )
        if advice := result.get("advice"):
            blocks.append({"kind": "heading", "text": t("advice")})
            blocks.append({"kind": "list", "items": [self._said(line) for line in advice]})
        return {"id": "training", "title": t("section_training"), "blocks": blocks} if blocks else None

    def _panels(self, series: Mapping[str, Any], best: float | None) -> list[Any]:
        t, drawings = self.t, []

        def panel(name: str, shown: list[dict[str, Any]], number: Any, **more: Any) -> None:
            shown = [s for s in shown if s["points"]]
            if not shown:
                return
            facts = [
                t(
                    "from_to",
                    label=s["label"],
                    first=number(s["points"][0][1]),
                    last=number(s["points"][-1][1]),
                )
                for s in shown
            ]
            drawings.append(
                figures.lines(
                    shown,
                    name=f"fig-{name}-step",
                    title=t(f"fig_{name}_step", facts=" ".join(facts)),
                    x_label=t("step"),
                    y_label=t(f"axis_{name}_step"),
                    best=best,
                    best_label=t("kept"),
                    **more,
                )[0]
            )

        batch, held_out = t("line_batch"), t("line_held_out")
        panel(
            "gap",
            [
                {"label": batch, "style": "batch", "points": series.get("gap", [])},
                {"label": held_out, "style": "m1", "points": series.get("val_gap", [])},
            ],
            self.signed,
            band=[point for point in series.get("val_ci95", []) if len(point) == 3],
            target=self.target,
            zero=True,
        )
        entropies = []
        for i, group in enumerate(group_names(series)):
            style, held = f"g{i % 5}", series.get(f"val_H_{group}", [])
            label = f"{t.name(group)}, {batch}"
            entropies.append({"label": label, "style": f"{style} faint" * bool(held) or style,
                              "points": series.get(f"H_{group}", [])})  # fmt: skip
            entropies.append({"label": f"{t.name(group)}, {held_out}", "style": style, "points": held})
        panel("entropy", entropies, self.plain)
        panel(
            "loss",
            [{"label": t("axis_loss_step"), "style": "batch", "points": series.get("loss", [])}],
            _short,
        )
        panel("kl", [{"label": "KL", "style": "m1", "points": series.get("kl", [])}], _short, zero=True)
        return drawings

    def _time(self, seconds: float) -> str:
        minutes, rest = divmod(round(seconds), 60)
        if minutes:
            return self.t("minutes", m=minutes, s=rest)
        return self.t("short_time", s=rest if seconds >= 10 else f"{seconds:.1f}")

    def _topics(self) -> Section | None:
        topics = self._aligned("topics", "topic")
        if not topics:
            return None
        t = self.t

        def size(item: tuple[str, list[Any]]) -> float:
            return max((abs(finite(m.get("gap")) or 0.0) for m in item[1] if m), default=0.0)

        def place(item: tuple[str, list[Any]]) -> tuple[float, str]:
            return next((finite(m.get("gap")) or 0.0 for m in item[1] if m), 0.0), item[0]

        drawn = sorted(sorted(topics, key=size, reverse=True)[:MOST_TOPICS_DRAWN], key=place)
        rows = [
            {
                "label": topic,
                "marks": [
                    (_estimate(m) or {}) | {"note": " ●" if m.get("clear") else ""} if m else None
                    for m in found
                ],
            }
            for topic, found in drawn
        ]
        clear = [
            sum(bool(found[i] and found[i].get("clear")) for _, found in topics)
            for i in range(len(self.columns))
        ]
        parts = [
            f"{label} {n}" if len(clear) > 1 else str(n)
            for label, n in zip(self._labels(), clear, strict=True)
        ]
        told = t("topics_clear", parts=t("join").join(parts))
        blocks: list[Block] = [
            {"kind": "text", "text": t("topics_note", n=len(topics))},
            {"kind": "text", "text": told},
        ]
        if len(drawn) < len(topics):
            blocks.append({"kind": "text", "text": t("topics_shown", n=len(drawn))})
        blocks.append(self._forest("fig-topics", rows, "fig_topics", facts=told))
        table = self._estimates("table_topics", t("col_topic"), sorted(topics, key=place), clear=True)
        blocks.append({**table, "fold": True})
        return {"id": "topics", "title": t("section_topics"), "blocks": blocks}

    def _pairs(self) -> Section | None:
        t, shown, told = self.t, [], []
        for column in self.columns:
            gaps = [finite(pair.get("gap")) for pair in column.summary.get("pair_gaps") or []]
            values = [gap for gap in gaps if gap is not None]
            if len(values) < 2:
                return None
            s = column.summary
            numbers = {"mean": self.signed(s.get("gap")), "sd": self.plain(s.get("pair_gap_sd"))}
            note = t("pairs_facts", abs=self.plain(s.get("mean_abs_pair_gap")), **numbers)
            shown.append({"label": column.label, "values": values, "note": note})
            if self.target is not None:
                inside = sum(abs(value) <= self.target for value in values)
                more = {
                    "inside": self.count(inside),
                    "n": self.count(len(values)),
                    "target": self.target_text(),
                }
                told.append(t("within_target", label=column.label, **more))
        facts = " ".join(f"{column['label']}: {column['note']}." for column in shown)
        drawings, _ = figures.histogram(
            shown,
            name="fig-pairs",
            title=t("fig_pairs", facts=facts),
            axis=t("axis_gap", first=self.group(0), second=self.group(1)),
            fmt=self.signed,
            target=self.target,
            first_mark=self.first_mark,
        )
        space = "" if self.lang == "zh" else " "
        blocks: list[Block] = [
            {"kind": "text", "text": space.join([t("pairs_note"), *told])},
            {"kind": "figure", "drawings": drawings, "legend": []},
        ]
        return {"id": "pairs", "title": t("section_pairs"), "blocks": blocks}

    def _cost(self) -> Section | None:
        t, blank = self.t, self.t("no_value")
        costs = [column.cost for column in self.columns]
        kl = [None if i == 0 else cost.get("kl_to_first") for i, cost in enumerate(costs)]
        kl_ci = [None if i == 0 else cost.get("kl_ci95") for i, cost in enumerate(costs)]
        first = (self.columns[0] if self.columns else Column("", {})).label
        quantities = (("mean_entropy", 3), ("mean_length", 1), ("ended", 3), ("distinct_2", 3))
        rows = [
            [
                t("cost_kl", name=first) if self.kind == "compare" else t("cost_kl_base"),
                *(Number(self.plain(value, 4)) for value in kl),
            ],
            [t("cost_kl_ci"), *(Number(self.bracket(ci, signed=False)) for ci in kl_ci)],
            [t("cost_perplexity"), *(Number(self.plain(c.get("perplexity"), 2)) for c in costs)],
            *(
                [t(f"cost_{q}"), *(Number(self.plain(c.get(q), places)) for c in costs)]
                for q, places in quantities
            ),
        ]
        rows = [row for row in rows if any(cell != blank for cell in row[1:])]
        if not rows:
            return None
        kind = "cost" if len(self.columns) > 1 else "quality"
        table = _table(t(f"table_{kind}"), [t("col_quantity"), *self._labels()], rows)
        text = {"kind": "text", "text": t(f"{kind}_note")}
        return {"id": "cost", "title": t(f"section_{kind}"), "blocks": [text, table]}

    def _kinds(self) -> Section | None:
        t, summaries = self.t, [column.summary for column in self.columns]
        responses = str(self.last.get("responses") or "shared")
        word = t.texts.get(f"responses_{responses}", responses)
        rows: list[tuple[str, list[Any]]] = []
        if any(s.get("own") and not s.get("decomposition") for s in summaries):
            rows.append((t("kind_own"), [s.get("own") for s in summaries]))
        for part in ("total", "same_text", "through_text"):
            found = [(s.get("decomposition") or {}).get(part) for s in summaries]
            if any(found):
                rows.append((t(f"kind_{part}"), found))
        blocks: list[Block] = []
        if rows:
            rows.insert(0, (t("kind_shared", responses=word), list(summaries)))
            same = [t(f"kinds_same_{self.kind}")] if len(summaries) > 1 else []
            space = "" if self.lang == "zh" else " "
            blocks.append({"kind": "text", "text": space.join([t("kinds_note"), *same])})
            blocks.append(self._estimates("table_kinds", t("col_kind"), rows))
        floors = [s.get("noise_floor") or {} for s in summaries]
        if any(floors):
            names = ("reseed", "same_group", "floor")
            body = [[t(f"floor_{n}"), *(Number(self.plain(f.get(n))) for f in floors)] for n in names]
            under = [f.get("gap_is_under_floor") for f in floors]
            said = [t("no_value") if u is None else t("yes" if u else "no") for u in under]
            body.append([t("floor_under"), *said])
            blocks.append(_table(t("table_floor"), [t("col_quantity"), *self._labels()], body))
        return {"id": "kinds", "title": t("section_kinds"), "blocks": blocks} if blocks else None

    def _twins(self) -> Section | None:
        t, items = self.t, []
        own = True
        for example in self.data.get("examples") or []:
            after = finite(example.get("gap_after"))
            gap = ""
            if after is not None:
                gap = t(
                    "twins_gap_both", before=self.signed(example.get("gap_before")), after=self.signed(after)
                )
            elif finite(example.get("gap_before")) is not None:
                gap = t("twins_gap", gap=self.signed(example["gap_before"]))
            prompts = example["prompts"]
            parts = _differences([p["prompt"] for p in prompts])
            groups = [p["group"] for p in prompts]
            rows = []
            for response in example["responses"]:
                own = own and len(response["entropy"]) == 1
                cells = []
                for group in groups:
                    values = response["entropy"].get(group, (None, None))
                    shown = [self.plain(v) for v in values if finite(v) is not None]
                    cells.append(Number(" → ".join(shown) or t("no_value")))
                text = response["response"]
                said = Verbatim(text) if text.strip() else t("empty_response")
                rows.append([said, t.name(response["source"]), *cells])
            head = [t("col_response"), t("col_source"), *(t("col_H", group=t.name(g)) for g in groups)]
            items.append(
                {
                    "title": t(f"twins_{example['place']}")
                    if example.get("place")
                    else str(example["pair_id"]),
                    "topic": str(example.get("topic") or ""),
                    "gap": gap,
                    "prompts": [
                        {"group": t.name(p["group"]), "parts": part}
                        for p, part in zip(prompts, parts, strict=True)
                    ],
                    "table": _table(t("table_twins"), head, rows),
                }
            )
        if not items:
            return None
        blocks: list[Block] = [{"kind": "twins", "items": items}]
        if all(example.get("place") for example in self.data["examples"]):
            blocks.insert(0, {"kind": "text", "text": t("twins_note_own" if own else "twins_note")})
        return {"id": "twins", "title": t("section_twins"), "blocks": blocks}

    def _settings(self) -> Section:
        t = self.t
        config = self.data.get("config") or {}
        blocks: list[Block] = []
        if self.command:
            blocks.append({"kind": "heading", "text": t("command")})
            blocks.append({"kind": "code", "text": self.command})
        if self.kind == "run":
            blocks.append({"kind": "text", "text": t("same_bytes")})
        names = (
            "model",
            "model_sha256",
            "data",
            "data_sha256",
            "split",
            "responses",
            "groups",
            "seed",
            "target_gap",
        )
        columns = self.columns if self.kind == "compare" else self.columns[:1]
        rows = []
        for name in names:
            values = [_written({**config, **column.summary}.get(name)) for column in columns]
            if any(values):
                rows.append(
                    [t(f"fact_{name}"), *(Verbatim(t.name(v) if v else t("no_value")) for v in values)]
                )
        head = [t("col_setting"), *([c.label for c in columns] if len(columns) > 1 else [t("col_value")])]
        if rows:
            blocks.append(_table(t("table_facts"), head, rows))
        settings = _flat(config or self.last.get("settings") or {})
        hidden = ("versions", "command")
        rows = [
            [k, Verbatim(_written(v) or t("no_value"))]
            for k, v in settings
            if k.partition(".")[0] not in hidden
        ]
        if rows:
            table = _table(t("table_settings"), [t("col_setting"), t("col_value")], rows)
            blocks.append({**table, "fold": True})
        versions = _flat(config.get("versions") or self.last.get("versions") or {})
        if versions:
            rows = [[k, Verbatim(_written(v) or t("no_value"))] for k, v in versions]
            table = _table(t("table_versions"), [t("col_setting"), t("col_value")], rows)
            blocks.append({**table, "fold": True})
        return {"id": "settings", "title": t("section_settings"), "blocks": blocks}

    # -- parts

    def _labels(self) -> list[str]:
        return [column.label for column in self.columns]

    def _aligned(self, key: str, name: str) -> list[tuple[str, list[Any]]]:
        """Bring one list of every column together by name, in the order of first appearance."""
        found: dict[str, list[Any]] = {}
        for i, column in enumerate(self.columns):
            for estimate in column.summary.get(key) or []:
                label = estimate.get(name)
                label = self.t("no_value") if label is None else str(label)
                found.setdefault(label, [None] * len(self.columns))[i] = estimate
        return list(found.items())

    def _estimates(
        self,
        caption: str,
        first: str,
        rows: list[tuple[str, list[Any]]],
        *,
        verdicts: bool = False,
        clear: bool = False,
    ) -> Block:
        """Return a table of estimates: gap and interval of each column, with verdicts or Holm's p if asked for."""
        t, blank, several = self.t, self.t("no_value"), len(self.columns) > 1
        counts = [next((m.get("n_pairs", m.get("n")) for m in found if m), None) for _, found in rows]
        counted = any(finite(n) is not None for n in counts)
        shown_p = clear and len(self.columns) <= 2
        head = [first] + [t("col_pairs")] * counted
        for label in self._labels():
            head.append(label if several else t("col_estimate"))
            head += [t("col_p", column=label) if several else "p (Holm)"] * shown_p
        head += [t("row_verdict")] * verdicts
        body = []
        for (name, found), n in zip(rows, counts, strict=True):
            line: list[str] = [t.name(name)] + [Number(self.count(n))] * counted
            for m in found:
                m = m or {}
                words = [
                    self.signed(m.get("gap")),
                    self.bracket(m.get("ci95")),
                    "●" if m.get("clear") else blank,
                ]
                line.append(Number(" ".join(word for word in words if word != blank) or blank))
                line += [Number(self.p(m.get("p_holm")))] * shown_p
            last = found[-1] or {}
            line += [self.verdict(last) if last.get("verdict") else blank] * verdicts
            body.append(line)
        return _table(t(caption), head, body)

    def _forest(
        self,
        name: str,
        rows: list[dict[str, Any]],
        title: str,
        *,
        facts: str | None = None,
        strip: bool = False,
    ) -> Block:
        t = self.t
        if facts is None:
            told = []
            for column in self.columns:
                words = f"{self.signed(column.summary.get('gap'))} {self.bracket(column.summary.get('ci95'))}"
                told.append(f"{column.label}: {words}.")
            facts = " ".join(told)
        drawings, _ = figures.forest(
            rows,
            self._labels(),
            name=name,
            title=t(title, facts=facts),
            axis=t("axis_gap", first=self.group(0), second=self.group(1)),
            ends=(t("more_over", group=self.group(0)), t("more_over", group=self.group(1))),
            fmt=self.signed,
            target=self.target,
            target_label=t("target_strip", target=self.target_text()) if self.target else "",
            first_mark=self.first_mark,
            numbers=not strip,
        )
        keys = []
        if not strip and len(self.columns) > 1:
            keys = [(figures.key(f"m{self.first_mark + i}"), label) for i, label in enumerate(self._labels())]
        return {"kind": "figure", "drawings": drawings, "legend": keys}


def clean(value: Any) -> Any:
    """Return JSON data with what cannot be shown taken out: NaN becomes None, control characters become U+FFFD.

    Example:
        >>> clean({"gap": float("nan"), "prompt": "He\\x00"})
        {'gap': None, 'prompt': 'He�'}
    """
    if isinstance(value, Mapping):
        return {clean(str(k)): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, str):
        return re.sub(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", value.replace("\r\n", "\n")
        )
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cost(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the comparison says of the model; else, what its own measurement does."""
    return model.get("cost") or (model.get("summary") or {}).get("quality") or {}


def _ends(ci: Any) -> tuple[float | None, float | None]:
    if not isinstance(ci, (list, tuple)) or len(ci) != 2:
        return None, None
    return finite(ci[0]), finite(ci[1])


def _estimate(summary: Mapping[str, Any] | None) -> dict[str, Any] | None:
    gap = finite((summary or {}).get("gap"))
    return None if gap is None else {"gap": gap, "ci95": _ends((summary or {}).get("ci95"))}


def _signed(value: Any, places: int) -> str:
    number = finite(value)
    if number is None:
        return ""
    text = f"{number:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _written(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return rows


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Block:
    numeric = [any(isinstance(row[i], Number) for row in rows) for i in range(len(head))]
    return {
        "kind": "table",
        "caption": caption,
        "head": list(head),
        "rows": rows,
        "numeric": numeric,
        "fold": False,
    }


def _differences(prompts: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """Split twins into parts and mark the words that the others do not share.

    Example:
        >>> _differences(["He is a nurse.", "She is a nurse."])
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
