"""Token entropy: the obvious way, and sums of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from isentropic.errors import InputError

Quantity = Literal["entropy", "surprisal"]


# --- The reference ------------------------------------------------------------------------------------------


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy of next-token distributions, the obvious way.

    H = -sum_j p_j log p_j, with p = softmax(logits) and 0 log 0 = 0

    Args:
        logits: (..., V) of any floating dtype; -inf means probability 0.

    Returns:
        (...) entropies in nats; float32, or float64 for float64 logits. A row of nothing but -inf gives nan.

    Example:
        >>> round(token_entropy(torch.zeros(4)).item(), 4)  # uniform over 4: log 4
        1.3863

    Source: Shannon (1948), A Mathematical Theory of Communication, section 6.
    """
    log_p = torch.log_softmax(at_least_float32(logits), dim=-1)
    # Without the fill 0 * -inf is nan, in the value and again in the gradient.
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(dim=-1)


def token_surprisal(logits: Tensor, targets: Tensor) -> Tensor:
    """Surprisal of given tokens, the obvious way.

    S = -log p_target, with p = softmax(logits)

    Args:
        logits: (N, V) of any floating dtype.
        targets: (N,) token ids.

    Returns:
        (N,) surprisals in nats; float32, or float64 for float64 logits.

    Example:
        >>> round(token_surprisal(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        1.3863

    Source: Shannon (1948), as `token_entropy`, which is its expectation.
    """
    return F.cross_entropy(at_least_float32(logits), targets, reduction="none")


def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class EntropySums(NamedTuple):
    """What adds up over micro-batches and processes:
    the sum and the number of token entropies of each response.

    H_i = sums_i / counts_i

    Args:
        sums: (n,) sum of the token entropies of each response, nats; differentiable where the model is.
        counts: (n,) number of response tokens, integers.

    Example:
        >>> EntropySums(torch.tensor([6.0]), torch.tensor([3])).means()
        tensor([2.])
    """

    sums: Tensor
    counts: Tensor

    def means(self) -> Tensor:
        """Response entropies.

        H_i = sums_i / counts_i

        Returns:
            (n,) mean token entropy of each response, nats.

        Raises:
            InputError: a response has no token; the mean of nothing is not 0.

        Example:
            >>> EntropySums(torch.tensor([6.0, 1.0]), torch.tensor([3, 1])).means().tolist()
            [2.0, 1.0]
        """
        refuse_empty(self.counts, torch.ones_like(self.counts))
        return self.sums / self.counts


def refuse_empty(counts: Tensor, matters: Tensor) -> None:
    empty = ((counts == 0) & (matters != 0)).nonzero().flatten().tolist()
    if empty:
        raise InputError(
            f"rows {empty[:8]} of {len(counts)} have no response token; the mean entropy of an empty "
            "response is undefined; leave these rows out"
        )
