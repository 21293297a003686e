"""Every setting once: name, default and help. The command line,
the trainer and config files read it from here.

Nothing here imports torch, so ``--help`` is instant.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from isentropic.errors import InputError
from isentropic.text import short, visible

PRESETS: dict[str, dict[str, Any]] = {
    # The guide's "conservative" and "aggressive" settings.
    "conservative": {"learning_rate": 5e-6, "target_gap": 0.005},
    "aggressive": {"learning_rate": 2e-5, "target_gap": 0.02},
    # The method of the public predecessor: unmatched prompts, own responses sampled again for every step, and
    # the square of each micro-batch's gap. For comparison only.
    "ancestor": {
        "matched": False,
        "responses": "own",
        "refresh_responses": 1,
        "gap_over": "micro_batch",
        "steady": False,
        "hold": "none",
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "micro_batch_size": 2,
        "effective_batch": 4,
    },
}


def option(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field that knows its ``--help`` text.

    Args:
        default: the value where nothing is given.
        help: the text of ``--help``.
        extra: ``section``, ``choices`` or ``metavar`` of the flag; ``must_be``, one of :data:`RANGES`, with
            the reason in ``because``; ``after``, the flag behind which ``--help`` lists it.
    """
    return field(default=default, metadata={"help": help, **extra})


def changed(settings: type, name: str, default: Any, **extra: Any) -> Any:
    """The same option with another default, or another part of its metadata."""
    known = next(f for f in fields(settings) if f.name == name)
    return field(default=default, metadata={**known.metadata, **extra})


RANGES: dict[str, Callable[[Any], bool]] = {
    "a number above 0": lambda value: value > 0,
    "a number of 0 or more": lambda value: value >= 0,
    "a number from 0 to below 1": lambda value: 0 <= value < 1,
    "a number above 0, at most 1": lambda value: 0 < value <= 1,
    "2 or more": lambda value: value >= 2,
    "0, or 2 or more": lambda value: value == 0 or value >= 2,
    "a number from 0 to below 2^32": lambda value: 0 <= value < 2**32,
}
ABOVE_0, NOT_NEGATIVE, SHARE, TWO_OR_MORE = (
    {"must_be": words}
    for words in ("a number above 0", "a number of 0 or more", "a number from 0 to below 1", "2 or more")
)
SEED = {
    "must_be": "a number from 0 to below 2^32",
    "because": "NumPy's global generator accepts at most 32 bits",
}
FEWER_THAN_TWO = {**TWO_OR_MORE, "because": "fewer than two pairs have no interval"}


TASKS = "arc_easy,piqa,lambada_openai"
"""What `ability` asks by default."""
SERVED_DTYPES = ("float32", "bfloat16", "float16", "int8")
"""What a saved model can be loaded in for ``--also_measure``; int8 by bitsandbytes."""
MOST_PROMPTS = 10**8
"""Most prompts over all steps of a training."""


@dataclass
class SamplingSettings:
    """How responses are drawn, and from what."""

    responses: str = option(
        "shared",
        "score the twins of a pair on the same responses (shared) or each prompt on its own (own)",
        choices=("shared", "own"),
        section="responses",
    )
    num_responses: int = option(
        1, "responses sampled from each training prompt", section="responses", **ABOVE_0
    )
    sample_temp: float = option(
        1.0, "sampling temperature of the responses", section="responses", **NOT_NEGATIVE
    )
    max_new_tokens: int = option(12, "longest response, in tokens", section="responses", **ABOVE_0)
    chat: bool | None = option(
        None,
        "apply the tokenizer's chat template to prompts; by default if there is one and most prompts are "
        "complete sentences",
        section="responses",
    )
    system: str | None = option(None, "system message of the chat", section="responses")
    chat_template_kwargs: str | None = option(
        None,
        "more options for the chat template, as a JSON object; thinking is off unless asked for",
        section="responses",
    )

    def faults(self) -> list[str]:
        """A line for each setting that cannot work."""
        return value_faults(self) + template_faults(self.chat_template_kwargs)


@dataclass
class DataSettings:
    """Which prompts, and how they are read."""

    train_data: str | None = option(
        None,
        "JSONL, JSON, CSV, TSV or Parquet file, hub data set id, or built-in prompts by name (gender, "
        "gender_neutral, names, age); by default gender",
        section="data",
    )
    text_column: str | None = option(None, "column that holds the prompt", section="data")
    group_column: str | None = option(
        None, "column that holds the group; two, as in gender,age, give intersections", section="data"
    )
    groups: str | None = option(
        None,
        "groups to compare, separated by commas: some of a built-in set's, values of the group column, or "
        "columns of one group each; all by default",
        section="data",
    )
    male_column: str = option("male", "column with the male twin", section="data")
    female_column: str = option("female", "column with the female twin", section="data")
    swap: bool = option(False, "make each prompt's twin with the swap engine", section="data")


@dataclass
class CommandSettings:
    """What every command that runs a model asks."""

    trust_remote_code: bool = option(False, "run code that comes with the model", section="model")
    text_file: str | None = option(None, "UTF-8 text whose perplexity is measured", section="run")
    lang: str = option(
        "en", "language of the report and of labels on the screen", choices=("en", "zh"), section="run"
    )
    gate: bool = option(
        False,
        "let the verdict be the exit code: 0 certified, 3 exceeds, 4 insufficient or none",
        section="verdict",
    )


@dataclass
class LossSettings(SamplingSettings):
    """What is minimised, on which responses, and by which steps.
    The command line and :class:`DebiasingConfig` share it."""

    target_gap: float = option(
        0.01, "the gap to reach on held-out prompts, in nats", section="stop", **ABOVE_0
    )
    stop_margin: float = option(
        0.5,
        "stop once the validation gap is within this share of the target; 1 stops at its very edge",
        section="stop",
        must_be="a number above 0, at most 1",
        because="a run that stops outside the target has not met it",
    )
    close: str = option(
        "entropy",
        "which gap is closed: that of the entropies, as in the guide (entropy), or which group the model "
        "expects after neutral contexts, in the mean square over contexts (expectation)",
        choices=("entropy", "expectation"),
        section="loss",
    )
    loss: str = option("debiasing", "the loss", choices=("debiasing", "gee"), section="loss")
    use_l1: bool = option(False, "absolute gap (L1) instead of its square (L2)", section="loss")
    scale_factor: float = option(1.0, "factor of the loss", section="loss", **ABOVE_0)
    lambda_weight: float = option(
        3.0, "weight of the squared gap in the GEE loss", section="loss", **NOT_NEGATIVE
    )
    estimator: str = option(
        "plain",
        "how the squared gap is estimated: the guide's square, an unbiased estimate of it, or the mean over "
        "pairs",
        choices=("plain", "unbiased", "pairwise"),
        section="loss",
    )
    gap_over: str = option(
        "effective_batch",
        "the batch whose gap enters the loss; micro_batch squares each micro-batch's gap as the public "
        "predecessor of the method does",
        choices=("effective_batch", "micro_batch"),
        section="loss",
    )
    steady: bool = option(
        True,
        "scale the gradient with the held-out gap, updated by the batch (a control variate), instead of the "
        "batch's own gap",
        section="loss",
    )
    hold: str = option(
        "expectation",
        "what a step must not move: which group the model expects (expectation; with --close expectation the "
        "entropy gap), or nothing, as in the guide (none)",
        choices=("expectation", "none"),
        section="loss",
    )
    hold_contexts: str | None = option(
        None,
        "JSONL of neutral contexts, each with the words of every group that may follow it; held (or closed) "
        "in place of the built-in ones",
        section="loss",
        metavar="FILE",
    )
    refresh_responses: int = option(
        0,
        "sample the training responses again every N steps; 0 samples them once before training",
        section="responses",
        after="max_new_tokens",
        **NOT_NEGATIVE,
    )
    matched: bool = option(
        True,
        "keep twins together in a batch; off draws each group by itself",
        section="data",
    )
    micro_batch_size: int = option(
        2, "prompts that go through the model at once; the loss does not depend on it", section="steps"
    )
    effective_batch: int = option(64, "prompts of an optimizer step, over all processes", section="steps")
    max_steps: int = option(20, "largest number of optimizer steps", section="steps", **ABOVE_0)
    max_kl: float = option(
        0.05,
        "stop when the KL to the base on neutral text passes this many nats per token",
        section="stop",
        **ABOVE_0,
    )
    learning_rate: float = option(1e-5, "learning rate at the first step", section="steps", **ABOVE_0)
    lr_scheduler_type: str = option(
        "linear",
        "how the learning rate falls",
        choices=("linear", "cosine", "polynomial", "inverse_sqrt", "constant", "constant_with_warmup"),
        section="steps",
    )
    warmup_steps: int = option(0, "steps of rising learning rate", section="steps", **NOT_NEGATIVE)
    adam_beta1: float = option(0.0, "momentum of AdamW; 0.9 overshoots the target", section="steps", **SHARE)
    adam_beta2: float = option(0.999, "memory of AdamW's second moment", section="steps", **SHARE)
    natural: bool = option(
        False,
        "steps of natural length in place of AdamW: each halves the gap of its batch, without learning rate, "
        "schedule, clipping or moments (8 bytes less for each weight)",
        section="steps",
    )
    weight_decay: float = option(0.0, "weight decay of AdamW", section="steps", **NOT_NEGATIVE)
    max_grad_norm: float = option(1.0, "clip the gradient to this norm", section="steps", **NOT_NEGATIVE)
    gradient_checkpointing: bool = option(
        False, "save memory by computing activations twice", section="steps"
    )
    bf16: str = option(
        "auto",
        "bfloat16 in the body of the model: auto uses it where the machine is fast at it",
        choices=("auto", "on", "off"),
        section="steps",
    )
    chunk_mb: float | None = option(
        None,
        "memory for logits, in MB; by default 32 on a CPU and 1024 on a GPU",
        section="steps",
        **ABOVE_0,
    )

    def check(self, groups: int | None = 2, world_size: int = 1) -> None:
        """Refuse what cannot work, all of it in one message of one line a fault.

        Args:
            groups: how many groups the data has; ``None`` where it has not been read yet.
            world_size: how many processes share the effective batch.
        """
        faults = [*self.faults(), *self.batch_faults(groups, world_size)]
        if faults:
            raise InputError("\n".join(faults))

    def faults(self) -> list[str]:
        """A line for each setting that cannot work."""
        faults = super().faults()
        if self.loss == "debiasing" and self.estimator == "unbiased" and self.use_l1:
            faults.append(
                "--estimator unbiased with --use_l1; only a square has an unbiased estimate; drop one of the "
                "two"
            )
        ways = (self.close, self.loss, self.estimator, self.gap_over)
        if self.natural and ways != ("entropy", "debiasing", "plain", "effective_batch"):
            faults.append(
                f"--natural with {' '.join(ways)}; the length of a step follows from a loss that is 0 where "
                "the gap is; drop --natural, or --close, --loss, --estimator and --gap_over"
            )
        if self.close == "expectation" and (
            self.loss == "gee" or self.estimator == "unbiased" or self.refresh_responses
        ):
            faults.append(
                f"--close expectation with --loss {self.loss} --estimator {self.estimator} "
                f"--refresh_responses {self.refresh_responses}; its loss is the mean square over contexts, "
                "which have no responses to sample; drop the other flags"
            )
        if self.hold == "none" and self.hold_contexts and self.close == "entropy":
            faults.append(
                "--hold_contexts with --hold none; nothing would be held on them; drop one of the two"
            )
        sizes = self.max_steps, self.effective_batch
        if all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] > MOST_PROMPTS:
            faults.append(
                f"--max_steps {sizes[0]} times --effective_batch {sizes[1]} is more than {MOST_PROMPTS:.0e} "
                "prompts; their order is drawn before the first step, and that would not end; give fewer"
            )
        return faults

    def batch_faults(self, groups: int | None, world_size: int) -> list[str]:
        """Why batches of these sizes cannot work, or nothing."""
        micro, effective, least = self.micro_batch_size, self.effective_batch, groups or 2
        if not isinstance(micro, int) or not isinstance(
            effective, int
        ):  # named among the faults of the values
            return []
        if micro < least:
            return [
                f"--micro_batch_size is {micro}; every batch needs a prompt of each of the {least} groups, "
                f"or there is no gap; give {least} or more"
            ]
        if groups and micro % groups:
            return [
                f"--micro_batch_size is {micro}; pairs are never split, so it is a multiple of the {groups} "
                f"groups; give {micro + groups - micro % groups}"
            ]
        if effective < least:
            return [
                f"--effective_batch is {effective}; every step needs a prompt of each of the {least} groups; "
                f"give {least} or more"
            ]
        if micro * world_size > effective:
            across = f" on each of {world_size} processes" if world_size > 1 else ""
            return [
                f"--micro_batch_size is {micro}{across} and --effective_batch {effective}; a micro-batch is "
                f"a part of the batch; give a micro-batch of at most {effective // world_size}, or a larger "
                "effective batch"
            ]
        if effective % (micro * world_size):
            part = micro * world_size
            return [
                f"--effective_batch is {effective}, not a multiple of {part} (--micro_batch_size {micro} "
                f"times {world_size} process{'es' if world_size > 1 else ''}); the last micro-batch would be "
                f"short; give {effective - effective % part} or {effective - effective % part + part}"
            ]
        whole = self.gap_over == "effective_batch"
        if (
            self.loss == "debiasing"
            and self.estimator == "unbiased"
            and (effective if whole else micro) < 2 * least
        ):
            return [
                f"--estimator unbiased with one pair in {'the' if whole else 'each micro-'}batch; it "
                "multiplies the differences of different pairs; give "
                f"--{'effective_batch' if whole else 'micro_batch_size'} {2 * least} or more"
            ]
        return []


@dataclass
class RunSettings:
    """What ``isentropic train`` asks alone: the model, the run folder and when to do what."""

    model_path: str = option(
        "smollm2-135m", "folder, hub id, .gguf file or the embedded default", section="model"
    )
    run_name: str = option("pure_debiasing", "name of the run's folder", section="run")
    output_dir: str = option("runs", "folder in which run folders are created", section="run")
    seed: int = option(42, "seed of sampling, order and initialisation", section="run", **SEED)
    log_steps: int = option(1, "steps between monitor lines", section="run", **ABOVE_0)
    eval_steps: int = option(2, "steps between held-out measurements", section="stop", **ABOVE_0)
    save_steps: int = option(
        25, "steps between checkpoints to resume from; 0 keeps none", section="run", **NOT_NEGATIVE
    )
    until_decided: int = option(
        0,
        "while the verdict after training is insufficient, measure further test pairs, up to this many in "
        "all; the chance of a wrong verdict stays at 5% over all looks; 0 looks once",
        section="stop",
        **NOT_NEGATIVE,
    )
    use_test_data: bool = option(
        False,
        "use the built-in prompts (the default without --train_data)",
        section="data",
        after="train_data",
    )
    max_pairs: int | None = option(
        None, "use at most this many training pairs", section="data", **FEWER_THAN_TWO
    )
    test_pairs: int | None = option(
        None, "use at most this many test pairs", section="data", **FEWER_THAN_TWO
    )
    validation_pairs: int | None = option(
        None, "use at most this many validation pairs", section="data", **FEWER_THAN_TWO
    )
    other_pairs: int | None = option(
        None,
        "pairs of each other built-in set (names, age, ...) that are measured before and after training too, "
        "to see whether another gap opened; 0 measures none; by default 12, and 0 with your own prompts",
        section="data",
        must_be="0, or 2 or more",
        because="fewer than two pairs have no interval",
    )
    preset: str | None = option(None, "a set of settings by name", choices=tuple(PRESETS), section="run")
    lora_r: int = option(0, "rank of a LoRA adapter; 0 trains all weights", section="model", **NOT_NEGATIVE)
    lora_alpha: int = option(
        0, "alpha of the LoRA adapter; 0 takes twice the rank", section="model", **NOT_NEGATIVE
    )
    lora_target_modules: str | None = option(
        None,
        "modules that get the adapter, separated by commas; by default all linear layers",
        section="model",
    )
    load_in_4bit: bool = option(
        False, "4-bit base weights (QLoRA; needs a GPU and bitsandbytes)", section="model"
    )
    save_dtype: str = option(
        "auto",
        "dtype of the saved weights, rounded up or down by chance, which keeps small changes on average; "
        "auto takes the checkpoint's own",
        choices=("auto", "float32", "bfloat16", "float16"),
        section="model",
    )
    also_measure: str | None = option(
        None,
        "dtypes in which the saved model is loaded and measured too, with arithmetic in that dtype: float32, "
        "bfloat16, float16, int8 (needs bitsandbytes); several separated by commas",
        section="model",
    )
    merge_lora: bool = option(False, "save the model with the adapter merged in as well", section="model")
    behaviour: str | None = option(
        None,
        "folder with public tests of stereotypes (or hub): the model is scored on them before and after",
        section="run",
        metavar="DIR|hub",
    )
    report_to: str = option(
        "none",
        "where metrics go: none, tensorboard, wandb or trackio; several separated by commas",
        section="run",
    )
    resume: bool = option(False, "continue from the run's last checkpoint", section="run")
    overwrite: bool = option(False, "delete the run's folder if it exists", section="run")
    force: bool = option(False, "train even if the held-out gap is already within the target", section="stop")


@dataclass
class TrainSettings(CommandSettings, RunSettings, DataSettings, LossSettings):
    """The settings of ``isentropic train``."""

    text_file: str | None = changed(
        CommandSettings, "text_file", None, help="text whose perplexity is measured before and after"
    )

    def faults(self) -> list[str]:
        """A line for each setting that cannot work."""
        faults, name = super().faults(), self.run_name
        if name in ("", ".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or ".." in name:
            faults.append(
                f"--run_name is {name!r}; it names one folder in {self.output_dir!r}, and nothing may be "
                "written outside it; use letters, digits, '-' and '_'"
            )
        elif (
            visible(name) != name
            or len(name.encode(errors="replace")) > 255
            or re.search("[\n\ud800-\udfff]", name)
        ):
            faults.append(
                f"--run_name is {short(name)}; it names a folder, with up to 255 bytes and no line breaks; "
                "use letters, digits, '-' and '_'"
            )
        for dtype in split_names(self.also_measure or ""):
            if dtype not in SERVED_DTYPES:
                faults.append(
                    f"--also_measure names {short(dtype)}; the saved model can be measured in "
                    f"{', '.join(SERVED_DTYPES)}; choose from these"
                )
        adapter = [
            name
            for name, given in (
                ("lora_alpha", self.lora_alpha > 0),  # a negative one has its own line
                ("lora_target_modules", self.lora_target_modules),
                ("merge_lora", self.merge_lora),
            )
            if given
        ]
        if adapter and not self.lora_r:
            faults.append(
                f"--{' --'.join(adapter)} without --lora_r; there is no adapter, and all weights would be "
                "trained; give --lora_r, or drop the others"
            )
        if self.resume and self.overwrite:
            faults.append(
                "--resume with --overwrite; one continues the run and the other deletes it; give one of them"
            )
        most, first = self.until_decided, self.test_pairs or 2
        if isinstance(most, int) and isinstance(first, int) and 0 < most < first:
            faults.append(
                f"--until_decided is {most}, fewer than the {first} pairs of the first look (--test_pairs); "
                "no look would be left; give more pairs, or 0 to look once"
            )
        if self.use_test_data and self.train_data:
            faults.append(
                f"--use_test_data with --train_data {self.train_data}; the first means the built-in prompts; "
                "give one of them"
            )
        return faults


@dataclass
class MeasureSettings(CommandSettings, SamplingSettings, DataSettings):
    """The settings of ``isentropic measure`` and ``isentropic compare``."""

    split: str | None = option(
        None,
        "the split to measure: test (the default, but all with --responses_in), train, validation or all",
        section="data",
        after="train_data",
    )
    pairs: int | None = option(None, "use at most this many pairs", section="data", **FEWER_THAN_TWO)
    responses: str = changed(
        SamplingSettings,
        "responses",
        "shared",
        help="score twins on the same responses (shared, with the own ones shown beside it) or each prompt "
        "on its own (own)",
        choices=("shared", "own"),
        aliases={"both": "shared"},  # an earlier word for it
    )
    responses_in: str | None = option(
        None,
        "score the responses of this JSONL file; nothing is generated",
        section="responses",
        after="responses",
    )
    responses_out: str | None = option(
        None,
        "write prompts, responses and entropies to this JSONL",
        section="responses",
        after="responses_in",
    )
    num_responses: int = changed(
        SamplingSettings, "num_responses", 1, help="responses sampled from each prompt"
    )
    target_gap: float = option(0.01, "the target gap of the verdict, in nats", section="verdict", **ABOVE_0)
    noise_floor: bool = option(
        True, "measure too how large a gap chance alone shows (the noise floor)", section="verdict"
    )
    json: str | None = option(
        None, "write the summary to this file; - prints it", section="run", after="text_file"
    )
    html: str | None = option(None, "write the report to this file", section="run", after="json")
    seed: int = option(0, "seed of sampling", section="run", **SEED)
    bf16: str = changed(LossSettings, "bf16", "auto", section="run")

    def check(self) -> None:
        """Refuse what cannot work, all of it in one message of one line a fault."""
        if faults := self.faults():
            raise InputError("\n".join(faults))


@dataclass
class BehaviourSettings:
    """The settings of ``isentropic behaviour``."""

    benchmarks: str | None = option(
        None,
        "folder with the public test sets, or hub to fetch them from the Hugging Face hub",
        section="data",
        metavar="DIR|hub",
    )
    sets: str | None = option(
        None, "the sets to use, separated by commas; by default all that are there", section="data"
    )
    margin: float = option(
        0.05,
        "how small a change must certainly be, in nats, for the verdict 'not moved'",
        section="verdict",
        **ABOVE_0,
    )
    trust_remote_code: bool = changed(CommandSettings, "trust_remote_code", False)
    bf16: str = changed(LossSettings, "bf16", "auto", section="run")
    json: str | None = option(None, "write the result to this file; - prints it", section="run")
    html: str | None = option(None, "write the report to this file", section="run")
    lang: str = changed(CommandSettings, "lang", "en", help="language of the report")

    def check(self) -> None:
        """Refuse what cannot work, all of it in one message of one line a fault."""
        faults = value_faults(self)
        if self.benchmarks is None:
            faults.append(
                "--benchmarks is missing; the public test sets are not part of isentropic; give the folder "
                "that holds them, or hub to fetch them"
            )
        if faults:
            raise InputError("\n".join(faults))


def in_order(settings: type) -> list[Field]:
    """The settings as ``--help`` lists them: as they are declared,
    but those with ``after`` behind the one it names."""
    known = {f.name: f for f in fields(settings)}
    names: list[str] = []
    for f in known.values():
        place = names.index(f.metadata["after"]) + 1 if "after" in f.metadata else len(names)
        names.insert(place, f.name)
    return [known[name] for name in names]


def value_faults(settings: Any) -> list[str]:
    """One line for each setting whose value is of another type, no choice, or out of its range."""
    faults = []
    for f in fields(settings):
        value = getattr(settings, f.name)
        if "section" in f.metadata and (words := wanted(f, value)):
            shown = short(value)
            reason = f.metadata.get("because", f.metadata["help"])
            faults.append(f"--{f.name} is {shown}; it must be {words} ({reason}); change it")
    return faults


def wanted(setting: Field, value: Any) -> str | None:
    """What a setting must be where it is not."""
    kind, _, optional = str(setting.type).partition(" | ")
    if value is None and optional:
        return None
    if choices := setting.metadata.get("choices"):
        return None if value in choices else f"one of {', '.join(choices)}"
    if kind in ("bool", "str"):
        fits = isinstance(value, bool if kind == "bool" else str)
        return None if fits else {"bool": "true or false", "str": "text"}[kind]
    if not isinstance(value, Real) or isinstance(value, bool):
        return "a number"
    must_be = setting.metadata.get("must_be")
    if not math.isfinite(value) or (must_be and not RANGES[must_be](value)):
        return must_be or "a number"
    return "a whole number" if kind == "int" and not isinstance(value, Integral) else None


def template_faults(text: str | None) -> list[str]:
    """Why the arguments of the chat template cannot be used, if so."""
    try:
        if text is None or isinstance(json.loads(text), dict):
            return []
    except (ValueError, RecursionError):
        pass
    return [
        f"--chat_template_kwargs is {text!r}, which is not a JSON object; the chat template takes names with "
        f"values; write it as '{{\"enable_thinking\": true}}'"
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
    groups = split_names(settings.groups) if settings.groups is not None else None
    return {name: getattr(settings, name) for name in names} | {"groups": groups}


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
