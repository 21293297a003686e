"""What a trial on the model itself needs: a text it knows, and a comparison of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isentropic.models.model import context_length, evaluating, precision, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "The nurse told us that the road to the town was closed, and that we had to walk."


def ordinary_text(tokenizer: PreTrainedTokenizerBase, model: Any) -> list[int]:
    """Token ids of a plain sentence, as many as the model can take.

    Special tokens are left out: some models treat them in a way of their own.
    """
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    known = [token for token in ids if token < vocabulary_size(model)]
    return known[: context_length(model)]


@torch.no_grad()
def sentence_logits(model: Any, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """The logits of a model for an ordinary sentence, in the dtype of its weights."""
    ids = torch.tensor([ordinary_text(tokenizer, model)], device=model.device)
    with evaluating(model), precision(model.device, False):
        return model(input_ids=ids, use_cache=False).logits


def same_logits(truth: Tensor, ours: Tensor) -> bool:
    """Whether two tensors of logits are equal within the rounding of their dtype.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, -2.0, -torch.inf]])
        >>> same_logits(z, z + 1e-6), same_logits(z, z + 1e-2)
        (True, False)
    """
    if truth.shape != ours.shape:
        return False
    tolerance = 2e-2 if min(truth.dtype.itemsize, ours.dtype.itemsize) < 4 else 1e-4
    truth, ours = truth.float(), ours.float()
    largest = truth.masked_fill(~truth.isfinite(), 0).abs().amax(dim=-1, keepdim=True)
    return bool(((truth == ours) | ((truth - ours).abs() <= tolerance * largest + 1e-6)).all())
