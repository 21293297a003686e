"""Which ways of scoring are right for a model? Trials on the model itself,
against its plain ``model(input_ids)``."""

from __future__ import annotations

import inspect
import logging
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isentropic.entropy.engine import Head, call
from isentropic.entropy.reference import at_least_float32
from isentropic.errors import InputError
from isentropic.models.model import context_length, evaluating, text_config
from isentropic.models.sharding import sharding_of

Engine = Literal["auto", "chunked", "logits"]

LONGEST_ROW = 512
"""In longer rows, attention over masked tokens costs more than sharing the prompt saves."""
TRIAL_LENGTH = 16
COMPARED = 32
"""Positions whose logits are compared in a trial: enough to see a difference,
few enough to hold in memory."""

logger = logging.getLogger("isentropic")
_warned: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


@dataclass
class Fit:
    """What trials have shown of one model.

    Attributes:
        engine: "chunked" or "logits".
        longest_row: the most tokens of a packed row; 0 where each response needs a row of its own.
        equal_lengths: whether rows that are scored together must be equally long.
        tested: tokens of the longest row that was compared with the plain model.
        tested_packed: the same of packed rows.
    """

    engine: str = "logits"
    longest_row: int = 0
    equal_lengths: bool = False
    tested: int = 0
    tested_packed: int = 0


def warn_once(base: nn.Module, text: str) -> None:
    """Log a warning about a model, the first time that it is so."""
    warned = _warned.setdefault(base, set())
    if text not in warned:
        warned.add(text)
        logger.warning("%s: %s", type(base).__name__, text)


# --- Looking at a model -------------------------------------------------------------------------------------


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside DDP, a compiled module, PEFT."""
    while True:
        if isinstance(inner := getattr(model, "module", None), nn.Module):
            model = inner
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(inner := call(model, "get_base_model"), nn.Module):
            model = inner
        else:
            return model


def decoder_of(base: Any) -> nn.Module | None:
    """What makes the hidden states: neither the model itself nor its head."""
    head = call(base, "get_output_embeddings")
    for found in (call(base, "get_decoder"), getattr(base, "base_model", None), getattr(base, "model", None)):
        if isinstance(found, nn.Module) and found is not base and found is not head:
            return found
    return None


def accepts(base: nn.Module, name: str) -> bool:
    """Whether the model's forward takes an argument of this name."""
    parameters = inspect.signature(base.forward).parameters
    # A wrapper's (*args, **kwargs) passes on what it is given.
    return name in parameters or "input_ids" not in parameters


def attention_of(base: Any) -> str:
    """The name of the model's attention: eager, sdpa, flash_attention_2 ..."""
    return str(text_config(base)._attn_implementation)


def reach_of(base: Any) -> list[int]:
    """How far the model's positions and windows reach, where its config speaks of such."""
    config = text_config(base).to_dict()
    names = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size", "index_topk")
    found = [context_length(base), *(config.get(name) for name in names)]
    return [reach for reach in found if isinstance(reach, int) and reach > 0]


def ordinary_ids(base: Any, count: int) -> Tensor:
    """(1, count) token ids from the middle of the vocabulary,
    none of them one that the configuration names."""
    size = base.get_input_embeddings().weight.shape[0]
    special: set[Any] = set()
    for config in (getattr(base, "config", None), getattr(base, "generation_config", None)):
        for name, value in (config.to_dict() if config is not None else {}).items():
            if re.search(r"token_ids?$|_index$", name):
                special |= set(value if isinstance(value, list) else [value])
    middle = [token for token in range(size // 4, max(size // 4 + 1, 3 * size // 4)) if token not in special]
    chosen = torch.randint(len(middle) or size, (1, count), generator=torch.Generator().manual_seed(0))
    ids = torch.tensor(middle or list(range(size)))[chosen]
    return ids.to(next(base.parameters()).device)


# --- Passing rows through it --------------------------------------------------------------------------------


def plain_inputs(input_ids: Tensor) -> dict[str, Any]:
    """What the model is given for rows padded on the right: their tokens alone.

    A causal model needs no mask for them, since no token sees what follows it, and counts its positions
    itself.
    """
    return {"input_ids": input_ids, "use_cache": False}


def packed_inputs(base: Any, input_ids: Tensor, attention_mask: Tensor, owners: Tensor) -> dict[str, Any]:
    """What the model is given for packed rows: a mask of our own,
    and positions that start again after the prompt."""
    seen = visible(attention_mask, owners)
    # A token's position is the number of tokens that it sees before itself: each response starts where the
    # prompt ends.
    return {
        **plain_inputs(input_ids),
        "position_ids": seen.sum(dim=-1) - 1,
        "attention_mask": mask_of(base, seen),
    }


def visible(attention_mask: Tensor, owners: Tensor) -> Tensor:
    """(B, T, T) bool, True where the token of the row sees that of the column:
    shared ones and those of its response."""
    related = (owners[:, None, :] < 0) | (owners[:, None, :] == owners[:, :, None])
    seen = (related & attention_mask[:, None, :].bool()).tril()
    # Padding sees itself: a softmax over nothing is nan.
    return seen | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)


def mask_of(base: Any, seen: Tensor) -> Tensor:
    """(B, 1, T, T) mask in the form that the model's attention takes."""
    if attention_of(base) == "sdpa":
        return seen[:, None]
    lowest = torch.finfo(base.dtype).min
    return torch.zeros(seen.shape, dtype=base.dtype, device=seen.device).masked_fill(~seen, lowest)[:, None]


@contextmanager
def caught_hidden(base: nn.Module, replace: Callable[[Tensor], Tensor] | None = None) -> Iterator[list[Any]]:
    """Catches the decoder's last hidden state, and the autocast it ran under,
    from inside the model's forward."""
    caught: list[Any] = []

    def catch(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = getattr(output, "last_hidden_state", output[0] if isinstance(output, tuple) else None)
        if not isinstance(hidden, Tensor):
            return output  # it is not a decoder
        kind = hidden.device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        if replace is not None:
            hidden = replace(hidden)
            if isinstance(output, tuple):
                output = (hidden, *output[1:])
            else:
                output.last_hidden_state = hidden
        # Trainers may enter autocast inside the wrapped forward only: the head is to run as it would have
        # there.
        caught.append((hidden, lambda: torch.autocast(kind, dtype=dtype, enabled=enabled)))
        return output

    decoder = decoder_of(base)
    assert decoder is not None
    handle = decoder.register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


@contextmanager
def trial(base: nn.Module, *, gradient: bool = False) -> Iterator[None]:
    """No autocast, no dropout and, unless asked for, no gradient inside the block;
    each part in its mode after it."""
    kind = next(base.parameters()).device.type
    with evaluating(base), torch.set_grad_enabled(gradient), torch.autocast(kind, enabled=False):
        yield


def plain_logits(base: Any, input_ids: Tensor, positions: Tensor) -> Tensor:
    """The (n, V) logits of one row at n positions, from the model and its tokens alone."""
    inputs = plain_inputs(input_ids)
    if len(positions) == input_ids.shape[1] or not accepts(base, "logits_to_keep"):
        return base(**inputs).logits[0, positions]
    return base(**inputs, logits_to_keep=positions).logits[0]


# --- Comparing ----------------------------------------------------------------------------------------------


def log_odds_error(truth: Tensor, ours: Tensor) -> Tensor:
    """How far the log-probabilities of two (n, V) logits are apart at each position,
    in units of their spread.

    e_i = rms_j(log p_ij - log q_ij) / std_j(log p_ij). Tokens of probability 0 in both do not count.
    """
    log_p, log_q = (torch.log_softmax(at_least_float32(z), dim=-1) for z in (truth, ours))
    finite = log_p > -torch.inf
    log_p = log_p.masked_fill(~finite, 0.0)
    log_q = log_q.masked_fill(~finite & (log_q == -torch.inf), 0.0)
    count = finite.sum(-1)
    mean = log_p.sum(-1) / count
    spread = ((log_p - mean[:, None]).masked_fill(~finite, 0.0).square().sum(-1) / count).sqrt()
    return ((log_p - log_q).square().sum(-1) / count).sqrt() / (spread + 1e-3)


def same_logits(base: nn.Module, truth: Tensor, ours: Tensor) -> bool:
    """Whether (n, V) logits are equal within what rounding does in the dtype of the model.

    In a narrow dtype a single position may be far off, where rounding sends a token to another expert: their
    mean counts.
    """
    if truth.shape != ours.shape:
        return False
    if bool(truth.isnan().any()):
        return bool(ours.isnan().any())  # broken weights: no way of passing rows is at fault
    error = log_odds_error(truth, ours)
    weights = next((p for p in base.parameters() if p.is_floating_point()), None)
    itemsize = min(truth.dtype.itemsize, ours.dtype.itemsize, 4 if weights is None else weights.itemsize)
    quantised = any(not p.is_floating_point() for p in base.parameters())
    if itemsize < 4 or quantised or torch.get_float32_matmul_precision() != "highest":
        return bool(error.mean() <= 0.1)
    return bool(error.max() <= 1e-4)


# --- Trials -------------------------------------------------------------------------------------------------


def head_misfit(model: nn.Module, base: nn.Module) -> str | None:
    """Why the chunked engine cannot serve this model, or None."""
    if sharded := sharding_of(model):
        return sharded
    head = Head.of(base)
    if head is None or decoder_of(base) is None:
        return "the engine does not know its decoder or head"
    if not accepts(base, "logits_to_keep"):
        return "its forward takes no logits_to_keep"
    ids = ordinary_ids(base, 4)
    # A soft cap hardly bends the small logits of a fresh model: enlarge the hidden states until it shows.
    sizes = torch.tensor([1.0, 4.0, 16.0, 64.0], device=ids.device)[None, :, None]
    with trial(base), caught_hidden(base, lambda hidden: (hidden * sizes).to(hidden.dtype)) as caught:
        own = base(**plain_inputs(ids)).logits[0]
        if not caught or caught[-1][0].shape[:2] != ids.shape:
            return "the engine does not know its decoder or head"
        hidden, autocast = caught[-1]
        with autocast():
            ours = head.logits(hidden)[0]
    return None if same_logits(base, own, ours) else "its logits are not those of its head"


def depends_on_length(base: nn.Module, input_ids: Tensor) -> bool:
    """Whether the model's predictions in a row depend on how long the row is,
    though not on what its later tokens are.

    The logits of prefixes of the row, which they would be alone, are compared with those of the whole row.

    Args:
        base: a causal language model, not wrapped.
        input_ids: (1, n) tokens of a row.

    Raises:
        InputError: predictions depend on later tokens, or on nothing that can be given again; it cannot take
            so long a row.
    """
    n = input_ids.shape[1]
    positions = torch.linspace(0, n - 1, min(n, COMPARED), device=input_ids.device).long()
    name = type(base).__name__
    with trial(base):
        try:
            whole = plain_logits(base, input_ids, positions)
        except (IndexError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise InputError(
                f"{name} cannot read a row of {n} tokens ({first_line(error)}); prompt and response must fit "
                "the model's context; shorten the prompts or the responses"
            ) from error
        for length in sorted({min(8, n - 1), n // 4, n // 2} - {0}):
            before = positions < length
            part = plain_logits(base, input_ids[:, :length], positions[before])
            if same_logits(base, whole[before], part):
                continue
            if not same_logits(base, whole, plain_logits(base, input_ids, positions)):
                raise InputError(
                    f"{name} gives different predictions for the same tokens each time; its entropy has no "
                    "meaning; switch its randomness off in its configuration"
                )
            changed = input_ids.clone()
            changed[:, length:] = input_ids.flip(1)[:, : n - length]
            other = plain_logits(base, changed, positions)
            if not same_logits(base, whole[before], other[before]):
                raise InputError(
                    f"{name} is not a causal language model: in a row of {n} tokens its prediction of token "
                    f"{length} changes when later tokens change; the entropy of a response would have no "
                    "meaning; give a model that reads from left to right"
                )
            return True
    return False


def packing_misfit(base: Any) -> str | None:
    """Why packed rows would not be right for this model, or None; tried on a small one."""
    if not hasattr(base, "config") or not accepts(base, "position_ids"):
        return "its forward takes no position_ids"
    if attention_of(base) not in ("eager", "sdpa"):
        return f"its attention, {attention_of(base)}, does not accept a 4-D attention mask"
    ids = ordinary_ids(base, 10)[0]
    prompt, first, second = ids[:5], ids[4:8], torch.cat([ids[4:5], ids[8:]])
    row = torch.cat([prompt[:-1], first, second])[None]
    owners = torch.tensor([[-1] * 4 + [0] * len(first) + [1] * len(second)], device=row.device)
    return packed_row_misfit(base, row, owners, 1)


def packed_row_misfit(base: Any, input_ids: Tensor, owners: Tensor, number: int) -> str | None:
    """Why a response in a packed row does not come out as it does alone in the plain model, or None.

    Args:
        base: a causal language model, not wrapped.
        input_ids: (1, T) tokens of a packed row, without padding.
        owners: (1, T) the number of the response that a token belongs to, -1 for what all share.
        number: the response to look at.
    """
    alone = ((owners[0] < 0) | (owners[0] == number)).nonzero().flatten()
    own = (owners[0, alone] == number).nonzero().flatten()
    own = own[torch.linspace(0, len(own) - 1, min(len(own), COMPARED), device=own.device).long()]
    inputs = packed_inputs(base, input_ids, torch.ones_like(input_ids), owners)
    with trial(base):
        truth = plain_logits(base, input_ids[:, alone], own)
        try:
            if accepts(base, "logits_to_keep"):
                ours = base(**inputs, logits_to_keep=alone[own]).logits[0]
            else:
                ours = base(**inputs).logits[0, alone[own]]
        except Exception as error:  # whatever the model makes of a mask that it does not know
            return f"its forward does not accept a 4-D attention mask ({type(error).__name__})"
    return (
        None if same_logits(base, truth, ours) else "responses in a packed row get other entropies than alone"
    )


def gradient_misfit(base: Any) -> str | None:
    """Why the model cannot be trained as it is measured, or None;
    tried by one small backward pass to its input."""
    if rewrites_weights(base):
        return "its forward pass changes its weights"
    size = torch.zeros((), device=base.device, requires_grad=True)
    seen: list[int] = []

    def shifted(_module: nn.Module, _args: Any, output: Any) -> Any:
        seen.append(1)
        return output + size * torch.ones_like(output).cumsum(-1) / output.shape[-1]

    handle = base.get_input_embeddings().register_forward_hook(shifted)
    try:
        with trial(base, gradient=True):
            logits = at_least_float32(base(**plain_inputs(ordinary_ids(base, TRIAL_LENGTH))).logits)
            if not seen:
                return None
            total = torch.logsumexp(logits, dim=-1).sum()
            if not total.requires_grad:
                return "no gradient reaches its input"
            (found,) = torch.autograd.grad(total, size, allow_unused=True)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"its backward pass fails ({first_line(error)})"
    finally:
        handle.remove()
    return "no gradient reaches its input" if found is None or not bool(found) else None


def rewrites_weights(base: Any) -> bool:
    """Whether the model changes its weights by itself when it goes from training to evaluation mode or
    back."""
    inputs = plain_inputs(ordinary_ids(base, 4))
    versions = [parameter._version for parameter in base.parameters()]
    with trial(base), torch.random.fork_rng():
        base(**inputs)
        base.train()
        base(**inputs)
        base.eval()
        base(**inputs)
    return versions != [parameter._version for parameter in base.parameters()]


def first_line(error: Exception) -> str:
    """Kind and first line of an error, for a message of one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
