"""Every benchmark runs with --quick, says its ratio first, and leaves its figures behind."""

from __future__ import annotations

import importlib
import json
import math
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from oracles import rng
from tiny import make_benchmarks

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a benchmark's main with --quick; returns its figures and the first row of its table by column."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path / "cache"))

    def run(name: str, *words: str) -> tuple[dict[str, Any], dict[str, str]]:
        out = tmp_path / f"{name}.json"
        importlib.import_module(name).main(["--quick", "--out", str(out), *words])
        lines = capsys.readouterr().out.splitlines()
        blocks = [list(block) for is_row, block in groupby(lines, lambda line: line[:1] == "|") if is_row]
        tables = [[[cell.strip() for cell in line[1:-1].split("|")] for line in block] for block in blocks]
        figures = json.loads(out.read_text(encoding="utf-8"))
        assert figures["schema"] == f"isentropic.bench.{name}/1"
        assert figures["machine"]["cores"] >= 1 and figures["machine"]["memory_gb"] > 0
        assert all(len(row) == len(cells[0]) for cells in tables for row in cells)
        return figures, dict(zip(tables[0][0], tables[0][2], strict=True))

    yield run
    for name in [
        name
        for name, module in sys.modules.items()
        if str(BENCHMARKS) in str(getattr(module, "__file__", ""))
    ]:
        if name != "common":  # its tiny model serves them all
            del sys.modules[name]


def test_same_work(quick: Any) -> None:
    figures, first = quick("same_work")
    theirs, ours = (figures["sides"][side] for side in ("ancestor", "isentropic"))
    assert theirs["scored_tokens"] == ours["scored_tokens"] == 4 * 8
    assert first["step"] == "isentropic"
    assert float(first["times faster"]) == pytest.approx(theirs["seconds"] / ours["seconds"], abs=0.01)
    assert 0 < ours["generating_seconds"] < ours["seconds"]


def test_time_to_target(quick: Any) -> None:
    figures, first = quick("time_to_target")
    assert first["way"] == "isentropic"
    runs = {side: found[0] for side, found in figures["runs"].items()}
    # One ruler: before training all three have the same gap.
    assert len({run["gap_before"] for run in runs.values()}) == 1
    limit = runs["isentropic"]["seconds"] + runs["isentropic"]["preparing_seconds"]
    assert runs["ancestor"]["limit"] == pytest.approx(limit)
    assert all([runs[side]["points"][k]["step"] for k in (0, -1)] == [0, 2] for side in ("isentropic", "GEE"))
    seconds = [point["seconds"] for point in runs["isentropic"]["points"]]
    assert seconds == sorted(seconds)


def test_supervised_step(quick: Any) -> None:
    figures, first = quick("supervised_step")
    assert first["step"] == "isentropic"
    assert figures["sides"]["isentropic"]["tokens"] == figures["sides"]["supervised"]["tokens"] > 0


def test_growth(quick: Any) -> None:
    figures, first = quick("growth")
    assert first["time of one, of x1"] == "1.00"
    assert [figures["sides"][f"tokens x{n}"]["tokens"] for n in (1, 2, 4, 8)] == [12, 24, 48, 96]
    assert [figures["sides"][f"prompts x{n}"]["pairs"] for n in (1, 10)] == [3, 30]
    assert [figures["sides"][f"data x{n}"]["pairs"] for n in (1, 2)] == [24, 48]


def test_tokens(quick: Any) -> None:
    figures, first = quick("tokens")
    purposes = figures["purposes"]
    whole = purposes.pop("all")
    assert first["for"] == "all"
    for what in ("body", "head", "seconds"):
        assert whole[what] == pytest.approx(sum(row[what] for row in purposes.values()))
    # Each step of decoding takes one token of each row through the head, the first all of the prompt through the body.
    sampling = purposes["sampling"]
    assert 8 * 12 == sampling["head"] < sampling["body"]
    # The twin's responses after their first token, and what the plain scorer checks; the own ones are not scored again.
    assert 8 * 11 < purposes["scoring"]["head"] < 2 * sampling["head"]


def test_startup(quick: Any) -> None:
    figures, first = quick("startup")
    assert float(first["of the goal"]) > 0
    assert figures["runs"]["--help"][0]["line"].startswith("usage: isentropic")
    assert figures["runs"]["measure"][0]["line"].endswith("...")


def test_loss_table(quick: Any, tmp_path: Path) -> None:
    page = tmp_path / "losses.md"
    words = ("--runs", str(tmp_path / "runs"), "--docs", str(page))
    figures, first = quick("loss_table", *words)
    assert first["estimator"] == "plain"
    assert set(figures["runs"]) == {"plain 2", "unbiased 2", "pairwise 2"}
    run = figures["runs"]["plain 2"][0]
    assert run["ci95"][0] <= run["gap"] <= run["ci95"][1] and run["steps"] == 1
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
    # A second call reads the finished runs and puts the table where it was.
    written = page.read_text(encoding="utf-8")
    again, _ = quick("loss_table", *words)
    assert again["runs"] == figures["runs"]
    assert page.read_text(encoding="utf-8").count("<!--") == written.count("<!--") == 2


def test_compare_methods(quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISENTROPIC_BENCHMARKS", str(make_benchmarks(tmp_path / "sets")))
    figures, first = quick("compare_methods", "--runs", str(tmp_path / "runs"))
    assert first["method"] == "untouched" and first["gap left, share"] == "1.00"
    rows = {row["method"]: row for row in figures["seeds"][0]["rows"]}
    assert list(rows) == [
        "untouched",
        "pure",
        "pure, nothing held, equal steps",
        *(
            f"{method}, equal {kind}"
            for method in ("expectation closed", "GEE", "ancestor")
            for kind in ("steps", "time")
        ),
        "placebo, equal steps",
        "counterfactual data, equal steps",
        "counterfactual LoRA, equal steps",
        "steering, no training",
        "untouched, chat form",
        "system prompt, chat form",
    ]
    assert rows["untouched"]["kl"] == pytest.approx(0, abs=1e-6)
    assert (
        rows["pure"]["steps"]
        == rows["GEE, equal steps"]["steps"]
        == rows["ancestor, equal steps"]["steps"]
        == 2
    )
    # The last weights are compared, not the untouched ones; the steered model is steered.
    alternatives = (
        "expectation closed, equal steps",
        "ancestor, equal steps",
        "placebo, equal steps",
        "counterfactual data, equal steps",
        "counterfactual LoRA, equal steps",
    )
    for name in (*alternatives, "steering, no training"):
        assert rows[name]["kl"] > 0, name
        assert rows[name]["change"]["expectation_change"]["contexts"]["change"] != 0
        assert rows[name]["winogender"]["change"] != 0
    assert rows["placebo, equal steps"]["steps"] == 2 > rows["steering, no training"]["steps"]
    assert rows["placebo, equal steps"]["gap"] != rows["counterfactual data, equal steps"]["gap"]
    asked = rows["system prompt, chat form"]
    assert (
        asked["change"]["against"] == "untouched, chat form" and asked["kl"] is asked["expectation"] is None
    )
    assert asked["change"]["gap_change"] == pytest.approx(asked["gap"] - rows["untouched, chat form"]["gap"])
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_steering_takes_out_what_differs_on_average(monkeypatch: pytest.MonkeyPatch, tiny_model: Any) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    steered = importlib.import_module("compare_methods").steered
    import torch

    model = tiny_model()
    pairs = [((5, 6, 7 + i), (9, 6, 7 + i)) for i in range(20)]
    before = model(torch.tensor([pairs[0][0]])).logits

    def means() -> Any:
        seen: list[Any] = []
        watch = model.model.layers[1].register_forward_hook(lambda layer, given, out: seen.append(out[0, -1]))
        for ids in (ids for pair in pairs for ids in pair):
            model(torch.tensor([ids]))
        watch.remove()
        return torch.stack(seen[0::2]).mean(0), torch.stack(seen[1::2]).mean(0)

    first, second = means()
    assert (first - second).norm() > 0.1
    with steered(model, pairs):
        one, two = means()
        assert torch.allclose(one, two, atol=1e-4)
        assert torch.allclose(one + two, first + second, atol=1e-4)  # what they share stays
    assert torch.equal(model(torch.tensor([pairs[0][0]])).logits, before)


def test_zoo(quick: Any) -> None:
    figures, first = quick("zoo")
    assert (first["verdict"], first["families"]) == ("said", "4")
    rows = {row["family"]: row for row in figures["families"]}
    assert [rows[name]["verdict"] for name in ("llama", "opt", "bloom", "mamba", "jamba")] == [
        "right"
    ] * 2 + ["said"] * 3
    assert "not a causal language model" in rows["roberta"]["refused"]
    for row in rows.values():
        for name in {"entropy", "gradient", "cut", "reloaded"} & set(row):
            assert row[name] <= figures["tolerance"][name], (row["family"], name)
    assert rows["roberta as decoder"]["entropy"] < 1e-4 and rows["llama"]["longest_row"] == 128


def test_false_certification(quick: Any, tmp_path: Path) -> None:
    figures, first = quick("false_certification")
    assert first["ancestor (20 steps) / ours"]
    for cell in figures["cells"]:
        assert cell["certified"] + cell["exceeds"] + cell["insufficient"] == pytest.approx(1)
        assert cell["certified"] <= 0.05 < cell["within_20_steps"] <= cell["within_50_steps"]
    again, _ = quick("false_certification", "--from_json", str(tmp_path / "false_certification.json"))
    assert again["cells"] == figures["cells"]


def test_decision(quick: Any, tmp_path: Path) -> None:
    figures, first = quick("decision")
    assert first["test pairs of the looks"] == "128"
    for cell in figures["cells"]:
        assert cell["certified"] + cell["exceeds"] + cell["insufficient"] == pytest.approx(1)
        assert 1 <= cell["looks"] <= len(cell["sizes"])
    assert figures["cells"][6]["certified"] > 0.5 > figures["cells"][5]["certified"]
    again, _ = quick("decision", "--from_json", str(tmp_path / "decision.json"))
    assert again["cells"] == figures["cells"]


def test_gpu(quick: Any, tmp_path: Path) -> None:
    """Everything but QLoRA and FSDP runs on a CPU too, and says what it lacks; a section's fault is a row."""
    figures, first = quick("gpu")
    sections = figures["sections"]
    assert first["section"] == "card" and sections["card"]["card"]["matmul_tflops"] > 0
    assert [name for name, rows in sections.items() if "error" in rows] == []
    rows = sections["correctness"]
    assert all(row["entropy_error"] < 1e-2 for row in rows.values() if isinstance(row, dict))
    assert rows["random, float32, chunked"]["gradient_error"] < 1e-5
    naive, ours = (
        sections["engine"][f"{side}, forward and backward"] for side in ("naive", "engine, known weights")
    )
    assert ours["head_gradient_error"] < 2 * naive["head_gradient_error"]
    steps = sections["step"]
    assert (
        steps["isentropic, float32 weights"]["tokens"] == steps["supervised, bfloat16 weights"]["tokens"] > 0
    )
    assert {"scoring, 1 MB", "training, 1 MB", "sampling"} <= sections["utilisation"].keys()
    assert sections["train"]["isentropic train"]["steps"] == 2
    import torch

    if not torch.cuda.is_available():
        assert "not_run" in sections["qlora"] and "not_run" in sections["fsdp"]


def test_gpu_writes_what_it_had(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that breaks leaves its rows so far and its error; the next ones run all the same."""
    gpu = importlib.import_module("gpu")

    def broken(job: dict[str, Any]) -> Any:
        yield {"half": {"seconds": 1.0}}
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.SECTIONS, "engine", broken)
    figures, _ = quick("gpu", "--sections", "engine,card")
    assert figures["sections"]["engine"]["half"] == {"seconds": 1.0}
    assert figures["sections"]["engine"]["error"] == "RuntimeError: out of memory"
    assert figures["sections"]["card"]["card"]["matmul_tflops"] > 0


# --- The bootstrap that the coverage benchmark compares with --------------------------------------------------------


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "coverage", raising=False)
    yield importlib.import_module("coverage")
    sys.modules.pop("coverage", None)


def test_bootstrap_resamples_whole_clusters_and_agrees_with_scipy(coverage: Any) -> None:
    # Each topic holds one value many times over: as topics there are 12 facts, as pairs there seem to be 240.
    means = rng(7).normal(0.2, 1, 12)
    d, labels = np.repeat(means, 20), np.repeat(np.arange(12), 20)
    whole = coverage.bootstrap_interval(d, labels, rng=rng(0), draws=4000)
    assert whole == pytest.approx(coverage.bootstrap_interval(means, rng=rng(0), draws=4000), rel=1e-9)
    apart = coverage.bootstrap_interval(d, rng=rng(0), draws=4000)
    assert whole[1] - whole[0] > 3 * (apart[1] - apart[0])
    d = rng(8).normal(0.1, 1, 400)
    theirs = stats.bootstrap((d,), np.mean, n_resamples=8000, rng=rng(1)).confidence_interval
    assert coverage.bootstrap_interval(d, rng=rng(0), draws=8000) == pytest.approx(theirs, abs=0.01)


@pytest.mark.parametrize("sd", [0.08, 0.7])
def test_pairs_for_halfwidth_is_the_smallest_number(coverage: Any, sd: float) -> None:
    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n))

    n = coverage.pairs_for_halfwidth(sd, 0.01)
    assert half(n) <= 0.01 < half(n - 1)


def test_joint_intervals_cover_and_those_of_the_widest_pair_do_not(coverage: Any) -> None:
    found = coverage.groups_cell(3, 24, 6, True, 200)
    assert found["joint"] > 0.9 > found["widest"] and found["joint_exceeds"] < 0.1
