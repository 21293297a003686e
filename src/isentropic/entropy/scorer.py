"""Response entropies of a model: rows of tokens in, sums and counts out, one door to both engines.

The model's own forward gives the hidden states, `entropy.py` the entropies. Whether its fast ways are right for a model is
tried on that model, once, and they are left where they are not. Who needs a mean divides at the edge.
"""

from __future__ import annotations

import weakref
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
    Engine,
    _accepts,
    _caught_hidden,
    _inputs,
    _misfit,
    _packing_misfit,
    _reach,
    _sharded,
    _tell,
    unwrapped,
)
from isentropic.entropy.reference import EntropySums, Quantity, refuse_empty
from isentropic.errors import InputError

# In longer packed rows attention to what is masked costs more than the prompt encoded once saves.
LONGEST_ROW = 512


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
        chunk_bytes: memory for logits, bytes; 128 MiB on a CPU and 1 GiB on a GPU where not given.
        quantity: "entropy" of the next token's distribution, or "surprisal" -log p of the next token itself.

    Raises:
        InputError: an unknown engine or quantity; engine "chunked" for a model it does not fit.
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
        refuse_empty(counts, row_weights)
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
        base = unwrapped(model)
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
        base = unwrapped(model)
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
        base = unwrapped(model)
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
        budget = chunk_budget(self.chunk_bytes, logits.device)
        rows = max(1, budget // (4 * logits.shape[-1] * max(4, logits.dtype.itemsize)))
        return recomputed(values_of, rows, logits, targets)


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
