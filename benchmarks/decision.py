"""How often is the decision of a run wrong, when it may look several times at more and more test pairs?

    isentropic compare smollm2-135m runs/demo/final --json compared.json
    python benchmarks/decision.py --from_json compared.json [--draws 10000]

The gaps of real pairs before and after training are moved so that the gap after is exactly the target, and whole topics
are drawn with replacement: some are measured before training only, as training and validation prompts are, the others
after it too. Each run looks at its test pairs as `isentropic train --until_decided` does. At a gap of exactly the target
neither "certified" nor "exceeds" may come in more than 5 of 100 runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from common import Row, parser, publish
from common import table as markdown
from isentropic.gap import Verdict, two_phase_gaps, verdict
from isentropic.measure.decision import error_of_look, look_sizes

SEED = 20261127


def decided(
    x: np.ndarray, y: np.ndarray, topics: np.ndarray, sizes: list[int], target: float
) -> tuple[Verdict, int]:
    """The verdict of one run and the number of its looks; test pairs come first in `x`, `y` and `topics`."""
    for look, size in enumerate(sizes):
        kept = np.r_[
            :size, sizes[-1] : len(x)
        ]  # the test pairs of this look, and those measured before alone
        alpha = error_of_look(look, len(sizes))
        before, after = ({"a": np.zeros(len(v)), "b": v} for v in (x[kept], y[:size]))
        row = two_phase_gaps(before, after, range(size), topics[kept], level=1 - alpha)[0]
        found = verdict(row.estimate, target, alpha)
        if found.verdict != "insufficient":
            break
    return found, look + 1


def draw(
    groups: list[np.ndarray], pairs: int, first: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of whole topics until there are so many pairs, in random order, and the topic of each."""
    rows, labels = [], []
    while sum(map(len, rows)) < pairs:
        rows.append(groups[rng.integers(len(groups))])
        labels.append(np.full(len(rows[-1]), first + len(labels)))
    order = rng.permutation(sum(map(len, rows)))[:pairs]
    return np.concatenate(rows)[order], np.concatenate(labels)[order]


def simulate(pairs: Row, sizes: list[int], before_only: int, target: float, true: float, draws: int) -> Row:
    """Shares of the verdicts, and the mean number of looks, at a true gap after training of `true`."""
    x, y = np.array(pairs["before"]), np.array(pairs["after"])
    y = y - y.mean() + true
    topics = np.unique(pairs["topics"], return_inverse=True)[1]
    groups = [np.flatnonzero(topics == t) for t in range(topics.max() + 1)]
    rng = np.random.default_rng([SEED, len(sizes), round(1e5 * true)])
    counts, looks = {"certified": 0, "exceeds": 0, "insufficient": 0}, 0
    for _ in range(draws):
        tested, labels = draw(groups, sizes[-1], 0, rng)
        earlier, others = draw(groups, before_only, 10**6, rng)
        rows = np.concatenate([tested, earlier])
        found, used = decided(x[rows], y[rows], np.concatenate([labels, others]), sizes, target)
        counts[found.verdict] += 1
        looks += used
    return (
        {"target": target, "true": true, "sizes": sizes}
        | {k: v / draws for k, v in counts.items()}
        | {"looks": looks / draws}
    )


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "decision")
    flags.add_argument(
        "--from_json", type=Path, help="a comparison, or figures of an earlier run, for the pair gaps"
    )
    flags.add_argument("--draws", type=int, default=10_000)
    args = flags.parse_args(arguments)
    if args.from_json:
        data = json.loads(args.from_json.read_text(encoding="utf-8"))
        pairs = data.get("pairs") or {
            "before": [row["gap"] for row in data["models"][0]["summary"]["pair_gaps"]],
            "after": [row["gap"] for row in data["models"][1]["summary"]["pair_gaps"]],
            "topics": [row["topic"] for row in data["models"][0]["summary"]["pair_gaps"]],
        }
    else:  # made up, with the spread that the small model has
        rng = np.random.default_rng(SEED)
        topics = np.repeat(np.arange(60), 3)
        x = 0.046 * rng.normal(size=60)[topics] + 0.064 * rng.normal(size=180) - 0.04
        y = x + 0.018 * rng.normal(size=60)[topics] + 0.009 * rng.normal(size=180) + 0.04
        pairs = {"before": x.tolist(), "after": y.tolist(), "topics": topics.tolist()}
    draws = 40 if args.quick else args.draws
    cells = [
        simulate(pairs, look_sizes(128, most), 160, target, true, draws)
        for most in (0, 336)
        for target, true in ((0.02, 0.02), (0.02, 0.0), (0.02, 0.003), (0.01, 0.01), (0.01, 0.0))
    ]
    rows = [
        [" / ".join(map(str, c["sizes"])), c["target"], c["true"], *(f"{100 * c[k]:.2f}" for k in ("certified", "exceeds")),
         f"{100 * c['insufficient']:.1f}", f"{c['looks']:.2f}"]
        for c in cells
    ]  # fmt: skip
    head = [
        "test pairs of the looks",
        "target",
        "true gap",
        "certified %",
        "exceeds %",
        "insufficient %",
        "looks",
    ]
    text = markdown(head, rows) + f"\n\n160 pairs measured before training alone; {draws} runs a row."
    publish(args, "decision", text, {"draws": draws, "cells": cells, "pairs": pairs})


if __name__ == "__main__":
    main()
