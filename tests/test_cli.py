"""The command line: what each command gives, and one clear line with exit code 2 for what cannot work."""

from __future__ import annotations

import json
import re
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
COMMANDS = ("train", "measure", "compare", "ability", "report", "prompts")


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


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("active", "ACTIVE")])
@pytest.mark.slow
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(given, expected, monkeypatch):
    """libgomp itself tells, when torch loads it, what it was told."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "true")
    words = [sys.executable, "-m", "isentropic", "measure", "./there-is-no-such-model"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if "OPENMP DISPLAY ENVIRONMENT" not in done.stderr:
        pytest.skip("torch has another OpenMP than libgomp")
    assert f"OMP_WAIT_POLICY = '{expected}'" in done.stderr


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0 and re.fullmatch(r"isentropic \d+\.\d+\.\d+\S*\n", out)


def test_every_setting_has_a_flag(run):
    from dataclasses import fields

    from isentropic.settings import MeasureSettings, TrainSettings

    for command, settings in (("train", TrainSettings), ("measure", MeasureSettings)):
        _, out, _ = run(command, "--help")
        shown = " ".join(out.split())
        for setting in fields(settings):
            assert f"--{setting.name}" in shown


def test_help_shows_a_default_of_zero_and_no_flag_that_is_refused(run):
    _, train, _ = run("train", "--help")
    shown = " ".join(train.split())
    for words in ("0 trains all weights (default: 0)", "0.9 overshoots the target (default: 0.0)"):
        assert words in shown
    _, compare, _ = run("compare", "--help")
    assert "--gate" not in compare and "--responses_out" not in compare and "--responses_in" in compare


# ---- settings: flags, presets, files -----------------------------------------------------------------------------


def printed(run: Any, *words: object) -> dict[str, Any]:
    code, out, err = run("train", *words, "--print_config")
    assert code == 0, err
    return yaml.safe_load(out)


def test_print_config_round_trips(run, tmp_path):
    given = "--learning_rate 3e-7 --loss gee --use_l1 --run_name mine --train_data x.jsonl".split()
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


def test_words_of_yaml_as_people_write_them(run, tmp_path):
    lines = ["bf16: on", "run_name: 2024", "output_dir: ~/runs", "max_pairs: null", "swap: yes"]
    config = printed(run, "--config", lines_file(tmp_path / "run.yaml", lines))
    said = {"bf16": "on", "run_name": "2024", "max_pairs": None, "swap": True}
    assert config.items() >= (said | {"output_dir": str(Path.home() / "runs")}).items()


@pytest.mark.parametrize(
    "command",
    ["measure", "compare x", "prompts", "report", "train --model_path", "train --system x --train_data"],
)
def test_a_variable_that_is_not_set_is_refused(run, command):
    assert_refused(run(*command.split(), ""), "is empty")


def test_bytes_that_are_not_utf8_are_refused(run):
    for words in (["train", "--system"], ["measure"], ["prompts"], ["train", "--run_name"]):
        assert_refused(run(*words, "a\udce9"), "not UTF-8")


def test_no_flag_is_shortened(run):
    for words in (
        ["measure", "--pair", "3"],
        ["train", "--max_step=3"],
        ["prompts", "--ou", "x"],
    ):
        assert_refused(run(*words), "did you mean --")


def test_names_too_long_for_a_file_are_one_line(run):
    long = "x" * 300
    for words in (["measure", long], ["prompts", long], ["prompts", long + ".csv"], ["report", long], ["train", "--run_name", long],
                  ["train", "--train_data", long + ".jsonl"], ["train", "--config", long], ["measure", "--text_file", long]):  # fmt: skip
        code, _, err = run(*words)
        assert code == 2 and err.count("\n") == 1 and len(err) < 800, err


# ---- bad input: settings -----------------------------------------------------------------------------------------

BAD_SETTINGS = {
    "--micro_batch_size 3": "not a multiple of 3",  # three groups would be well with it
    "--target_gap nan": "--target_gap is nan",
    "--target_gap much": "invalid float value: 'much'",
    "--learning_rate=-1e-5": "--learning_rate is -1e-05",
    "--max_steps 2.5": "invalid int value: '2.5'",
    "--run_name=": "run_name is empty",
    "--resume": "nothing to resume",
    "--loss squared": "invalid choice: 'squared'",
    "--lr_scheduler_type zigzag": "invalid choice: 'zigzag'",
    "--lerning_rate 1e-5": "did you mean --learning_rate?",
    "--target-gap 0.1": "did you mean --target_gap?",
    "--microbatch 4": "unknown flag --microbatch",
    "--learning_rat 1": "did you mean --learning_rate?",
    "--lora_alpha -5": "--lora_alpha is -5",
    "--groups ,": "groups are none",
    "--group_column=": "group_column is empty",
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
        ("max_steps: many", "--max_steps: invalid int value: 'many'"),
        ("max_steps: 2.5", "--max_steps: invalid int value: '2.5'"),
        ("use_l1: 1", "use_l1 the value 1"),
        ("loss: squared", "choose from"),
        ("preset: gentle", "choose from"),
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2", "contains no settings"),
        ("", "contains no settings"),
        ("target_gap: .nan", "--target_gap is nan"),
        ("target_gap: nan", "--target_gap is nan"),
        ("lerning_rate: 1\nx: 2", "did you mean 'learning_rate'?"),
        ("help: 1", "unknown key 'help'"),
        ("config: x.yaml", "unknown key 'config'"),
        ("max_steps: [1]", "a list"),
        ("run_name: {a: 1}", "a dict"),
        ("a: &a [1, 1]\nrun_name: [*a, *a]", "*name"),
        ("a: &a {b: 1}\n<<: [*a, *a]", "*name"),
        ("run_name: " + "[" * 1200, "not valid YAML"),
        ("run_name: " + "[" * 1200 + "]" * 1200, "run.yaml"),
        ("max_steps: " + "9" * 5000, "run.yaml"),
        ("max_steps: " + "x" * 5000, "invalid int value"),
        ("run_name: " + "x" * 5000, "up to 255 bytes"),
        ("run_name: x\n" * 200_000, "larger than 1 MB"),
        ("run_name: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("run_name: 2024-99-99", "not valid YAML"),
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


def test_a_model_that_cannot_be_loaded(run, tmp_path, tiny_file):
    (tmp_path / "model").mkdir()
    given = ["--train_data", tiny_file]
    for words in (["train", "--model_path", tmp_path / "model"], ["measure", tmp_path / "model"]):
        assert_refused(
            run(*words, *given, *(["--output_dir", tmp_path / "runs"] if words[0] == "train" else [])),
            "config.json",
        )
    assert not (tmp_path / "runs").exists()


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


def test_a_bad_row_of_prompts_or_responses(run, tmp_path, tiny_folder):
    data = lines_file(tmp_path / "data.jsonl", [{"male": "He", "female": "She"}, '{"male": "He'])
    given = ["--model_path", tiny_folder, "--train_data", data, "--output_dir", tmp_path / "runs"]
    assert_refused(run("train", *given, *QUICK), "line 2")
    assert not (tmp_path / "runs").exists()
    kept = lines_file(tmp_path / "r.jsonl", [{"group": "male", "prompt": "He", "response_ids": [99999]}])
    assert_refused(run("measure", tiny_folder, "--responses_in", kept, *QUICK), "99999")


def test_a_column_that_is_not_there(run, tiny_folder, tiny_file):
    result = run("measure", tiny_folder, "--train_data", tiny_file, "--text_column", "story")
    assert_refused(result, "'story'")
    assert "male" in result[2]


def test_a_split_that_is_not_there(run, tiny_folder, tiny_file):
    result = run("measure", tiny_folder, "--train_data", tiny_file, "--split", "dev")
    assert_refused(result, "'dev'")
    assert "validation" in result[2]


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
    assert Path("/dev/full").is_char_device()  # written to, not replaced by a file


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
