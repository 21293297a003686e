"""What a run measures: the test prompts before and after training, further ones while the verdict is open,
other built-in sets, public tests, and the costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from isentropic.behaviour import PairedBehaviour
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.measure.cost import answers_of, perplexity
from isentropic.measure.decision import decide, look_sizes
from isentropic.measure.measurement import Measurement, make_items, measure
from isentropic.measure.score import check_finite, score_items
from isentropic.measure.served import served_row
from isentropic.models.load import load_model
from isentropic.models.model import LoadedModel
from isentropic.models.shared_work import together
from isentropic.prompts.prompt_set import SPLITS, PromptSet
from isentropic.responses.batches import Item
from isentropic.responses.response import Draw
from isentropic.responses.sample import ResponseSampler
from isentropic.run_folder import FINAL
from isentropic.schema import Difference, Served
from isentropic.settings import TrainSettings, split_names
from isentropic.training.adapter import with_saved_adapter
from isentropic.training.trainer import DebiasingTrainer


def load_untrained(settings: TrainSettings) -> LoadedModel:
    """The model that a run trains, as it is before training."""
    return load_model(
        settings.model_path,
        trust_remote_code=settings.trust_remote_code,
        load_in_4bit=settings.load_in_4bit,
    )


class Measuring:
    """The measurements of one run, all made in the same way.

    Args:
        parts: the prompts by name: the test split and the other built-in sets among them.
        further: the test prompts that may be measured, those of the first look included.
        warn: is told what could not be measured.
    """

    def __init__(
        self,
        settings: TrainSettings,
        screen: Screen,
        trainer: DebiasingTrainer,
        *,
        parts: dict[str, PromptSet],
        further: PromptSet,
        public: PairedBehaviour | None,
        warn: Callable[[str], None],
    ) -> None:
        self.settings, self.screen, self.trainer, self.parts = settings, screen, trainer, parts
        self.further, self.public, self.warn = further, public, warn
        self.bf16 = bool(trainer.args.bf16)
        if further.per_group() > parts["test"].per_group() and (
            trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        ):
            raise InputError(
                f"--until_decided is {settings.until_decided} with weights spread over processes; further "
                "pairs need the untrained model once more, whole; give --until_decided 0 and more "
                "--test_pairs"
            )

    def test_sampler(self, base: LoadedModel) -> ResponseSampler:
        sampling = self.trainer.args.sampling(Draw.TEST, num_responses=1)
        return ResponseSampler(base.model, base.tokenizer, sampling, model_sha256=base.sha256, bf16=self.bf16)

    def score_test(self, loaded: LoadedModel, items: list[Item]) -> list[np.ndarray]:
        entropies = score_items(loaded.model, self.trainer.scorer, items, pad=loaded.pad, bf16=self.bf16)
        check_finite(entropies, loaded.name)
        return entropies

    def measure_test(
        self,
        loaded: LoadedModel,
        items: list[Item] | None = None,
        part: str = "test",
        *,
        entropies: list[np.ndarray] | None = None,
        prompts: PromptSet | None = None,
        served: bool = False,
    ) -> Measurement:
        """The gap on the test prompts, which neither training nor stopping ever sees, or on another set's;
        of a model as it is ``served``, in the arithmetic of its own dtype."""
        stage = f"{part} responses and entropies before" if items is None else f"{part} entropies after"
        with nullcontext() if served else together():  # one process alone measures what is served
            return measure(
                loaded,
                prompts or self.parts[part],
                sampling=self.trainer.args.sampling(Draw.TEST, num_responses=1),
                responses=self.settings.responses,
                target_gap=self.settings.target_gap,
                bf16=self.bf16 and not served,
                noise_floor=part == "test" and not served,
                expectation=part == "test" and not served,
                items=items,
                entropies=entropies,
                scorer=None if served else self.trainer.scorer,
                split="test",
                progress=self.screen.bar(stage),
            )

    def measure_others(self, untrained: LoadedModel) -> dict[str, Measurement]:
        """The gaps that the run does not aim at, by the name of their set."""
        return {name: self.measure_test(untrained, part=name) for name in self.parts if name not in SPLITS}

    @together()
    def look(
        self, before: Measurement, after: Measurement, final: LoadedModel
    ) -> tuple[Measurement, Measurement]:
        """Decide about the target; while that is open, measure further test pairs before and after."""
        test, own = self.parts["test"], self.settings.responses == "own"
        sizes = look_sizes(test.per_group(), self.further.per_group())
        pool = self.trainer.steadying.pool if test.drawn else None
        items, values = list(before.items), [list(before.entropies), list(after.entropies)]
        base: LoadedModel | None = None
        for look, size in enumerate(sizes):
            if look:
                base = base or self.placed(load_untrained(self.settings), self.settings.load_in_4bit)
                seen, test = test, self.further.first(size)
                more = test.without(seen)
                progress = self.screen.bar("further test pairs")
                fresh = make_items(more, self.test_sampler(base), shared=not own, progress=progress)
                for scored, model in zip(values, (base, final), strict=True):
                    scored.extend(self.score_test(model, fresh))
                items += fresh
            decision = decide(
                pool,
                (items, values[0]),
                (items, values[1]),
                test.groups,
                self.settings.target_gap,
                look=look,
                looks=len(sizes),
                own=own,
            )
            if self.trainer.args.world_size > 1:  # all processes take as many looks
                (decision,) = broadcast_object_list([decision])
            if decision["verdict"] != "insufficient" or look + 1 == len(sizes):
                break
            self.screen.say(f"   look {look + 1} of {len(sizes)}: {decision['reason']}")
        if base is not None:
            before, after = (
                self.measure_test(model, items, entropies=scored, prompts=test)
                for model, scored in zip((base, final), values, strict=True)
            )
        after.summary["decision"] = decision
        return before, after

    @together()
    def score_public(self, name: str, loaded: LoadedModel) -> None:
        """Score the model as it is now on the public test sets, where the run has some."""
        if self.public:
            self.public.score(name, loaded, scorer=self.trainer.scorer, bf16=self.bf16, bar=self.screen.bar)

    def measure_served(self, run_folder: Path, before: Measurement, change: Difference) -> list[Served]:
        """The saved model in each dtype of ``--also_measure``, on the test responses, against the base in
        it. A merged model, which nothing else has measured, is measured in float32 at least."""
        rows: list[Served] = []
        settings, folders = self.settings, [FINAL, f"{FINAL}/merged"][: 1 + self.settings.merge_lora]
        dtypes = split_names(settings.also_measure or "")
        if settings.merge_lora and not dtypes:
            dtypes, folders = ["float32"], folders[1:]
        for dtype in dtypes:
            try:
                base = self.load_in(settings.model_path, dtype)
                first = self.measure_test(base, before.items, served=True)
                for name in folders:
                    adapter = settings.lora_r and name == FINAL
                    folder = run_folder / name
                    final = with_saved_adapter(base, folder) if adapter else self.load_in(str(folder), dtype)
                    found = self.measure_test(final, before.items, served=True)
                    rows.append(served_row(name, dtype, first, found, change))
            except InputError as error:  # the run itself is done, and is not lost for this
                self.warn(f"the saved model in {dtype}: {error}")
        return rows

    def load_in(self, name: str, dtype: str) -> LoadedModel:
        """A model in a dtype."""
        way: dict[str, Any] = {"load_in_8bit": True} if dtype == "int8" else {"dtype": getattr(torch, dtype)}
        loaded = load_model(name, trust_remote_code=self.settings.trust_remote_code, **way)
        return self.placed(loaded, dtype == "int8")

    def placed(self, loaded: LoadedModel, quantised: bool) -> LoadedModel:
        """The model on the device of the run, where bitsandbytes has put a quantised one already."""
        if not quantised:
            loaded.model.to(self.trainer.args.device)  # type: ignore[arg-type]
        return loaded

    @together()
    def cost_of(self, loaded: LoadedModel) -> dict[str, Any]:
        """What the model's own answers to neutral prompts look like,
        and the perplexity of the text file if one is given."""
        args, file = self.trainer.args, self.settings.text_file
        sampler = ResponseSampler(
            loaded.model,
            loaded.tokenizer,
            args.sampling(Draw.NEUTRAL, num_responses=1),
            model_sha256=loaded.sha256,
            bf16=self.bf16,
        )
        return {
            **answers_of(sampler),
            "perplexity": perplexity(loaded, file, bf16=self.bf16) if file else None,
        }
