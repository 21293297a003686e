"""Responses: sampled from the model once, in equal number from each twin,
and appended to the prompts that are scored on them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from isentropic.models.identity import computation
from isentropic.models.model import context_length, evaluating, precision, vocabulary_size
from isentropic.models.shared_work import agreed, shared_out
from isentropic.models.trial import same_logits
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.cache import keep, read_kept, sha256_of
from isentropic.responses.encode import encode_prompts, end_tokens
from isentropic.settings import MeasureSettings, SamplingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


log = logging.getLogger("isentropic")
Tokens = tuple[int, ...]
Job = tuple[Tokens, int]
Jobs = Sequence[Job]
"""Prompts to be answered, each with the number of the answer."""
Entropies = dict[tuple[Tokens, Tokens], float]
"""Prompt and response -> response entropy in nats."""
Progress = Callable[[int, int], None]  # (done, total)
"""Called after each batch with how many are done and how many there are."""

TOKENS_A_BATCH = 2048
"""Padded tokens that go through the model at once where nothing is kept for a backward pass, on a CPU."""
GPU_TOKENS_A_BATCH = 8 * TOKENS_A_BATCH
"""The same on a GPU, where a step of decoding takes about as long for many rows as for a few."""


class Draw(IntEnum):
    """What is added to the seed of a run for each kind of draw, so that no two share their random numbers."""

    TRAINING = 0
    VALIDATION = 1
    NEUTRAL = 2
    GUARD = 3
    TEST = 4
    REFRESHED = 1000
    """The first of those that ``--refresh_responses`` draws, one more each time."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        max_new_tokens: the longest response, in tokens.
        sample_temp: the sampling temperature; 0 is greedy. (Entropy itself is always that of temperature 1.)
        num_responses: responses drawn from each prompt.
        seed: the same seed, prompt and model give the same response, whatever else is in the batch.
        chat: apply the tokenizer's chat template to the prompt.
        system: the system message of the chat, if any.
        chat_template_kwargs: more options for the chat template, as a JSON object.
    """

    max_new_tokens: int = SamplingSettings.max_new_tokens
    sample_temp: float = SamplingSettings.sample_temp
    num_responses: int = SamplingSettings.num_responses
    seed: int = MeasureSettings.seed
    chat: bool = False
    system: str | None = None
    chat_template_kwargs: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with a response after it: what is scored.

    With own responses ``source`` is the prompt's own group. With shared responses each prompt is scored on
    the responses of all its twins, and ``source`` says whose it was.
    """

    prompt: Prompt
    prompt_ids: Tokens
    response_ids: Tokens
    source: str
    sample: int = 0

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


# --- Sampling -----------------------------------------------------------------------------------------------


class InverseSampler:
    """A logits processor that draws each row's token from that row's own uniform numbers.

    Token = the first j with ``cumsum(softmax(z / T))_j > u``. One number a token, fixed by seed, prompt and
    sample, so a row's response does not depend on the batch it is in.
    """

    def __init__(self, uniforms: Tensor, temperature: float, start: int) -> None:
        self.uniforms, self.temperature, self.start = uniforms, temperature, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.start
        cumulative = torch.softmax(scores.float() / self.temperature, -1).cumsum(-1)
        threshold = self.uniforms[:, step, None].to(scores.device) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def uniform_numbers(prompt_ids: Tokens, sample: int, sampling: Sampling) -> np.ndarray:
    """The (max_new_tokens,) uniform numbers of one response, fixed by seed, prompt and sample."""
    digest = hashlib.sha256(f"{sampling.seed}|{sample}|{prompt_ids}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big")).random(sampling.max_new_tokens)


def inverse_sampler(jobs: Jobs, sampling: Sampling, start: int) -> InverseSampler:
    """The sampler of a batch whose responses begin in column ``start``."""
    numbers = np.stack([uniform_numbers(ids, sample, sampling) for ids, sample in jobs])
    return InverseSampler(torch.from_numpy(numbers).float(), sampling.sample_temp, start)


class Watch(Protocol):
    """What looks on while responses are sampled, as long as it is ``on``."""

    on: bool
    twins: dict[Tokens, tuple[Tokens, ...]]
    """Prompt -> the prompts that are to be in one batch with it, where that can be."""
    known: Entropies

    def step(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        """See the logits that the next tokens are drawn from; returns them."""

    def batch(self, jobs: Jobs, drawn: Mapping[Job, Tokens], mask: Tensor, past: Any) -> None:
        """See the responses of a batch, the mask of its prompts, and its keys and values."""


@torch.no_grad()
def sample_responses(
    model: Any,
    encoded: Sequence[Tokens],
    sampling: Sampling,
    *,
    ends: Tokens,
    bf16: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> list[list[Tokens]]:
    """Draw ``num_responses`` responses to each encoded prompt, up to and including the end token.

    Long because what holds for all batches stands around the loop over them.

    Generation uses the key-value cache and pads on the left, or, where the model looks past the padding,
    takes prompts of one length, or one prompt, at a time. Equal prompts are sampled once.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    jobs = sorted(
        {(ids, sample) for ids in encoded for sample in range(sampling.num_responses)},
        key=lambda job: (len(job[0]), job),
    )
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
        return_dict_in_generate=True,
    )
    device = model.device

    def draw(part: Jobs) -> dict[Job, Tokens]:
        drawn: dict[Job, Tokens] = {}
        for batch in sampling_batches(part, sampling.max_new_tokens, together, tokens_a_batch(device)):
            rows, mask = left_padded([ids for ids, _ in batch], ends[0], device)
            width = rows.shape[1]
            processors = LogitsProcessorList()
            if watch and watch.on:
                processors.append(watch.step)  # type: ignore[arg-type]
            if sampling.sample_temp > 0:
                processors.append(inverse_sampler(batch, sampling, width))  # type: ignore[arg-type]
            output: Any = model.generate(
                input_ids=rows, attention_mask=mask, generation_config=config, logits_processor=processors
            )
            for job, row in zip(batch, output.sequences[:, width:].tolist(), strict=True):
                drawn[job] = until_end(row, ends)
            if watch and watch.on:
                watch.batch(batch, drawn, mask, output.past_key_values)
            del output  # its keys and values
            if progress:
                progress(len(drawn), len(part))
        return drawn

    with (
        evaluating(model),
        precision(device, bf16),
        own_generation_config(model, config),
        contextlib.ExitStack() as way,
    ):
        if jobs and generates_otherwise(model, jobs[-1][0], sampling.max_new_tokens, ends[0]):
            way.enter_context(plain_steps(model))
            watch, config.use_cache = None, False
        together = may_share(model, jobs, sampling.max_new_tokens, ends[0])
        if together != "padded":
            watch = None
        elif watch:
            jobs = beside_their_twins(jobs, watch.twins)
        drawn = shared_out(model, jobs, draw)
    return [[drawn[ids, sample] for sample in range(sampling.num_responses)] for ids in encoded]


# --- What may share a batch ---------------------------------------------------------------------------------

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


def generating(model: Any) -> Any:
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

    base = generating(model)
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
        use_cache="prepare_inputs_for_generation" not in vars(generating(model)),  # as `plain_steps` asks
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


# --- The end of a response, and batches ---------------------------------------------------------------------


def until_end(row: Sequence[int], ends: Tokens) -> Tokens:
    """The tokens up to and including the first end token.

    Example:
        >>> until_end([5, 6, 2, 2, 2], ends=(2,))
        (5, 6, 2)
    """
    for position, token in enumerate(row):
        if token in ends:
            return tuple(row[: position + 1])
    return tuple(row)


def tokens_a_batch(device: torch.device) -> int:
    """How many padded tokens go through the model at once on a device,
    where nothing is kept for a backward pass."""
    return TOKENS_A_BATCH if device.type == "cpu" else GPU_TOKENS_A_BATCH


def token_batches(
    items: Sequence[Any], length: Callable[[Any], int], budget: int = TOKENS_A_BATCH
) -> Iterator[list]:
    """Cut items, sorted by length beforehand,
    into batches of at most ``budget`` padded tokens (one item at least)."""
    batch: list = []
    longest = 0
    for item in items:
        longest = max(longest, length(item))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], length(item)
        batch.append(item)
    if batch:
        yield batch


@contextlib.contextmanager
def own_generation_config(model: PreTrainedModel, config: Any) -> Iterator[None]:
    """Keep the model's own generation settings (repetition penalties and the like) out of our sampling."""
    kept = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = kept


# --- Own and shared -----------------------------------------------------------------------------------------


def own_examples(
    prompts: Sequence[Prompt], encoded: Sequence[Tokens], responses: Sequence[Sequence[Tokens]]
) -> list[Example]:
    """Each prompt on its own responses."""
    return [
        Example(prompt, ids, response, prompt.group, sample)
        for prompt, ids, drawn in zip(prompts, encoded, responses, strict=True)
        for sample, response in enumerate(drawn)
    ]


def shared_examples(
    tuples: Sequence[tuple[Prompt, ...]],
    encoded: Sequence[tuple[Tokens, ...]],
    responses: Sequence[Sequence[Sequence[Tokens]]],
) -> list[Example]:
    """Each twin on the responses of every twin of its pair, its own among them.

    A pair of two with k responses a prompt gives 2 * 2k examples. What differs between the twins is then the
    prompt alone, and because every source counts equally the swap of the groups flips the sign of the gap.
    """
    return [
        Example(prompt, ids, response, source.group, sample)
        for twins, twin_ids, drawn in zip(tuples, encoded, responses, strict=True)
        for prompt, ids in zip(twins, twin_ids, strict=True)
        for source, own in zip(twins, drawn, strict=True)
        for sample, response in enumerate(own)
    ]


class ResponseSampler:
    """Prompts in, examples out; responses kept on disk by content,
    so the same question is never sampled twice.

    Args:
        model, tokenizer: what answers.
        model_sha256: names the model in the cache; ``None`` turns the cache off (weights that are changing).
        sampling: how responses are drawn.
        watch: looks on while they are drawn; what it finds is kept with the responses.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        *,
        model_sha256: str | None = None,
        bf16: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.model_sha256, self.bf16, self.watch = model_sha256, bf16, watch
        self.ends = end_tokens(model, tokenizer, sampling)

    def examples(
        self, tuples: Sequence[tuple[Prompt, ...]], *, shared: bool, progress: Progress | None = None
    ) -> list[list[Example]]:
        """The examples of each tuple of prompts (twins, or one prompt of each group), tuple by tuple."""
        flat = [prompt for twins in tuples for prompt in twins]
        ids = encode_prompts(
            flat, self.tokenizer, self.sampling, context_length(self.model), vocabulary_size(self.model)
        )
        rest = iter(ids)
        encoded = [tuple(itertools.islice(rest, len(twins))) for twins in tuples]
        if self.watch and shared:
            self.watch.twins |= {own: part for part in encoded for own in part}
        drawn = iter(self.responses(ids, progress))
        made = []
        for twins, part in zip(tuples, encoded, strict=True):
            answers = list(itertools.islice(drawn, len(twins)))
            made.append(
                shared_examples([twins], [part], [answers]) if shared else own_examples(twins, part, answers)
            )
        return made

    def responses(self, encoded: Sequence[Tokens], progress: Progress | None = None) -> list[list[Tokens]]:
        """The responses to each encoded prompt, from the cache where they are there."""
        key = self.cache_key(encoded)
        kept = read_kept(key) if key else None
        known = self.watch.known if self.watch else {}
        if agreed(self.model, kept is not None) and kept:
            drawn, entropies = kept
            known |= entropies
            return drawn
        drawn = sample_responses(
            self.model,
            encoded,
            self.sampling,
            ends=self.ends,
            bf16=self.bf16,
            progress=progress,
            watch=self.watch,
        )
        if key:
            keep(key, drawn, known)
        return drawn

    def cache_key(self, encoded: Sequence[Tokens]) -> str | None:
        """A hash of everything that decides the responses; None where the weights have no name."""
        if self.model_sha256 is None:
            return None
        settings = self.sampling
        return sha256_of(
            [
                self.model_sha256,
                computation(self.model),
                self.ends,
                self.bf16,
                settings.max_new_tokens,
                settings.sample_temp,
                settings.num_responses,
                settings.seed,
                encoded,
            ]
        )
