"""The report: what it says is what the run says, whatever the data hold."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import fake_run
from isentropic.commands.report import write_report
from isentropic.errors import InputError
from isentropic.report.head import head
from isentropic.report.render import model_card, render_html, render_markdown
from isentropic.report.view import view_of
from isentropic.report.words import TEMPLATES, Words
from isentropic.run_folder import read_run

VOID = {"meta", "link", "br", "input", "img", "hr"}
LANGUAGES = ("en", "zh")


class Document(HTMLParser):
    """Collects what the checks need, and every tag that is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.errors: list[str] = []
        self.ids: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.references: list[str] = []
        self.untitled: list[str] = []
        self.tags: set[str] = set()
        self.links: set[str | None] = set()
        self.cells: list[str] = []
        self.text = ""
        self.lang: str | None = None
        self._svg: dict[str, str | None] | None = None
        self.feed(page)
        self.close()
        self.errors += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        if tag == "link":
            self.links |= set((attributes.get("rel") or "").lower().split())
        if tag == "html":
            self.lang = attributes.get("lang")
        if "id" in attributes:
            self.ids.append(attributes["id"] or "")
        self.references += (attributes.get("aria-labelledby") or "").split()
        if (attributes.get("href") or "").startswith("#"):
            self.references.append((attributes["href"] or "")[1:])
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            self._svg = attributes
        elif self._svg is not None:
            if tag != "title" or self._svg.get("role") != "img":
                self.untitled.append(str(self._svg))
            self._svg = None
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data
        if self.open and re.fullmatch(r"h[1-6]", self.open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.write_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    groups = ("male", "female", "nonbinary")
    return fake_run.write_run(tmp_path_factory.mktemp("runs") / "three", groups=groups, after_shift=-0.03)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def told(run: Path) -> dict:
    """What a run says, but for the curves, whose drawing takes longer than all the rest."""
    return read_run(run) | {"metrics": []}


def everything(run: Path, three: Path) -> dict[str, dict]:
    """One summary of each kind, among them the bare minimum of each."""
    unpaired = fake_run.summary(-0.05) | {
        "cluster_unit": "prompt", "twins": False, "pair_gaps": None, "topics": [], "cells": [], "decomposition": None, "own": None,
        "noise_floor": None, "mean_abs_pair_gap": None, "pair_gap_sd": None,
    }  # fmt: skip
    holes = {
        "schema": "isentropic.measure/1", "groups": ["male", "female"], "gap": float("nan"), "se": None,
        "ci95": [None, float("inf")], "n_pairs": 1, "verdict": "insufficient", "pairs_needed": None, "target_gap": 0.01,
        "topics": [{"topic": None, "n_pairs": 1, "gap": None, "se": None, "ci95": None, "p": None, "p_holm": None}],
        "pair_gaps": [{"pair_id": "1", "topic": None, "gap": None}], "quality": None, "noise_floor": {"floor": None},
        "label": None, "H_male": None, "H_female": float("nan"), "warnings": None, "cells": None, "settings": {"a": None},
    }  # fmt: skip
    models = {
        "base": fake_run.summary(-0.08),
        "pure": fake_run.summary(0.002, 0.05),
        "gee": fake_run.summary(-0.03),
    }
    compared = fake_run.comparison(models)
    empty = {"schema": "isentropic.compare/1", "models": [{"name": "a", "summary": holes}, {"name": "a"}]}
    return {
        "run": read_run(run), "three": read_run(three), "measure": fake_run.summary(-0.006), "unpaired": unpaired,
        "holes": holes, "compare": compared, "compare of nothing": empty,
        "bare": {"schema": "isentropic.measure/1"},
        "bare run": {"schema": "isentropic.run/1", "before": {"gap": -0.1}},
    }  # fmt: skip


# --- the page as a document ---


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_kind_of_page_is_well_formed_accessible_and_shows_no_hole(
    run: Path, three: Path, lang: str
) -> None:
    for kind, summary in everything(run, three).items():
        page = render_html(summary, lang)
        document = Document(page)
        assert not document.errors, (kind, document.errors)
        assert document.lang == lang
        assert len(document.ids) == len(set(document.ids)), kind
        assert set(document.references) <= set(document.ids), kind
        assert not document.untitled, (kind, document.untitled)
        levels = [level for level, _ in document.headings]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), (kind, levels)
        assert all(text.strip() for _, text in document.headings), kind
        assert not document.tags & {"script", "img", "iframe"} and "stylesheet" not in document.links
        for text in (document.text, render_markdown(summary, lang)):
            assert not re.search(r"\b(None|nan|NaN|inf|Undefined)\b|\{\w*\}", text), kind


def test_page_asks_nothing_of_the_network(run: Path) -> None:
    page = render_html(read_run(run))
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:,|#)[a-z/.]", page)
    assert "@import" not in page


def test_same_run_gives_the_same_bytes(run: Path, copy: Path) -> None:
    first = [(write_report(run).read_bytes(), (run / "report.md").read_bytes()) for _ in range(2)]
    assert first[0] == first[1]
    # the order of keys in a file is no part of what it says
    before = json.loads((copy / "gap_before.json").read_text(encoding="utf-8"))
    (copy / "gap_before.json").write_text(json.dumps(dict(reversed(before.items()))), encoding="utf-8")
    renamed = copy.rename(copy.with_name("demo"))
    assert write_report(renamed).read_bytes() == first[0][0]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</style><b>x",
        "</title><i>",
        "\" onload='x'",
        "&lt;b&gt; {{ 7*7 }} {% x %}",
        "a|b `c` *d* [e](http://f)",
    ],
)
def test_data_and_model_text_is_shown_as_text(copy: Path, text: str) -> None:
    files = {
        name: json.loads((copy / name).read_text(encoding="utf-8"))
        for name in ("gap_before.json", "config.json")
    }
    before = files["gap_before.json"] | {
        "model": text,
        "data": text,
        "warnings": [text],
        "label": {"en": text},
    }
    before["topics"][0]["topic"] = before["cells"][0]["cell"] = text
    before["versions"] = {text: text}
    config = files["config.json"] | {"command": text, text: text, "versions": {text: text}}
    (copy / "gap_before.json").write_text(json.dumps(before), encoding="utf-8")
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows = [json.loads(line) for line in (copy / "responses.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row | {"prompt": text, "response": text, "topic": text} for row in rows]
    (copy / "responses.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    summary = told(copy)
    document = Document(render_html(summary))
    assert not document.errors
    assert not document.tags & {"script", "b", "i"}
    assert document.text.count(text) >= 10
    markdown = render_markdown(summary) + model_card(summary)
    outside_code = re.sub(r"```.*?```", "", markdown, flags=re.S)
    assert not re.search(r"(?<!\\)(<(?!br>|!-- generator: isentropic -->)|\]\(http://f|\*d\*)", outside_code)


def test_every_number_in_a_table_comes_from_the_summary(run: Path) -> None:
    summary = read_run(run)
    known: set[str] = {"95", "256"}  # % and SHA

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for child in value.values():
                collect(child)
        elif isinstance(value, (list, tuple)):
            for child in value:
                collect(child)
        elif isinstance(value, (int, float)):
            known.update(f"{abs(value):.{places}f}" for places in range(5))
            known.update([f"{value:g}", f"{abs(value):g}", str(value)])
        elif isinstance(value, str):
            known.update(re.findall(r"\d+(?:\.\d+)?", value))

    collect({key: summary[key] for key in ("config", "before", "after", "comparison", "result", "examples")})
    known.update(["0.001", "32"])  # p < 0.001, computed in float32
    known.update(f"{100 * row['change_left']:.0f}" for row in summary["result"]["also_measured"])
    cells = [cell.replace("\u202f", "") for cell in Document(render_html(summary)).cells]
    numbers = [number for cell in cells for number in re.findall(r"\d+(?:\.\d+)?(?![\w-])", cell)]
    assert len(numbers) > 300
    assert not [number for number in numbers if number not in known]


def test_both_colour_schemes_have_contrast() -> None:
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    assert len(schemes) == 2 and schemes[0].keys() == schemes[1].keys()
    for scheme in schemes:
        for text in ("ink", "muted", "accent", "certified", "exceeds", "insufficient"):
            for ground in ("paper", "wash"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert contrast(scheme["ink"], scheme["mark"]) >= 4.5
        for mark in [name for name in scheme if re.fullmatch(r"[mg]\d", name)]:
            assert contrast(scheme[mark], scheme["paper"]) >= 3, mark
            assert contrast(scheme[mark], scheme["strip"]) >= 3, mark


# --- what it says ---


def test_headline_follows_the_verdict(run: Path) -> None:
    summary = told(run)

    def headline(**changes: object) -> str:
        return Document(render_html(summary | changes)).headings[0][1]

    def after(gap: float, verdict: str) -> dict:
        half = 0.004
        return summary["after"] | {"gap": gap, "ci95": [gap - half, gap + half], "verdict": verdict}

    assert headline(after=after(0.002, "certified")) == "The gap is closed: certified within ±0.01 nats"
    assert "still larger" in headline(after=after(-0.03, "exceeds"))
    assert "shrank, but 288 pairs are too few" in headline(after=after(0.009, "insufficient"))
    # no change was shown: the headline must not claim one
    flat = {"models": [], "differences": [{"gap_change": 0.0, "ci95": [-0.01, 0.01]}]}
    assert "shrank" not in headline(after=after(-0.079, "insufficient"), comparison=flat)
    assert "shrank" not in headline(after=after(-0.079, "insufficient"), comparison=None)
    assert "not been measured after" in headline(after=None, result=None)
    within = {"stopped": "already_within"}
    small = summary["before"] | {"gap": 0.001, "ci95": [-0.003, 0.005], "verdict": "certified"}
    assert "from the start" in headline(before=small, after=None, result=within)
    # validation said "within", the test prompts do not: the page follows the test prompts
    assert "from the start" not in headline(after=None, result=within)


@pytest.mark.parametrize(
    ("unit", "english", "chinese"),
    [
        ("topic", "allow for other topics than these", "以主题为抽样单位"),
        ("topic and filler", "allow for other topics and other fillers (what recurs over topics", "以主题以及跨主题重复出现的内容（如职业）为抽样单位"),
        ("filler", "allow for other fillers (what recurs over the prompts", "以在多条提示中重复出现的内容（如职业）为抽样单位"),
    ],
)  # fmt: skip
def test_what_the_interval_counts_is_said(unit: str, english: str, chinese: str) -> None:
    summary = fake_run.summary(-0.08) | {"cluster_unit": unit}
    page = Document(render_html(summary)).text
    assert english in page and chinese in render_markdown(summary, "zh")
    assert ("24 topics" in page) == unit.startswith("topic")


def test_direction_is_told_in_words() -> None:
    def said(gap: float) -> str:
        return Document(
            render_html(fake_run.summary(0) | {"gap": gap, "ci95": [gap - 0.01, gap + 0.01]})
        ).text

    assert "hesitates 0.080 nats more over “male”" in said(-0.08)
    assert "hesitates 0.080 nats more over “female”" in said(0.08)
    assert "no difference between “male” and “female” can be seen" in said(0.005)


def test_pairs_that_would_be_enough_are_named() -> None:
    summary = fake_run.summary(-0.006)
    assert summary["verdict"] == "insufficient"
    assert "about 1\u202f340 pairs would be enough" in Document(render_html(summary)).text
    assert "would be enough" not in Document(render_html(summary | {"pairs_needed": None})).text


def test_chinese_page_is_chinese(run: Path) -> None:
    summary = told(run)
    texts = Words("en").texts, Words("zh").texts
    assert texts[0].keys() == texts[1].keys()
    english = {
        part for value in texts[0].values() if isinstance(value, str)
        for part in re.split(r"\{\w+\}", value) if len(part.split()) >= 3
    }  # fmt: skip
    page = Document(render_html(summary, "zh")).text
    assert not [part for part in english if part in page]
    assert "无偏见 ✅" in page and "轻微偏见 ⚠️" in page and "男性" in page
    for key, value in texts[0].items():
        if isinstance(value, str):
            fields = [set(re.findall(r"\{(\w+)\}", texts[i][key])) for i in (0, 1)]
            assert fields[1] <= fields[0], key


def test_advice_is_in_the_language_of_the_page_and_its_flags_stay_in_one_piece(run: Path) -> None:
    pages = [render_html(told(run), lang) for lang in LANGUAGES]
    flag = '<span class="flag">--eval_steps</span>'
    assert f"<li>raise {flag}</li>" in pages[0] and f"<li>增大 {flag}</li>" in pages[1]


@pytest.mark.parametrize("change", [{"best_step": 0}, {"stopped": "already_within"}])
def test_a_model_that_was_left_as_it_was_is_not_called_trained(run: Path, change: dict) -> None:
    summary = told(run)
    untouched = summary | {"after": summary["before"], "result": summary["result"] | change}
    assert "as it was before training" in Document(render_html(untouched)).text
    assert "与训练前相同" in Document(render_html(untouched, "zh")).text
    assert "fine-tuned" not in model_card(untouched) and "weights unchanged" in model_card(untouched)
    assert "fine-tuned" in model_card(summary)
    assert "as it was before training" not in render_html(summary)


def test_more_than_two_groups(three: Path) -> None:
    summary = told(three)
    document = Document(render_html(summary))
    assert "“male” and “nonbinary” lie furthest apart" in document.text
    assert "nonbinary – female" in document.cells
    assert "Mean entropy, nonbinary (nats)" in document.cells


def with_change(run: Path, **forms: dict | None) -> dict:
    """A finished run whose expectation moved as the forms say."""
    summary = told(run)
    (row,) = summary["comparison"]["differences"]
    row["expectation_change"] = {"form": "contexts", "twins": None, "contexts": None, **forms}
    return summary


def shift(change: float, half: float = 0.01) -> dict:
    return {"change": change, "ci95": [change - half, change + half], "abs_change": 0.002, "n": 192}


def said(summary: dict, lang: str = "en") -> tuple[str, str]:
    return Document(render_html(summary, lang)).text, render_markdown(summary, lang)


def test_an_expectation_that_moved_is_told_with_its_direction(run: Path) -> None:
    fell = with_change(run, contexts=shift(-0.4), twins=shift(0.3))
    for page in (*said(fell), model_card(fell)):
        assert (
            "After neutral contexts, the expectation has moved towards “male”: “female” over “male” changed by "
            "−0.400 nats (95 % interval −0.410 to −0.390)." in page
        )
    rose = with_change(run, twins=shift(0.4))
    for page in (*said(rose), *said(fell)):  # the second form too, where it moved
        assert "In the twins' own prompts, the expectation has moved towards “female”" in page
    assert all(
        "模型的预期向“男性”移动了：“女性”相对“男性”变化 −0.400 nat" in page for page in said(fell, "zh")
    )
    assert all("模型的预期向“女性”移动了" in page for page in said(rose, "zh"))


def test_an_expectation_that_did_not_move_is_told_as_such(run: Path) -> None:
    still = with_change(run, contexts=shift(-0.4, half=0.5))
    for page in (*said(still), model_card(still)):
        assert "no change in which group the model expects can be seen" in page
        assert "−0.400 nats (95 % interval −0.900 to +0.100)" in page and "has moved towards" not in page
    both = with_change(run, contexts=shift(-0.4, half=0.5), twins=shift(0.4, half=0.5))
    assert all("has moved towards" not in page for page in said(both))
    only_twins = with_change(run, contexts=shift(-0.4, half=0.5), twins=shift(0.4))
    for page in said(only_twins):
        assert "no change in which group the model expects can be seen" in page
        assert "In the twins' own prompts, the expectation has moved towards “female”" in page
    assert all("看不出模型对两组的预期有变化" in page and "变得" not in page for page in said(still, "zh"))


def test_a_model_that_was_not_changed_has_not_moved(run: Path) -> None:
    summary = with_change(run, contexts=shift(0.0, half=0.0))
    summary["result"]["best_step"] = 0
    for page in said(summary):
        assert "the model does not clearly expect" in page and "no change" not in page


@pytest.mark.parametrize(
    ("gap", "english", "chinese"),
    [
        (0.5, "the model expects “female” more than “male”: “female” over “male” +0.500 nats", "更预期“女性”而不是“男性”"),
        (-0.5, "the model expects “male” more than “female”: “female” over “male” −0.500 nats", "更预期“男性”而不是“女性”"),
        (0.1, "does not clearly expect “male” or “female” more: “female” over “male” +0.100 nats", "看不出模型更预期“男性”还是“女性”"),
    ],
)  # fmt: skip
def test_a_measurement_says_which_group_the_model_expects(gap: float, english: str, chinese: str) -> None:
    summary = fake_run.summary(-0.08)
    summary["expectation"] = fake_run.expectation(gap, ("male", "female"))
    assert english in Document(render_html(summary)).text and chinese in render_markdown(summary, "zh")
    # before training, too
    run = {"schema": "isentropic.run/1", "before": summary}
    assert english in Document(render_html(run)).text and english in model_card(run)


def test_both_forms_of_the_expectation_stand_in_a_table(run: Path) -> None:
    summary = with_change(run, contexts=shift(0.083), twins=shift(-0.021, half=0.03))
    markdown = render_markdown(summary)
    section = markdown.split("## Which group the model expects")[1].split("\n## ")[0]
    contexts, twins = section.split("**In the twins' own prompts")
    assert "| Mean | +0.129 | +0.212 | +0.083 |" in contexts
    assert "| 95 % interval | [−0.151, +0.409] | [−0.068, +0.492] | [+0.073, +0.093] |" in contexts
    assert "| Mean absolute value | 0.920 | 0.920 | +0.002 |" in contexts
    assert "| Share that prefers “female” | 0.578 | 0.578 | – |" in contexts
    assert "| Items | 192 | 192 | 192 |" in contexts
    assert "| Mean | −1.371 | −1.288 | −0.021 |" in twins and "−0.051, +0.009" in twins
    assert "hold: expectation" in section
    summary["config"]["hold"] = "none"
    assert "Training did not hold it" in render_markdown(summary) and "训练时没有保持预期" in render_markdown(
        summary, "zh"
    )


def test_a_comparison_tells_of_each_model_its_gap_and_how_the_expectation_differs() -> None:
    gaps = {"base": -0.08, "pure": 0.002, "gee": -0.075}
    compared = fake_run.comparison({name: fake_run.summary(gap) for name, gap in gaps.items()})
    page = Document(render_html(compared))
    assert "Closest to zero: pure" in page.text and {"base", "pure", "gee"} <= set(page.cells)
    assert "| pure | base | +0.082 |" in render_markdown(compared)
    assert (
        "pure expects “female” more than base does: “female” over “male” differs by +0.082 nats" in page.text
    )
    assert "gee and base show no difference in which group they expect" in page.text
    assert {"Change: pure", "Change: gee"} <= set(page.cells)


def test_more_than_two_groups_name_the_pair_that_was_compared(three: Path) -> None:
    page = Document(render_html(told(three))).text
    assert "the expectation has moved towards “nonbinary”: “nonbinary” over “male”" in page
    assert "After neutral contexts" not in page
    # measured on other pairs of groups, what was before is no figure of the same thing
    summary = told(three)
    summary["before"]["expectation"]["groups"] = ["female", "nonbinary"]
    assert "| Mean | – | −1.320 |" in render_markdown(summary)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_files_of_before_the_expectation_say_nothing_of_it(run: Path, lang: str) -> None:
    summary = told(run)
    for moment in ("before", "after"):
        del summary[moment]["expectation"], summary[moment]["settings"]["dtype"]
    del summary["comparison"]["differences"][0]["expectation_change"], summary["config"]["hold"]
    pages = Document(render_html(summary, lang)).text, render_markdown(summary, lang), model_card(summary)
    for page in pages:
        for name in ("section_expectation", "where_contexts", "where_twins"):
            assert Words(lang)(name) not in page
        assert f"| {Words(lang)('fact_saved_dtype')} |" not in page


def test_a_gap_that_opened_elsewhere_is_told_on_the_first_screen(run: Path) -> None:
    found = read_run(run)
    for lang, sentence, old in (
        ("en", "Another gap has opened, which training did not aim at: on the built-in age prompts", "“old”"),
        ("zh", "训练没有针对的另一个熵差变大了：在内置年龄提示上", "“年老”"),
    ):
        (told,) = [part for part in head(view_of(found), Words(lang, 0.01)).lead if sentence in part]
        assert old in told and "−0.011" in told and "−0.032" in told
        assert told in render_markdown(found, lang).split("## ")[0]
    assert "Another gap has opened" in model_card(found)
    row = found["result"]["other_sets"][0]
    row["group_gaps"] = [{**gap, "moved": "unchanged"} for gap in row["group_gaps"]]
    row["moved"] = "unchanged"
    assert "Another gap" not in render_markdown(found) and "did not clearly move" in render_markdown(found)


def test_what_is_left_in_other_dtypes_is_a_line_of_the_report(run: Path) -> None:
    line = "| final/ | bfloat16 | −0.011 | −0.032 | −0.021 | \\[−0.029, −0.013\\] | 97 % |"
    for lang in LANGUAGES:
        assert line.replace("\\", "") in render_markdown(read_run(run), lang).replace("\\", "")


def test_the_dtype_of_the_saved_weights_is_a_fact_of_the_run(run: Path) -> None:
    summary = told(run)
    summary["before"]["settings"]["dtype"], summary["after"]["settings"]["dtype"] = "bfloat16", "float16"
    assert "| Saved weights | float16 |" in render_markdown(summary)
    assert "| 保存的权重 | float16 |" in render_markdown(summary, "zh")
    # nothing was saved yet
    assert "| Weights | bfloat16 |" in render_markdown(summary | {"after": None, "result": None})


def test_unknown_language_and_schema_are_refused(run: Path) -> None:
    with pytest.raises(InputError, match="'fr' is not known.*en, zh"):
        render_html(read_run(run), "fr")
    with pytest.raises(InputError, match="schema ''"):
        render_html({})


# --- files ---


@pytest.mark.parametrize("name", ["config.json", "gap_before.json"])
def test_required_file_missing_or_damaged_is_one_clear_line(copy: Path, name: str) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    for damaged, why in (
        (None, "is missing"),
        (text[:300], "line "),
        ("[1]", "not a JSON object"),
        (b"\xff", "UTF-8"),
    ):
        (copy / name).unlink(missing_ok=True)
        if damaged is not None:
            (copy / name).write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
        with pytest.raises(InputError) as error:
            read_run(copy)
        assert str(copy / name) in str(error.value) and why in str(error.value)
        assert "\n" not in str(error.value)


def test_gap_before_without_a_gap_and_a_folder_that_is_none(copy: Path) -> None:
    (copy / "gap_before.json").write_text('{"gap": NaN}')
    with pytest.raises(InputError, match=r"gap_before\.json has no gap"):
        read_run(copy)
    with pytest.raises(InputError, match="is not a folder"):
        read_run(copy / "config.json")


def test_optional_files_may_be_missing_and_the_report_says_so(copy: Path) -> None:
    for name in ("gap_after.json", "comparison.json", "result.json", "responses.jsonl", "metrics.jsonl"):
        (copy / name).unlink()
    summary = read_run(copy)
    text = Document(render_html(summary)).text
    for name in ("gap_after.json", "result.json", "responses.jsonl", "metrics.jsonl"):
        assert f"{name} is missing" in text
    assert "−0.082" in text and "Example twins" not in text


def test_the_measurement_after_alone_may_be_missing(copy: Path) -> None:
    """Figures that the result has of both sides keep their columns."""
    (copy / "gap_after.json").unlink()
    page = Document(render_html(read_run(copy))).text
    assert "gap_after.json is missing" in page and "bfloat16" in page


def test_damaged_lines_are_left_out_and_named(copy: Path) -> None:
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    whole = len(read_run(copy)["metrics"])
    lines[2] = "{broken"
    lines[-1] = lines[-1][:20]
    (copy / "metrics.jsonl").write_text("\n".join(lines))
    (copy / "comparison.json").write_text("{")
    summary = read_run(copy)
    assert len(summary["metrics"]) == whole - 2
    text = Document(render_html(summary)).text
    assert "metrics.jsonl, line 3 and 1 more cannot be read" in text
    assert "comparison.json cannot be read (line 1" in text


def test_examples_are_the_lowest_middle_and_highest_gap(run: Path) -> None:
    summary = told(run)
    gaps = sorted(pair["gap"] for pair in summary["before"]["pair_gaps"])
    assert [example["gap_before"] for example in summary["examples"]] == [gaps[0], gaps[144], gaps[-1]]
    page = render_html(summary)
    assert "<mark>He</mark> is a " in page and "<mark>She</mark> is a " in page
    assert "is a <mark>" not in page
    for example in summary["examples"]:
        assert [p["group"] for p in example["prompts"]] == ["male", "female"]
        assert all(set(response["entropy"]) == {"male", "female"} for response in example["responses"])


# --- model card ---


def test_model_card_is_valid_for_the_hub(run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = model_card(read_run(run))
    card = hub.ModelCard(text)
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-generation"
    assert card.data.license is None
    assert "| Gap, female − male (nats) | −0.082 | +0.002 |" in card.text
    assert "AutoModelForCausalLM.from_pretrained" in card.text and "isentropic train --run_name" in card.text


def test_a_run_says_what_it_trained_on_and_which_of_its_weights_a_row_is_of(run: Path) -> None:
    summary = told(run)
    row = summary["result"]["also_measured"][0]
    for rows, said in (([row], "loaded in a dtype"), ([{**row, "folder": ""}], "before they were rounded")):
        page = render_markdown(summary | {"result": summary["result"] | {"also_measured": rows}})
        shown = [words for words in ("loaded in a dtype", "before they were rounded") if words in page]
        assert shown == [said]
    assert "entropies of the next token" in model_card(summary)
    closed = model_card(summary | {"config": summary["config"] | {"close": "expectation"}})
    assert "entropies of the next token" not in closed and "after neutral sentences" in closed
    assert "Training held it" in render_markdown(summary)
    assert "Training held it" not in render_markdown(summary | {"after": None, "result": None})


@pytest.mark.parametrize(
    ("model", "base"),
    [("Qwen/Qwen2-0.5B", "Qwen/Qwen2-0.5B"), ("/home/me/model", None), ("model.gguf", None), ("a: [b]\n---", None), ("./a/b", None)],
)  # fmt: skip
def test_base_model_is_named_only_where_it_is_a_hub_id(model: str, base: str | None) -> None:
    text = model_card({"schema": "isentropic.run/1", "name": "x", "before": {"gap": 0.1, "model": model}})
    header = yaml.safe_load(text.split("---\n")[1])
    assert header.get("base_model") == base
    assert header["tags"] and "license" not in header


def test_a_folder_that_looks_like_a_hub_id_is_no_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = model_card({"schema": "isentropic.run/1", "before": {"gap": 0.1, "model": "models/mine"}})
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])


def test_an_end_of_an_interval_that_is_not_zero_is_not_written_as_zero(run: Path) -> None:
    """Whether an interval holds zero must be seen in its figures, wherever they are written."""
    for low, high, ends in ((0.0004, 0.02, "[+0.0004, +0.020]"), (-0.00004, 0.02, "[−0.00004, +0.020]")):
        summary = fake_run.summary(0.01) | {"ci95": [low, high]}
        page = render_html(summary)
        assert page.count(ends) >= 3 and f"95 % interval {ends[1:-1].replace(',', ' to')}" in page
        assert ("no difference" in page) == (low < 0)
    assert "0.000" in render_markdown(fake_run.summary(0.01) | {"ci95": [0.0, 0.02]})


def test_the_table_and_the_headline_have_one_verdict(run: Path) -> None:
    """The verdict is by all pairs that are known; the test pairs alone may say less."""
    summary = told(run)
    summary["after"] |= {
        "gap": -0.0106,
        "ci95": [-0.026, 0.005],
        "verdict": "insufficient",
        "pairs_needed": 534,
    }
    found = {"gap": -0.0024, "ci95": [-0.008, 0.007], "verdict": "certified", "n_pairs": 288, "n_before": 448}
    summary["after"] |= {"decision": found, "label": fake_run.LABELS["slight"]}
    page = render_markdown(summary)
    assert "The gap is closed" in page and "| Verdict | Not within ±0.01 | Certified within ±0.01 |" in page
    assert "Certified within ±0.01 · no bias ✅" in page and "| Label | slight bias ⚠️ | no bias ✅ |" in page
    assert "534" not in page and "| – | −0.002 |" in page and "| – | [−0.008, +0.007] |" in page


@pytest.mark.parametrize("change", ["unchanged", "nothing shown", "grew"])
def test_a_gap_is_called_closed_only_where_it_has_shrunk(run: Path, change: str) -> None:
    summary = told(run)
    summary["before"] |= {"gap": 0.002, "ci95": [-0.02, 0.024], "verdict": "insufficient"}
    summary["after"] |= {"gap": 0.001, "ci95": [-0.004, 0.006], "verdict": "certified"}
    row = summary["comparison"]["differences"][0]
    if change == "unchanged":
        summary["after"]["gap"], summary["result"]["best_step"] = 0.002, 0
        row |= {"gap_change": 0.0, "ci95": [0.0, 0.0]}
    elif change == "nothing shown":
        row |= {"gap_change": -0.001, "ci95": [-0.003, 0.001]}
    else:
        summary["after"]["gap"] = 0.004
        row |= {"gap_change": 0.002, "ci95": [0.001, 0.003]}
    assert Document(render_html(summary)).headings[0][1] == "The gap is certified within ±0.01 nats"


def test_nothing_held_is_not_called_held(run: Path) -> None:
    """Prompts without twins in another language than English: there is nothing to hold."""
    summary = told(run)
    assert "Training held it" in render_markdown(summary)
    summary["result"]["held"] = False
    for lang, words in (("en", "Training held nothing"), ("zh", "没有保持任何量")):
        assert words in render_markdown(summary, lang) and "held it" not in render_markdown(summary, lang)
    summary["config"]["hold"] = "none"
    assert "Training did not hold it" in render_markdown(summary)


def test_gaps_of_different_groups_before_and_after_are_told_apart(three: Path) -> None:
    """Each measurement shows its own widest pair, and training may change which that is."""
    summary = told(three)
    summary["after"]["widest"] = ["female", "male"]
    before, after = (f"{summary[m]['gap']:+.3f}".replace("-", "−") for m in ("before", "after"))
    document = Document(render_html(summary))
    assert f"the gap went from {before} (nonbinary − male) to {after} (male − female) nats" in document.text
    assert {"Before (nonbinary − male)", "After (male − female)"} <= set(document.cells)
    assert "Gap, group named first − group named second (nats)" in document.cells
    assert (
        "Change on the same prompts and the same responses: +0.051 (nonbinary − male) nats" in document.text
    )
    assert "the model hesitates 0.030 nats more over “female” than over “male” prompts" in document.text
    assert "figures above are theirs" not in document.text
    assert re.search(
        r"Gap of the pair: \S+ \(nonbinary − male\) before, \S+ \(male − female\) after", document.text
    )
    compared = fake_run.comparison({name: summary[name] for name in ("before", "after")})
    assert "Change of the gap, paired by prompt (nonbinary − male)" in render_markdown(compared)


def test_the_target_is_not_drawn_where_it_does_not_apply(run: Path) -> None:
    """The curve of a run that closes the expectation is one of log-odds, and the target one of entropies."""
    summary = read_run(run)

    def drawn() -> str:
        return render_html(summary).partition('<h2 id="training">')[2].partition("</figure>")[0]

    assert "strip" in drawn()
    summary["config"]["close"] = "expectation"
    assert "<svg" in drawn() and "strip" not in drawn()
