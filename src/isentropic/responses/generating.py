"""A model's ``generate()``: whether it says what the model itself says, and which prompts may share a
batch of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from isentropic.models.model import precision
from isentropic.models.trial import same_logits
from isentropic.responses.batches import TOKENS_A_BATCH, token_batches
from isentropic.responses.response import Job, Jobs, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("isentropic")

Together = Literal["padded", "of one length", "alone"]
TRIAL_STEPS = 3
ALL_STEPS = 16
"""Of one prompt a whole response of usual length: a cache may fail once a row has grown long enough."""
MOST_ROUNDING = 3
"""A difference of up to so many times what rounding alone makes is taken for rounding."""
_together: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Together, int, int]] = weakref.WeakKeyDictionary()
"""What the trial of a model said, and the longest prompt and the number of steps it was made with."""
_otherwise: weakref.WeakKeyDictionary[torch.nn.Module, tuple[bool, int]] = weakref.WeakKeyDictionary()
"""Whether ``generate()`` gives other logits than the model, and the longest row it was tried with."""


def sampling_batches(
    jobs: Jobs, max_new_tokens: int, together: Together, budget: int = TOKENS_A_BATCH
) -> Iterator[list[tuple[Tokens, int]]]:
    """Batches of jobs that are sorted by length, or, padded, as they come."""
    if together == "alone":
        yield from ([job] for job in jobs)
        return
    for _, group in itertools.groupby(jobs, lambda job: 0 if together == "padded" else len(job[0])):
        yield from token_batches(list(group), lambda job: len(job[0]) + max_new_tokens, budget)


def beside_their_twins(jobs: Jobs, twins: Mapping[Tokens, tuple[Tokens, ...]]) -> list[Job]:
    """The jobs in the order of the longest prompt of all twins, twins beside each other."""
    family = {ids: twins.get(ids, (ids,)) for ids, _ in jobs}
    return sorted(jobs, key=lambda job: (max(map(len, family[job[0]])), family[job[0]]))


def may_share(model: Any, jobs: Jobs, max_new_tokens: int, pad: int) -> Together:
    """Which prompts may be in a batch such that each gives the logits that it gives alone.

    Recurrent models and some others look past the attention mask, or mix the rows of a batch. Tried at the
    first tokens of a response: the shortest prompt alone, beside the longest one, and beside one of its own
    length.
    """
    found, longest, steps = _together.get(model, ("padded", 0, 0))
    if len(jobs) < 2 or found == "alone":
        return found
    short, long = jobs[0][0], jobs[-1][0]
    if len(long) <= longest and min(TRIAL_STEPS, max_new_tokens) <= steps:
        return found
    steps = min(TRIAL_STEPS, max_new_tokens)
    forced = [(row * steps)[:steps] for row in (long, long[::-1])]
    alone = first_logits(model, [short], forced, pad)

    def changed_by(neighbour: Tokens) -> bool:
        beside = first_logits(model, [short, neighbour], forced, pad)
        return not (
            same_logits(alone, beside) or within_rounding(model, alone, beside, short, forced[0], pad)
        )

    if found == "padded" and changed_by(long):
        found = "of one length"
    if (found == "of one length" or len(short) == len(long)) and changed_by(long[::-1][: len(short)]):
        found = "alone"
    if found != "padded" and model not in _together:
        log.warning(
            "%s answers a prompt differently next to prompts of other lengths; responses are sampled from "
            "prompts %s",
            type(model).__name__,
            found,
        )
    _together[model] = found, len(long), steps
    return found


def generates_otherwise(model: Any, prompt: Tokens, max_new_tokens: int, pad: int) -> bool:
    """Whether ``generate()`` gives other logits than the model itself, ``model(input_ids)``,
    at the first tokens, or none at all.

    It counts positions from 0 where RoBERTa begins behind the padding id, and it needs a cache that is right.
    """
    found, longest = _otherwise.get(model, (False, 0))
    forced = (prompt * ALL_STEPS)[: min(ALL_STEPS, max_new_tokens)]
    if found or len(prompt) + len(forced) <= longest:
        return found
    row = torch.tensor([[*prompt, *forced[:-1]]], device=model.device)
    with precision(model.device, False):
        plain = model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 :]
    try:
        ours = first_logits(model, [prompt], [forced], pad)
        found = not (same_logits(plain, ours) or within_rounding(model, plain, ours, prompt, forced, pad))
    except Exception as error:  # whatever a cache that does not suit the model raises
        log.info("generate() failed: %s", error)
        found = True
    if found:
        log.warning(
            "%s: generate() gives other predictions than the model itself; each token is sampled after a "
            "pass over all before it",
            type(model).__name__,
        )
    _otherwise[model] = found, len(prompt) + len(forced)
    return found


def within_rounding(
    model: Any, truth: Tensor, ours: Tensor, prompt: Tokens, forced: Tokens, pad: int
) -> bool:
    """Whether two (steps, vocabulary) logits differ by no more than rounding makes of the model's own ones.

    The same prompt alone, its input embeddings moved up or down by one unit of rounding, is as right a
    computation in the model's dtype: how far it leads is what rounding does in this model. In bfloat16 that
    may be a tenth of a logit. Differences are root mean squares of log-probabilities.
    """

    def one_unit(_module: Any, _args: Any, output: Tensor) -> Tensor:
        draws = torch.Generator(output.device).manual_seed(0)
        up = torch.rand(output.shape, generator=draws, device=output.device) < 0.5
        return output * torch.where(
            up, 1 + torch.finfo(output.dtype).eps, 1 - torch.finfo(output.dtype).eps
        ).to(output.dtype)

    def apart(first: Tensor, second: Tensor) -> Tensor:
        log_p, log_q = (torch.log_softmax(z.float(), dim=-1) for z in (first, second))
        return torch.where(log_p == log_q, 0.0, log_p - log_q).square().mean().sqrt()

    alone = first_logits(model, [prompt], [forced], pad)
    handle = model.get_input_embeddings().register_forward_hook(one_unit)
    try:
        moved = first_logits(model, [prompt], [forced], pad)
    finally:
        handle.remove()
    return bool(apart(truth, ours) <= MOST_ROUNDING * apart(alone, moved))


def generator_of(model: Any) -> Any:
    """The model whose ``generate()`` it is: PEFT hands the call on."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def plain_steps(model: Any) -> Iterator[None]:
    """Each step of ``generate()`` inside the block reads its row from the start,
    as ``model(input_ids)`` does: slow, right."""

    # The mask has a name here, or models that take none would refuse it.
    def prepare(input_ids: Tensor, attention_mask: Any = None, **kwargs: Any) -> dict[str, Any]:
        kept = {name: kwargs[name] for name in ("logits_to_keep",) if name in kwargs}
        return {"input_ids": input_ids, "use_cache": False, **kept}

    base = generator_of(model)
    own = vars(base).get("prepare_inputs_for_generation")
    base.prepare_inputs_for_generation = prepare
    try:
        yield
    finally:
        del base.prepare_inputs_for_generation
        if own is not None:
            base.prepare_inputs_for_generation = own


def first_logits(model: Any, prompts: Sequence[Tokens], forced: Sequence[Tokens], pad: int) -> Tensor:
    """(steps, vocabulary) logits that follow the first prompt,
    if each row continues with the tokens ``forced``."""
    from transformers import GenerationConfig, LogitsProcessorList

    rows, mask = left_padded(prompts, pad, model.device)
    goes_on = torch.tensor([forced[row] for row in range(len(prompts))], device=model.device)

    def force(input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - rows.shape[1]
        return torch.full_like(scores, -torch.inf).scatter(1, goes_on[:, step, None], 0.0)

    config = GenerationConfig(
        max_new_tokens=goes_on.shape[1],
        do_sample=False,
        pad_token_id=pad,
        use_cache="prepare_inputs_for_generation" not in vars(generator_of(model)),  # as `plain_steps` asks
        output_logits=True,
        return_dict_in_generate=True,
    )
    with precision(model.device, False), own_generation_config(model, config):
        output = model.generate(
            input_ids=rows,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([force]),  # type: ignore[list-item]
        )
    return torch.stack(output.logits)[:, 0]


def left_padded(prompts: Sequence[Tokens], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of a batch of prompts."""
    width = max(len(ids) for ids in prompts)
    rows = [[pad] * (width - len(ids)) + list(ids) for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)


@contextlib.contextmanager
def own_generation_config(model: PreTrainedModel, config: Any) -> Iterator[None]:
    """Keep the model's own generation settings (repetition penalties and the like) out of our sampling."""
    kept = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = kept
