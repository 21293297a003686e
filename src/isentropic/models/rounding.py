"""Weights in a narrower dtype, rounded so that what training changed is left on average."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def round_stochastically(
    values: Tensor, dtype: torch.dtype, generator: torch.Generator | None = None
) -> Tensor:
    """Round each value to one of its two neighbours in ``dtype``, the nearer one with the higher probability.

    .. math:: P(x \\to b) = (x - a) / (b - a) for the neighbours a <= x <= b, so that E[rounded] = x

    Rounding to the nearest undoes small changes: a weight that moved by less than half the distance to its
    neighbour is the old weight again. Rounded by chance, the changes of many weights survive in their sums.

    Args:
        values: float32 or float64.
        dtype: torch.bfloat16 or torch.float16; a dtype as wide as that of the values gives a plain cast.
        generator: fixes the draws; on the device of the values.

    Returns:
        The rounded values. What the dtype holds exactly stays as it is; values beyond its range become what a
        plain cast makes of them.

    Example:
        >>> # a quarter of the way from 1 to its neighbour 1 + 2**-7
        >>> halfway = torch.full((10_000,), 1 + 2**-9)
        >>> draws = torch.Generator().manual_seed(0)
        >>> rounded = round_stochastically(halfway, torch.bfloat16, draws).float()
        >>> sorted(set(rounded.tolist())), round((rounded > 1).float().mean().item(), 1)
        ([1.0, 1.0078125], 0.2)
    """
    near = values.to(dtype)
    if dtype.itemsize >= values.dtype.itemsize or dtype.itemsize != 2:
        return near
    wide = near.to(values.dtype)
    # As integers, neighbouring numbers of one sign follow one another: one more is one further from zero.
    outwards = values.abs() > wide.abs()
    other = (near.view(torch.int16) + torch.where(outwards, 1, -1).to(torch.int16)).view(dtype)
    share = (values - wide) / (other.to(values.dtype) - wide)
    drawn = torch.rand(values.shape, generator=generator, device=values.device, dtype=values.dtype)
    return torch.where((drawn < share) & torch.isfinite(near) & torch.isfinite(other), other, near)


def rounded_state(state: Mapping[str, Tensor], dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """The floating-point tensors of a state dict in ``dtype``;
    each tensor's draws depend on its name and the seed alone."""
    return {
        name: _rounded(name, tensor, dtype, seed) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def round_weights(model: nn.Module, dtype: torch.dtype, seed: int) -> None:
    """Give the weights, in place, values that a narrower dtype holds; their own dtype stays,
    so they are computed with as before.

    Args:
        model: its weights are whole, not sharded.
        dtype: what they will be saved in.
        seed: of the draws.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype.itemsize > dtype.itemsize:
            parameter.data = _rounded(name, parameter.data, dtype, seed).to(parameter.dtype)


@contextlib.contextmanager
def in_dtype(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The model with its weights in ``dtype`` inside the block;
    nothing is lost where that holds their values."""
    kept = {p: p.dtype for p in model.parameters() if p.is_floating_point()}
    for parameter in kept:
        parameter.data = parameter.data.to(dtype)
    try:
        yield
    finally:
        for parameter, before in kept.items():
            parameter.data = parameter.data.to(before)


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    generator = torch.Generator(tensor.device).manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
    return round_stochastically(tensor, dtype, generator)
