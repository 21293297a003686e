"""Stochastic rounding: neighbours only, unbiased, exact values untouched, the same for the same seed."""

import numpy as np
import pytest
import torch

from isentropic.models.rounding import in_dtype, round_stochastically, round_weights, rounded_state

DTYPES = [torch.bfloat16, torch.float16]


def values(count=4000):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, generator=generator) * torch.logspace(-6, 2, count)


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_two_neighbours_are_drawn(dtype):
    x = values()
    rounded = round_stochastically(x, dtype, torch.Generator().manual_seed(0))
    near = x.to(dtype)
    side = torch.where(near.float() > x, -torch.inf, torch.inf).float()
    # NumPy has nextafter for float16; bfloat16 is the upper half of a float32.
    if dtype == torch.float16:
        other = torch.from_numpy(np.nextafter(near.numpy(), side.numpy().astype(np.float16)))
    else:
        down = (x.view(torch.int32) & -65536).view(torch.float32)
        up = ((x.view(torch.int32) & -65536) + 65536).view(torch.float32)
        other = torch.where(near.float() == down, up, down).to(dtype)
    assert bool(((rounded == near) | (rounded == other)).all())
    assert bool((rounded != near).any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mean_of_many_roundings_is_the_value(dtype):
    x = values(200)
    draws = torch.Generator().manual_seed(1)
    made = torch.stack([round_stochastically(x, dtype, draws).double() for _ in range(4000)])
    spacing = (made.max(0).values - made.min(0).values).clamp(min=1e-12)
    error = ((made.mean(0) - x.double()) / spacing).abs()
    assert float(error.max()) < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_dtype_holds_stays(dtype):
    x = values().to(dtype).float()
    assert torch.equal(round_stochastically(x, dtype).float(), x)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    assert torch.equal(round_stochastically(special, dtype).float(), special)
    assert bool(round_stochastically(torch.tensor([torch.nan]), dtype).isnan())


def test_a_plain_cast_to_the_nearest_loses_a_small_change_and_this_does_not():
    base = (values(20_000).sign() * (1 + torch.rand(20_000))).to(torch.bfloat16).float()
    changed = base * (1 + 2**-12)
    nearest = changed.bfloat16().float()
    kept = round_stochastically(changed, torch.bfloat16, torch.Generator().manual_seed(0)).float()
    direction = base.sign()
    wanted = float(((changed - base) * direction).sum())
    assert torch.equal(nearest, base)
    assert float(((kept - base) * direction).sum()) == pytest.approx(wanted, rel=0.1)


def test_a_state_is_rounded_by_name_and_seed_whatever_its_order():
    state = {"a": values(50), "b": values(50), "steps": torch.tensor([3])}
    once = rounded_state(state, torch.bfloat16, seed=1)
    again = rounded_state(dict(reversed(state.items())), torch.bfloat16, seed=1)
    assert all(torch.equal(once[name], again[name]) for name in state)
    assert once["steps"] is state["steps"]
    assert not torch.equal(once["a"], once["b"])
    assert not torch.equal(once["a"], rounded_state(state, torch.bfloat16, seed=2)["a"])
    assert torch.equal(rounded_state(state, torch.float32, seed=1)["a"], state["a"])


def test_weights_are_rounded_in_place_and_exact_ones_stay(tiny_model):
    model = tiny_model("llama").to(torch.bfloat16).float()
    exact = model.model.embed_tokens.weight.clone()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.mul_(1 + 2**-11)
    moved = {name: p.clone() for name, p in model.named_parameters()}
    round_weights(model, torch.bfloat16, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(p, p.bfloat16().float()) for p in model.parameters())
    assert torch.equal(model.model.embed_tokens.weight, exact)
    name = "model.layers.0.mlp.up_proj.weight"
    assert 0.02 < float((model.get_parameter(name) != moved[name].bfloat16().float()).float().mean()) < 0.5


def test_in_dtype_gives_back_what_came_in_that_dtype(tiny_model):
    model = tiny_model("llama").to(torch.bfloat16).float()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with in_dtype(model, torch.bfloat16):
        assert model.dtype == torch.bfloat16
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
