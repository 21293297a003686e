"""Python users get the checks of the command line."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import pytest
from transformers import TrainingArguments

from isentropic.errors import InputError
from isentropic.settings import LossSettings, TrainSettings
from isentropic.training.config import DebiasingConfig
from isentropic.training.trainer import DebiasingTrainer
from tiny import make_model, make_prompts, make_tokenizer


def config(**changes: Any) -> DebiasingConfig:
    return DebiasingConfig(output_dir="never/made", use_cpu=True, **changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"micro_batch_size": 3}, "effective_batch is 64, not a multiple of 3"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"micro_batch_size": 2.0}, "micro_batch_size is 2.0; it must be a whole number"),
        ({"effective_batch": 7}, "not a multiple of 2"),
        ({"effective_batch": "64"}, "effective_batch is '64'; it must be a number"),
        ({"loss": "GEE"}, "loss is 'GEE'; it must be one of debiasing, gee"),
        ({"gap_over": "effective"}, "one of effective_batch, micro_batch"),
        ({"estimator": "pair"}, "one of plain, unbiased, pairwise"),
        ({"responses": "both"}, "responses is 'both'; it must be one of shared, own"),
        ({"estimator": "unbiased", "use_l1": True}, "only a square has an unbiased estimate"),
        ({"learning_rate": -1e-5}, "learning_rate is -1e-05; it must be a number above 0"),
        ({"learning_rate": "1e-5"}, "learning_rate is '1e-5'; it must be a number"),
        ({"target_gap": math.nan}, "target_gap is nan"),
        ({"target_gap": True}, "target_gap is True; it must be a number"),
        ({"max_kl": 0}, "max_kl is 0; it must be a number above 0"),
        ({"num_responses": 1.5}, "num_responses is 1.5; it must be a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens is None; it must be a number"),
        ({"adam_beta1": 1.0}, "adam_beta1 is 1.0; it must be a number from 0 to below 1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"max_grad_norm": math.inf}, "max_grad_norm is inf"),
        ({"chunk_mb": 0}, "chunk_mb is 0"),
        ({"steady": "no"}, "steady is 'no'; it must be true or false"),
        ({"seed": -1}, "seed is -1"),
        ({"stop_margin": 1.5}, "a run that stops outside the target has not met it"),
        ({"refresh_responses": -1}, "refresh_responses is -1"),
        ({"chat_template_kwargs": "[1]"}, "chat_template_kwargs is '[1]'"),
    ],
)
def test_a_value_that_cannot_work_is_refused(changes, words):
    with pytest.raises(InputError) as caught:
        config(**changes)
    (line,) = str(caught.value).splitlines()
    assert words in line and "--" not in line


def test_all_faults_come_at_once():
    with pytest.raises(InputError) as caught:
        config(loss="L2", scale_factor=-1, micro_batch_size=1)
    assert len(str(caught.value).splitlines()) == 3


def test_what_the_number_of_groups_decides_is_refused_by_the_trainer():
    """Batches of three suit three groups, and only the data says how many there are."""
    args = config(micro_batch_size=3, effective_batch=63)
    with pytest.raises(InputError, match="micro_batch_size is 3; pairs are never split.*give 4"):
        DebiasingTrainer(make_model(), args, make_prompts(), processing_class=make_tokenizer())


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": -1, "num_train_epochs": 2},
        {"lr_scheduler_type": "cosine_with_restarts"},
        {"warmup_steps": 0.1},
        {"eval_strategy": "no", "eval_steps": None},
        {"gradient_checkpointing": True},
        {"micro_batch_size": 6, "effective_batch": 12},
    ],
)
def test_what_transformers_takes_is_taken(changes):
    made = config(**changes)
    assert all(getattr(made, name) == value for name, value in changes.items())


def test_defaults_are_those_of_the_command_line():
    """But for those that another word says in Python."""
    made, flags = config(), TrainSettings()
    names = {f.name for f in dataclasses.fields(LossSettings)} | {"seed", "eval_steps"}
    names -= {"bf16", "chat", "gradient_checkpointing", "chunk_mb"}
    assert {name: getattr(made, name) for name in names} == {name: getattr(flags, name) for name in names}
    assert made.chunk_mb > 0 and made.bf16 in (True, False) and not made.gradient_checkpointing


def test_the_batch_does_not_grow_with_the_gpus_of_the_machine(monkeypatch):
    """transformers would cut it over all of them by DataParallel, each as large as one was to be."""
    alone = TrainingArguments._setup_devices.func

    def of_two(self):
        device, self._n_gpu = alone(self), 2
        return device

    several = cached_property(of_two)
    several.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", several)
    made = config(per_device_train_batch_size=3)
    assert made.train_batch_size == 3 and made.parallel_mode.value == "not_parallel"
