"""How time and memory grow: response tokens x1, x2, x4, x8 in scoring and backward pass; prompts x10 in measure; and,
with a tiny random model, prompts x1, x10, x100 through everything: reading, measuring, the report, the start of a training.

    python benchmarks/growth.py [--sequences 8] [--length 24] [--pairs 30] [--repeats 3] [--model NAME]
    python benchmarks/growth.py --only_data [--data 300]

A run scores all sequences without gradient and goes back through them with known weights: the two passes of the exact
loss. "Working" memory is the peak beyond weights and gradients. Each run has a process of its own.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
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
    tiny_model,
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
    if "data" in job:
        return all_of_it(job["data"])
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


def all_of_it(pairs: int) -> Row:
    """A topic for each pair, a cell for each ten; every prompt another one, made of the words of the built-in ones."""
    from isentropic.measure.measurement import measure
    from isentropic.models.load import load_model
    from isentropic.prompts.load import load_prompts
    from isentropic.report.render import render_html
    from isentropic.responses.response import Sampling
    from isentropic.training.config import DebiasingConfig
    from isentropic.training.trainer import DebiasingTrainer

    loaded = replace(load_model(tiny_model()), sha256=None)
    twins = load_prompts().tuples()
    words = list(dict.fromkeys(word for pair in twins for word in pair[0].text.split()))
    rows = [
        {"prompt": f"{words[i // len(twins)]} {p.text}", "group": p.group, "pair_id": f"p{i}", "topic": f"t{i}",
         "cell": f"c{i // 10}"}
        for i in range(pairs) for p in twins[i % len(twins)]
    ]  # fmt: skip
    row: Row = {"pairs": pairs}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        held, start = start_peak(), time.perf_counter()
        found = work()
        row[f"{stage}_seconds"], row[f"{stage}_mb"] = time.perf_counter() - start, max(0.0, peak_mb() - held)
        return found

    prompts = timed("reading", lambda: load_prompts(rows))
    found = timed("measuring", lambda: measure(loaded, prompts, sampling=Sampling(max_new_tokens=6)))
    row["report_size_mb"] = len(timed("report", lambda: render_html(found.summary))) / 2**20
    train, held_out = prompts.split("train"), prompts.split("validation").first(12)
    steps = -(-len(train) // 64)  # so many that every pair is drawn
    with tempfile.TemporaryDirectory() as folder:
        args = DebiasingConfig(
            folder, max_steps=steps, effective_batch=64, micro_batch_size=8, max_new_tokens=6, use_cpu=True
        )
        timed("training_start", DebiasingTrainer(loaded, args, train, held_out).prepare)
    return row


def data_table(middle: dict[str, Row]) -> str:
    """Seconds and working memory of each stage, by the number of pairs."""
    stages = ("reading", "measuring", "report", "training_start")
    head = [
        "size",
        "pairs",
        *(f"{stage.replace('_', ' ')}, {unit}" for unit in ("s", "MB") for stage in stages),
    ]
    head.append("report's size, MB")
    lines = [
        [side, f"{row['pairs']:.0f}", *(number(row[f"{stage}_seconds"]) for stage in stages),
         *(number(row[f"{stage}_mb"], ".0f") for stage in stages), number(row["report_size_mb"])]
        for side, row in middle.items() if "report_size_mb" in row
    ]  # fmt: skip
    return markdown(head, lines)


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "growth", repeats=3)
    flags.add_argument("--sequences", type=int, default=8, help="sequences at x1")
    flags.add_argument("--length", type=int, default=24, help="response tokens of a sequence")
    flags.add_argument(
        "--pairs", type=int, default=30, help="pairs at x1 in measure; the other size is ten times that"
    )
    flags.add_argument("--data", type=int, default=300, help="pairs at x1 with the tiny model")
    flags.add_argument("--only_data", action="store_true", help="the tiny model's part alone")
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    if args.quick:
        args.repeats, args.sequences, args.length, args.pairs, args.data = 1, 2, 6, 3, 24
    base = {"quick": args.quick, "threads": args.threads, "model": model_name(args), "length": args.length}
    jobs = {f"tokens x{times}": {**base, "sequences": times * args.sequences} for times in TIMES}
    jobs |= {f"prompts x{times}": {**base, "pairs": times * args.pairs} for times in (1, 10)}
    data = {f"data x{n}": {**base, "data": n * args.data} for n in ((1, 2) if args.quick else (1, 10, 100))}
    jobs = data if args.only_data else jobs | data
    runs = interleaved(jobs, args.repeats, lambda side: run_job(__file__, jobs[side], one_run))
    middle = {side: medians(found) for side, found in runs.items()}
    if args.only_data:
        args.model = "tiny random"
        publish(args, "growth", data_table(middle), {"sides": middle, "runs": runs})
        return
    first, one = middle["tokens x1"], middle["prompts x1"]
    rows = []
    for side, row in middle.items():
        if side in data:
            continue
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
    publish(args, "growth", f"{text}\n\n{data_table(middle)}", {"sides": middle, "runs": runs})


if __name__ == "__main__":
    main()
