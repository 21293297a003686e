"""The command line: what each command gives, and one clear line with exit code 2 for what cannot work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from isentropic.files import disk_fault
from tiny import QUICK, lines_file

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "measure", "compare", "report", "prompts")


# ---- help and version --------------------------------------------------------------------------------------------


def test_help_and_version_are_instant():
    """Nothing heavy is imported for any --help, --version or --print_config."""
    script = f"""
import contextlib, io, sys
from isentropic.cli import main, train_main
said = []
calls = [[c, "--help"] for c in {COMMANDS}] + [["--help"], ["--version"]]
for run in [lambda c=c: main(c) for c in calls] + [lambda: train_main("train_debiasing.py", ["--help"])]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            run()
        except SystemExit as left:
            assert left.code == 0, left.code
    said.append(out.getvalue())
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert main(["train", "--print_config"]) == 0
heavy = {{"torch", "transformers", "numpy", "scipy", "matplotlib", "datasets", "rich"}} & set(sys.modules)
assert not heavy, heavy
assert all(len(text) > 10 for text in said)
for name in ("--model_path", "--target_gap", "--micro_batch_size", "--use_test_data", "--use_l1", "--resume"):
    assert name in said[0] and name in said[-1], name
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0 and re.fullmatch(r"isentropic \d+\.\d+\.\d+\S*\n", out)


def test_every_setting_has_a_flag_and_a_help_text(run):
    from dataclasses import fields

    from isentropic.settings import MeasureSettings, TrainSettings

    for command, settings in (("train", TrainSettings), ("measure", MeasureSettings)):
        _, out, _ = run(command, "--help")
        shown = " ".join(out.split())
        for setting in fields(settings):
            assert f"--{setting.name}" in shown
            assert len(setting.metadata["help"]) > 5


# ---- settings: flags, presets, files -----------------------------------------------------------------------------


def printed(run: Any, *words: object) -> dict[str, Any]:
    code, out, err = run("train", *words, "--print_config")
    assert code == 0, err
    return yaml.safe_load(out)


def test_print_config_round_trips(run, tmp_path):
    given = [
        "--learning_rate",
        "3e-7",
        "--loss",
        "gee",
        "--use_l1",
        "--run_name",
        "mine",
        "--train_data",
        "x.jsonl",
    ]
    code, out, _ = run("train", *given, "--print_config")
    file = tmp_path / "run.yaml"
    file.write_text(out, encoding="utf-8")
    assert run("train", "--config", file, "--print_config") == (code, out, "")
    config = yaml.safe_load(out)
    assert config["learning_rate"] == 3e-7 and config["use_l1"] is True and config["run_name"] == "mine"


def test_flags_win_over_the_file_and_the_file_over_the_preset(run, tmp_path):
    file = lines_file(tmp_path / "run.yaml", ["preset: aggressive", "target_gap: 0.03", "steady: false"])
    config = printed(run, "--config", file, "--steady", "--max_steps", 7)
    assert config["learning_rate"] == 2e-5  # of the preset
    assert config["target_gap"] == 0.03  # of the file
    assert config["steady"] is True and config["max_steps"] == 7  # of the flags


def test_yaml_numbers_as_people_write_them(run, tmp_path):
    file = lines_file(tmp_path / "run.yaml", ["learning_rate: 1e-5", "target_gap: 1"])
    config = printed(run, "--config", file)
    assert config["learning_rate"] == 1e-5 and config["target_gap"] == 1


# ---- bad input: settings -----------------------------------------------------------------------------------------

BAD_SETTINGS = {
    "--micro_batch_size 0": "--micro_batch_size is 0",
    "--micro_batch_size 1": "--micro_batch_size is 1",
    "--micro_batch_size 3": "not a multiple of 3",  # three groups would be well with it
    "--micro_batch_size 3 --effective_batch 63": "give 4",
    "--micro_batch_size 128": "--effective_batch 64",
    "--micro_batch_size 8 --effective_batch 20": "give 16 or 24",
    "--target_gap 0": "--target_gap is 0",
    "--target_gap -0.1": "--target_gap is -0.1",
    "--target_gap nan": "--target_gap is nan",
    "--target_gap much": "invalid float value: 'much'",
    "--learning_rate 0": "--learning_rate is 0",
    "--learning_rate=-1e-5": "--learning_rate is -1e-05",
    "--learning_rate nan": "--learning_rate is nan",
    "--learning_rate inf": "--learning_rate is inf",
    "--max_steps 0": "--max_steps is 0",
    "--max_steps -3": "--max_steps is -3",
    "--max_steps 2.5": "invalid int value: '2.5'",
    "--scale_factor 0": "--scale_factor is 0",
    "--max_kl nan": "--max_kl is nan",
    "--sample_temp -1": "--sample_temp is -1",
    "--max_new_tokens 0": "--max_new_tokens is 0",
    "--eval_steps 0": "--eval_steps is 0",
    "--chunk_mb 0": "--chunk_mb is 0",
    "--test_pairs 1": "--test_pairs is 1",
    "--run_name a/b": "--run_name is 'a/b'",
    "--run_name ..": "--run_name is '..'",
    "--run_name a..b": "--run_name is 'a..b'",
    "--run_name=": "--run_name is ''",
    "--resume --overwrite": "--resume with --overwrite",
    "--resume": "nothing to resume",
    "--use_test_data --train_data x.jsonl": "--use_test_data with --train_data",
    "--loss squared": "invalid choice: 'squared'",
    "--lr_scheduler_type zigzag": "invalid choice: 'zigzag'",
    "--estimator unbiased --use_l1": "only a square",
    "--estimator unbiased --effective_batch 2": "different pairs",
    "--lambda_weight nan --loss gee": "--lambda_weight is nan",
    "--lerning_rate 1e-5": "did you mean --learning_rate?",
    "--target-gap 0.1": "did you mean --target_gap?",
    "--microbatch 4": "--microbatch is no flag",
    "--model_path ./nothing": "'./nothing' does not exist",
    "--train_data nothing.jsonl": "'nothing.jsonl' does not exist",
    "--train_data nothing": "nor a built-in set",
    "--config nothing.yaml": "--config 'nothing.yaml' cannot be read",
}  # fmt: skip


def assert_refused(result: tuple[int, str, str], word: str) -> None:
    """Exit code 2, one line on standard error, and the word in it."""
    code, _, err = result
    assert code == 2, err
    assert word in err and err.startswith("isentropic") and err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("flags", BAD_SETTINGS)
def test_settings_that_cannot_work(run, tmp_path, monkeypatch, tiny_folder, tiny_file, flags):
    monkeypatch.chdir(tmp_path)
    given = ["--model_path", tiny_folder] if "model_path" not in flags else []
    given += ["--train_data", tiny_file] if "train_data" not in flags else []
    assert_refused(run("train", *given, *flags.split()), BAD_SETTINGS[flags])
    assert not list(tmp_path.iterdir())


def test_all_faults_are_told_at_once(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(
        "train", "--target_gap", 0, "--learning_rate", -1, "--micro_batch_size", 1, "--run_name", "a/b"
    )
    assert code == 2 and err.count("\n") == 4
    assert all(line.startswith("isentropic: error: --") for line in err.splitlines())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("learning_rat: 1.0e-5", "did you mean 'learning_rate'?"),
        ("max_steps: many", "max_steps the value 'many'"),
        ("max_steps: 2.5", "max_steps the value 2.5"),
        ("use_l1: 1", "use_l1 the value 1"),
        ("loss: squared", "choose one of debiasing, gee"),
        ("preset: gentle", "choose one of"),
        ("a: [1", "no valid YAML"),
        ("- 1\n- 2", "holds no settings"),
        ("", "holds no settings"),
        ("target_gap: .nan", "--target_gap is nan"),
        ("target_gap: nan", "--target_gap is nan"),
    ],
)
def test_config_files_that_cannot_work(run, tmp_path, content, word):
    file = lines_file(tmp_path / "run.yaml", [content])
    assert_refused(run("train", "--config", file), word)


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ([], "COMMAND"),
        (["mesure"], "invalid choice: 'mesure'"),
        (["compare"], "MODEL"),
        (["compare", "one"], "a comparison needs two"),
        (["measure", "m", "--pairs", "1"], "--pairs is 1"),
        (["measure", "m", "--target_gap", "nan"], "--target_gap is nan"),
        (["measure", "m", "--jsn", "x"], "did you mean --json?"),
        (["report"], "run"),
        (["report", "nothing"], "nothing"),
        (["prompts", "nothing.csv"], "'nothing.csv' does not exist"),
        (["prompts", "--seed", "x"], "invalid int value"),
    ],
)
def test_other_commands_that_cannot_work(run, words, word):
    assert_refused(run(*words), word)


# ---- bad input: models -------------------------------------------------------------------------------------------


def bad_model(kind: str, folder: Path, tiny: Path) -> tuple[object, str]:
    """A model path that cannot work, and what is said of it."""
    target = folder / "model"
    if kind == "empty folder":
        target.mkdir()
        return target, "config.json"
    if kind == "text file":
        return lines_file(folder / "model.txt", ["x"]), "no .gguf file"
    if kind == "missing gguf":
        return folder / "model.gguf", "does not exist"
    if kind == "not gguf":
        return lines_file(folder / "model.gguf", ["these are no weights"]), "GGUF mark"
    if kind == "cut gguf":
        (folder / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x09" * 60)
        return folder / "model.gguf", "cut short"
    if kind == "no hub":
        return "nobody/no-such-model-here", "nobody/no-such-model-here"
    shutil.copytree(tiny, target)
    weights = target / "model.safetensors"
    if kind == "pickle":
        weights.unlink()
        torch.save({}, target / "pytorch_model.bin")
        return target, "pickle"
    if kind == "no weights":
        weights.unlink()
        return target, "safetensors"
    if kind == "cut safetensors":
        weights.write_bytes(weights.read_bytes()[:5000])
        return target, "cannot be loaded"
    if kind == "bad config":
        (target / "config.json").write_text("{", encoding="utf-8")
        return target, "cannot be loaded"
    if kind == "unknown architecture":
        (target / "config.json").write_text('{"model_type": "no_such_type"}', encoding="utf-8")
        return target, "cannot be loaded"
    assert kind == "no tokenizer"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).unlink()
    return target, "token"


MODELS = (
    "empty folder,text file,missing gguf,not gguf,cut gguf,no hub,pickle,no weights,cut safetensors,bad config,"
    "unknown architecture,no tokenizer"
)


@pytest.mark.parametrize("kind", MODELS.split(","))
def test_models_that_cannot_be_loaded(run, tmp_path, tiny_folder, tiny_file, kind):
    model, word = bad_model(kind, tmp_path, tiny_folder)
    runs = tmp_path / "runs"
    assert_refused(run("train", "--model_path", model, "--train_data", tiny_file, "--output_dir", runs), word)
    assert not runs.exists()
    assert_refused(run("measure", model, "--train_data", tiny_file), word)


def test_the_model_decides_what_grammar_cannot(run, tiny_folder, tmp_path):
    """`her duck` is his duck or him ducking: left out without a model, there with one, in each command alike."""
    texts = ["We saw her dance 3 times.", *(f"He has {n} pens." for n in range(19))]
    file = lines_file(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    assert "1 left out by the swap (undecided): line 1" in run("prompts", file, "--swap")[1]
    code, out, _ = run("prompts", file, "--swap", "--model_path", tiny_folder)
    assert code == 0 and "twins of 20 prompts" in out and "left out" not in out
    given = ["--train_data", file, "--swap", "--split", "all", "--json", "-", *QUICK]
    assert json.loads(run("measure", tiny_folder, *given)[1])["n_pairs"] == 20


# ---- bad input: data ---------------------------------------------------------------------------------------------

PAIRS = [{"male": f"He has {n}. He", "female": f"She has {n}. She", "topic": f"t{n % 4}"} for n in range(24)]
BAD_DATA: dict[str, tuple[list[object], str]] = {
    "empty": ([], "is empty"),
    "malformed": ([*PAIRS[:2], '{"male": "He', *PAIRS[2:]], "line 3"),
    "no object": ([*PAIRS[:2], "[1]"], "line 3"),
    "one group": ([{"prompt": f"He {n}", "gender": "male"} for n in range(20)], "one group only"),
    "unknown group": ([{"prompt": "He", "gender": "male"}, {"prompt": "It", "gender": "robot"}], "robot"),
    "empty prompt": ([*PAIRS[:4], {"male": " ", "female": "She"}], "line 5"),
    "NaN": ([*PAIRS[:4], '{"male": NaN, "female": "She"}'], "line 5"),
    "number": ([*PAIRS[:4], {"male": 7, "female": "She"}], "line 5"),
    "identical twins": ([*PAIRS[:4], {"male": "They ran", "female": "They ran"}], "line 5"),
    "columns": ([{"question": "He", "sex": "male"}], "question"),
    "unknown split": ([{**pair, "split": "mine"} for pair in PAIRS], "mine"),
    "long prompt": ([*PAIRS, {"male": "he " * 400, "female": "she " * 400}], "context"),
    "few": (list(PAIRS[:3]), "needs at least two"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_cannot_be_used(run, tmp_path, tiny_folder, kind):
    content, word = BAD_DATA[kind]
    file = lines_file(tmp_path / "data.jsonl", content)
    given = ["--model_path", tiny_folder, "--train_data", file, "--output_dir", tmp_path / "runs"]
    assert_refused(run("train", *given, *QUICK), word)
    assert not (tmp_path / "runs").exists()


def test_a_column_that_is_not_there(run, tiny_folder, tiny_file):
    result = run("measure", tiny_folder, "--train_data", tiny_file, "--text_column", "story")
    assert_refused(result, "'story'")
    assert "male" in result[2]


def test_a_split_that_is_not_there(run, tiny_folder, tiny_file):
    result = run("measure", tiny_folder, "--train_data", tiny_file, "--split", "dev")
    assert_refused(result, "'dev'")
    assert "validation" in result[2]


RESPONSE = {"group": "male", "prompt": "He", "response": "ran", "pair_id": "1"}
BAD_RESPONSES: dict[str, tuple[list[object], str]] = {
    "empty": ([], "is empty"),
    "malformed": ([RESPONSE, '{"group":'], "line 2"),
    "list": ([RESPONSE, "[1, 2]"], "line 2"),
    "no prompt": ([{"group": "male", "response": "ran"}], "line 1"),
    "no response": ([{"group": "male", "prompt": "He"}], "line 1"),
    "empty response": ([{**RESPONSE, "response": ""}], "line 1"),
    "vocabulary": ([{**RESPONSE, "response_ids": [5, 99999]}], "99999"),
    "negative": ([{**RESPONSE, "response_ids": [5, -7]}], "-7"),
    "one group": ([RESPONSE, {**RESPONSE, "pair_id": "2"}], "one group only"),
    "too long": ([{**RESPONSE, "response": None, "response_ids": [5] * 400}], "context"),
}


@pytest.mark.parametrize("kind", BAD_RESPONSES)
def test_stored_responses_that_cannot_be_scored(run, tmp_path, tiny_folder, kind):
    content, word = BAD_RESPONSES[kind]
    file = lines_file(tmp_path / "responses.jsonl", content)
    assert_refused(run("measure", tiny_folder, "--responses_in", file, *QUICK), word)


@pytest.mark.parametrize("flag", ["--json", "--html", "--responses_out"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    run, tiny_folder, tiny_file, tmp_path, flag
):
    given = [tiny_folder, "--train_data", tiny_file, flag, tmp_path / "nowhere" / "file", *QUICK]
    result = run("measure", *given)
    assert_refused(result, "cannot be written")
    assert "scoring" not in result[1]
    result = run("compare", tiny_folder, *given)
    assert_refused(result, "writes no responses" if flag == "--responses_out" else "cannot be written")
    assert "scoring" not in result[1]


def test_other_files_that_are_not_there(run, tiny_folder, tiny_file, tmp_path):
    given = ["measure", tiny_folder, "--train_data", tiny_file, *QUICK]
    result = run(*given, "--text_file", tmp_path / "nothing.txt")
    assert_refused(result, "nothing.txt")
    assert "scoring" not in result[1]
    assert_refused(
        run("measure", tiny_folder, "--responses_in", tmp_path / "nothing.jsonl"), "does not exist"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(run, tiny_folder, tiny_file):
    assert_refused(
        run("measure", tiny_folder, "--train_data", tiny_file, "--json", "/dev/full", *QUICK), "No space left"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_known_by_the_words_of_torch():
    """A checkpoint's optimizer is written by torch, whose error is no OSError."""
    with pytest.raises(RuntimeError) as caught:
        torch.save(torch.zeros(100_000), "/dev/full")
    assert disk_fault(caught.value) and not disk_fault(RuntimeError("shapes do not fit"))


def test_a_package_that_is_missing_is_named_in_one_line():
    """The guide's script under a Python without PyTorch, from another folder and not installed."""
    script = f"""
import runpy, sys
sys.modules["torch"] = None
sys.argv = ["train_debiasing.py", "--run_name", "x"]
runpy.run_path({str(ROOT / "train_debiasing.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2 and "'torch' is not installed" in done.stderr and done.stderr.count("\n") == 1


def test_chat_without_a_template(run, tiny_folder, tiny_file):
    assert_refused(run("measure", tiny_folder, "--train_data", tiny_file, "--chat", *QUICK), "chat template")


@pytest.mark.parametrize(
    ("content", "word"),
    [("{", "not valid JSON"), ('{"gap": 1}', "schema"), ("[1]", "schema"), ('{"schema": "x/9"}', "x/9")],
)
def test_reports_of_json_that_is_no_measurement(run, tmp_path, content, word):
    file = lines_file(tmp_path / "m.json", [content])
    assert_refused(run("report", file), word)
    assert not (tmp_path / "m.html").exists()


def test_a_report_that_cannot_be_written(run, tiny_folder, tiny_file, tmp_path):
    file = tmp_path / "m.json"
    run("measure", tiny_folder, "--train_data", tiny_file, "--json", file, *QUICK)
    assert_refused(run("report", file, "--out", tmp_path / "nowhere" / "m.html"), "cannot be written")


def test_a_folder_that_is_no_run(run, tmp_path):
    assert_refused(run("report", tmp_path), str(tmp_path.name))


def test_the_guides_script_is_the_same_command(tmp_path):
    command = [sys.executable, str(ROOT / "train_debiasing.py"), "--micro_batch_size", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--micro_batch_size is 1" in done.stderr
