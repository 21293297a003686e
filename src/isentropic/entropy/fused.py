"""The passes after the matrix product as one GPU kernel:
each row of logits is read twice and written once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    jit: Any = triton.jit
except ImportError:  # it comes with PyTorch where that knows a GPU; nothing else calls what is here
    jit = lambda kernel: kernel  # noqa: E731

BLOCK = 4096


@jit
def _logits(row_ptr, columns, inside, scale, softcap, CAPPED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The logits of a block, and the slope of the soft cap there."""
    z = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32) * scale
    slope = tl.full(z.shape, 1.0, tl.float32)
    if CAPPED:
        t = 2.0 * tl.sigmoid(2.0 * z / softcap) - 1.0  # tanh
        z = softcap * t
        slope = 1.0 - t * t
    return z, slope


@jit
def _row(  # type: ignore[no-untyped-def]
    z_ptr, stride, values_ptr, weights_ptr, targets_ptr, vocab, scale, softcap,
    CAPPED: tl.constexpr, TARGETS: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a row: its value, and with GRADIENT the row itself replaced by weight * d(value)/dz.

    Many arguments because a kernel takes pointers and numbers, no objects.
    """
    row = tl.program_id(0).to(tl.int64)
    row_ptr = z_ptr + row * stride
    scale = tl.cast(scale, tl.float32)
    softcap = tl.cast(softcap, tl.float32)
    # Relative to the largest logit so far: sum_j e^u_j and sum_j e^u_j u_j, lane by lane.
    top = tl.full((), -1e30, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    moment = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocab
        z, _ = _logits(row_ptr, columns, inside, scale, softcap, CAPPED)
        above = tl.maximum(top, tl.max(tl.where(inside, z, -1e30), axis=0))
        fall = top - above
        u = z - above
        e = tl.where(inside, tl.exp(u), 0.0)
        moment = tl.exp(fall) * (moment + fall * total) + e * u
        total = tl.exp(fall) * total + e
        top = above
    sum_e = tl.sum(total, axis=0)
    log_sum = tl.log(sum_e)
    target = tl.full((), -1, tl.int64)
    if TARGETS:
        target = tl.load(targets_ptr + row)
        own, _ = _logits(row_ptr, target, target >= 0, scale, softcap, CAPPED)
        value = log_sum - (own - top)
    else:
        value = log_sum - tl.sum(moment, axis=0) / sum_e
    tl.store(values_ptr + row, value)
    if GRADIENT:
        weight = tl.load(weights_ptr + row)
        for start in range(0, vocab, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < vocab
            z, slope = _logits(row_ptr, columns, inside, scale, softcap, CAPPED)
            log_p = z - top - log_sum
            p = tl.exp(log_p)
            if TARGETS:  # noqa: SIM108 - two formulas, one a line
                d = p - tl.where(columns == target, 1.0, 0.0)
            else:
                d = -p * (log_p + value)
            d = d * weight * slope * scale
            tl.store(row_ptr + columns, d.to(z_ptr.dtype.element_ty), mask=inside)


def row_pass(
    z: Tensor, scale: float, softcap: float | None, targets: Tensor | None, weights: Tensor | None
) -> Tensor:
    """Values of rows of raw logits `z`; with `weights`, z is overwritten by d(sum weights * values)/dz.

    Args:
        z: (n, V) float32, bfloat16 or float16, each row contiguous.
        scale, softcap: as in `Head`.
        targets: (n,) token ids for surprisals; entropies without.
        weights: (n,) float32.

    Returns:
        (n,) float32 values, nats.
    """
    values = torch.empty(len(z), dtype=torch.float32, device=z.device)
    if len(z):
        _row[(len(z),)](
            z, z.stride(0), values, values if weights is None else weights.contiguous(),
            values if targets is None else targets.contiguous(), z.shape[1], scale, softcap or 1.0,
            CAPPED=softcap is not None, TARGETS=targets is not None, GRADIENT=weights is not None,
            BLOCK=BLOCK, num_warps=8,
        )  # fmt: skip
    return values
