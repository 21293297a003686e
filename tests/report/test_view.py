"""The door of the report: what is not of the schema is refused in one line, whatever it is."""

from __future__ import annotations

import copy
import json
import math
import time
from typing import Any

import pytest

import fake_run
from isentropic.errors import InputError
from isentropic.report.render import model_card, render_html, render_markdown
from isentropic.report.view import clean, read, view_of
from isentropic.schema import Comparison, Summary


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Every place in JSON data, but for what the schema leaves open."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = [] if at == () else [at]
    for key, child in children:
        if key not in ("settings", "config", "cells") or not isinstance(child, dict):
            found += places(child, (*at, key))
    return found


def replaced(data: dict, place: tuple, value: Any) -> dict:
    out = copy.deepcopy(data)
    inner: Any = out
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return out


WRONG = [
    -1,
    0.5,
    "text",
    True,
    [],
    {},
    [1, 2, 3],
    {"a": [1]},
    10**400,
    math.nan,
    math.inf,
    None,
    [[]] * 3,
    "\u202e",
]


@pytest.mark.parametrize("kind", ["measure", "compare"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:12])
def test_any_value_in_any_place_gives_a_page_or_one_line(kind: str, wrong: Any) -> None:
    summary = fake_run.summary(-0.05)
    for key in ("pair_gaps", "topics", "cells"):
        summary[key] = summary[key][:1]
    data = summary if kind == "measure" else fake_run.comparison({"a": summary, "b": summary})
    refused = 0
    seen = [
        p
        for p in places(data)
        if kind == "measure" or "summary" not in p or p[-1] in ("summary", "gap", "schema")
    ]
    for place in seen:
        try:
            render_markdown(replaced(data, place, wrong))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 600 and ";" in str(error)
    assert refused > 0 or wrong is None or (isinstance(wrong, float) and not math.isfinite(wrong))


@pytest.mark.parametrize("schema", [
    "isentropic.measure/2", "isentropic.measure/1.1", "isentropic.compare/99", "isentropic.run/0", "isentropic.measure",
    "", None, 1, ["isentropic.measure/1"], "measure/1", "isentropic.measure/1 ",
])  # fmt: skip
def test_another_schema_version_is_refused(schema: Any) -> None:
    for data in (
        fake_run.summary(-0.05) | {"schema": schema},
        {"schema": "isentropic.run/1", "before": fake_run.summary(-0.05) | {"schema": schema or "x"}},
    ):
        with pytest.raises(InputError, match=r"schema .* is not known to this version"):
            render_html(data)


@pytest.mark.parametrize("target", [-0.01, 0, 0.0, -1e9])
def test_a_target_that_is_no_distance_is_refused(target: float) -> None:
    with pytest.raises(InputError, match="target_gap"):
        render_html(fake_run.summary(-0.05) | {"target_gap": target})


def test_deep_data_are_refused_in_one_line() -> None:
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    for data in ({"settings": {"a": deep}}, {"topics": deep}, {"versions": {"a": deep}}, {"ci95": deep}):
        with pytest.raises(InputError) as caught:
            render_html(fake_run.summary(-0.05) | data)
        assert "\n" not in str(caught.value)


def test_control_and_direction_characters_are_shown_and_do_nothing() -> None:
    evil = "\u202eabc\u2066x\x1b[31mred\x9b1m\u200f\x07"
    summary = fake_run.summary(-0.05) | {
        "model": evil,
        "data": evil,
        "warnings": [evil],
        "settings": {evil: evil},
    }
    summary["topics"][0]["topic"] = summary["cells"][0]["cell"] = evil
    summary["groups"] = summary["widest"] = [evil, "b"]
    run = {"schema": "isentropic.run/1", "name": evil, "before": summary, "config": {"command": evil}}
    for page in (
        render_html(summary),
        render_markdown(summary),
        render_html(run),
        render_markdown(run),
        model_card(run),
    ):
        assert not any(c in page for c in "\u202e\u2066\x1b\x9b\u200f\x07")
        assert "202eabc" in page


def test_what_is_missing_is_filled_and_what_is_not_finite_is_unknown() -> None:
    found = read(Summary, {"H_male": math.nan, "ci95": [0.1, math.inf], "gap": math.inf, "label": None}, "")
    assert (
        found["H_male"] is None and found["ci95"] is None and found["gap"] is None and found["topics"] == []
    )
    assert read(Comparison, {}, "")["models"] == []
    assert view_of({"schema": "isentropic.measure/1"}).pair == ("male", "female")
    assert clean({"a": ("\x00", math.nan, "\ud800")}) == {"a": ["\\u0000", None, "\ufffd"]}


@pytest.mark.slow
def test_thirty_thousand_topics_take_seconds() -> None:
    row = {"n_pairs": 2, "gap": 0.1, "se": 0.1, "ci95": [0, 0.2], "p": 0.5, "p_holm": 1.0, "clear": False}
    topics = [{"topic": f"t{i}", **row} for i in range(30_000)]
    data = json.loads(json.dumps(fake_run.summary(-0.05) | {"topics": topics}))
    start = time.process_time()
    render_html(data)
    assert time.process_time() - start < 12
