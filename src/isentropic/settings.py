"""Every setting once: name, default and help. The command line, the trainer and config files read it from here.

Nothing here imports torch, so ``--help`` is instant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from isentropic.errors import InputError

PRESETS: dict[str, dict[str, Any]] = {
    # The guide's "conservative" and "aggressive" settings.
    "conservative": {"learning_rate": 5e-6, "target_gap": 0.005},
    "aggressive": {"learning_rate": 2e-5, "target_gap": 0.02},
    # The way of the guide's public ancestor: unmatched prompts, own responses drawn anew for every step, and the
    # square of each micro-batch's gap. Here for comparison.
    "ancestor": {
        "matched": False,
        "responses": "own",
        "refresh_responses": 1,
        "gap_over": "micro_batch",
        "steady": False,
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "micro_batch_size": 2,
        "effective_batch": 4,
    },
}


def option(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field that knows its ``--help`` text; ``extra`` may hold choices, section or metavar."""
    return field(default=default, metadata={"help": help, **extra})


@dataclass
class LossSettings:
    """What is minimised, and on which responses."""

    target_gap: float = option(0.01, "the gap to reach on held-out prompts, in nats", section="stop")
    stop_margin: float = option(
        0.5,
        "stop once the validation gap is within this share of the target; 1 stops at its very edge",
        section="stop",
    )
    loss: str = option("debiasing", "the loss", choices=("debiasing", "gee"), section="loss")
    use_l1: bool = option(False, "absolute gap (L1) in place of its square (L2)", section="loss")
    scale_factor: float = option(1.0, "factor of the loss", section="loss")
    lambda_weight: float = option(3.0, "weight of the squared gap in the GEE loss", section="loss")
    estimator: str = option(
        "plain",
        "how the squared gap is estimated: the guide's square, an unbiased estimate of it, or the mean over pairs",
        choices=("plain", "unbiased", "pairwise"),
        section="loss",
    )
    gap_over: str = option(
        "effective_batch",
        "the batch whose gap enters the loss; micro_batch squares each micro-batch's gap as the guide's ancestor did",
        choices=("effective_batch", "micro_batch"),
        section="loss",
    )
    steady: bool = option(
        True,
        "scale the gradient with the held-out gap, moved on by the batch (a control variate), not with a batch's own gap",
        section="loss",
    )
    responses: str = option(
        "shared",
        "score the twins of a pair on the same responses (shared) or each prompt on its own (own)",
        choices=("shared", "own"),
        section="responses",
    )
    num_responses: int = option(1, "responses sampled from each training prompt", section="responses")
    sample_temp: float = option(1.0, "sampling temperature of the responses", section="responses")
    max_new_tokens: int = option(12, "longest response, in tokens", section="responses")
    refresh_responses: int = option(
        0,
        "sample the training responses anew every N steps; 0 samples them once before training",
        section="responses",
    )
    matched: bool = option(True, "keep twins together in a batch; off draws the groups apart", section="data")
    micro_batch_size: int = option(
        2, "prompts that go through the model at once; the loss does not depend on it", section="steps"
    )
    effective_batch: int = option(64, "prompts of an optimizer step, over all processes", section="steps")
    max_kl: float = option(
        0.05, "stop when the KL to the base on neutral text passes this many nats a token", section="stop"
    )


@dataclass
class TrainSettings(LossSettings):
    """The settings of ``isentropic train``."""

    model_path: str = option(
        "smollm2-135m", "folder, hub id, .gguf file or the embedded default", section="model"
    )
    run_name: str = option("pure_debiasing", "name of the run's folder", section="run")
    output_dir: str = option("runs", "where run folders are made", section="run")
    max_steps: int = option(20, "most optimizer steps", section="steps")
    learning_rate: float = option(1e-5, "learning rate at the first step", section="steps")
    lr_scheduler_type: str = option(
        "linear",
        "how the learning rate falls",
        choices=("linear", "cosine", "polynomial", "inverse_sqrt", "constant", "constant_with_warmup"),
        section="steps",
    )
    warmup_steps: int = option(0, "steps of rising learning rate", section="steps")
    adam_beta1: float = option(0.0, "momentum of AdamW; 0.9 overshoots the target", section="steps")
    adam_beta2: float = option(0.999, "memory of AdamW's second moment", section="steps")
    weight_decay: float = option(0.0, "weight decay of AdamW", section="steps")
    max_grad_norm: float = option(1.0, "clip the gradient to this norm", section="steps")
    gradient_checkpointing: bool = option(
        False, "save memory by computing activations twice", section="steps"
    )
    seed: int = option(42, "seed of sampling, order and initialisation", section="run")
    log_steps: int = option(1, "steps between monitor lines", section="run")
    eval_steps: int = option(2, "steps between held-out measurements", section="stop")
    save_steps: int = option(25, "steps between checkpoints that resume; 0 keeps none", section="run")
    bf16: str = option(
        "auto",
        "bfloat16 in the body of the model: auto uses it where the machine is fast at it",
        choices=("auto", "on", "off"),
        section="steps",
    )
    train_data: str | None = option(
        None,
        "JSONL, CSV or Parquet file, or a hub data set id; the built-in prompts otherwise",
        section="data",
    )
    use_test_data: bool = option(
        False, "use the built-in prompts (the default where no --train_data is given)", section="data"
    )
    text_column: str | None = option(None, "column that holds the prompt", section="data")
    group_column: str | None = option(
        None, "column that holds the group; two, as in gender,age, give intersections", section="data"
    )
    groups: str | None = option(
        None, "groups to compare, by comma; all that the prompts have otherwise", section="data"
    )
    male_column: str = option("male", "column with the male twin", section="data")
    female_column: str = option("female", "column with the female twin", section="data")
    swap: bool = option(False, "make each prompt's twin with the swap engine", section="data")
    max_pairs: int | None = option(None, "use at most this many training pairs", section="data")
    test_pairs: int | None = option(None, "use at most this many test pairs", section="data")
    validation_pairs: int | None = option(None, "use at most this many validation pairs", section="data")
    chat: bool | None = option(
        None,
        "put prompts through the tokenizer's chat template; where not said, if there is one and most prompts end as "
        "sentences do",
        section="responses",
    )
    system: str | None = option(None, "system message of the chat", section="responses")
    chat_template_kwargs: str | None = option(
        None,
        "what else the chat template is told, as a JSON object; thinking is off where the template knows of it",
        section="responses",
    )
    preset: str | None = option(None, "a set of settings by name", choices=tuple(PRESETS), section="run")
    lora_r: int = option(0, "rank of a LoRA adapter; 0 trains all weights", section="model")
    lora_alpha: int = option(0, "alpha of the LoRA adapter; 0 takes twice the rank", section="model")
    lora_target_modules: str | None = option(
        None, "modules the adapter goes to, by comma; all linear layers otherwise", section="model"
    )
    load_in_4bit: bool = option(
        False, "4-bit base weights (QLoRA; needs a GPU and bitsandbytes)", section="model"
    )
    merge_lora: bool = option(False, "save the model with the adapter merged in as well", section="model")
    trust_remote_code: bool = option(False, "run code that comes with the model", section="model")
    report_to: str = option(
        "none", "where metrics go: none, tensorboard, wandb or trackio, several by comma", section="run"
    )
    chunk_mb: float | None = option(
        None, "memory for logits, in MB; 32 on a CPU and 1024 on a GPU where not given", section="steps"
    )
    resume: bool = option(False, "go on from the run's last checkpoint", section="run")
    overwrite: bool = option(False, "delete the run's folder if it exists", section="run")
    force: bool = option(
        False, "train even where the held-out gap is within the target already", section="stop"
    )
    text_file: str | None = option(None, "text whose perplexity is measured before and after", section="run")
    lang: str = option("en", "language of the report", choices=("en", "zh"), section="run")

    def check(self, groups: int | None = 2, world_size: int = 1) -> None:
        """Refuse what cannot work, all of it in one message of one line a fault.

        Args:
            groups: how many groups the data has; ``None`` where it has not been read yet.
            world_size: how many processes share the effective batch.
        """
        faults = [*self.number_faults(), *self.batch_faults(groups, world_size), *self.name_faults()]
        faults += template_faults(self.chat_template_kwargs)
        if faults:
            raise InputError("\n".join(faults))

    def number_faults(self) -> list[str]:
        positive: tuple[str, ...] = (
            "target_gap",
            "learning_rate",
            "max_steps",
            "scale_factor",
            "max_new_tokens",
            "num_responses",
        )
        positive += ("eval_steps", "log_steps", "max_kl", "chunk_mb", "stop_margin")
        zero_or_more: tuple[str, ...] = (
            "sample_temp",
            "lambda_weight",
            "refresh_responses",
            "save_steps",
            "warmup_steps",
            "seed",
        )
        zero_or_more += ("weight_decay", "lora_r", "max_grad_norm")
        faults = number_faults(self, positive, zero_or_more)
        helps = help_texts(type(self))
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(
                    f"--{name} is {getattr(self, name)}; it is to be a number from 0 to below 1 ({helps[name]}); change it"
                )
        if self.seed >= 2**32:
            faults.append(
                f"--seed is {self.seed}; NumPy's global generator takes no more than 32 bits; give a number below "
                f"{2**32}"
            )
        if 1 < self.stop_margin < math.inf:
            faults.append(
                f"--stop_margin is {self.stop_margin}; a run that stops outside the target has not met it; give 1 or less"
            )
        for name in ("max_pairs", "test_pairs", "validation_pairs"):
            value = getattr(self, name)
            if value is not None and value < 2:
                faults.append(f"--{name} is {value}; fewer than two pairs have no interval; give 2 or more")
        return faults

    def batch_faults(self, groups: int | None, world_size: int) -> list[str]:
        micro, effective, least = self.micro_batch_size, self.effective_batch, groups or 2
        if micro < least:
            return [
                f"--micro_batch_size is {micro}; every batch needs a prompt of each of the {least} groups, or there "
                f"is no gap; give {least} or more"
            ]
        if groups and micro % groups:
            return [
                f"--micro_batch_size is {micro}; pairs are never split, so it is a multiple of the {groups} groups; "
                f"give {micro + groups - micro % groups}"
            ]
        if effective < least:
            return [
                f"--effective_batch is {effective}; every step needs a prompt of each of the {least} groups; give "
                f"{least} or more"
            ]
        if micro * world_size > effective:
            across = f" on each of {world_size} processes" if world_size > 1 else ""
            return [
                f"--micro_batch_size is {micro}{across} and --effective_batch {effective}; a micro-batch is a part of "
                f"the batch; give a micro-batch of at most {effective // world_size}, or a larger effective batch"
            ]
        if effective % (micro * world_size):
            part = micro * world_size
            return [
                f"--effective_batch is {effective}, no multiple of {part} (--micro_batch_size {micro} times "
                f"{world_size} process{'es' if world_size > 1 else ''}); the last micro-batch would be short; give "
                f"{effective - effective % part} or {effective - effective % part + part}"
            ]
        whole = self.gap_over == "effective_batch"
        if (
            self.loss == "debiasing"
            and self.estimator == "unbiased"
            and (effective if whole else micro) < 2 * least
        ):
            return [
                f"--estimator unbiased with one pair in {'the' if whole else 'each micro-'}batch; it multiplies the "
                f"differences of different pairs; give --{'effective_batch' if whole else 'micro_batch_size'} "
                f"{2 * least} or more"
            ]
        return []

    def name_faults(self) -> list[str]:
        name = self.run_name
        if name in ("", ".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or ".." in name:
            return [
                f"--run_name is {name!r}; it names one folder in {self.output_dir!r}, and nothing may be written "
                f"outside it; use letters, digits, '-' and '_'"
            ]
        if self.loss == "debiasing" and self.estimator == "unbiased" and self.use_l1:
            return [
                "--estimator unbiased with --use_l1; only a square has an unbiased estimate; drop one of the two"
            ]
        if self.resume and self.overwrite:
            return [
                "--resume with --overwrite; one goes on with the run and the other deletes it; give one of them"
            ]
        if self.use_test_data and self.train_data:
            return [
                f"--use_test_data with --train_data {self.train_data}; the first names the built-in prompts; give one "
                f"of them"
            ]
        return []


@dataclass
class MeasureSettings:
    """The settings of ``isentropic measure`` and ``isentropic compare``."""

    train_data: str | None = option(
        None,
        "JSONL, CSV or Parquet file, or a hub data set id; the built-in prompts otherwise",
        section="data",
    )
    split: str = option("test", "the split to measure; all takes every prompt", section="data")
    text_column: str | None = option(None, "column that holds the prompt", section="data")
    group_column: str | None = option(
        None, "column that holds the group; two, as in gender,age, give intersections", section="data"
    )
    groups: str | None = option(
        None, "groups to compare, by comma; all that the prompts have otherwise", section="data"
    )
    male_column: str = option("male", "column with the male twin", section="data")
    female_column: str = option("female", "column with the female twin", section="data")
    swap: bool = option(False, "make each prompt's twin with the swap engine", section="data")
    pairs: int | None = option(None, "use at most this many pairs", section="data")
    responses: str = option(
        "shared",
        "score twins on the same responses (shared, with the own ones shown beside it) or each prompt on its own (own)",
        choices=("shared", "own", "both"),
        section="responses",
    )
    responses_in: str | None = option(
        None, "score the responses of this JSONL file; nothing is generated", section="responses"
    )
    responses_out: str | None = option(
        None, "write prompts, responses and entropies to this JSONL", section="responses"
    )
    num_responses: int = option(1, "responses sampled from each prompt", section="responses")
    sample_temp: float = option(1.0, "sampling temperature of the responses", section="responses")
    max_new_tokens: int = option(12, "longest response, in tokens", section="responses")
    chat: bool | None = option(
        None,
        "put prompts through the tokenizer's chat template; where not said, if there is one and most prompts end as "
        "sentences do",
        section="responses",
    )
    system: str | None = option(None, "system message of the chat", section="responses")
    chat_template_kwargs: str | None = option(
        None,
        "what else the chat template is told, as a JSON object; thinking is off where the template knows of it",
        section="responses",
    )
    target_gap: float = option(0.01, "what the verdict is about, in nats", section="stop")
    noise_floor: bool = option(True, "measure the noise floor too", section="stop")
    text_file: str | None = option(None, "UTF-8 text whose perplexity is measured", section="run")
    json: str | None = option(None, "write the summary to this file; - prints it", section="run")
    html: str | None = option(None, "write the report to this file", section="run")
    lang: str = option("en", "language of the report", choices=("en", "zh"), section="run")
    seed: int = option(0, "seed of sampling", section="run")
    bf16: str = option(
        "auto",
        "bfloat16 in the body of the model: auto uses it where the machine is fast at it",
        choices=("auto", "on", "off"),
        section="run",
    )
    trust_remote_code: bool = option(False, "run code that comes with the model", section="model")

    def check(self) -> None:
        """Refuse numbers that cannot work, all in one message of one line a fault."""
        faults = number_faults(
            self, ("target_gap", "max_new_tokens", "num_responses"), ("sample_temp", "seed")
        )
        if self.pairs is not None and self.pairs < 2:
            faults.append(f"--pairs is {self.pairs}; fewer than two pairs have no interval; give 2 or more")
        faults += template_faults(self.chat_template_kwargs)
        if faults:
            raise InputError("\n".join(faults))


def number_faults(settings: Any, positive: tuple[str, ...], zero_or_more: tuple[str, ...]) -> list[str]:
    """One line for each number that is not finite, not above 0, or below 0."""
    helps = help_texts(type(settings))
    faults = []
    for name in positive + zero_or_more:
        value = getattr(settings, name)
        if value is None:  # left to the machine
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and name in positive):
            words = "above 0" if name in positive else "of 0 or more"
            faults.append(f"--{name} is {value}; it is to be a number {words} ({helps[name]}); change it")
    return faults


def template_faults(text: str | None) -> list[str]:
    """Why the arguments of the chat template cannot be used, if so."""
    try:
        if text is None or isinstance(json.loads(text), dict):
            return []
    except (ValueError, RecursionError):
        pass
    return [
        f"--chat_template_kwargs is {text!r}, which is no JSON object; the chat template takes names with values; write "
        f"it as '{{\"enable_thinking\": true}}'"
    ]


def split_names(text: str) -> list[str]:
    """Names given by comma.

    Example:
        >>> split_names("male, female")
        ['male', 'female']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def reading_of(settings: Any) -> dict[str, Any]:
    """How prompts are to be read, as ``load_prompts`` takes it."""
    names = ("text_column", "group_column", "male_column", "female_column", "seed")
    groups = split_names(settings.groups) if settings.groups else None
    return {name: getattr(settings, name) for name in names} | {"groups": groups}


def help_texts(settings: type) -> dict[str, str]:
    """Name -> help of every setting."""
    return {f.name: f.metadata["help"] for f in fields(settings)}


def apply_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings a user gave on top of those of the preset they named.

    Example:
        >>> apply_preset({"preset": "conservative", "target_gap": 0.008})["target_gap"]
        0.008
    """
    preset = given.get("preset")
    if preset is None:
        return dict(given)
    if preset not in PRESETS:
        raise InputError(
            f"--preset is {preset!r}; there is no such preset; choose one of {', '.join(PRESETS)}"
        )
    return {**PRESETS[preset], **given}
