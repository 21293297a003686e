"""Responses: sampled from the model once, in equal number from each twin,
and appended to the prompts that are scored on them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isentropic.models.identity import computation
from isentropic.models.model import context_length, evaluating, precision, vocabulary_size
from isentropic.models.shared_work import agreed, shared_out
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import tokens_a_batch
from isentropic.responses.cache import keep, read_kept, sha256_of
from isentropic.responses.encode import encode_prompts, end_tokens
from isentropic.responses.generating import (
    beside_their_twins,
    generates_otherwise,
    left_padded,
    may_share,
    own_generation_config,
    plain_steps,
    sampling_batches,
)
from isentropic.responses.response import Entropies, Example, Job, Jobs, Progress, Sampling, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("isentropic")

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


# --- The end of a response ----------------------------------------------------------------------------------


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
