"""GEE, the older loss: mean entropy plus ``lambda`` times the squared gap."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor

from isentropic.errors import InputError
from isentropic.losses.groups import (
    check_entropies,
    check_names,
    gap_between,
    group_means,
    membership,
    named_metrics,
)


class GEELoss:
    """Mean entropy plus ``lambda`` times the gap, squared or absolute.

    .. math:: L = \\bar H + \\lambda (H_f - H_m)^2

    The first term lowers the entropy of every answer, whichever group it is about. It is kept for comparison.

    Args:
        lambda_weight: the factor ``lambda`` of the gap.
        use_l1: ``True`` uses the absolute gap instead of its square.
        groups: the names to compare, as in :class:`DebiasingLoss`.

    Calling it returns ``(loss, metrics)`` as :class:`DebiasingLoss` does.

    Raises:
        InputError: a group is missing, a name is unknown, or the shapes do not fit.

    Example:
        >>> import torch
        >>> loss, metrics = GEELoss(lambda_weight=3.0)(torch.tensor([0.45, 0.85]), ["male", "female"])
        >>> round(loss.item(), 4)  # 0.65 + 3 * 0.16
        1.13

    See also:
        DebiasingLoss: the gap alone.
    """

    of_one_gap = False  # the mean entropy enters too

    def __init__(
        self, lambda_weight: float = 3.0, use_l1: bool = False, *, groups: Sequence[str] = ("male", "female")
    ) -> None:
        if not 0 <= lambda_weight < float("inf"):
            raise InputError(
                f"lambda_weight is {lambda_weight}; a negative weight would widen the gap; give 0 or a "
                "number above"
            )
        self.lambda_weight = lambda_weight
        self.use_l1 = use_l1
        self.groups = check_names(groups)

    def __call__(
        self, entropies: Tensor, groups: Sequence[str], pairs: Sequence[Hashable] | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Args: ``entropies`` (n,) in nats; ``groups`` n names;
        ``pairs`` is taken for symmetry and not used."""
        check_entropies(entropies, groups)
        means = group_means(entropies, membership(groups, self.groups, entropies.device))
        loss = entropies.mean() + self.lambda_weight * gap_between(means, self.use_l1)
        return loss, named_metrics(loss, entropies, means, self.groups)
