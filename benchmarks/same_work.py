"""The public predecessor's optimizer step against ours on the same work: time and memory.

    python benchmarks/same_work.py [--new_tokens 128] [--repeats 3] [--model NAME] [--bf16 auto|on|off]

The work: four prompts (two of each group), an own response of 128 tokens to each, the squared gap, AdamW. The
ancestor's step is re-created from its description: two micro-batches of one male and one female prompt, generation
without a key-value cache, logits of prompt and response, softmax and log-softmax kept for the backward pass. Ours is
DebiasingTrainer with its own responses drawn anew at every step. Neither side may end a response early. Both run in
the same precision, each run in a process of its own, the sides taking turns.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
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

SIDES = ("ancestor", "isentropic")


# --- The ancestor ---------------------------------------------------------------------------------------------------


def ancestor_step(
    model: Any, tokenizer: Any, optimizer: Any, batches: Sequence[list[str]], new_tokens: int, bf16: bool
) -> tuple[float, int]:
    """One optimizer step; returns the seconds spent on generation and the response tokens scored."""
    import torch

    from isentropic.models.model import precision

    device = torch.device("cpu")
    generating, scored = 0.0, 0
    for texts in batches:
        rows = tokenizer(
            texts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False
        )
        start = time.perf_counter()
        with torch.no_grad(), precision(device, bf16):
            output = model.generate(
                **rows, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=True, temperature=1.0,
                top_k=0, use_cache=False, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        generating += time.perf_counter() - start
        width = rows["input_ids"].shape[1]
        mask = torch.cat([rows["attention_mask"], torch.ones(len(texts), new_tokens, dtype=torch.long)], 1)
        with precision(device, bf16):
            logits = model(output, attention_mask=mask, use_cache=False).logits
        p, log_p = torch.softmax(logits, -1), torch.log_softmax(logits, -1)
        entropy = -(p * log_p).sum(-1)[:, width - 1 : -1]
        male, female = entropy.mean(1)
        ((female - male) ** 2 / len(batches)).backward()
        scored += entropy.numel()
        del logits, p, log_p, entropy, male, female  # before the next micro-batch comes
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return generating, scored


def run_ancestor(job: Row) -> Row:
    import torch

    from isentropic.models.load import load_model

    loaded = load_model(job["model"])
    model = loaded.model.train()
    model.set_attn_implementation("sdpa")  # the library's default, which the ancestor had
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batches = [list(pair) for pair in job["prompts"]]
    ancestor_step(model, loaded.tokenizer, optimizer, batches, 4, job["bf16"])
    held = start_peak()
    start = time.perf_counter()
    generating, scored = ancestor_step(
        model, loaded.tokenizer, optimizer, batches, job["new_tokens"], job["bf16"]
    )
    seconds = time.perf_counter() - start
    return figures(seconds, generating, scored, held)


# --- Ours -----------------------------------------------------------------------------------------------------------


def run_ours(job: Row) -> Row:
    import torch
    from transformers import TrainerCallback

    from isentropic import responses
    from isentropic.models.load import load_model
    from isentropic.prompts.prompt_set import Prompt, PromptSet
    from isentropic.training.trainer import DebiasingConfig, DebiasingTrainer

    loaded = load_model(job["model"])
    ends = torch.tensor(responses.end_tokens(loaded.model, loaded.tokenizer))
    sampler = responses.InverseSampler

    class NeverEnds(sampler):  # type: ignore[misc, valid-type]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return super().__call__(input_ids, scores.index_fill(1, ends, -torch.inf))

    class Watch(TrainerCallback):
        """The first step warms up; the second and third are timed from end to end."""

        def __init__(self) -> None:
            self.held = self.last = 0.0
            self.seconds: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            if state.global_step == 1:
                self.held = start_peak()
            else:
                self.seconds.append(now - self.last)
            self.last = time.perf_counter()

    class Timed(DebiasingTrainer):
        generating: list[float] = []
        scored: list[int] = []

        def get_batch_samples(self, *args: Any) -> Any:
            start = time.perf_counter()
            batches, number = super().get_batch_samples(*args)
            self.generating.append(time.perf_counter() - start)
            self.scored.append(sum(int(batch["predicts"].sum()) for batch in batches))
            return batches, number

    prompts = PromptSet(
        tuple(
            Prompt(text, group, str(pair))
            for pair, twins in enumerate(job["prompts"])
            for text, group in zip(twins, ("male", "female"), strict=True)
        ),
        ("male", "female"),
        "benchmark",
    )
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        settings = DebiasingConfig(
            output_dir=folder, responses="own", refresh_responses=1, steady=False, max_new_tokens=job["new_tokens"],
            effective_batch=4, micro_batch_size=4, max_steps=3, eval_strategy="no", bf16=job["bf16"], use_cpu=True,
            adam_beta1=0.9,
        )  # fmt: skip
        responses.InverseSampler = NeverEnds
        try:
            trainer = Timed(loaded.model, settings, prompts, prompts, loaded.tokenizer, callbacks=[watch])
            trainer.train()
        finally:
            responses.InverseSampler = sampler
    seconds, generating = statistics.median(watch.seconds), statistics.median(trainer.generating[1:])
    return figures(seconds, generating, trainer.scored[-1], watch.held)


def figures(seconds: float, generating: float, scored: int, held: float) -> Row:
    peak = peak_mb()
    return {
        "seconds": seconds,
        "generating_seconds": generating,
        "scored_tokens": scored,
        "peak_mb": peak,
        "working_mb": peak - held,
    }


def one_run(job: Row) -> Row:
    import torch

    from isentropic.models.model import has_bfloat16

    if not job["quick"]:
        torch.set_num_threads(job["threads"])
    bf16 = has_bfloat16(torch.device("cpu")) if job["bf16"] == "auto" else job["bf16"] == "on"
    found = (run_ancestor if job["side"] == "ancestor" else run_ours)({**job, "bf16": bf16})
    return {**found, "bf16": bf16}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "same_work", repeats=3)
    flags.add_argument("--new_tokens", type=int, default=128)
    flags.add_argument(
        "--bf16", default="auto", choices=("auto", "on", "off"), help="precision of both sides"
    )
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    from isentropic.prompts.load import load_prompts

    if args.quick:
        args.repeats, args.new_tokens = 1, 8
    twins = load_prompts().split("train").tuples()
    job = {
        "quick": args.quick, "model": model_name(args), "threads": args.threads, "new_tokens": args.new_tokens,
        "bf16": args.bf16, "prompts": [[prompt.text for prompt in pair] for pair in (twins[0], twins[-1])],
    }  # fmt: skip
    runs = interleaved(SIDES, args.repeats, lambda side: run_job(__file__, {**job, "side": side}, one_run))
    work = {run["scored_tokens"] for found in runs.values() for run in found}
    if work != {4 * args.new_tokens}:
        raise SystemExit(f"the sides did not do the same work: {work} response tokens were scored")
    middle = {side: medians(found) for side, found in runs.items()}
    theirs, ours = middle["ancestor"], middle["isentropic"]
    ratios = {
        key: theirs[key] / ours[key] if ours[key] else None for key in ("seconds", "peak_mb", "working_mb")
    }
    text = markdown(
        ["times faster", "peak memory, times", "working memory, times", "step", "seconds", "of it generation",
         "peak MB", "beyond weights and optimizer state, MB"],
        [
            [
                *(number(ratios[key]) if side == "isentropic" else "" for key in ratios),
                side,
                *(number(row[key]) for key in ("seconds", "generating_seconds")),
                *(number(row[key], ".0f") for key in ("peak_mb", "working_mb")),
            ]
            for side, row in reversed(middle.items())
        ],
    )  # fmt: skip
    text += f"\n\nBoth score {4 * args.new_tokens} response tokens of 4 prompts in one optimizer step, "
    text += "bfloat16 in the body." if runs["ancestor"][0]["bf16"] else "float32."
    publish(args, "same_work", text, {"ratios": ratios, "sides": middle, "runs": runs})


if __name__ == "__main__":
    main()
