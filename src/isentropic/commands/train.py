"""``isentropic train``: measure, train, measure again on the same held-out pairs,
and write it all into a run folder."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list

from isentropic.behaviour import PairedBehaviour, read_sets
from isentropic.commands.advice import advice
from isentropic.commands.checks import check_model, check_processes, launched_process, lora_of, trackers_of
from isentropic.commands.faults import gate
from isentropic.commands.measuring import Measuring, load_untrained
from isentropic.commands.report import write_report
from isentropic.commands.saving import Saving, dtype_to_save, dtype_warnings
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.files import file_sha256, read_json, write_json, write_jsonl, write_text
from isentropic.labels import (
    behaviour_lines,
    decision_line,
    expectation_change_lines,
    gap_line,
    other_set_line,
    served_line,
)
from isentropic.measure.compare import comparison, difference
from isentropic.measure.measurement import Measurement, response_rows
from isentropic.measure.other_sets import other_set_row, other_sets
from isentropic.measure.served import served_row
from isentropic.measure.summary import versions
from isentropic.models.identity import model_sha256
from isentropic.models.model import LoadedModel, changed_by_trainers, quiet_transformers
from isentropic.models.rounding import round_weights
from isentropic.models.sharding import gathered
from isentropic.prompts.builtin import BUILTIN
from isentropic.prompts.load import load_prompts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.prompts.swap.swap import swapper
from isentropic.report.render import model_card
from isentropic.responses.encode import chat_line, follows_chat
from isentropic.run_folder import (
    AFTER,
    BEFORE,
    BEHAVIOUR,
    CARD,
    CHECKPOINTS,
    COMPARISON,
    CONFIG,
    CONFIG_SCHEMA,
    CURVES,
    FINAL,
    REPORT_HTML,
    REPORT_MD,
    RESPONSES,
    RESULT,
    check_folder,
    check_same_run,
    clean,
    is_finished,
    locked,
    new_folder,
    note_resume,
    read_run,
    without_trace,
)
from isentropic.schema import OtherSet, Served, Stopped, Summary
from isentropic.settings import TrainSettings, reading_of
from isentropic.training.adapter import add_adapter
from isentropic.training.callbacks import (
    BestCheckpoint,
    FiniteGuard,
    InterruptStop,
    Monitor,
    NotFiniteError,
    TargetGapStop,
)
from isentropic.training.checkpoints import Point, forget_finished, forget_others, last_point, write_trained
from isentropic.training.trainer import DebiasingConfig, DebiasingTrainer

ROOM, ROOM_WITH_CHECKPOINTS = 8, 32
"""Bytes on the disk for each parameter: the best weights and the final ones;
or the best ones twice and, while a new one is written, two checkpoints of weights and the optimizer's two
moments."""
OTHER_PAIRS = 12
"""Pairs of each built-in set that a run on another one measures too."""
SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
"""Each asks for a checkpoint: Ctrl-C, a cluster that needs the machine, a terminal that was closed."""


def run_train(settings: TrainSettings) -> int:
    """Train; returns the exit code."""
    result = train(settings)
    if result.get("signal", "SIGINT") != "SIGINT":  # Ctrl-C is the user's own wish, and ends with 0
        return 128 + signal.Signals[result["signal"]]
    if result.get("stopped") != "not_finite":
        # The processes beside the first one have no result.
        return gate(result.get("verdict")) if settings.gate and result else 0
    # All is measured and saved as after any run, but a script must not take it for one that worked.
    sys.stderr.write(
        f"isentropic: error: the loss became NaN or infinite after step {result['steps']}; final/ has the "
        f"best weights before that, those of step {result['best_step']}; "
        + ("leave --natural out\n" if settings.natural else "lower --learning_rate\n")
    )
    return 1


def train(settings: TrainSettings, screen: Screen | None = None) -> dict[str, Any]:
    """Run ``isentropic train``: returns what ``result.json`` holds.

    Long because what a run needs is made ready here, in the order in which it may be refused.

    Raises:
        InputError: settings, data or model that cannot work; nothing is overwritten then.
    """
    clock = Clock()
    launched = launched_process()
    writes = launched[0] == 0
    screen = screen or Screen(quiet=not writes)
    folder = Path(settings.output_dir) / settings.run_name
    if settings.resume and is_finished(folder):
        return complete(folder, settings, screen) if writes else {}
    with ExitStack() as stack:
        if writes:
            check_folder(folder, settings)
        if settings.resume and writes:
            stack.enter_context(locked(folder))
        load = cache(partial(load_untrained, settings))
        prompts, parts = load_data(settings, load, screen, launched[1])
        public = PairedBehaviour(read_sets(settings.behaviour)) if settings.behaviour else None
        # Before the trainer's configuration: ZeRO-3 would make it shard the weights while they load, and no
        # untrained model would be left to sample responses from.
        loaded = load()
        config = trainer_settings(settings, folder)
        clock.mark("load")
        if settings.chat is None:
            settings = dataclasses.replace(settings, chat=follows_chat(prompts.prompts, loaded.tokenizer))
        config.chat = bool(settings.chat)
        screen.say(chat_line(loaded.tokenizer, config.sampling()))
        check_model(settings, config, parts, loaded)
        check_processes(config, prompts, loaded, launched)
        begun = config_of(settings, prompts, loaded)
        if settings.resume and writes:
            check_same_run(folder, begun)
        parameters = sum(p.numel() for p in loaded.model.parameters())
        screen.say(f"model: {loaded.name}, {parameters / 1e6:.0f} M parameters")
        for warning in begun["warnings"]:
            screen.say(f"   {warning}")
        if lora := lora_of(settings):
            loaded = dataclasses.replace(loaded, model=add_adapter(loaded.model, lora, settings.seed))
        with without_trace(folder):
            run = Run(
                settings,
                screen,
                config,
                parts=parts,
                loaded=loaded,
                further=prompts.split("test").first(max(settings.until_decided, parts["test"].per_group())),
                folder=folder,
                clock=clock,
                writes=writes,
                public=public,
            )

        # All checks have passed: from here on we write to the run folder.
        if writes and not settings.resume:
            room = parameters * ROOM_WITH_CHECKPOINTS if settings.save_steps else parameters * ROOM
            stack.enter_context(new_folder(folder, begun, room, overwrite=settings.overwrite))
        with screen.live(), quiet_transformers():
            result = run.go()
    leave_together()
    return result


def complete(folder: Path, settings: TrainSettings, screen: Screen) -> dict[str, Any]:
    """Give a finished run the report and the card that it lacks; refuse one that lacks nothing."""
    with locked(folder):
        result = read_json(folder / RESULT)
        lacking = [name for name in (REPORT_HTML, REPORT_MD, CARD) if not (folder / name).is_file()]
        clean(folder)
        forget_finished(
            folder / CHECKPOINTS, keep_checkpoints=read_json(folder / CONFIG).get("save_steps") != 0
        )
        if not lacking:
            raise InputError(
                f"run {str(folder)!r} is finished ({result['stopped']}); there is nothing to resume; give "
                "another --run_name"
            )
        write_report(folder, settings.lang)
    screen.say(f"run {str(folder)!r} is finished ({result['stopped']}); {', '.join(lacking)} written again")
    return result


class Run:
    """One run, from the measurement before to the report."""

    def __init__(
        self,
        settings: TrainSettings,
        screen: Screen,
        config: DebiasingConfig,
        *,
        parts: dict[str, PromptSet],
        loaded: LoadedModel,
        further: PromptSet,
        folder: Path,
        clock: Clock,
        writes: bool,
        public: PairedBehaviour | None = None,
    ) -> None:
        self.settings, self.screen, self.loaded = settings, screen, loaded
        self.folder, self.clock, self.writes, self.public = folder, clock, writes, public
        self.checkpoints = folder / CHECKPOINTS
        # The target is one of the entropy gap: a run that closes the expectation has none.
        stop_gap = settings.stop_margin * settings.target_gap if settings.close == "entropy" else None
        self.stop = TargetGapStop(stop_gap, settings.max_kl)
        self.best = BestCheckpoint(self.checkpoints, settings.max_kl)
        self.interrupt = InterruptStop()
        self.warnings: list[str] = []
        self.monitor = Monitor(
            folder,
            settings.target_gap if settings.close == "entropy" else None,
            say=screen.say,
            advance=lambda step: screen.bar("training", settings.max_steps)(step, settings.max_steps),
            title=settings.run_name,
        )
        self.own_configuration = changed_by_trainers(loaded.model)
        self.trainer = DebiasingTrainer(
            model=loaded,
            args=config,
            train_dataset=parts["train"],
            eval_dataset=parts["validation"],
            callbacks=[self.monitor, self.best, self.stop, FiniteGuard(), self.interrupt],
            progress=screen.bar,
        )
        self.measuring = Measuring(
            settings,
            screen,
            self.trainer,
            parts=parts,
            further=further,
            public=public,
            warn=self.warn,
        )
        self.sharded = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        self.save_dtype = dtype_to_save(settings, loaded)

    def go(self) -> dict[str, Any]:
        screen, settings = self.screen, self.settings
        point = self.point_to_resume() if settings.resume else None
        untrained = dataclasses.replace(self.loaded, model=self.trainer.model)
        before = self.measuring.measure_test(untrained)
        if self.writes:
            self.write_measurement(BEFORE, before)
        others = self.measuring.measure_others(untrained)
        self.measuring.score_public("base", untrained)
        self.clock.mark("before")
        screen.say(f"before  {gap_line(before.summary, settings.lang)}")
        self.trainer.prepare()
        screen.say(self.trainer.held)
        base = self.measuring.cost_of(untrained)
        self.clock.mark("responses")
        reason = self.learn(point)
        self.clock.mark("training")
        if reason == "interrupted":
            screen.say(
                f"stopped at step {self.trainer.state.global_step}; a checkpoint was saved. Continue with:"
            )
            screen.say(f"  {command_of(settings, resume=True)}")
            result = self.result(reason, before.summary, None)
            if self.writes:
                write_json(self.folder / RESULT, result)
            return result
        result = self.finish(reason, before, base, others)
        self.say_end(result)
        return result

    # --- Training -------------------------------------------------------------------------------------------

    def point_to_resume(self) -> Point | None:
        """Where the run continues; what was written after that point is deleted.
        None if it starts from the first step."""
        found: list[Any] = [None, []]
        if self.writes:
            clean(self.folder)
            found = list(last_point(self.checkpoints, self.settings.max_steps))
        if self.trainer.args.world_size > 1:
            found = broadcast_object_list(found)
        point, faults = found
        for fault in faults:
            self.screen.say(f"   {fault}")
        step = point.step if point else -1
        if self.settings.max_steps < step:
            raise InputError(
                f"--max_steps is {self.settings.max_steps} and run {str(self.folder)!r} has made {step} "
                f"steps; steps cannot be undone; give {step} or more"
            )
        if self.writes:
            forget_others(self.checkpoints, point)
            note_resume(self.folder, max(step, 0), asdict(self.settings))
        if point is None:
            self.screen.say("   no checkpoint to resume from; starting from the first step")
        return point

    def learn(self, point: Point | None) -> Stopped:
        """Train until a reason to stop; returns it."""
        trainer = self.trainer
        if point:
            self.best.facts = point.best
        if point and point.stopped:  # it was stopped while it measured or saved: nothing is left to train
            trainer.state.global_step = point.step
            if self.writes:
                self.monitor.go_back(point.step)
                self.monitor.draw()
            reason: Stopped = point.stopped
        elif point is None and self.within_target():
            reason = "already_within"
        else:
            reason = self.train_on(point.checkpoint if point else None)
        if self.writes and reason != "interrupted":
            write_trained(self.checkpoints, Point(trainer.state.global_step, reason, self.best.facts))
        return reason

    def within_target(self) -> bool:
        """Measure the held-out prompts before the first step: is there anything to train?"""
        if self.writes:
            self.monitor.go_back(-1)
        gap, target = abs(self.trainer.evaluate()["eval_gap"]), self.settings.target_gap
        self.stop.reason = "max_steps"
        if gap > target or self.settings.force or self.stop.stop_gap is None:
            return False
        self.screen.say(
            f"the held-out gap {gap:.4f} is within the target {target} before the first step: the model is "
            "left unchanged (use --force to train anyway)"
        )
        return True

    def train_on(self, checkpoint: Path | None) -> Stopped:
        trainer = self.trainer
        with self.on_signals():
            try:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
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
                    "another process of this run has died; training cannot continue without it; read its "
                    "error message, then start the run again with --resume, which continues from the last "
                    "checkpoint"
                ) from error
        # A run that has met its target is finished, whoever asked it to stop meanwhile.
        interrupted = self.interrupt.stopped and self.stop.reason == "max_steps"
        return "interrupted" if interrupted else self.stop.reason

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """The first signal asks for a checkpoint after this step; Ctrl-C behind it breaks off at once.

        Clusters and shells send their signals more than once: those do no more than the first.
        """
        terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        kept: dict[int, Any] = {}

        def restore(*numbers: int) -> None:
            for number in numbers:
                signal.signal(number, kept[number] if kept[number] is not None else signal.SIG_DFL)

        def asked(number: int, frame: Any) -> None:
            if self.interrupt.asked:
                return
            self.interrupt.asked = number
            restore(signal.SIGINT)
            if number == getattr(signal, "SIGHUP", None):
                for stream in terminals:  # they are gone, and to write to them would be an error
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            with suppress(OSError):
                self.screen.say(
                    f"{self.interrupt.name}: finishing this step and saving a checkpoint (Ctrl-C breaks off "
                    "at once)"
                )

        try:
            for number in SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
                    kept[number] = signal.signal(number, asked)
        except ValueError:  # not in the main thread, as in a notebook's worker: signals then do what they did
            yield
            return
        try:
            yield
        finally:
            restore(*kept)

    # --- After training -------------------------------------------------------------------------------------

    def finish(
        self, reason: Stopped, before: Measurement, base: dict[str, Any], others: dict[str, Measurement]
    ) -> dict[str, Any]:
        """Take the best weights, measure the test prompts a second time, compare, save, report."""
        trainer = self.trainer
        self.take_best(reason)
        unrounded, model, measuring = self.round(before), trainer.model, self.measuring
        # An adapter is not saved in that dtype, and is measured on the base as it came.
        stored = self.loaded.stored_dtype if self.settings.lora_r else self.save_dtype
        final = LoadedModel(model, self.loaded.tokenizer, "final", model_sha256(model), stored)
        tested = measuring.measure_test(final, before.items)
        served = []
        if unrounded:
            certified = difference("final", "base", before, tested)
            served.append(served_row("", "float32", before, unrounded, certified))
        before, after = measuring.look(before, tested, final)
        moved = [
            other_set_row(was, measuring.measure_test(final, was.items, name)) for name, was in others.items()
        ]
        measuring.score_public("final", final)
        assert trainer.neutral is not None
        costs = [
            {"kl": 0.0, "kl_ci95": [0.0, 0.0], **base},
            {**trainer.neutral.kl_to(trainer.model), **measuring.cost_of(final)},
        ]
        state = gathered(trainer.model, keep=self.writes)
        if not self.writes:  # every process takes part in the measuring, one writes it down
            return {}
        self.write_measurement(BEFORE, before)
        self.write_measurement(AFTER, after)
        compared = comparison(["base", "final"], [before, after], costs)
        write_json(self.folder / COMPARISON, compared)
        if public := self.public.result() if self.public else None:
            write_json(self.folder / BEHAVIOUR, public)
        self.write_responses(before, after)
        self.clock.mark("after")
        self.screen.say(f"after   {gap_line(after.summary, self.settings.lang)}")
        self.screen.say(decision_line(after.summary))
        (row,) = compared["differences"]
        told = expectation_change_lines(row["expectation_change"], row["groups"])
        for line in [*told, *map(other_set_line, moved), *(behaviour_lines(public) if public else ())]:
            self.screen.say(line)
        model = trainer.accelerator.unwrap_model(trainer.model)
        Saving(
            self.settings, self.folder, model, self.loaded.tokenizer, self.save_dtype, warn=self.warn
        ).save(state)
        self.clock.mark("saving")
        served += measuring.measure_served(self.folder, before, row)
        for saved in served:
            self.screen.say(served_line(saved))
        if served:
            self.clock.mark("served")
        result = self.result(reason, before.summary, after.summary, moved, served)
        write_report(self.folder, self.settings.lang, result)
        write_text(self.folder / CARD, model_card(read_run(self.folder, result)))
        write_json(self.folder / RESULT, result)  # the last: whoever sees it finds all the rest
        forget_finished(self.checkpoints, keep_checkpoints=self.settings.save_steps > 0)
        return result

    def round(self, before: Measurement) -> Measurement | None:
        """Round the weights to the dtype they are saved in; returns the measurement before that, if they are
        rounded. An adapter keeps its own dtype, and its base is as it came."""
        model = self.trainer.model
        if self.sharded or self.settings.lora_r or model.dtype.itemsize <= self.save_dtype.itemsize:
            return None
        trained = dataclasses.replace(self.loaded, model=model)
        found = self.measuring.measure_test(
            trained, before.items, entropies=self.measuring.score_test(trained, before.items), served=True
        )
        round_weights(model, self.save_dtype, self.settings.seed)
        return found

    def take_best(self, reason: Stopped) -> None:
        trainer = self.trainer
        trainer.model.zero_grad(set_to_none=True)
        trainer.accelerator.free_memory()
        # The optimizer's moments are twice the weights, and nothing trains any more.
        for holder in (trainer, trainer.callback_handler):
            holder.optimizer = holder.lr_scheduler = None
        if reason != "already_within":
            trainer.accelerator.wait_for_everyone()  # the first process may still be writing them
            self.best.restore(trainer.model)
            trainer.accelerator.wait_for_everyone()
        # Training gives the configuration the tokenizer's special tokens and no cache; the final model keeps
        # what it came with.
        for holder, name, value in self.own_configuration:
            setattr(holder, name, value)

    # --- Writing --------------------------------------------------------------------------------------------

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.screen.say(f"warning: {text}")

    def write_measurement(self, name: str, measurement: Measurement) -> None:
        write_json(self.folder / name, measurement.summary)

    def write_responses(self, before: Measurement, after: Measurement) -> None:
        rows = response_rows(before, self.loaded.tokenizer, split="test")
        later = zip(rows, np.concatenate(after.entropies), strict=True)
        write_jsonl(self.folder / RESPONSES, ({**row, "entropy_after": float(h)} for row, h in later))

    def result(
        self,
        reason: Stopped,
        before: Summary,
        after: Summary | None,
        others: Sequence[OtherSet] = (),
        served: Sequence[Served] = (),
    ) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return {
            "stopped": reason,
            **({"signal": self.interrupt.name} if reason == "interrupted" else {}),
            "best_step": self.best.facts.get("step", 0),
            "held": self.trainer.hold is not None,
            "steps": self.trainer.state.global_step,
            "seconds": self.clock.seconds,
            "advice": advice(self.settings, self.monitor.rows, reason),
            "label_before": before["label"],
            "label_after": after["label"] if after else None,
            "verdict": (after["decision"] or after)["verdict"] if after else None,
            "other_sets": list(others),
            "also_measured": list(served),
            "warnings": self.warnings,
        }

    def say_end(self, result: dict[str, Any]) -> None:
        if not self.writes:
            return
        say, folder = self.screen.say, self.folder
        seconds = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in result["seconds"].items())
        say(
            f"stopped: {result['stopped']} after {result['steps']} steps; best held-out step "
            f"{result['best_step']}" + ("" if result["best_step"] else ": the model is unchanged")
        )
        say(f"time: {seconds}")
        for line in result["advice"]:
            say(f"advice: {line[self.settings.lang]}")
        say(f"report: {folder / REPORT_HTML}   model: {folder / FINAL}   curves: {folder / CURVES}")


# --- Settings and data --------------------------------------------------------------------------------------


def load_data(
    settings: TrainSettings, load: Callable[[], LoadedModel], screen: Screen, world_size: int
) -> tuple[PromptSet, dict[str, PromptSet]]:
    """The prompts that the settings name; their three splits, and other sets that are measured too.

    ``load`` gives the model to a swap.
    """
    swap = swapper(load) if settings.swap else False
    prompts = load_prompts(settings.train_data, swap=swap, **reading_of(settings))
    settings.check(groups=len(prompts.groups), world_size=world_size)
    trackers_of(settings)  # refuses one that is not installed before a model is loaded
    parts = prompts.parts(
        {"train": settings.max_pairs, "validation": settings.validation_pairs, "test": settings.test_pairs}
    )
    for note in prompts.notes:
        screen.say(f"   {note}")
    screen.say(prompts.ratio_line())
    sizes = ", ".join(f"{name} {part.size()}" for name, part in parts.items())
    screen.say(f"pairs: {sizes}" if prompts.paired else f"prompts: {sizes}")
    pairs = settings.other_pairs
    if pairs is None:
        pairs = OTHER_PAIRS if settings.train_data in (None, *BUILTIN) else 0
    return prompts, parts | other_sets(prompts.groups, pairs)


def leave_together() -> None:
    """Close the process group together: each process waits for the last, then gives up its connections.

    A process that ends with its connections open may be aborted while its threads are still at work on them.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def lost_process(error: RuntimeError) -> bool:
    """Whether the error says that a process at the other end of a line is gone."""
    from torch import distributed

    return distributed.is_available() and (
        isinstance(error, distributed.DistBackendError | distributed.DistNetworkError)
        or "peer" in str(error)
        and "gloo" in str(error)
    )


def trainer_settings(settings: TrainSettings, folder: Path) -> DebiasingConfig:
    """The trainer's configuration: settings with the same name are copied, a few are renamed."""
    own = {f.name for f in dataclasses.fields(DebiasingConfig)}
    shared = {name: value for name, value in asdict(settings).items() if name in own}
    if not settings.gradient_checkpointing:
        del shared["gradient_checkpointing"]
    save = settings.save_steps > 0
    return DebiasingConfig(
        **shared
        | {
            "output_dir": str(folder / CHECKPOINTS),
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


# --- What is written ----------------------------------------------------------------------------------------


def config_of(settings: TrainSettings, prompts: PromptSet, loaded: LoadedModel) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(settings).items() if name not in ("resume", "overwrite")}
    contexts = settings.hold_contexts
    return {
        "schema": CONFIG_SCHEMA,
        **kept,
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        "data": prompts.name,
        "data_sha256": prompts.sha256,
        "contexts_sha256": contexts and file_sha256(Path(contexts).expanduser()),
        "groups": ",".join(prompts.groups),
        "notes": list(prompts.notes),
        "warnings": dtype_warnings(settings, loaded),
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


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def mark(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self.last, 2)
        self.last = now
