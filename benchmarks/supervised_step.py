"""One optimizer step of ours against a plain supervised step of transformers' Trainer on the same tokens.

    python benchmarks/supervised_step.py [--pairs 8] [--steps 5] [--repeats 3] [--model NAME]

The pairs of one effective batch with shared responses (4 sequences a pair), all in one forward pass. The supervised
side trains on the same sequences with the cross-entropy of the same response tokens, under the same settings. Ours lays
the two responses to a prompt into one row, as it does in training; supervised rows hold one each. Time is
from the end of a step to the end of the next; each process warms up with two steps.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from common import (
    Row,
    interleaved,
    medians,
    model_name,
    number,
    parser,
    peak_mb,
    publish,
    run_job,
    start_peak,
)
from common import table as markdown

SIDES = ("supervised", "isentropic")
WARM_UP = 2


def timed_steps(
    side: str,
    model: Any,
    tokenizer: Any,
    pairs: int,
    steps: int,
    warmed: Callable[[], float] = start_peak,
    **settings: Any,
) -> Row:
    """The median time of an optimizer step; ``warmed`` is called after the warm-up and says what is held then."""
    import torch
    from transformers import Trainer, TrainerCallback

    from isentropic.prompts.load import load_prompts
    from isentropic.responses.batches import collate_items
    from isentropic.training.trainer import DebiasingConfig, DebiasingTrainer

    tokens: set[int] = set()

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.held = self.last = 0.0
            self.seconds: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if state.global_step > WARM_UP:
                self.seconds.append(time.perf_counter() - self.last)
            elif state.global_step == WARM_UP:
                self.held = warmed()
            self.last = time.perf_counter()

    def counted(items: Any, **how: Any) -> Row:
        batch = collate_items(items, **how)
        tokens.add(int(batch["predicts"].sum()))
        return batch

    def supervised(items: Any, pad: int) -> Row:
        batch = counted(items, pad=pad)
        labels = torch.full_like(batch["input_ids"], -100)
        labels[:, 1:] = batch["input_ids"][:, 1:].masked_fill(~batch["predicts"][:, :-1], -100)
        return {**{key: batch[key] for key in ("input_ids", "attention_mask")}, "labels": labels}

    prompts = load_prompts()
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        config = DebiasingConfig(
            output_dir=folder, effective_batch=2 * pairs, micro_batch_size=2 * pairs,
            max_steps=WARM_UP + steps, eval_strategy="no", logging_strategy="no", **settings,
        )  # fmt: skip
        train_set = prompts.split("train").first(pairs)
        validation = prompts.split("validation").first(2)
        trainer: Trainer = DebiasingTrainer(
            model, config, train_set, validation, tokenizer, callbacks=[watch]
        )
        trainer.data_collator = partial(counted, **trainer.collate.keywords)
        trainer.prepare()  # the responses; both sides train on them
        if side == "supervised":
            trainer = Trainer(
                model=model,
                args=trainer.args,
                data_collator=partial(supervised, pad=tokenizer.pad_token_id),
                train_dataset=trainer.train_items,
                callbacks=[watch],
            )
        trainer.train()
    assert len(tokens) == 1, "every step holds all pairs"
    return {
        "seconds": statistics.median(watch.seconds),
        "tokens": tokens.pop(),
        "held": watch.held,
        "bf16": bool(config.bf16),
    }


def one_run(job: Row) -> Row:
    import torch

    from isentropic.models.load import load_model

    if not job["quick"]:
        torch.set_num_threads(job["threads"])
    loaded = load_model(job["model"])
    row = timed_steps(job["side"], loaded.model, loaded.tokenizer, job["pairs"], job["steps"], use_cpu=True)
    held = row.pop("held")
    return {**row, "peak_mb": peak_mb(), "working_mb": peak_mb() - held}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "supervised_step", repeats=3)
    flags.add_argument("--pairs", type=int, default=8, help="pairs of the effective batch")
    flags.add_argument("--steps", type=int, default=5, help="timed steps of a run")
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    if args.quick:
        args.repeats, args.pairs, args.steps = 1, 2, 2
    job = {
        "model": model_name(args),
        **{key: getattr(args, key) for key in ("quick", "threads", "pairs", "steps")},
    }
    runs = interleaved(SIDES, args.repeats, lambda side: run_job(__file__, {**job, "side": side}, one_run))
    middle = {side: medians(found) for side, found in runs.items()}
    plain, ours = middle["supervised"], middle["isentropic"]
    ratios = {
        key: ours[key] / plain[key] if plain[key] else None for key in ("seconds", "peak_mb", "working_mb")
    }
    text = markdown(
        ["time, of supervised", "peak memory, of supervised", "step", "seconds", "response tokens", "peak MB",
         "beyond weights and optimizer state, MB"],
        [
            [
                *(number(ratios[key]) if side == "isentropic" else "" for key in ("seconds", "peak_mb")),
                side,
                number(row["seconds"], ".3f"),
                number(row["tokens"], ".0f"),
                *(number(row[key], ".0f") for key in ("peak_mb", "working_mb")),
            ]
            for side, row in reversed(middle.items())
        ],
    )  # fmt: skip
    publish(args, "supervised_step", text, {"ratios": ratios, "sides": middle, "runs": runs})


if __name__ == "__main__":
    main()
