"""``isentropic train``: measure, train, measure again on the same held-out pairs, and write it all into a run folder."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object, parse_flag_from_env
from torch import Tensor

from isentropic.commands.report import write_report
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.files import write_json, write_jsonl
from isentropic.labels import gap_line
from isentropic.measure.compare import comparison
from isentropic.measure.cost import answers_of, perplexity, text_tokens
from isentropic.measure.measurement import Measurement, measure, response_rows
from isentropic.measure.summary import versions
from isentropic.models.identity import model_sha256
from isentropic.models.load import load_model
from isentropic.models.model import LoadedModel, context_length, quiet_transformers, vocabulary_size
from isentropic.models.save import save_model
from isentropic.models.sharding import gathered
from isentropic.prompts.load import load_prompts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.prompts.swap.swap import swapper
from isentropic.report.render import model_card
from isentropic.responses.encode import chat_line, encode_prompts, follows_chat
from isentropic.responses.sample import ResponseSampler
from isentropic.run_folder import (
    FINISHED,
    check_folder,
    check_same_run,
    last_checkpoint,
    limited,
    prepare_folder,
    read_run,
)
from isentropic.schema import Summary
from isentropic.settings import TrainSettings, reading_of, split_names
from isentropic.training.adapter import add_adapter, check_trainable
from isentropic.training.callbacks import (
    BEST_WEIGHTS,
    BestCheckpoint,
    FiniteGuard,
    InterruptStop,
    Monitor,
    NotFiniteError,
    TargetGapStop,
)
from isentropic.training.trainer import DebiasingConfig, DebiasingTrainer

SHARDING_FLAGS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Set by accelerate where it spreads the state of training over processes."""
LOGIT_BYTES = 14
"""The most that one logit takes on its way to an entropy: bfloat16, float32, and two float32 working copies."""


def train(settings: TrainSettings, screen: Screen | None = None) -> dict[str, Any]:
    """Run ``isentropic train``: returns what ``result.json`` holds.

    Raises:
        InputError: settings, data or model that cannot work; nothing is overwritten then.
    """
    clock = Clock()
    rank, world_size = process_of()
    screen = screen or Screen(quiet=rank > 0)
    load = cache(
        lambda: load_model(
            settings.model_path,
            trust_remote_code=settings.trust_remote_code,
            load_in_4bit=settings.load_in_4bit,
        )
    )
    prompts = load_data(settings, load)
    settings.check(groups=len(prompts.groups), world_size=world_size)
    folder = Path(settings.output_dir) / settings.run_name
    if rank == 0:
        check_folder(folder, settings)
    trackers_of(settings)  # refuses one that is not installed before a model is loaded
    parts = splits_of(prompts, settings)

    for note in prompts.notes:
        screen.say(f"   {note}")
    screen.say(prompts.ratio_line())
    sizes = ", ".join(f"{name} {count_pairs(part)}" for name, part in parts.items())
    screen.say(f"pairs: {sizes}" if prompts.paired else f"prompts: {sizes}")
    # Before the trainer's configuration: ZeRO-3 would make it shard the weights while they load, and no untrained model
    # would be left to sample responses from.
    loaded = load()
    config = trainer_settings(settings, folder)
    clock.mark("load")
    if settings.chat is None:
        settings = dataclasses.replace(settings, chat=follows_chat(prompts.prompts, loaded.tokenizer))
    config.chat = bool(settings.chat)
    screen.say(chat_line(loaded.tokenizer, config.sampling()))
    parameters = sum(p.numel() for p in loaded.model.parameters())
    check_model(settings, config, parts, loaded)
    check_processes(config, prompts, loaded)
    if settings.resume and rank == 0:
        check_same_run(folder, prompts, loaded)
    screen.say(f"model: {loaded.name}, {parameters / 1e6:.0f} M parameters")

    if lora := lora_of(settings):
        loaded = dataclasses.replace(loaded, model=add_adapter(loaded.model, lora, settings.seed))

    # All that can be refused has been; from here on the run folder is ours to write.
    if rank == 0:
        prepare_folder(folder, settings, parameters)
        write_json(folder / "config.json", config_of(settings, prompts, loaded))
    run = Run(settings, screen, config, parts, loaded, folder, clock, rank == 0)
    with screen.live(), quiet_transformers():
        result = run.go()
    leave_together()
    return result


class Run:
    """One run, from the measurement before to the report."""

    def __init__(
        self,
        settings: TrainSettings,
        screen: Screen,
        config: DebiasingConfig,
        parts: dict[str, PromptSet],
        loaded: LoadedModel,
        folder: Path,
        clock: Clock,
        writes: bool,
    ) -> None:
        self.settings, self.screen, self.config, self.parts, self.loaded = (
            settings,
            screen,
            config,
            parts,
            loaded,
        )
        self.folder, self.clock, self.writes = folder, clock, writes
        self.stop = TargetGapStop(settings.stop_margin * settings.target_gap, settings.max_kl)
        self.best = BestCheckpoint(folder / "checkpoints", settings.max_kl)
        self.interrupt = InterruptStop()
        self.trainer = self.make_trainer()
        self.bf16 = bool(self.trainer.args.bf16)

    def go(self) -> dict[str, Any]:
        screen, settings = self.screen, self.settings
        before = self.measure_test(self.loaded)
        if self.writes:
            self.write_measurement("gap_before.json", before)
        self.clock.mark("before")
        screen.say(f"before  {gap_line(before.summary, settings.lang)}")
        self.trainer.prepare()
        base = self.cost_of(self.loaded)
        self.clock.mark("responses")
        reason = self.learn()
        self.clock.mark("training")
        if reason == "interrupted":
            screen.say(f"stopped at step {self.trainer.state.global_step}; a checkpoint is kept. Go on with:")
            screen.say(f"  {command_of(settings, resume=True)}")
            return self.write_result(reason, before.summary, None)
        result = self.finish(reason, before, base)
        self.say_end(result)
        return result

    def make_trainer(self) -> DebiasingTrainer:
        settings = self.settings
        self.monitor = Monitor(
            self.folder,
            settings.target_gap,
            say=self.screen.say,
            advance=lambda step: self.screen.bar("training", settings.max_steps)(step, settings.max_steps),
            title=settings.run_name,
        )
        return DebiasingTrainer(
            model=self.loaded,
            args=self.config,
            train_dataset=self.parts["train"],
            eval_dataset=self.parts["validation"],
            callbacks=[self.monitor, self.best, self.stop, FiniteGuard(), self.interrupt],
            progress=lambda stage: self.screen.bar(stage),
        )

    def measure_test(self, loaded: LoadedModel, items: list | None = None) -> Measurement:
        """The gap on the test prompts, which neither training nor stopping ever sees."""
        stage = "test responses and entropies before" if items is None else "test entropies after"
        return measure(
            dataclasses.replace(loaded, model=self.trainer.model),
            self.parts["test"],
            sampling=self.trainer.args.sampling(num_responses=1, offset=4),
            responses=self.settings.responses,
            target_gap=self.settings.target_gap,
            bf16=self.bf16,
            items=items,
            scorer=self.trainer.scorer,
            split="test",
            progress=self.screen.bar(stage),
        )

    def learn(self) -> str:
        """Train until a reason to stop; returns it."""
        trainer, settings = self.trainer, self.settings
        checkpoint = last_checkpoint(self.folder) if settings.resume else None
        if settings.resume and checkpoint is None:
            self.screen.say("   no checkpoint was saved; starting from the first step")
        if checkpoint is None:
            self.monitor.rows, self.best.facts = [], {}
            start = trainer.evaluate()
            if abs(start["eval_gap"]) <= settings.target_gap and not settings.force:
                self.screen.say(
                    f"the held-out gap {abs(start['eval_gap']):.4f} is within the target {settings.target_gap} before "
                    f"the first step: the model is left unchanged (--force trains all the same)"
                )
                return "already_within"
            self.stop.reason = "max_steps"
        with self.on_interrupt():
            try:
                trainer.train(resume_from_checkpoint=checkpoint)
                # transformers measures after the last step too, but not in every version.
                last = [row["step"] for row in trainer.state.log_history if "eval_gap" in row][-1:]
                if not self.interrupt.stopped and last != [trainer.state.global_step]:
                    trainer.evaluate()
            except NotFiniteError as error:
                self.screen.say(f"{error}; stopped, and the best weights so far are kept")
                return "not_finite"
            except RuntimeError as error:
                if not lost_process(error):
                    raise
                raise InputError(
                    "another process of this run has died; no step can be made without it; look for what it said, then "
                    "start the run again with --resume, which goes on from the last checkpoint"
                ) from error
        # A run that had met its target or its last step is finished, whoever asked it to stop meanwhile.
        interrupted = self.interrupt.stopped and self.stop.reason == "max_steps"
        return "interrupted" if interrupted else self.stop.reason

    def finish(self, reason: str, before: Measurement, base: dict[str, Any]) -> dict[str, Any]:
        """Take the best weights, measure the test prompts a second time, compare, save, report."""
        trainer, settings = self.trainer, self.settings
        trainer.model.zero_grad(set_to_none=True)
        trainer.accelerator.free_memory()
        trainer.optimizer = None  # its moments are twice the weights, and nothing trains any more
        if reason != "already_within":
            trainer.accelerator.wait_for_everyone()  # the first process may still be writing them
            self.best.restore(trainer.model)
            trainer.accelerator.wait_for_everyone()
        final = dataclasses.replace(
            self.loaded, model=trainer.model, name="final", sha256=model_sha256(trainer.model)
        )
        after = self.measure_test(final, before.items)
        assert trainer.neutral is not None
        costs = [
            {"kl": 0.0, "kl_ci95": [0.0, 0.0], **base},
            {**trainer.neutral.kl_to(trainer.model), **self.cost_of(final)},
        ]
        state = gathered(trainer.model, keep=self.writes)
        if not self.writes:  # every process takes part in the measuring, one writes it down
            return {}
        self.write_measurement("gap_after.json", after)
        names = ["base", "final"]
        write_json(self.folder / "comparison.json", comparison(names, [before, after], costs))
        self.write_responses(before, after)
        self.clock.mark("after")
        self.screen.say(f"after   {gap_line(after.summary, settings.lang)}")
        self.save_final(state)
        self.clock.mark("saving")
        result = self.write_result(reason, before.summary, after.summary)
        write_report(self.folder, settings.lang)
        (self.folder / "final" / "README.md").write_text(model_card(read_run(self.folder)), encoding="utf-8")
        # What resumes an unfinished run is of no use to a finished one.
        shutil.rmtree(self.folder / "checkpoints" / BEST_WEIGHTS, ignore_errors=True)
        return result

    def cost_of(self, loaded: LoadedModel) -> dict[str, Any]:
        """What the model's own answers to neutral prompts look like, and the perplexity of the text file if one is given."""
        args, file = self.trainer.args, self.settings.text_file
        sampler = ResponseSampler(
            self.trainer.model,
            loaded.tokenizer,
            args.sampling(num_responses=1, offset=2),
            model_sha256=loaded.sha256,
            bf16=self.bf16,
        )
        return {
            **answers_of(sampler),
            "perplexity": perplexity(loaded, file, bf16=self.bf16) if file else None,
        }

    def save_final(self, state: dict[str, Tensor] | None) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        save_model(model, self.loaded.tokenizer, self.folder / "final", state)
        if self.settings.lora_r and self.settings.merge_lora:
            merged = model.merge_and_unload()
            save_model(merged, self.loaded.tokenizer, self.folder / "final" / "merged")

    # --- Writing ----------------------------------------------------------------------------------------------------

    def write_measurement(self, name: str, measurement: Measurement) -> None:
        write_json(self.folder / name, measurement.summary)

    def write_responses(self, before: Measurement, after: Measurement) -> None:
        rows = response_rows(before, self.loaded.tokenizer, split="test")
        for row, value in zip(rows, np.concatenate(after.entropies), strict=True):
            row["entropy_after"] = float(value)
        write_jsonl(self.folder / "responses.jsonl", rows)

    def write_result(self, reason: str, before: Summary, after: Summary | None) -> dict[str, Any]:
        result = {
            "stopped": reason,
            "best_step": self.best.facts.get("step", 0),
            "steps": self.trainer.state.global_step,
            "seconds": self.clock.seconds,
            "advice": advice(self.settings, self.monitor.rows, reason),
            "label_before": before["label"],
            "label_after": after["label"] if after else None,
        }
        if self.writes:
            write_json(self.folder / FINISHED, result)
        return result

    def say_end(self, result: dict[str, Any]) -> None:
        if not self.writes:
            return
        say, folder = self.screen.say, self.folder
        seconds = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in result["seconds"].items())
        say(
            f"stopped: {result['stopped']} after {result['steps']} steps; best held-out step {result['best_step']}"
            + ("" if result["best_step"] else ": the model is as it was before training")
        )
        say(f"time: {seconds}")
        for line in result["advice"]:
            say(f"advice: {line[self.settings.lang]}")
        say(f"report: {folder / 'report.html'}   model: {folder / 'final'}   curves: {folder / 'curves.png'}")

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C asks for a checkpoint after this step; a second one breaks off at once."""

        def handler(number: int, frame: Any) -> None:
            self.interrupt.asked = True
            self.screen.say("Ctrl-C: finishing this step and saving a checkpoint (again breaks off at once)")
            signal.signal(signal.SIGINT, signal.default_int_handler)

        try:
            kept = signal.signal(signal.SIGINT, handler)
        except ValueError:  # not in the main thread, as in a notebook's worker: Ctrl-C then does what it did
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, kept)


# --- Settings and data ----------------------------------------------------------------------------------------------


def load_data(settings: TrainSettings, load: Callable[[], LoadedModel]) -> PromptSet:
    """The prompts that the settings name; ``load`` gives the model to a swap."""
    swap = swapper(load) if settings.swap else False
    return load_prompts(settings.train_data, swap=swap, **reading_of(settings))


def splits_of(prompts: PromptSet, settings: TrainSettings) -> dict[str, PromptSet]:
    """Training, validation and test prompts, cut to the sizes asked for."""
    most = {
        "train": settings.max_pairs,
        "validation": settings.validation_pairs,
        "test": settings.test_pairs,
    }
    parts = {name: limited(prompts.split(name), count) for name, count in most.items()}
    for name, part in parts.items():
        check_split(part, name, prompts.groups)
    return parts


def check_model(
    settings: TrainSettings, config: DebiasingConfig, parts: dict[str, PromptSet], loaded: LoadedModel
) -> None:
    """Refuse what this model cannot do, before anything is written."""
    for part in parts.values():
        limits = context_length(loaded.model), vocabulary_size(loaded.model)
        encode_prompts(part.prompts, loaded.tokenizer, config.sampling(), *limits)
    check_trainable(loaded.model, settings.lora_r > 0, settings.gradient_checkpointing)
    needed = LOGIT_BYTES * vocabulary_size(loaded.model) / 2**20
    assert config.chunk_mb is not None
    if config.chunk_mb < needed:
        raise InputError(
            f"--chunk_mb is {config.chunk_mb:g}; one row of this model's logits needs {needed:.2g} MB; give as much "
            f"or more"
        )
    if settings.lora_r and (Path(settings.model_path) / "adapter_config.json").is_file():
        raise InputError(
            f"--lora_r with --model_path {settings.model_path!r}, an adapter itself; the new adapter would be saved "
            f"without the old one below it; give the merged model (--merge_lora saves it), or leave --lora_r out"
        )
    if settings.merge_lora and config.world_size > 1 and any(map(parse_flag_from_env, SHARDING_FLAGS)):
        raise InputError(
            "--merge_lora with weights that are sharded over processes; an adapter cannot be merged into parts; leave it "
            "out and merge final/ afterwards in one process"
        )
    if settings.lora_r and settings.lora_target_modules:
        linear = {n for n, m in loaded.model.named_modules() if hasattr(m, "weight") and m.weight.dim() == 2}
        for name in split_names(settings.lora_target_modules):
            if not any(module == name or module.endswith(f".{name}") for module in linear):
                there = ", ".join(sorted({module.rsplit(".", 1)[-1] for module in linear}))
                raise InputError(
                    f"--lora_target_modules names {name!r}, which this model does not have; the adapter would go "
                    f"nowhere; choose among {there}"
                )
    if settings.text_file:
        text_tokens(loaded, settings.text_file)


def check_processes(config: DebiasingConfig, prompts: PromptSet, loaded: LoadedModel) -> None:
    """All processes of a run train the same model on the same prompts."""
    if config.world_size == 1:
        return
    for what, flag, mine in (
        ("prompts", "--train_data", prompts.sha256),
        ("weights", "--model_path", loaded.sha256),
    ):
        found = gather_object([mine])
        if len(set(found)) > 1:
            raise InputError(
                f"the {len(found)} processes have different {what} ({', '.join(sha[:8] for sha in found)}); each would "
                f"train towards something else; give every process the same {flag}"
            )


def leave_together() -> None:
    """Part the processes of a distributed run: each waits for the last, then gives up its connections.

    A process that ends with its connections open may be aborted while its threads are still at work on them.
    """
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def lost_process(error: RuntimeError) -> bool:
    """Whether the error says that a process at the other end of a line is gone."""
    import torch.distributed as distributed

    return distributed.is_available() and (
        isinstance(error, distributed.DistBackendError | distributed.DistNetworkError)
        or "peer" in str(error)
        and "gloo" in str(error)
    )


def check_split(part: PromptSet, name: str, groups: Sequence[str]) -> None:
    """Each split needs each group, twice: once is no interval."""
    counts = part.counts()
    for group in groups:
        if counts.get(group, 0) < 2:
            raise InputError(
                f"the {name} split of {part.name!r} has {counts.get(group, 0)} prompts of group {group!r}; a gap with "
                f"an interval needs two at least; give more rows, or a column 'split'"
            )


def count_pairs(prompts: PromptSet) -> int:
    return len(prompts.tuples()) if prompts.paired else len(prompts)


def trainer_settings(settings: TrainSettings, folder: Path) -> DebiasingConfig:
    """The trainer's configuration: every setting both know by name, and the few that go by another name there."""
    own = {f.name for f in dataclasses.fields(DebiasingConfig)}
    shared = {name: value for name, value in asdict(settings).items() if name in own}
    if not settings.gradient_checkpointing:
        del shared["gradient_checkpointing"]
    save = settings.save_steps > 0
    return DebiasingConfig(
        **shared
        | {
            "output_dir": str(folder / "checkpoints"),
            "logging_steps": settings.log_steps,
            "save_strategy": "steps" if save else "no",
            "save_steps": settings.save_steps if save else 500,
            "save_total_limit": 1,
            "bf16": {"auto": None, "on": True, "off": False}[settings.bf16],
            "report_to": trackers_of(settings),
            "run_name": settings.run_name,
            "logging_nan_inf_filter": False,
        }
    )


def trackers_of(settings: TrainSettings) -> list[str]:
    """The trackers asked for; each must be installed."""
    from transformers.integrations import get_available_reporting_integrations

    names = [name for name in split_names(settings.report_to) if name != "none"]
    there = get_available_reporting_integrations()
    for name in names:
        if name not in there:
            raise InputError(
                f"--report_to names {name!r}, which is not installed here; its metrics would go nowhere; pip install "
                f"'isentropic[{name}]' or use none"
            )
    return names


def lora_of(settings: TrainSettings) -> Any:
    if not settings.lora_r:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError(
            "--lora_r needs the package peft, which is not installed; pip install 'isentropic[lora]'"
        ) from error
    modules = settings.lora_target_modules
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_r,
        lora_dropout=0.0,
        target_modules=split_names(modules) if modules else "all-linear",
        task_type="CAUSAL_LM",
    )


def process_of() -> tuple[int, int]:
    """Rank and number of processes, as the launcher tells them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


# --- What is written ------------------------------------------------------------------------------------------------


def config_of(settings: TrainSettings, prompts: PromptSet, loaded: LoadedModel) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(settings).items() if name not in ("resume", "overwrite")}
    return {
        "schema": "isentropic.config/1",
        **kept,
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        "data": prompts.name,
        "data_sha256": prompts.sha256,
        "groups": ",".join(prompts.groups),
        "notes": list(prompts.notes),
        "versions": versions(),
        "command": command_of(settings),
    }


def command_of(settings: TrainSettings, *, resume: bool = False) -> str:
    """The command line that makes this run."""
    words = ["isentropic", "train"]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("resume", "overwrite", "preset") or value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{field.name}" if value else f"--no-{field.name}")
        else:
            words += [f"--{field.name}", str(value)]
    return shlex.join(words + (["--resume"] if resume else []))


def advice(settings: TrainSettings, rows: Sequence[dict[str, Any]], reason: str) -> list[dict[str, str]]:
    """The guide's troubleshooting, said by the tool where it applies, in English and Chinese."""
    held_out = [abs(row["val_gap"]) for row in rows if "val_gap" in row]
    lower, higher = settings.learning_rate / 2, 2 * settings.learning_rate
    batch = settings.effective_batch
    lines = []

    def say(en: str, zh: str) -> None:
        lines.append({"en": en, "zh": zh})

    if reason == "not_finite":
        say(
            f"the loss left the numbers: lower --learning_rate to {settings.learning_rate / 10:g}",
            f"损失不再是有限数：把 --learning_rate 降到 {settings.learning_rate / 10:g}",
        )
    if reason == "max_kl":
        say(
            f"the model moved too far from its base: lower --learning_rate to {lower:g}, or raise --max_kl above "
            f"{settings.max_kl:g} if that is what you want",
            f"模型离基础模型太远：把 --learning_rate 降到 {lower:g}；若本意如此，把 --max_kl 提到 {settings.max_kl:g} 以上",
        )
    if reason == "max_steps" and len(held_out) > 1:
        if min(held_out) > 0.5 * held_out[0]:
            say(
                f"the gap fell too slowly: raise --scale_factor to {2 * settings.scale_factor:g} (L1 and GEE) or "
                f"--learning_rate to {higher:g}, or give more --max_steps",
                f"熵差下降太慢：把 --scale_factor 提到 {2 * settings.scale_factor:g}（L1 与 GEE），或把 --learning_rate "
                f"提到 {higher:g}，或增加 --max_steps",
            )
        elif held_out[-1] > 2 * min(held_out):
            say(
                f"the gap swings around zero: lower --learning_rate to {lower:g}, or raise --effective_batch to "
                f"{2 * batch}",
                f"熵差在零附近摆动：把 --learning_rate 降到 {lower:g}，或把 --effective_batch 提到 {2 * batch}",
            )
    training = [row["gap_signed"] for row in rows if row.get("gap_signed") is not None]
    flips = sum(a * b < 0 for a, b in zip(training, training[1:], strict=False))
    if len(training) >= 4 and flips > len(training) / 2:
        say(
            f"the gap of a batch changed sign {flips} times in {len(training)} steps: a batch of {batch} prompts is too "
            f"small to tell its sign; raise --effective_batch",
            f"{len(training)} 步里批次熵差变号 {flips} 次：{batch} 条提示的批次太小，定不了符号；请增大 --effective_batch",
        )
    return lines


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def mark(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self.last, 2)
        self.last = now
