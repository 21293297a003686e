"""The trainer against a slow, obvious twin: one loop, the whole batch, naive logits, plain AdamW.

A run of five steps must not depend on how its effective batch is cut, and must be what the formulas say.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

import oracles
from isentropic.errors import InputError
from isentropic.prompts.prompt_set import Prompt, PromptSet
from isentropic.responses.batches import Item
from isentropic.responses.response import Draw, Example
from isentropic.responses.sample import ResponseSampler
from isentropic.training.trainer import DebiasingConfig, DebiasingTrainer
from tiny import JOBS, make_model, make_prompts, make_tokenizer

STEPS, EVERY, RATE = 5, 2, 1e-3
FOLDERS = tempfile.TemporaryDirectory(prefix="isentropic-trainer-")
# Adam's usual 1e-8 blows the rounding noise of a gradient that is zero (GPT-2's key bias) up to a full step.
EPSILON = 1e-6
LOSSES: dict[str, dict[str, Any]] = {
    "L2": {},
    "L1": {"use_l1": True, "scale_factor": 0.5},
    "GEE": {"loss": "gee", "lambda_weight": 2.0},
    "unbiased": {"estimator": "unbiased", "scale_factor": 3.0},
    "pairwise": {"estimator": "pairwise"},
}


def trainer_of(
    model: Any = None,
    prompts: PromptSet | None = None,
    pad: str | None = "<end>",
    peft: Any = None,
    **changes: Any,
) -> DebiasingTrainer:
    """A trainer of 5 steps of 32 prompts; the tokenizer's pad is its end of text unless told otherwise."""
    settings: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(dir=FOLDERS.name),
        "bf16": False,
        "use_cpu": True,
        "effective_batch": 32,
        "micro_batch_size": 4,
        "max_steps": STEPS,
        "eval_steps": EVERY,
        "learning_rate": RATE,
        "adam_epsilon": EPSILON,
        "max_new_tokens": 6,
        "hold": "none",  # the naive loops below hold nothing; test_hold.py has the rest
    }
    return DebiasingTrainer(
        model if model is not None else make_model(),
        DebiasingConfig(**settings | changes),
        prompts or make_prompts(),
        processing_class=make_tokenizer(pad=pad),
        peft_config=peft,
    )


@dataclasses.dataclass
class Run:
    """What a run leaves: its weights, how far they moved, and its logs."""

    weights: Tensor
    moves: Tensor
    steps: list[dict[str, float]]
    held_out: list[dict[str, float]]


class Notes(TrainerCallback):
    """Every held-out measurement with its step, the one before training included."""

    def __init__(self) -> None:
        self.held_out: list[dict[str, float]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.held_out.append({"step": state.global_step, **kwargs["metrics"]})


def flat(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def run_of(trainer: DebiasingTrainer) -> Run:
    before = flat(trainer.model)
    notes = Notes()
    trainer.add_callback(notes)
    trainer.train()
    after = flat(trainer.model)
    steps = [row for row in trainer.state.log_history if "entropy_gap" in row]
    return Run(after, after - before, steps, notes.held_out)


@functools.cache
def cut_run(kind: str, loss: str, steady: bool, micro: int, checkpointing: bool = False) -> Run:
    trainer = trainer_of(
        make_model(kind),
        steady=steady,
        micro_batch_size=micro,
        gradient_checkpointing=checkpointing,
        **LOSSES[loss],
    )
    return run_of(trainer)


def assert_same(one: Run, other: Run) -> None:
    """Weights to 1e-5, their moves to 1e-3; gap and gradient as exactly as float32 entropies allow.

    A gap is a small difference of large entropies: an error of 1e-7 in those is one of 1e-7 H / gap in the gap.
    """
    assert float((one.weights - other.weights).norm() / other.weights.norm()) < 1e-5
    assert float((one.moves - other.moves).norm() / other.moves.norm()) < 1e-3
    assert len(one.steps) == len(other.steps) > 0
    for a, b in zip(one.steps, other.steps, strict=True):
        error = 1e-5 + 1e-6 * b["H_mean"] / b["entropy_gap"]
        assert a["entropy_gap"] == pytest.approx(b["entropy_gap"], rel=error)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2 * error)
        assert a["loss"] == pytest.approx(b["loss"], rel=4 * error, abs=1e-6)
        assert a["learning_rate"] == pytest.approx(b["learning_rate"], rel=1e-6)
        for name in ("H_male", "H_female", "H_mean"):
            if name in b:
                assert a[name] == pytest.approx(b[name], rel=1e-5)


# ---- the slow, obvious twin ------------------------------------------------------------------------------------


def naive_entropy(model: Any, example: Example) -> Tensor:
    return oracles.naive_entropies(model, example.prompt_ids, example.response_ids).mean()


def naive_entropies(model: Any, items: Sequence[Item]) -> Tensor:
    return torch.stack([naive_entropy(model, example) for item in items for example in item.examples])


def naive_loss(name: str, h: Tensor, items: Sequence[Item], groups: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The loss by its formula, and the means of the groups."""
    settings = LOSSES[name]
    rows = [(k, e.prompt.group) for k, item in enumerate(items) for e in item.examples]
    means = torch.stack([h[[row[1] == g for row in rows]].mean() for g in groups])
    table = torch.stack(
        [
            torch.stack([h[[row == (k, g) for row in rows]].mean() for g in groups])
            for k in range(len(items))
            if {group for pair, group in rows if pair == k} == set(groups)
        ]
    )
    squares, absolutes, unbiased, pairwise = [], [], [], []
    for a in range(len(groups)):
        for b in range(a + 1, len(groups)):
            gap, differences = means[b] - means[a], table[:, b] - table[:, a]
            products = differences[:, None] * differences[None, :]
            n = len(differences)
            squares.append(gap**2)
            absolutes.append(gap.abs())
            unbiased.append((products.sum() - products.diagonal().sum()) / (n * (n - 1)))
            pairwise.append((differences**2).mean())
    parts = {"L2": squares, "L1": absolutes, "GEE": squares, "unbiased": unbiased, "pairwise": pairwise}
    loss = settings.get("scale_factor", 1.0) * torch.stack(parts[name]).mean()
    return (h.mean() + settings["lambda_weight"] * loss if name == "GEE" else loss), means


def twin_run(trainer: DebiasingTrainer, loss_name: str) -> Run:
    """Train a copy of the trainer's model on the trainer's prompts and responses, the plain way."""
    trainer.prepare()
    args, groups = trainer.args, trainer.groups
    order = list(trainer._get_train_sampler())
    per_step = args.effective_batch // len(groups)
    batches = [
        [trainer.train_items[i] for i in order[k : k + per_step]] for k in range(0, len(order), per_step)
    ]
    model = trainer.model.eval()
    before = flat(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), args.learning_rate, (0.0, 0.999), EPSILON, weight_decay=args.weight_decay
    )
    steady = args.steady and loss_name != "pairwise"
    start = {item.index: naive_entropies(model, [item]).detach() for item in trainer.train_items}
    used = [trainer.train_items[i] for i in sorted(set(order))]
    pool = naive_means(model, used + trainer.validation_items, groups) if steady else {}
    validation = naive_means(model, trainer.validation_items, groups)
    anchor: dict[str, float] = {}
    steps = []
    for step, batch in enumerate(batches):
        h = naive_entropies(model, batch)
        if steady:
            # How far the responses have moved, on top of what the held-out prompts said last.
            h = h - torch.cat([start[item.index] for item in batch])
            names = [e.prompt.group for item in batch for e in item.examples]
            if step % EVERY == 0:
                now = naive_means(model, trainer.validation_items, groups)
                held_out = {g: pool[g] + now[g] - validation[g] for g in groups}
                anchor = {g: held_out[g] - h[[n == g for n in names]].mean().item() for g in groups}
            h = h + torch.tensor([anchor[name] for name in names])
        loss, means = naive_loss(loss_name, h, batch, groups)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        rate = args.learning_rate * (1 - step / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        steps.append(
            {
                "loss": loss.item(),
                "entropy_gap": (means.max() - means.min()).item(),
                "grad_norm": float(norm),
                "learning_rate": rate,
                "H_mean": h.mean().item(),
                **{f"H_{g}": m.item() for g, m in zip(groups, means, strict=True)},
            }
        )
    return Run(flat(model), flat(model) - before, steps, [])


@torch.no_grad()
def naive_means(model: Any, items: Sequence[Item], groups: Sequence[str]) -> dict[str, float]:
    """Mean over pairs of the mean over a pair's examples of each group."""
    found: dict[str, list[float]] = {g: [] for g in groups}
    for item in items:
        for g in groups:
            mine = [float(naive_entropy(model, e)) for e in item.examples if e.prompt.group == g]
            if mine:  # a prompt without a twin has one group alone
                found[g].append(sum(mine) / len(mine))
    return {g: sum(values) / len(values) for g, values in found.items()}


# ---- the same result for any cut -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "steady"),
    [("L2", False), ("pairwise", False), ("L2", True), ("L1", True), ("GEE", True), ("unbiased", True)],
)
@pytest.mark.slow
def test_any_cut_of_the_batch_is_the_twin(loss, steady):
    twin = twin_run(trainer_of(steady=steady, **LOSSES[loss]), loss)
    for micro in (32, 8, 2) if loss == "L2" else (32, 2):
        assert_same(cut_run("llama", loss, steady, micro), twin)


@pytest.mark.parametrize(("kind", "loss"), [("gpt2", "L2"), ("qwen2", "GEE")])
@pytest.mark.slow
def test_any_cut_on_other_models(kind, loss):
    twin = twin_run(trainer_of(make_model(kind), **LOSSES[loss]), loss)
    for micro in (32, 2):
        assert_same(cut_run(kind, loss, True, micro), twin)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(kind):
    assert_same(cut_run(kind, "L2", True, 32, checkpointing=True), cut_run(kind, "L2", True, 32))


@pytest.mark.slow
def test_the_ancestors_way_does_depend_on_the_cut():
    """The square of each micro-batch's gap is another loss: what all the above would be if the weights were not exact."""
    runs = [run_of(trainer_of(gap_over="micro_batch", steady=False, micro_batch_size=m)) for m in (2, 32)]
    assert runs[0].steps[0]["loss"] > 2 * runs[1].steps[0]["loss"]
    assert runs[1].steps[0]["loss"] == pytest.approx(cut_run("llama", "L2", False, 32).steps[0]["loss"])


@pytest.mark.slow
def test_padding_with_the_end_token_changes_nothing():
    """A mask inferred from ids would lose the end tokens here."""
    assert_same(run_of(trainer_of(pad="<pad>")), cut_run("llama", "L2", True, 4))


def wet_model(kind: str) -> Any:
    """The model of `make_model`, its configuration full of dropout."""
    model = make_model(kind)
    config = model.config.to_dict()
    names = [name for name in config if "drop" in name or name.endswith("pdrop")]
    wet = type(model)._from_config(
        type(model.config)(**config | dict.fromkeys(names, 0.5)), attn_implementation="eager"
    )
    wet.load_state_dict(model.state_dict())
    return wet


@pytest.mark.parametrize(("kind", "checkpointing"), [("llama", False), ("gpt2", True)])
@pytest.mark.slow
def test_dropout_changes_nothing_and_stays_in_the_configuration(kind, checkpointing):
    wet = wet_model(kind)
    settings = wet.config.to_dict()
    assert_same(run_of(trainer_of(wet, gradient_checkpointing=checkpointing)), cut_run(kind, "L2", True, 4))
    changed = {name for name, value in wet.config.to_dict().items() if value != settings.get(name)}
    assert not any("drop" in name for name in changed)


@pytest.mark.slow
def test_dropout_of_an_adapter_is_not_applied_and_said(caplog):
    peft = pytest.importorskip("peft")
    runs = []
    for dropout in (0.5, 0.0):
        lora = peft.LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=dropout, task_type="CAUSAL_LM")
        with caplog.at_level("WARNING", logger="isentropic"):
            trainer = trainer_of(peft=lora, max_steps=2)
        runs.append(run_of(trainer))
    assert_same(*runs)
    assert caplog.text.count("lora_dropout is 0.5") == 1


# ---- other data --------------------------------------------------------------------------------------------------


def unpaired() -> PromptSet:
    """More men than women, no twins."""
    splits = ["train"] * 6 + ["validation"] + ["test"]
    male = [
        Prompt(f"{n} {job}s and he", "male", None, None, split)
        for job, split in zip(JOBS, splits, strict=True)
        for n in (2, 3, 40)
    ]
    female = [
        Prompt(f"the {job} says that {she}", "female", None, None, split)
        for job, split in zip(JOBS, splits, strict=True)
        for she in ("she", "her own")
    ]
    return PromptSet(tuple(male + female), ("male", "female"), "unpaired prompts")


@pytest.mark.slow
def test_unpaired_prompts_are_scored_on_their_own_responses():
    trainer = trainer_of(prompts=unpaired(), micro_batch_size=8, steady=False)
    twin = twin_run(trainer_of(prompts=unpaired(), steady=False), "L2")
    assert_same(run_of(trainer), twin)
    examples = [e for item in trainer.train_items for e in item.examples]
    assert examples and all(e.source == e.prompt.group for e in examples)
    assert {p.text for item in trainer.train_items for p in item.prompts} == {
        p.text for p in unpaired().split("train").prompts
    }


def three_groups() -> PromptSet:
    words = {"male": "his", "female": "her", "neutral": "their"}
    splits = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    prompts = [
        Prompt(f"{word} {job} {verb} {word}", group, f"{job}-{verb}", verb, split)
        for verb in ("saw", "met")
        for job, split in zip(JOBS, splits, strict=True)
        for group, word in words.items()
    ]
    return PromptSet(tuple(prompts), tuple(words), "three groups")


@pytest.mark.slow
def test_three_groups_for_any_cut():
    sizes = {"effective_batch": 12}
    twin = twin_run(trainer_of(prompts=three_groups(), micro_batch_size=12, **sizes), "L2")
    assert {f"H_{g}" for g in three_groups().groups} <= twin.steps[0].keys()
    for micro in (3, 12):
        assert_same(run_of(trainer_of(prompts=three_groups(), micro_batch_size=micro, **sizes)), twin)


@pytest.mark.slow
def test_unmatched_parts_the_twins_and_keeps_the_groups_balanced():
    trainer = trainer_of(matched=False)
    run = run_of(trainer)
    twins = [len({p.pair_id for p in item.prompts}) == 1 for item in trainer.train_items]
    assert len(twins) == 24 and sum(twins) < 12
    assert all([p.group for p in item.prompts] == ["male", "female"] for item in trainer.train_items)
    assert sorted(p.text for item in trainer.train_items for p in item.prompts) == sorted(
        p.text for p in make_prompts().split("train").prompts
    )
    assert all(e.source == e.prompt.group for item in trainer.train_items for e in item.examples)
    # The held-out pairs are twins all the same.
    assert all(len({p.pair_id for p in item.prompts}) == 1 for item in trainer.validation_items)
    assert float(run.moves.norm()) > 0


@pytest.mark.slow
def test_own_responses_on_twins():
    trainer = trainer_of(responses="own", steady=False)
    twin = twin_run(trainer_of(responses="own", steady=False), "L2")
    assert_same(run_of(trainer), twin)
    assert [len(item.examples) for item in trainer.train_items] == [2] * 24


@pytest.mark.slow
def test_several_responses_a_prompt():
    twin = twin_run(trainer_of(num_responses=2), "L2")
    trainer = trainer_of(num_responses=2, micro_batch_size=2)
    assert_same(run_of(trainer), twin)
    # Two twins, each on two responses of either.
    assert [len(item.examples) for item in trainer.train_items] == [8] * 24


@pytest.mark.slow
def test_refreshed_responses_are_drawn_from_the_weights_of_the_step():
    """With a learning rate of next to nothing the base model draws the same ones."""
    trainer = trainer_of(refresh_responses=2, max_steps=4, learning_rate=1e-12, effective_batch=12)
    trainer.train()
    order = list(trainer._get_train_sampler())
    assert len(order) == 24 == len(set(order))
    seen: set[tuple[int, ...]] = set()
    for number, chosen in enumerate((order[:12], order[12:])):
        items = [trainer.train_items[i] for i in chosen]
        sampler = ResponseSampler(
            make_model(), make_tokenizer(), trainer.args.sampling(Draw.REFRESHED + number)
        )
        expected = sampler.examples([item.prompts for item in items], shared=True)
        assert [item.examples for item in items] == expected
        seen |= {e.response_ids for made in expected for e in made}
    assert len(seen) > 24


@pytest.mark.slow
def test_refreshed_responses_for_any_cut():
    runs = [run_of(trainer_of(refresh_responses=1, micro_batch_size=micro)) for micro in (4, 32)]
    assert_same(*runs)
    assert float((runs[0].weights - cut_run("llama", "L2", False, 4).weights).norm()) > 1e-3


# ---- epochs and the last batch -----------------------------------------------------------------------------------


def short_set(pairs: int) -> PromptSet:
    """The tiny prompts with so many training pairs."""
    prompts = make_prompts()
    kept = {twins[0].pair_id for twins in prompts.split("train").tuples()[:pairs]}
    return dataclasses.replace(
        prompts, prompts=tuple(p for p in prompts.prompts if p.split != "train" or p.pair_id in kept)
    )


@pytest.mark.slow
def test_the_last_uneven_batch_is_right():
    """23 pairs in batches of 16: the second step has 7, and micro-batches of 2, 2, 2 and 1 pair."""
    changes = {"prompts": short_set(23), "max_steps": -1, "num_train_epochs": 1}
    twin = twin_run(trainer_of(**changes), "L2")
    assert len(twin.steps) == 2
    for micro in (4, 32):
        assert_same(run_of(trainer_of(micro_batch_size=micro, **changes)), twin)


@pytest.mark.slow
def test_epochs_are_passes_over_the_pairs():
    used: list[int] = []
    trainer = trainer_of(prompts=short_set(23), max_steps=-1, num_train_epochs=3)
    collate = trainer.data_collator

    def counting(items: list[Item]) -> Any:
        used.extend(item.index for item in items)
        return collate(items)

    trainer.data_collator = counting
    trainer.train()
    assert trainer.state.global_step == 5  # 69 pairs: four steps of 16 and one of 5
    passes = [used[k : k + 23] for k in (0, 23, 46)]
    assert len(used) == 69 and all(sorted(one) == list(range(23)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


# ---- what is logged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.slow
def test_the_held_out_gap_is_that_of_the_weights_of_the_moment(steady):
    """Steady runs add the change on the validation prompts to the gap of all prompts before training."""
    trainer = trainer_of(max_steps=4, eval_steps=4, steady=steady)
    run = run_of(trainer)
    used = [trainer.train_items[i] for i in sorted(set(trainer._get_train_sampler()))]
    items = trainer.validation_items
    start = naive_means(make_model(), items + used if steady else items, trainer.groups)
    validation = naive_means(make_model(), items, trainer.groups)
    now = naive_means(trainer.model, items, trainer.groups)
    expected = [start, {g: start[g] + now[g] - validation[g] for g in trainer.groups}]
    assert [row["step"] for row in run.held_out] == [0, 4]
    for row, means in zip(run.held_out, expected, strict=True):
        assert row["eval_gap"] == pytest.approx(means["female"] - means["male"], abs=1e-5)
        assert row["eval_H_male"] == pytest.approx(means["male"], abs=1e-5)
        assert row["eval_gap_low"] < row["eval_gap"] < row["eval_gap_high"]
    assert run.held_out[0]["eval_kl"] == pytest.approx(0.0, abs=1e-6)
    assert run.held_out[1]["eval_kl"] > 1e-6


def test_training_never_touches_a_held_out_pair():
    trainer = trainer_of()
    trainer.prepare()
    train = {p.pair_id for item in trainer.train_items for p in item.prompts}
    held_out = {p.pair_id for item in trainer.validation_items for p in item.prompts}
    assert len(train) == 24 and len(held_out) == 12 and not train & held_out


def test_steady_training_starts_from_the_held_out_gap():
    run = cut_run("llama", "L2", True, 4)
    assert run.steps[0]["entropy_gap_signed"] == pytest.approx(run.held_out[0]["eval_gap"], abs=1e-5)
    # A batch's own gap is another one.
    assert (
        abs(cut_run("llama", "L2", False, 4).steps[0]["entropy_gap_signed"] - run.held_out[0]["eval_gap"])
        > 0.01
    )


def test_the_logs_hang_together():
    for row in cut_run("llama", "L2", True, 4).steps:
        signed = row["H_female"] - row["H_male"]
        assert row["entropy_gap_signed"] == pytest.approx(signed, abs=1e-5)
        assert row["entropy_gap"] == pytest.approx(abs(signed), abs=1e-5)
        assert row["loss"] == pytest.approx(signed**2, rel=1e-3)
        assert math.isfinite(row["grad_norm"])
    for row in cut_run("llama", "GEE", False, 4).steps:
        assert row["loss"] == pytest.approx(row["H_mean"] + 2 * row["entropy_gap"] ** 2, rel=1e-4)


@pytest.mark.slow
def test_a_seed_matters_and_a_seed_repeats():
    same, other = run_of(trainer_of()), run_of(trainer_of(seed=7))
    assert torch.equal(same.weights, cut_run("llama", "L2", True, 4).weights)
    assert not torch.equal(same.weights, other.weights)


@pytest.mark.slow
def test_training_closes_the_gap_of_its_own_prompts():
    """A tiny model at a large rate on one batch that never changes: the gap must fall by half."""
    trainer = trainer_of(
        prompts=short_set(16), max_steps=10, learning_rate=2e-4, steady=False, lr_scheduler_type="constant"
    )
    steps = run_of(trainer).steps
    assert steps[-1]["entropy_gap"] < 0.5 * steps[0]["entropy_gap"]


# ---- adapters and doors ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lora_trains_the_adapter_alone():
    """Whatever the cut, and with gradient checkpointing."""
    peft = pytest.importorskip("peft")
    runs = []
    for micro, checkpointing in ((4, False), (32, True)):
        torch.manual_seed(5)
        lora = peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = trainer_of(micro_batch_size=micro, peft=lora, gradient_checkpointing=checkpointing)
        runs.append(run_of(trainer))
        kept = {
            name.replace(".base_layer", "").removeprefix("base_model.model."): p
            for name, p in trainer.model.named_parameters()
            if "lora_" not in name
        }
        base = dict(make_model().named_parameters())
        assert kept.keys() == base.keys()
        assert all(torch.equal(kept[name], base[name]) for name in base)
        assert all(("lora_" in name) == p.requires_grad for name, p in trainer.model.named_parameters())
    assert_same(*runs)


@pytest.mark.slow
def test_a_model_by_name_and_rows_as_data(tiny_folder, tmp_path):
    rows = [
        {"male": f"he {job} {n}", "female": f"she {job} {n}", "topic": job} for job in JOBS for n in range(6)
    ]
    args = DebiasingConfig(output_dir=str(tmp_path), max_steps=1, effective_batch=8, use_cpu=True)
    trainer = DebiasingTrainer(str(tiny_folder), args, rows)
    trainer.train()
    assert trainer.state.global_step == 1 and trainer.validation_items


def test_an_adapter_starts_from_the_seed():
    peft = pytest.importorskip("peft")

    def adapter(**changes):
        lora = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        model = trainer_of(peft=lora, **changes).model
        return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if "lora_A" in name])

    assert torch.equal(adapter(), adapter())
    assert not torch.equal(adapter(), adapter(seed=7))


def test_prompt_tuning_is_refused():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(InputError, match="PromptTuningConfig.*virtual tokens"):
        trainer_of(peft=config)


def test_flattened_weights_are_refused(monkeypatch):
    """FSDP in its first version, whose parts cannot be told from whole weights."""
    trainer = trainer_of()
    first = SimpleNamespace(fsdp_version=1)
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", first, raising=False)
    with pytest.raises(InputError, match="fsdp_version: 2"):
        trainer.place_model()


def test_a_model_without_tokenizer_is_refused(tmp_path, tiny_prompts):
    with pytest.raises(InputError, match="processing_class is None"):
        DebiasingTrainer(make_model(), DebiasingConfig(output_dir=str(tmp_path)), tiny_prompts)


@pytest.mark.parametrize("loss, passes", [("L2", 1), ("L1", 1), ("GEE", 2), ("unbiased", 2)])
@pytest.mark.slow
def test_a_loss_of_one_gap_needs_no_second_forward_pass(loss, passes):
    """The direction of its gradient is known beforehand; the others must know the entropies before they go back."""
    trainer = trainer_of(max_steps=1, eval_strategy="no", steady=False, **LOSSES[loss])
    trainer.prepare()
    used = [item for item in trainer.train_items if item.examples]
    trainer.score(used)  # the model is tried once on rows as long as these
    seen = []
    trainer.model.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    trainer.evaluate = lambda *args, **kwargs: {}
    trainer.train()
    prompts = sum(len(trainer.train_items[i].prompts) for i in trainer._get_train_sampler())
    assert sum(seen) == passes * prompts  # a row holds a prompt with its responses


# ---- what a hub would be given -----------------------------------------------------------------------------------


def card_of(trainer: DebiasingTrainer) -> Any:
    from huggingface_hub import ModelCard

    return ModelCard.load(Path(trainer.args.output_dir) / "README.md")


@pytest.mark.slow
def test_the_model_card_tells_the_held_out_gap():
    """What push_to_hub writes beside the weights, without a hub."""
    trainer = trainer_of(steady=False)
    held_out = [row["eval_gap"] for row in run_of(trainer).held_out]
    trainer.create_model_card(model_name="mine", license="mit", tags="ours")
    card = card_of(trainer)
    assert card.data.license == "mit" and {"isentropic", "ours"} <= set(card.data.tags)
    assert (
        "# mine\n" in card.text and "steered the training" in card.text and "closed entropy gap" in card.text
    )
    (row,) = [line for line in card.text.splitlines() if line.startswith("| Gap, female")]
    shown = [float(cell.strip().replace("−", "-")) for cell in row.split("|")[2:4]]
    assert shown == pytest.approx([held_out[0], held_out[-1]], abs=6e-4) and shown[0] != shown[1]


def test_a_model_card_without_a_measurement_is_refused():
    with pytest.raises(InputError, match="no gap was measured"):
        trainer_of().create_model_card()


def test_refreshed_responses_are_not_sampled_before_training():
    trainer = trainer_of(refresh_responses=1)
    trainer.prepare()
    assert not any(item.examples for item in trainer.train_items)


def test_before_the_first_step_everything_is_scored_once_and_each_response_is_held_once():
    trainer, seen = trainer_of(), []

    def noting(score: Any, items: Sequence[Item], *more: Any, **named: Any) -> list[np.ndarray]:
        seen.extend(map(id, items))
        return score(items, *more, **named)

    trainer.score = functools.partial(noting, trainer.score)  # what the loss is made of goes through it too
    trainer.prepare()
    assert trainer.evaluate()["eval_kl"] == pytest.approx(0.0, abs=1e-6)
    drawn = [item for item in trainer.train_items if item.examples]
    assert sorted(seen) == sorted(map(id, [*drawn, *trainer.validation_items]))
    responses = [example.response_ids for item in drawn for example in item.examples]
    assert len(responses) == 4 * len(drawn) == 2 * len(set(map(id, responses)))


# ---- what transformers' users expect ---------------------------------------------------------------------------


def held_out_set(jobs: Sequence[str] = ("dancer", "ranger", "porter"), split: str = "train") -> PromptSet:
    """Pairs that are in no other set."""
    prompts = [
        Prompt(f"{who} is the {job}. {who}", group, f"{job}-{n}", job, split)
        for job in jobs
        for n, twins in enumerate((("He", "She"), ("Mr Hale", "Mrs Hale")))
        for who, group in zip(twins, ("male", "female"), strict=True)
    ]
    return PromptSet(tuple(prompts), ("male", "female"), "tiny prompts")


def summary_of(trainer: DebiasingTrainer, items: Sequence[Item]) -> float:
    means = naive_means(trainer.model.eval(), items, trainer.groups)
    return means["female"] - means["male"]


@pytest.mark.parametrize(
    "held_out, pooled",
    [
        (lambda: None, True),
        (lambda: make_prompts().split("validation"), True),
        (lambda: dataclasses.replace(make_prompts(), name="another name").split("validation"), True),
        (held_out_set, False),
        (lambda: held_out_set(split="validation"), False),
        (make_prompts, False),  # the training prompts are among them
    ],
)
@pytest.mark.slow
def test_the_content_decides_what_is_pooled_with_the_training_prompts(held_out, pooled):
    """The validation set of another source says nothing about the training prompts, whatever it is called."""
    trainer = trainer_of()
    trainer = DebiasingTrainer(
        make_model(), trainer.args, make_prompts(), held_out(), processing_class=make_tokenizer(pad="<end>")
    )
    found = trainer.evaluate()
    gap = summary_of(trainer, trainer.validation_items)
    assert (found["eval_gap"] == pytest.approx(gap, abs=1e-5)) != pooled


def test_two_lists_of_rows_are_two_sets():
    """Both are called "rows given in Python"."""
    rows = [
        {"male": f"he {job} {n}", "female": f"she {job} {n}", "topic": job} for job in JOBS for n in range(6)
    ]
    others = [
        {"male": f"the man {n} saw {job}", "female": f"the woman {n} saw {job}"}
        for job in JOBS
        for n in range(2)
    ]
    args = trainer_of().args
    trainer = DebiasingTrainer(make_model(), args, rows, others, processing_class=make_tokenizer(pad="<end>"))
    assert trainer.train_items[0].prompts[0].text.startswith("he ")
    found = trainer.evaluate()
    assert found["eval_gap"] == pytest.approx(summary_of(trainer, trainer.validation_items), abs=1e-5)


def test_held_out_prompts_of_other_groups_are_refused():
    words = {"old": "grandma", "young": "girl"}
    prompts = [Prompt(f"the {word} {n}", group, str(n)) for n in range(4) for group, word in words.items()]
    other = PromptSet(tuple(prompts), ("old", "young"), "ages")
    with pytest.raises(InputError, match="old, young"):
        DebiasingTrainer(
            make_model(), trainer_of().args, make_prompts(), other, processing_class=make_tokenizer()
        )


def test_evaluate_measures_the_set_it_is_given():
    trainer = trainer_of(steady=False)
    own = trainer.evaluate()
    other = trainer.evaluate(held_out_set())
    assert own["eval_gap"] != pytest.approx(other["eval_gap"], abs=1e-4)
    items = trainer.items_of(held_out_set())
    assert len(items) == 6
    assert other["eval_gap"] == pytest.approx(summary_of(trainer, items), abs=1e-5)
    again = trainer.evaluate(eval_dataset=held_out_set(), ignore_keys=["logits"], metric_key_prefix="test")
    assert {key.replace("test_", "eval_", 1): value for key, value in again.items()} == other
    rows = [{"male": f"he runs {n}", "female": f"she runs {n}"} for n in range(5)]
    both = trainer.evaluate({"rows": rows, "set": held_out_set()})
    assert both["eval_set_gap"] == other["eval_gap"] != both["eval_rows_gap"]


@pytest.mark.slow
def test_measuring_another_set_steers_nothing():
    """Neither the anchor nor a stop nor the best weights may come from it."""
    trainer = trainer_of()
    trainer.evaluate()
    trainer.evaluate(held_out_set(), metric_key_prefix="test")
    trainer.evaluate(make_prompts().split("test"))
    assert_same(run_of(trainer), cut_run("llama", "L2", True, 4))
    assert len(trainer.held_out_entropies) == 2


@pytest.mark.slow
def test_a_set_is_measured_on_the_same_responses_before_and_after_training():
    trainer = trainer_of()
    trainer.evaluate(held_out_set())
    texts = [e.response_ids for item in trainer.items_of(held_out_set()) for e in item.examples]
    trainer.train()
    after = trainer.evaluate(held_out_set())
    items = trainer.items_of(held_out_set())
    assert [e.response_ids for item in items for e in item.examples] == texts
    assert after["eval_gap"] == pytest.approx(summary_of(trainer, items), abs=1e-5)


def test_the_held_out_gap_of_prompts_without_twins_counts_each_prompt_once():
    trainer = trainer_of(prompts=unpaired(), micro_batch_size=8)
    found = trainer.evaluate()
    means = {}
    for group in trainer.groups:
        prompts = [p for p in unpaired().split("validation").prompts if p.group == group]
        examples = [e for item in trainer.validation_items for e in item.examples if e.prompt.group == group]
        assert sorted(e.prompt.text for e in examples) == sorted(p.text for p in prompts)
        means[group] = np.mean([float(naive_entropy(trainer.model.eval(), e)) for e in examples])
    assert found["eval_gap"] == pytest.approx(means["female"] - means["male"], abs=1e-5)


def resume(trainer: DebiasingTrainer, how: str) -> None:
    last = f"{trainer.args.output_dir}/checkpoint-2"
    {
        "true": lambda: trainer.train(resume_from_checkpoint=True),
        "positional": lambda: trainer.train(last),
        "path": lambda: trainer.train(Path(last)),
        "true after evaluate": lambda: (trainer.evaluate(), trainer.train(True)),
    }[how]()


@pytest.fixture(scope="module")
def whole():
    """A trainer that is done, its run, and a checkpoint of its second step."""
    trainer = trainer_of(save_strategy="steps", save_steps=2, save_total_limit=None)
    run = run_of(trainer)
    for number in (4, 5):
        shutil.rmtree(f"{trainer.args.output_dir}/checkpoint-{number}", ignore_errors=True)
    return trainer, run


@pytest.mark.parametrize("how", ["true", "positional", "path", "true after evaluate"])
@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_never_cut(whole, how):
    trainer, run = whole
    rest = trainer_of(output_dir=trainer.args.output_dir, save_strategy="no")
    notes = Notes()
    rest.add_callback(notes)
    resume(rest, how)
    assert torch.equal(flat(rest.model), run.weights)
    assert [row["step"] for row in rest.state.log_history if "entropy_gap" in row] == [1, 2, 3, 4, 5]
    assert notes.held_out[-1] == run.held_out[-1]
    for mine, theirs in zip(rest.held_out_entropies[0], trainer.held_out_entropies[0], strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("given", [True, "nowhere", ""])
def test_a_checkpoint_that_is_not_there_is_refused(given):
    with pytest.raises(InputError, match="no checkpoint of this trainer"):
        trainer_of().train(given)


def test_the_base_weights_are_hashed_once(monkeypatch, tiny_loaded):
    from isentropic.training import trainer as module

    seen = []
    monkeypatch.setattr(module, "model_sha256", lambda model: seen.append(model) or "0" * 64)
    args = trainer_of().args
    seen.clear()
    trainer = DebiasingTrainer(tiny_loaded, args, make_prompts())
    assert not seen and trainer.base_sha256 == tiny_loaded.sha256
    assert trainer.processing_class is tiny_loaded.tokenizer


@pytest.mark.parametrize("changes", [{"loss": "gee"}, {"gap_over": "micro_batch", "steady": False}])
@pytest.mark.slow
def test_a_log_line_of_several_steps_holds_their_means(changes):
    """Loss, gap and entropies are means over the steps since the last line."""
    steps = run_of(trainer_of(max_steps=6, **changes)).steps
    lines = run_of(trainer_of(max_steps=6, logging_steps=3, **changes)).steps
    assert [row["step"] for row in lines] == [3, 6]
    for line, start in zip(lines, (0, 3), strict=True):
        for name in ("loss", "entropy_gap", "entropy_gap_signed", "H_male", "H_female", "H_mean"):
            mean = np.mean([row[name] for row in steps[start : start + 3]])
            assert line[name] == pytest.approx(mean, rel=1e-5, abs=1e-7), name


@pytest.mark.slow
def test_a_tokenizer_without_a_pad_token_trains_as_one_whose_end_token_pads():
    weights = []
    for pad in (None, "<end>"):
        trainer = trainer_of(pad=pad, max_steps=1)
        trainer.train()
        weights.append(flat(trainer.model))
    assert torch.equal(*weights)


def test_a_tokenizer_without_an_end_token_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-text token"):
        DebiasingTrainer(make_model(), DebiasingConfig(), make_prompts(), processing_class=tokenizer)
