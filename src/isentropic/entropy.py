"""Token entropy: an obvious reference, a memory-bounded engine, and one door to both.

Given the hidden states `h` that predict the response tokens and a head `W`, this computes

    H = token_entropy(h @ W.T)

without ever holding tokens x vocabulary numbers: the rows pass through the head in chunks, and
`dH/dz_j = -p_j (log p_j + H)` needs the logits of one chunk at a time. Sums and counts come out; who needs
a mean divides at the edge.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from isentropic.errors import InputError

Quantity = Literal["entropy", "surprisal"]
Engine = Literal["auto", "chunked", "logits"]

DEFAULT_CHUNK_BYTES = 128 * 2**20
# On a CPU the passes after the matrix product run over this much at a time, which stays in a core's cache.
CPU_TILE_BYTES = 16 * 2**20
# In longer packed rows attention to what is masked costs more than the prompt encoded once saves.
LONGEST_ROW = 512

logger = logging.getLogger("isentropic")
_told: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


# ---- the reference -------------------------------------------------------------------------------------------


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
    log_p = torch.log_softmax(_at_least_float32(logits), dim=-1)
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
    return F.cross_entropy(_at_least_float32(logits), targets, reduction="none")


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class EntropySums(NamedTuple):
    """What adds up over micro-batches and processes: the sum and the number of token entropies a response.

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
        _refuse_empty(self.counts, torch.ones_like(self.counts))
        return self.sums / self.counts


def _refuse_empty(counts: Tensor, matters: Tensor) -> None:
    empty = ((counts == 0) & (matters != 0)).nonzero().flatten().tolist()
    if empty:
        raise InputError(
            f"rows {empty[:8]} of {len(counts)} have no response token; the mean entropy of an empty response is "
            "undefined; leave these rows out"
        )


# ---- the head ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits.

    logits = cap(scale * (h W^T + bias)), with cap(z) = softcap * tanh(z / softcap), or z without a softcap

    Args:
        weight: (V, d); None when `module` is given.
        bias: (V,) or None.
        softcap: Gemma-2's bound on the logits, or None.
        scale: factor on the logits before the soft cap (Cohere's logit_scale, 1 / Granite's logits_scaling).
        module: any callable (n, d) -> (n, V) in place of weight and bias, say a head with LoRA. Still
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
        """The head of a transformers model, as far as its configuration tells; None without output embeddings.

        Args:
            model: a causal language model, not wrapped.

        Returns:
            a `Head`, which still has to be compared with the model's own logits, or None.
        """
        layer = _call(model, "get_output_embeddings")
        if layer is None:
            return None
        config = getattr(model, "config", None)
        config = _call(config, "get_text_config") or config
        scale = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        softcap = getattr(config, "final_logit_softcapping", None)
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


# ---- the engine ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How one call is cut: `rows` through the head at a time, `tile` of them through the passes after it."""

    rows: int
    tile: int
    dtype: torch.dtype  # of the matrix products
    work: torch.dtype  # of everything from the logits on, and of sums
    softcap: float | None
    scale: float


def _plan(hidden: Tensor, head: Head, chunk_bytes: int) -> _Plan:
    assert head.weight is not None
    kind, vocab = hidden.device.type, head.weight.shape[0]
    dtype = hidden.dtype
    if dtype != torch.float64 and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    scratch = vocab * work.itemsize * (1 + (dtype != work) + (head.softcap is not None))
    logits = vocab * dtype.itemsize
    _check_budget(chunk_bytes, logits + scratch, vocab)
    most = chunk_bytes // (logits + scratch)
    # A GPU wants few large kernels, a CPU wants its cache.
    tile = most if kind != "cpu" else max(1, min(most, CPU_TILE_BYTES // scratch))
    return _Plan((chunk_bytes - tile * scratch) // logits, tile, dtype, work, head.softcap, head.scale)


def _check_budget(chunk_bytes: int, row_bytes: int, vocab: int) -> None:
    if chunk_bytes < row_bytes:
        raise InputError(
            f"chunk_bytes is {chunk_bytes}; one row of {vocab} logits needs {row_bytes} bytes; "
            f"give at least {row_bytes}"
        )


def _tile_pass(
    z: Tensor, plan: _Plan, targets: Tensor | None, weights: Tensor | None, scratch: list[Tensor]
) -> Tensor:
    """Values of a few rows of raw logits `z`; with `weights`, z is overwritten by d(sum weights * values)/dz."""
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
    wanted: tuple[bool, bool, bool] = (False, False, False),
) -> tuple[Tensor, _Gradients]:
    """The one pass through the head: values of all rows and the wanted gradients of sum_i coefficients_i values_i."""
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
        extra = 1 + (plan.dtype != plan.work) + (plan.softcap is not None)
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
    """total += z^T x, or total = z^T x for the `first`, summed in the dtype of `total`."""
    if total.dtype == z.dtype:
        total.addmm_(z.t(), x, beta=0.0 if first else 1.0)
        return
    # The product would be a second (V, d): make it a slice of the vocabulary at a time.
    for part, rows in zip(total.split(8192), z.split(8192, dim=1), strict=True):
        part.copy_(rows.t() @ x) if first else part.add_(rows.t() @ x)


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
            values, gradients = _sweep(hidden, weight, bias, targets, plan, ones, wanted)
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
        _, gradients = _sweep(hidden, weight, bias, targets, ctx.plan, d_values, ctx.needs_input_grad[:3])
        return (*gradients, None, None, None)


class _WeightedSum(torch.autograd.Function):
    """sum_i c_i values_i for known c: the gradient is formed in the forward sweep, backward only scales it."""

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
        values, ctx.gradients = _sweep(hidden, weight, bias, targets, plan, coefficients, wanted)
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


def _recomputed(values: Callable[..., Tensor], rows: int, first: Tensor, *others: Tensor | None) -> Tensor:
    """values(first, *others) in chunks of rows; nothing of a chunk is kept for the backward pass but its inputs."""
    # split, not slices: the backward of a slice would make a full-sized zero tensor for every chunk. With no rows
    # there is one empty chunk, and the graph stays connected.
    columns = [len(first.split(rows)) * [None] if x is None else x.split(rows) for x in (first, *others)]
    parts = [checkpoint(values, *chunk, use_reentrant=False) for chunk in zip(*columns, strict=True)]
    return torch.cat(parts)


def _values_of(logits: Tensor, targets: Tensor | None) -> Tensor:
    return token_entropy(logits) if targets is None else token_surprisal(logits, targets)


def _module_values(hidden: Tensor, head: Head, targets: Tensor | None, chunk_bytes: int) -> Tensor:
    vocab = getattr(head.module, "out_features", None)
    if vocab is None:
        with torch.no_grad():
            vocab = head.logits(hidden.new_zeros(1, hidden.shape[-1])).shape[-1]
    row_bytes = 4 * vocab * max(4, hidden.dtype.itemsize)  # logits, log p, p and their product
    _check_budget(chunk_bytes, row_bytes, vocab)
    return _recomputed(lambda h, t: _values_of(head.logits(h), t), chunk_bytes // row_bytes, hidden, targets)


@torch.compiler.disable
def entropy_from_hidden(
    hidden: Tensor, head: Head, *, chunk_bytes: int = DEFAULT_CHUNK_BYTES, targets: Tensor | None = None
) -> Tensor:
    """Token entropies straight from hidden states, in bounded memory.

    H = token_entropy(head.logits(hidden))

    Equal to that line up to rounding, but holds the logits of `chunk_bytes` at a time, forward and backward.
    Matrix products follow autocast; everything from the logits on is float32 (float64 for float64).

    Args:
        hidden: (N, d) hidden states after the last norm.
        head: what makes logits of them.
        chunk_bytes: memory for logits, bytes.
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
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    targets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A weighted sum of token entropies whose weights are known: one pass through the head instead of two.

    L = sum_i c_i H_i

    The gradient is formed in the forward pass while the logits of a chunk are at hand; `backward` only scales
    it, and may run once.

    Args:
        hidden: (N, d) hidden states after the last norm.
        head: what makes logits of them.
        coefficients: (N,) weights c, constants.
        chunk_bytes: memory for logits, bytes.
        targets: (N,) token ids: weighs their surprisal -log p instead of entropies.

    Returns:
        the scalar L, differentiable with respect to hidden states, weight and bias, and the (N,) values in nats,
        detached.

    Raises:
        InputError: chunk_bytes is too small for one row.

    Example:
        >>> loss, values = weighted_entropy(torch.zeros(2, 3), Head(torch.ones(4, 3)), torch.tensor([1.0, -1.0]))
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


# ---- the door ------------------------------------------------------------------------------------------------


class EntropyScorer:
    """Response entropies of a causal language model: one door, two engines.

    H_b = (1 / n_b) sum_t H(p(. | prompt and response before t)), over the response tokens of row b only

    The `chunked` engine takes the hidden states out of the model's own forward and sends those that predict a
    response token through the head in chunks. The `logits` engine takes the model's own logits at these
    positions: always right, but tokens x vocabulary large. `auto` compares both once on a small input, uses
    `logits` where they differ or the head is unknown or sharded, and logs that once.

    A row may be packed: a prompt with several responses behind it, each of which sees the prompt and itself. `owners`
    says which token belongs to which response; `longest_row` whether a model can be scored so.

    Args:
        model: the model to choose the engine for now; left out, it is chosen at the first call.
        engine: "auto", "chunked" or "logits".
        chunk_bytes: memory for logits, bytes.
        quantity: "entropy" of the next token's distribution, or "surprisal" -log p of the next token itself.

    Raises:
        InputError: an unknown engine or quantity; engine "chunked" for a model it does not fit.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        engine: Engine = "auto",
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        quantity: Quantity = "entropy",
    ) -> None:
        for name, value, known in (
            ("engine", engine, ("auto", "chunked", "logits")),
            ("quantity", quantity, ("entropy", "surprisal")),
        ):
            if value not in known:
                raise InputError(
                    f"{name} is {value!r}; there is no such {name}; choose one of {', '.join(known)}"
                )
        self.engine, self.chunk_bytes, self.quantity = engine, chunk_bytes, quantity
        self._choices: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._longest: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
        if model is not None:
            self.engine_for(model)

    def score(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        predicts: Tensor,
        owners: Tensor | None = None,
    ) -> EntropySums:
        """Sum and number of token entropies of each row's response, or of each response of packed rows.

        Args:
            model: a causal language model, wrapped (DDP, PEFT) or not; called through its own forward.
            input_ids: (B, T) token ids, padded on either side.
            attention_mask: (B, T), 1 for tokens, 0 for padding.
            predicts: (B, T) bool, True at t when token t + 1 is a response token.
            owners: (B, T) for packed rows, the number of the response that a token belongs to, -1 for what all
                responses of the row share. The last token of the prompt is repeated before each response and is its.

        Returns:
            `EntropySums` of B rows, or of the responses by number, nats. A row without True has sum 0, still part of
            the graph, and count 0.

        Raises:
            InputError: shapes that differ; True in the last column, where no next token is; packed rows for a model
                that takes none.
        """
        counts = _counts(input_ids, attention_mask, predicts, owners)
        numbers, values, _ = self._values(model, input_ids, attention_mask, predicts, owners, None)
        return _summed(numbers, values, counts)

    def weighted(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        predicts: Tensor,
        row_weights: Tensor,
        owners: Tensor | None = None,
    ) -> tuple[Tensor, EntropySums]:
        """A weighted sum of response entropies; the gradient of the head is formed on the way.

        L = sum_b w_b H_b

        Args:
            model: as in `score`.
            input_ids: (B, T) token ids, padded on either side.
            attention_mask: (B, T), 1 for tokens, 0 for padding.
            predicts: (B, T) bool, True at t when token t + 1 is a response token.
            row_weights: (B,) weights w, constants; one a response where rows are packed.
            owners: as in `score`.

        Returns:
            the scalar L, nats, whose `backward` may run once, and the detached `EntropySums`.

        Raises:
            InputError: as `score`; a weight other than 0 on a row without response.
        """
        counts = _counts(input_ids, attention_mask, predicts, owners)
        _refuse_empty(counts, row_weights)
        weights = row_weights.detach() / counts.clamp(min=1)
        numbers, values, loss = self._values(model, input_ids, attention_mask, predicts, owners, weights)
        assert loss is not None
        return loss, _summed(numbers, values.detach(), counts)

    def engine_for(self, model: nn.Module) -> str:
        """Which engine serves a model.

        Args:
            model: a causal language model, wrapped or not.

        Returns:
            "chunked" or "logits".

        Raises:
            InputError: engine "chunked" was asked for and does not fit the model.
        """
        base = _unwrap(model)
        # A trainer may shard a model that was whole when it was first scored.
        if base not in self._choices or self._choices[base] == "chunked" and _sharded(model, base):
            self._settle(base, None if self.engine == "logits" else _misfit(model, base))
        return self._choices[base]

    def longest_row(self, model: nn.Module) -> int:
        """How long packed rows may be. Tried once on a small input, against the same responses in rows of their own.

        Args:
            model: a causal language model, wrapped or not.

        Returns:
            the most tokens of a packed row; 0 where each response needs a row of its own, which is logged once.
        """
        base = _unwrap(model)
        if base not in self._longest:
            misfit = _packing_misfit(model, base)
            if misfit:
                _tell(base, f"{misfit}; each response is scored in a row of its own, prompt included")
            self._longest[base] = 0 if misfit else min(LONGEST_ROW, *_reach(base))
        return self._longest[base]

    def _settle(self, base: nn.Module, misfit: str | None) -> None:
        if misfit and self.engine == "chunked":
            raise InputError(f"engine is 'chunked' but {misfit}; results would be wrong; use engine 'auto'")
        if misfit:
            _tell(
                base,
                f"{misfit}; using the model's own logits, which are right but hold tokens x vocabulary in memory",
            )
        self._choices[base] = "logits" if misfit or self.engine == "logits" else "chunked"

    def _values(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        predicts: Tensor,
        owners: Tensor | None,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Response numbers and values of all response tokens; with weights also their weighted sum."""
        if owners is not None and not self.longest_row(model):
            raise InputError(
                "owners are given, but the model cannot score several responses in a row (the log says why); results "
                "would be wrong; give each response a row of its own"
            )
        where = predicts.flatten().nonzero().flatten()
        numbers = where // predicts.shape[1] if owners is None else owners.flatten()[where]
        targets = input_ids.flatten()[where + 1] if self.quantity == "surprisal" else None
        coefficients = None if weights is None else weights[numbers]
        base = _unwrap(model)
        kwargs = _inputs(base, input_ids, attention_mask, owners)
        if self.engine_for(model) == "chunked":
            with _caught_hidden(base) as caught:
                model(**kwargs, logits_to_keep=1)
            if not caught:
                # A graph compiled before the hook was set does not call it.
                self._settle(base, "its decoder runs out of sight, inside a compiled graph")
        if self.engine_for(model) == "logits":
            values = self._from_logits(model, base, kwargs, predicts, where, targets)
            return numbers, values, None if coefficients is None else (values * coefficients).sum()
        hidden, autocast = caught[-1]
        picked = hidden.reshape(-1, hidden.shape[-1]).index_select(0, where)
        head = Head.of(base)
        assert head is not None
        with autocast():
            if coefficients is None:
                values = entropy_from_hidden(picked, head, chunk_bytes=self.chunk_bytes, targets=targets)
                return numbers, values, None
            loss, values = weighted_entropy(
                picked, head, coefficients, chunk_bytes=self.chunk_bytes, targets=targets
            )
            return numbers, values, loss

    def _from_logits(
        self,
        model: nn.Module,
        base: nn.Module,
        kwargs: dict[str, Any],
        predicts: Tensor,
        where: Tensor,
        targets: Tensor | None,
    ) -> Tensor:
        width = predicts.shape[1]
        if _accepts(base, "logits_to_keep"):
            columns = predicts.any(dim=0).nonzero().flatten()
            columns = columns if len(columns) else columns.new_zeros(1)
            slot = torch.zeros(width, dtype=torch.long, device=columns.device)
            slot[columns] = torch.arange(len(columns), device=columns.device)
            where = where // width * len(columns) + slot[where % width]
            kwargs = {**kwargs, "logits_to_keep": columns}
        logits = model(**kwargs).logits
        logits = logits.reshape(-1, logits.shape[-1])
        if len(where) < len(logits):
            logits = logits.index_select(0, where)
        rows = max(1, self.chunk_bytes // (4 * logits.shape[-1] * max(4, logits.dtype.itemsize)))
        return _recomputed(_values_of, rows, logits, targets)


def _counts(input_ids: Tensor, attention_mask: Tensor, predicts: Tensor, owners: Tensor | None) -> Tensor:
    """How many tokens each response has, once it is sure that the tensors hang together."""
    shapes = [tuple(x.shape) for x in (input_ids, attention_mask, predicts, owners) if x is not None]
    if len(set(shapes)) > 1:
        raise InputError(
            f"input_ids, attention_mask and predicts (and owners) have shapes {shapes}; they speak of the same tokens; "
            "give tensors of one shape"
        )
    if bool(predicts[:, -1].any()):
        raise InputError(
            f"predicts is True in the last column {predicts.shape[1] - 1}; no token follows there; set it at the "
            "position before each response token"
        )
    if owners is None:
        return predicts.sum(dim=1)
    scored = owners[predicts]
    if bool((scored < 0).any()):
        raise InputError(
            "predicts is True where owners is -1; what is shared predicts for no response alone; repeat the last token "
            "of the prompt before each response"
        )
    return torch.bincount(scored)


def _summed(numbers: Tensor, values: Tensor, counts: Tensor) -> EntropySums:
    return EntropySums(values.new_zeros(len(counts)).index_add(0, numbers, values), counts)


def _tell(base: nn.Module, text: str) -> None:
    """Log a warning about a model once."""
    told = _told.setdefault(base, set())
    if text not in told:
        told.add(text)
        logger.warning("%s: %s", type(base).__name__, text)


def _call(thing: Any, method: str) -> Any:
    """thing.method(), or None without such a method."""
    return getattr(thing, method)() if hasattr(thing, method) else None


def _unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside DDP, a compiled module, PEFT."""
    while True:
        if isinstance(inner := getattr(model, "module", None), nn.Module):
            model = inner
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(inner := _call(model, "get_base_model"), nn.Module):
            model = inner
        else:
            return model


def _decoder(base: nn.Module) -> nn.Module | None:
    decoder = _call(base, "get_decoder")
    return decoder if isinstance(decoder, nn.Module) and decoder is not base else None


def _accepts(base: nn.Module, name: str) -> bool:
    parameters = inspect.signature(base.forward).parameters
    # A wrapper's (*args, **kwargs) passes on what it is given.
    return name in parameters or "input_ids" not in parameters


def _inputs(
    base: nn.Module, input_ids: Tensor, attention_mask: Tensor, owners: Tensor | None = None
) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if owners is not None:
        seen = _seen(attention_mask, owners)
        # A token's position is the number of tokens that it sees before itself: each response starts where the prompt ends.
        inputs["position_ids"] = seen.sum(dim=-1) - 1
        inputs["attention_mask"] = _as_mask(base, seen)
    elif _accepts(base, "position_ids"):
        # Counted from the first real token, so that padding on the left shifts nothing.
        inputs["position_ids"] = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
    return inputs


def _seen(attention_mask: Tensor, owners: Tensor) -> Tensor:
    """(B, T, T) bool, True where the token of the row sees that of the column: shared ones and those of its response."""
    related = (owners[:, None, :] < 0) | (owners[:, None, :] == owners[:, :, None])
    seen = (related & attention_mask[:, None, :].bool()).tril()
    # Padding sees itself: a softmax over nothing is nan.
    return seen | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)


def _as_mask(base: Any, seen: Tensor) -> Tensor:
    """(B, 1, T, T) mask in the form that the model's attention takes."""
    if _attention(base) == "sdpa":
        return seen[:, None]
    lowest = torch.finfo(base.dtype).min
    return torch.zeros(seen.shape, dtype=base.dtype, device=seen.device).masked_fill(~seen, lowest)[:, None]


def _attention(base: Any) -> str:
    """The name of the model's attention: eager, sdpa, flash_attention_2 ..."""
    return str(base.config.get_text_config()._attn_implementation)


def _reach(base: Any) -> list[int]:
    """How far the model's positions and windows reach, where its config speaks of such."""
    config = base.config.get_text_config()
    names = ("max_position_embeddings", "sliding_window", "window_size", "attention_window_size")
    found = [getattr(config, name, None) for name in (*names, "attention_chunk_size")]
    return [reach for reach in found if isinstance(reach, int) and reach > 0]


@contextmanager
def _caught_hidden(base: nn.Module, replace: Callable[[Tensor], Tensor] | None = None) -> Iterator[list[Any]]:
    """Catches the decoder's last hidden state, and the autocast it ran under, from inside the model's forward."""
    caught: list[Any] = []

    def catch(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = output[0]
        kind = hidden.device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        if replace is not None:
            hidden = replace(hidden)
            output = (
                (hidden, *output[1:]) if isinstance(output, tuple) else type(output)(last_hidden_state=hidden)
            )
        # Trainers may enter autocast inside the wrapped forward only: the head is to run as it would have there.
        caught.append((hidden, lambda: torch.autocast(kind, dtype=dtype, enabled=enabled)))
        return output

    decoder = _decoder(base)
    assert decoder is not None
    handle = decoder.register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def _sharded(model: nn.Module, base: nn.Module) -> str | None:
    if any(type(part).__name__ in ("FullyShardedDataParallel", "DataParallel") for part in model.modules()):
        return "the model is spread over devices by FSDP or DataParallel"
    if any(hasattr(p, "ds_id") or hasattr(p, "device_mesh") for p in base.parameters()):
        return "its parameters are sharded"
    return None


def _misfit(model: nn.Module, base: nn.Module) -> str | None:
    """Why the chunked engine cannot serve this model, or None."""
    if sharded := _sharded(model, base):
        return sharded
    head = Head.of(base)
    if head is None or _decoder(base) is None:
        return "it has no decoder and head that the engine knows"
    if not _accepts(base, "logits_to_keep"):
        return "its forward takes no logits_to_keep"
    return None if _agrees(base, head) else "its logits are not those of its head"


def _agrees(base: nn.Module, head: Head) -> bool:
    """Whether the model's own logits are head.logits(hidden), tried on hidden states of several sizes."""
    ids = torch.arange(4, device=next(base.parameters()).device)[None]
    # A soft cap hardly bends the small logits of a fresh model: enlarge the hidden states until it shows.
    sizes = torch.tensor([1.0, 4.0, 16.0, 64.0], device=ids.device)[None, :, None]
    with (
        _trial(base),
        _caught_hidden(base, lambda hidden: (hidden * sizes).to(hidden.dtype)) as caught,
    ):
        own = base(**_inputs(base, ids, torch.ones_like(ids))).logits
        hidden, autocast = caught[-1]
        with autocast():
            ours = head.logits(hidden)
    return _same(own, ours, min(hidden.dtype.itemsize, ours.dtype.itemsize))


def _packing_misfit(model: nn.Module, base: Any) -> str | None:
    """Why packed rows would not be right for this model, or None."""
    if sharded := _sharded(model, base):
        return sharded
    if not hasattr(base, "config") or not _accepts(base, "position_ids"):
        return "its forward takes no position_ids"
    if _attention(base) not in ("eager", "sdpa"):
        return f"its attention, {_attention(base)}, takes no mask of ours"
    device = base.device
    # The prompt 1 2 3 with the responses 4 5 6 and 7 8, packed and in rows of their own.
    packed = torch.tensor([[1, 2, 3, 4, 5, 6, 3, 7, 8]], device=device)
    owners = torch.tensor([[-1, -1, 0, 0, 0, 0, 1, 1, 1]], device=device)
    alone = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 0]], device=device)
    real = torch.ones_like(alone)
    real[1, -1] = 0
    with _trial(base), torch.autocast(device.type, enabled=False):
        truth = base(**_inputs(base, alone, real)).logits[:, 2:][real[:, 2:].bool()]
        try:
            ours = base(**_inputs(base, packed, torch.ones_like(packed), owners)).logits[0, 2:]
        except Exception as error:  # whatever the model makes of a mask that it does not know
            return f"its forward takes no mask of ours ({type(error).__name__})"
    fits = _same(truth, ours, base.dtype.itemsize)
    return None if fits else "the responses of a packed row do not come out as they do alone"


@contextmanager
def _trial(base: nn.Module) -> Iterator[None]:
    """No gradient and no dropout inside the block; each part in its mode of before after it."""
    training = [part for part in base.modules() if part.training]
    base.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def _same(truth: Tensor, ours: Tensor, itemsize: int) -> bool:
    """Whether logits are equal within the rounding of numbers of so many bytes."""
    if truth.shape != ours.shape:
        return False
    truth, ours = _at_least_float32(truth), _at_least_float32(ours)
    tolerance = 2e-2 if itemsize < 4 else 1e-4
    largest = truth.abs().amax(dim=-1, keepdim=True)
    return bool(((truth - ours).abs() <= tolerance * largest + 1e-6).all())
