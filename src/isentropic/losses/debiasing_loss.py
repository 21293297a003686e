"""Pure debiasing: the gap between the groups' mean entropies, and nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from isentropic.errors import InputError
from isentropic.losses.groups import (
    check_entropies,
    check_names,
    gap_between,
    group_means,
    membership,
    named_metrics,
    pair_entropies,
    pairs_of_groups,
)

ESTIMATORS = ("plain", "unbiased", "pairwise")


class DebiasingLoss:
    """The gap between two groups' mean response entropies, squared or absolute.

    .. math:: L = s (H_f - H_m)^2 \\quad\\text{or}\\quad L = s |H_f - H_m|

    With more than two groups it is the mean over all pairs of groups.

    Args:
        use_l1: ``False`` gives the square (L2), ``True`` the absolute value (L1).
        scale_factor: the factor ``s``.
        groups: the names to compare. The signed gap is the second minus the first.
        estimator: how the square of the gap is estimated from a batch.

            - ``"plain"``: ``gap_hat^2``, the guide's formula. In expectation it is ``gap^2 + variance``.
            - ``"unbiased"``: an estimate whose expectation is ``gap^2``. For n pairs with differences d and
              sum S it is ``(S^2 - sum d^2) / (n(n-1))``; for unpaired groups
              ``gap_hat^2 - s_f^2/n_f - s_m^2/n_m``. It can be negative.
            - ``"pairwise"``: ``mean d^2``, which asks that every pair be equal, not only the mean.

    Calling it returns ``(loss, metrics)``. ``loss`` is a scalar tensor that carries the gradient; ``metrics``
    is a dict of floats: ``loss``, ``entropy_gap`` (absolute), ``entropy_gap_signed`` (female minus male),
    ``H_male``, ``H_female`` and ``H_mean``, all in nats except the loss.

    Raises:
        InputError: a group is missing, a name is unknown, or the shapes do not fit.

    Example:
        >>> import torch
        >>> loss, metrics = DebiasingLoss()(torch.tensor([0.45, 0.85]), ["male", "female"])
        >>> round(loss.item(), 4), round(metrics["entropy_gap"], 4)
        (0.16, 0.4)

    See also:
        GEELoss: also lowers the mean entropy.
    """

    def __init__(
        self,
        use_l1: bool = False,
        scale_factor: float = 1.0,
        *,
        groups: Sequence[str] = ("male", "female"),
        estimator: str = "plain",
    ) -> None:
        if not scale_factor > 0 or scale_factor == float("inf"):
            raise InputError(
                f"scale_factor is {scale_factor}; the loss would not fall with the gap; give a number above 0"
            )
        if estimator not in ESTIMATORS:
            raise InputError(
                f"estimator is {estimator!r}; it says how the squared gap is estimated; choose one of "
                f"{', '.join(ESTIMATORS)}"
            )
        if use_l1 and estimator == "unbiased":
            raise InputError(
                "use_l1 with estimator 'unbiased'; only a square has an unbiased estimate; drop one of the "
                "two"
            )
        self.use_l1 = use_l1
        self.scale_factor = scale_factor
        self.groups = check_names(groups)
        self.estimator = estimator

    @property
    def of_one_gap(self) -> bool:
        """Whether the loss depends on the entropies through one signed gap alone,
        so that its gradient's direction is known."""
        return self.estimator == "plain" and len(self.groups) == 2

    def __call__(
        self, entropies: Tensor, groups: Sequence[str], pairs: Sequence[Hashable] | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Args: ``entropies`` (n,) in nats; ``groups`` n names; ``pairs`` n pair ids,
        where the prompts are twins."""
        check_entropies(entropies, groups)
        members = membership(groups, self.groups, entropies.device)
        means = group_means(entropies, members)
        if self.estimator == "plain":
            loss = gap_between(means, self.use_l1)
        elif pairs is None:
            if self.estimator == "pairwise":
                raise InputError(
                    "estimator 'pairwise' without pairs; the difference of a pair needs to know which "
                    "prompts are twins; pass pairs=..."
                )
            loss = unbiased_square_of_groups(entropies, members)
        else:
            by_pair = pair_entropies(entropies, members, pairs)
            first, second = zip(*pairs_of_groups(len(self.groups)), strict=True)
            differences = by_pair[:, list(second)] - by_pair[:, list(first)]
            if self.estimator == "pairwise":
                loss = (differences.abs() if self.use_l1 else differences.square()).mean()
            else:
                loss = unbiased_square_of_pairs(differences)
        loss = self.scale_factor * loss
        return loss, named_metrics(loss, entropies, means, self.groups)


def unbiased_square_of_pairs(differences: Tensor) -> Tensor:
    """``(S^2 - sum d^2) / (n(n-1))`` with ``S = sum d``: the mean of ``d_i d_j`` over all i != j.

    Args:
        differences: (n, ...) pair differences in nats; trailing axes are averaged.

    Example:
        >>> import torch
        >>> unbiased_square_of_pairs(torch.tensor([1.0, 2.0, 3.0])).item()  # (1*2 + 1*3 + 2*3) * 2 / 6
        3.6666667461395264
    """
    count = len(differences)
    if count < 2:
        raise InputError(
            f"{count} pair in the batch; the unbiased square multiplies different pairs; use an effective "
            "batch of at least two pairs"
        )
    return ((differences.sum(0).square() - differences.square().sum(0)) / (count * (count - 1))).mean()


def unbiased_square_of_groups(entropies: Tensor, members: Tensor) -> Tensor:
    """``(H_b - H_a)^2 - s_a^2/n_a - s_b^2/n_b``, the mean over pairs of groups,
    for prompts that are not twins."""
    means = group_means(entropies, members)
    counts = members.sum(1)
    if int(counts.min()) < 2:
        raise InputError(
            "one prompt of a group in the batch; its spread is unknown, so the unbiased square cannot be "
            "formed; use an effective batch with at least two prompts per group"
        )
    variances = torch.stack([entropies[member].var() for member in members]) / counts
    first, second = (list(side) for side in zip(*pairs_of_groups(len(means)), strict=True))
    return ((means[second] - means[first]).square() - variances[first] - variances[second]).mean()
