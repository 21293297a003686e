"""``isentropic ability``: from models or from files of lm-eval to the comparison; the harness itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tiny import benchmark_folder, lines_file, make_folder, sample, samples_file

needs_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm_eval")


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Path]:
    for name, right in (("base", 30), ("closed", 26)):
        rows = [sample(i, acc=float(i < right), acc_norm=1.0) for i in range(50)]
        samples_file(tmp_path / name / "inner", "arc_easy", rows)
        rows = [
            sample(i, perplexity=-3.0 - i / 10 - (name == "closed") * (i % 3) / 100, acc=0) for i in range(50)
        ]
        samples_file(tmp_path / name / "inner", "lambada_openai", rows)
    return [tmp_path / "base", tmp_path / "closed"]


def test_runs_that_were_made_before(run, two_runs, tmp_path):
    file = tmp_path / "out.json"
    code, out, err = run("ability", "--samples", *two_runs, "--json", file)
    assert code == 0, err
    assert (
        "closed, arc_easy acc: 60.0 to 52.0 %, change -8.0 [-18.8, -0.3], p=0.12, n=50, 4 lost, 0 gained"
        in out
    )
    assert "perplexity 232.8 to 235.1; a loss above 0.01" in out and " nats is excluded" in out
    result = json.loads(file.read_text())
    assert (result["schema"], result["models"]) == ("isentropic.ability/1", ["base", "closed"])
    rows = {(row["task"], row["metric"]): row for row in result["rows"]}
    assert len(rows) == 4
    assert rows["arc_easy", "acc_norm"]["change"] == 0 < rows["arc_easy", "acc_norm"]["largest_loss"] < 0.08
    assert rows["lambada_openai", "log_likelihood"]["change"] == pytest.approx(-0.0098)
    # Its own result may be replaced; the JSON alone is printed with "-".
    code, out, _ = run("ability", "--samples", *two_runs, two_runs[0], "--json", "-")
    assert code == 0 and {row["model"] for row in json.loads(out)["rows"]} == {"closed", "base (2)"}
    assert run("ability", "--samples", *two_runs, "--json", file)[0] == 0


def test_runs_without_a_common_item_are_refused(run, two_runs, tmp_path):
    samples_file(tmp_path / "other", "arc_easy", [sample(i, f"else {i}", acc=1) for i in range(9)])
    code, _, err = run("ability", "--samples", two_runs[0], tmp_path / "other")
    assert (
        code == 2
        and err.count("\n") == 1
        and "arc_easy: 59 items" in err
        and "lambada_openai: only base" in err
    )


@pytest.mark.parametrize(
    "words, says",
    [
        ("", "0 models"),
        ("a", "1 models"),
        ("a b --samples c d", "2 models and 2 folders"),
        ("a b --limit 0", "--limit is 0"),
        ("a b --batch_size -1", "--batch_size is -1"),
        ("a b --benchmarks no/folder", "--benchmarks 'no/folder' is not a folder"),
        ("--samples no/folder other", "--samples 'no/folder' is not a folder"),
        ("a b --tasks ,", "--tasks names no task"),
        ("a b --json no/folder/out.json", "--json"),
        ("a b --limit few", "invalid int value"),
        ("--samples . . --limit 5", "--limit 5 with --samples"),
        ("--samples . . --tasks piqa", "--tasks 'piqa' with --samples"),
        ("--samples . . --benchmarks .", "--benchmarks '.' with --samples"),
    ],
)
def test_what_cannot_work_is_one_line(run, words, says):
    code, _, err = run("ability", *words.split())
    assert code == 2 and says in err and err.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm_eval is installed")
def test_without_the_harness_the_extra_is_named(run, tiny_folder):
    code, _, err = run("ability", tiny_folder, tiny_folder)
    assert code == 2 and "isentropic[eval]" in err and err.count("\n") == 1


# --- The harness itself -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("two")
    return [make_folder(folder / name, seed=seed) for name, seed in (("before", 0), ("after", 1))]


@needs_harness
def test_the_whole_command_by_the_harness(run, models, tmp_path):
    import datasets

    folder = benchmark_folder(tmp_path / "sets")
    caches = sorted(Path(datasets.config.HF_DATASETS_CACHE).glob("json/*"))
    words = [
        "--benchmarks",
        folder,
        "--tasks",
        "arc_easy,piqa,lambada_openai,hellaswag",
        "--json",
        tmp_path / "out.json",
    ]
    code, out, err = run("ability", *models, models[0], *words)
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    tasks = {row["task"] for row in result["rows"]}
    assert tasks == {"arc_easy", "piqa", "lambada_openai", "hellaswag"} and not result["notes"]
    assert all(row["n"] == 6 for row in result["rows"])
    for row in result["rows"]:
        if row["model"] == "before (2)":  # the same model again: nothing moved
            assert row["change"] == 0 and not row["lost"] and not row["gained"]
    moved = [row for row in result["rows"] if row["metric"] == "log_likelihood" and row["model"] == "after"]
    assert len(moved) == 1 and moved[0]["change"] != 0
    # No copy of a public set stays behind.
    assert sorted(Path(datasets.config.HF_DATASETS_CACHE).glob("json/*")) == caches
    code, _, err = run("ability", *models, *words[:4], "--limit", 2, "--json", tmp_path / "out.json")
    assert code == 0, err
    assert {row["n"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]} == {2}


@needs_harness
def test_log_likelihoods_of_the_harness_are_those_of_the_model(models, tmp_path, tiny_tokenizer):
    """LAMBADA's last word, scored here without the harness."""
    import torch

    from isentropic.measure.harness import answers, harness_tasks
    from isentropic.models.load import load_model

    loaded = load_model(str(models[0]))
    with harness_tasks(["lambada_openai"], str(benchmark_folder(tmp_path))) as tasks:
        found = answers(loaded, tasks, limit=3)["lambada_openai"]
    for i, item in enumerate(found):
        context, word = (loaded.tokenizer(text).input_ids for text in (f"the nurse saw {i}", " pens"))
        with torch.no_grad():
            logits = loaded.model(torch.tensor([context + word])).logits[0].log_softmax(-1)
        steps = range(len(context) - 1, len(context) + len(word) - 1)
        truth = sum(float(logits[t, token]) for t, token in zip(steps, word, strict=True))
        assert item["perplexity"] == pytest.approx(truth, abs=1e-4)


@needs_harness
def test_files_of_the_harness_give_what_the_command_gives(run, models, tmp_path):
    """The harness's own command line, its samples read back."""
    from lm_eval.loggers import EvaluationTracker

    from isentropic.measure.harness import answers, harness_tasks
    from isentropic.models.load import load_model

    folder = str(benchmark_folder(tmp_path / "sets"))
    with harness_tasks(["arc_easy"], folder) as tasks:
        for model in models:
            tracker = EvaluationTracker(output_path=str(tmp_path / model.name))
            tracker.general_config_tracker.log_experiment_args(
                "hf", {"pretrained": model.name}, None, None, False
            )
            found: dict[str, Any] = answers(load_model(str(model)), tasks)
            tracker.save_results_aggregated({}, found)
            tracker.save_results_samples("arc_easy", found["arc_easy"])
    live, stored = tmp_path / "live.json", tmp_path / "stored.json"
    assert run("ability", *models, "--benchmarks", folder, "--tasks", "arc_easy", "--json", live)[0] == 0
    assert run("ability", "--samples", *[tmp_path / m.name for m in models], "--json", stored)[0] == 0
    assert json.loads(live.read_text())["rows"] == json.loads(stored.read_text())["rows"]


@needs_harness
def test_the_harness_takes_tasks_of_ones_own_and_says_what_needs_the_hub(run, models, tmp_path):
    data = lines_file(tmp_path / "own.jsonl", [{"q": f"{i} and one is", "a": i % 2} for i in range(5)])
    config = {"task": "own", "output_type": "multiple_choice", "dataset_path": "json", "test_split": "test",
              "dataset_kwargs": {"data_files": {"test": str(data)}}, "doc_to_text": "{{q}}", "doc_to_target": "a",
              "doc_to_choice": ["odd", "even"], "metric_list": [{"metric": "acc"}]}  # fmt: skip
    task = lines_file(tmp_path / "own.yaml", [config])
    code, out, err = run("ability", *models, "--tasks", task)
    assert code == 0 and "own acc" in out, err
    lines_file(task, [config | {"dataset_path": "nobody/nothing", "dataset_kwargs": None}])
    code, _, err = run("ability", *models, "--tasks", task)
    assert code == 2 and "hub" in err.splitlines()[-1] and "--benchmarks" in err.splitlines()[-1]
    lines_file(task, [config | {"unsafe_code": True}])
    code, _, err = run("ability", *models, "--tasks", task)
    assert code == 2 and "runs code" in err.splitlines()[-1]
    shutil.rmtree(tmp_path, ignore_errors=True)
