"""Work and memory grow no faster than the data: counted in lines of our own code that run, not in seconds."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fake_run
from isentropic.measure.compare import comparison
from isentropic.measure.measurement import Measurement
from isentropic.measure.summary import floor_of, quality, summarise
from isentropic.prompts.load import load_prompts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.report.render import render_html
from isentropic.responses.batches import Item, prompt_tuples
from isentropic.responses.sample import shared_examples
from isentropic.run_folder import read_run
from isentropic.schema import MEASURE_SCHEMA
from isentropic.training.steady import Steadying
from oracles import rng

GROUPS = ("male", "female")


def lines_run(work: Callable[[], Any]) -> Counter[tuple[str, str, int]]:
    """How many lines of each function of ours ran; every turn of a comprehension counts as one."""
    seen: Counter[tuple[str, str, int]] = Counter()

    def local(frame: Any, event: str, _: Any) -> Any:
        code = frame.f_code
        seen[Path(code.co_filename).name, code.co_name, code.co_firstlineno] += event == "line"
        return local

    def called(frame: Any, event: str, _: Any) -> Any:
        return local if "isentropic" in Path(frame.f_code.co_filename).parts else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


def prompts_of(pairs: int) -> PromptSet:
    """Three pairs a topic, two topics a cell."""
    rows = [
        {"prompt": f"{name} is clerk {i}.", "group": g, "pair_id": f"p{i}", "topic": f"t{i // 3}", "filler": f"f{i % 6}",
         "cell": f"c{i // 6}"}
        for i in range(pairs)
        for name, g in zip(("He", "She"), GROUPS, strict=True)
    ]  # fmt: skip
    return load_prompts(rows)


def scored(prompts: PromptSet) -> tuple[list[Item], list[Any]]:
    items = [
        Item(twins, shared_examples([twins], [((1, 2), (3, 2))], [[[(5, 6)], [(7, 6)]]]), index)
        for index, twins in enumerate(prompt_tuples(prompts))
    ]
    return items, [rng(index).normal(3, 0.5, 4) for index in range(len(items))]


@pytest.mark.slow
def test_no_part_of_a_measurement_or_its_report_grows_faster_than_its_pairs() -> None:
    def work(pairs: int) -> None:
        items, entropies = scored(prompts_of(pairs))
        summary = {"schema": MEASURE_SCHEMA, **summarise(items, entropies, GROUPS, 0.01)}
        summary["noise_floor"] = floor_of(items, entropies, GROUPS, 0)
        summary["quality"] = quality(items, entropies, (6,))
        measured = Measurement(items, entropies, summary)
        costs = {"kl": None, "kl_ci95": None, "perplexity": None}
        comparison(["first", "second"], [measured, measured], [costs, costs])
        render_html(summary)

    work(6)  # what is done once
    few, many = (lines_run(lambda pairs=pairs: work(pairs)) for pairs in (60, 240))
    assert sum(many.values()) > 100_000 / 8
    assert {part: (few[part], lines) for part, lines in many.items() if lines > 4.4 * few[part] + 300} == {}


def test_a_held_out_estimate_takes_no_longer_after_more_training_prompts() -> None:
    validation = scored(prompts_of(24))
    lines = []
    for pairs in (24, 240):
        steadying = Steadying()
        steadying.start_pool(scored(prompts_of(pairs)), validation, GROUPS)
        lines.append(lines_run(lambda held=steadying: held.estimate(*validation, GROUPS)))
    assert lines[0] == lines[1]


def test_a_report_does_not_grow_with_topics_and_cells() -> None:
    sizes = []
    for rows in (300, 3000):
        summary = fake_run.summary(-0.05)
        for name, key in (("topics", "topic"), ("cells", "cell")):
            summary[name] = [{**summary[name][0], key: f"{key} {i:04}"} for i in range(rows)]
        page = render_html(summary)
        assert f"Of {rows} rows" in page
        sizes.append(len(page))
    assert abs(sizes[1] - sizes[0]) < 0.02 * sizes[0]


def test_a_report_does_not_hold_all_responses(tmp_path: Path) -> None:
    run = fake_run.write_run(tmp_path / "run")
    row = {"split": "test", "pair_id": "another", "group": "male", "response_ids": list(range(1000, 1200))}
    with (run / "responses.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({**row, "prompt": f"{i}"}) + "\n" for i in range(4000))
    tracemalloc.start()
    try:
        read_run(run)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (run / "responses.jsonl").stat().st_size / 4
