"""Held quantities: the update against a dense oracle, under several optimizers; drift that comes back."""

import copy
import json
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.expectation import context_examples, start_token
from isentropic.prompts.contexts import Context, builtin_contexts
from isentropic.prompts.load import load_prompts
from isentropic.training.config import DebiasingConfig
from isentropic.training.hold import PAIRS_A_STEP, HeldDifference, Hold, _squared_norm
from isentropic.training.trainer import DebiasingTrainer

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.0, 0.999), weight_decay=0.1),
    "adam with momentum": lambda p: torch.optim.Adam(p, lr=0.01),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def quantity(row, seed, start=None):
    """A smooth function of the weights: one output at fixed inputs, and its drift from `start`."""
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))

    def of(model):
        value = model(inputs)[:, row].mean()
        return value, 0.0 if start is None else float(value.detach()) - start

    return of


def loss_of(model):
    return model(torch.ones(2, 4)).square().sum()


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy()


def gradient(model, of):
    model.zero_grad()
    of(model)[0].backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters()]).double().numpy()
    model.zero_grad()
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_correction_is_the_smallest_that_brings_it_back(optimizer):
    model = network()
    plain = copy.deepcopy(model)
    start = quantity(0, seed=1)(model)[0].item()
    held = quantity(0, 1, start)
    steps = OPTIMIZERS[optimizer](model.parameters())
    Hold(model, [held]).attach(steps)
    loss_of(model).backward()
    steps.step()
    freely = OPTIMIZERS[optimizer](plain.parameters())
    loss_of(plain).backward()
    freely.step()
    drift, direction = held(plain)[1], gradient(plain, held)
    assert abs(drift) > 1e-3  # or there would be nothing to hold
    dense = flat(plain) - direction * drift / (direction @ direction)
    np.testing.assert_allclose(flat(model), dense, atol=2e-7)
    assert abs(held(model)[1]) < 0.1 * abs(drift)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_several_quantities_stay_over_many_steps(optimizer):
    model = network()
    of = [quantity(row, row, quantity(row, row)(model)[0].item()) for row in range(3)]
    plain = copy.deepcopy(model)
    for network_, hold in ((model, Hold(model, of)), (plain, None)):
        steps = OPTIMIZERS[optimizer](network_.parameters())
        if hold:
            hold.attach(steps)
        for _ in range(10):
            steps.zero_grad()
            loss_of(network_).backward()
            steps.step()
    kept, freely = (np.abs([held(m)[1] for held in of]) for m in (model, plain))
    assert freely.max() > 0.01 and kept.max() < 0.1 * freely.max(), (kept, freely)


def test_the_same_projection_of_the_gradient_in_front_of_adam_does_not_hold():
    model = network()
    start = quantity(0, 1)(model)[0].item()
    of = quantity(0, 1, start)
    held = copy.deepcopy(model)
    steps = OPTIMIZERS["adamw"](held.parameters())
    Hold(held, [of]).attach(steps)
    loss_of(held).backward()
    steps.step()
    direction = gradient(model, of)
    loss_of(model).backward()
    g = torch.cat([p.grad.flatten() for p in model.parameters()]).double().numpy()
    projected = torch.from_numpy(g - direction * (direction @ g) / (direction @ direction)).float()
    places = np.cumsum([p.numel() for p in model.parameters()])[:-1]
    for p, part in zip(
        model.parameters(), projected.split(np.diff([0, *places, len(g)]).tolist()), strict=True
    ):
        p.grad = part.view_as(p).clone()
    OPTIMIZERS["adamw"](model.parameters()).step()
    assert abs(of(held)[1]) < 0.1 * abs(of(model)[1])


def test_drift_comes_back():
    model = network()
    start = float(quantity(0, 1)(model)[0])
    with torch.no_grad():
        model[2].bias[0] += 0.2
    steps = torch.optim.SGD(model.parameters(), lr=1e-3)
    Hold(model, [quantity(0, 1, start)]).attach(steps)
    for _ in range(3):
        steps.zero_grad()
        loss_of(model).backward()
        steps.step()
    assert abs(float(quantity(0, 1)(model)[0]) - start) < 1e-3


def test_frozen_weights_stay_frozen_and_equal_quantities_do_no_harm():
    model = network()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    start = quantity(0, 1)(model)[0].item()
    of = quantity(0, 1, start)
    steps = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    Hold(model, [of, of]).attach(steps)
    loss_of(model).backward()
    steps.step()
    assert torch.equal(model[0].weight, frozen)
    assert abs(float(of(model)[0]) - start) < 1e-3


def test_one_gradient_is_in_memory_at_a_time():
    model, gradients = network(), []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: gradients.append(weakref.ref(p.grad)))

    def of(model):
        assert all(gradient() is None for gradient in gradients)
        return quantity(0, 1, 0.5)(model)

    Hold(model, [of, of]).after_step()
    assert len(gradients) == 8  # of four weights and biases, twice


def test_the_norm_of_a_large_gradient_has_its_digits():
    gradient = torch.rand(2**25, generator=torch.Generator().manual_seed(0))
    exact = sum(float(part.double().square().sum()) for part in gradient.split(2**20))
    assert _squared_norm([gradient, gradient[:0]]) == pytest.approx(exact, rel=1e-4)


def naive_log_odds(model, pairs):
    """The mean log-odds of pairs of examples by plain forward passes, with its graph."""
    total = torch.zeros(())
    for pair in pairs:
        for sign, example in zip((-1.0, 1.0), pair, strict=True):
            ids = torch.tensor([[*example.prompt_ids, *example.response_ids]])
            scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1)
            places = range(len(example.prompt_ids), ids.shape[1])
            total = total + sign * sum(scores[t - 1, ids[0, t]] for t in places)
    return total / len(pairs)


def test_held_log_odds_have_the_value_and_the_gradient_of_the_plain_ones(tiny_model, tiny_tokenizer):
    groups = ("male", "female")
    pairs = context_examples(builtin_contexts(groups, "train")[:6], groups, tiny_tokenizer)
    model = tiny_model("llama")
    scorer = EntropyScorer(quantity="surprisal")
    held = HeldDifference(
        model, pairs, scorer=scorer, pad=tiny_tokenizer.pad_token_id, step=lambda: 1, per_step=4
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    moved = copy.deepcopy(model)
    value, drift = held(model)  # the second step goes round the end of the list
    chosen = [pairs[index] for index in held.order[[4, 5, 0, 1]]]
    naive = naive_log_odds(moved, chosen)
    naive.backward()
    value.backward()
    assert float(value.detach()) == pytest.approx(float(naive.detach()), abs=1e-5)
    base = tiny_model("llama")
    with torch.no_grad():
        assert drift == pytest.approx(float(naive.detach()) - float(naive_log_odds(base, chosen)), abs=1e-5)
    for a, b in zip(model.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3)
    assert start_token(tiny_tokenizer) is not None


# --- In a run -------------------------------------------------------------------------------------------------------


def trained(model, tokenizer, prompts, folder, *, peft=None, **changes):
    """A trainer after a few steps that are long enough to be seen."""
    settings = {
        "output_dir": str(folder), "bf16": False, "use_cpu": True, "effective_batch": 16, "micro_batch_size": 4,
        "max_steps": 3, "eval_steps": 10, "learning_rate": 3e-3, "max_new_tokens": 4, "lr_scheduler_type": "constant",
    }  # fmt: skip
    trainer = DebiasingTrainer(
        model, DebiasingConfig(**settings | changes), prompts, processing_class=tokenizer, peft_config=peft
    )
    trainer.train()
    return trainer


NURSES = [
    Context(f"The nurse had {n} cats and", {"male": " he", "female": " she"}, "f", "n") for n in range(12)
]


def expected(model, tokenizer, groups=("male", "female")):
    """The mean log-odds after those contexts, by the slow way."""
    with torch.no_grad():
        return float(naive_log_odds(model.eval(), context_examples(NURSES, groups, tokenizer)))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.slow
def test_a_run_that_holds_moves_the_expectation_less(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path, lora
):
    from peft import LoraConfig

    def peft():
        return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear") if lora else None

    file = tmp_path / "contexts.jsonl"
    file.write_text("".join(json.dumps({"context": c.text, **c.words}) + "\n" for c in NURSES))
    start = expected(tiny_model("llama"), tiny_tokenizer)
    ways = {"free": {"hold": "none"}, "held": {"hold_contexts": str(file)}}
    moved = {}
    for way, settings in ways.items():
        model = tiny_model("llama")
        trainer = trained(
            model, tiny_tokenizer, tiny_prompts, tmp_path, peft=peft(), learning_rate=1e-3, **settings
        )
        moved[way] = abs(expected(trainer.model, tiny_tokenizer) - start)
    assert trainer.held.startswith("held:")
    assert moved["held"] < 0.25 * moved["free"], moved


@pytest.mark.slow
def test_any_split_of_the_batch_holds_alike(tiny_model, tiny_tokenizer, tiny_prompts, tmp_path):
    one, many = (
        trained(tiny_model("llama"), tiny_tokenizer, tiny_prompts, tmp_path, micro_batch_size=size)
        for size in (16, 4)
    )
    for a, b in zip(one.model.parameters(), many.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=5e-5, rtol=0)
    # The kinds of words share what a step reads.
    kinds = {context.kind for context in builtin_contexts(("male", "female"), "train")}
    assert [held.per_step for held in one.hold.quantities] == [PAIRS_A_STEP // len(kinds)] * len(kinds)


@pytest.mark.slow
def test_other_groups_hold_their_twins_or_the_contexts_of_a_file(tiny_model, tiny_tokenizer, tmp_path):
    rows = [
        {"young": f"The young cook has {n} cats. They", "old": f"The old cook has {n} cats. They"}
        for n in range(40)
    ]
    prompts = load_prompts(rows, groups=("young", "old"))
    trainer = trained(tiny_model("llama"), tiny_tokenizer, prompts, tmp_path, max_steps=1)
    assert "twins" in trainer.held and len(trainer.hold.quantities) == 1
    file = tmp_path / "contexts.jsonl"
    file.write_text(json.dumps({"context": "The cook is", "young": " young", "old": " old"}) + "\n")
    trainer = trained(
        tiny_model("llama"), tiny_tokenizer, prompts, tmp_path, max_steps=1, hold_contexts=str(file)
    )
    assert "neutral contexts" in trainer.held


@pytest.mark.slow
def test_three_groups_are_each_compared_with_the_first(tiny_model, tiny_tokenizer, tmp_path):
    rows = [{g: f"The {g} cook has {n} cats. They" for g in ("young", "old", "new")} for n in range(40)]
    prompts = load_prompts(rows, groups=("young", "old", "new"))
    sizes = {"effective_batch": 12, "micro_batch_size": 3, "max_steps": 1}
    trainer = trained(tiny_model("llama"), tiny_tokenizer, prompts, tmp_path, **sizes)
    assert len(trainer.hold.quantities) == 2


def test_a_second_training_holds_each_step_once(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path, monkeypatch
):
    trainer = trained(tiny_model("llama"), tiny_tokenizer, tiny_prompts, tmp_path, max_steps=1)
    steps = []
    monkeypatch.setattr(Hold, "after_step", lambda self: steps.append(1))
    trainer.train()
    assert len(steps) == trainer.state.global_step == 1


def test_prompts_of_another_language_hold_their_twins(tiny_model, tiny_tokenizer, tmp_path):
    rows = [{"male": f"Él es el hermano de mi madre y tiene {n} gatos", "female": f"Ella es la hermana de mi madre y tiene {n} gatos"} for n in range(40)]  # fmt: skip
    trainer = trained(tiny_model("llama"), tiny_tokenizer, load_prompts(rows), tmp_path, max_steps=1)
    assert "twins" in trainer.held


@pytest.mark.slow
def test_a_tokenizer_without_a_pad_token_holds_too(tiny_model, tiny_tokenizer, tiny_prompts, tmp_path):
    bare = copy.deepcopy(tiny_tokenizer)
    bare.pad_token = None
    trainer = trained(tiny_model("llama"), bare, tiny_prompts, tmp_path, max_steps=1)
    assert trainer.held.startswith("held:")
