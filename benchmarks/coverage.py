"""Do the intervals and verdicts of gap.py keep their promise? A simulation through the library's own functions.

    python benchmarks/coverage.py [--draws 4000] [--out benchmarks/results/coverage.json] [--docs docs/coverage.md]

Prints Markdown tables, writes all figures as JSON, and puts the tables between the markers of the given page.
One core, two to three minutes.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy
from scipy.special import ndtr, stdtrit

from isentropic.gap.estimate import Crossed, clusters_of, paired_gap, unpaired_gap
from isentropic.gap.groups import group_gaps, widest_pair
from isentropic.gap.verdict import joint_verdict, verdict
from isentropic.prompts.builtin import Filler, Template, builtin, combine
from isentropic.prompts.prompt_set import Prompt

SEED = 20240607
SHARED_SD, OWN_SD = 0.08, 0.7  # sd of one pair's gap, nats, with shared and with own responses
TOPIC_SHARE = 0.2  # part of the variance that lies between topics
PAIRS = (20, 50, 200, 1000)
TOPICS = {20: 6, 50: 10, 200: 16, 1000: 24}
MARKERS = ("<!-- tables: python benchmarks/coverage.py -->", "<!-- end of tables -->")

# All have mean 0 and variance 1.
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "heavy-tailed (t, 3 df)": lambda rng, size: rng.standard_t(3, size) / math.sqrt(3),
    "skewed (gamma, skewness 1.4)": lambda rng, size: (rng.gamma(2, size=size) - 2) / math.sqrt(2),
    "extreme (lognormal, skewness 6.2)": lambda rng, size: (
        (np.exp(rng.standard_normal(size)) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    ),
}


def bootstrap_interval(
    differences: np.ndarray,
    clusters: Sequence | np.ndarray | None = None,
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """A studentised bootstrap interval of the paired gap, to compare with; whole clusters are resampled.

    `[gap - q_high * se, gap - q_low * se]`, q the quantiles of `(gap* - gap) / se*` over resamples. It makes no
    assumption on the shape of the differences. (nan, nan) where `paired_gap` has no standard error.

    Source: Efron and Tibshirani 1993, chapter 12; Hall 1988.
    """
    d = np.asarray(differences, dtype=np.float64)
    part, estimate = clusters_of(clusters, d.size), paired_gap(d, clusters)
    if not estimate.known:
        return (math.nan, math.nan)
    sums, rows = np.bincount(part.member, weights=d), part.sizes.astype(np.float64)
    gaps, ses = np.empty(draws), np.empty(draws)
    step = max(1, 2_000_000 // rows.size)  # 16 MB of indices at once
    for start in range(0, draws, step):
        block = slice(start, min(start + step, draws))
        pick = rng.integers(0, rows.size, (block.stop - start, rows.size))
        k = rows[pick]
        n = k.sum(1, keepdims=True)
        mean = sums[pick].sum(1, keepdims=True) / n
        gaps[block] = mean[:, 0]
        ses[block] = np.sqrt(((sums[pick] - k * mean) ** 2 / (1 - k / n)).sum(1)) / n[:, 0]
    scored = ses > 1e-12 * (np.abs(gaps) + estimate.se)  # one unit over and over has no error to divide by
    t = (gaps[scored] - estimate.gap) / ses[scored]
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return float(estimate.gap - high * estimate.se), float(estimate.gap - low * estimate.se)


def pairs_for_halfwidth(sd: float, halfwidth: float, level: float = 0.95) -> int:
    """Fewest independent pairs for `gap ± halfwidth`: smallest n with `t_{n-1} sd / sqrt(n) <= halfwidth`.

    With topics multiply by the design effect `(se_topics / se_pairs)^2`.
    """

    def enough(n: int) -> bool:
        return bool(stdtrit(n - 1, (1 + level) / 2) * sd / math.sqrt(n) <= halfwidth)

    return bisect.bisect_left(range(100_000_000), True, lo=2, key=enough)


def unequal_sizes(n: int, topics: int) -> list[int]:
    """Topic sizes that rise from 1 to 4 parts and sum to n."""
    edges = np.round(np.cumsum(np.linspace(1, 4, topics)) / np.linspace(1, 4, topics).sum() * n).astype(int)
    return np.diff(edges, prepend=0).tolist()


def samples(
    shape: str, sizes: list[int] | None, n: int, draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """`draws` data sets of n unit-variance differences; with sizes, topics share an effect of the same shape."""
    draw = SHAPES[shape]
    for start in range(0, draws, 500):
        block = min(500, draws - start)
        d = draw(rng, (block, n))
        if sizes is not None:
            effect = np.repeat(draw(rng, (block, len(sizes))), sizes, axis=1)
            d = math.sqrt(1 - TOPIC_SHARE) * d + math.sqrt(TOPIC_SHARE) * effect
        yield from d


def coverage_cell(shape: str, sizes: list[int] | None, n: int, draws: int, bootstrap: int) -> dict:
    """How often the 95% intervals hold the truth (0)."""
    rng = np.random.default_rng([SEED, n, len(sizes or ()), list(SHAPES).index(shape)])
    labels = None if sizes is None else np.repeat(np.arange(len(sizes)), sizes)
    held = naive = plain_df = boot = 0
    halves = []
    for i, d in enumerate(samples(shape, sizes, n, draws, rng)):
        e = paired_gap(d, labels)
        low, high = e.ci95
        held += low <= 0 <= high
        halves.append((high - low) / 2)
        if labels is not None:
            plain_df += abs(e.gap) <= float(stdtrit(e.n_clusters - 1, 0.975)) * e.se
            low, high = paired_gap(d).ci95
            naive += low <= 0 <= high
        if i < bootstrap:
            low, high = bootstrap_interval(d, labels, rng=rng, draws=400)
            boot += low <= 0 <= high
    return {
        "shape": shape,
        "pairs": n,
        "topics": None if sizes is None else len(sizes),
        "sizes": sizes,
        "draws": draws,
        "coverage": held / draws,
        "in_range": 0.93 <= held / draws <= 0.97,
        "median_halfwidth_in_sd": float(np.median(halves)),
        "coverage_topics_minus_1_df": None if labels is None else plain_df / draws,
        "coverage_topics_ignored": None if labels is None else naive / draws,
        "bootstrap_draws": bootstrap,
        "bootstrap_coverage": boot / bootstrap if bootstrap else None,
    }


def crossed_cell(prompts: Sequence[Prompt], shares: tuple[float, float], draws: int) -> dict:
    """How often intervals hold the truth where templates and what fills them both recur.

    `prompts` is one twin of each pair; `shares` of the variance lie between templates and between fillers.
    """
    pairs = len(prompts)
    rng = np.random.default_rng([SEED, pairs, *(round(100 * share) for share in shares)])
    topics, fillers = (
        np.unique([getattr(p, name) for p in prompts], return_inverse=True)[1] for name in ("topic", "filler")
    )
    both = [Crossed(*label) for label in zip(topics.tolist(), fillers.tolist(), strict=True)]
    held, ratio = dict.fromkeys(("topics_held", "fillers_held", "both_held"), 0), []
    for _ in range(draws):
        d = rng.normal(0, math.sqrt(1 - sum(shares)), pairs)
        for labels, share in zip((topics, fillers), shares, strict=True):
            d += rng.normal(0, math.sqrt(share), labels.max() + 1)[labels]
        found = {
            name: paired_gap(d, labels) for name, labels in zip(held, (topics, fillers, both), strict=True)
        }
        for name, e in found.items():
            held[name] += e.ci95[0] <= 0 <= e.ci95[1]
        ratio.append(found["both_held"].se / found["topics_held"].se)
    return {
        "pairs": pairs,
        "topics": len(set(topics)),
        "fillers": len(set(fillers)),
        "shares": shares,
        "draws": draws,
        **{name: count / draws for name, count in held.items()},
        "se_ratio": float(np.median(ratio)),
    }


def dealt(rounds: int) -> list[Prompt]:
    """24 fillers dealt to 16 templates as the built-in prompts are, `rounds` to each."""
    templates = [Template(f"template {t}", "any", "{filler}", "test") for t in range(16)]
    return combine(
        templates, {"any": [Filler(f"filler {f}", {"twin": {}}) for f in range(24)]}, rounds, "test"
    )


def builtin_pairs(n: int) -> list[Prompt]:
    """One twin of each of the first n built-in test pairs."""
    return [twins[0] for twins in builtin().split("test").first(n).tuples()]


def unpaired_cell(n: tuple[int, int], sd: tuple[float, float], topics: int, draws: int) -> dict:
    """Coverage for two unpaired groups; topics, if any, are shared by the groups."""
    rng = np.random.default_rng([SEED, *n, topics])
    labels = []
    for size in n:
        sizes = unequal_sizes(size, topics) if topics else [1] * size
        labels.append(np.repeat(np.arange(len(sizes)), sizes).tolist())
    held = 0
    for _ in range(draws):
        values = [rng.normal(3.5, s, size) for s, size in zip(sd, n, strict=True)]
        if topics:
            both, own = rng.normal(0, 0.2, topics), rng.normal(0, 0.15, (2, topics))
            values = [v + both[t] + own[k][t] for k, (v, t) in enumerate(zip(values, labels, strict=True))]
            e = unpaired_gap(values[0], values[1], labels[0], labels[1])
        else:
            e = unpaired_gap(values[0], values[1])
        held += e.ci95[0] <= 0 <= e.ci95[1]
    return {"prompts": n, "sd": sd, "topics": topics or None, "draws": draws, "coverage": held / draws}


def groups_cell(groups: int, n: int, topics: int, twins: bool, draws: int) -> dict:
    """Several groups without any gap: how often all intervals hold, and how often one of them is said to exceed.

    Beside the joint figures those of the widest pair alone, picked after looking.
    """
    rng = np.random.default_rng([SEED, groups, n, topics, twins])
    labels = np.arange(n) % topics if topics else None
    target, counts = 1e-6, {"joint": 0, "widest": 0, "joint_exceeds": 0, "widest_exceeds": 0}
    for _ in range(draws):
        h = rng.standard_normal((n, groups))
        if labels is not None:
            h = math.sqrt(1 - TOPIC_SHARE) * h
            h += math.sqrt(TOPIC_SHARE) * rng.standard_normal((topics, groups))[labels]
        by_group = {str(g): h[:, g] for g in range(groups)}
        clusters = labels if twins or labels is None else dict.fromkeys(by_group, labels)
        rows = group_gaps(by_group, clusters, paired=twins)
        widest = widest_pair(rows).estimate
        alone = widest.interval(0.95)
        counts["joint"] += all(row.estimate.ci95[0] <= 0 <= row.estimate.ci95[1] for row in rows)
        counts["widest"] += alone[0] <= 0 <= alone[1]
        counts["joint_exceeds"] += joint_verdict([row.estimate for row in rows], target).verdict == "exceeds"
        counts["widest_exceeds"] += verdict(widest, target).verdict == "exceeds"
    shares = {name: count / draws for name, count in counts.items()}
    return {"groups": groups, "pairs": n, "topics": topics or None, "twins": twins, "draws": draws, **shares}


def verdict_cell(sd: float, target: float, n: int, topics: int, draws: int) -> dict:
    """Share of each verdict at true gaps of 0, the target and twice the target."""
    rng = np.random.default_rng([SEED, n, topics, round(1000 * target), round(1000 * sd)])
    sizes = unequal_sizes(n, topics) if topics else None
    labels = None if sizes is None else np.repeat(np.arange(len(sizes)), sizes)
    counts = {gap: {"certified": 0, "exceeds": 0, "insufficient": 0} for gap in (0, 1, 2)}
    for d in samples("normal", sizes, n, draws, rng):
        for gap, count in counts.items():
            count[verdict(paired_gap(sd * d + gap * target, labels), target).verdict] += 1
    return {
        "sd": sd,
        "target_gap": target,
        "pairs": n,
        "topics": topics or None,
        "draws": draws,
        "certified_at_0": counts[0]["certified"] / draws,
        "certified_at_target": counts[1]["certified"] / draws,
        "exceeds_at_target": counts[1]["exceeds"] / draws,
        "certified_at_twice_target": counts[2]["certified"] / draws,
        "exceeds_at_twice_target": counts[2]["exceeds"] / draws,
    }


def one_minibatch_cell(sd: float, target: float, draws: int) -> dict:
    """The rule 'stop when one minibatch is at or under the target', at a true gap of twice the target."""
    rng = np.random.default_rng([SEED, round(1000 * sd), round(1000 * target)])
    passed = np.abs(rng.normal(2 * target, sd, (draws, 50))) <= target
    once = float(ndtr(-target / sd) - ndtr(-3 * target / sd))
    return {
        "sd": sd,
        "target_gap": target,
        "draws": draws,
        "within_20_steps": float(passed[:, :20].any(1).mean()),
        "within_50_steps": float(passed.any(1).mean()),
        "closed_form_20": 1 - (1 - once) ** 20,
        "closed_form_50": 1 - (1 - once) ** 50,
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    line = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(line)


def percent(share: float | None, digits: int = 1) -> str:
    return "" if share is None else f"{100 * share:.{digits}f}"


def bold_if_out(share: float) -> str:
    return percent(share) if 0.93 <= share <= 0.97 else f"**{percent(share)}**"


def render(result: dict) -> str:
    """All tables as Markdown."""
    plain, topical = result["coverage"], result["coverage_topics"]
    unpaired, needed = result["unpaired"], result["pairs_for_0.01"]
    parts = [
        "### Pairs as the unit\n",
        table(
            ["differences", "pairs", "draws", "coverage %", "bootstrap %"],
            [
                [
                    c["shape"],
                    str(c["pairs"]),
                    str(c["draws"]),
                    bold_if_out(c["coverage"]),
                    percent(c["bootstrap_coverage"]),
                ]
                for c in plain
            ],
        ),
        f"\n### Topics of unequal size (1 to 4), {TOPIC_SHARE:.0%} of the variance between topics, "
        f"{topical[0]['draws']} draws a cell\n",
        table(
            [
                "differences",
                "pairs",
                "topics",
                "coverage %",
                "with topics - 1 df %",
                "topics ignored %",
                "bootstrap %",
            ],
            [
                [
                    c["shape"],
                    str(c["pairs"]),
                    str(c["topics"]),
                    bold_if_out(c["coverage"]),
                    percent(c["coverage_topics_minus_1_df"]),
                    percent(c["coverage_topics_ignored"]),
                    percent(c["bootstrap_coverage"]),
                ]
                for c in topical
            ],
        ),
        "\n### Few or lopsided topics, normal differences\n",
        table(
            [
                "topic sizes",
                "coverage %",
                "with topics - 1 df %",
                "topics ignored %",
                "median half-width (sd)",
            ],
            [
                [
                    c["name"],
                    bold_if_out(c["coverage"]),
                    percent(c["coverage_topics_minus_1_df"]),
                    percent(c["coverage_topics_ignored"]),
                    f"{c['median_halfwidth_in_sd']:.2f}",
                ]
                for c in result["lopsided"]
            ],
        ),
        "\n### Templates and fillers that both recur, dealt as the built-in pairs are; normal differences\n",
        table(
            [
                "pairs",
                "templates",
                "fillers",
                "variance between templates, fillers",
                "templates counted %",
                "fillers counted %",
                "both counted %",
                "standard error, both / templates",
            ],
            [
                [
                    str(c["pairs"]),
                    str(c["topics"]),
                    str(c["fillers"]),
                    f"{c['shares'][0]:.0%}, {c['shares'][1]:.0%}",
                    bold_if_out(c["topics_held"]),
                    bold_if_out(c["fillers_held"]),
                    bold_if_out(c["both_held"]),
                    f"{c['se_ratio']:.2f}",
                ]
                for c in result["crossed"]
            ],
        ),
        "\n### Unpaired groups (Welch; CR2 with topics)\n",
        table(
            ["prompts", "sd of each group", "topics", "coverage %"],
            [
                [
                    f"{c['prompts'][0]} + {c['prompts'][1]}",
                    f"{c['sd'][0]}, {c['sd'][1]}",
                    str(c["topics"] or "none"),
                    bold_if_out(c["coverage"]),
                ]
                for c in unpaired
            ],
        ),
        "\n### More than two groups without a gap: all intervals at once (max-t), and the widest pair alone\n",
        table(
            [
                "groups",
                "rows of each",
                "topics",
                "all intervals hold %",
                "widest alone holds %",
                "wrong exceeds % (joint)",
                "wrong exceeds % (widest alone)",
            ],
            [
                [
                    f"{c['groups']}, {'twins' if c['twins'] else 'no twins'}",
                    str(c["pairs"]),
                    str(c["topics"] or "none"),
                    bold_if_out(c["joint"]),
                    percent(c["widest"]),
                    percent(c["joint_exceeds"]),
                    percent(c["widest_exceeds"]),
                ]
                for c in result["groups"]
            ],
        ),
        "\n### Verdicts, per cent of draws\n",
        table(
            [
                "sd of a pair",
                "target",
                "pairs",
                "topics",
                "certified, true gap 2 x target",
                "certified, true gap = target",
                "certified, true gap 0",
                "exceeds, true gap = target",
                "exceeds, true gap 2 x target",
            ],
            [
                [
                    f"{c['sd']}",
                    f"{c['target_gap']}",
                    str(c["pairs"]),
                    str(c["topics"] or "none"),
                    percent(c["certified_at_twice_target"], 2),
                    percent(c["certified_at_target"]),
                    percent(c["certified_at_0"]),
                    percent(c["exceeds_at_target"]),
                    percent(c["exceeds_at_twice_target"]),
                ]
                for c in result["verdicts"]
            ],
        ),
        "\n### One minibatch at or under the target (1 + 1 prompts, own responses), true gap 2 x target\n",
        table(
            ["sd of a minibatch gap", "target", "declared done within 20 steps %", "within 50 steps %"],
            [
                [
                    f"{c['sd']}",
                    f"{c['target_gap']}",
                    percent(c["within_20_steps"]),
                    percent(c["within_50_steps"]),
                ]
                for c in result["one_minibatch"]
            ],
        ),
        "\n### Pairs for an interval of ±0.01 nats\n",
        table(
            ["responses", "sd of a pair", "pairs"],
            [[c["responses"], f"{c['sd']}", f"{c['pairs']:,}"] for c in needed],
        ),
    ]
    return "\n".join(parts) + "\n"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def run(draws: int) -> dict:
    start = time.perf_counter()
    lopsided = {
        "2 topics: 100, 100": [100, 100],
        "2 topics: 40, 160": [40, 160],
        "3 topics: 20, 60, 120": [20, 60, 120],
        "4 topics: 10, 20, 30, 140": [10, 20, 30, 140],
        "11 topics: one of 100, ten of 10": [100] + [10] * 10,
        "40 topics: 20 of 1, 20 of 9": [1] * 20 + [9] * 20,
    }
    result = {
        "coverage": [
            # The cells with few pairs lie nearest the edge of 93-97% and are cheap: more draws there.
            coverage_cell(shape, None, n, draws * (5 if n <= 50 else 1), draws // 2 if n <= 200 else 0)
            for shape in SHAPES
            for n in PAIRS
        ],
        "coverage_topics": [
            coverage_cell(shape, unequal_sizes(n, TOPICS[n]), n, draws, draws // 2)
            for shape in SHAPES
            for n in PAIRS
        ],
        "lopsided": [
            {"name": name} | coverage_cell("normal", sizes, sum(sizes), draws, 0)
            for name, sizes in lopsided.items()
        ],
        "crossed": [
            crossed_cell(prompts, shares, draws)
            for prompts in (dealt(6), dealt(21), *map(builtin_pairs, (100, 336, 516)))
            for shares in ((0.34, 0.05), (0.2, 0.1), (0.34, 0.2))
        ],
        "unpaired": [
            unpaired_cell(n, sd, topics, draws)
            for n, sd, topics in (
                ((20, 20), (0.6, 0.6), 0),
                ((20, 80), (0.9, 0.3), 0),
                ((200, 200), (0.6, 0.8), 0),
                ((40, 60), (0.5, 0.5), 10),
                ((200, 300), (0.5, 0.7), 16),
            )
        ],
        "groups": [
            groups_cell(groups, n, topics, twins, draws // 2)
            for groups, n, topics, twins in (
                (3, 40, 0, True),
                (4, 40, 0, True),
                (6, 40, 0, True),
                (3, 240, 20, True),
                (4, 200, 16, True),
                (4, 40, 0, False),
                (3, 180, 12, False),
            )
        ],
        "verdicts": [
            verdict_cell(sd, target, n, topics, draws)
            for sd, target, sizes in (
                (SHARED_SD, 0.01, PAIRS),
                (SHARED_SD, 0.05, PAIRS[:3]),
                (OWN_SD, 0.01, (1000,)),
            )
            for n in sizes
            for topics in (0, TOPICS[n])
        ],
        "one_minibatch": [
            one_minibatch_cell(sd, target, 20 * draws)
            for target in (0.01, 0.02, 0.05)
            for sd in (0.6, 0.7, 0.8)
        ],
        "pairs_for_0.01": [
            {"responses": name, "sd": sd, "pairs": pairs_for_halfwidth(sd, 0.01)}
            for name, sd in (("shared", SHARED_SD), ("own", OWN_SD))
        ],
    }
    about = {
        "command": f"python benchmarks/coverage.py --draws {draws}",
        "seed": SEED,
        "draws": draws,
        "seconds": round(time.perf_counter() - start, 1),
        "machine": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    return {"about": about} | result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Coverage of gap.py's intervals, and how often its verdicts err."
    )
    parser.add_argument(
        "--draws", type=int, default=4000, help="simulated data sets a cell (at least 2000 to publish)"
    )
    parser.add_argument("--out", type=Path, help="write all figures here as JSON")
    parser.add_argument("--docs", type=Path, help="put the tables between the markers of this page")
    args = parser.parse_args()
    result = run(args.draws)
    tables = render(result)
    print(tables)
    print(f"{result['about']['seconds']} s on {result['about']['machine']}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    if args.docs:
        before, rest = args.docs.read_text().split(MARKERS[0])
        after = rest.split(MARKERS[1])[1]
        args.docs.write_text(f"{before}{MARKERS[0]}\n\n{tables}\n{MARKERS[1]}{after}")


if __name__ == "__main__":
    main()
