"""Response entropies of a model: rows of tokens in, sums and counts out, one door to both engines.

The model's own forward gives the hidden states, the engine their entropies. What is right for a model is
tried on that model, against its plain ``model(input_ids)``: once on a small row, and again on each row that
is longer than those before.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isentropic.entropy.engine import (
    Head,
    chunk_budget,
    entropy_from_hidden,
    recomputed,
    values_of,
    weighted_entropy,
)
from isentropic.entropy.fits import (
    LONGEST_ROW,
    TRIAL_LENGTH,
    Engine,
    Fit,
    accepts,
    caught_hidden,
    depends_on_length,
    gradient_misfit,
    head_misfit,
    ordinary_ids,
    packed_inputs,
    packed_row_misfit,
    packing_misfit,
    plain_inputs,
    reach_of,
    unwrapped,
    warn_once,
)
from isentropic.entropy.reference import EntropySums, Quantity, refuse_empty
from isentropic.errors import InputError
from isentropic.models.sharding import sharding_of

ALONE = "each response is scored in a row of its own, prompt included"


@dataclass
class _Rows:
    """Rows padded on the right. ``numbers`` names the response that each token belongs to,
    -1 for a shared one."""

    input_ids: Tensor
    attention_mask: Tensor
    predicts: Tensor
    numbers: Tensor
    packed: bool

    @property
    def lengths(self) -> Tensor:
        return self.attention_mask.sum(dim=1)


class EntropyScorer:
    """Response entropies of a causal language model: one door, two engines.

    H_b = (1 / n_b) sum_t H(p(. | prompt and response before t)), over the response tokens of row b only

    The `chunked` engine takes the hidden states out of the model's own forward and sends those that predict a
    response token through the head in chunks. The `logits` engine takes the model's own logits at these
    positions: always right, but tokens x vocabulary large. `auto` compares both once on a small input, uses
    `logits` where they differ or the head is unknown or sharded, and logs that once.

    A row may be packed: a prompt with several responses behind it, each of which sees the prompt and itself.
    `owners` says which token belongs to which response. If a model cannot be scored this way, packed rows are
    split.

    The first trials are on a small row of ordinary tokens. Each row longer than all earlier ones is tried
    too: attention windows and scaled positions matter only there.

    Args:
        model: the model to choose the engine for now; left out, it is chosen at the first call.
        engine: "auto", "chunked" or "logits".
        chunk_bytes: memory for logits, bytes; by default 128 MiB on a CPU and 1 GiB on a GPU.
        quantity: "entropy" of the next token's distribution, a mean over the response's tokens; or
            "surprisal" of the response, the sum of -log p over its tokens (the counts are then 1).

    Raises:
        InputError: an unknown engine or quantity; engine "chunked" for a model it does not fit; a model whose
            predictions depend on later tokens.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        engine: Engine = "auto",
        chunk_bytes: int | None = None,
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
        self._fits: weakref.WeakKeyDictionary[nn.Module, Fit] = weakref.WeakKeyDictionary()
        if model is not None:
            self.fit_of(model)

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
            owners: (B, T) for packed rows, the number of the response that a token belongs to, -1 for what
                all responses of the row share. The last token of the prompt is repeated before each response
                and belongs to it.

        Returns:
            `EntropySums` of B rows, or of the responses by number, nats. A row without True has sum 0, still
            part of the graph, and count 0.

        Raises:
            InputError: shapes that differ; True in the last column, where no next token is; a model that is
                not causal, or whose context is shorter than a row.
        """
        counts = self._divisors(input_ids, attention_mask, predicts, owners)
        rows = _rows(input_ids, attention_mask, predicts, owners)
        numbers, values, _ = self._values(model, rows, None)
        return _summed(numbers, values, counts)

    def score_after(
        self, model: nn.Module, past: Any, before: Tensor, input_ids: Tensor, predicts: Tensor
    ) -> EntropySums:
        """The same for rows that go on where the keys and values of earlier tokens end.

        Whether the model can do so is not tried here.

        Args:
            model: as in `score`.
            past: the cache of the earlier tokens, to which these are added.
            before: (B, P) mask of the earlier tokens, padded on the left.
            input_ids: (B, T) token ids, padded on the right.
            predicts: (B, T) bool, True at t when a response token follows, which may be beyond the row.

        Returns:
            `EntropySums` of B rows.
        """
        base, ones = unwrapped(model), torch.ones_like(input_ids)
        mask = torch.cat([before, ones], dim=1)
        inputs = {"input_ids": input_ids, "attention_mask": mask, "past_key_values": past, "use_cache": True}
        if accepts(base, "position_ids"):
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1)[:, before.shape[1] :]
        numbers, values, _ = self._pass(model, _rows(input_ids, ones, predicts, None), None, inputs)
        return _summed(numbers, values, predicts.sum(dim=1))

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
            row_weights: (B,) weights w, constants; one per response if rows are packed.
            owners: as in `score`.

        Returns:
            the scalar L, nats, whose `backward` may run once, and the detached `EntropySums`.

        Raises:
            InputError: as `score`; a weight other than 0 on a row without response.
        """
        counts = self._divisors(input_ids, attention_mask, predicts, owners)
        refuse_empty(counts, row_weights)
        weights = row_weights.detach() / counts.clamp(min=1)
        rows = _rows(input_ids, attention_mask, predicts, owners)
        numbers, values, loss = self._values(model, rows, weights)
        assert loss is not None
        return loss, _summed(numbers, values.detach(), counts)

    def engine_for(self, model: nn.Module) -> str:
        """Which engine serves a model.

        Args:
            model: a causal language model, wrapped or not.

        Returns:
            "chunked" or "logits".

        Raises:
            InputError: engine "chunked" was asked for and does not fit the model; a model that is not causal.
        """
        return self.fit_of(model).engine

    def longest_row(self, model: nn.Module) -> int:
        """How long packed rows may be.

        Args:
            model: a causal language model, wrapped or not.

        Returns:
            the most tokens of a packed row; 0 where each response needs a row of its own, which is logged
            once.

        Raises:
            InputError: as `engine_for`.
        """
        return self.fit_of(model).longest_row

    def of_surprisal(self) -> EntropyScorer:
        """The same scorer for -log p of the responses; what trials have shown serves both."""
        scorer = copy.copy(self)
        scorer.quantity = "surprisal"
        return scorer

    def _divisors(
        self, input_ids: Tensor, attention_mask: Tensor, predicts: Tensor, owners: Tensor | None
    ) -> Tensor:
        """What the sum over each response's tokens is divided by: their number, or 1 for a surprisal."""
        counts = _counts(input_ids, attention_mask, predicts, owners)
        return counts if self.quantity == "entropy" else counts.clamp(max=1)

    def refuse_untrainable(self, model: nn.Module) -> None:
        """Refuse a model that can be measured, but not trained as it is measured.

        Args:
            model: a causal language model, wrapped or not.

        Raises:
            InputError: its backward pass fails or does not reach its input; its forward pass changes its
                weights.
        """
        base = unwrapped(model)
        self.fit_of(model)
        misfit = None if sharding_of(model) else gradient_misfit(base)
        if misfit:
            raise InputError(
                f"{type(base).__name__} cannot be trained in evaluation mode, as it is measured: {misfit}; "
                "measuring it works; train another model, or change its configuration"
            )

    def fit_of(self, model: nn.Module) -> Fit:
        """What trials have shown of a model; the first call makes them.

        Args:
            model: a causal language model, wrapped or not.

        Raises:
            InputError: as `engine_for`.
        """
        base = unwrapped(model)
        if base not in self._fits:
            self._fits[base] = self._first_trials(model, base)
        elif self._fits[base].engine == "chunked" and (sharded := sharding_of(model)):
            # A trainer may shard a model that was whole when it was first scored.
            self._choose_engine(base, self._fits[base], sharded)
        return self._fits[base]

    def _first_trials(self, model: nn.Module, base: nn.Module) -> Fit:
        fit = Fit()
        sharded = sharding_of(model)
        if not sharded:
            self._try_length(base, fit, ordinary_ids(base, TRIAL_LENGTH))
        self._choose_engine(base, fit, None if self.engine == "logits" else head_misfit(model, base))
        if not fit.equal_lengths:
            misfit = sharded or packing_misfit(base)
            if misfit:
                warn_once(base, f"{misfit}; {ALONE}")
            fit.longest_row = 0 if misfit else min(LONGEST_ROW, *reach_of(base))
        return fit

    def _choose_engine(self, base: nn.Module, fit: Fit, misfit: str | None) -> None:
        if misfit and self.engine == "chunked":
            raise InputError(f"engine is 'chunked' but {misfit}; results would be wrong; use engine 'auto'")
        if misfit:
            warn_once(
                base,
                f"{misfit}; using the model's own logits, which are right but hold tokens x vocabulary in "
                "memory",
            )
        fit.engine = "logits" if misfit or self.engine == "logits" else "chunked"

    def _try_length(self, base: nn.Module, fit: Fit, input_ids: Tensor) -> None:
        """Compare a row, longer than those before, with the plain model."""
        if depends_on_length(base, input_ids):
            fit.equal_lengths, fit.longest_row = True, 0
            warn_once(base, f"its predictions depend on the length of the row; {ALONE}, beside rows as long")
        fit.tested = input_ids.shape[1]

    def _try_longer(self, base: nn.Module, fit: Fit, rows: _Rows) -> None:
        """Try the longest row, where it is longer than all that were tried before: alone, then packed."""
        alone = _alone(rows)
        longest = int(alone.lengths.max())
        if longest > fit.tested:
            row = int(alone.lengths.argmax())
            self._try_length(base, fit, alone.input_ids[row : row + 1, :longest])
        longest = int(rows.lengths.max())
        if rows.packed and fit.longest_row and longest > fit.tested_packed:
            row = int(rows.lengths.argmax())
            numbers = rows.numbers[row : row + 1, :longest]
            misfit = packed_row_misfit(
                base, rows.input_ids[row : row + 1, :longest], numbers, int(numbers.max())
            )
            if misfit:
                fit.longest_row = 0
                warn_once(base, f"in a row of {longest} tokens {misfit}; {ALONE}")
            fit.tested_packed = longest

    def _values(
        self, model: nn.Module, rows: _Rows, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Response numbers and values of all response tokens; with weights also their weighted sum."""
        base, fit = unwrapped(model), self.fit_of(model)
        if not sharding_of(model):
            self._try_longer(base, fit, rows)
        if rows.packed and not fit.longest_row:
            rows = _alone(rows)
        parts = [
            self._pass(model, part, weights) for part in (_by_length(rows) if fit.equal_lengths else [rows])
        ]
        numbers, values, losses = zip(*parts, strict=True)
        loss = None if weights is None else torch.stack(losses).sum()
        return torch.cat(numbers), torch.cat(values), loss

    def _pass(
        self,
        model: nn.Module,
        rows: _Rows,
        weights: Tensor | None,
        inputs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same for rows that go through the model together, as ``inputs`` of their own if given."""
        base = unwrapped(model)
        where = rows.predicts.flatten().nonzero().flatten()
        numbers = rows.numbers.flatten()[where]
        targets = rows.input_ids.flatten()[where + 1] if self.quantity == "surprisal" else None
        coefficients = None if weights is None else weights[numbers]
        if inputs is not None:
            kwargs = inputs
        elif rows.packed:
            kwargs = packed_inputs(base, rows.input_ids, rows.attention_mask, rows.numbers)
        else:
            kwargs = plain_inputs(rows.input_ids)
        if self.engine_for(model) == "chunked":
            with caught_hidden(base) as caught:
                model(**kwargs, logits_to_keep=1)
            if not caught:
                # A graph compiled before the hook was set does not call it.
                misfit = "its decoder runs inside a compiled graph, where its hidden states cannot be read"
                self._choose_engine(base, self.fit_of(model), misfit)
        if self.engine_for(model) == "logits":
            values = self._from_logits(model, base, kwargs, rows.predicts, where, targets)
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
        if accepts(base, "logits_to_keep"):
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
        budget = chunk_budget(self.chunk_bytes, logits.device)
        rows = max(1, budget // (4 * logits.shape[-1] * max(4, logits.dtype.itemsize)))
        return recomputed(values_of, rows, logits, targets)


# --- Rows ---------------------------------------------------------------------------------------------------


def _rows(input_ids: Tensor, attention_mask: Tensor, predicts: Tensor, owners: Tensor | None) -> _Rows:
    """The given rows, their padding moved to the right: behind a causal model's tokens it changes nothing."""
    packed = owners is not None
    if owners is None:
        owners = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
    if bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
        order = attention_mask.argsort(dim=1, descending=True, stable=True)
        input_ids, attention_mask, predicts, owners = (
            x.gather(1, order) for x in (input_ids, attention_mask, predicts, owners)
        )
    return _Rows(input_ids, attention_mask, predicts, owners, packed)


def _alone(rows: _Rows) -> _Rows:
    """Each response of packed rows in a row of its own, behind its prompt."""
    if not rows.packed:
        return rows
    numbers = rows.numbers[rows.attention_mask.bool() & (rows.numbers >= 0)].unique()
    if not len(numbers):
        return replace(rows, numbers=rows.numbers.clamp(min=0), packed=False)
    home = (rows.numbers[None] == numbers[:, None, None]).any(dim=-1).int().argmax(dim=1)
    own = rows.numbers[home] == numbers[:, None]
    kept = rows.attention_mask[home].bool() & (own | (rows.numbers[home] < 0))
    order = kept.int().argsort(dim=1, descending=True, stable=True)[:, : int(kept.sum(dim=1).max())]
    return _Rows(
        rows.input_ids[home].gather(1, order),
        kept.gather(1, order).long(),
        (rows.predicts[home] & own).gather(1, order),
        numbers[:, None].expand_as(order),
        packed=False,
    )


def _by_length(rows: _Rows) -> list[_Rows]:
    """Rows of one length together, none of them padded."""
    lengths = rows.lengths.clamp(min=1)
    parts = []
    for n in lengths.unique().tolist():
        same = lengths == n
        tensors = (rows.input_ids, rows.attention_mask, rows.predicts, rows.numbers)
        ids, mask, predicts, numbers = (x[same, :n] for x in tensors)
        parts.append(_Rows(ids, mask, predicts, numbers, packed=False))
    return parts


def _counts(input_ids: Tensor, attention_mask: Tensor, predicts: Tensor, owners: Tensor | None) -> Tensor:
    """How many tokens each response has, after checking that shapes agree."""
    shapes = [tuple(x.shape) for x in (input_ids, attention_mask, predicts, owners) if x is not None]
    if len(set(shapes)) > 1:
        raise InputError(
            f"input_ids, attention_mask and predicts (and owners) have shapes {shapes}; they describe the "
            "same tokens; give tensors of the same shape"
        )
    if bool(predicts[:, -1].any()):
        raise InputError(
            f"predicts is True in the last column {predicts.shape[1] - 1}; no token follows there; set it at "
            "the position before each response token"
        )
    if owners is None:
        return predicts.sum(dim=1)
    scored = owners[predicts]
    if bool((scored < 0).any()):
        raise InputError(
            "predicts is True where owners is -1; a shared token belongs to no single response; repeat the "
            "last token of the prompt before each response"
        )
    return torch.bincount(scored)


def _summed(numbers: Tensor, values: Tensor, counts: Tensor) -> EntropySums:
    return EntropySums(values.new_zeros(len(counts)).index_add(0, numbers, values), counts)
