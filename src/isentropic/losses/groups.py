"""What both losses share: the mean entropy of each group, and the gap between the means."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from isentropic.errors import InputError


def check_names(groups: Sequence[str]) -> tuple[str, ...]:
    """The names a loss compares: two at least, each once."""
    if len(groups) < 2:
        raise InputError(f"groups is {tuple(groups)}; a gap needs two; name at least two groups")
    if len(set(groups)) < len(groups):
        raise InputError(f"groups is {tuple(groups)}; a group has no gap to itself; name each group once")
    return tuple(groups)


def membership(groups: Sequence[str], names: Sequence[str], device: torch.device | None = None) -> Tensor:
    """One row of True and False a group: ``membership(...)[g, i]`` says whether sample i belongs to group g.

    Raises:
        InputError: a sample has a name that is not a group, or a group has no sample. (A missing group has no
            entropy: calling it 0 would invent a gap.)

    Example:
        >>> membership(["male", "female", "male"], ["male", "female"]).int().tolist()
        [[1, 0, 1], [0, 1, 0]]
    """
    unknown = sorted(set(groups) - set(names))
    if unknown:
        raise InputError(
            f"unknown group {unknown[0]!r}; this loss compares {' and '.join(names)}, so it cannot use a "
            f"third name; pass groups=(...) with all names"
        )
    for name in names:
        if name not in groups:
            raise InputError(
                f"no sample of group {name!r} among {len(groups)}; a missing group has no entropy and so "
                "there is no gap; put at least one prompt of each group in every batch"
            )
    return torch.tensor([[group == name for group in groups] for name in names], device=device)


def check_entropies(entropies: Tensor, groups: Sequence[str]) -> None:
    """Refuse anything but a vector of one entropy per sample."""
    if entropies.dim() != 1 or len(entropies) != len(groups):
        raise InputError(
            f"entropies have shape {tuple(entropies.shape)} but there are {len(groups)} group names; the "
            "loss needs one response entropy per sample; pass a tensor of shape (n,) and n names"
        )


def group_means(entropies: Tensor, members: Tensor) -> Tensor:
    """``H_g = mean of H_i over group g``: (n,) entropies and (g, n) members give (g,), in nats."""
    weights = members.to(entropies.dtype)
    return (weights * entropies).sum(1) / weights.sum(1)


def pairs_of_groups(count: int) -> list[tuple[int, int]]:
    """All pairs of group indices: [(0, 1)] for two groups, [(0, 1), (0, 2), (1, 2)] for three."""
    return list(itertools.combinations(range(count), 2))


def gap_between(means: Tensor, use_l1: bool) -> Tensor:
    """Mean over pairs of groups of ``(H_b - H_a)^2``, or of ``|H_b - H_a|`` with ``use_l1``.

    For two groups this is ``(H_female - H_male)^2``, the guide's formula.
    """
    first, second = zip(*pairs_of_groups(len(means)), strict=True)
    gaps = means[list(second)] - means[list(first)]
    return (gaps.abs() if use_l1 else gaps.square()).mean()


def pair_entropies(entropies: Tensor, members: Tensor, pairs: Sequence[Hashable]) -> Tensor:
    """Mean entropy of each pair's responses by group: (n,) entropies give (number of pairs, g).

    Raises:
        InputError: a pair lacks one of its twins.
    """
    index = {pair: k for k, pair in enumerate(dict.fromkeys(pairs))}
    rows = torch.tensor([index[pair] for pair in pairs], device=entropies.device)
    shape = (len(index), len(members))
    cells = rows * len(members) + members.int().argmax(0)
    counts = torch.bincount(cells, minlength=shape[0] * shape[1])
    if bool((counts == 0).any()):
        lost = list(index)[int((counts == 0).nonzero()[0]) // shape[1]]
        raise InputError(
            f"pair {lost!r} lacks one of its twins in this batch; its difference cannot be formed; keep "
            "pairs whole"
        )
    sums = torch.zeros(shape[0] * shape[1], dtype=entropies.dtype, device=entropies.device)
    return (sums.index_add(0, cells, entropies) / counts).view(shape)


def named_metrics(loss: Tensor, entropies: Tensor, means: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The parts every loss reports: the gap, each group's entropy, and the mean over all samples, in nats.

    ``entropy_gap`` is the distance of the two groups furthest apart; with two groups ``entropy_gap_signed``
    is the second minus the first (female minus male).
    """
    values = means.detach()
    metrics = {
        "loss": float(loss.detach()),
        "entropy_gap": float(values.max() - values.min()),
        "entropy_gap_signed": float(values[1] - values[0]),
        **{f"H_{name}": float(value) for name, value in zip(names, values, strict=True)},
        "H_mean": float(entropies.detach().mean()),
    }
    if len(names) > 2:
        del metrics["entropy_gap_signed"]
    return metrics
