"""The engine against the reference: values, gradients, dtypes, memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from isentropic.entropy.engine import Head, entropy_from_hidden, weighted_entropy
from isentropic.entropy.reference import token_entropy, token_surprisal
from isentropic.errors import InputError

N, D, V = 23, 16, 203


# ---- the engine against the reference --------------------------------------------------------------------------

HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "soft-cap": {"softcap": 3.0},
    "scale": {"scale": 0.3},
    "all": {"bias": True, "softcap": 2.0, "scale": 1.7},
    "module": {"module": True},
}


def make_head(kind: str, dtype: torch.dtype, vocab: int = V, width: int = D, seed: int = 0) -> Head:
    generator = torch.Generator().manual_seed(seed)
    options = dict(HEADS[kind])
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    if options.pop("bias", False):
        options["bias"] = (
            torch.randn(vocab, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        )
    if options.pop("module", False):
        layer = nn.Linear(width, vocab, bias=False, dtype=dtype)
        layer.weight = nn.Parameter(weight.detach())
        return Head(module=layer)
    return Head(weight, **options)


def parameters(head: Head) -> list[torch.Tensor]:
    if head.module is not None:
        return [head.module.weight]
    return [p for p in (head.weight, head.bias) if p is not None]


def make_hidden(n: int = N, dtype: torch.dtype = torch.float64, width: int = D) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(n, width, generator=generator, dtype=torch.float64)
    # From nearly uniform rows to nearly certain ones.
    hidden *= torch.logspace(-3, 1, n, dtype=torch.float64)[:, None] if n else 1.0
    return hidden.to(dtype).requires_grad_()


def chunk_bytes(head: Head, rows: int, itemsize: int = 8) -> int:
    """The budget that gives `rows` rows a chunk."""
    if head.module is not None:
        return rows * 4 * V * itemsize
    buffers = 2 + (head.softcap is not None)
    return rows * buffers * V * itemsize


@pytest.mark.parametrize("rows", [1, 5, N, 1000])
@pytest.mark.parametrize("targets", [None, "given"])
@pytest.mark.parametrize("kind", HEADS)
def test_engine_is_the_reference(kind, targets, rows):
    head, hidden = make_head(kind, torch.float64), make_hidden()
    budget = chunk_bytes(head, rows)
    targets = targets and torch.randint(V, (N,), generator=torch.Generator().manual_seed(2))
    coefficients = torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    leaves = [hidden, *parameters(head)]

    logits = head.logits(hidden)
    expected = token_entropy(logits) if targets is None else token_surprisal(logits, targets)
    expected_grads = torch.autograd.grad((expected * coefficients).sum(), leaves)

    values = entropy_from_hidden(hidden, head, chunk_bytes=budget, targets=targets)
    grads = torch.autograd.grad((values * coefficients).sum(), leaves)
    loss, detached = weighted_entropy(hidden, head, coefficients, chunk_bytes=budget, targets=targets)
    known_grads = torch.autograd.grad(3.0 * loss, leaves)

    assert torch.allclose(values, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(values, detached) and not detached.requires_grad
    assert loss.item() == pytest.approx((expected * coefficients).sum().item(), rel=1e-12)
    for grad, known, truth in zip(grads, known_grads, expected_grads, strict=True):
        assert torch.allclose(grad, truth, rtol=1e-10, atol=1e-12)
        assert torch.allclose(known, 3.0 * truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["bias", "all"])
def test_gradcheck(kind):
    head, hidden = make_head(kind, torch.float64, vocab=7, width=3), make_hidden(4, width=3)

    def engine(hidden, weight, bias):
        return entropy_from_hidden(hidden, Head(weight, bias, head.softcap, head.scale), chunk_bytes=400)

    assert torch.autograd.gradcheck(engine, (hidden, head.weight, head.bias))


@pytest.mark.parametrize("frozen", ["head", "hidden", "everything"])
def test_only_what_is_asked_for_gets_a_gradient(frozen):
    head, hidden = make_head("bias", torch.float64), make_hidden()
    for tensor in {"head": parameters(head), "hidden": [hidden], "everything": [hidden, *parameters(head)]}[
        frozen
    ]:
        tensor.requires_grad_(False)
    leaves = [x for x in (hidden, *parameters(head)) if x.requires_grad]
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    values = entropy_from_hidden(hidden, head, chunk_bytes=chunk_bytes(head, 5))
    loss, _ = weighted_entropy(hidden, head, weights, chunk_bytes=chunk_bytes(head, 5))
    assert values.requires_grad == loss.requires_grad == bool(leaves)
    if leaves:
        truth = torch.autograd.grad((token_entropy(head.logits(hidden)) * weights).sum(), leaves)
        for result in ((values * weights).sum(), loss):
            for grad, expected in zip(torch.autograd.grad(result, leaves), truth, strict=True):
                assert torch.allclose(grad, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", HEADS)
def test_no_rows_give_no_values_and_zero_gradients(kind):
    head, hidden = make_head(kind, torch.float64), make_hidden(0)
    loss, values = weighted_entropy(hidden, head, torch.zeros(0, dtype=torch.float64))
    assert values.shape == (0,) and loss.item() == 0.0
    for result in (loss, entropy_from_hidden(hidden, head).sum()):
        grads = torch.autograd.grad(result, [hidden, *parameters(head)])
        assert all(not grad.any() for grad in grads)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", ["plain", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_worse_than_naive_in_the_same_dtype(dtype, kind, autocast):
    """Against float64 on the same numbers; peaked and flat rows, twice as many rows as make one chunk."""
    head, hidden = make_head(kind, dtype), make_hidden(64, dtype)
    exact = Head(head.weight.detach().double(), None if head.bias is None else head.bias.detach().double(),
                 head.softcap, head.scale)  # fmt: skip
    exact_leaves = [hidden.detach().double().requires_grad_()]
    exact_leaves += [p.requires_grad_() for p in parameters(exact)]
    weights = torch.linspace(-1, 2, 64)

    def run(function, head, leaves):
        with torch.autocast(
            "cpu", dtype=torch.bfloat16, enabled=autocast and leaves[0].dtype == torch.float32
        ):
            values = function(leaves[0], head)
        return [values, *torch.autograd.grad((values * weights.to(values.dtype)).sum(), leaves)]

    truth = run(lambda h, head: token_entropy(head.logits(h)), exact, exact_leaves)
    leaves = [hidden, *parameters(head)]
    naive = run(lambda h, head: token_entropy(head.logits(h)), head, leaves)
    ours = run(lambda h, head: entropy_from_hidden(h, head, chunk_bytes=32 * V * 16), head, leaves)
    assert ours[0].dtype == torch.float32
    for a, b, true in zip(ours, naive, truth, strict=True):
        assert a.dtype == b.dtype
        error, allowed = (a.double() - true).norm() / true.norm(), (b.double() - true).norm() / true.norm()
        assert error <= 1.1 * allowed + 2e-7


def test_known_weights_keep_float32_sums_for_bfloat16_heads():
    """Many small chunks: summed in bfloat16 the head's gradient would stall."""
    head, hidden = make_head("plain", torch.bfloat16), make_hidden(512, torch.bfloat16)
    loss, _ = weighted_entropy(hidden, head, torch.ones(512), chunk_bytes=V * 10)
    (one_by_one,) = torch.autograd.grad(loss, head.weight)
    loss, _ = weighted_entropy(hidden, head, torch.ones(512))
    (at_once,) = torch.autograd.grad(loss, head.weight)
    assert (one_by_one - at_once).float().norm() <= 5e-3 * at_once.float().norm()


def entropy_after(rows: int, dtype: torch.dtype, steps: int = 200) -> float:
    """The mean entropy of fixed hidden states after so many steps on a head; its weights are kept in float32.

    Half of the rows pull the entropy up, half down, so the products of chunks nearly cancel, as those of two groups do.
    """
    generator = torch.Generator().manual_seed(0)
    n, vocab, width = 64, 97, 16
    hidden = torch.randn(n, width, generator=generator)
    hidden[1::2] = hidden[::2] + 0.05 * torch.randn(n // 2, width, generator=generator)
    hidden = hidden.to(torch.bfloat16).to(dtype)
    weight = torch.randn(vocab, width, generator=generator)
    signs = torch.tensor([1.0, -1.0]).repeat(n // 2)
    for _ in range(steps):
        rounded = weight.to(torch.bfloat16).to(dtype).requires_grad_()
        loss, _ = weighted_entropy(hidden, Head(rounded), signs, chunk_bytes=vocab * 16 * rows)
        loss.backward()
        weight -= 0.02 * rounded.grad.float()
    return entropy_from_hidden(hidden.float(), Head(weight)).mean().item()


def test_entropy_does_not_drift_over_many_bfloat16_steps():
    """Products of chunks are summed in float32 before they are rounded, so it does not matter how many there are."""
    at_once, in_chunks = (entropy_after(rows, torch.bfloat16) for rows in (64, 8))
    assert abs(in_chunks - at_once) < 1e-4  # 2.3e-3 where each chunk's product is rounded first
    assert abs(in_chunks - entropy_after(64, torch.float32)) < 2e-3


def test_known_gradient_is_used_once():
    head, hidden = make_head("plain", torch.float32), make_hidden(dtype=torch.float32)
    loss, _ = weighted_entropy(hidden, head, torch.ones(N))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already used"):
        loss.backward()


@pytest.mark.parametrize("kind", ["plain", "soft-cap", "module"])
def test_budget_too_small_for_one_row_says_the_minimum(kind):
    head, hidden = make_head(kind, torch.float64), make_hidden()
    least = chunk_bytes(head, 1)
    with pytest.raises(InputError, match=f"give at least {least}$"):
        entropy_from_hidden(hidden, head, chunk_bytes=least - 1)
    assert entropy_from_hidden(hidden, head, chunk_bytes=least).shape == (N,)


@pytest.mark.parametrize("bad", [{}, {"weight": torch.eye(2), "module": nn.Identity()}])
def test_head_needs_weight_or_module(bad):
    with pytest.raises(InputError, match="exactly one"):
        Head(**bad)


def test_head_refuses_a_softcap_of_zero():
    with pytest.raises(InputError, match="above 0"):
        Head(torch.eye(2), softcap=0.0)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("known", [False, True])
def test_nothing_of_tokens_times_vocabulary_is_ever_made(kind, known):
    n = 400  # tokens x vocabulary is far above hidden states (n, D) and head (V, D)
    head, hidden = make_head(kind, torch.float64), make_hidden(n)
    budget = chunk_bytes(head, 10)
    saved = []
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.numel()) or x, lambda x: x
    ):  # fmt: skip
        if known:
            loss, _ = weighted_entropy(hidden, head, torch.ones(n, dtype=torch.float64), chunk_bytes=budget)
        else:
            loss = entropy_from_hidden(hidden, head, chunk_bytes=budget).sum()
        loss.backward()
    assert max(largest.numel, *saved, 0) <= max(n * D, V * D, budget // 8) < n * V // 8
