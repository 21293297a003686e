"""Whole runs of ``isentropic train`` on a tiny model: what they write, when they stop, what they save."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isentropic.cli import main
from isentropic.commands.advice import advice
from isentropic.commands.parser import settings_from
from isentropic.commands.saving import Saving
from isentropic.commands.train import config_of, load_data
from isentropic.errors import InputError
from isentropic.measure.cost import answers_of
from isentropic.measure.measurement import measure
from isentropic.models.load import load_model
from isentropic.prompts.builtin import builtin
from isentropic.prompts.prompt_set import SPLITS
from isentropic.responses.response import Sampling
from isentropic.responses.sample import ResponseSampler
from isentropic.settings import TrainSettings
from isentropic.training.adapter import add_adapter
from isentropic.training.trainer import DebiasingTrainer
from oracles import naive_entropies
from runs import Watcher, flags, plain, read, runner, weights
from tiny import lines_file, make_folder, make_prompts, make_tokenizer, rows

FILES = (
    "config.json metrics.jsonl responses.jsonl gap_before.json gap_after.json comparison.json curves.png "
    "report.html report.md result.json final/config.json final/model.safetensors final/README.md"
).split()

# ---- the run folder ----------------------------------------------------------------------------------------------


def test_the_run_folder_is_complete(finished):
    missing = [
        name for name in FILES if not (finished / name).is_file() or not (finished / name).stat().st_size
    ]
    assert not missing
    left = {path.name for path in finished.rglob("*")} - {Path(name).name for name in FILES}
    assert not [name for name in left if "best" in name or "tmp" in name or "trained" in name]
    result = read(finished / "result.json")
    assert result["stopped"] == "max_steps" and result["steps"] == 5
    assert {"load", "before", "responses", "training", "after"} <= result["seconds"].keys()
    config = read(finished / "config.json")
    assert config["schema"] == "isentropic.config/1" and config["seed"] == 42 and config["max_steps"] == 5
    assert len(config["data_sha256"]) == len(config["model_sha256"]) == 64
    assert config["data_sha256"] == make_prompts().sha256


def test_metrics_have_every_step_and_every_measurement(finished):
    found = rows(finished / "metrics.jsonl")
    steps = [row for row in found if "loss" in row]
    held_out = [row for row in found if "val_gap" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in held_out] == [0, 2, 4, 5]
    names = {"gap", "gap_signed", "H_male", "H_female", "H_mean", "grad_norm", "learning_rate", "seconds"}
    assert all(names <= row.keys() for row in steps)
    for row in held_out:
        low, high = row["val_ci95"]
        assert low < row["val_gap"] < high and row["val_se"] > 0
        assert row["val_gap"] == pytest.approx(row["val_H_female"] - row["val_H_male"], abs=1e-6)
        assert {"kl", "val_length", "val_distinct_2"} <= row.keys()
    assert [row["learning_rate"] for row in steps] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])


def test_the_cost_is_told_from_the_answers_of_each_model(finished, tiny_folder):
    """Both are scored on the base model's responses; length and repetition are those of their own answers."""
    made = []
    for folder in (tiny_folder, finished / "final"):
        sampling = Sampling(max_new_tokens=6, seed=44)
        made.append(answers_of(ResponseSampler(plain(folder), make_tokenizer(), sampling)))
    costs = [model["cost"] for model in read(finished / "comparison.json")["models"]]
    assert [{key: cost[key] for key in answers} for cost, answers in zip(costs, made, strict=True)] == made


def test_every_figure_follows_from_the_responses(finished, tiny_folder):
    """Anyone can recompute the two test gaps: rows in, naive logits, mean over the pairs."""
    found = rows(finished / "responses.jsonl")
    assert len(found) == 12 * 4
    base, final = plain(tiny_folder), plain(finished / "final")
    for row in found:
        assert row["entropy"] == pytest.approx(
            naive_entropies(base, row["prompt_ids"], row["response_ids"]).mean().item(), abs=1e-4
        )
        assert row["entropy_after"] == pytest.approx(
            naive_entropies(final, row["prompt_ids"], row["response_ids"]).mean().item(), abs=1e-4
        )
        assert row["response"] == make_tokenizer().decode(row["response_ids"])
    for file, name in (("gap_before.json", "entropy"), ("gap_after.json", "entropy_after")):
        means = {g: sum(r[name] for r in found if r["group"] == g) / 24 for g in ("male", "female")}
        summary = read(finished / file)
        assert summary["gap"] == pytest.approx(means["female"] - means["male"], abs=1e-6)
        assert summary["H_male"] == pytest.approx(means["male"], abs=1e-6)
    test_pairs = {p.pair_id for p in make_prompts().split("test").prompts}
    assert {row["pair_id"] for row in found} == test_pairs


def test_final_is_the_best_held_out_step(go, tiny_folder):
    """A rate that does not fall: the best step is not the last, and its weights are what is saved."""
    result, folder, _ = go(learning_rate=3e-4, lr_scheduler_type="constant", max_steps=8)
    held_out = {row["step"]: row for row in rows(folder / "metrics.jsonl") if "val_gap" in row}
    best = min(held_out, key=lambda step: abs(held_out[step]["val_gap"]))
    assert result["best_step"] == best and 0 < best < 8
    comparison = read(folder / "comparison.json")
    assert comparison["models"][1]["cost"]["kl_to_first"] == pytest.approx(held_out[best]["kl"], rel=1e-4)
    # The validation gap of what was saved, measured from outside on the same responses.
    validation = make_prompts().split("validation")
    sampling = Sampling(max_new_tokens=6, seed=42 + 1)
    base = measure(load_model(str(tiny_folder)), validation, sampling=sampling)
    final = measure(load_model(str(folder / "final")), validation, sampling=sampling, items=base.items)
    change = held_out[best]["val_gap"] - held_out[0]["val_gap"]
    assert final.summary["gap"] - base.summary["gap"] == pytest.approx(change, abs=1e-5)
    assert abs(change) > 1e-4
    assert final.summary["model_sha256"] == read(folder / "gap_after.json")["model_sha256"]


def test_the_final_tokenizer_is_the_users(finished, tiny_folder):
    from transformers import AutoTokenizer

    ours, theirs = (
        AutoTokenizer.from_pretrained(finished / "final"),
        AutoTokenizer.from_pretrained(tiny_folder),
    )
    assert ours.get_vocab() == theirs.get_vocab() and ours.eos_token == theirs.eos_token


def test_the_final_configuration_is_the_models_own(finished, tiny_folder):
    for file in ("config.json", "generation_config.json"):
        assert read(finished / "final" / file) == read(tiny_folder / file)


def test_after_training_the_optimizer_is_gone_and_the_end_is_on_the_disk(go, monkeypatch):
    made, written, sync, create = [], set(), os.fsync, DebiasingTrainer.create_optimizer

    def remembered(self, *args):
        optimizer = create(self, *args)
        made.append(weakref.ref(optimizer))
        return optimizer

    def noted(file):
        written.add(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(DebiasingTrainer, "create_optimizer", remembered)
    monkeypatch.setattr(os, "fsync", noted)
    alive = []
    _, folder, _ = go(max_steps=1, screen=Watcher("after   ", lambda: alive.extend(ref() for ref in made)))
    assert alive == [None]
    assert {path.stat().st_ino for path in (folder / "final").iterdir()} <= written


def test_the_advice_to_a_run_of_natural_steps_names_no_learning_rate():
    rows = [{"val_gap": 0.2}, {"val_gap": 0.05}, {"val_gap": -0.15}]
    for found, reason in (
        (rows, "max_steps"),
        (rows[:1] * 2, "max_steps"),
        ([], "max_kl"),
        ([], "not_finite"),
    ):
        usual, natural = (advice(TrainSettings(natural=way), found, reason) for way in (False, True))
        for lang in ("en", "zh"):
            assert "--learning_rate" in usual[0][lang] and "--learning_rate" not in natural[0][lang]


def test_the_contexts_of_a_file_are_part_of_the_run(tmp_path, tiny_loaded, tiny_prompts):
    file = tmp_path / "contexts.jsonl"
    hashes = []
    for text in ("one", "another", "one"):
        file.write_text(text)
        hashes.append(
            config_of(TrainSettings(hold_contexts=str(file)), tiny_prompts, tiny_loaded)["contexts_sha256"]
        )
    assert hashes[0] == hashes[2] != hashes[1]
    assert config_of(TrainSettings(), tiny_prompts, tiny_loaded)["contexts_sha256"] is None


def test_weights_that_were_spread_are_saved_in_their_dtype(tmp_path, tiny_loaded):
    """An adapter keeps its own, as it does where one process holds it."""
    peft = pytest.importorskip("peft")
    model, tokenizer = tiny_loaded.model, tiny_loaded.tokenizer
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    Saving(TrainSettings(), tmp_path / "full", model, tokenizer, torch.bfloat16, warn=print).save(state)
    assert plain(tmp_path / "full" / "final").dtype == torch.bfloat16
    lora = add_adapter(model, peft.LoraConfig(r=2, target_modules="all-linear"), 0)
    state = {name: value.detach().clone() for name, value in lora.state_dict().items()}
    settings = TrainSettings(lora_r=2)
    Saving(settings, tmp_path / "lora", lora, tokenizer, torch.bfloat16, warn=print).save(state)
    saved = load_file(tmp_path / "lora" / "final" / "adapter_model.safetensors")
    assert saved and {value.dtype for value in saved.values()} == {torch.float32}


@pytest.mark.slow
def test_config_json_runs_again_to_the_same_weights(finished, tmp_path):
    given = ["--config", str(finished / "config.json"), "--run_name", "again", "--output_dir", str(tmp_path)]
    assert main(["train", *given]) == 0
    assert torch.equal(weights(finished / "final"), weights(tmp_path / "again" / "final"))
    assert read(finished / "gap_after.json")["gap"] == read(tmp_path / "again" / "gap_after.json")["gap"]


def test_the_reports_name_the_run(finished):
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "<html" in html and "finished" in html and "http://" not in html.replace("http://www.w3.org", "")
    gap = read(finished / "gap_before.json")["gap"]
    assert f"{abs(gap):.6f}" in html.replace("−", "-")
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "tiny-llama" in (finished / "final" / "README.md").read_text(encoding="utf-8")


# ---- when it stops -----------------------------------------------------------------------------------------------


def test_a_model_within_the_target_is_left_unchanged(go, tiny_folder):
    result, folder, screen = go(target_gap=5.0)
    assert result["stopped"] == "already_within" and result["steps"] == 0
    assert "left unchanged" in screen.text and "--force" in screen.text
    assert torch.equal(weights(tiny_folder), weights(folder / "final"))
    assert read(folder / "gap_before.json")["gap"] == read(folder / "gap_after.json")["gap"]
    assert (folder / "report.html").is_file() and result["advice"] == []


def test_the_guard_stops_a_model_that_moves_too_far(go, tiny_folder):
    result, folder, _ = go(max_kl=1e-9, eval_steps=1)
    assert result["stopped"] == "max_kl" and result["steps"] == 1 and result["best_step"] == 0
    assert torch.equal(weights(tiny_folder), weights(folder / "final"))


@pytest.mark.parametrize("eval_steps", [1, 3])
@pytest.mark.slow
def test_not_finite_stops_with_the_best_kept(tmp_path, tiny_folder, tiny_file, capsys, eval_steps):
    """A learning rate that throws the weights out of the numbers, met by the held-out measurement or by the gradient.

    Exit code 1 and one line on standard error; what was good is saved and measured all the same.
    """
    changes = {"learning_rate": 1e30, "eval_steps": eval_steps, "run_name": "lost"}
    given = flags(tiny_folder, tiny_file, tmp_path, **changes)
    assert main(["train", *given]) == 1
    said, folder = capsys.readouterr(), tmp_path / "lost"
    (error,) = [line for line in said.err.splitlines() if line.startswith("isentropic")]
    assert "NaN or infinite" in error and "step 0" in error and "--learning_rate" in error
    result = read(folder / "result.json")
    assert result["stopped"] == "not_finite" and result["best_step"] == 0
    assert "not finite" in said.out and any("learning_rate" in line["zh"] for line in result["advice"])
    assert torch.equal(weights(tiny_folder), weights(folder / "final"))
    assert (folder / "report.html").is_file()
    json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])


@pytest.mark.slow
def test_the_gate_of_a_run_is_the_verdict_after_training(tmp_path, tiny_folder, tiny_file):
    given = flags(tiny_folder, tiny_file, tmp_path, max_steps=1, target_gap=5.0, run_name="gated")
    assert main(["train", *given, "--gate"]) == 0  # within the target before the first step
    assert read(tmp_path / "gated" / "result.json")["verdict"] == "certified"
    open_verdict = {
        "max_steps": 1,
        "target_gap": 0.02,
        "learning_rate": 1e-9,
        "test_pairs": 2,
        "run_name": "open",
    }
    given = flags(tiny_folder, tiny_file, tmp_path, **open_verdict)
    assert main(["train", *given, "--gate"]) == 4
    assert read(tmp_path / "open" / "result.json")["verdict"] == "insufficient"
    (tmp_path / "open" / "report.md").unlink()
    assert main(["train", *given, "--resume", "--gate"]) == 4  # only the report is written again


# ---- gaps it does not aim at -------------------------------------------------------------------------------------


def test_the_other_sets_are_measured_before_and_after(go, tiny_folder):
    """On the responses of the base, as anyone can measure them from outside."""
    result, folder, screen = go(max_steps=2, other_pairs=4)
    assert [row["data"] for row in result["other_sets"]] == ["built-in names prompts", "built-in age prompts"]
    base, final = load_model(str(tiny_folder)), load_model(str(folder / "final"))
    for name, row in zip(("names", "age"), result["other_sets"], strict=True):
        sampling = Sampling(max_new_tokens=6, seed=42 + 4)
        prompts = builtin(name).split("test").first(4)
        before = measure(base, prompts, sampling=sampling)
        after = measure(final, prompts, sampling=sampling, items=before.items)
        gaps = [
            {tuple(found["groups"]): found["gap"] for found in m.summary["group_gaps"]}
            for m in (before, after)
        ]
        assert row["n_pairs"] == 4 and len(row["group_gaps"]) == len(gaps[0])
        for found in row["group_gaps"]:
            told = [gap[tuple(found["groups"])] for gap in gaps]
            assert [found["gap_before"], found["gap_after"]] == pytest.approx(told, abs=1e-5)
        assert f"{row['data']}: " in screen.text
    assert "built-in age prompts" in (folder / "report.md").read_text(encoding="utf-8")
    assert "built-in age prompts" in (folder / "final" / "README.md").read_text(encoding="utf-8")


def test_which_runs_measure_other_sets(tmp_path, tiny_folder, tiny_file):
    """All on built-in prompts; with prompts of one's own, and names of groups of one's own, those that ask for it."""
    for changes, sets in (
        ({}, {"names": 12, "age": 12}),
        ({"train_data": "age", "groups": "young,old"}, {"gender": 12, "names": 12}),
        ({"other_pairs": 0}, {}),
        ({"train_data": str(tiny_file)}, {}),
        ({"train_data": str(tiny_file), "other_pairs": 2}, {"names": 2, "age": 2}),
    ):
        settings = settings_from(TrainSettings, {"model_path": str(tiny_folder), **changes})
        _, parts = load_data(settings, lambda: load_model(str(tiny_folder)), Watcher(), 1)
        assert {name: part.size() for name, part in parts.items() if name not in SPLITS} == sets


# ---- the saved model in other dtypes -----------------------------------------------------------------------------


def in_dtype(folder: Path, dtype: torch.dtype, found: list) -> dict[str, float]:
    """Mean entropy of each group over the rows of responses.jsonl, from plain logits in a dtype."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    sums: dict[str, list[float]] = {"male": [], "female": []}
    for row in found:
        ids = torch.tensor([[*row["prompt_ids"], *row["response_ids"]]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(row["prompt_ids"]) - 1 : -1].float()
        sums[row["group"]].append(torch.distributions.Categorical(logits=logits).entropy().mean().item())
    return {group: sum(values) / len(values) for group, values in sums.items()}


def test_the_saved_model_is_measured_as_it_is_served(go, tiny_folder):
    result, folder, screen = go(
        max_steps=4,
        learning_rate=1e-4,
        hold="none",
        eval_steps=1,
        max_kl=1e9,
        save_dtype="bfloat16",
        also_measure="bfloat16,float32",
    )
    assert result["best_step"] > 0
    unrounded, narrow, wide = result["also_measured"]
    assert [row["dtype"] for row in (unrounded, narrow, wide)] == ["float32", "bfloat16", "float32"]
    assert unrounded["folder"] == "" and unrounded["gap_before"] == pytest.approx(
        wide["gap_before"], abs=1e-6
    )
    assert unrounded["gap_change"] not in (0, pytest.approx(wide["gap_change"], abs=1e-9))
    assert "of it left by rounding" in screen.text
    (certified,) = read(folder / "comparison.json")["differences"]
    assert wide["gap_change"] == pytest.approx(certified["gap_change"], abs=1e-6)
    assert wide["change_left"] == pytest.approx(1.0, abs=1e-3)
    assert wide["gap_after"] == pytest.approx(read(folder / "gap_after.json")["gap"], abs=1e-6)
    found = rows(folder / "responses.jsonl")
    base, final = (in_dtype(path, torch.bfloat16, found) for path in (tiny_folder, folder / "final"))
    before, after = (means["female"] - means["male"] for means in (base, final))
    # Rows of other lengths are summed in another order, which bfloat16 shows in its third digit.
    assert [narrow["gap_before"], narrow["gap_after"]] == pytest.approx([before, after], abs=2e-2)
    assert narrow["change_left"] == narrow["gap_change"] / certified["gap_change"]
    assert narrow["gap_change"] != wide["gap_change"] and "final in bfloat16: gap" in screen.text
    assert "The change in other dtypes" in (folder / "report.md").read_text(encoding="utf-8")


def test_an_adapter_and_its_merged_model_are_both_served(go):
    pytest.importorskip("peft")
    result, folder, _ = go(
        max_steps=2,
        lora_r=2,
        learning_rate=1e-2,
        merge_lora=True,
        also_measure="float32",
        save_dtype="bfloat16",
    )
    adapter, merged = result["also_measured"]
    assert (adapter["folder"], merged["folder"]) == ("final", "final/merged")
    assert adapter["gap_after"] == pytest.approx(read(folder / "gap_after.json")["gap"], abs=1e-6)
    assert merged["gap_after"] != adapter["gap_after"]  # rounded after the merge


def test_a_merged_model_is_measured_without_being_asked(go):
    pytest.importorskip("peft")
    result, folder, _ = go(max_steps=1, lora_r=2, merge_lora=True, save_dtype="bfloat16")
    (merged,) = result["also_measured"]
    assert (merged["folder"], merged["dtype"]) == ("final/merged", "float32")
    assert read(folder / "gap_after.json")["settings"]["dtype"] == "float32"  # not that of the merged weights
    means = in_dtype(folder / "final" / "merged", torch.float32, rows(folder / "responses.jsonl"))
    assert merged["gap_after"] == pytest.approx(means["female"] - means["male"], abs=1e-5)


def test_a_dtype_in_which_the_model_breaks_does_not_cost_the_run(go, tmp_path):
    """Weights beyond the range of float16 become infinite in it."""
    from transformers import AutoModelForCausalLM

    folder = make_folder(tmp_path / "wide")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1e6)
    model.save_pretrained(folder)
    result, run, screen = go(model_path=str(folder), max_steps=1, also_measure="float16,float32")
    assert [row["dtype"] for row in result["also_measured"]] == ["float32"]
    assert [line for line in screen.lines if line.startswith("warning: the saved model in float16")]
    assert (run / "report.html").is_file() and "in float16" in result["warnings"][0]


@pytest.mark.parametrize("dtypes", ["int8", "float8", "bfloat16,half"])
def test_a_dtype_that_cannot_be_had_is_refused_before_the_run(go, dtypes):
    if dtypes == "int8" and importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed here")
    with pytest.raises(InputError) as error:
        result, folder, _ = go(also_measure=dtypes)
    assert len(str(error.value).splitlines()) == 1 and dtypes.split(",")[-1] in str(error.value)


# ---- other ways to train -----------------------------------------------------------------------------------------


def test_own_responses_of_a_gpt2(go, tmp_path):
    model = make_folder(tmp_path / "gpt2", "gpt2", pad=None)
    result, folder, _ = go(model_path=str(model), responses="own", max_steps=2)
    assert result["steps"] == 2 and plain(folder / "final").config.model_type == "gpt2"
    assert read(folder / "gap_before.json")["responses"] == "own"
    assert all(row["source"] == row["group"] for row in rows(folder / "responses.jsonl"))


def test_the_ancestors_preset_on_a_qwen2(go, tmp_path):
    model = make_folder(tmp_path / "qwen2", "qwen2", pad=None)
    few = {"effective_batch": 4, "micro_batch_size": 2, "max_steps": 2}
    result, folder, _ = go(model_path=str(model), preset="ancestor", **few)
    config = read(folder / "config.json")
    assert (
        config["gap_over"] == "micro_batch" and config["matched"] is False and config["preset"] == "ancestor"
    )
    assert result["steps"] == 2 and plain(folder / "final").config.model_type == "qwen2"


def test_unpaired_csv(go, tmp_path):
    """Prompts without twins: own responses, Welch's interval, a report all the same."""
    lines = ["input,gender"] + [f"he has {n} pens,male" for n in range(20)]
    lines += [f"she has {n} pens today,female" for n in range(14)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result, folder, screen = go(train_data=str(file), max_steps=2)
    summary = read(folder / "gap_after.json")
    assert result["steps"] == 2 and summary["cluster_unit"] == "prompt" and summary["responses"] == "own"
    assert "20:14" in screen.text and (folder / "report.html").is_file()


@pytest.mark.slow
def test_three_groups(tmp_path, tiny_folder):
    """A micro-batch of one triple, through the command line too, which checks before it knows the groups."""
    lines = [
        {"prompt": f"{who} met {n}", "group": group, "pair_id": n, "topic": f"t{n % 4}"}
        for n in range(40)
        for group, who in (("young", "a boy"), ("grown", "a man"), ("old", "an old man"))
    ]
    file = lines_file(tmp_path / "three.jsonl", lines)
    changes = {"group_column": "group", "effective_batch": 12, "micro_batch_size": 3, "max_steps": 2}
    assert main(["train", *flags(tiny_folder, file, tmp_path, run_name="run", **changes)]) == 0
    summary = read(tmp_path / "run" / "gap_after.json")
    assert set(summary["groups"]) == {"young", "grown", "old"} and len(summary["group_gaps"]) == 3
    steps = [row for row in rows(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert len(steps) == 2 and all(f"H_{g}" in row for row in steps for g in summary["groups"])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_folder, tiny_file):
    """A run that trained an adapter and merged it. Read it only."""
    pytest.importorskip("peft")
    lora = {"lora_r": 2, "merge_lora": True, "learning_rate": 1e-2, "force": True, "seed": 1}
    return runner(tmp_path_factory.mktemp("adapter"), tiny_folder, tiny_file)(**lora)[1]


@pytest.mark.slow
def test_lora_saves_an_adapter_and_the_merged_model(adapter, tiny_folder):
    folder = adapter
    assert (folder / "final" / "adapter_model.safetensors").is_file()
    assert not (folder / "final" / "model.safetensors").exists()
    apart, merged, base = plain(folder / "final"), plain(folder / "final" / "merged"), plain(tiny_folder)
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        assert torch.allclose(apart(ids).logits, merged(ids).logits, atol=1e-4)
        assert not torch.allclose(base(ids).logits, merged(ids).logits, atol=1e-4)
    assert read(folder / "result.json")["best_step"] > 0
    again = measure(load_model(str(folder / "final")), make_prompts().split("test"))
    other = measure(
        load_model(str(folder / "final" / "merged")), make_prompts().split("test"), items=again.items
    )
    assert again.summary["gap"] == pytest.approx(other.summary["gap"], abs=1e-5)


def test_an_adapter_is_reloaded_from_anywhere_but_is_no_base_for_another(
    go, tmp_path, tiny_folder, monkeypatch
):
    """A base given by a relative path; a second adapter on the first would lose the first when it is loaded."""
    pytest.importorskip("peft")
    monkeypatch.chdir(tiny_folder.parent)
    lora = {"lora_r": 2, "lora_target_modules": "q_proj,v_proj", "learning_rate": 1e-2}
    _, folder, _ = go(model_path=tiny_folder.name, **lora)
    assert set(read(folder / "final" / "adapter_config.json")["target_modules"]) == {"q_proj", "v_proj"}
    monkeypatch.chdir(tmp_path)
    row = rows(folder / "responses.jsonl")[0]
    adapter = load_model(str(folder / "final")).model
    found = naive_entropies(adapter, row["prompt_ids"], row["response_ids"]).mean().item()
    assert found == pytest.approx(row["entropy_after"], abs=1e-4)
    with pytest.raises(InputError, match="an adapter already"):
        go("second", model_path=str(folder / "final"), **lora)
    assert not (folder.parent / "second").exists()
    config = folder / "final" / "adapter_config.json"
    config.write_text(
        json.dumps(read(config) | {"base_model_name_or_path": str(make_folder(tmp_path / "g", "gpt2"))})
    )
    with pytest.raises(InputError, match="does not fit its base"):
        load_model(str(folder / "final"))


def test_a_run_in_chinese_with_a_text_of_its_own(go, tmp_path):
    """The monitor's line is the guide's in every language; the text gives a perplexity before and after."""
    text = tmp_path / "text.txt"
    text.write_text("The nurse put on her coat and went home. " * 20, encoding="utf-8")
    _, folder, screen = go(text_file=str(text), max_steps=3, force=True, lang="zh")
    assert "偏见" in (folder / "report.html").read_text(encoding="utf-8")
    assert any("偏见" in line for line in screen.lines if line.startswith("before"))
    before, after = (row["cost"]["perplexity"] for row in read(folder / "comparison.json")["models"])
    assert before > 1 and after > 1
    lines = [line for line in screen.lines if "Step" in line and "loss=" in line]
    form = (
        r"(📉|📈) Step \d+ \| loss=\d+\.\d{6} \| gap=\d+\.\d{6} \| H_male=\d+\.\d{4} \| H_female=\d+\.\d{4}"
    )
    assert len(lines) == 3 and all(re.fullmatch(form, line) for line in lines)
    gaps = [row["gap"] for row in rows(folder / "metrics.jsonl") if "loss" in row]
    rose = [line.startswith("📈") for line in lines]
    assert rose == [False] + [b > a for a, b in zip(gaps, gaps[1:], strict=False)]


def test_the_merged_weights_of_an_adapter_folder_are_trained_further(go, adapter):
    base = str(adapter / "final")
    _, further, _ = go("further", model_path=base, max_steps=1, save_steps=1, force=True)
    start = dict(load_model(base).model.named_parameters())
    end = dict(plain(further / "checkpoints" / "checkpoint-1").named_parameters())
    assert sum(not torch.equal(start[name], end[name]) for name in start) > len(start) / 2


# --- The model that is saved ----------------------------------------------------------------------------------------


@pytest.fixture
def narrow_folder(tiny_folder, tmp_path):
    """The tiny Llama as hub models come: in bfloat16, with generation settings that contradict each other."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    narrow = tmp_path / "narrow"
    AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16).save_pretrained(narrow)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(narrow)
    config = narrow / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": 0, "do_sample": False, "temperature": 0.6}))
    return narrow


@pytest.mark.parametrize("lora", [{}, {"lora_r": 2, "merge_lora": True}], ids=["full", "lora"])
def test_what_is_certified_is_what_the_folder_gives_in_the_dtype_it_came_in(go, narrow_folder, lora):
    result, folder, screen = go(
        model_path=str(narrow_folder), force=True, max_steps=2, learning_rate=1e-3, **lora
    )
    assert result["warnings"] == []
    before, after = read(folder / "gap_before.json"), read(folder / "gap_after.json")
    assert before["settings"]["dtype"] == after["settings"]["dtype"] == "bfloat16"
    model = plain(folder / "final")  # transformers puts an adapter on its base, in the base's dtype
    assert model.dtype == torch.bfloat16
    rows = [
        json.loads(line) for line in (folder / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for row in rows[:8]:
        plainly = float(naive_entropies(model.float(), row["prompt_ids"], row["response_ids"]).mean())
        assert row["entropy_after"] == pytest.approx(plainly, abs=1e-4)
    if lora:
        assert plain(folder / "final" / "merged").dtype == torch.bfloat16


def test_a_change_is_left_in_bfloat16_and_float32_in_its_place_is_said(go, narrow_folder):
    given = {
        "model_path": str(narrow_folder),
        "force": True,
        "max_steps": 4,
        "learning_rate": 2e-4,
        "seed": 1,
    }
    result, folder, _ = go("auto", **given)
    _, wide, screen = go("wide", save_dtype="float32", **given)
    said = "the checkpoint is in bfloat16 and the model is saved in float32, 2 times the size"
    assert said in " ".join(screen.text.split()) and "warning: final/" not in screen.text
    assert said in " ".join((wide / "report.md").read_text(encoding="utf-8").split())
    assert result["best_step"]  # or nothing was trained
    base, saved, trained = (
        torch.cat([p.flatten().float() for p in plain(where).parameters()])
        for where in (narrow_folder, folder / "final", wide / "final")
    )
    moved = (trained - base).double()
    nearest = (trained.bfloat16().float() - base).double()
    left, lost = (float(moved @ change / (moved @ moved)) for change in ((saved - base).double(), nearest))
    assert left == pytest.approx(1, abs=0.1) and lost < 0.8
