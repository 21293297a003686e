"""How often is a gap of twice the target declared closed? Our verdict, and the predecessor's rule.

    python benchmarks/false_certification.py [--draws 4000] [--from_json FILE] [--model NAME]

One measurement of the untrained model gives each pair's gap, on shared and on own responses. These are moved so that
their mean is exactly twice the target, and resampled: for ours the topics with their pairs (or the pairs, as if there
were no topics), then the verdict; for the ancestor one pair's own-response gap a step, done at the first at or under
the target. --from_json takes the pair gaps from an earlier run's figures, without a model.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from common import Row, model_name, parser, publish
from common import table as markdown
from isentropic.gap.estimate import paired_gap
from isentropic.gap.verdict import verdict

SEED = 20240607
TARGETS = (0.01, 0.02, 0.05)
STEPS = (20, 50)


def measured(model: str, pairs: int | None) -> list[Row]:
    """Topic, shared and own gap of every pair, in nats."""
    import torch

    from isentropic.measure.measurement import measure
    from isentropic.measure.summary import group_entropies
    from isentropic.models.load import load_model
    from isentropic.models.model import has_bfloat16
    from isentropic.prompts.load import load_prompts

    prompts = load_prompts().first(pairs)
    found = measure(load_model(model), prompts, bf16=has_bfloat16(torch.device("cpu")), noise_floor=False)
    shared, own = (
        group_entropies(found.items, found.entropies, prompts.groups, own=only) for only in (False, True)
    )
    return [
        {"topic": item.topic, "shared": float(a[1] - a[0]), "own": float(b[1] - b[0])}
        for item, a, b in zip(found.items, shared, own, strict=True)
    ]


def draw_topics(gaps: np.ndarray, topics: np.ndarray, pairs: int, rng: np.random.Generator) -> tuple:
    """Whole topics with replacement until there are so many pairs; a topic drawn twice counts as two."""
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < pairs:
        chosen.append(np.flatnonzero(topics == rng.integers(topics.max() + 1)))
    return gaps[np.concatenate(chosen)], np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])


def ours(gaps: np.ndarray, topics: np.ndarray | None, pairs: int, target: float, draws: int) -> Row:
    """Shares of our three verdicts at a true gap of twice the target."""
    rng = np.random.default_rng([SEED, pairs, round(1e4 * target)])
    moved = gaps - gaps.mean() + 2 * target
    counts = {"certified": 0, "exceeds": 0, "insufficient": 0}
    for _ in range(draws):
        if topics is None:
            sample = paired_gap(rng.choice(moved, pairs))
        else:
            sample = paired_gap(*draw_topics(moved, topics, pairs, rng))
        counts[verdict(sample, target).verdict] += 1
    return {key: count / draws for key, count in counts.items()}


def ancestor(gaps: np.ndarray, target: float, draws: int) -> Row:
    """Share of runs that one pair's gap at or under the target ends within so many steps."""
    rng = np.random.default_rng([SEED, round(1e4 * target)])
    moved = gaps - gaps.mean() + 2 * target
    hit = np.abs(rng.choice(moved, (draws, max(STEPS)))) <= target
    return {f"within_{steps}_steps": float(hit[:, :steps].any(1).mean()) for steps in STEPS}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "false_certification")
    flags.add_argument("--draws", type=int, default=4000, help="resamples of a cell")
    flags.add_argument(
        "--pairs", type=int, help="pairs that are measured; all of the built-in ones if left out"
    )
    flags.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 500], help="pairs of a resample")
    flags.add_argument("--from_json", type=Path, help="figures of an earlier run, for its pair gaps")
    args = flags.parse_args(arguments)
    if args.quick:
        args.draws, args.pairs, args.sizes = 200, 40, [20]
    if args.from_json:
        pairs = json.loads(args.from_json.read_text(encoding="utf-8"))["pairs"]
    else:
        pairs = measured(model_name(args), args.pairs)
    shared, own = (np.array([pair[kind] for pair in pairs]) for kind in ("shared", "own"))
    _, topics = np.unique([pair["topic"] for pair in pairs], return_inverse=True)
    cells = []
    for target in TARGETS:
        rule = ancestor(own, target, 20 * args.draws)
        for size in args.sizes:
            for unit, labels in (("topics", topics), ("pairs", None)):
                found = ours(shared, labels, size, target, args.draws)
                cells.append({"target_gap": target, "pairs": size, "unit": unit, **found, **rule})

    def percent(share: float) -> str:
        return f"{100 * share:.2f}"

    rows = []
    for cell in cells:
        wrong, theirs = cell["certified"], cell["within_20_steps"]
        # With no wrong verdict at all the ratio is more than that of one in all draws.
        ratio = f"{theirs / wrong:.0f}" if wrong else f"> {theirs * args.draws:.0f}"
        rows.append(
            [ratio, cell["target_gap"], cell["pairs"], cell["unit"], percent(wrong), percent(cell["exceeds"]),
             percent(cell["insufficient"]), *(percent(cell[f"within_{steps}_steps"]) for steps in STEPS)]
        )  # fmt: skip
    text = markdown(
        ["ancestor (20 steps) / ours", "target", "pairs", "unit", "certified, wrongly, %", "exceeds %", "insufficient %",
         *(f"ancestor done within {steps} steps, wrongly, %" for steps in STEPS)],
        rows,
    )  # fmt: skip
    text += (
        f"\n\nTrue gap of twice the target. {len(pairs)} pairs in {topics.max() + 1} topics; standard deviation of a "
        f"pair's gap {shared.std(ddof=1):.3f} on shared, {own.std(ddof=1):.3f} on own responses; {args.draws} draws a cell."
    )
    publish(args, "false_certification", text, {"draws": args.draws, "cells": cells, "pairs": pairs})


if __name__ == "__main__":
    main()
