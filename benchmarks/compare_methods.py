"""Pure beside what else could be done: the same pairs, the same responses, equal steps and equal time.

    python benchmarks/compare_methods.py [--seeds 0,1,2] [--runs runs/compare_methods] [--docs docs/results.md]

The model's weights are rounded to bfloat16 first, as models come from the hub; all arithmetic is float32. For each seed:
`isentropic train` with its defaults (pure), which stops on its own; then, for as many steps,

- pure with nothing held, the expectation closed in place of the entropy gap, GEE and the predecessor's method, the last three
  also for as many steps as fit into the seconds pure spent on its steps;
- placebo: the same responses and optimizer, but cross-entropy of each response after its own prompt, so no gap in the loss;
- counterfactual data: cross-entropy of whole texts, each response after both twins' prompts, of all weights and by LoRA;

and without training

- steering: the mean difference of the groups' hidden states, taken out of the middle layer;
- a system prompt that asks for equal treatment, in the chat form and against the chat form without it.

Then all are measured on the responses of the untouched model, and with ISENTROPIC_BENCHMARKS (a folder of public sets) on
stereotype tests; if lm-evaluation-harness is installed, its questions are asked too. Trained weights are measured as float32,
and once more rounded to bfloat16: to the nearest, and by chance as `isentropic train` saves them. Pure keeps its best validated
weights, the others the last ones. What is finished is read and not made again, so this can be run in pieces; --keep keeps the
weights.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    Row,
    as_on_the_hub,
    drop_weights,
    into_page,
    medians,
    model_name,
    number,
    parser,
    publish,
    run_job,
    step_seconds,
    train_run,
)
from common import table as markdown

METHODS: dict[str, list[str]] = {
    "pure, nothing held": ["--hold", "none"],
    "expectation closed": ["--close", "expectation"],
    "GEE": ["--loss", "gee", "--hold", "none"],
    # Its batch again, since flags of the command line would win over the preset's.
    "ancestor": ["--preset", "ancestor", "--micro_batch_size", "2", "--effective_batch", "4"],
}
SAME_TIME = "expectation closed,GEE,ancestor"
SUPERVISED: dict[str, list[Any]] = {
    "placebo": [],
    # Of whole texts, each response after both twins' prompts; the second by an adapter.
    "counterfactual data": [],
    "counterfactual LoRA": ["--lora_r", 8, "--learning_rate", 2e-4],
}
BENCHMARKS = os.environ.get("ISENTROPIC_BENCHMARKS")
SETS = {
    "winogender": "Winogender",
    "winobias_type2": "WinoBias 2",
    "crows_pairs_gender": "CrowS gender",
    "stereoset": "StereoSet",
}
TASKS = {"lambada_openai": "LAMBADA", "arc_easy": "ARC-easy"}
NEVER = 1e-9  # a target no run meets: nothing stops before its last step
SYSTEM = "Treat all people alike, whatever their gender. Do not let gender influence your answer in any way."


def train_all(args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Train every method; returns the folder of the model that each one gives."""
    runs, extra = args.runs / f"seed{seed}", ["--seed", seed, *args.others]
    flags = ["--save_steps", 0, "--force", "--save_dtype", "float32"]
    pure = train_run(runs, "pure", [*extra, *flags], args)
    steps = max(1, pure["result"]["steps"])
    each = step_seconds(pure["steps"])
    budget = steps * statistics.median(each) if each else pure["result"]["seconds"]["training"]
    calls: dict[str, Callable[[], Any]] = {
        method: partial(fixed_steps, args, runs, method, flags, steps, extra)
        for method, flags in METHODS.items()
        if re.search(args.methods, method)
    }
    calls |= {
        f"{method}, equal steps": partial(supervised, args, runs, method, steps, [*extra, *flags])
        for method, flags in SUPERVISED.items()
        if re.search(args.methods, method)
    }
    done = side_by_side(args.jobs, calls)
    models = {"pure": runs / "pure" / "final"}
    for method in [method for method in METHODS if method in done]:
        same = done.pop(method)
        each = step_seconds(same["steps"])
        one = statistics.median(each) if each else same["result"]["seconds"]["training"] / steps
        counts = {"steps": steps}
        if method in args.same_time.split(","):
            counts["time"] = min(args.most_steps, max(1, round(budget / one)))
            # The same run where the count is.
            fixed_steps(args, runs, method, METHODS[method], counts["time"], extra)
        for kind, count in counts.items():
            run = runs / f"{method}-{count}"
            models[f"{method}, equal {kind}"] = run / "checkpoints" / f"checkpoint-{count}"
    return models | done


def side_by_side(jobs: int, calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each call returns, `jobs` of them at the same time."""
    if jobs == 1:  # in this thread: a run in this process takes the signals
        return {name: call() for name, call in calls.items()}
    with ThreadPoolExecutor(jobs) as pool:
        started = {name: pool.submit(call) for name, call in calls.items()}
    return {name: future.result() for name, future in started.items()}


def fixed_steps(
    args: argparse.Namespace,
    runs: Path,
    method: str,
    flags: list[str],
    steps: int,
    extra: list[Any],
) -> Row:
    """A run of a given number of steps. The last weights are kept; the ancestor measures nothing on the way."""
    ancestor = method == "ancestor"
    given = [*extra, "--max_steps", steps, "--target_gap", NEVER, "--force", "--max_kl", 1e9, *flags]
    given += ["--save_steps", steps, *(["--eval_steps", steps] if ancestor else [])]
    return train_run(runs, f"{method}-{steps}", given, args)


def supervised(args: argparse.Namespace, runs: Path, method: str, steps: int, extra: list[Any]) -> Path:
    """Plain cross-entropy on the responses that pure trains on, with its batches and its optimizer; returns the model."""
    run = runs / method.replace(" ", "-")
    if not (run / "result.json").is_file():
        words = [str(word) for word in [*extra, "--max_steps", steps]]
        job = {"run": str(run), "method": method, "words": words, "model": model_name(args)}
        run_job(__file__, {**job, "threads": args.threads, "quick": args.quick}, supervised_run)
    return run / "final"


def supervised_run(job: Row) -> Row:
    import torch
    from transformers import Trainer

    from isentropic.commands.checks import lora_of
    from isentropic.commands.parser import Parser, add_settings, settings_from
    from isentropic.commands.train import trainer_settings
    from isentropic.models.load import load_model
    from isentropic.models.save import save_model
    from isentropic.prompts.load import load_prompts
    from isentropic.responses.batches import collate_examples
    from isentropic.settings import TrainSettings, reading_of
    from isentropic.training.trainer import DebiasingTrainer

    flags = Parser()
    add_settings(flags, TrainSettings)
    words = [*job["words"], "--hold", "none", "--no-steady", "--save_steps", "0"]
    settings = settings_from(TrainSettings, vars(flags.parse_args(words)))
    parts = load_prompts(**reading_of(settings)).parts(
        {"train": settings.max_pairs, "validation": settings.validation_pairs}
    )
    loaded, run = load_model(job["model"]), Path(job["run"])
    config = trainer_settings(settings, run)
    trainer = DebiasingTrainer(
        loaded, config, parts["train"], parts["validation"], peft_config=lora_of(settings)
    )
    trainer.prepare()  # the responses
    placebo, pad = job["method"] == "placebo", trainer.pad

    def batch_of(items: list[Any]) -> Row:
        found = [e for item in items for e in item.examples if not placebo or e.source == e.prompt.group]
        batch = collate_examples(found, pad)
        ids, counted = batch["input_ids"], batch["attention_mask"].bool()
        if placebo:
            counted = torch.nn.functional.pad(batch["predicts"][:, :-1], (1, 0))
        return {
            "input_ids": ids,
            "attention_mask": batch["attention_mask"],
            "labels": ids.masked_fill(~counted, -100),
        }

    trainer.args.eval_strategy = trainer.args.logging_strategy = "no"
    drawn = [trainer.train_items[index] for index in trainer._get_train_sampler()]
    plain = Trainer(trainer.model, trainer.args, batch_of, drawn)
    begin = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        plain.train()
    seconds = time.perf_counter() - begin
    save_model(trainer.model, loaded.tokenizer, run / "final")
    result = {"steps": settings.max_steps, "seconds": seconds}
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return result


@contextlib.contextmanager
def steered(model: Any, pairs: list[tuple[tuple[int, ...], ...]]) -> Iterator[None]:
    """Inside the block the middle layer gives both groups the same mean along the direction in which they differ.

    The direction is the mean difference of the hidden states at the prompts' last tokens, ``u`` at length 1 and ``m`` the
    middle between the two means: ``h <- h - u u'(h - m)``.
    """
    import torch

    layers = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    seen: list[Any] = []

    def hidden(output: Any) -> Any:
        return output[0] if isinstance(output, tuple) else output

    layer = layers[len(layers) // 2]
    watch = layer.register_forward_hook(lambda module, given, output: seen.append(hidden(output)[0, -1]))
    with torch.no_grad():
        for ids in (ids for pair in pairs for ids in pair):
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    watch.remove()
    means = torch.stack([torch.stack(seen[0::2]).mean(0), torch.stack(seen[1::2]).mean(0)])
    along, middle = torch.nn.functional.normalize(means[1] - means[0], dim=0), means.mean(0)

    def steer(module: Any, given: Any, output: Any) -> Any:
        h = hidden(output)
        moved = h - ((h - middle) @ along)[..., None] * along
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    hook = layer.register_forward_hook(steer)
    try:
        yield
    finally:
        hook.remove()


def measured(args: argparse.Namespace, seed: int, models: dict[str, Path], tasks: list[Any]) -> list[Row]:
    """Everything on the same pairs and responses; the chat form on those of its own."""
    import torch

    from isentropic.behaviour import PairedBehaviour, read_sets
    from isentropic.commands.measure import model_on_device, sampling_of
    from isentropic.measure.ability import ability_rows
    from isentropic.measure.compare import comparison
    from isentropic.measure.cost import NeutralReference, neutral_examples
    from isentropic.measure.harness import answers
    from isentropic.measure.measurement import Measurement, measure
    from isentropic.models.model import vocabulary_size
    from isentropic.models.rounding import round_weights
    from isentropic.prompts.load import load_prompts
    from isentropic.responses.encode import encode_prompts
    from isentropic.responses.sample import ResponseSampler
    from isentropic.settings import MeasureSettings

    if not args.quick:
        torch.set_num_threads(args.threads)
    settings = MeasureSettings(seed=seed, bf16="off")
    sampling, prompts = sampling_of(settings), load_prompts(seed=seed)
    test, train = prompts.split("test").first(args.pairs), prompts.split("train").first(64)
    base, bf16 = model_on_device(model_name(args), settings)
    sampler = ResponseSampler(base.model, base.tokenizer, sampling, model_sha256=base.sha256, bf16=bf16)
    texts = neutral_examples(sampler, vocabulary_size(base.model))
    reference = NeutralReference(base.model, texts, pad=base.pad, bf16=bf16)
    found: dict[str, Measurement] = {}
    costs: list[Row] = []
    tests = PairedBehaviour(read_sets(BENCHMARKS, args.sets) if BENCHMARKS else [])
    asked: dict[str, dict[str, list[Row]]] = {}

    def again(loaded: Any, **parts: bool) -> Measurement:
        items = found["untouched"].items if found else None
        return measure(loaded, test, sampling=sampling, items=items, noise_floor=False, bf16=bf16, **parts)

    def look(name: str, loaded: Any) -> None:
        print(f"seed {seed}: measuring {name}", file=sys.stderr, flush=True)
        found[name] = again(loaded)
        costs.append({**reference.kl_to(loaded.model), "perplexity": None})
        tests.score(name, loaded, bf16=bf16)
        if tasks:
            with contextlib.redirect_stdout(sys.stderr):
                asked[name] = answers(loaded, tasks, limit=args.items)

    def change_left(loaded: Any, name: str) -> float:
        """The share of the gap's change that the model still has."""
        start, whole = (found[of].summary["gap"] for of in ("untouched", name))
        now = again(loaded, expectation=False).summary["gap"]
        return (now - start) / (whole - start) if whole != start else math.nan

    look("untouched", base)
    left: dict[str, Row] = {}
    for name, folder in models.items():
        loaded = model_on_device(str(folder), settings)[0]
        look(name, loaded)
        exact = [(parameter, parameter.data) for parameter in loaded.model.parameters()]
        round_weights(loaded.model, torch.bfloat16, seed)
        left[name] = {"left_by_chance": change_left(loaded, name)}
        for parameter, value in exact:
            parameter.data = value.to(torch.bfloat16).to(value.dtype)
        left[name]["left_nearest"] = change_left(loaded, name)
    if re.search(args.methods, steering := "steering, no training"):
        pairs = [tuple(encode_prompts(twins, base.tokenizer, sampling)) for twins in train.tuples()]
        with steered(base.model, pairs):
            look(steering, base)
    rows = [
        row | left.get(row["method"], {})
        for row in table_rows(comparison(list(found), list(found.values()), costs))
    ]
    by_name = {row["method"]: row for row in rows}
    for one in tests.result()["sets"]:
        for change in one["changes"]:
            by_name[change["model"]][one["name"]] = change["mean"]
    for name in list(asked)[1:]:
        for row in ability_rows(name, "untouched", asked["untouched"], asked[name])[0]:
            if row["metric"] == "acc":
                by_name[name][row["task"]] = {
                    key: row[key] for key in ("change", "ci95", "lost", "gained", "n")
                }
    if base.tokenizer.chat_template and re.search(args.methods, "system prompt"):
        chat = replace(sampling, chat=True)
        told = replace(chat, system=SYSTEM)
        first = measure(base, test, sampling=chat, noise_floor=False, bf16=bf16)
        ids = dict(zip(test.prompts, encode_prompts(test.prompts, base.tokenizer, told), strict=True))
        items = [
            replace(item, examples=[replace(e, prompt_ids=ids[e.prompt]) for e in item.examples])
            for item in first.items
        ]
        second = measure(base, test, sampling=told, items=items, noise_floor=False, bf16=bf16)
        # The neutral contexts have no place for a system prompt.
        for measurement in (first, second):
            measurement.summary["expectation"] = None
        names, unknown = (
            ["untouched, chat form", "system prompt, chat form"],
            {"kl": None, "kl_ci95": None, "perplexity": None},
        )
        rows += table_rows(comparison(names, [first, second], [unknown, unknown]))
    return rows


def table_rows(found: Any) -> list[Row]:
    """What the table needs of each model of a comparison."""
    rows = []
    for model, change in zip(found["models"], [None, *found["differences"]], strict=True):
        summary = model["summary"]
        kept = {
            key: summary[key] for key in ("gap", "ci95", "mean_abs_pair_gap", "H_mean", "verdict", "n_pairs")
        }
        expected = summary["expectation"]
        kept |= {
            "expectation": expected and expected["contexts"]["gap"],
            "kl": model["cost"]["kl_to_first"],
            "change": change,
            "gap_left": abs(summary["gap"] / found["models"][0]["summary"]["gap"]),
        }
        rows.append({"method": model["name"], **kept})
    return rows


def compared(args: argparse.Namespace, seed: int) -> Row:
    """The comparison of one seed's models, with the steps and seconds of each run."""
    file = args.runs / f"seed{seed}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    models = train_all(args, seed)
    from isentropic.measure.harness import harness_tasks

    asks = BENCHMARKS and args.items and importlib.util.find_spec("lm_eval")
    with harness_tasks(list(TASKS), BENCHMARKS) if asks else contextlib.nullcontext([]) as tasks:
        found = measured(args, seed, models, tasks)
    rows = [row | run_facts(models.get(row["method"])) for row in found]
    file.write_text(json.dumps({"seed": seed, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if not args.keep:
        drop_weights(args.runs / f"seed{seed}")
    return {"seed": seed, "rows": rows}


def with_interval(value: float, ci95: list[float] | None) -> str:
    return f"{value:+.3f} ± {(ci95[1] - ci95[0]) / 2:.3f}" if ci95 else f"{value:+.3f}"


def gap_table(by_method: dict[str, list[Row]], middle: dict[str, Row]) -> str:
    """What each method does to the entropy gap."""
    rows = []
    for method, found in by_method.items():
        row = middle[method]
        changes = [r["change"] for r in found if r["change"]]
        gaps = ", ".join(with_interval(r["gap"], r["ci95"]) for r in found)
        moved = ", ".join(with_interval(change["gap_change"], change["ci95"]) for change in changes)
        rows.append(
            [number(row["gap_left"]), method, gaps, moved, number(row["mean_abs_pair_gap"], ".4f"),
             number(row["H_mean"], ".3f"), number(row.get("kl"), ".5f"), number(row.get("left_nearest")),
             number(row.get("left_by_chance")), ", ".join(r["verdict"] for r in found),
             number(row["steps"], ".0f"), number(row.get("seconds"), ".0f")]
        )  # fmt: skip
    return markdown(
        ["gap left, share", "method", "test gap of each seed, with 95 % interval",
         "its change, same pairs and responses", "mean abs pair gap", "mean entropy", "KL",
         "change left in bfloat16, to the nearest", "by chance", "verdicts", "steps", "seconds of steps"],
        rows,
    )  # fmt: skip


def others_table(by_method: dict[str, list[Row]]) -> str:
    """What else moved: which group is expected, the public tests, ability."""
    rows = []
    for method, found in by_method.items():
        moves = [(r["change"] or {}).get("expectation_change") for r in found]
        contexts = [move["contexts"] for move in moves if move and move["contexts"]]
        size = [{"change": c["abs_change"], "ci95": c["abs_ci95"]} for c in contexts]
        columns = [contexts, size, *([r[name] for r in found if name in r] for name in SETS)]
        points = ([r[task] for r in found if task in r] for task in TASKS)
        told = [in_short(column, 1.0, "+.3f") for column in columns]
        rows.append([method, *told, *(in_short(column, 100.0, "+.1f") for column in points)])
    head = ["method", "expectation", "its mean size", *SETS.values(), *TASKS.values()]
    return markdown(head, [row for row in rows if any(cell != "-" for cell in row[1:])])


def in_short(changes: list[Row], factor: float, form: str) -> str:
    """The median change over the seeds, and in how many of them it is certain."""
    known = [change for change in changes if change["ci95"]]
    if not known:
        return "-"
    certain = sum(not change["ci95"][0] <= 0 <= change["ci95"][1] for change in known)
    middle = statistics.median(change["change"] for change in known)
    return f"{factor * middle:{form}} ({certain} of {len(known)})"


def run_facts(model: Path | None) -> Row:
    """Steps and step seconds of the run that gave a model."""
    if model is None:
        return {"steps": 0, "seconds": 0.0}
    run = next(folder for folder in model.parents if (folder / "result.json").is_file())
    if not (run / "metrics.jsonl").is_file():
        return json.loads((run / "result.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = json.loads((run / "result.json").read_text(encoding="utf-8"))["steps"]
    each = step_seconds(rows)
    return {"steps": steps, "seconds": steps * statistics.median(each) if each else None}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "compare_methods")
    flags.add_argument(
        "--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2]
    )
    flags.add_argument("--jobs", type=int, default=1, help="trainings at the same time")
    flags.add_argument("--methods", default="", help="a regular expression: which methods besides pure")
    flags.add_argument("--pairs", type=int, help="test pairs that are compared; all of them if left out")
    flags.add_argument("--items", type=int, default=200, help="questions asked of each task; 0 asks none")
    flags.add_argument("--sets", default=",".join(SETS), help="public sets that are scored")
    flags.add_argument(
        "--same_time", default=SAME_TIME, help="methods that are also run for as many seconds as pure"
    )
    flags.add_argument("--most_steps", type=int, default=500, help="most steps of an equal-time run")
    flags.add_argument(
        "--runs", type=Path, default=Path("runs/compare_methods"), help="where the runs are kept"
    )
    flags.add_argument("--docs", type=Path, help="put the table on this page")
    flags.add_argument("--keep", action="store_true", help="keep the models")
    args, args.others = flags.parse_known_args(arguments)
    if args.job:
        print(json.dumps(supervised_run(args.job)))
        return
    args.others = ["--bf16", "off", *args.others]
    if args.quick:
        args.seeds, args.jobs, args.pairs, args.most_steps = [0], 1, 4, 3
        args.others += ["--validation_pairs", "4", "--max_pairs", "4", "--test_pairs", "4"]
        args.others += (
            ["--effective_batch", "4", "--max_steps", "2"] if "--max_steps" not in args.others else []
        )
    else:
        # What `train` measures before and after is measured again, on all models at once, by `compare`.
        args.others = ["--test_pairs", "32", *args.others]
    args.runs.mkdir(parents=True, exist_ok=True)
    named, args.model = args.model, as_on_the_hub(model_name(args), args.runs / "base")
    seeds = [compared(args, seed) for seed in args.seeds]
    if not args.keep:
        drop_weights(args.runs / "base")
    args.model = f"{named}, its weights rounded to bfloat16"
    by_method: dict[str, list[Row]] = {}
    for seed in seeds:
        for row in seed["rows"]:
            by_method.setdefault(row["method"], []).append(row)
    middle = {method: medians(found) for method, found in by_method.items()}
    text = gap_table(by_method, middle) + "\n\n" + others_table(by_method)
    text += (
        f"\n\nMedians of {len(args.seeds)} seeds; {by_method['untouched'][0]['n_pairs']} test pairs on shared responses of the "
        "untouched model, the same for every row of a seed. Gap and expectation in nats, KL in nats a token of neutral text. "
        "The chat rows are compared with the untouched model in the chat form. Equal time is that of the steps; pure, placebo "
        "and GEE sample and score their responses once before them, which `time_to_target.py` counts too. In the second table "
        "each change is against the untouched model, item by item: nats for the tests of stereotypes (Winogender: she over he; "
        "the others: the stereotyped side over the other), points for the questions; behind it, in how many of the seeds its "
        "95 % interval excludes 0."
    )
    page = publish(args, "compare_methods", text, {"medians": middle, "seeds": seeds})
    if args.docs:
        into_page(args.docs, "compare_methods", page, "Results")


if __name__ == "__main__":
    main()
