"""Settings: every fault is named with its value, all of them at once; presets; defaults of the guide."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from isentropic.errors import InputError
from isentropic.settings import PRESETS, MeasureSettings, TrainSettings, apply_preset


def faults(settings, **world) -> list[str]:
    with pytest.raises(InputError) as caught:
        settings.check(**world)
    return str(caught.value).splitlines()


def test_defaults_are_the_guides_and_have_no_fault():
    settings = TrainSettings()
    settings.check()
    MeasureSettings().check()
    assert (settings.target_gap, settings.scale_factor, settings.use_l1) == (0.01, 1.0, False)
    assert (settings.learning_rate, settings.micro_batch_size) == (1e-5, 2)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    ["target_gap", "learning_rate", "max_steps", "scale_factor", "max_new_tokens", "num_responses", "max_kl"],
)
def test_what_must_be_above_zero(name, value):
    (line,) = faults(TrainSettings(**{name: value}))
    assert line.startswith(f"--{name} is {value};") and "above 0" in line


@pytest.mark.parametrize(
    "name", ["sample_temp", "lambda_weight", "save_steps", "warmup_steps", "seed", "lora_r"]
)
def test_what_must_not_be_negative(name):
    TrainSettings(**{name: 0}).check()
    for value in (-1, math.nan):
        (line,) = faults(TrainSettings(**{name: value}))
        assert line.startswith(f"--{name} is {value};")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("adam_beta1", (0.0, 0.9), (1.0, -0.1, math.nan)),
        ("adam_beta2", (0.0, 0.999), (1.0, 2.0, math.nan)),
        ("stop_margin", (0.1, 1.0), (1.01, math.inf)),
    ],
)
def test_what_must_be_a_share(name, good, bad):
    for value in good:
        TrainSettings(**{name: value}).check()
    for value in bad:
        (line,) = faults(TrainSettings(**{name: value}))
        assert line.startswith(f"--{name} is {value};")


@pytest.mark.parametrize(
    ("micro", "effective", "groups", "processes", "words"),
    [
        (0, 64, 2, 1, "--micro_batch_size is 0;"),
        (1, 64, 2, 1, "--micro_batch_size is 1;"),
        (-2, 64, 2, 1, "--micro_batch_size is -2;"),
        (2, 64, 3, 1, "give 3 or more"),
        (3, 63, 2, 1, "give 4"),
        (8, 4, 2, 1, "--effective_batch 4;"),
        (8, 60, 2, 1, "give 56 or 64"),
        (4, 4, 2, 2, "on each of 2 processes"),
        (4, 20, 2, 2, "give 16 or 24"),
        (2, 0, 2, 1, "--effective_batch is 0; every step needs"),
    ],
)
def test_batches_that_do_not_fit(micro, effective, groups, processes, words):
    settings = TrainSettings(micro_batch_size=micro, effective_batch=effective)
    (line,) = faults(settings, groups=groups, world_size=processes)
    assert words in line


@pytest.mark.parametrize(
    ("micro", "effective", "groups", "processes"), [(2, 2, 2, 1), (3, 6, 3, 1), (4, 16, 2, 4), (64, 64, 2, 1)]
)
def test_batches_that_fit(micro, effective, groups, processes):
    TrainSettings(micro_batch_size=micro, effective_batch=effective).check(groups, processes)


@pytest.mark.parametrize(("steps", "batch"), [(10**20, 64), (20, 2**60), (10**5, 10**5)])
def test_more_prompts_than_can_be_drawn_are_refused(steps, batch):
    (line,) = faults(TrainSettings(max_steps=steps, effective_batch=batch))
    assert str(steps) in line and str(batch) in line
    TrainSettings(max_steps=10**5, effective_batch=512).check()


NO_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "/tmp/x",
    "../x",
    "a\\b",
    "a..b",
    "a\0b",
    "a\nb",
    "a\x1b[2J",
    "a\u2028b",
    "a\x85",
]


@pytest.mark.parametrize("name", [*NO_NAMES, "\udcff", "\ud83d", "n" * 256, "偏" * 86])
def test_run_names_that_are_no_name_of_a_folder(name):
    (line,) = faults(TrainSettings(run_name=name))
    assert line.startswith("--run_name is ") and line.isprintable()


@pytest.mark.parametrize(
    "given", [{"merge_lora": True}, {"lora_alpha": 8}, {"lora_target_modules": "q_proj"}]
)
def test_flags_of_an_adapter_need_one(given):
    with pytest.raises(InputError, match=f"--{next(iter(given))} without --lora_r"):
        TrainSettings(**given).check()
    TrainSettings(lora_r=4, **given).check()


def test_flags_that_exclude_each_other():
    assert "--resume with --overwrite" in faults(TrainSettings(resume=True, overwrite=True))[0]
    assert (
        "--use_test_data with --train_data x.csv"
        in faults(TrainSettings(use_test_data=True, train_data="x.csv"))[0]
    )
    assert "--use_l1" in faults(TrainSettings(estimator="unbiased", use_l1=True))[0]
    assert "one pair" in faults(TrainSettings(estimator="unbiased", micro_batch_size=2, effective_batch=2))[0]


@pytest.mark.parametrize("name", ["max_pairs", "test_pairs", "validation_pairs"])
def test_fewer_than_two_pairs(name):
    TrainSettings(**{name: 2}).check()
    for value in (1, 0, -3):
        (line,) = faults(TrainSettings(**{name: value}))
        assert line.startswith(f"--{name} is {value};")


def test_all_faults_come_at_once():
    lines = faults(
        TrainSettings(target_gap=-1, learning_rate=math.nan, micro_batch_size=1, run_name="..", max_pairs=1)
    )
    assert len(lines) == 5
    assert all(line.count(";") >= 2 for line in lines)  # what, why, what to do


def test_faults_of_measure():
    assert "--pairs is 1" in faults(MeasureSettings(pairs=1))[0]
    assert len(faults(MeasureSettings(target_gap=0, seed=-1, sample_temp=math.nan))) == 3


# --- Presets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_settings_without_fault_and_change_something(name):
    settings = TrainSettings(**apply_preset({"preset": name}))
    settings.check()
    assert all(getattr(settings, key) == value for key, value in PRESETS[name].items())
    assert any(getattr(TrainSettings(), key) != value for key, value in PRESETS[name].items())


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="'brave'.*conservative"):
        apply_preset({"preset": "brave"})


# --- Help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [TrainSettings, MeasureSettings])
def test_every_setting_has_help_and_a_choice_among_its_choices(settings):
    assert all(f.metadata["help"] for f in fields(settings))
    for f in fields(settings):
        choices = f.metadata.get("choices")
        assert choices is None or f.default is None or f.default in choices
