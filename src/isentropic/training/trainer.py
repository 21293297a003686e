"""The trainer: transformers' own, with a loss over the whole effective batch and stops on held-out
evidence."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType, broadcast_object_list
from huggingface_hub import ModelCard
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
)

from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.files import MANIFEST, load_object, write_json
from isentropic.measure.cost import NeutralReference, neutral_examples
from isentropic.measure.measurement import make_items
from isentropic.measure.score import score_items
from isentropic.measure.summary import distinct_ngrams, summarise
from isentropic.models.identity import model_sha256
from isentropic.models.load import load_model, ready_tokenizer
from isentropic.models.model import LoadedModel, quiet_transformers, vocabulary_size
from isentropic.models.save import make_savable
from isentropic.models.shared_work import together
from isentropic.prompts.load import load_prompts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.report.render import model_card
from isentropic.responses.batches import Item, StratifiedSampler, collate_items, prompt_tuples
from isentropic.responses.response import Draw, Progress, Sampling
from isentropic.responses.sample import ResponseSampler, sample_responses
from isentropic.schema import RUN_SCHEMA, Estimate, mean_entropy
from isentropic.training import trackers
from isentropic.training.adapter import add_adapter, check_trainable
from isentropic.training.callbacks import NotFiniteError
from isentropic.training.checkpoints import check_checkpoint, last_whole, seal_checkpoint
from isentropic.training.config import DebiasingConfig
from isentropic.training.contexts import expectation_estimate, items_to_close
from isentropic.training.exact_loss import ExactLoss, OwnLossOfEachMicroBatch, make_loss, without_chance
from isentropic.training.hold import Hold, make_hold
from isentropic.training.natural import natural_steps
from isentropic.training.refresh import RefreshedResponses, without_responses
from isentropic.training.steady import Steadying

log = logging.getLogger("isentropic")
GUARD_PROMPTS = 24
HELD_PROMPTS = 96
"""At most so many training pairs have their entropy gap held where a run closes the expectation."""
WHOLE_GRADIENTS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Where each process holds the whole gradient between the backward pass and the optimizer's step."""
SHOWN_TWINS = 8
STEERING = "steering_{rank}.json"
"""In a checkpoint: what the control variate and refreshed responses need to continue as if the run had never
been interrupted."""

HELD_OUT_STEERS = (
    "These prompts steered the training. Prompts that did not are better evidence: measure them too."
)


class DebiasingTrainer(Trainer):
    """Fine-tune a causal language model until its groups hesitate equally.

    The loss is a function of the group means over the whole effective batch, so it is exact for any split of
    it:

    1. every example of the effective batch is scored without gradient, over all processes;
    2. ``c_i = dL/dH_i`` comes from autograd on that vector;
    3. each micro-batch's backward pass is that of ``sum_i c_i H_i``.

    A loss of the one signed gap needs no scoring beforehand: ``c_i = L'(gap) dgap/dH_i``, and the second
    factor is known without the entropies. The micro-batches go back with it, and the gradient is scaled by
    ``L'(gap)`` at the end of the step.

    Args:
        model: a model, a name that :func:`isentropic.models.load_model` knows, or what that function
            returned.
        args: a :class:`DebiasingConfig`.
        train_dataset: a :class:`PromptSet`, or what :func:`isentropic.prompts.load_prompts` reads (file, hub
            id, ``datasets`` object, list of dicts). Its ``train`` split trains; ``None`` takes the built-in
            prompts.
        eval_dataset: the same for validation; ``None`` takes the ``validation`` split of the training data.
        processing_class: the tokenizer, where ``model`` is a model.
        peft_config: a peft config; the model is then trained through an adapter.
        callbacks: further callbacks.

    Raises:
        InputError: settings or data that cannot work.

    Example:
        See ``examples/train_in_python.py``.
    """

    args: DebiasingConfig
    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase
    # The loss is that of the whole effective batch; nothing is to be divided by the number of micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel | LoadedModel | str,
        args: DebiasingConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        peft_config: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        progress: Callable[[str], Progress | None] = lambda stage: None,
    ) -> None:
        base = base_model(model, processing_class)
        self.base_name, self.base_sha256 = base.name, base.sha256
        args = args if args is not None else DebiasingConfig(output_dir="runs/pure_debiasing/checkpoints")
        network = trainable_model(base.model, peft_config, args)
        self.take_data(train_dataset, eval_dataset, args, base.tokenizer)
        args, self.draws = sized(args, len(self.groups), len(self.train_items))
        self.pad = base.pad
        self.progress = progress
        self.scorer = EntropyScorer(chunk_bytes=int(args.chunk_mb * 2**20))  # type: ignore[operator]
        self.loss_scorer = self.scorer if args.close == "entropy" else self.scorer.of_surprisal()
        self.steadying = Steadying()
        loss_of = ExactLoss if args.gap_over == "effective_batch" else OwnLossOfEachMicroBatch
        loss_fn = make_loss(args, self.groups)
        self.exact = loss_of(loss_fn, self.groups, self.steadying, args.process_index, args.world_size)
        self.neutral: NeutralReference | None = None
        self.held_out_entropies: list[list[np.ndarray]] = []
        self.measured_step: int | None = None
        self.hold: Hold | None = None
        self.held = ""
        super().__init__(
            model=network,
            args=args,
            train_dataset=self.train_items,  # type: ignore[arg-type]
            eval_dataset=self.train_items[:1],  # type: ignore[arg-type]
            processing_class=base.tokenizer,
            callbacks=callbacks,
        )
        self.place_model()
        self.set_up_batches()
        # Our monitor says what these two would print.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        trackers.set_up(self.callback_handler.callbacks, str(args.output_dir), args.project)

    def place_model(self) -> None:
        """Refuse a model that cannot be trained as it is measured; put it where it is measured."""
        args = self.args
        if self.is_fsdp_enabled and getattr(self.accelerator.state.fsdp_plugin, "fsdp_version", 1) != 2:
            raise InputError(
                "FSDP version 1, which flattens the weights: neither the best nor the final ones could be "
                "gathered from it; set fsdp_version: 2 (FSDP_VERSION=2)"
            )
        if self.is_deepspeed_enabled and args.natural:
            raise InputError(
                "natural is True under DeepSpeed, which makes its own updates; leave it out, or use FSDP"
            )
        if self.is_deepspeed_enabled and args.hold != "none":
            raise InputError(
                f"hold is {args.hold!r} under DeepSpeed, which makes its own updates where nothing can be "
                "held; give --hold none, or use FSDP"
            )
        if (self.is_fsdp_enabled or self.is_deepspeed_enabled) and self.model.device != args.device:
            self.model.to(args.device)  # type: ignore[arg-type]  # it is measured whole before it is sharded
        self.scorer.refuse_untrainable(self.model)

    def set_up_batches(self) -> None:
        """How items become a micro-batch: at once, or when the responses of their step are there."""
        self.collate = partial(collate_items, pad=self.pad, longest=self.scorer.longest_row(self.model))
        self.refreshed: RefreshedResponses | None = None
        self.data_collator = self.collate
        if every := self.args.refresh_responses:
            self.refreshed = RefreshedResponses(every, self.current_sampler, shared=self.shared)
            self.data_collator = without_responses

    def take_data(self, train_dataset: Any, eval_dataset: Any, args: DebiasingConfig, tokenizer: Any) -> None:
        """The prompts to train on and those to measure on; or contexts for both, and the prompts to hold."""
        train_set = as_prompts(train_dataset, args.seed)
        held_out = train_set if eval_dataset is None else as_prompts(eval_dataset, args.seed)
        self.groups = train_set.groups
        args.check(len(self.groups), args.world_size)
        check_held_out(held_out, train_set)
        self.one_set = held_out.whole_sha256 == train_set.whole_sha256
        self.shared = args.responses == "shared" and train_set.paired and args.matched
        closes_entropy = args.close == "entropy"
        train = train_set.split("train").first(None if closes_entropy else HELD_PROMPTS)
        tuples = prompt_tuples(train, matched=args.matched, seed=args.seed)
        self.train_items = [Item(prompts, index=index) for index, prompts in enumerate(tuples)]
        self.validation_set = held_out.split("validation") if eval_dataset is None else held_out
        self.validation_items: list[Item] = []
        self.held_items: list[Item] = []
        if not closes_entropy:
            self.held_items = self.train_items if args.hold != "none" else []
            self.train_items, self.validation_items = items_to_close(
                args, self.groups, train_set.prompts, tokenizer
            )
        self.other_items: dict[str, list[Item]] = {}

    # --- Before training ------------------------------------------------------------------------------------

    @together()
    def prepare(self) -> None:
        """Sample all responses from the base model, and record what later steps are compared with."""
        if self.neutral is not None:
            return
        args = self.args
        model = self.model
        closes_entropy = args.close == "entropy"
        items = self.held_items
        if closes_entropy:
            items = [self.train_items[index] for index in sorted(set(self._get_train_sampler()))]
        self.sampler = self.response_sampler(args.sampling())
        if self.refreshed is None:  # which samples them when their step comes
            prompts = [item.prompts for item in items]
            progress = self.progress("training responses")
            sampled = self.sampler.examples(prompts, shared=self.shared, progress=progress)
            for item, examples in zip(items, sampled, strict=True):
                item.examples = examples
        steady = closes_entropy and args.steady and args.estimator != "pairwise" and self.refreshed is None
        scores = self.score(items, self.progress("entropies before training")) if steady else []
        if steady:
            self.steadying.start(items, scores)
        if closes_entropy:
            self.validation_items = self.held_out_items(self.validation_set, "validation responses")
        self.held_out_entropies = [self.score_loss(self.validation_items)]
        held_out = set(self.validation_set.prompts)
        apart = self.one_set and held_out.isdisjoint(p for item in items for p in item.prompts)
        if steady and apart and self.shared and self.validation_set.paired:
            validation = self.validation_items, self.held_out_entropies[0]
            self.steadying.start_pool((items, scores), validation, self.groups)
        guard = self.response_sampler(args.sampling(Draw.NEUTRAL, num_responses=1))
        vocabulary = vocabulary_size(model)
        neutral = neutral_examples(guard, vocabulary)
        self.neutral = NeutralReference(model, neutral, pad=self.pad, bf16=bool(args.bf16))
        self.guard_prompts = [example.prompt_ids for example in neutral[:GUARD_PROMPTS]]
        self.hold, self.held = make_hold(
            model,
            self.processing_class,
            args,
            self.groups,
            items,
            scorer=self.scorer,
            pad=self.pad,
            step=lambda: self.state.global_step,
            seed=args.seed,
            bf16=bool(args.bf16),
        )

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimizer of transformers; what is held corrects each of its updates."""
        if self.args.natural and self.optimizer is None:
            degree = 1 if self.args.use_l1 else 2
            self.optimizer = natural_steps(self.model.parameters(), self.exact.last_loss, degree)
        optimizer = super().create_optimizer(*args, **kwargs)
        # One that accelerate has wrapped is that of an earlier train(), and held already.
        if self.hold is not None and not isinstance(optimizer, AcceleratedOptimizer):
            self.hold.attach(optimizer)
        return optimizer

    @together()
    def held_out_items(self, prompts: PromptSet, stage: str) -> list[Item]:
        """Prompts with responses that are fixed from now on: every later measurement is on the same text."""
        sampler = self.response_sampler(self.args.sampling(Draw.VALIDATION, num_responses=1))
        shared = self.args.responses == "shared"
        return make_items(prompts, sampler, shared=shared, progress=self.progress(stage))

    def response_sampler(self, sampling: Sampling) -> ResponseSampler:
        return ResponseSampler(
            self.model,
            self.processing_class,
            sampling,
            # The weights have a name in the cache of responses as long as no step has changed them.
            model_sha256=self.base_sha256 if self.state.global_step == 0 else None,
            bf16=bool(self.args.bf16),
        )

    def current_sampler(self, draw: int) -> ResponseSampler:
        """Samples from the weights as they are at the moment."""
        sampling = self.args.sampling(draw)
        return ResponseSampler(self.model, self.processing_class, sampling, bf16=bool(self.args.bf16))

    def score(
        self,
        items: Sequence[Item],
        progress: Progress | None = None,
        scorer: EntropyScorer | None = None,
    ) -> list[np.ndarray]:
        """Response entropies of items with the current weights, without gradient."""
        bf16, scorer = bool(self.args.bf16), scorer or self.scorer
        return score_items(self.model, scorer, items, pad=self.pad, bf16=bf16, progress=progress)

    def score_loss(self, items: Sequence[Item]) -> list[np.ndarray]:
        """The same for what the loss is made of: entropies, or surprisals where it closes the expectation."""
        return self.score(items, scorer=self.loss_scorer)

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Sample the responses and measure the held-out gap, then train as transformers does.

        Args:
            resume_from_checkpoint: a checkpoint's folder; ``True`` takes the last one in ``args.output_dir``.
            trial, ignore_keys_for_eval: as in transformers.

        Raises:
            InputError: the checkpoint does not exist, or is not one of this trainer's.
        """
        checkpoint = self.checkpoint(resume_from_checkpoint)
        self.prepare()
        if checkpoint is not None:
            del self.held_out_entropies[1:]
            self.load_steering(Path(checkpoint))
        elif self.measured_step != self.state.global_step:
            self.evaluate()
        return super().train(checkpoint, trial, ignore_keys_for_eval)

    def checkpoint(self, given: str | os.PathLike | bool | None) -> str | None:
        """The folder of the checkpoint that ``train`` was told to resume from."""
        if given is None or given is False:
            return None
        output_dir = str(self.args.output_dir)
        if given is not True:
            folder: str | None = os.fspath(given)
        else:
            found = last_whole(Path(output_dir))
            folder = str(found) if found else None
        if folder is None or not (Path(folder) / STEERING.format(rank=self.args.process_index)).is_file():
            raise InputError(
                f"resume_from_checkpoint is {given!r}, but {folder or output_dir!r} contains no checkpoint "
                "of this trainer; the run cannot continue from there; leave it out to start again, or give a "
                "folder checkpoint-N"
            )
        return folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            (folder / MANIFEST).unlink(missing_ok=True)
        # The older checkpoints are deleted when this one is whole; transformers would do it before.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with quiet_transformers():
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        fresh = self.refreshed.state(self.train_items) if self.refreshed else {}
        kept = {**self.steadying.state(), "fresh": fresh}
        write_json(folder / STEERING.format(rank=self.args.process_index), kept)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal_checkpoint(folder, limit, self.state.best_model_checkpoint)

    def load_steering(self, folder: Path) -> None:
        check_checkpoint(folder)
        kept = load_object(folder / STEERING.format(rank=self.args.process_index))
        self.steadying.load(kept)
        if self.refreshed:
            self.refreshed.load(kept["fresh"], self.train_items)

    def _get_train_sampler(self, train_dataset: Any = None) -> StratifiedSampler:
        return StratifiedSampler([item.topic for item in self.train_items], self.draws, self.args.seed)

    # --- One step -------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """All micro-batches of a step, each with the weights its entropies have in the loss of the whole."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.refreshed:
            for batch in batches:
                self.refreshed.refresh(batch["items"], self.state.global_step)
            batches = [self.collate(batch["items"]) for batch in batches]
        by_direction = self.accelerator.distributed_type in WHOLE_GRADIENTS
        self.exact.begin([batch["items"] for batch in batches], self.score_loss, by_direction=by_direction)
        return batches, 1

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The micro-batch's share: gradients and values of all shares add up to those of the loss of the
        effective batch."""
        without_chance(model)
        rows = inputs["input_ids"], inputs["attention_mask"], inputs["predicts"]
        owners, device = inputs.get("owners"), inputs["input_ids"].device
        return self.exact.share(
            inputs["items"],
            lambda: self.loss_scorer.score(model, *rows, owners).means(),
            lambda weights: self.loss_scorer.weighted(model, *rows, weights.to(device), owners),
        )

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """A micro-batch forward and back; after the last one the gradient is scaled by ``L'(gap)`` where that
        was left out."""
        share = super().training_step(model, inputs, num_items_in_batch)
        if (finished := self.exact.finish()) is None:
            return share
        loss, slope = finished
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(slope)
        return share + loss

    # --- Held-out evidence and logs -------------------------------------------------------------------------

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The gap on held-out prompts with its interval, and what the change has cost so far.

        Args:
            eval_dataset: the prompts to measure, all of them: a :class:`PromptSet`, what :func:`load_prompts`
                reads, or a dict of these by name, whose names are then in the keys. ``None`` measures the
                validation prompts, and only that steers the training. The responses are sampled when a set is
                first measured, and kept.
            ignore_keys: accepted as transformers passes it; there are no model outputs to gather.
            metric_key_prefix: what the keys of the result begin with.

        Returns:
            ``eval_gap``, ``eval_gap_se``, ``eval_gap_low``, ``eval_gap_high``, ``eval_H_<group>`` (nats),
            ``eval_kl`` (nats per token) and more. What is unknown has no key. Where the expectation is
            closed, the validation gap is the mean absolute log-odds over contexts, and ``eval_H_<group>`` the
            mean surprisal of that group's words.
        """
        if isinstance(eval_dataset, dict):
            named = [
                self.evaluate(data, ignore_keys, f"{metric_key_prefix}_{name}")
                for name, data in eval_dataset.items()
            ]
            return {key: value for metrics in named for key, value in metrics.items()}
        self.prepare()
        items, groups = self.validation_items, self.groups
        if eval_dataset is not None:
            prompts = as_prompts(eval_dataset, self.args.seed)
            items, groups = self.items_of(prompts), prompts.groups
        own = eval_dataset is None
        if own and self.state.global_step == 0:  # scored already
            entropies = self.held_out_entropies[0]
        else:
            with together():
                entropies = self.score_loss(items) if own else self.score(items)
        if not all(np.isfinite(values).all() for values in entropies):
            raise NotFiniteError(f"the held-out entropies after step {self.state.global_step} are not finite")
        estimate = self.steadying.estimate if self.args.close == "entropy" else expectation_estimate
        steers = estimate(items, entropies, groups) if own else None
        summary: Estimate = steers or summarise(items, entropies, groups, self.args.target_gap)
        found = self.held_out_figures(summary, groups)
        if own:
            self.held_out_entropies[1:] = [entropies]
            self.measured_step = self.state.global_step
            self.steadying.measured({group: found[f"H_{group}"] for group in groups})
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items() if value is not None}
        self.log(metrics)
        self.log_twins(items, entropies, f"{metric_key_prefix}/twins")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def items_of(self, prompts: PromptSet) -> list[Item]:
        """Prompts other than the validation set with their responses, which are sampled once."""
        if prompts.sha256 == self.validation_set.sha256 and self.args.close == "entropy":
            return self.validation_items
        if prompts.sha256 not in self.other_items:
            self.other_items[prompts.sha256] = self.held_out_items(prompts, "responses")
        return self.other_items[prompts.sha256]

    @together()
    def held_out_figures(self, summary: Estimate, groups: Sequence[str]) -> dict[str, Any]:
        """The gap that a summary tells, and what the change of the weights has cost;
        the same on all processes."""
        assert self.neutral is not None
        low, high = summary["ci95"] or (None, None)
        answers = sample_responses(
            self.model,
            self.guard_prompts,
            self.args.sampling(Draw.GUARD, num_responses=1),
            ends=self.sampler.ends,
            bf16=bool(self.args.bf16),
        )
        drawn = [answer for made in answers for answer in made]
        found = {
            "gap": summary["gap"],
            "gap_se": summary["se"],
            "gap_low": low,
            "gap_high": high,
            **{f"H_{group}": mean_entropy(summary, group) for group in [*groups, "mean"]},
            "kl": self.neutral.kl_to(self.model)["kl"],
            "length": float(np.mean([len(answer) for answer in drawn])),
            "distinct_2": distinct_ngrams(drawn, 2),
        }
        if self.args.world_size > 1:  # all processes are to come to the same decision, to the last bit
            (found,) = broadcast_object_list([found])
        return found

    def log_twins(self, items: Sequence[Item], entropies: Sequence[np.ndarray], name: str) -> None:
        """Show the trackers some held-out twins, their responses and their present entropies."""
        if not self.is_world_process_zero():
            return
        decode = self.processing_class.decode
        rows = [
            [
                x.prompt.topic or "",
                x.prompt.group,
                x.source,
                x.prompt.text,
                decode(list(x.response_ids)),
                float(value),
            ]
            for item, values in zip(items[:SHOWN_TWINS], entropies, strict=False)
            for x, value in zip(item.examples, values, strict=True)
        ]
        columns = ["topic", "group", "response of", "prompt", "response", "entropy"]
        trackers.log_table(self.callback_handler.callbacks, name, columns, rows, self.state.global_step)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log each part of the loss by name beside transformers' own figures.

        Like its loss, the gap and the entropies are means over the steps since the last such line.
        """
        if "loss" in logs:
            logs |= self.exact.means()
        super().log(logs, start_time)

    # --- The model card -------------------------------------------------------------------------------------

    def create_model_card(  # type: ignore[override]
        self, model_name: str | None = None, tags: str | list[str] | None = None, **metadata: Any
    ) -> None:
        """Write ``README.md`` into ``args.output_dir``: the held-out gap before and after,
        and what it does not show.

        ``push_to_hub`` calls it. The figures are those of the validation prompts, and the card says so.

        Args:
            model_name: the card's title.
            tags: further tags for the hub.
            metadata: further fields of the card's header, such as ``license``, ``language`` or ``datasets``.

        Raises:
            InputError: nothing was measured yet.
        """
        if self.args.close == "expectation":  # no entropy was measured here
            super().create_model_card(model_name=model_name, tags=tags, **metadata)
            return
        if not self.is_world_process_zero():
            return
        if not self.held_out_entropies:
            raise InputError(
                "no gap was measured yet; a model card needs it; call train() or evaluate() first"
            )
        before, after = (
            summarise(self.validation_items, entropies, self.groups, self.args.target_gap)
            for entropies in (self.held_out_entropies[0], self.held_out_entropies[-1])
        )
        after["warnings"].append(HELD_OUT_STEERS)
        facts = {"model": self.base_name, "data": self.validation_set.name, "split": "validation"}
        name = model_name or Path(str(self.args.output_dir)).name
        run = {"schema": RUN_SCHEMA, "name": name, "before": {**before, **facts}, "after": {**after, **facts}}
        card = ModelCard(model_card(run))
        card.data["tags"] += [tags] if isinstance(tags, str) else tags or []
        for key, value in metadata.items():
            if value is not None:
                card.data[key] = value
        card.save(Path(str(self.args.output_dir)) / "README.md")


# --- Helpers ------------------------------------------------------------------------------------------------


def base_model(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> LoadedModel:
    """The model that training starts from, with its tokenizer, its name and the hash of its weights."""
    if isinstance(model, str):
        model = load_model(model)
    if isinstance(model, LoadedModel):
        tokenizer = ready_tokenizer(tokenizer or model.tokenizer, model.name, vocabulary_size(model.model))
        return dataclasses.replace(model, tokenizer=tokenizer)
    if tokenizer is None:
        raise InputError(
            "processing_class is None; prompts cannot be encoded without the model's tokenizer; pass it, or "
            "pass the model by name"
        )
    make_savable(model)
    name = str(model.name_or_path)
    tokenizer = ready_tokenizer(tokenizer, name, vocabulary_size(model))
    return LoadedModel(model, tokenizer, name, model_sha256(model))


def sized(args: DebiasingConfig, groups: int, items: int) -> tuple[DebiasingConfig, int]:
    """A copy of the configuration with batch sizes and steps as transformers counts them,
    and the items drawn in all."""
    args = copy.copy(args)
    args.per_device_train_batch_size = args.micro_batch_size // groups
    args.gradient_accumulation_steps = args.effective_batch // (args.micro_batch_size * args.world_size)
    per_step = args.effective_batch // groups
    if args.max_steps > 0:
        return args, args.max_steps * per_step
    draws = math.ceil(items * args.num_train_epochs)
    if args.world_size > 1:  # as many micro-batches on each process, or one would wait for ever
        draws -= draws % (args.per_device_train_batch_size * args.world_size)
    args.max_steps = math.ceil(draws / per_step)
    return args, draws


def trainable_model(model: Any, peft_config: Any, args: DebiasingConfig) -> Any:
    """The model, with an adapter where one is asked for."""
    adapted = peft_config is not None or hasattr(model, "peft_config")
    check_trainable(model, adapted, bool(args.gradient_checkpointing))
    return model if peft_config is None else add_adapter(model, peft_config, args.seed)


def check_held_out(held_out: PromptSet, train_set: PromptSet) -> None:
    """The held-out prompts must be of the groups that are trained."""
    if set(held_out.groups) != set(train_set.groups):
        raise InputError(
            f"eval_dataset has the groups {', '.join(held_out.groups)} and the training prompts "
            f"{', '.join(train_set.groups)}; the held-out gap would be a different quantity; give prompts of "
            "the same groups"
        )


def as_prompts(data: Any, seed: int) -> PromptSet:
    return data if isinstance(data, PromptSet) else load_prompts(data, seed=seed)
