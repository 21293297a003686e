"""Token entropy with memory bounded by a chunk: the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from isentropic.entropy.reference import token_entropy, token_surprisal
from isentropic.errors import InputError

DEFAULT_CHUNK_BYTES = {"cpu": 128 * 2**20, "gpu": 2**30}
"""A CPU's caches want small chunks; on a GPU each chunk reads the whole head and adds to its whole
gradient."""
# On a CPU the passes after the matrix product run over this much at a time, which stays in a core's cache.
CPU_TILE_BYTES = 16 * 2**20


# --- The head -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits.

    logits = cap(scale * (h W^T + bias)), with cap(z) = softcap * tanh(z / softcap), or z without a softcap

    Args:
        weight: (V, d); None when `module` is given.
        bias: (V,) or None.
        softcap: Gemma-2's bound on the logits, or None.
        scale: factor on the logits before the soft cap (Cohere's logit_scale, 1 / Granite's logits_scaling).
        module: any callable (n, d) -> (n, V) instead of weight and bias, such as a head with LoRA. Still
            chunked; each chunk is recomputed in the backward pass.

    Raises:
        InputError: neither or both of weight and module; a softcap that is not above 0.

    Example:
        >>> Head(torch.eye(3), scale=2.0).logits(torch.ones(1, 3))
        tensor([[2., 2., 2.]])
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0
    module: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if (self.weight is None) == (self.module is None):
            raise InputError(
                f"head with weight={self.weight is not None} and module={self.module is not None}; "
                "one of them makes the logits; give exactly one"
            )
        if self.softcap is not None and not self.softcap > 0:
            raise InputError(
                f"softcap is {self.softcap}; logits are divided by it; give a number above 0 or None"
            )

    @classmethod
    def of(cls, model: nn.Module) -> Head | None:
        """The head of a transformers model, as far as its configuration tells;
        None without output embeddings.

        Args:
            model: a causal language model, not wrapped.

        Returns:
            a `Head`, which still has to be compared with the model's own logits, or None.
        """
        layer = call(model, "get_output_embeddings")
        if layer is None:
            return None
        config = getattr(model, "config", None)
        config = call(config, "get_text_config") or config
        scale = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
        softcap = next((cap for cap in (getattr(config, name, None) for name in names) if cap), None)
        # Hooks and a replaced forward (offloading) do something that the bare weight does not.
        hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
        if type(layer) is nn.Linear and not hooked:
            return cls(layer.weight, layer.bias, softcap, scale)
        return cls(module=layer, softcap=softcap, scale=scale)

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits of hidden states.

        Args:
            hidden: (n, d).

        Returns:
            (n, V).
        """
        if self.module is not None:
            z = self.module(hidden)
        else:
            assert self.weight is not None
            z = F.linear(hidden, self.weight, self.bias)
        z = z * self.scale if self.scale != 1.0 else z
        return self.softcap * torch.tanh(z / self.softcap) if self.softcap else z


def call(thing: Any, method: str) -> Any:
    """thing.method(), or None without such a method."""
    return getattr(thing, method)() if hasattr(thing, method) else None


# --- The engine ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How one call is cut: `rows` through the head at a time, `tile` of them through the passes after it."""

    rows: int
    tile: int
    dtype: torch.dtype  # of the matrix products
    work: torch.dtype  # of everything from the logits on, and of sums
    softcap: float | None
    scale: float
    fused: bool  # the passes after the matrix product are one kernel
    impossible: bool  # whether some tokens have the logit -inf


def chunk_budget(chunk_bytes: int | None, device: torch.device) -> int:
    """The memory for logits that was asked for, or the device's own default."""
    return (
        DEFAULT_CHUNK_BYTES["cpu" if device.type == "cpu" else "gpu"] if chunk_bytes is None else chunk_bytes
    )


def _can_fuse(device: torch.device, work: torch.dtype) -> bool:
    """Whether Triton can serve: it comes with PyTorch on Linux, and knows GPUs from Ampere on."""
    if device.type != "cuda" or work != torch.float32 or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _plan(hidden: Tensor, head: Head, budget: int | None) -> _Plan:
    assert head.weight is not None
    chunk_bytes = chunk_budget(budget, hidden.device)
    kind, vocab = hidden.device.type, head.weight.shape[0]
    dtype = hidden.dtype
    if dtype != torch.float64 and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    impossible = head.bias is not None and bool((head.bias == -torch.inf).any())
    fused = not impossible and _can_fuse(hidden.device, work)
    scratch = 0 if fused else vocab * work.itemsize * (1 + (dtype != work) + (head.softcap is not None))
    logits = vocab * dtype.itemsize
    _check_budget(chunk_bytes, logits + scratch, vocab)
    most = chunk_bytes // (logits + scratch)
    # A GPU wants few large kernels, a CPU wants its cache.
    tile = most if kind != "cpu" else max(1, min(most, CPU_TILE_BYTES // scratch))
    rows = (chunk_bytes - tile * scratch) // logits
    return _Plan(rows, tile, dtype, work, head.softcap, head.scale, fused, impossible)


def _check_budget(chunk_bytes: int, row_bytes: int, vocab: int) -> None:
    if chunk_bytes < row_bytes:
        raise InputError(
            f"chunk_bytes is {chunk_bytes}; one row of {vocab} logits needs {row_bytes} bytes; "
            f"give at least {row_bytes}"
        )


def _tile_pass(
    z: Tensor, plan: _Plan, targets: Tensor | None, weights: Tensor | None, scratch: list[Tensor]
) -> Tensor:
    """Values of a few rows of raw logits `z`; with `weights`,
    z is overwritten by d(sum weights * values)/dz."""
    if plan.fused:
        from isentropic.entropy.fused import row_pass

        return row_pass(z, plan.scale, plan.softcap, targets, weights)
    k = len(z)
    u = z if z.dtype == plan.work else scratch[1][:k].copy_(z)
    if plan.softcap is not None:
        u.mul_(plan.scale / plan.softcap).tanh_()
        if weights is not None:
            slope = torch.mul(u, u, out=scratch[-1][:k])
            slope.neg_().add_(1.0)
        u.mul_(plan.softcap)
    elif plan.scale != 1.0:
        u.mul_(plan.scale)
    u.sub_(u.amax(dim=1, keepdim=True))
    if targets is not None:
        at_target = u.gather(1, targets[:, None])
    if plan.impossible:
        u.clamp_(min=-1e30)  # e is 0 all the same, and 0 * -inf would be nan
    e = torch.exp(u, out=scratch[0][:k])
    total = e.sum(dim=1, keepdim=True)
    if targets is None:
        mean = u.mul_(e).sum(dim=1, keepdim=True) / total  # sum_j p_j u_j; u now holds e u
        values = total.log() - mean
        if weights is not None:
            # dH/dz_j = -p_j (log p_j + H) = -(e_j u_j - e_j mean) / total
            u.addcmul_(e, -mean).mul_(weights[:, None] / -total)
    else:
        values = total.log() - at_target
        if weights is not None:
            # dS/dz_j = p_j - [j = target]
            torch.mul(e, weights[:, None] / total, out=u)
            u.scatter_add_(1, targets[:, None], -weights[:, None])
    if weights is None:
        return values[:, 0]
    if plan.softcap is not None:
        u.mul_(slope)
    if plan.scale != 1.0:
        u.mul_(plan.scale)
    if u is not z:
        z.copy_(u)
    return values[:, 0]


class _Gradients(NamedTuple):
    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def _sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor | None,
    plan: _Plan,
    coefficients: Tensor | None = None,
    *,
    wanted: tuple[bool, bool, bool] = (False, False, False),
) -> tuple[Tensor, _Gradients]:
    """The one pass through the head: values of all rows and the wanted gradients of sum_i coefficients_i
    values_i."""
    n, (vocab, width) = len(hidden), weight.shape
    values = hidden.new_empty(n, dtype=plan.work)
    d_hidden = torch.empty_like(hidden) if wanted[0] else None
    d_weight = weight.new_empty(vocab, width, dtype=plan.work) if wanted[1] else None
    d_bias = weight.new_zeros(vocab, dtype=plan.work) if wanted[2] else None
    rows, tile = min(plan.rows, n), min(plan.tile, n)
    with torch.autocast(hidden.device.type, enabled=False):
        x, w = hidden.to(plan.dtype), weight.to(plan.dtype)
        b = None if bias is None else bias.to(plan.dtype)
        buffer = x.new_empty(rows, vocab)
        extra = 0 if plan.fused else 1 + (plan.dtype != plan.work) + (plan.softcap is not None)
        scratch = [x.new_empty(tile, vocab, dtype=plan.work) for _ in range(extra)]
        if n == 0 and d_weight is not None:
            d_weight.zero_()
        for start in range(0, n, rows or 1):
            chunk = slice(start, min(start + rows, n))
            xs, z = x[chunk], buffer[: min(rows, n - start)]
            if b is None:
                torch.mm(xs, w.t(), out=z)
            else:
                torch.addmm(b, xs, w.t(), out=z)
            for first in range(0, len(z), tile):
                part = slice(start + first, min(start + first + tile, chunk.stop))
                values[part] = _tile_pass(
                    z[first : first + tile],
                    plan,
                    None if targets is None else targets[part],
                    None if coefficients is None else coefficients[part].to(plan.work),
                    scratch,
                )
            if d_hidden is not None:
                d_hidden[chunk] = z @ w
            if d_weight is not None:
                _add_product(d_weight, z, xs, first=start == 0)
            if d_bias is not None:
                d_bias += z.sum(dim=0, dtype=plan.work)
    return values, _Gradients(
        d_hidden,
        None if d_weight is None else d_weight.to(weight.dtype),
        None if d_bias is None or bias is None else d_bias.to(bias.dtype),
    )


def _add_product(total: Tensor, z: Tensor, x: Tensor, first: bool) -> None:
    """total += z^T x, or total = z^T x for the `first`, made and summed in the dtype of `total`.

    Rounded to bfloat16 before they are summed, the products of many chunks lead the entropy away over some
    dozen steps.
    """
    beta = 0.0 if first else 1.0
    if total.dtype == z.dtype:
        total.addmm_(z.t(), x, beta=beta)
    elif total.is_cuda and hasattr(torch.ops.aten.addmm, "dtype_out"):
        torch.addmm(total.zero_() if first else total, z.t(), x, out_dtype=total.dtype, out=total)
    else:
        # A copy of all logits would be twice the chunk: a slice of the vocabulary at a time.
        x = x.to(total.dtype)
        for part, rows in zip(total.split(8192), z.split(8192, dim=1), strict=True):
            part.addmm_(rows.t().to(total.dtype), x, beta=beta)


class _Values(torch.autograd.Function):
    """Token values whose weights are not known yet: the backward pass is a second sweep."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor | None,
        plan: _Plan,
        wanted: tuple[bool, bool, bool],
    ) -> Tensor:
        ctx.plan, ctx.unit = plan, None
        if wanted == (True, False, False):
            # Each hidden gradient is linear in its own row's weight: with a frozen head one sweep is enough.
            ones = hidden.new_ones(len(hidden), dtype=plan.work)
            values, gradients = _sweep(hidden, weight, bias, targets, plan, ones, wanted=wanted)
            ctx.unit = True
            ctx.save_for_backward(gradients.hidden)
        else:
            values, _ = _sweep(hidden, weight, bias, targets, plan)
            ctx.save_for_backward(hidden, weight, bias, targets)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_values: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.unit:
            (unit,) = ctx.saved_tensors
            return (unit * d_values[:, None]).to(unit.dtype), None, None, None, None, None
        hidden, weight, bias, targets = ctx.saved_tensors
        _, gradients = _sweep(
            hidden, weight, bias, targets, ctx.plan, d_values, wanted=ctx.needs_input_grad[:3]
        )
        return (*gradients, None, None, None)


class _WeightedSum(torch.autograd.Function):
    """sum_i c_i values_i for known c: the gradient is formed in the forward sweep,
    backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor | None,
        coefficients: Tensor,
        plan: _Plan,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor]:
        """Many arguments because autograd passes no keywords."""
        values, ctx.gradients = _sweep(hidden, weight, bias, targets, plan, coefficients, wanted=wanted)
        ctx.mark_non_differentiable(values)
        return (values * coefficients).sum(), values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Handed over and scaled in place: a kept copy would cost another (V, d).
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "the gradient of weighted_entropy was already used; run the forward pass again"
            )
        if d_loss.device.type != "cpu" or d_loss.item() != 1.0:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(d_loss)
        return (*gradients, None, None, None, None)


def _wanted(hidden: Tensor, head: Head) -> tuple[bool, bool, bool]:
    on = torch.is_grad_enabled()
    parts = (hidden, head.weight, head.bias)
    return tuple(on and part is not None and part.requires_grad for part in parts)  # type: ignore[return-value]


def recomputed(values: Callable[..., Tensor], rows: int, first: Tensor, *others: Tensor | None) -> Tensor:
    """values(first, *others) in chunks of rows;
    nothing of a chunk is kept for the backward pass but its inputs."""
    # split, not slices: the backward of a slice would make a full-sized zero tensor for every chunk. With no
    # rows there is one empty chunk, and the graph stays connected.
    columns = [len(first.split(rows)) * [None] if x is None else x.split(rows) for x in (first, *others)]
    parts = [checkpoint(values, *chunk, use_reentrant=False) for chunk in zip(*columns, strict=True)]
    return torch.cat(parts)


def values_of(logits: Tensor, targets: Tensor | None) -> Tensor:
    return token_entropy(logits) if targets is None else token_surprisal(logits, targets)


def _module_values(hidden: Tensor, head: Head, targets: Tensor | None, budget: int | None) -> Tensor:
    chunk_bytes = chunk_budget(budget, hidden.device)
    vocab = getattr(head.module, "out_features", None)
    if vocab is None:
        with torch.no_grad():
            vocab = head.logits(hidden.new_zeros(1, hidden.shape[-1])).shape[-1]
    row_bytes = 4 * vocab * max(4, hidden.dtype.itemsize)  # logits, log p, p and their product
    _check_budget(chunk_bytes, row_bytes, vocab)
    return recomputed(lambda h, t: values_of(head.logits(h), t), chunk_bytes // row_bytes, hidden, targets)


@torch.compiler.disable
def entropy_from_hidden(
    hidden: Tensor, head: Head, *, chunk_bytes: int | None = None, targets: Tensor | None = None
) -> Tensor:
    """Token entropies straight from hidden states, in bounded memory.

    H = token_entropy(head.logits(hidden))

    Equal to that line up to rounding, but holds the logits of `chunk_bytes` at a time, forward and backward.
    Matrix products follow autocast; everything from the logits on is float32 (float64 for float64).

    Args:
        hidden: (N, d) hidden states after the last norm.
        head: turns them into logits.
        chunk_bytes: memory for logits, bytes; by default 128 MiB on a CPU and 1 GiB on a GPU.
        targets: (N,) token ids: gives their surprisal -log p instead of entropies.

    Returns:
        (N,) values in nats, differentiable with respect to hidden states, weight and bias.

    Raises:
        InputError: chunk_bytes is too small for one row.

    Example:
        >>> entropy_from_hidden(torch.zeros(2, 3), Head(torch.ones(4, 3)))
        tensor([1.3863, 1.3863])

    Source: dH/dz_j = -p_j (log p_j + H); chunking as in Wijmans et al. (2024), Cut Your Losses in
    Large-Vocabulary Language Models. `weighted_entropy` is its faster sibling for weights known beforehand.
    """
    if head.module is not None:
        return _module_values(hidden, head, targets, chunk_bytes)
    plan = _plan(hidden, head, chunk_bytes)
    return _Values.apply(hidden, head.weight, head.bias, targets, plan, _wanted(hidden, head))


@torch.compiler.disable
def weighted_entropy(
    hidden: Tensor,
    head: Head,
    coefficients: Tensor,
    *,
    chunk_bytes: int | None = None,
    targets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A weighted sum of token entropies whose weights are known: one pass through the head instead of two.

    L = sum_i c_i H_i

    The gradient is formed in the forward pass while the logits of a chunk are in memory; `backward` only
    scales it, and may run once.

    Args:
        hidden: (N, d) hidden states after the last norm.
        head: turns them into logits.
        coefficients: (N,) weights c, constants.
        chunk_bytes: memory for logits, bytes; by default 128 MiB on a CPU and 1 GiB on a GPU.
        targets: (N,) token ids: weighs their surprisal -log p instead of entropies.

    Returns:
        the scalar L, differentiable with respect to hidden states, weight and bias, and the (N,) values in
        nats, detached.

    Raises:
        InputError: chunk_bytes is too small for one row.

    Example:
        >>> head, weights = Head(torch.ones(4, 3)), torch.tensor([1.0, -1.0])
        >>> loss, values = weighted_entropy(torch.zeros(2, 3), head, weights)
        >>> loss, values
        (tensor(0.), tensor([1.3863, 1.3863]))

    Source: as `entropy_from_hidden`.
    """
    coefficients = coefficients.detach()
    if head.module is not None:
        values = _module_values(hidden, head, targets, chunk_bytes)
        return (values * coefficients).sum(), values.detach()
    plan = _plan(hidden, head, chunk_bytes)
    wanted = _wanted(hidden, head)
    known = coefficients.to(plan.work)
    return _WeightedSum.apply(hidden, head.weight, head.bias, targets, known, plan, wanted)
