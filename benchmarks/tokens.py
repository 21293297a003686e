"""Tokens that go through the body and through the head in `measure`, by purpose, and how busy they keep the processor.

    python benchmarks/tokens.py [--pairs 100] [--model NAME]

Padding counts: it is computed like everything else. Model FLOP utilisation counts 2 operations a parameter and token,
attention not at all, and divides by what a large matrix product in float32 reached in the same run. Seconds are those of
the processor; threads that wait for each other use some too, so give `--threads 1` on a machine that is not idle.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from common import Row, model_name, number, parser, publish, run_job
from common import table as markdown

PURPOSES = {
    "responses.sample.sample_responses": "sampling",
    "measure.watch.EntropyWatch.batch": "scoring",
    "measure.measurement.score_items": "scoring",
    "measure.measurement.measure_expectation": "expectation",
    "responses.sample.may_share": "trials",
    "responses.sample.generates_otherwise": "trials",
    "entropy.scorer.EntropyScorer.fit_of": "trials",
    "entropy.scorer.EntropyScorer._try_longer": "trials",
}
"""Under which name a function's tokens count; of functions that call each other the innermost."""


def matmul_gflops(quick: bool) -> float:
    """What a large product of random float32 matrices reaches: the best of a few."""
    import torch

    n = 128 if quick else 2048
    a, b = torch.randn(n, n), torch.randn(n, n)
    times = []
    for _ in range(5):
        start = time.process_time()
        a @ b
        times.append(time.process_time() - start)
    return 2 * n**3 / min(times) / 1e9


def counted(model: Any, run: Callable[[], Any]) -> dict[str, Row]:
    """Body tokens, head tokens and seconds of a run, by purpose."""
    from pkgutil import resolve_name

    from isentropic.entropy.fits import decoder_of
    from isentropic.entropy.scorer import entropy_from_hidden

    rows: dict[str, Row] = defaultdict(lambda: {"body": 0, "head": 0, "seconds": 0.0})
    purposes, last = ["other"], [time.process_time()]

    def enter(purpose: str) -> None:
        now = time.process_time()
        rows[purposes[-1]]["seconds"] += now - last[0]
        last[0] = now
        purposes.append(purpose)

    def within(function: Callable, purpose: str) -> Callable:
        def watched(*args: Any, **kwargs: Any) -> Any:
            enter(purpose)
            try:
                return function(*args, **kwargs)
            finally:
                enter(purposes[-2])
                del purposes[-2:]

        return watched

    def through_engine(hidden: Any, *args: Any, **kwargs: Any) -> Any:
        rows[purposes[-1]]["head"] += len(hidden)
        return entropy_from_hidden(hidden, *args, **kwargs)

    def through_body(_part: Any, _args: Any, output: Any) -> None:
        rows[purposes[-1]]["body"] += output.last_hidden_state[..., 0].numel()

    def through_head(_part: Any, _args: Any, output: Any) -> None:
        rows[purposes[-1]]["head"] += output.logits[..., 0].numel()

    with contextlib.ExitStack() as stack:
        for place, purpose in PURPOSES.items():
            head, _, tail = f"isentropic.{place}".rpartition(".")
            owner = resolve_name(head)
            stack.enter_context(patch.object(owner, tail, within(getattr(owner, tail), purpose)))
        stack.enter_context(patch("isentropic.entropy.scorer.entropy_from_hidden", through_engine))
        body = decoder_of(model)
        assert body is not None
        stack.callback(body.register_forward_hook(through_body).remove)
        stack.callback(model.register_forward_hook(through_head).remove)
        run()
        enter("other")
    return rows


def one_run(job: Row) -> Row:
    from dataclasses import replace

    import torch

    from isentropic.measure.measurement import measure
    from isentropic.models.load import load_model
    from isentropic.prompts.load import load_prompts

    if not job["quick"]:
        torch.set_num_threads(job["threads"])
    loaded, prompts = load_model(job["model"]), load_prompts().first(job["pairs"])
    # Without the weights' hash nothing comes from the cache of responses.
    rows = counted(loaded.model, lambda: measure(replace(loaded, sha256=None), prompts, once=True))
    gflops = matmul_gflops(job["quick"])
    embeddings = loaded.model.get_input_embeddings().weight.numel()
    head = loaded.model.get_output_embeddings().weight.numel()
    tied = loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    body = sum(p.numel() for p in loaded.model.parameters()) - embeddings - (0 if tied else head)
    rows["all"] = {name: sum(row[name] for row in rows.values()) for name in ("body", "head", "seconds")}
    for row in rows.values():
        reached = 2 * (body * row["body"] + head * row["head"]) / row["seconds"] / 1e9
        row |= {"gflops": reached, "utilisation": reached / gflops}
    return {"pairs": len(prompts.tuples()), "matmul_gflops": gflops, "purposes": rows}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "tokens")
    flags.add_argument("--pairs", type=int, default=100)
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    job = {"quick": args.quick, "threads": args.threads, "model": model_name(args)}
    found = run_job(__file__, {**job, "pairs": 4 if args.quick else args.pairs}, one_run)
    rows = [
        [purpose, number(row["body"] / found["pairs"], ".1f"), number(row["head"] / found["pairs"], ".1f"),
         number(row["seconds"]), number(row["utilisation"])]
        for purpose, row in sorted(found["purposes"].items(), key=lambda pair: -pair[1]["body"])
    ]  # fmt: skip
    text = markdown(["for", "body tokens a pair", "head tokens a pair", "seconds", "utilisation"], rows)
    publish(args, "tokens", f"{text}\n\nMatrix product: {found['matmul_gflops']:.0f} GFLOP/s.", found)


if __name__ == "__main__":
    main()
