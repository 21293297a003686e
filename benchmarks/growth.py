"""How time and memory grow: response tokens x1, x2, x4, x8 in scoring and backward pass; prompts x10 in measure.

    python benchmarks/growth.py [--sequences 8] [--length 24] [--pairs 30] [--repeats 3] [--model NAME]

A run scores all sequences without gradient and goes back through them with known weights: the two passes of the exact
loss. "Working" memory is the peak beyond weights and gradients. Each run has a process of its own.
"""

from __future__ import annotations

import json
import time
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

TIMES = (1, 2, 4, 8)
PROMPT = 8


def one_run(job: Row) -> Row:
    import torch

    from isentropic.models.load import load_model
    from isentropic.models.model import has_bfloat16

    if not job["quick"]:
        torch.set_num_threads(job["threads"])
    loaded = load_model(job["model"])
    bf16 = has_bfloat16(torch.device("cpu"))
    return measure_pairs(job, loaded, bf16) if "pairs" in job else score_and_back(job, loaded, bf16)


def score_and_back(job: Row, loaded: Any, bf16: bool) -> Row:
    import torch

    from isentropic.entropy.scorer import EntropyScorer
    from isentropic.models.model import precision, vocabulary_size

    model, scorer = loaded.model, EntropyScorer()

    def both(count: int) -> None:
        torch.manual_seed(0)
        width = PROMPT + job["length"]
        ids = torch.randint(vocabulary_size(model), (count, width))
        predicts = torch.zeros((count, width), dtype=torch.bool)
        predicts[:, PROMPT - 1 : -1] = True
        rows = (ids, torch.ones_like(ids), predicts)
        with precision(ids.device, bf16), torch.no_grad():
            entropies = scorer.score(model, *rows).means()
        with precision(ids.device, bf16):
            loss, _ = scorer.weighted(model, *rows, entropies - entropies.mean())
            loss.backward()

    both(2)  # libraries, threads and the gradients' memory
    held = start_peak()
    start = time.perf_counter()
    both(job["sequences"])
    seconds = time.perf_counter() - start
    tokens = job["sequences"] * job["length"]
    working = max(0.0, peak_mb() - held)
    return {
        "tokens": tokens,
        "seconds": seconds,
        "ms_per_token": 1000 * seconds / tokens,
        "peak_mb": peak_mb(),
        "working_mb": working,
        "working_kb_per_token": 1024 * working / tokens,
    }


def measure_pairs(job: Row, loaded: Any, bf16: bool) -> Row:
    from dataclasses import replace

    from isentropic.measure.measurement import measure
    from isentropic.prompts.load import load_prompts

    prompts = load_prompts().first(job["pairs"])
    held = start_peak()
    start = time.perf_counter()
    # Without the weights' hash nothing comes from the cache of responses.
    measure(replace(loaded, sha256=None), prompts, bf16=bf16)
    seconds = time.perf_counter() - start
    pairs = len(prompts.tuples())
    return {
        "pairs": pairs,
        "seconds": seconds,
        "seconds_per_pair": seconds / pairs,
        "peak_mb": peak_mb(),
        "working_mb": peak_mb() - held,
    }


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "growth", repeats=3)
    flags.add_argument("--sequences", type=int, default=8, help="sequences at x1")
    flags.add_argument("--length", type=int, default=24, help="response tokens of a sequence")
    flags.add_argument(
        "--pairs", type=int, default=30, help="pairs at x1 in measure; the other size is ten times that"
    )
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    if args.quick:
        args.repeats, args.sequences, args.length, args.pairs = 1, 2, 6, 3
    base = {"quick": args.quick, "threads": args.threads, "model": model_name(args), "length": args.length}
    jobs = {f"tokens x{times}": {**base, "sequences": times * args.sequences} for times in TIMES}
    jobs |= {f"prompts x{times}": {**base, "pairs": times * args.pairs} for times in (1, 10)}
    runs = interleaved(jobs, args.repeats, lambda side: run_job(__file__, jobs[side], one_run))
    middle = {side: medians(found) for side, found in runs.items()}
    first, one = middle["tokens x1"], middle["prompts x1"]
    rows = []
    for side, row in middle.items():
        unit, base_row = ("ms_per_token", first) if "tokens" in row else ("seconds_per_pair", one)
        row["time_ratio"] = row[unit] / base_row[unit]
        row["working_ratio"] = row["working_mb"] / base_row["working_mb"] if base_row["working_mb"] else None
        each = f"{row[unit]:.3f} ms a token" if unit == "ms_per_token" else f"{row[unit]:.3f} s a pair"
        rows.append(
            [number(row["time_ratio"]), number(row["working_ratio"]), side, f"{row.get('tokens', row.get('pairs')):.0f}",
             number(row["seconds"]), each, number(row["peak_mb"], ".0f"), number(row["working_mb"], ".0f"),
             number(row.get("working_kb_per_token"), ".0f")]
        )  # fmt: skip
    text = markdown(
        ["time of one, of x1", "working memory, of x1", "size", "tokens or pairs", "seconds", "time of one", "peak MB",
         "working MB", "KB a token"],
        rows,
    )  # fmt: skip
    publish(args, "growth", text, {"sides": middle, "runs": runs})


if __name__ == "__main__":
    main()
