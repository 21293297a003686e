"""Does this model suit the engine? Trials on the model itself."""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isentropic.entropy.engine import Head, call
from isentropic.entropy.reference import at_least_float32
from isentropic.models.sharding import is_sharded

Engine = Literal["auto", "chunked", "logits"]

logger = logging.getLogger("isentropic")
_told: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def _tell(base: nn.Module, text: str) -> None:
    """Log a warning about a model once."""
    told = _told.setdefault(base, set())
    if text not in told:
        told.add(text)
        logger.warning("%s: %s", type(base).__name__, text)


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


def _decoder(base: nn.Module) -> nn.Module | None:
    decoder = call(base, "get_decoder")
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
    if any(is_sharded(parameter) for parameter in base.parameters()):
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
    truth, ours = at_least_float32(truth), at_least_float32(ours)
    tolerance = 2e-2 if itemsize < 4 else 1e-4
    largest = truth.abs().amax(dim=-1, keepdim=True)
    return bool(((truth - ours).abs() <= tolerance * largest + 1e-6).all())
